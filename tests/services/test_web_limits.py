"""One limit for all workers of real servers: exactly the burst passes."""

import pytest
from load import BROKEN, fetch, statuses, statuses_while_workers_die, workers
from servers import PACKAGES, Workers, program

BURST, REQUESTS = 300, 400
HANDSHAKE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
             "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
COMMANDS = {
    "uvicorn": "uvicorn limited_app:app --workers 4 --log-level error --port",
    "granian": "granian limited_app:app --workers 4 --interface asgi --no-log --respawn-failed-workers"
               " --respawn-interval 0 --port",
    "gunicorn": "gunicorn limited_app:app --workers 4 -k uvicorn.workers.UvicornWorker"
                " --log-level critical -b",
}


@pytest.fixture(params=COMMANDS)
def port(request, tmp_path, monkeypatch):
    """The port of a server with four workers."""
    name, *arguments = COMMANDS[request.param].split()
    command = [program(name), *arguments]
    host = "" if command[-1] == "--port" else "127.0.0.1:"
    monkeypatch.setenv("HEADGATE_TEST_PATH", str(tmp_path / "limit"))
    monkeypatch.setenv("HEADGATE_TEST_RATE", f"{BURST}/day")
    monkeypatch.setenv("PYTHONPATH", f"{PACKAGES}:{request.path.parent}")
    with Workers(lambda port: [*command, f"{host}{port}"]) as server:
        yield server.port


def test_exactly_the_burst_passes(port):
    assert statuses(port, REQUESTS, "ann") == {200: BURST, 429: REQUESTS - BURST}
    assert fetch(port, headers={"X-Key": "bob"})[0] == 200

    outcomes, before = statuses_while_workers_die(port, REQUESTS, "eve")
    assert outcomes[BROKEN] <= REQUESTS - BURST
    assert outcomes[200] <= BURST <= outcomes[200] + outcomes[BROKEN]

    assert workers(port, least=1, known=before) - before
    assert statuses(port, 20, "eve") == {429: 20}

    # granian speaks WebSocket; uvicorn does so with an optional package, without which this is HTTP
    assert fetch(port, headers={"X-Key": "bob", **HANDSHAKE})[0] in (101, 200)
    assert fetch(port, headers={"X-Key": "eve", **HANDSHAKE})[0] == 429
