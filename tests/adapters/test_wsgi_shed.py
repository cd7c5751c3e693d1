"""ShedMiddleware under WSGI: each way in which a request ends gives its permit back, once and in time."""

import json
from contextlib import suppress
from io import BytesIO
from threading import Lock
from wsgiref.util import FileWrapper

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from threads import run_threads
from wsgi_driver import Response, environ_of, get, hello

from headgate import ConcurrencyLimiter
from headgate.adapters.keys import header
from headgate.adapters.wsgi import ShedMiddleware


def shed_by(limit=1, app=hello, *, priorities=None, **options):
    """The middleware with a fixed limit, and its limiter."""
    limiter = ConcurrencyLimiter(limit, algorithm="fixed", priorities=priorities)
    return ShedMiddleware(app, limiter, **options), limiter


def serve(app):
    """What servers do with a response, whether it is valid or not."""
    response = Response()
    body = app(environ_of(), response.start)
    try:
        return response.starts, list(body)
    finally:
        if hasattr(body, "close"):
            body.close()


class Closable:
    """A body that has to be closed once."""

    def __init__(self, parts, error=None):
        self._parts = iter(parts)
        self._error = error
        self.closed = 0

    def __iter__(self):
        yield from self._parts
        if self._error is not None:
            raise self._error

    def close(self):
        self.closed += 1


def a_list(environ, start_response):
    start_response("200 OK", [])
    return [b"a", b"b"]


def a_generator(environ, start_response):
    """It calls start_response when it is iterated."""
    start_response("200 OK", [])
    yield b""
    yield b"a"


def written(environ, start_response):
    write = start_response("200 OK", [])
    write(b"a")
    return [b"b"]


def empty(environ, start_response):
    start_response("204 No Content", [])
    return []


def no_response(environ, start_response):
    return []


def a_file(environ, start_response):
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](BytesIO(b"a"))


def started_again(environ, start_response):
    start_response("200 OK", [])
    try:
        raise LookupError
    except LookupError as error:
        start_response("503 Service Unavailable", [], (LookupError, error, None))
    return [b"sorry"]


def fail(environ, start_response):
    raise RuntimeError


def time_out(environ, start_response):
    raise TimeoutError


def no_iterable(environ, start_response):
    start_response("200 OK", [])
    return


def fail_before_the_body(environ, start_response):
    start_response("200 OK", [])
    raise RuntimeError
    yield


def fail_in_the_body(environ, start_response):
    start_response("200 OK", [])
    yield b"a"
    raise TimeoutError


def written_and_failed(environ, start_response):
    start_response("200 OK", [])(b"a")
    raise TimeoutError


def responding(status):
    def app(environ, start_response):
        start_response(status, [])
        return [b"a"]

    return app


SUCCESS, DROPPED, IGNORED = 3, 1, 2
ENDINGS = {
    a_list: SUCCESS, a_generator: SUCCESS, written: SUCCESS, empty: SUCCESS, a_file: SUCCESS,
    no_response: IGNORED, started_again: DROPPED, fail: IGNORED, time_out: DROPPED, no_iterable: IGNORED,
    fail_before_the_body: IGNORED, fail_in_the_body: SUCCESS, written_and_failed: SUCCESS,
    responding("404 Not Found"): SUCCESS, responding("500"): SUCCESS,
    responding("503 Service Unavailable"): DROPPED, responding("504 Gateway Timeout"): DROPPED,
}


@pytest.mark.parametrize("app", ENDINGS)
def test_endings(app):
    """The permit is back, and the limit, which was two, has changed by the outcome."""
    limiter = ConcurrencyLimiter(2, algorithm="aimd", max_latency=60)
    middleware = ShedMiddleware(app, limiter)
    for number in range(5):
        with suppress(RuntimeError, TimeoutError, TypeError):
            serve(middleware)
        assert limiter.inflight == 0
        if not number:
            assert limiter.limit == ENDINGS[app]
    assert middleware.stats() == ({None: 5}, {None: 0}, 0, limiter.limit)
    limiter._check()


@pytest.mark.parametrize("app", [app for app in ENDINGS if app not in (no_response, no_iterable)])
def test_the_server_sees_what_the_application_sent(app):
    def seen(app):
        try:
            starts, parts = serve(app)
        except (RuntimeError, TimeoutError) as error:
            return type(error)
        return [status for status, _ in starts], parts

    assert seen(app) == seen(shed_by(app=app)[0])


def test_a_body_is_in_flight_until_its_end():
    middleware, limiter = shed_by(app=a_generator)
    body = middleware(environ_of(), Response().start)
    for part in b"", b"a":
        assert limiter.inflight == 1
        assert next(body) == part
    assert limiter.inflight == 1
    with pytest.raises(StopIteration):
        next(body)
    assert limiter.inflight == 0
    with pytest.raises(StopIteration):
        next(body)
    body.close()
    assert limiter.inflight == 0


@pytest.mark.parametrize("sent, limit", [(0, 2), (1, 3)])
def test_a_client_that_leaves(sent, limit):
    """The body is closed before its end: without a first part the request says nothing about the load."""
    inner = Closable([b"a", b"b"])

    def app(environ, start_response):
        start_response("200 OK", [])
        return inner

    limiter = ConcurrencyLimiter(2, algorithm="aimd", max_latency=60)
    body = ShedMiddleware(app, limiter)(environ_of(), Response().start)
    for _ in range(sent):
        next(body)
    assert limiter.inflight == 1
    body.close()
    assert (limiter.inflight, inner.closed, limiter.limit) == (0, 1, limit)


def test_a_body_whose_close_raises():
    class Broken(Closable):
        def close(self):
            raise LookupError

    def app(environ, start_response):
        start_response("200 OK", [])
        return Broken([b"a"])

    middleware, limiter = shed_by(app=app)
    body = middleware(environ_of(), Response().start)
    with pytest.raises(LookupError):
        body.close()
    assert limiter.inflight == 0


def test_a_body_that_is_lost_is_recovered():
    """A broken server neither reads nor closes it."""
    middleware, limiter = shed_by()
    middleware(environ_of(), Response().start)
    with pytest.warns(ResourceWarning, match="1 permits were deleted"):
        assert get(middleware).status == 200
    assert limiter.inflight == 0


def test_the_number_of_parts_is_kept():
    """Servers derive Content-Length from a single part."""
    body = shed_by()[0](environ_of(), Response().start)
    assert len(body) == 1
    body.close()
    body = shed_by(app=a_generator)[0](environ_of(), Response().start)
    assert not hasattr(body, "__len__")
    body.close()


def test_a_file_is_returned_as_it_is():
    """For the server sends it by itself; the application is done with it."""
    middleware, limiter = shed_by(app=a_file)
    assert type(middleware(environ_of(), Response().start)) is FileWrapper
    assert limiter.inflight == 0
    body = middleware(environ_of(**{"wsgi.file_wrapper": lambda file: file}), Response().start)
    assert b"".join(body) == b"a"
    assert limiter.inflight == 0


def test_the_latency_ends_with_the_first_part(clock):
    limiter = ConcurrencyLimiter(2, algorithm="aimd", max_latency=1, clock=clock)

    def app(environ, start_response):
        start_response("200 OK", [])
        clock.advance(first)
        yield b"a"
        clock.advance(3600)
        yield b"b"

    first = 0.5
    serve(ShedMiddleware(app, limiter))
    assert limiter.limit == 3
    first = 1.5
    serve(ShedMiddleware(app, limiter))
    assert limiter.limit == 2


def test_errors_of_the_application_reach_the_server():
    for app, error in (fail, RuntimeError), (time_out, TimeoutError), (no_iterable, TypeError):
        with pytest.raises(error):
            serve(shed_by(app=app)[0])


def test_a_refusal():
    middleware, limiter = shed_by(retry_after=7)
    with limiter.acquire():
        response = get(middleware)
        assert response.starts[0][0] == "503 Service Unavailable"
        assert response.fields == {"content-type": "application/problem+json", "retry-after": "7",
                                   "content-length": str(len(response.body))}
        assert json.loads(response.body)["status"] == 503
        assert get(middleware, method="HEAD").body == b""
        assert middleware.stats() == ({None: 0}, {None: 2}, 1, 1)
    assert get(middleware).status == 200


def test_priorities():
    """The lower ones are shed first; unknown names and requests without a name are the lowest."""
    middleware, limiter = shed_by(10, priorities={"user": 1.0, "batch": 0.5}, priority=header("x-priority"))

    def statuses():
        return [get(middleware, headers=[("X-Priority", name)] if name else ()).status
                for name in ("user", "batch", "junk", "\xff" * 5000, None)]

    assert statuses() == [200] * 5
    held = [limiter.acquire("user") for _ in range(5)]
    assert statuses() == [200] + [503] * 4
    held += [limiter.acquire("user") for _ in range(5)]
    assert statuses() == [503] * 5
    assert middleware.stats()[:2] == ({"user": 2, "batch": 4}, {"user": 1, "batch": 8})
    for permit in held:
        permit.release()


@pytest.mark.parametrize("exempt", [
    ["/static/*", "/version"], lambda request: request.path[:2] in ("/s", "/v"),
])
def test_exempt_requests(exempt):
    """They are neither refused nor counted, and health checks never are."""
    middleware, limiter = shed_by(exempt=exempt)
    with limiter.acquire():
        for path in "/static/a.css", "/version", "/health", "/healthz", "/livez", "/ping", "/readyz":
            assert get(middleware, path).status == 200
            assert type(middleware(environ_of(path), Response().start)) is list
        for path in "/", "/healthz/other", "/favicon.ico":
            assert get(middleware, path).status == 503
    assert middleware.stats().admitted == {None: 0}


async def coroutine_function(request):
    """Nothing under WSGI awaits it."""


@pytest.mark.parametrize("limiter, options, message", [
    ("limiter", {}, "limiter must be a ConcurrencyLimiter, got 'limiter'"),
    (None, {"priority": str}, "priority must be None for a limiter without priorities, got <class 'str'>"),
    (None, {"retry_after": 10**9 + 1}, r"retry_after must be in \[0, 1000000000\], got 1000000001"),
    (None, {"exempt": coroutine_function}, "exempt must not be a coroutine function under WSGI, got <"),
    (None, {"priority": coroutine_function}, "priority must not be a coroutine function under WSGI, got <"),
])
def test_bad_arguments(limiter, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ShedMiddleware(hello, limiter or ConcurrencyLimiter(), **options)


@pytest.mark.parametrize("shared", [False, True])
def test_threads(shared, tmp_path):
    """No more requests than the limit are ever in the application, and each is counted."""
    limiter = ConcurrencyLimiter(3, algorithm="fixed", path=tmp_path / "permits" if shared else None)
    inside, most, lock = [], [], Lock()

    def app(environ, start_response):
        with lock:
            inside.append(environ)
            most.append(len(inside))
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"a"
        with lock:
            inside.pop()

    def work(number):
        for _ in range(100):
            assert get(middleware).status in (200, 503)

    middleware = ShedMiddleware(app, limiter)
    run_threads(work)
    stats = middleware.stats()
    assert max(most) <= 3
    assert (stats.admitted[None], stats.shed[None], stats.inflight) == (len(most), 800 - len(most), 0)
    limiter._check()


SHARES = {"high": 1.0, "middle": 0.6, "low": 0.2}
LIMIT = 5
RESULTS = b"", b"part", StopIteration(), RuntimeError(), TimeoutError()


class Script:
    """A body that returns or raises what it is given next."""

    def __init__(self):
        self.next = b""

    def __iter__(self):
        return self

    def __next__(self):
        if isinstance(self.next, bytes):
            return self.next
        raise self.next


class Requests(RuleBasedStateMachine):
    """Requests that begin, go on and end in any order, against a set of those that are in flight."""

    def __init__(self):
        super().__init__()
        self.running, self.held = [], []
        self.counts = {name: [0, 0] for name in SHARES}
        self.middleware, self.limiter = shed_by(LIMIT, self.app, priorities=SHARES, priority=header("p"))

    def app(self, environ, start_response):
        if "error" in environ:
            raise environ["error"]
        self.script = Script()
        start_response("200 OK", [])
        return self.script

    @rule(name=st.sampled_from([*SHARES, "junk"]), error=st.sampled_from([None, RuntimeError, TimeoutError]))
    def begin(self, name, error):
        known = name if name in SHARES else "low"
        admitted = len(self.held) < max(1, int(LIMIT * SHARES[known]))
        self.counts[known][not admitted] += 1
        response = Response()
        try:
            body = self.middleware(environ_of(headers=[("p", name)], **({"error": error} if error else {})),
                                   response.start)
        except (RuntimeError, TimeoutError):
            assert admitted
            return
        assert admitted == (response.status == 200)
        if admitted:
            self.running.append((body, self.script))
            self.held.append(body)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 99), result=st.sampled_from(RESULTS))
    def read(self, which, result):
        body, script = self.running[which % len(self.running)]
        script.next = result
        if isinstance(result, bytes):
            assert next(body) == result
            return
        with pytest.raises(type(result)):
            next(body)
        if body in self.held:
            self.held.remove(body)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 99))
    def close(self, which):
        body, _ = self.running.pop(which % len(self.running))
        body.close()
        if body in self.held:
            self.held.remove(body)

    @invariant()
    def permits_are_those_of_the_requests_in_flight(self):
        stats = self.middleware.stats()
        assert (stats.inflight, stats.limit) == (len(self.held), LIMIT)
        assert {name: [stats.admitted[name], stats.shed[name]] for name in SHARES} == self.counts
        self.limiter._check()

    def teardown(self):
        for body, _ in self.running:
            body.close()
        assert self.limiter.inflight == 0


TestRequests = Requests.TestCase


def test_a_priority_that_nothing_awaits():
    app, limiter = shed_by(priorities={"user": 1.0}, priority=lambda request: coroutine_function(request))
    with pytest.raises(TypeError, match="priority must not return an awaitable, as nothing awaits it here"):
        get(app)
    assert limiter.inflight == 0


def test_a_priority_that_is_no_name():
    app, limiter = shed_by(priorities={"user": 1.0, "batch": 0.5}, priority=lambda request: ["user"])
    with pytest.raises(TypeError, match=r"priority must return a str or None, got \['user'\]"):
        get(app)
    assert limiter.inflight == 0
    assert app.stats().admitted == {"user": 0, "batch": 0}
