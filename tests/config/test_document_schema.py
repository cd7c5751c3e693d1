"""The JSON Schema refuses nothing that is accepted, field by field."""

import pytest
from config_documents import FULL
from jsonschema import Draft202012Validator

from headgate.config import ConfigError, read, schema
from headgate.config._yaml import parse_yaml
from headgate.config.fields import HTTP, REQUIRED, SECTIONS
from headgate.config.fields import _compounds as compounds
from headgate.config.fields import _field as field_module
from headgate.config.fields import _http as http
from headgate.config.fields import _kinds as kinds

VALID = Draft202012Validator(schema())
WORDS = {"maxsize": 10, "rate": "10/s", "url": "redis://10.0.0.1", "store": "main", "target": 99.9, "k": 10,
         "capacity": 5, "refill_rate": 1, "nodes": ["1"], "servers": ["a"], "placement": "ring",
         "prefixes": "a:", "sentinels": "a:1"}
AROUND = {"stores": {"main": {"url": "redis://10.0.0.1"}}, "limits": {"local": {"rate": "1/s"}},
          "placements": {"ring": {"nodes": ["1"]}}, "concurrency": {"workers": {}},
          "http_caches": {"pages": {"maxsize": 10}}, "levels": {"public": {"ip": "1/s"}},
          "hotkeys": {"users": {"k": 1}}}
NAMES = {"stores": "main", "limits": "local", "placements": "ring", "concurrency": "workers",
         "http_caches": "pages", "levels": "public", "hotkeys": "users"}


def forms(kind):
    """Values that a kind may have, in every form, some of them right."""
    if isinstance(kind, http._Pattern):
        return ["/x", "*"]
    if isinstance(kind, kinds.Choice):
        return list(kind.values)
    if isinstance(kind, kinds.Name):
        return [NAMES[section] for section in kind.sections]
    if isinstance(kind, kinds.Whole):
        return [number for number in (0, 1, 2, 3, 64, 251, 1e2, 10**6) if kind.least <= number <= kind.most]
    if isinstance(kind, kinds.Number):
        return [0, 0.5, 1, 1.5, 99.9, 1e3]
    if isinstance(kind, kinds.OneOf):
        return [kind.word, *forms(kind.other)]
    if isinstance(kind, compounds.ListOf):
        single = forms(kind.element)
        return [*single, single[:1], single, []]
    if isinstance(kind, compounds.MapOf):
        found = forms(kind.value)
        return [*[{"a": value} for value in found], {}, {"ip": None}, {"ip": found[0]}]
    if isinstance(kind, compounds.Either):
        return [value for part in (kind.scalar, kind.several, kind.mapping) if part for value in forms(part)]
    if isinstance(kind, field_module.Record):
        return [{}, {field.name: forms(field.kind)[0] for field in kind.fields}]
    return PLAIN[type(kind)]


PLAIN = {
    kinds.Text: ["x", "a b", "$$"], kinds.Flag: [True, False], kinds.Size: [1, "64 MiB", "1.5 kB"],
    kinds.Entries: [0, 10, 1e3, "64 MiB"], kinds.Duration: [0, 1, 0.25, "15 min", "1 d", "250 ms"],
    kinds.RateText: ["10/s", "10/s; 100/min", "5 per 10 seconds, burst 7"],
    kinds.Mode: [0o600, "0600", "0o640"],
    kinds.StoreURL: ["redis://ann:a@b@10.0.0.1:7/0?username=a@b", "rediss://[::1]", "unix://a:b@/run/a@b/r.sock?db=1"],
    compounds.Weights: [["a", "b"], ["1", 2], {"a": 1, "b": 0.5}, {"1": 1}, []],
    compounds.Servers: [["a", "b"], ["1", 2], {"a": 1, "b": 0.5}, {"1": 1}, []],
    compounds.Limit: ["local", "10/s"],
    compounds.Extractor: ["client", "method", "path", "route", "user", "header x", "cookie c", "const a b"],
}


def documents_with(section, field, value):
    """Documents in which a field has a value, and other fields what they need."""
    record = HTTP if section == "http" else SECTIONS[section].record
    variants = record.field(record.selector).kind.values if record.selector else [""]
    for variant in variants:
        needed = {each.name: WORDS[each.name] for each in record.fields
                  if each.default is REQUIRED and each.belongs_to(variant)}
        selected = {record.selector: variant} if record.selector else {}
        fields = needed | selected | {field.name: value}
        if section == "levels":
            fields["ip"] = "1/s"
        if field.name == "fallback":
            fields["on_error"] = "local"
        if (section, field.name) == ("http", "limit"):
            fields["keys"] = {"ip": "client"}
        if (section, field.name) == ("http", "keys"):
            fields["limit"] = "local" if isinstance(value, str) else "public"
        if section == "http":
            yield AROUND | {section: fields}
        else:
            yield AROUND | {section: {**AROUND.get(section, {}), "tested": fields}}


def is_accepted(document):
    try:
        read(document, env={"X": "1"})
    except ConfigError:
        return False
    return True


FIELDS = [(section.name, field) for section in SECTIONS.values() for field in section.record.fields]
FIELDS += [("http", field) for field in HTTP.fields]


@pytest.mark.parametrize(("section", "field"), FIELDS, ids=lambda part: getattr(part, "name", part))
def test_every_form_of_every_field(section, field):
    """What is accepted is valid; every form that a field has is accepted in one object at least."""
    accepted = []
    for value in [None, "${X}", *forms(field.kind)]:
        for document in documents_with(section, field, value):
            if is_accepted(document):
                accepted.append(value)
                assert VALID.is_valid(document), document
    assert any(value is not None and value != "${X}" for value in accepted)


def values(node):
    if isinstance(node.value, dict):
        return {name: values(child) for name, child in node.value.items()}
    return [values(child) for child in node.value] if isinstance(node.value, list) else node.value


def test_the_full_document_is_valid():
    VALID.validate(values(parse_yaml(FULL, None, [])))


@pytest.mark.parametrize("document", [
    {"cachs": {}}, {"caches": {"pages": {"tll": 5}}}, {"caches": {"Pages": {}}}, {"caches": []},
    {"version": 2}, {"caches": {"pages": {"policy": "tinyflu"}}}, {"limits": {"api": {"strict": "yes"}}},
    {"concurrency": {"workers": {"limit": 0}}}, {"objectives": {"a": {"rules": [{"burn": 1}]}}},
    {"http": {"cache": {"maxsiez": 1}}}, {"include": "x"}, {"limits": {"api": {"max_keys": True}}},
    {"http": {"retry_after": -1}}, {"placements": {"shards": {"nodes": "a"}}},
])
def test_it_refuses_what_an_editor_should_mark(document):
    assert not VALID.is_valid(document)
    assert not is_accepted(document)


def test_it_is_a_schema():
    Draft202012Validator.check_schema(schema())
