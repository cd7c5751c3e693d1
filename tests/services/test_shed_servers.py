"""One concurrency limit for all workers of real servers: permits come back however a request ends."""

import os
import signal
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection

import pytest
from load import fetch, workers
from servers import PACKAGES, Workers, program
from watchdog import PATIENCE

from headgate import ConcurrencyLimiter

LIMIT = 8  # fewer than the threads of one worker: all streams may be of one
HIGH, LOW = {"X-Priority": "high"}, {"X-Priority": "low"}
COMMANDS = {
    "uvicorn": "uvicorn shed_app:app --workers 4 --log-level error --port",
    "granian": "granian shed_app:app --workers 4 --interface asgi --no-log --respawn-failed-workers"
               " --respawn-interval 0 --port",
    "gunicorn": "gunicorn shed_app:application --workers 4 --threads 32 --log-level critical -b",
}


@pytest.fixture(params=COMMANDS, scope="module")
def server(request, tmp_path_factory):
    """The port of a server with four workers, and their limiter; tests leave no permit taken."""
    name, *arguments = COMMANDS[request.param].split()
    command = [program(name), *arguments]
    host = "" if command[-1] == "--port" else "127.0.0.1:"
    path = tmp_path_factory.mktemp("shed") / "permits"
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("HEADGATE_TEST_PATH", str(path))
        patch.setenv("PYTHONPATH", f"{PACKAGES}:{request.path.parent}")
        server = stack.enter_context(Workers(lambda port: [*command, f"{host}{port}"]))
        workers(server.port, "/healthz")
        yield server.port, ConcurrencyLimiter(
            LIMIT, algorithm="fixed", priorities={"high": 1.0, "low": 0.5}, path=path)


class Stream:
    """A response that goes on until it is closed."""

    def __init__(self, port):
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._connection.sendall(b"GET /stream HTTP/1.1\r\nHost: a\r\nX-Priority: high\r\n\r\n")
        self._file = self._connection.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        while self._file.readline() != b"\r\n":
            pass
        if self.status == 200:
            self._file.readline()  # the size of a chunk
            self.worker = int(self._file.readline())

    def close(self):
        self._file.close()
        self._connection.close()


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_permits_come_back(server):
    port, limiter = server
    with ExitStack() as stack:
        streams = [stack.enter_context(closing(Stream(port))) for _ in range(LIMIT)]
        assert {stream.status for stream in streams} == {200}
        assert limiter.inflight == LIMIT
        assert fetch(port, headers=HIGH)[0] == 503
        assert fetch(port, "/healthz")[0] == 200
    wait_until(lambda: limiter.inflight == 0)  # clients that left amid their streams

    with ExitStack() as stack:
        for _ in range(2 * LIMIT):  # connections that are idle hold nothing
            connection = stack.enter_context(closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE)))
            connection.request("GET", "/", headers=HIGH)
            response = connection.getresponse()
            assert (response.status, bool(response.read())) == (200, True)
        wait_until(lambda: limiter.inflight == 0)

        streams = [stack.enter_context(closing(Stream(port))) for _ in range(LIMIT)]
        victim = streams[0].worker
        lost = sum(stream.worker == victim for stream in streams)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: fetch(port, headers=HIGH)[0] == 200)
        wait_until(lambda: limiter.inflight == LIMIT - lost)
        streams = [stack.enter_context(closing(Stream(port))) for _ in range(lost + 1)]
        assert [stream.status for stream in streams] == [200] * lost + [503]
    wait_until(lambda: limiter.inflight == 0)


@pytest.mark.parametrize("server", ["uvicorn"], indirect=True)
def test_important_requests_stay_alive_under_overload(server):
    """Twice as many clients as the limit, most of them unimportant, which repeat their requests at once."""
    port, limiter = server
    end = time.monotonic() + 1.5

    def load(headers, least):
        statuses = Counter()
        while time.monotonic() < end or statuses.total() < least:
            statuses[fetch(port, "/work", headers)[0]] += 1
        return statuses

    with ThreadPoolExecutor(16) as pool:
        low = [pool.submit(load, LOW, 10) for _ in range(13)]
        high = [pool.submit(load, HIGH, 11) for _ in range(3)]
        low, high = (sum((each.result() for each in group), Counter()) for group in (low, high))
    assert low[503] > low[200] > 0
    assert high[200] >= 0.99 * high.total() > 30
    assert low.keys() | high.keys() <= {200, 503}
    wait_until(lambda: limiter.inflight == 0)
