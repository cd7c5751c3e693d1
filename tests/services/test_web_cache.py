"""The response cache in real servers: clients that stop reading, workers, broken responses."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection, IncompleteRead

import pytest
from load import fetch
from servers import PACKAGES, Server, Workers, program
from watchdog import PATIENCE

LARGE = 127 * 2**16
STALLED = 100


@pytest.fixture
def environment(request, monkeypatch, tmp_path):
    monkeypatch.setenv("HEADGATE_TEST_PATH", str(tmp_path / "purges"))
    monkeypatch.setenv("PYTHONPATH", f"{PACKAGES}:{request.path.parent}")


@pytest.fixture
def uvicorn(environment):
    command = [program("uvicorn"), "cached_app:app", "--log-level", "critical", "--port"]
    with Server(lambda port: [*command, str(port)]) as server:
        yield server.port


def stalled_client(port, path):
    """A connection that has asked for a response, and reads none of it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    return connection


def memory(port):
    """The most memory that the server has had in bytes, and the calls of the application."""
    peak, calls = map(int, fetch(port, "/memory")[1].split())
    return peak * 1024, calls


@pytest.mark.parametrize("is_stored", [False, True], ids=["fill", "hits"])
def test_a_hundred_clients_that_stop_reading_cost_one_body_and_a_slice_each(uvicorn, is_stored):
    """Sent whole, the body would be kept by each of them: above 800 MiB."""
    fetch(uvicorn, "/hello")
    if is_stored:
        assert len(fetch(uvicorn, "/large")[1]) > LARGE
    before, _ = memory(uvicorn)
    with ExitStack() as clients:
        for _ in range(STALLED):
            clients.enter_context(stalled_client(uvicorn, "/large"))
        began = time.monotonic()
        assert len(fetch(uvicorn, "/large")[1]) > LARGE  # a client that reads is not slowed
        assert time.monotonic() - began < 10
        peak, calls = memory(uvicorn)
    assert calls == 2
    assert peak - before < (2 * LARGE if not is_stored else 0) + STALLED * 6 * 2**16


def test_a_broken_response_has_no_proper_end(uvicorn):
    def get(_):
        connection = HTTPConnection("127.0.0.1", uvicorn, timeout=PATIENCE)
        try:
            connection.request("GET", "/cut")
            with pytest.raises(IncompleteRead):
                connection.getresponse().read()
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(get, range(4))) == [None] * 4
    get(0)
    assert 2 <= memory(uvicorn)[1] <= 5


def seen(port, pids):
    """The counts of calls in the responses of each worker, until all `pids` have responded, or both have."""
    found, deadline = {}, time.monotonic() + PATIENCE
    with ThreadPoolExecutor(8) as pool:
        while len(found) < 2 or not pids <= set(found):
            assert time.monotonic() < deadline, f"only {found} respond"
            for status, body in pool.map(lambda _: fetch(port, "/hello"), range(32)):
                pid, count = map(int, body.split())
                assert status == 200
                found.setdefault(pid, set()).add(count)
    return found


def test_a_purge_reaches_all_workers(environment):
    command = [program("uvicorn"), "cached_app:app", "--workers", "2", "--log-level", "critical", "--port"]
    with Workers(lambda port: [*command, str(port)]) as server:
        before = seen(server.port, set())
        assert set(map(frozenset, before.values())) == {frozenset([1])}
        fetch(server.port, "/purge")
        after = seen(server.port, set(before))
        assert set(map(frozenset, after.values())) == {frozenset([2])}


def test_threads_of_a_wsgi_server_share_one_call(environment):
    command = [program("gunicorn"), "cached_app:wsgi_app", "-k", "gthread", "--threads", "32",
               "--log-level", "critical", "-b"]
    with Server(lambda port: [*command, f"127.0.0.1:{port}"]) as server, ThreadPoolExecutor(32) as pool:
        bodies = {body.split()[1] for _, body in pool.map(lambda _: fetch(server.port, "/"), range(64))}
    assert bodies == {"1"}
