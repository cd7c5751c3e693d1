"""Documents that are right: forms, overlays, substitution, places, bounds, and what is shown of secrets."""

import json
import os
import sys
from pathlib import Path

import pytest
from config_documents import FULL

from headgate.config import ConfigError, Document, read
from headgate.config.fields import HTTP, SECTIONS

PAGES = {"caches": {"pages": {"maxsize": 10}}}


def pages(document):
    return document.sections["caches"]["pages"]


def errors(*sources, **options):
    with pytest.raises(ConfigError) as caught:
        read(*sources, **options)
    return [str(problem) for problem in caught.value.errors]


@pytest.fixture
def file(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_full_document():
    sections = read(FULL, env={}).sections
    assert sections["caches"]["sessions"] == {
        "policy": "lru", "maxsize": 10_000, "weigh": "entries", "ttl": 900, "tti": 60, "jitter": 0.1,
        "seed": 7}
    assert pages(read(FULL, env={}))["maxsize"] == 64 * 2**20
    assert sections["limits"]["api"]["rate"] == "10/s; 100/min"
    assert (sections["limits"]["api"]["max_keys"], sections["limits"]["api"]["mode"]) == (100_000, 0o600)
    assert sections["limits"]["fleet"]["kind"] == "redis"
    assert sections["limits"]["networks"]["v4"] == {"32": 1, "24": 4}
    assert sections["levels"]["public"]["levels"] == {"ip": "api", "user": "100/min; 1000/h"}
    assert sections["levels"]["public"]["shadow"] == ("user",)
    assert sections["levels"]["public"]["exempt"] == {"ip": ("10.0.0.0/8",)}
    assert sections["placements"]["backends"]["nodes"] == {"1": 1, "2": 1, "3": 1}
    assert sections["balancers"]["orders"]["max_failures"] is None
    assert sections["objectives"]["checkout"]["rules"] == (
        {"burn": 14.4, "long": 3600, "short": 300, "severity": "page"},)
    assert sections["stores"]["main"]["url"] == "redis://127.0.0.1:6379/0"


def test_every_section_of_the_full_document_has_something():
    document = read(FULL, env={})
    assert [name for name in SECTIONS if not document.sections[name]] == []
    assert document.http["keys"] == {"ip": ("client", None), "user": ("header", "x-user")}
    assert document.http["cache"]["max_object"] == 2**20
    assert document.http["headers"] is None


def test_every_field_has_a_default_or_is_given():
    document = read(FULL, env={})
    for section, objects in document.sections.items():
        record = SECTIONS[section].record
        for fields in objects.values():
            variant = fields[record.selector] if record.selector else ""
            expected = {field.name for field in record.fields if field.belongs_to(variant)}
            assert set(fields) - {record.collected} == expected
    assert set(document.http) == {field.name for field in HTTP.fields}


def test_an_empty_document():
    for source in ("", "# nothing\n", {}, "{}"):
        document = read(source)
        assert repr(document) == "<Document: empty>"
        assert document == read({"version": 1, "x-y": {"z": [None]}, "$schema": "headgate.schema.json"})


def test_null_is_absent():
    assert read("caches: {pages: {maxsize: 10, ttl: null}, users: null}\nlimits:\nhttp: ~") == read(PAGES)


# ---- forms -------------------------------------------------------------------------------------


def test_yaml_json_and_mappings_are_alike():
    text = json.dumps(PAGES)
    assert read(text) == read(PAGES) == read("caches: {pages: {maxsize: 10}}")


def test_json_needs_no_yaml(monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert read(json.dumps(PAGES)) == read(PAGES)
    with pytest.raises(ImportError, match=r"YAML needs PyYAML: pip install 'headgate\[yaml\]'"):
        read("caches: {}")


@pytest.mark.parametrize(("name", "text"), [
    ("gate.json", json.dumps(PAGES)), ("gate.json", '\n{ "caches": {"pages": {"maxsize": 10}}}'),
    ("gate.yaml", "caches: {pages: {maxsize: 10}}"), ("gate.yml", '{"caches": {"pages": {maxsize: 10}}}'),
    ("gate", "caches: {pages: {maxsize: 10}}"), ("gate", json.dumps(PAGES)), ("gate.conf", "\ufeffcaches:\n"
                                                                              "  pages: {maxsize: 10}"),
])
def test_files(file, name, text):
    document = read(file(name, text))
    assert document == read(PAGES)
    assert [Path(name).name for name in document.files] == [name]


def test_files_that_cannot_be_read(file, tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "absent.yaml")
    path = file("gate.yaml", "")
    path.write_bytes(b"caches: {}\nx: \xff")
    assert errors(path) == [f"{path}:2:4: $: expected UTF-8, save it as that"]


@pytest.mark.parametrize("name", ["gate.yaml", "gate.json", "gate"])
@pytest.mark.parametrize("text", ["", "\ufeff", " \r\n"])
def test_an_empty_file_is_no_document(file, name, text):
    """A file that was truncated would remove everything, limits too."""
    path = file(name, text)
    expected = f"{path}:1:1: $: expected a document, got an empty file, write {{}} for one that has nothing"
    assert errors(path) == [expected]
    assert errors(file("base.yaml", "caches: {}"), path) == [expected]


@pytest.mark.parametrize("text", ["# gate.yaml", "# gate.yaml\n\n  # limits of the ser"])
def test_a_file_of_comments_is_no_document(file, text):
    """One that was truncated after the comment that it begins with."""
    path = file("gate.yaml", text)
    expected = f"{path}:1:1: $: expected a document, got only comments, write {{}} for one that has nothing"
    assert errors(path) == [expected]


@pytest.mark.parametrize("source", [7, None, b"caches: {}", [PAGES]])
def test_what_is_no_source(source):
    with pytest.raises(TypeError, match="source must be a text, a path or a mapping"):
        read(source)


def test_what_no_document_has():
    assert errors({"caches": {1: {}}}) == ["$.caches: expected keys of type str, got one of the type int"]
    assert errors({"caches": {"a": {"maxsize": object()}}}) == [
        "$.caches.a.maxsize: expected a text, a number, true, false, null, a list or a mapping,"
        " got an object of the type object"]


def test_a_path_of_python_is_a_text(tmp_path):
    found = read({"limits": {"api": {"rate": "1/s", "path": tmp_path / "api"}}})
    assert found.sections["limits"]["api"]["path"] == str(tmp_path / "api")


@pytest.mark.parametrize(("written", "value"), [
    ("0o10", 8), ("0x10", 16), ("1e1", 10), ("+10", 10), ("010", 10), ("10.", 10), ('"64 B"', None),
    ("1_0", None), ("1:30", None), ("2026-01-01", None), (".inf", None), ("0b1", None),
])
def test_numbers_are_those_of_yaml_1_2(written, value):
    text = f"caches: {{pages: {{maxsize: {written}}}}}"
    assert errors(text) if value is None else pages(read(text))["maxsize"] == value


@pytest.mark.parametrize("word", ["no", "No", "off", "y", "n", "on", "yes", "tRUE"])
def test_words_of_yaml_1_1_are_texts(word):
    assert errors(f"limits: {{api: {{rate: 1/s, strict: {word}}}}}")
    assert read(f"hotkeys: {{{word.lower()}: {{k: 1}}}}").sections["hotkeys"].keys() == {word.lower()}


def test_a_yaml_key_is_its_text():
    placements = read("placements: {shards: {nodes: {1: 2, 0x10: 1, no: 1, 1.50: 1}}}").sections["placements"]
    assert placements["shards"]["nodes"] == {"1": 2, "0x10": 1, "no": 1, "1.50": 1}


def test_anchors_and_tags():
    assert pages(read("x-size: &size 10\ncaches: {pages: {maxsize: *size}}"))["maxsize"] == 10
    assert pages(read("caches: {pages: !!map {maxsize: 10, policy: !!str lru}}"))["policy"] == "lru"


# ---- bounds ------------------------------------------------------------------------------------


def test_a_billion_laughs():
    lines = ["x-0: &a0 [lol]", *[f"x-{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]]
    (error,) = errors("\n".join(lines))
    assert "expected at most 200,000 values, with what aliases repeat" in error


def test_aliases_are_not_too_deep():
    lines = ["x-0: &a0 [lol]", *[f"x-{n}: &a{n} [*a{n - 1}]" for n in range(1, 100)]]
    (error,) = errors("\n".join(lines))
    assert "expected at most 32 levels of nesting" in error


@pytest.mark.parametrize("text", [
    "[" * 100_000, '{"x-a": ' + "[" * 100_000, "a: " * 5, "x: " + "{a: " * 50_000, "- " * 10_000 + "x",
])
def test_nesting_is_bounded(text):
    assert errors(text)


def test_a_mapping_that_contains_itself():
    tree = {"caches": {}}
    tree["caches"]["pages"] = tree
    (error,) = errors(tree)
    assert "expected at most 32 levels of nesting" in error


def test_size_is_bounded(file):
    text = "# " + "x" * (4 * 2**20)
    assert errors(text) == ["line 1:1: $: expected at most 4,194,304 bytes"]
    assert "expected at most 4,194,304 bytes" in errors(file("gate.yaml", text))[0]


def test_many_errors_are_shown_in_part():
    with pytest.raises(ConfigError) as caught:
        read({"caches": {f"c{number}": {"maxsize": "many"} for number in range(100)}})
    assert len(caught.value.errors) == 100
    lines = str(caught.value).splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("100 errors", "and 50 more", 52)


def test_what_is_wrong_with_a_large_document_is_found_soon():
    """Errors are bounded, and what is done for each: this took minutes."""
    env = {f"E{number}": f"secret{number}" for number in range(5000)}
    levels = {f"v{number}": {"ip": f"m{number}"} for number in range(5000)}
    bucket = {"capacity": 1, "refill_rate": 1}
    paths = {f"b{number}": bucket | {"path": f"${{E{number}}}"} for number in range(5000)}
    limits = {f"l{number}": {"rate": "1/s"} for number in range(5000)}
    with pytest.raises(ConfigError) as caught:
        read({"levels": levels, "limits": limits, "buckets": paths}, env=env)
    assert len(caught.value.errors) == 1000


# ---- overlays ----------------------------------------------------------------------------------


def test_overlays():
    base = {"caches": {"pages": {"maxsize": 10, "ttl": 5}, "users": {"maxsize": 1}},
            "placements": {"shards": {"nodes": ["a", "b"]}}}
    more = {"maxsize": 2, "ttl": None}
    overlay = {"caches": {"pages": {"ttl": None, "tti": 7}, "users": None, "more": more},
               "placements": {"shards": {"nodes": ["c"]}}, "http": None}
    found = read(base, overlay, {"caches": {"pages": {"maxsize": 20}}})
    assert found == read({"caches": {"pages": {"maxsize": 20, "tti": 7}, "more": {"maxsize": 2}},
                          "placements": {"shards": {"nodes": ["c"]}}})


def test_errors_of_overlays_name_their_file(file):
    first = file("a.yaml", "caches: {pages: {maxsize: 10}}")
    second = file("b.yaml", "caches:\n  pages: {ttl: soon}")
    assert errors(first, second) == [
        f'{second}:2:16: $.caches.pages.ttl: expected a duration, got "soon", write seconds, or for example'
        ' "15 min"']
    assert errors(first, {"caches": {"pages": {"maxsize": None}}}) == [
        f"{first}:1:10: $.caches.pages: maxsize is missing, the most entries, or the most bytes with weigh:"
        " bytes"]


def test_an_overlay_may_mend():
    assert read("caches: {pages: {maxsize: many}}", "caches: {pages: {maxsize: 10}}") == read(PAGES)


# ---- substitution ------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "value"), [
    ("${A}", "a"), ("x-${A}${B}-y", "x-ab-y"), ("${N:-none}", "none"), ("${EMPTY:-none}", "none"),
    ("$${A}", "${A}"), ("$$", "$"), ("$$$$", "$$"), ("${N:-}x", "x"), ("${N:-a:-b}", "a:-b"),
    ("${EMPTY}x", "x"),
])
def test_substitution(text, value):
    found = read({"buckets": {"b": {"capacity": 1, "refill_rate": 1, "path": text}}},
                 env={"A": "a", "B": "b", "EMPTY": ""})
    assert found.sections["buckets"]["b"]["path"] == value


def test_a_substituted_text_is_read_as_its_field_needs():
    env = {"SIZE": "64 MiB", "COUNT": "10", "ON": "true", "SHARE": "0.5", "PATH": "7", "RATE": "10/s",
           "STORE": "main"}
    found = read("""
        caches: {pages: {maxsize: "${SIZE}", weigh: bytes, jitter: "${SHARE}"}}
        limits: {api: {rate: "${RATE}", max_keys: "${COUNT}", strict: "${ON}", path: "${PATH}"},
                 fleet: {rate: 1/s, store: "${STORE}"}}
        stores: {main: {url: "redis://${STORE}"}}
    """, env=env).sections
    assert pages(read(PAGES)) != found["caches"]["pages"]
    assert (found["caches"]["pages"]["maxsize"], found["caches"]["pages"]["jitter"]) == (64 * 2**20, 0.5)
    assert found["limits"]["api"]["max_keys"] == 10
    assert found["limits"]["api"]["strict"] is True
    assert found["limits"]["api"]["path"] == "7"


def test_substitution_adds_no_structure():
    env = {"A": "{b: 1}", "B": "a\nhttp: {}", "C": "${A}"}
    nodes = read('placements: {shards: {nodes: ["${A}", "${B}", "${C}"]}}', env=env).sections["placements"]
    assert list(nodes["shards"]["nodes"]) == ["{b: 1}", "a\nhttp: {}", "${A}"]


def test_what_is_ignored_is_not_substituted():
    assert read({"x-a": "${NOT_SET}", "$schema": "${NOT_SET}"}, env={}) == read({})


def test_files_of_secrets(file, tmp_path):
    file("password", "hunter2\n")
    found = read(file("gate.yaml", 'stores: {main: {url: "redis://:${file:password}@10.0.0.1"}}'))
    assert found.sections["stores"]["main"]["url"] == "redis://:hunter2@10.0.0.1"
    assert found.files == (str(tmp_path / "gate.yaml"), str(tmp_path / "password"))
    assert "hunter2" not in repr(found)
    assert found.shown("stores", "main", "url") == "redis://:***@10.0.0.1"


@pytest.mark.parametrize(("content", "reason"), [
    (b"x" * 65537, "more than 65,536 bytes"), (b"\xff", "not UTF-8"), (None, "Is a directory"),
])
def test_files_that_are_no_secrets(tmp_path, content, reason):
    path = tmp_path / "secret"
    if content is None:
        path.mkdir()
        reason = reason if sys.platform != "win32" else "Permission denied"
    else:
        path.write_bytes(content)
    (error,) = errors({"stores": {"main": {"url": f"${{file:{path}}}"}}})
    assert error.endswith(f"cannot read the file of ${{file:{path}}}, {reason}")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (error,) = errors({"stores": {"main": {"url": f"${{file:{tmp_path / 'pipe'}}}"}}})
    assert error.endswith("not a regular file")


def test_the_environment_of_the_process(monkeypatch):
    monkeypatch.setenv("HEADGATE_TEST_SIZE", "10")
    assert pages(read('{"caches": {"pages": {"maxsize": "${HEADGATE_TEST_SIZE}"}}}'))["maxsize"] == 10


# ---- what is shown -----------------------------------------------------------------------------


def test_what_objects_say_is_put_in_its_place():
    document = read("caches:\n  pages: {maxsize: 10, seed: 5}\nhttp:\n  shed_exempt: /x")

    def said(section, name, error):
        return str(document.refused(section, name, error))

    maxsize = ValueError("maxsize must be something else, got 10")
    assert said("caches", "pages", maxsize) == f"line 2:20: $.caches.pages.maxsize: {maxsize}"
    assert said("caches", "pages", OSError("no space")) == "line 2:10: $.caches.pages: no space"
    assert said("caches", "pages", MemoryError()) == "line 2:10: $.caches.pages: MemoryError"
    assert said("http", "", TypeError("exempt is wrong")) == "line 4:3: $.http.exempt: exempt is wrong"


def test_secrets_are_masked():
    env = {"PASSWORD": "hunter2", "COUNT": "12"}
    main = {"url": "redis://ann:${PASSWORD}@10.0.0.1", "timeout": "${COUNT}"}
    document = read({"stores": {"main": main}}, env=env)
    assert document.masked("got 'hunter2' 12 times in 123 s") == "got '***' *** times in 123 s"
    assert "hunter2" not in repr(document)
    assert document.shown("stores") == {"main": {"url": "redis://ann:***@10.0.0.1", "timeout": "${COUNT}"}}
    assert document.shown("stores", "other") is None
    quoted = read({"stores": {"main": {"url": "redis://:p%40ss@10.0.0.1"}}})
    assert quoted.masked("p%40ss and p@ss") == "*** and ***"


def test_repr():
    assert repr(read({**PAGES, "http": {}})) == "<Document: caches: pages; http>"


def test_documents_do_not_change():
    document = read(PAGES)
    with pytest.raises(TypeError):
        document.sections["caches"] = {}
    with pytest.raises(TypeError):
        document.sections["caches"]["pages"]["maxsize"] = 11
    with pytest.raises(TypeError):
        document.http["limit"] = "api"
    assert isinstance(document, Document)
    assert document != "caches"
