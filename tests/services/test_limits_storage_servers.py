"""slowapi and Flask-Limiter with a file as storage: four workers admit exactly the limit."""

import pytest
from load import BROKEN, fetch, statuses, statuses_while_workers_die
from servers import PACKAGES, Workers, package, program

LIMIT, REQUESTS = 100, 150


@pytest.fixture
def settings(tmp_path, request, monkeypatch):
    monkeypatch.setenv("HEADGATE_TEST_PATH", f"{tmp_path}/app.limit")
    monkeypatch.setenv("HEADGATE_TEST_RATE", f"{LIMIT}/day")
    monkeypatch.setenv("PYTHONPATH", f"{PACKAGES}:{request.path.parent}")
    return tmp_path


def check(port):
    """Of each key exactly the limit passes, while workers are killed too."""
    assert statuses(port, REQUESTS, "ann") == {200: LIMIT, 429: REQUESTS - LIMIT}
    assert fetch(port, headers={"X-Key": "bob"})[0] == 200

    outcomes, _ = statuses_while_workers_die(port, REQUESTS, "eve")
    assert outcomes[BROKEN] <= REQUESTS - LIMIT
    assert outcomes[200] <= LIMIT <= outcomes[200] + outcomes[BROKEN]
    assert statuses(port, 10, "eve") == {429: 10}


def test_slowapi_under_uvicorn(settings, monkeypatch):
    package("slowapi")
    monkeypatch.setenv("HEADGATE_TEST_STRATEGY", "fixed-window")
    command = [program("uvicorn"), "limits_slowapi:app", "--workers", "4", "--log-level", "critical"]
    with Workers(lambda port: [*command, "--port", str(port)]) as server:
        check(server.port)


def test_flask_limiter_under_gunicorn(settings, monkeypatch):
    """The application has no line of ours: gunicorn's configuration registers the storage."""
    package("flask_limiter")
    monkeypatch.setenv("HEADGATE_TEST_STRATEGY", "moving-window")
    config = settings / "gunicorn.conf.py"
    config.write_text("import headgate.adapters.limits\n")
    command = [program("gunicorn"), "limits_flask:app", "-c", str(config), "--threads", "4"]
    command += ["--workers", "4", "--log-level", "critical", "-b"]
    with Workers(lambda port: [*command, f"127.0.0.1:{port}"]) as server:
        check(server.port)
