"""One limit for all workers of Flask and Django under gunicorn: exactly the burst passes."""

import pytest
from load import BROKEN, fetch, statuses, statuses_while_workers_die, workers
from servers import PACKAGES, Workers, program

BURST, REQUESTS = 150, 200
APPS = {
    "Flask": ("wsgi", "limited_flask:app", "--threads", "4"),
    "Django": ("wsgi", "limited_django:application"),
    "Django under ASGI": ("asgi", "limited_django:application", "-k", "uvicorn.workers.UvicornWorker"),
}


@pytest.fixture(params=APPS)
def port(request, tmp_path, monkeypatch):
    """The port of a server with four workers."""
    host, *app = APPS[request.param]
    command = [program("gunicorn"), *app, "--workers", "4", "--log-level", "critical", "-b"]
    monkeypatch.setenv("HEADGATE_TEST_HOST", host)
    monkeypatch.setenv("HEADGATE_TEST_PATH", str(tmp_path / "limit"))
    monkeypatch.setenv("HEADGATE_TEST_RATE", f"{BURST}/day")
    monkeypatch.setenv("PYTHONPATH", f"{PACKAGES}:{request.path.parent}")
    with Workers(lambda port: [*command, f"127.0.0.1:{port}"]) as server:
        yield server.port


def test_exactly_the_burst_passes(port):
    assert statuses(port, REQUESTS, "ann") == {200: BURST, 429: REQUESTS - BURST}
    assert fetch(port, headers={"X-Key": "bob"})[0] == 200

    outcomes, before = statuses_while_workers_die(port, REQUESTS, "eve")
    assert outcomes[BROKEN] <= REQUESTS - BURST
    assert outcomes[200] <= BURST <= outcomes[200] + outcomes[BROKEN]

    assert workers(port, known=before) - before, "others have taken their place"
    assert statuses(port, 20, "eve") == {429: 20}
