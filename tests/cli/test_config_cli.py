"""``headgate config``: what is shown, in every width and form, and the exit statuses."""

import json
import sys

import pytest
from config_documents import FULL

from headgate.cli import main
from headgate.config import schema


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REDIS_URL", raising=False)

    def write(name, text):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return name

    return write


def run(capsys, *arguments):
    """The exit status, the output, and the errors."""
    status = main(["config", *arguments])
    found = capsys.readouterr()
    return status, found.out, found.err


def rows(out):
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in out.splitlines() if line]


@pytest.mark.parametrize("columns", [60, 100, 200])
def test_a_valid_document_in_every_width(capsys, monkeypatch, file, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    status, out, err = run(capsys, "check", file("gate.yaml", FULL))
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= columns
    assert rows(out)[0] == ["gate.yaml is valid"]
    assert ["retry_budgets.orders", "share: 0.1, per_se...: 5, window: 10 s" if columns == 60 else
            "share: 0.1, per_second: 5, window: 10 s"] in rows(out)
    assert "hunter2" not in out


def test_long_names_leave_room_for_settings(capsys, monkeypatch, file):
    monkeypatch.setenv("COLUMNS", "60")
    name = "an-objective-with-a-long-name-that-somebody-chose"
    document = f"objectives: {{{name}: {{target: 99.5}}, b: {{target: 99, window: 30 d}}}}"
    _, out, _ = run(capsys, "check", file("gate.yaml", document))
    assert max(map(len, out.splitlines())) <= 60
    assert ["objectives.b", "target: 99, window: 30 d"] in rows(out)


def test_an_empty_document(capsys, file):
    assert run(capsys, "check", file("gate.yaml", "{}")) == (0, "gate.yaml is valid, and empty.\n", "")


def test_without_what_is_not_here(capsys, file):
    """In a pipeline that has neither the variables nor the secrets of the service."""
    text = """
limits: {api: {rate: "${RATE}"}, b: {rate: 1/month}}
stores: {main: {url: "redis://:${file:/no/such/secret}@10.0.0.1"}}
"""
    name = file("gate.yaml", text)
    assert run(capsys, "check", name)[2].splitlines()[-1].endswith("3 errors")
    status, out, err = run(capsys, "check", "--partial", name)
    assert (status, out) == (1, "") and err.splitlines()[0].startswith("gate.yaml:2:44: $.limits.b.rate: ")
    assert err.splitlines()[-1] == "headgate config: gate.yaml is not valid: 1 error"
    name = file("gate.yaml", text.replace("month", "min"))
    status, out, err = run(capsys, "check", "--partial", name)
    assert (status, out) == (0, "gate.yaml is valid as far as it is known here; 2 values are not.\n")
    assert err.splitlines() == [
        "gate.yaml:2:22: $.limits.api.rate: the variable RATE is not set, write ${RATE:-default} for a"
        " default",
        "gate.yaml:3:22: $.stores.main.url: cannot read the file of ${file:/no/such/secret}, No such file or"
        " directory",
    ]
    status, out, err = run(capsys, "check", "--partial", "--json", name)
    assert status == 0
    found = json.loads(out)
    assert found["valid"] is True and [each["place"] for each in found["unknown"]] == [
        "$.limits.api.rate", "$.stores.main.url"]
    assert run(capsys, "check", "--partial", file("gate.yaml", "limits: {b: {rate: 1/min}}"))[0] == 0


def test_overlays(capsys, file):
    base = file("a.yaml", "caches: {pages: {ttl: 5}}")
    overlay = file("b.yaml", "caches: {pages: {maxsize: 10}}")
    assert run(capsys, "check", base)[0] == 1
    status, out, _ = run(capsys, "check", base, overlay)
    assert status == 0
    assert rows(out)[-1] == ["caches.pages", "ttl: 5, maxsize: 10"]


def test_a_document_that_is_not_valid(capsys, file):
    status, out, err = run(capsys, "check", file("gate.yaml", "cachs: {}\ncaches: {pages: {maxsize: many}}"))
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        'gate.yaml:1:1: $.cachs: unknown, did you mean "caches"?',
        'gate.yaml:2:27: $.caches.pages.maxsize: expected a size, got "many", write bytes, or for example "64'
        ' MiB"',
        "headgate config: gate.yaml is not valid: 2 errors",
    ]


def test_an_object_that_cannot_be_made(capsys, file):
    """What only the constructor refuses has its place too."""
    text = "placements: {shards: {kind: maglev, nodes: [a], size: 4}}"
    status, out, err = run(capsys, "check", file("gate.yaml", text))
    assert (status, out) == (1, "")
    assert err.splitlines()[0] == (
        "gate.yaml:1:55: $.placements.shards.size: size must be a prime below 2**24, got 4")


def test_nothing_is_made(capsys, file, tmp_path):
    path = tmp_path / "api.limit"
    assert run(capsys, "check", file("gate.yaml", f"limits: {{api: {{rate: 10/s, path: '{path}'}}}}"))[0] == 0
    assert not path.exists()


def test_as_json(capsys, file):
    status, out, err = run(capsys, "check", "--json", file("gate.yaml", "caches: {pages: {maxsize: 10}}"))
    assert (status, json.loads(out), err) == (
        0, {"valid": True, "objects": {"caches.pages": {"maxsize": 10}}}, "")
    status, out, err = run(capsys, "check", "--json", file("gate.yaml", "cachs: {}"))
    assert (status, json.loads(out), err) == (1, {"valid": False, "errors": [{
        "place": "$.cachs", "message": "unknown", "hint": 'did you mean "caches"?', "source": "gate.yaml",
        "line": 1, "column": 1}]}, "")


def test_control_characters_are_escaped(capsys, file):
    _, _, err = run(capsys, "check", file("gate.json", '{"\\u001b[2J": {}}'))
    assert '$["\\x1b[2J"]: unknown' in err


def test_files_that_are_not_there(capsys, file):
    expected = "headgate config: absent.yaml: No such file or directory\n"
    assert run(capsys, "check", "absent.yaml") == (1, "", expected)


@pytest.mark.parametrize("columns", [60, 100, 200])
def test_changes_in_every_width(capsys, monkeypatch, file, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    changed = FULL.replace("maxsize: 10000", "maxsize: 20000").replace("ttl: 15 min", "ttl: 16 min")
    changed = changed.replace("nodes: {a: 1, b: 2}", "nodes: {a: 1, b: 2, c: 3, d: 4, e: 5, f: 6, g: 7}")
    changed = changed.replace("\nhotkeys:\n", "\nhotkeys:\n  others: {k: 5}\n")
    changed = changed.replace("\nbuckets:", "\nx-buckets:")
    status, out, err = run(capsys, "diff", file("old.yaml", FULL), file("new.yaml", changed))
    assert (status, err) == (1, "")
    assert max(map(len, out.splitlines())) <= columns
    assert ["caches.sessions.maxsize", "10000", "20000", "live"] in rows(out)
    assert ["caches.sessions.ttl", "15 min", "16 min", "refused"] in rows(out)
    assert {"removed", "added"} <= {row[-1] for row in rows(out)}
    assert "A running process refuses new.yaml" in " ".join(out.split())


def test_names_of_files_do_nothing_to_the_terminal(capsys, file):
    name = file("\x1b[31m\u202e.yaml", "caches: {a: {maxsize: 1}}")
    for arguments in (["check", name], ["diff", name, name]):
        status, out, err = run(capsys, *arguments)
        assert (status, err) == (0, "") and "\\x1b[31m\\u202e.yaml" in out
        assert "\x1b" not in out and "\u202e" not in out


def test_live_changes_are_fine(capsys, file):
    old, new = file("old.yaml", "caches: {a: {maxsize: 1}}"), file("new.yaml", "caches: {a: {maxsize: 2}}")
    status, out, _ = run(capsys, "diff", old, new)
    assert (status, rows(out)[-1]) == (0, ["caches.a.maxsize", "1", "2", "live"])
    assert run(capsys, "diff", old, old) == (0, "old.yaml and old.yaml say the same.\n", "")
    status, out, _ = run(capsys, "diff", "--json", old, new, "--overlay", file("b.yaml", "caches: {b: null}"))
    assert (status, json.loads(out)) == (0, [{
        "section": "caches", "name": "a", "field": "maxsize", "old": "1", "new": "2", "live": True,
        "place": "caches.a.maxsize"}])


def test_changes_to_a_document_that_is_not_valid(capsys, file):
    old, new = file("old.yaml", "caches: {a: {maxsize: 1}}"), file("new.yaml", "caches: {a: {}}")
    status, out, err = run(capsys, "diff", old, new)
    assert (status, out) == (1, "")
    assert err.splitlines()[-1] == "headgate config: new.yaml is not valid: 1 error"


def test_schema(capsys):
    status, out, _ = run(capsys, "schema")
    assert (status, json.loads(out)) == (0, schema())


def test_yaml_is_an_extra(capsys, file, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    status, _, err = run(capsys, "check", file("gate.yaml", "caches: {}"))
    assert (status, err) == (1, "headgate config: YAML needs PyYAML: pip install 'headgate[yaml]'\n")
