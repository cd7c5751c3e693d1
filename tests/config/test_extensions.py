"""Parts of a document that are one's own: read, refused, changed and watched with the rest."""

import asyncio
import gc
import json
import os
import sys
import threading
import traceback
import weakref
from random import Random

import pytest
from config_documents import FULL, damaged
from hypothesis import given
from hypothesis import strategies as st
from watchdog import PATIENCE, until

from headgate.config import ConfigError, diff, read
from headgate.config._document import _steps
from headgate.config._nodes import plain
from headgate.config._yaml import parse_yaml

BASE = {"balancers": {"web": {"kind": "random", "servers": ["a"]}}, "caches": {"pages": {"maxsize": 10}}}
SECRETS = ["hunter2", "it's \"quoted\"", "back\\slash", "two\nlines", "ümläut", "$1", "x"]


def routes(part, document):
    """The extension of the tests: names of balancers."""
    if part is None:
        return None
    if not isinstance(part, dict):
        raise TypeError("must be a mapping")
    for number, name in enumerate(part.get("routes", [])):
        if name not in document.sections["balancers"]:
            raise ValueError(f"routes[{number}]: there is no balancer {name!r}")
    return part


@pytest.fixture
def gate(load):
    with load(BASE, {"x-app": {"routes": ["web"]}}, extensions={"x-app": routes}) as gate:
        yield gate


def text_of(error):
    return "".join(traceback.format_exception(error))


# ---- what it is called with -----------------------------------------------------------------


def test_an_extension_gets_its_part_with_references_substituted(load, tmp_path):
    (tmp_path / "token").write_text("hunter2\n")
    path = tmp_path / "gate.yaml"
    path.write_text("x-app: {token: '${file:token}', port: '${PORT:-80}', on: [1, 1.5, true, null, $$]}\n"
                    "x-other: {token: '${ABSENT}'}\n")
    found = []
    with load(path, env={}, extensions={"x-app": lambda *args: found.append(args)}) as gate:
        (part, document), = found
        assert part == {"token": "hunter2", "port": "80", "on": [1, 1.5, True, None, "$"]}
        assert document is gate.document and gate.extensions == {"x-app": None}
        assert "hunter2" not in repr(gate) + repr(document)
        assert document.files == (str(path), str(tmp_path / "token"))
        part["on"].clear()
        assert document.extension("x-app")["on"], "each caller has a tree of its own"
        assert document.extensions == ("x-app",)


def test_overlays_are_merged_into_a_part(load):
    part = {"a": {"b": 1, "c": 2}, "d": [1]}
    with load({"x-app": part}, {"x-app": {"a": {"b": None, "e": 3}, "d": [2]}},
              extensions={"x-app": lambda part, document: part}) as gate:
        assert gate.extensions["x-app"] == {"a": {"c": 2, "e": 3}, "d": [2]}


@pytest.mark.parametrize("source", [{}, {"x-app": None}])
def test_an_absent_part_is_none(load, source):
    with load(source, extensions={"x-app": lambda part, document: (part,)}) as gate:
        assert gate.extensions["x-app"] == (None,)
        assert not gate.apply({"x-app": None}) and not gate.apply({})


def test_other_parts_are_ignored_as_before(load):
    with load({"x-app": "${ABSENT}", "x-more": 1}, env={}) as gate:
        assert gate.extensions == {} and gate.document.extensions == ()
        with pytest.raises(TypeError):
            gate.extensions["x-app"] = 1


@pytest.mark.parametrize(("extensions", "error", "message"), [
    ({"app": routes}, ValueError, "extensions must have names that begin with x-, got 'app'"),
    ({1: routes}, TypeError, "extensions must have names of type str, got 1"),
    ({"x-app": 5}, TypeError, "extensions must have callable values, got 5 for 'x-app'"),
    ([routes], TypeError, "extensions must be a mapping of functions"),
])
def test_arguments(load, extensions, error, message):
    with pytest.raises(error, match=message):
        load({}, extensions=extensions)


@pytest.mark.parametrize(("names", "error"), [(5, TypeError), ([5], TypeError), (["app"], ValueError)])
def test_names_for_read(names, error):
    with pytest.raises(error, match="extensions must"):
        read({}, extensions=names)


# ---- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(("part", "place", "message"), [
    ("{routes: [web, wep]}", "$.x-app.routes[1]", "there is no balancer 'wep'"),
    ("5", "$.x-app", "must be a mapping"),
])
def test_an_error_has_its_place(load, part, place, message):
    text = f"balancers: {json.dumps(BASE['balancers'])}\nx-app: {part}\n"
    with pytest.raises(ConfigError) as caught:
        load(text, extensions={"x-app": routes})
    (problem,) = caught.value.errors
    assert (problem.place, problem.message, problem.mark.line) == (place, message, 2)
    assert isinstance(caught.value.__cause__, (TypeError, ValueError))


@pytest.mark.parametrize(("message", "place", "rest"), [
    ("a.b[1].c must be positive", "$.x-app.a.b[1].c", "a.b[1].c must be positive"),
    ("a.b[1].c: no", "$.x-app.a.b[1].c", "no"),
    ("a.b[1].z: no", "$.x-app.a.b[1]", "a.b[1].z: no"),
    ("a.b[7]: no", "$.x-app.a.b", "a.b[7]: no"),
    ("a.b.c: no", "$.x-app.a.b", "a.b.c: no"),
    ("a.n: no", "$.x-app.a.n", "no"),
    ("nothing here", "$.x-app", "nothing here"),
    ("", "$.x-app", "ValueError"),
    ("...", "$.x-app", "..."),
    (f"a.b[{'9' * 5000}]: no", "$.x-app.a.b", f"a.b[{'9' * 5000}]: no"),
])
def test_places_within_a_part(load, message, place, rest):
    def parse(part, document):
        raise ValueError(message)

    with pytest.raises(ConfigError) as caught:
        load({"x-app": {"a": {"b": [0, {"c": 1}], "n": None}}}, extensions={"x-app": parse})
    assert caught.value.errors[0][:2] == (place, rest)


def test_all_errors_come_at_once(load):
    def parse(part, document):
        raise ValueError("no")

    document = {"placements": {"table": {"kind": "maglev", "nodes": ["a"], "size": 32}}}
    with pytest.raises(ConfigError) as caught:
        load(document, extensions={"x-a": parse, "x-b": parse})
    assert {problem.place for problem in caught.value.errors} == {
        "$.placements.table.size", "$.x-a", "$.x-b"}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("form", ["{part}", "{part!r}", "{raw}"])
def test_no_error_shows_a_secret(load, secret, form):
    def parse(part, document):
        try:
            raise KeyError(part["token"])
        except KeyError:
            shown = form.format(part=part["token"], raw=json.dumps(part))
            raise ValueError(f"token: wrong: {shown}") from None

    with pytest.raises(ConfigError) as caught:
        load({"x-app": {"token": "${TOKEN}"}}, env={"TOKEN": secret}, extensions={"x-app": parse})
    error = caught.value
    assert error.errors[0].place == "$.x-app.token" and "***" in str(error)
    assert error.__cause__ is None, "which would show it"
    for shown in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]):
        assert len(shown) < 4 or shown not in text_of(error) + repr(error.errors)


def beside_a_cause(secret):
    try:
        raise KeyError(secret)
    except KeyError:
        raise ValueError("token: no") from OSError("other")


def within_a_group(secret):
    try:
        raise KeyError(secret)
    except KeyError:
        inner = OSError("other")
        try:
            raise inner
        except OSError:
            raise ValueError("token: no") from ExceptionGroup("several", [inner])


def in_an_attribute(secret):
    json.loads("{" + secret)


@pytest.mark.parametrize("fail", [beside_a_cause, within_a_group, in_an_attribute])
def test_a_cause_with_a_secret_anywhere_is_dropped(load, fail):
    with pytest.raises(ConfigError) as caught:
        load({"x-app": {"token": "${TOKEN}"}}, env={"TOKEN": "hunter2"},
             extensions={"x-app": lambda part, document: fail(part["token"])})
    assert caught.value.__cause__ is None and caught.value.__context__ is None


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\n  "])
def test_a_line_of_a_secret_is_one_too(load, separator):
    def parse(part, document):
        raise ValueError(f"keys: wrong: {part['keys'].splitlines()[1].strip()} of }}")

    secret = separator.join(["{", "hunter2", "}"])
    with pytest.raises(ConfigError, match=r"keys: wrong: \*\*\* of }$"):
        load({"x-app": {"keys": "${KEYS}"}}, env={"KEYS": secret}, extensions={"x-app": parse})


def test_a_cause_without_secrets_is_kept(load):
    def parse(part, document):
        raise ValueError("other") from KeyError("inner")

    with pytest.raises(ConfigError) as caught:
        load({"x-app": {"token": "${TOKEN}"}}, env={"TOKEN": "hunter2"}, extensions={"x-app": parse})
    assert str(caught.value.__cause__) == "other"


@pytest.mark.parametrize("error", [KeyError, RecursionError, KeyboardInterrupt, ZeroDivisionError])
def test_other_errors_reach_the_caller_and_nothing_changes(gate, load, error):
    def parse(part, document):
        raise error("foreign")

    with pytest.raises(error):
        load(BASE, extensions={"x-app": parse})
    wanted = []
    gate._extensions["x-app"] = lambda part, document: wanted.append(part) or parse(part, document)
    before = gate.document, gate.extensions["x-app"]
    with pytest.raises(error):
        gate.apply(BASE, {"caches": {"pages": {"maxsize": 99}}})
    assert (gate.document, gate.extensions["x-app"]) == before and gate.caches["pages"].maxsize == 10
    gate._extensions["x-app"] = routes
    assert gate.apply(BASE, {"caches": {"pages": {"maxsize": 99}}})


def test_what_was_opened_for_a_document_that_is_refused_is_closed(load, tmp_path):
    def parse(part, document):
        made.append(part)
        raise KeyError("foreign")

    made = []
    document = {"stores": {"main": {"url": "redis://127.0.0.1:1"}},
                "near": {"users": {"store": "main", "prefixes": "user:"}}}
    before = threading.active_count()
    with pytest.raises(KeyError):
        load(document, extensions={"x-app": parse})
    assert made == [None] and threading.active_count() == before


# ---- what changes ---------------------------------------------------------------------------


def test_a_part_changes_with_the_rest(gate):
    changes = gate.apply(BASE, {"caches": {"pages": {"maxsize": 20}}, "x-app": {"routes": []}})
    assert str(changes) == "caches.pages.maxsize: 10 -> 20\nx-app: changed"
    assert changes[1] == ("x-app", "", None, "***", "***", True)
    assert gate.extensions["x-app"] == {"routes": []}
    assert str(gate.apply(BASE, {"caches": {"pages": {"maxsize": 20}}})) == "x-app: removed"
    assert gate.extensions["x-app"] is None
    assert str(gate.apply(BASE, {"x-app": {}})) == "caches.pages.maxsize: 20 -> 10\nx-app: added"


@pytest.mark.parametrize(("old", "new", "is_change"), [
    ({"a": 1}, {"a": True}, True), ({"a": 1}, {"a": 1.0}, True), ({"a": 0.0}, {"a": -0.0}, True),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True), ({"a": "1"}, {"a": 1}, True), ([], {}, True),
    ({"a": float("nan")}, {"a": float("nan")}, False), (None, None, False), ("null", None, True),
    ({"a": None}, {"a": None}, False),
])
def test_what_is_a_change(old, new, is_change):
    documents = [read({"x-app": part}, extensions=["x-app"]) for part in (old, new)]
    assert bool(diff(*documents)) is is_change is (documents[0] != documents[1])


def test_the_values_of_a_change_are_not_shown(load):
    def parse(part, document):
        return part["token"]

    gate = load({"x-app": {"token": "literal-1"}}, extensions={"x-app": parse})
    changes = gate.apply({"x-app": {"token": "literal-2"}})
    assert gate.extensions["x-app"] == "literal-2" and "literal" not in repr(changes) + str(changes)
    changes = gate.apply({"x-app": {"token": "${T}"}}, env={"T": "hunter2"})
    assert gate.extensions["x-app"] == "hunter2" and "hunter2" not in repr(changes) + str(changes)
    assert str(gate.apply({"x-app": {"token": "${T}"}}, env={"T": "hunter3"})) == "x-app: changed"


def test_an_extension_is_read_again_if_anything_changes(gate):
    with pytest.raises(ConfigError) as caught:
        gate.apply({"x-app": {"routes": ["web"]}})
    assert caught.value.errors[0].place == "$.x-app.routes[0]"
    assert gate.balancers.keys() == {"web"} and gate.extensions["x-app"] == {"routes": ["web"]}
    kept = gate.extensions["x-app"]
    assert not gate.apply(BASE, {"x-app": {"routes": ["web"]}}) and gate.extensions["x-app"] is kept


def test_documents_that_were_read_before(gate):
    with pytest.raises(ValueError, match="source must be read with the extensions x-app, got none"):
        gate.apply(read(BASE))
    assert str(gate.apply(read(BASE, extensions=["x-app"]))) == "x-app: removed"
    assert gate.extensions["x-app"] is None and str(gate.reload()) == "x-app: added"


@pytest.mark.parametrize("call", ["apply", "reload"])
def test_a_function_that_applies_a_document_is_refused(gate, call):
    calls = []

    def parse(part, document):
        calls.append(part)
        return gate.apply({}) if call == "apply" else gate.reload()

    gate._extensions["x-app"] = parse
    with pytest.raises(RuntimeError, match="apply must not be called while a document is applied"):
        gate.apply(BASE, {"caches": {"pages": {"maxsize": 20}}})
    assert len(calls) == 1 and gate.caches["pages"].maxsize == 10
    gate._extensions["x-app"] = routes
    assert gate.apply(BASE, {"caches": {"pages": {"maxsize": 20}}})


def test_what_follows_may_not_apply_either(gate):
    followed = gate.follow(lambda http: http.trusted and gate.apply({}))
    with pytest.raises(RuntimeError, match="while a document is applied"):
        gate.apply(BASE, {"http": {"trusted": ["10.0.0.0/8"]}})
    assert gate.http.trusted == followed.current == ()


def test_a_function_may_change_another_gate(gate, load):
    other = load(BASE)

    def parse(part, document):
        return other.apply({"caches": {"pages": {"maxsize": 30}}})

    gate._extensions["x-app"] = parse
    assert gate.apply(BASE, {"x-app": {}}) and other.caches["pages"].maxsize == 30


def test_the_proxies_that_are_trusted(load):
    for trusted in (2, ("10.0.0.0/8", "::1")):
        assert load({"http": {"trusted": trusted}}).http.trusted == trusted
    assert load({}).http.trusted == ()


# ---- watching -------------------------------------------------------------------------------


def replace(path, text):
    path.with_suffix(".new").write_text(text)
    os.replace(path.with_suffix(".new"), path)


def test_a_file_is_watched_with_its_extension_and_its_secrets(load, tmp_path):
    path, secret = tmp_path / "gate.json", tmp_path / "token"
    path.write_text('{"x-app": {"token": "${file:token}"}}')
    secret.write_text("one")
    turn, errors = threading.Semaphore(0), []

    def parse(part, document):
        if part["token"] == "bad":
            raise ValueError(f"token: must not be {part['token']}")
        return part["token"]

    gate = load(path, extensions={"x-app": parse})

    def on_error(error):
        errors.append(error)
        turn.release()

    with gate.watch(every=0.01, on_change=lambda _: turn.release(), on_error=on_error):
        replace(secret, "two")
        assert turn.acquire(timeout=PATIENCE) and gate.extensions["x-app"] == "two"
        replace(secret, "bad")
        assert turn.acquire(timeout=PATIENCE) and gate.extensions["x-app"] == "two"
        assert str(errors[0]).endswith("$.x-app.token: must not be ***")
        replace(secret, "three")
        assert turn.acquire(timeout=PATIENCE) and gate.extensions["x-app"] == "three"


def test_a_function_that_exits_does_not_end_the_watching(load, tmp_path):
    def parse(part, document):
        return sys.exit("wrong") if part == 2 else part

    path, turn, errors = tmp_path / "gate.json", threading.Semaphore(0), []
    path.write_text('{"x-app": 1}')
    gate = load(path, extensions={"x-app": parse})

    def on_error(error):
        errors.append(error)
        turn.release()

    with gate.watch(every=0.01, on_change=lambda _: turn.release(), on_error=on_error):
        replace(path, '{"x-app": 2}')
        assert turn.acquire(timeout=PATIENCE) and str(errors[0]) == "wrong"
        replace(path, '{"x-app": 3}')
        assert turn.acquire(timeout=PATIENCE) and gate.extensions["x-app"] == 3


def test_a_task_that_watches(load, tmp_path):
    path = tmp_path / "gate.json"
    path.write_text('{"x-app": 1}')

    async def main():
        gate, changed = load(path, extensions={"x-app": lambda part, document: part}), asyncio.Event()
        task = asyncio.create_task(gate.watch_async(every=0.01, on_change=lambda _: changed.set()))
        replace(path, '{"x-app": 2}')
        async with asyncio.timeout(PATIENCE):
            await changed.wait()
        task.cancel()
        await asyncio.wait([task])
        return gate.extensions["x-app"]

    assert asyncio.run(main()) == 2


def test_a_watched_gate_whose_functions_refer_to_it_is_collected(load, tmp_path):
    path = tmp_path / "gate.json"
    path.write_text("{}")

    class App:
        def parse(self, part, document):
            return self

    app = App()
    app.gate = load(path, extensions={"x-app": app.parse})
    watcher, found = app.gate.watch(every=0.01), weakref.ref(app.gate)
    del app
    until(lambda: gc.collect() >= 0 and found() is None)  # the thread may hold it for a moment
    assert watcher.is_closed


# ---- anything -------------------------------------------------------------------------------

TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-10**9, 10**9) | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda trees: st.lists(trees, max_size=3) | st.dictionaries(st.text(max_size=5), trees, max_size=3),
    max_leaves=12,
)


def escaped(tree):
    """A tree that is read as this one."""
    if isinstance(tree, dict):
        return {name: escaped(child) for name, child in tree.items()}
    if isinstance(tree, list):
        return [escaped(child) for child in tree]
    return tree.replace("$", "$$") if isinstance(tree, str) else tree


@given(tree=TREES)
def test_a_part_is_any_tree(tree):
    document = read({"x-app": escaped(tree)}, extensions=["x-app"])
    assert document.extension("x-app") == tree
    assert document == read({"x-app": escaped(tree)}, extensions=["x-app"])


@given(tree=TREES, message=st.text(alphabet="ab.[]01: -", max_size=12))
def test_any_message_has_a_place(tree, message):
    document = read({"x-app": escaped(tree)}, extensions=["x-app"])
    problem = document.refused_extension("x-app", ValueError(message))
    assert problem.place.startswith("$.x-app") and problem.message
    assert problem.message in (message, "ValueError") or message.endswith(f": {problem.message}")


def test_damaged_parts_are_read_or_refused(load):
    """With junk in any place of a part that refers to variables, files and itself."""
    def parse(part, document):
        copied = json.dumps(part)
        found.append(part)
        if "api" in copied:
            raise ValueError(f"caches.pages.maxsize: {copied}")
        return part

    tree, random, found, refused = plain(parse_yaml(FULL, None, [])), Random(2), [], 0
    gate, env = load({}, env={}, extensions={"x-app": parse}), {"X": "hunter2"}
    for _ in range(300):
        before = gate.extensions["x-app"]
        part = damaged(tree["caches"] if random.random() < 0.5 else tree, random)
        try:
            gate.apply({"x-app": part}, env=env)  # tracebacks show this line
        except ConfigError as error:
            refused += 1
            assert "hunter2" not in text_of(error) and gate.extensions["x-app"] is before
            assert all(problem.place.startswith("$.x-app") for problem in error.errors)
        else:
            assert gate.extensions["x-app"] in found
    assert refused > 5 and len(found) > refused


def test_steps_of_a_place():
    assert _steps("a.b-c[10][0].1") == ["a", "b-c", 10, 0, "1"]
