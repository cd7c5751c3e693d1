"""``headgate top``: what shared files and dashboards say, without touching them."""


import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from watchdog import PATIENCE

import headgate
from headgate import (
    SLO,
    ConcurrencyLimiter,
    HashRing,
    HotKeys,
    LRUCache,
    PowerOfTwo,
    RateLimiter,
    RateLimits,
    RetryBudget,
    Throttle,
    TokenBucket,
)
from headgate.adapters import dashboard
from headgate.adapters.wsgi import ShedMiddleware
from headgate.cli import main
from headgate.cli.errors import CommandError
from headgate.cli.tables import printer
from headgate.cli.top import command, files
from headgate.cli.top.command import Sources, tables_of
from headgate.cli.top.remote import Remote
from headgate.cli.top.screen import Screen, laid_out

fcntl = pytest.importorskip("fcntl", reason="a shared limit needs it")
pty = pytest.importorskip("pty")
termios = pytest.importorskip("termios")

KINDS = {"RateLimiter", "TokenBucket", "ConcurrencyLimiter", "SLO"}
EVIL = "evil\x1b[2J\u202e\n"


@pytest.fixture
def place(tmp_path):
    """A file of each kind, in use, and one of something else."""
    (tmp_path / "hello").write_text("hello")
    limiter = RateLimiter("10/h; 100/day", max_keys=100, path=tmp_path / "api.limit")
    bucket = TokenBucket(8, 0.001, path=tmp_path / "mail.bucket")
    permits = ConcurrencyLimiter(5, path=tmp_path / "workers")
    slo = SLO(99.9, path=tmp_path / "checkout.slo")
    for key in ("ann", "bob"):
        limiter.allow(key)
    bucket.consume(2), slo.record(True, 999), slo.record(False)
    held = permits.acquire(), permits.acquire()
    yield tmp_path
    del limiter, bucket, permits, slo, held


def reading(capsys, *arguments):
    assert main(["top", "--json", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)


def printed(capsys, *arguments):
    assert main(["top", *map(str, arguments)]) == 0
    return capsys.readouterr().out


# ---- files

def test_a_reading_of_files(place, capsys):
    found = reading(capsys, place)
    assert (found["schema"], found["version"], "dashboard" in found) == ("headgate.top", 1, False)
    by_kind = {file["settings"]["limiter"]: file for file in found["files"]}
    assert by_kind.keys() == KINDS
    assert by_kind["RateLimiter"]["state"] == {"owing": {"10/h": 2, "100/day": 2}, "evictions": 0}
    assert int(by_kind["TokenBucket"]["state"]["available"]) == 6
    assert by_kind["ConcurrencyLimiter"]["state"]["inflight"] == 2
    assert by_kind["SLO"]["state"]["availability"]["1 h"] == 0.999
    if os.path.isdir("/proc/self"):
        assert all(file["processes"] == [os.getpid()] for file in found["files"])


def test_single_files_and_the_usual_place(place, capsys, monkeypatch):
    assert [Path(file["path"]).name for file in reading(capsys, place / "workers")["files"]] == ["workers"]
    monkeypatch.setattr(command, "HOME", place)
    assert len(reading(capsys)["files"]) == 4
    assert main(["top", str(place / "absent")]) == 1
    assert "absent: No such file" in capsys.readouterr().err
    assert not (place / "absent").exists()


def test_files_are_not_touched(place, capsys):
    """Nothing is written, locked, mapped, made longer or created, even if the files may not be written."""
    def seen():
        facts = [(path.name, path.read_bytes(), path.stat()) for path in sorted(place.iterdir())]
        return [(name, content, found.st_mtime_ns, found.st_ino) for name, content, found in facts]

    before = seen()
    locks = [os.open(path, os.O_RDONLY) for path in place.iterdir()]
    for lock in locks:
        fcntl.flock(lock, fcntl.LOCK_EX)
    for path in place.iterdir():
        path.chmod(0o400)
    maps = Path("/proc/self/maps")
    mapped = maps.read_text().count(str(place)) if maps.exists() else 0
    sources = Sources([place], None, {})
    sources.read()
    assert {file["settings"]["limiter"] for file in sources.read()["files"]} == KINDS
    assert (maps.read_text().count(str(place)) if maps.exists() else 0) == mapped
    assert seen() == before
    for lock in locks:
        os.close(lock)


def test_rates_of_events(place, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(files.time, "monotonic", lambda: now[0])
    slo = SLO(99.9, path=place / "checkout.slo")
    sources = Sources([place / "checkout.slo"], None, {})
    assert sources.read()["files"][0]["per_second"] == {}
    slo.record(True, 80), slo.record(False, 20)
    now[0] += 2
    assert sources.read()["files"][0]["per_second"] == {"good": 40, "bad": 10}


@pytest.mark.parametrize("length", [4096, 4100, 4104, 8000])
def test_a_file_that_has_become_shorter_is_damaged(place, tmp_path, length):
    for path in list(place.iterdir()):
        (tmp_path / f"short-{path.name}").write_bytes(path.read_bytes()[:length])
    sources = Sources(sorted(tmp_path.glob("short-*")), None, {})
    states = {Path(file["path"]).name: file["state"] for file in sources.read()["files"]}
    assert states["short-checkout.slo"] == {"damaged": True}
    assert tables_of(sources.read())


def test_problems_are_shortened_to_the_terminal(monkeypatch, capsys):
    text = "An alert of an objective with a long name is firing (page)."
    document = {"problems": [{"severity": "critical", "text": text}]}
    monkeypatch.setenv("COLUMNS", "40")
    table, = tables_of({"dashboard": document})
    printer().table(table)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) == 40
    assert lines[-1].startswith("critical  An alert of") and lines[-1].endswith("(page).")


def test_workers_come_and_go(place, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(files.time, "monotonic", lambda: now[0])
    sources = Sources([place], None, {})
    assert len(sources.read()["files"]) == 4
    (place / "workers").unlink()
    late = TokenBucket(3, 1, path=place / "late")
    now[0] += 1
    gone = next(file for file in sources.read()["files"] if file["path"].endswith("workers"))
    assert gone["state"] == {"damaged": True}
    assert any("damaged" in row.cells for table in tables_of(sources.read()) for row in table.rows)
    now[0] += 5
    assert {Path(file["path"]).name for file in sources.read()["files"]} == {
        "api.limit", "checkout.slo", "late", "mail.bucket"}
    del late


def test_a_file_that_takes_long_to_read_is_read_less_often(place, monkeypatch):
    now, reads = [100.0], []

    def slow(file):
        reads.append(file.path)
        now[0] += 0.5
        return {}

    monkeypatch.setattr(files.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(files, "state", slow)
    sources = Sources([place / "workers"], None, {})
    for _ in range(11):
        sources.read()
        now[0] += 0.5
    assert len(reads) == 2


def test_files_of_another_boot_or_without_sense(place, capsys, monkeypatch):
    content = bytearray((place / "mail.bucket").read_bytes())
    content[16:24] = b"another "
    (place / "old").write_bytes(content)
    (place / "bad").write_bytes((place / "workers").read_bytes()[:24] + b"\xff" * 9000)
    (place / EVIL.strip()).write_bytes(content)
    text = printed(capsys, place, "--once")
    assert "not since boot" in text
    assert text.replace("\n", "").isprintable()


# ---- dashboards

class Quiet(WSGIRequestHandler):
    def log_message(self, *arguments):
        """Say nothing."""


@contextmanager
def serving(app):
    with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def hello(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]


def responding(content, status="200 OK", **fields):
    def app(environ, start_response):
        start_response(status, [(name.title(), value) for name, value in fields.items()])
        return [content if isinstance(content, bytes) else json.dumps(content).encode()]
    return app


@pytest.fixture
def source():
    cache, limits, slo = LRUCache(5), RateLimits(ip="1/day", user="2/day"), SLO(99.9)
    balancer, hot = PowerOfTwo(["http://10.0.0.1", "http://10.0.0.2"]), HotKeys(5)
    found = {"pages": cache, "public": limits, "checkout": slo, "orders": balancer, "paths": hot,
             "workers": ConcurrencyLimiter(3), EVIL: LRUCache(9), "shards": HashRing({"a": 3, "b": 1}),
             "mail": TokenBucket(8, 1), "upstream": Throttle(), "retries": RetryBudget(),
             "app": ShedMiddleware(hello, ConcurrencyLimiter(3))}
    cache["a"] = 1
    cache.get("a"), cache.get("b"), hot.add(EVIL, 7), slo.record(False, 200)
    for _ in range(3):
        limits.allow(ip="192.0.2.1", user=EVIL)
    return found


def test_a_dashboard(source, capsys):
    app = dashboard.wsgi(source, allow="127.0.0.1", mask=False)
    assert not source["public"].allow(ip="192.0.2.1", user=EVIL)
    with serving(app) as url:
        document = reading(capsys, "--url", url)["dashboard"]
        assert document["schema"] == "headgate.dashboard"
        assert "files" not in reading(capsys, "--url", f"{url}/data.json")
        text = printed(capsys, "--url", f"{url}/", "--once")
    assert text.replace("\n", "").isprintable()
    for title in ("Needs attention", "Caches", "Rate limits", "Who is denied", "Balance of servers",
                  "Objectives", "Concurrency", "Hottest keys", "Shedding", "Placement of keys", "Buckets",
                  "Throttles", "Retry budgets"):
        assert f"\n{title}\n" in text
    assert text.index("\na ") < text.index("\nb ")  # nodes by their shares
    assert "\nmail" in text and "100.0%" in text
    assert "50.0%" in text
    assert "192.0.2.1" in text


def test_fields_for_a_dashboard(tmp_path, capsys):
    (tmp_path / "token").write_text("secret\n")
    app = dashboard.wsgi({}, allow=lambda request: request.header("X-Token") == "secret")
    with serving(app) as url:
        assert main(["top", "--url", url]) == 1
        assert "403 Forbidden" in capsys.readouterr().err
        reading(capsys, "--url", url, "--header", "X-Token: secret")
        reading(capsys, "--url", url, "--header", f"X-Token:@{tmp_path / 'token'}")


@pytest.mark.parametrize("app, message", [
    (responding(b"hello"), "is not data.json of a dashboard"),
    (responding([]), "is not data.json of a dashboard"),
    (responding({"schema": "other"}), "is not data.json of a dashboard"),
    (responding({"schema": "headgate.dashboard", "version": 2}), "has version 2, not 1"),
    (responding({"schema": "headgate.dashboard", "version": 1, "caches": [5]}), "is damaged: "),
    (responding({"schema": "headgate.dashboard", "version": 1, "caches": [{"name": "a", "hits": "x"}]}),
     "is damaged: "),
    (responding(b"", "302 Found", location="http://127.0.0.1:9/data.json"), "302 Found"),
    (responding(b"", "500 Internal Server Error"), "500 Internal Server Error"),
    (responding(b" " * (16 * 2**20 + 1)), "is not data.json of a dashboard"),
])
def test_what_is_no_dashboard(app, message, capsys):
    with serving(app) as url:
        assert main(["top", "--url", url, "--once"]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_error_of_a_dashboard_keeps_no_connection():
    with serving(responding(b"", "502 Bad Gateway")) as url, pytest.raises(CommandError) as raised:
        Remote(url, {}).read()
    assert raised.value.__cause__.closed


@pytest.mark.parametrize("arguments, message", [
    (["--url", "ftp://a"], "--url must be an http URL"), (["--header", "a:b"], "--header needs --url"),
    (["--url", "/data.json"], "--url must be an http URL"),
    (["--url", "http://127.0.0.1:9"], "Connection refused"),
])
def test_arguments_that_make_no_sense(arguments, message, capsys):
    assert main(["top", *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments, message", [
    (["--every", "0"], "must be positive"), (["--every", "0.01"], "must be at least 0.1"),
    (["--header", "a"], "must be NAME:VALUE"), (["--header", "a: b\nc"], "must be NAME:VALUE"),
    (["--header", "a:@/absent"], "/absent"),
])
def test_arguments_are_checked(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(["top", *arguments])
    assert message in capsys.readouterr().err


# ---- the screen

@pytest.fixture
def tables(place, source):
    documents = dashboard.wsgi(source, allow="127.0.0.1")._pages.feed._read
    documents()
    time.sleep(0.06)
    return tables_of({"dashboard": documents(), "files": Sources([place], None, {}).read()["files"]})


@pytest.mark.parametrize("width", [60, 100, 200])
@pytest.mark.parametrize("height", [24, 200])
def test_tables_fit_the_terminal(tables, width, height, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", str(height))
    out = StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    screen = Screen()
    drawn = []
    monkeypatch.setattr(screen._live, "update", lambda shown, refresh: drawn.append(shown))
    screen.draw("headgate top", tables)
    screen._rich.console.print(drawn[0])
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("headgate top")
    if height == 200:
        assert len(lines) <= height
        for table in tables:
            assert table.title in out.getvalue()
        assert "more in a larger window" not in lines[0]
    else:
        assert "more in a larger window" in lines[0]
        assert len(lines) <= height


def test_a_table_that_is_higher_than_the_terminal_is_cut_off(tables):
    assert laid_out(tables, 80, 1)[0] == [tables[:1]]


@pytest.mark.parametrize("width", [60, 100])
def test_plain_text_fits_the_terminal(place, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = printed(capsys, place).splitlines()
    assert max(map(len, lines)) <= width


class Terminal:
    """The command in a terminal of its own."""

    def __init__(self, *arguments, width=100):
        self._main, self._end = pty.openpty()
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
        self.before = termios.tcgetattr(self._end)
        environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(Path(headgate.__file__).parents[1])}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headgate", "top", "--every", "0.1", *map(str, arguments)],
            env=environment,
            stdin=self._end, stdout=self._end, stderr=self._end, start_new_session=True,
            preexec_fn=self._enter)
        self.text = b""

    @staticmethod
    def _enter():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored in the background of a shell

    def until(self, text, count=1):
        deadline = time.monotonic() + PATIENCE
        while self.text.count(text) < count:
            assert time.monotonic() < deadline, self.text
            if select.select([self._main], [], [], 0.05)[0]:
                self.text += os.read(self._main, 65536)

    def press(self, key):
        os.write(self._main, key)

    def wait(self):
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.text
            if select.select([self._main], [], [], 0.05)[0]:
                self.text += os.read(self._main, 65536)
        return self.process.returncode

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self._main)
        os.close(self._end)

    @property
    def after(self):
        return termios.tcgetattr(self._end)


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_it_is_live_until_a_key_ends_it(place, key):
    pytest.importorskip("rich")
    slo = SLO(99.9, path=place / "checkout.slo")
    terminal = Terminal(place)
    try:
        terminal.until(b"Concurrency in files")
        terminal.until(b"99.9%")
        slo.record(False, 999)
        terminal.until(b"49.975%")
        terminal.press(b"x")
        terminal.until(b"q ends", terminal.text.count(b"q ends") + 2)
        terminal.press(key)
        assert terminal.wait() == 0
        assert b"Traceback" not in terminal.text
        assert terminal.after == terminal.before
    finally:
        terminal.close()


def test_a_dashboard_that_goes_away_is_waited_for(source):
    pytest.importorskip("rich")
    app = dashboard.wsgi(source, allow="127.0.0.1", every=0.1)
    broken = threading.Event()

    def service(environ, start_response):
        return (responding(b"", "502 Bad Gateway") if broken.is_set() else app)(environ, start_response)

    with serving(service) as url:
        terminal = Terminal("--url", url)
        try:
            terminal.until(b"Caches")
            broken.set()
            terminal.until(b"502 Bad Gateway")
            broken.clear()
            terminal.until(b"q ends", terminal.text.count(b"q ends") + 1)
            terminal.press(b"q")
            assert terminal.wait() == 0
        finally:
            terminal.close()


def test_a_terminal_without_rich(place, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("headgate.cli.errors.find_spec", lambda name: None)
    assert main(["top", str(place)]) == 1
    assert "needs rich: pip install 'headgate[cli]'" in capsys.readouterr().err


