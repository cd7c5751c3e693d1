"""RateLimitMiddleware in front of WSGI applications, without a server."""

import gc
import io
import json
import sys
import weakref
from random import Random
from wsgiref.validate import validator

import pytest
from wsgi_driver import call, environ_of, get, hello

from headgate import RateLimiter, RateLimits
from headgate.adapters.keys import client, const, cookie, header, method, path, route, user
from headgate.adapters.wsgi import RateLimitMiddleware, WSGIRequest


@pytest.fixture
def limiter(clock):
    return RateLimiter("2/min", clock=clock)


def limited(app, limits, **options):
    """A middleware around an application whose side is checked too."""
    return RateLimitMiddleware(validator(app), limits, **{"keys": client()} | options)


def statuses(app, count, **options):
    return [get(app, **options).status for _ in range(count)]


def test_a_burst_passes_and_the_rest_is_denied(limiter, clock):
    app = limited(hello, limiter)
    assert statuses(app, 3) == [200, 200, 429]
    assert statuses(app, 1, client="192.0.2.2") == [200]
    clock.advance(30)
    assert statuses(app, 2) == [200, 429]


def test_fields_and_body(limiter):
    app = limited(hello, limiter)
    assert get(app).fields == {"content-type": "text/plain", "content-length": "5",
                               "ratelimit-policy": '"2/min";q=2;w=60', "ratelimit": '"2/min";r=1;t=30'}
    get(app)
    denied = get(app)
    assert denied.starts[0][0] == "429 Too Many Requests"
    assert denied.fields == {
        "content-type": "application/problem+json", "content-length": str(len(denied.body)),
        "ratelimit-policy": '"2/min";q=2;w=60', "ratelimit": '"2/min";r=0;t=30', "retry-after": "30"}
    assert json.loads(denied.body)["violated-policies"] == ["2/min"]
    assert get(app, method="HEAD").body == b""


def test_fields_of_the_application_are_replaced(limiter):
    def app(environ, start_response):
        fields = [("Content-Type", "text/plain"), ("RateLimit", "a"), ("X-RateLimit-Limit", "b")]
        start_response("200 OK", fields)
        return [b"hello"]

    fields = get(limited(app, limiter)).fields
    assert (fields["ratelimit"], fields["x-ratelimit-limit"]) == ('"2/min";r=1;t=30', "b")


@pytest.mark.parametrize(("style", "names"), [
    ("legacy", {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}), (None, set()),
])
def test_other_fields(limiter, style, names):
    app = limited(hello, limiter, headers=style)
    for _ in range(2):
        assert get(app).fields.keys() == names | {"content-type", "content-length"}
    assert get(app).fields.keys() == names | {"content-type", "content-length", "retry-after"}


def test_a_start_that_is_late_and_repeated(limiter):
    def generated(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            raise LookupError("too late")
        except LookupError:
            start_response("500 Oops", [("Content-Type", "text/html")], sys.exc_info())
        yield b"failed"

    response = get(limited(generated, limiter))
    assert (response.status, response.body) == (500, b"failed")
    assert [dict(headers)["ratelimit"] for _, headers in response.starts] == ['"2/min";r=1;t=30'] * 2
    assert response.fields["content-type"] == "text/html"


def test_a_start_by_keyword(limiter):
    def named(environ, start_response):
        start_response(status="200 OK", headers=[("Content-Type", "text/plain")], exc_info=None)
        return [b"named"]

    response = call(RateLimitMiddleware(named, limiter, keys=client()), environ_of())
    assert response.fields["ratelimit"] == '"2/min";r=1;t=30'


def test_an_error_after_the_body_has_begun_is_raised(limiter):
    def broken(environ, start_response):
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"begun")
        try:
            raise LookupError("too late")
        except LookupError:
            start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
        return []

    with pytest.raises(LookupError, match="too late"):
        get(limited(broken, limiter))


def test_an_error_that_is_passed_on_leaves_no_circle(limiter):
    class Failure(Exception):
        pass

    errors = []

    def broken(environ, start_response):
        try:
            raise Failure
        except Failure as error:
            errors.append(weakref.ref(error))
            start_response("500 Oops", [], sys.exc_info())
        return []

    gc.collect()
    gc.disable()
    try:
        RateLimitMiddleware(broken, limiter, keys=client())(environ_of(), lambda *args: None)
        assert errors[0]() is None
    finally:
        gc.enable()


def test_write(limiter):
    def writing(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])(b"written, ")
        return [b"returned"]

    response = get(limited(writing, limiter))
    assert response.body == b"written, returned"
    assert response.fields["ratelimit"] == '"2/min";r=1;t=30'


class Body:
    closed = 0

    def __iter__(self):
        return iter([b"a", b"b"])

    def close(self):
        self.closed += 1


def test_what_is_returned_is_passed_on_as_it_is(limiter):
    body = Body()

    def streaming(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return body

    response = call(RateLimitMiddleware(streaming, limiter, keys=client()), environ_of())
    assert response.returned is body
    assert (response.body, body.closed) == (b"ab", 1)


def test_a_file_wrapper_is_passed_on_as_it_is(limiter):
    def sending(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"of a file"))

    response = call(RateLimitMiddleware(sending, limiter, keys=client()), environ_of())
    assert type(response.returned) is environ_of()["wsgi.file_wrapper"]
    assert response.body == b"of a file"


def test_headers_of_the_application_are_not_changed(limiter):
    constant = [("Content-Type", "text/plain")]

    def app(environ, start_response):
        start_response("200 OK", constant)
        return []

    for _ in range(2):
        assert "ratelimit" in get(limited(app, limiter)).fields
    assert constant == [("Content-Type", "text/plain")]


def test_levels_are_charged_all_or_none(clock):
    limits = RateLimits(ip="3/min", user="1/min", clock=clock)
    app = limited(hello, limits, keys={"ip": client(), "user": header("X-User")})
    ann = [("X-User", "ann")]
    assert statuses(app, 2, headers=ann) == [200, 429]
    assert limits.peek(ip="192.0.2.1").remaining == 2
    assert statuses(app, 3) == [200, 200, 429]
    assert app.stats()["ip"][:2] == (3, 1)
    assert app.stats()["user"] == (1, 1, {"1/min": 1})


def test_two_middlewares_decide_as_one(clock):
    outer, inner = (RateLimiter(rate, clock=clock) for rate in ("10/min", "1/min"))
    app = limited(limited(limited(hello, inner), outer, keys=client()), outer, headers="both")
    assert statuses(app, 3) == [200, 429, 429]
    assert outer.peek("192.0.2.1").remaining == 9, "charged once, and not when the inner one denies"
    assert get(app).fields["ratelimit"] == '"1/min";r=0;t=60', "written once, by the outermost"


def test_settling(clock):
    limiter = RateLimiter("1000/min", clock=clock)

    def costly(environ, start_response):
        assert environ["headgate.charge"].decision.remaining == 200
        environ["headgate.charge"].settle(300)
        return hello(environ, start_response)

    app = limited(costly, limiter, cost=800)
    assert get(app).status == 200
    assert limiter.peek("192.0.2.1").remaining == 700
    assert get(app).status == 429, "800 do not fit"
    assert limiter.peek("192.0.2.1").remaining == 700


def test_cost_by_request(limiter):
    app = limited(hello, limiter, cost=lambda request: 2 if request.method == "POST" else 1)
    assert statuses(app, 2, method="POST") == [200, 429]
    app = limited(hello, limiter, keys=const("all"), cost=3)
    denied = get(app)
    assert denied.status == 429
    assert "retry-after" not in denied.fields, "it can never pass"


def test_exempt_paths(limiter):
    app = limited(hello, limiter, exempt=["/healthz", "/static/*"])
    assert statuses(app, 5, path="/static/a.css") == [200] * 5
    assert get(app, "/healthz").fields.keys() == {"content-type", "content-length"}
    assert limiter.peek("192.0.2.1").remaining == 2


async def exempt_later(request):
    return False


@pytest.mark.parametrize("exempt", [exempt_later, lambda request: exempt_later(request)])
def test_exempt_must_not_have_to_be_awaited(limiter, exempt):
    with pytest.raises(TypeError, match="exempt must not return an awaitable"):
        get(limited(hello, limiter, exempt=exempt))


@pytest.mark.parametrize(("found", "expected"), [(0, 429), (None, 429), ("yes", 200)])
def test_exempt_may_return_anything_else(limiter, found, expected):
    assert statuses(limited(hello, limiter, exempt=lambda request: found), 3) == [200, 200, expected]


def test_dry_run(limiter):
    def marked(environ, start_response):
        denial = environ["headgate.charge"].would_deny
        start_response("200 OK", [("Content-Type", "text/plain"), ("X-Denial", str(denial is not None))])
        return []

    app = limited(marked, limiter, dry_run=True)
    assert [get(app).fields["x-denial"] for _ in range(3)] == ["False", "False", "True"]
    assert "ratelimit" not in get(app).fields
    assert app.stats()["default"][:2] == (2, 2)


def test_an_own_response(limiter):
    def sorry(environ, start_response):
        start_response("503 Sorry", [("Content-Type", "text/plain")])
        return [" ".join(environ["headgate.charge"].decision.violated).encode()]

    app = limited(hello, limiter, on_denied=sorry)
    assert statuses(app, 3) == [200, 200, 503]
    assert get(app).body == b"2/min"
    assert get(app).fields["ratelimit"] == '"2/min";r=0;t=30'


def test_a_request_that_raises_stays_charged(limiter):
    def broken(environ, start_response):
        raise LookupError

    app = limited(broken, limiter)
    with pytest.raises(LookupError):
        get(app)
    assert limiter.peek("192.0.2.1").remaining == 1


class AsynchronousLimiter(RateLimiter):
    async def reserve(self, key, cost=1):
        return super().reserve(key, cost)


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"limits": AsynchronousLimiter("1/s")}, TypeError, "limits must not be asynchronous"),
    ({"limits": "many"}, ValueError, "'many'"),
    ({"keys": "ip"}, TypeError, "keys must be one extractor"),
    ({"headers": "new"}, ValueError, "headers must be one of"),
    ({"exempt": ["static"]}, ValueError, "exempt must be paths or patterns"),
    ({"on_denied": 429}, TypeError, "on_denied must be callable or None, got 429"),
    ({"cost": -1}, ValueError, "cost must be"),
])
def test_arguments_that_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        RateLimitMiddleware(hello, **{"limits": "1/s", "keys": client()} | arguments)


def test_keys_of_a_request():
    request = WSGIRequest(environ_of(
        "/caf\xc3\xa9/\xff", SCRIPT_NAME="/shop", method="PUT", REMOTE_USER="ann",
        headers=[("Cookie", "a=1; sid=7"), ("X-Team", "blue"), ("X-Forwarded-For", "198.51.100.7")]))
    assert path()(request) == "/shop/caf\xe9/\ufffd"
    assert (method()(request), user()(request), route()(request)) == ("PUT", "ann", None)
    assert (cookie("sid")(request), header("x-team")(request), header("X-No")(request)) == ("7", "blue", None)
    assert client(trusted=["192.0.2.0/24"])(request) == "198.51.100.7"
    assert (request.scheme, request.host, request.query) == ("http", "example.com", "")
    assert WSGIRequest({"CONTENT_TYPE": "text/plain"}).header("Content-Type") == "text/plain"
    assert WSGIRequest({"REMOTE_ADDR": ""}).client is WSGIRequest({"REMOTE_USER": ""}).user is None
    assert client()(WSGIRequest({})) == "unix"


def test_junk_in_an_environ_never_raises(exhaustive):
    draw = Random("junk in an environ")
    names = ["PATH_INFO", "QUERY_STRING", "REMOTE_ADDR", "HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED",
             "HTTP_COOKIE", "HTTP_HOST", "REMOTE_USER", "SCRIPT_NAME"]
    recorded = ["for=192.0.2.60;proto=http", "unknown", "[::1]:80", "a=b; ;=;\"", "1.2.3.4, , 5.6.7.8",
                "\xff\xfe", "%%%", "/" * 300, "::ffff:1.2.3.4", "fe80::1%eth0"]
    forwarded = client(trusted=["::/0", "0.0.0.0/0"], header="Forwarded")
    everything = {"ip": client(trusted=1), "forwarded": forwarded, "path": path(), "cookie": cookie("a"),
                  "host": header("Host"), "user": user()}
    app = RateLimitMiddleware(hello, RateLimits(dict.fromkeys(everything, "10000000/s")), keys=everything)
    for _ in range(100_000 if exhaustive else 2_000):
        environ = environ_of()
        for name in draw.sample(names, 4):
            text = "".join(map(chr, draw.choices(range(256), k=draw.randrange(20))))
            environ[name] = draw.choice([text, draw.choice(recorded), text + draw.choice(recorded)])
        assert call(app, environ).status == 200
