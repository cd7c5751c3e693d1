"""What docs/slo.md shows of acting on an objective does what the page says."""

import re
from io import BytesIO
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/slo.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture
def page():
    """The names that the page defines, made anew."""
    names = {"__name__": "page"}
    for block in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if ">>> " not in block:
            exec(compile(block, PAGE.name, "exec"), names)
    return names


def status(app, path):
    """The status of a response to a request for `path`."""
    begun = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "wsgi.input": BytesIO()}
    body = app(environ, lambda status, headers, exc_info=None: begun.append(status))
    b"".join(body)
    if hasattr(body, "close"):
        body.close()
    return begun[-1][:3]


def test_batches_are_shed_while_the_budget_burns(page):
    app, limiter, slo = page["shedding"], page["limiter"], page["slo"]
    permits = [limiter.acquire(priority="user") for _ in range(int(limiter.limit * 0.3))]
    assert all(permits)
    assert [status(app, path) for path in ("/reports/7", "/")] == ["200", "200"]
    slo.record(False, 1000)
    assert [status(app, path) for path in ("/reports/7", "/")] == ["503", "200"]
    for permit in permits:
        permit.release()
    assert status(app, "/reports/7") == "200"


def test_what_is_served_is_counted(page):
    slo = page["slo"]
    assert status(page["shedding"], "/") == "200"
    assert (slo.good, slo.bad) == (1, 0)

    def failing(environ, start_response):
        start_response("502 Bad Gateway", [])
        return [b""]

    assert status(page["counted"](failing, slo), "/") == "502"
    with pytest.raises(ZeroDivisionError):
        page["counted"](lambda environ, start_response: 1 / 0, slo)({}, None)
    assert (slo.good, slo.bad) == (1, 2)


def test_a_request_is_counted_once(page):
    slo, counted = page["slo"], page["counted"]

    def raising(environ, start_response):
        start_response("200 OK", [])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        status(counted(raising, slo), "/")
    assert (slo.good, slo.bad) == (0, 1)

    def replacing(environ, start_response):
        start_response("200 OK", [])
        start_response("500 Internal Server Error", [], (ZeroDivisionError, ZeroDivisionError(), None))
        return [b""]

    assert status(counted(replacing, slo), "/") == "500"
    assert (slo.good, slo.bad) == (0, 2)

    def generating(environ, start_response):
        start_response("200 OK", [])
        yield b""

    assert status(counted(generating, slo), "/") == "200"
    assert (slo.good, slo.bad) == (1, 2)


def test_nothing_is_retried_into_an_outage(page):
    assert page["may_retry"]()
    page["upstream"].record(False, 1000)
    assert not page["may_retry"]()
