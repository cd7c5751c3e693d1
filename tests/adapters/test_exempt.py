"""Exempt paths: what a client may write instead of one, and what it must not reach by that."""

import asgi_driver
import pytest
import wsgi_driver

from headgate import ConcurrencyLimiter, RateLimiter
from headgate.adapters import asgi, wsgi
from headgate.adapters._exempt import exempting
from headgate.adapters.asgi import ASGIRequest
from headgate.adapters.keys import const

EXEMPT = exempting(["/static/*", "/healthz", "*.css", "/a*b*c"])


def is_exempt(path):
    return EXEMPT(ASGIRequest({"path": path}))


@pytest.mark.parametrize("path", [
    "/static/", "/static/a/b.js", "/static/..a/.b/c..", "/static//a", "/static/...", "/healthz", "/x/y.css",
    "/abc", "/a\nb\rc", "/static/.well-known/a", "/static/a.", "/static/a..",
])
def test_exempt_paths(path):
    assert is_exempt(path)


@pytest.mark.parametrize("path", [
    "", "*", "/", "/static", "//static/a", "/STATIC/a", "/healthz/", "/healthz\n", "//healthz",
    "/x/../healthz", "/static/../admin", "/static/..", "/static/.", "/static/./a", "/static/a/../../admin",
    "/static/..\\admin", "/static\\..\\admin", "/../x.css", "/a/../b/c",
])
def test_paths_that_are_not_exempt(path):
    """Also such that servers of files, and proxies, resolve to others."""
    assert not is_exempt(path)


def test_hosts_do_not_let_dot_segments_pass(clock):
    limiter = RateLimiter("0/s", clock=clock)
    options = {"keys": const("all"), "exempt": ["/static/*"]}
    asgi_app = asgi.RateLimitMiddleware(asgi_driver.hello, limiter, **options)
    wsgi_app = wsgi.RateLimitMiddleware(wsgi_driver.hello, limiter, **options)
    for driver, app in ((asgi_driver, asgi_app), (wsgi_driver, wsgi_app)):
        assert [driver.get(app, path).status for path in ("/static/a", "/static/../admin")] == [200, 429]


def test_health_checks_of_an_application_with_a_prefix():
    """uvicorn's --root-path, and WSGI's SCRIPT_NAME: a probe sends /healthz."""
    limiter = ConcurrencyLimiter(1, algorithm="fixed")
    asgi_app = asgi.ShedMiddleware(asgi_driver.hello, limiter)
    wsgi_app = wsgi.ShedMiddleware(wsgi_driver.hello, limiter)
    with limiter.acquire():
        for path, status in (("/healthz", 200), ("/orders", 503)):
            assert asgi_driver.get(asgi_app, f"/api{path}", root_path="/api").status == status
            assert asgi_driver.get(asgi_app, path, root_path="/api").status == status
            assert wsgi_driver.get(wsgi_app, path, SCRIPT_NAME="/api").status == status
        assert asgi_driver.get(asgi_app, "/api/healthz").status == 503
