"""Headers and cookies are read as applications read them: else a client had limits without number.

With its own valid key or session it would repeat the header or the cookie, or quote it in another way, so
that the application sees the same value, and the limit another one.
"""

import json
import time
from random import Random

import asgi_driver
import pytest
from starlette.requests import Request as StarletteRequest
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse
from werkzeug.sansio.http import parse_cookie
from wsgi_driver import environ_of

from headgate import RateLimiter
from headgate.adapters.asgi import ASGIRequest, RateLimitMiddleware
from headgate.adapters.keys import client, cookie, header
from headgate.adapters.wsgi import WSGIRequest

PARTS = ["sid", "sid=", "sid=", "sid=", 'sid="', "=", '"', '"', ";", "; ", "; ", " ", "\t", "7", "a", "\\",
         "\\063", ",", "\xe9", "\\9"]


def texts(seed, count=4000):
    random = Random(seed)
    return ["".join(random.choices(PARTS, k=random.randrange(1, 16))) for _ in range(count)]


def scope_with(*fields):
    return asgi_driver.scope_of(headers=fields)


def test_cookies_as_starlette_reads_them():
    found = set()
    for text in texts(1):
        value = cookie("sid")(ASGIRequest(scope_with(("cookie", text))))
        assert value == cookie_parser(text).get("sid"), text
        found.add(value)
    assert len(found) > 100


def test_cookies_as_werkzeug_reads_them():
    found = set()
    for text in texts(2):
        value = cookie("sid")(WSGIRequest(environ_of(headers=[("Cookie", text)])))
        expected = parse_cookie(text).get("sid") or None
        assert (value or None) == expected, text
        found.add(value)
    assert len(found) > 100


@pytest.mark.parametrize("quoted", [r'"31d4"', r'"\063\061d4"', r'"3\1d4"', r'"\3\1\d4"', "31d4"])
def test_the_ways_to_quote_a_value(quoted):
    for request in (ASGIRequest(scope_with(("cookie", f"sid={quoted}"))),
                    WSGIRequest(environ_of(headers=[("Cookie", f"a=b; sid={quoted}")]))):
        assert cookie("sid")(request) == "31d4"


def test_a_limit_by_header_and_by_cookie_counts_what_the_application_sees(clock):
    async def whoami(scope, receive, send):
        request = StarletteRequest(scope)
        response = JSONResponse([request.headers["x-api-key"], request.cookies["sid"]])
        await response(scope, receive, send)

    for keys in (header("X-API-Key"), cookie("sid")):
        app = RateLimitMiddleware(whoami, RateLimiter("2/min", clock=clock), keys=keys)
        statuses = []
        for junk in "123":
            headers = [("x-api-key", "ann"), ("x-api-key", junk), ("cookie", f"sid={junk}"),
                       ("cookie", "sid=7")]
            response = asgi_driver.get(app, headers=headers)
            statuses.append(response.status)
            if response.status == 200:
                assert json.loads(response.body) == ["ann", "7"]
        assert statuses == [200, 200, 429]


def test_all_lines_of_a_proxy_count():
    request = ASGIRequest(scope_with(("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "198.51.100.7")))
    assert client(trusted=["192.0.2.0/24"])(request) == "198.51.100.7"


@pytest.mark.parametrize("text", [
    'a="' * 30_000, "\\" * 90_000, ' ="\\' * 20_000, "sid " * 20_000, 'a="\\";' * 15_000, " " * 90_000,
    ";" * 90_000, f"sid={' ' * 90_000}x", 'sid="' + "\\" * 90_000,
])
def test_long_cookies_take_linear_time(text):
    requests = ASGIRequest(scope_with(("cookie", text))), WSGIRequest(environ_of(headers=[("Cookie", text)]))
    start = time.process_time()
    for request in requests:
        cookie("sid")(request)
        cookie("a")(request)
    assert time.process_time() - start < 2
