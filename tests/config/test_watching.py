"""Watching files: when a content counts, what is applied and reported, threads, forks and events."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.config import ConfigError, _wakers
from headgate.config import load as load_gate
from headgate.config._readings import SETTLING, Readings
from headgate.config._wakers import ChannelEvents, folders_of

EVERY = 0.01
PATIENCE = 60


def document(maxsize):
    return f'{{"caches": {{"a": {{"maxsize": {maxsize}}}}}}}'


def replace(path, text):
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "gate.json"
    path.write_text(document(1))
    return path


class Listener:
    """Calls of ``on_change`` and ``on_error``, which tests wait for."""

    def __init__(self):
        self.found = []
        self._condition = threading.Condition()

    def __call__(self, found):
        with self._condition:
            self.found.append(found)
            self._condition.notify_all()

    def wait(self, count):
        with self._condition:
            assert self._condition.wait_for(lambda: len(self.found) >= count, PATIENCE)
            return self.found[count - 1]


# ---- readings -------------------------------------------------------------------------------


@pytest.fixture
def readings(path):
    readings = Readings([str(path)], every=1)
    settle(readings)
    return readings


def settle(readings):
    while not readings.look():
        pass
    readings.done()
    assert not readings.look() and readings.pause == 1


def test_a_replaced_file_counts_after_a_short_pause(readings, path):
    replace(path, document(2))
    assert not readings.look() and readings.pause == SETTLING
    assert readings.look() and readings.is_same()
    readings.done()
    assert not readings.look()


def test_a_symbolic_link_to_another_file_replaces(readings, path, tmp_path):
    for number in range(2, 5):
        folder = tmp_path / f"..{number}"
        folder.mkdir()
        (folder / path.name).write_text(document(number))
        (tmp_path / "..new").symlink_to(folder.name)
        os.replace(tmp_path / "..new", tmp_path / "..data")  # as Kubernetes changes a mounted ConfigMap
        if not path.is_symlink():
            path.unlink()
            path.symlink_to(f"..data/{path.name}")
        assert not readings.look() and readings.pause == SETTLING
        assert readings.look()
        readings.done()


def test_an_edit_in_place_counts_after_an_interval(readings, path):
    path.write_text(document(2))
    assert not readings.look() and readings.pause == 1
    assert readings.look()


def test_a_file_that_is_still_written_does_not_count(readings, path):
    for text in ("", document(2)[:-9], document(2)[:-1]):
        path.write_text(text)
        assert not readings.look()
    path.write_text(document(1))
    assert not readings.look() and not readings.look(), "it is as it was"


def test_a_change_after_the_look_is_seen(readings, path):
    path.write_text(document(2))
    assert not readings.look() and readings.look()
    path.write_text(document(3))
    assert not readings.is_same() and readings.look() and readings.is_same()


def test_what_does_not_change_the_content_does_not_count(readings, path):
    os.utime(path, (1, 1))
    assert not readings.look() and not readings.look()
    replace(path, document(1))
    assert not readings.look() and not readings.look()


def test_files_that_cannot_be_read(readings, path):
    path.unlink()
    assert not readings.look() and readings.pause == 1
    assert readings.look()
    readings.done()
    path.mkdir()
    assert not readings.look() and readings.look()
    readings.done()
    if hasattr(os, "mkfifo"):
        path.rmdir()
        os.mkfifo(path)
        assert not readings.look()


def test_other_files_from_now_on(readings, path, tmp_path):
    other = tmp_path / "secret"
    other.write_text("a")
    readings.look()
    readings.done([str(path), str(other)])
    assert not readings.look()
    other.write_text("b")
    assert not readings.look() and readings.look()
    readings.done([str(path)])
    other.write_text("c")
    assert not readings.look() and readings.paths == (str(path),)


@given(st.lists(st.tuples(st.sampled_from(["edit", "replace", "look"]), st.integers(0, 3)), max_size=20))
def test_what_counts_was_read_twice(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("watched") / "file"
    path.write_text("0")
    readings, seen, known = Readings([str(path)], every=1), None, None
    for step, number in [*steps, ("look", 0), ("look", 0), ("look", 0)]:
        if step == "edit":
            path.write_text(str(number))
        elif step == "replace":
            replace(path, str(number))
        else:
            text = path.read_text()
            if readings.look():
                assert text == seen != known
                readings.done()
                known = text
            seen = text
    assert known == path.read_text(), "what stays is taken"


# ---- what is applied and reported -----------------------------------------------------------


def test_changes_are_applied(load, path):
    gate, changed = load(path), Listener()
    cache = gate.caches["a"]
    with gate.watch(every=EVERY, on_change=changed) as watcher:
        thread = watcher._thread
        replace(path, document(2))
        assert str(changed.wait(1)) == "caches.a.maxsize: 1 -> 2" and cache.maxsize == 2
        path.write_text(document(3))
        changed.wait(2)
        assert cache.maxsize == 3 and gate.caches["a"] is cache and watcher.paths == (str(path),)
        assert repr(watcher) == f"<Watcher of {path}>"
    assert not thread.is_alive()


def test_a_wrong_document_is_reported_once(load, path):
    gate, changed, failed = load(path), Listener(), Listener()
    with gate.watch(every=EVERY, on_change=changed, on_error=failed):
        replace(path, '{"cachs": {}}')
        assert isinstance(failed.wait(1), ConfigError) and gate.caches["a"].maxsize == 1
        time.sleep(5 * EVERY)
        replace(path, '{"caches": {"a": {"maxsize": 1, "policy": "lfu"}}}')
        assert "give it a new name" in str(failed.wait(2)) and len(failed.found) == 2
        replace(path, document(2))
        changed.wait(1)
        path.unlink()
        assert isinstance(failed.wait(3), FileNotFoundError)
        replace(path, document(3))
        changed.wait(2)
        replace(path, '{"cachs": {}}')
        assert isinstance(failed.wait(4), ConfigError), "what was right meanwhile is reported again"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_in_place_of_the_file_is_not_waited_for(load, path):
    gate, changed, failed = load(path), Listener(), Listener()
    with gate.watch(every=EVERY, on_change=changed, on_error=failed):
        pipe = path.with_suffix(".pipe")
        os.mkfifo(pipe)
        os.replace(pipe, path)
        error = failed.wait(1)
        replace(path, document(2))
        changed.wait(1)
    assert str(error) == f"{path}:1:1: $: expected a regular file"


def test_what_a_document_lacks_may_come(load, path, tmp_path):
    gate, changed, failed = load(path), Listener(), Listener()
    with gate.watch(every=EVERY, on_change=changed, on_error=failed) as watcher:
        replace(path, document('"${file:size}"'))
        failed.wait(1)
        (tmp_path / "size").write_text("7")
        changed.wait(1)
        assert gate.caches["a"].maxsize == 7 and len(failed.found) == 1
        assert watcher.paths == (str(path), str(tmp_path / "size"))
        replace(tmp_path / "size", "8")
        changed.wait(2)
        assert gate.caches["a"].maxsize == 8


def test_overlays_are_watched(load, path, tmp_path):
    overlay = tmp_path / "overlay.json"
    overlay.write_text(document(2))
    gate, changed = load(path, overlay, {"hotkeys": {"h": {"k": 1}}}), Listener()
    with gate.watch(every=EVERY, on_change=changed):
        overlay.write_text(document(3))
        changed.wait(1)
        assert gate.caches["a"].maxsize == 3 and gate.hotkeys["h"].k == 1


def test_a_file_that_changed_before_it_was_watched(load, path):
    gate, changed = load(path), Listener()
    path.write_text(document(2))
    with gate.watch(every=EVERY, on_change=changed):
        changed.wait(1)
    other, changed = load({}), Listener()
    with other.watch(path, every=EVERY, on_change=changed):
        changed.wait(1)
        assert other.caches["a"].maxsize == 2


def test_listeners_that_raise(load, path, monkeypatch):
    raised = Listener()
    monkeypatch.setattr(sys, "unraisablehook", lambda found: raised(found.exc_value))

    def fail(found):
        raise ZeroDivisionError(found)

    gate = load(path)
    with gate.watch(every=EVERY, on_change=fail, on_error=fail):
        replace(path, document(2))
        assert isinstance(raised.wait(1), ZeroDivisionError)
        replace(path, "junk")
        raised.wait(2)
        replace(path, document(3))
        raised.wait(3)
        assert gate.caches["a"].maxsize == 3


def test_errors_are_logged_without_a_listener(load, path, caplog):
    gate, changed = load(path), Listener()
    with gate.watch(every=EVERY, on_change=changed):
        replace(path, '{"cachs": {}}')
        while not caplog.records:
            time.sleep(EVERY)
        replace(path, document(2))
        changed.wait(1)
    record, = caplog.records
    assert record.name == "headgate.config" and "did you mean" in record.getMessage()


def test_arguments(load, path):
    gate = load(path)
    for wrong, message in (
        ({"every": 0}, "every must be from 0.01 to 86400 seconds, got 0"),
        ({"how": "guess"}, "how must be 'poll' or 'stream', got 'guess'"),
        ({"channel": "c"}, "channel and store need how='stream', got 'c' and None"),
        ({"how": "stream", "store": "s"}, "store needs a channel, got 's'"),
        ({"how": "stream", "channel": "c"}, "store must be one of none, got None"),
    ):
        with pytest.raises(ValueError) as caught:
            gate.watch(**wrong)
        assert str(caught.value) == message
    with pytest.raises(TypeError, match=r"^on_change must be callable or None, got 5$"):
        gate.watch(on_change=5)
    with pytest.raises(ValueError, match=r"^path must be given for a gate that was not loaded from a file"):
        load({}).watch()


# ---- the end --------------------------------------------------------------------------------


def test_a_watcher_closed_by_its_listener(load, path):
    gate, changed = load(path), Listener()

    def close(changes):
        watcher.close()
        changed(changes)

    watcher = gate.watch(every=EVERY, on_change=close)
    thread = watcher._thread
    replace(path, document(2))
    changed.wait(1)
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_gate_ends_its_watchers(load, path):
    gate = load(path)
    threads = [gate.watch(every=1000)._thread for _ in range(2)]
    gate.close()
    assert not any(thread.is_alive() for thread in threads)
    gate = load(path)
    for _ in range(3):
        gate.watch(every=1000).close()
    assert len(gate._watchers) == 1 and gate._watchers[0].is_closed
    thread, reference = gate.watch(every=1000)._thread, weakref.ref(gate)
    del gate
    gc.collect()
    thread.join(PATIENCE)
    assert not thread.is_alive() and reference() is None


def test_a_task(path):
    async def main():
        gate = load_gate(path)
        changed, failed = asyncio.Queue(), asyncio.Queue()
        task = asyncio.create_task(
            gate.watch_async(every=EVERY, on_change=changed.put, on_error=failed.put_nowait))
        await asyncio.sleep(0)
        thread = gate._watchers[0]._thread
        replace(path, document(2))
        assert str(await asyncio.wait_for(changed.get(), PATIENCE)) == "caches.a.maxsize: 1 -> 2"
        replace(path, "junk")
        assert isinstance(await asyncio.wait_for(failed.get(), PATIENCE), ConfigError)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not thread.is_alive()

    asyncio.run(main())


# ---- forks ----------------------------------------------------------------------------------


FORKED = """
import os, sys, threading, time, warnings
from pathlib import Path
from types import SimpleNamespace
from headgate.config import load

warnings.simplefilter("ignore", DeprecationWarning)  # forks of processes with threads
path = Path(sys.argv[1])
gate = load(path)
cache = gate.caches["a"]
gate.watch(every=0.01)

def replace(size):
    new = path.with_suffix(".new")
    new.write_text('{"caches": {"a": {"maxsize": %d}}}' % size)
    os.replace(new, path)

def wait_for(size):
    end = time.monotonic() + 60
    while cache.maxsize != size and time.monotonic() < end:
        time.sleep(0.001)
    return cache.maxsize == size

def churn():
    for size in range(10, 400):
        gate.apply({"caches": {"a": {"maxsize": size}}})

churning = threading.Thread(target=churn)  # forks come in the middle of a change
churning.start()
children = []
for _ in range(4):
    child = os.fork()
    if not child:
        ok = gate.caches["a"].maxsize == gate.document.sections["caches"]["a"]["maxsize"]
        os._exit(0 if ok and wait_for(7) else 1)
    children.append(child)
churning.join()

def build(http):
    # a fork while a document is applied, and no other one when the next is
    followed.build = lambda http: http
    child = os.fork()
    if child:
        children.append(child)
    else:
        forked.append(http)
    return http

forked, followed = [], gate.follow(lambda http: http)
followed.build = build
gate.apply({"caches": {"a": {"maxsize": 8}}, "http": {"retry_after": 5}})
if forked:
    ok = cache.maxsize == 8 and followed.current is forked[0] is gate.http
    os._exit(0 if ok and wait_for(7) else 1)
replace(7)
sys.exit(any(os.waitpid(child, 0)[1] for child in children) or not wait_for(7))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_children_are_watched_on(path):
    subprocess.run([sys.executable, "-c", FORKED, str(path)], check=True, timeout=PATIENCE)


# ---- events ---------------------------------------------------------------------------------


def test_events_of_the_file_system_come_before_the_interval(load, path, tmp_path):
    gate, changed = load(path), Listener()
    with gate.watch(every=1000, how="stream", on_change=changed) as watcher:
        threads = watcher._thread, watcher._waker._thread
        for size in range(2, 5):
            replace(path, document(size))
            changed.wait(size - 1)
        folder = tmp_path / "other"
        folder.mkdir()
        (folder / "gate.json").write_text(document(5))
        path.unlink()
        path.symlink_to(folder / "gate.json")
        changed.wait(4)
        replace(folder / "gate.json", document(6))
        changed.wait(5)
    assert not any(thread.is_alive() for thread in threads)


def test_what_changes_before_folders_are_watched_is_seen(monkeypatch, load, path):
    """The file changes after it was read, and before there are events of its folder."""
    was_read, found = threading.Event(), Listener()
    done = Readings.done

    def noted(readings, paths):
        done(readings, paths)
        was_read.set()

    def watch(*_folders, stop_event, **_options):
        assert was_read.wait(PATIENCE)
        replace(path, document(2))
        while not stop_event.is_set():  # times out, again and again
            yield set()
            stop_event.wait(0.01)

    monkeypatch.setattr(Readings, "done", noted)
    monkeypatch.setattr("headgate.config._wakers.watchfiles", lambda: SimpleNamespace(watch=watch))
    gate = load(path)
    with gate.watch(every=1000, how="stream", on_change=found):
        found.wait(1)


def test_events_where_a_folder_goes_and_comes(load, tmp_path):
    folder = tmp_path / "mounted"
    folder.mkdir()
    path = folder / "gate.json"
    path.write_text(document(1))
    gate, changed, failed = load(path), Listener(), Listener()
    with gate.watch(every=0.1, how="stream", on_change=changed, on_error=failed):
        path.unlink()
        folder.rmdir()
        failed.wait(1)
        folder.mkdir()
        path.write_text(document(2))
        changed.wait(1)


def test_without_the_package(load, path, monkeypatch):
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(ImportError, match=r"pip install 'headgate\[watch\]'$"):
        load(path).watch(how="stream")


def test_folders_of_links(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "links").mkdir()
    (tmp_path / "real" / "file").write_text("")
    (tmp_path / "links" / "folder").symlink_to("../real")
    (tmp_path / "file").symlink_to("links/folder/file")
    real = tmp_path.resolve()
    found = {Path(folder) for folder in folders_of([str(real / "file")])}
    assert found == {real, real / "links", real / "real"}
    (tmp_path / "loop").symlink_to("loop")
    assert folders_of([str(real / "loop"), str(real / "absent" / "file")]) == {str(real)}


class Server:
    """A client of a server that is away at first, and loses every connection after two messages."""

    def __init__(self):
        self.refusals, self.subscriptions, self.left = 1, [], 0

    def pubsub(self):
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError("refused")
        return self

    def __enter__(self):
        self.left = 2
        return self

    def __exit__(self, *failure):
        pass

    def subscribe(self, channel):
        self.subscriptions.append(channel)

    def get_message(self, timeout):
        if not self.left:
            raise ConnectionError("closed")
        self.left -= 1
        return {"type": "message"}


def test_a_channel_is_listened_to_again(monkeypatch):
    monkeypatch.setattr(_wakers, "_LISTENING", 0.001)
    server, woken = Server(), Listener()
    events = ChannelEvents(lambda: woken(None), server, "config")
    woken.wait(6)
    events.end()
    events.join()
    assert server.subscriptions[:3] == ["config"] * 3 and not events._thread.is_alive()
