"""The examples run as their first lines say."""

import json
from http.client import HTTPConnection
from pathlib import Path

import pytest
from servers import PACKAGES, Workers, program

EXAMPLES = Path(__file__).parents[2] / "examples"
QUOTA = "https://iana.org/assignments/http-problem-types#quota-exceeded"


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    """Requests to the example of FastAPI, which has two workers."""
    monkeypatch.setenv("HEADGATE_FOLDER", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(PACKAGES))
    command = [program("uvicorn"), "fastapi_app:app", "--app-dir", str(EXAMPLES), "--workers", "2",
               "--log-level", "error", "--port"]

    def fetch(method, path, body=None, **headers):
        connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
        fields = {name.replace("_", "-"): text for name, text in headers.items()}
        connection.request(method, path, body, fields)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, response.headers, json.loads(text)

    with Workers(lambda port: [*command, str(port)]) as server:
        yield fetch


def test_fastapi_app(fetch, tmp_path):
    assert len((EXAMPLES / "fastapi_app.py").read_text().splitlines()) < 60
    status, headers, body = fetch("GET", "/healthz")
    assert (status, body, headers["RateLimit"]) == (200, "ok", None)

    responses = [fetch("GET", "/search?q=canal") for _ in range(6)]
    assert [status for status, *_ in responses] == [200] * 5 + [429]
    assert responses[0][1]["RateLimit-Policy"] == '"5/min";q=5;w=60'
    assert responses[0][2] == "Canal"
    _, headers, problem = responses[5]
    assert headers["Content-Type"] == "application/problem+json"
    assert 1 <= int(headers["Retry-After"]) <= 12
    assert problem["type"] == QUOTA
    assert fetch("GET", "/search?q=canal", X_Forwarded_For="192.0.2.1")[0] == 200

    cached = [fetch("GET", "/articles/7")[1]["Cache-Status"] for _ in range(9)]
    assert all("hit" in status or "fwd=uri-miss" in status for status in cached)
    assert any("hit" in status for status in cached)  # each of the two workers has objects of its own

    used = [fetch("POST", "/complete", b"one two three", X_API_Key="ann")[2] for _ in range(6)]
    assert used == [3] * 6  # 3,000 tokens if they were not settled
    assert {path.name for path in tmp_path.iterdir()} >= {f"headgate-{name}" for name in (
        "ip", "permits", "purges", "searches", "tokens")}
