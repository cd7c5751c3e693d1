"""A document edited 200 times under a service with four workers: no request fails, and rates hold.

A third of the edits is wrong, half come by exchange of a symbolic link, half in place, in two writes.
"""

import os
import threading
import time
from http.client import HTTPConnection
from random import random
from statistics import median, quantiles

import pytest
from load import workers
from servers import PACKAGES, Workers, package, program
from watchdog import PATIENCE

WORKERS, BURST = 4, 20
EDITS = int(os.environ.get("HEADGATE_TEST_EDITS", "200"))
EVERY = float(os.environ.get("HEADGATE_TEST_EVERY", "0.04"))
LATE = 0.5
"""The seconds by which a busy machine may delay the median of all changes."""
COMMANDS = {
    "poll": "gunicorn reloaded_app:app --preload --workers 4 -k uvicorn.workers.UvicornWorker"
            " --log-level critical -b 127.0.0.1:",
    "stream": "uvicorn reloaded_app:app --workers 4 --log-level error --port ",
}
DOCUMENT = """
limits: {{api: {{rate: {rate}/s, burst: 20, max_keys: 1000, path: "${{HEADGATE_TEST_LIMIT}}"}}}}
caches: {{pages: {{maxsize: {size}, ttl: {ttl}}}}}
http: {{limit: api, keys: const all, retry_after: {rate}}}
"""


def right(number):
    return DOCUMENT.format(rate=rate_of(number), size=100 + number, ttl=60)


def rate_of(number):
    return 5 + number % 37


def wrong(number):
    """A document that is refused, at a line of its own, as errors that do not change are reported once."""
    text = DOCUMENT.format(rate=1000, size=100, ttl=60)
    kind = number // 3 % 4
    if kind == 0:
        text = text.replace("caches", "cachs")
    elif kind == 1:
        text = text.replace("1000/s", "many")
    elif kind == 2:
        text = text.replace("ttl: 60", "ttl: 61")
    else:
        text = text[: -text[::-1].index("const"[::-1])]
    return "\n" * number + text


class File:
    """A document behind a symbolic link."""

    def __init__(self, folder):
        self.path = folder / "gate.yaml"
        self._folder = folder
        self.swap(0, right(0))

    def swap(self, number, text):
        target = self._folder / f"{number}.yaml"
        target.write_text(text)
        link = self._folder / "new"
        link.symlink_to(target.name)
        at = time.monotonic()
        os.replace(link, self.path)
        return at

    def edit(self, number, text):
        at = time.monotonic()
        with open(self.path, "w") as file:
            file.write(text[: len(text) // 2])
            file.flush()
            time.sleep(0.002)
            file.write(text[len(text) // 2:])
        return at


class Log:
    """What the workers have noted."""

    def __init__(self, path):
        path.touch()
        self._path = path
        self._place = 0
        self.notes = []

    def read(self):
        with open(self._path) as file:
            file.seek(self._place)
            text = file.read()
        whole = text[: text.rfind("\n") + 1]
        self._place += len(whole)
        for line in whole.splitlines():
            pid, at, kind, detail = line.split("\t")
            self.notes.append((int(pid), float(at), kind, detail))

    def wait(self, since, kind, detail, pids):
        """The times at which each worker noted something after the first `since` notes."""
        end = time.monotonic() + PATIENCE
        while True:
            self.read()
            found = {
                pid: at for pid, at, noted, more in self.notes[since:] if noted == kind and detail in more
            }
            if found.keys() >= pids:
                return {pid: found[pid] for pid in pids}
            assert time.monotonic() < end, (kind, detail, found, self.notes[since:])
            time.sleep(0.001)


class Load:
    """Clients that send requests one after the other, and count what comes back."""

    def __init__(self, port):
        self._port = port
        self._ended = threading.Event()
        self.admitted, self.denied, self.failures = [], 0, []
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def _run(self):
        while not self._ended.is_set():
            connection = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
            try:
                for _ in range(5):
                    self._send(connection)
            except Exception as error:
                self.failures.append(error)
            finally:
                connection.close()

    def _send(self, connection):
        connection.request("GET", "/")
        response = connection.getresponse()
        body = response.read()
        if response.status == 200:
            self.admitted.append(int(body))
        elif response.status == 429:
            self.denied += 1
        else:
            self.failures.append(response.status)

    def end(self):
        self._ended.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def file(tmp_path):
    return File(tmp_path)


@pytest.fixture(params=COMMANDS)
def service(request, tmp_path, file, monkeypatch):
    package("uvicorn")
    package("watchfiles")
    name, *arguments = COMMANDS[request.param].split(" ")
    command = [program(name), *arguments]
    host = command.pop()
    for name, value in (
        ("CONFIG", file.path), ("LOG", tmp_path / "log"), ("EVERY", EVERY), ("HOW", request.param),
        ("LIMIT", tmp_path / "limit"),
    ):
        monkeypatch.setenv(f"HEADGATE_TEST_{name}", str(value))
    monkeypatch.setenv("PYTHONPATH", f"{PACKAGES}:{request.path.parent}")
    with Workers(lambda port: [*command, *([f"{host}{port}"])]) as server:
        yield server.port, Log(tmp_path / "log"), request.param


def test_a_document_edited_under_load(service, file):
    port, log, how = service
    begun = time.monotonic()
    pids = workers(port, least=WORKERS)
    load = Load(port)
    rates, delays = [(begun, begun, rate_of(0))], {"swap": [], "edit": []}
    try:
        for number in range(1, EDITS + 1):
            way = "swap" if number % 2 else "edit"
            is_wrong = number % 3 == 0
            text = wrong(number) if is_wrong else right(number)
            since = len(log.notes)
            time.sleep(random() * EVERY)
            at = getattr(file, way)(number, text)
            if is_wrong:
                log.wait(since, "refused", "gate.yaml", pids)
            else:
                applied = log.wait(since, "changed", f"{rate_of(number)}/s", pids).values()
                rates.append((at, max(applied), rate_of(number)))
                delays[way] += [each - at for each in applied]
    finally:
        load.end()
    ended = time.monotonic()

    assert load.failures == [] and load.denied > 0 and load.admitted
    assert {kind for _, _, kind, _ in log.notes} == {"changed", "refused"}, "the limit is the same object"
    assert len(load.admitted) <= BURST + most_admitted(rates, ended), "there is one limit for all workers"
    for way, found in delays.items():
        figures = f"median {median(found):.3f} s, 99% {quantiles(found, n=100)[-1]:.3f} s"
        print(f"{how}, every {EVERY} s, {way}: {figures}")
        assert median(found) <= 2 * EVERY + LATE


def most_admitted(rates, ended):
    """The tokens of a time in which the rates changed, each somewhere between the edit and the note of it."""
    total = 0
    following = [*rates[1:], (ended, ended, 0)]
    for (_, applied, rate), (edited, noted, next_rate) in zip(rates, following, strict=True):
        total += rate * (edited - applied) + max(rate, next_rate) * (noted - edited)
    return total
