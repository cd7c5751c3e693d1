"""CacheMiddleware in front of WSGI applications: threads that share a call, and what servers see."""

import threading
import time
from random import Random
from wsgiref.util import FileWrapper

import pytest
from http_junk import REQUEST_NAMES, RESPONSE_NAMES, junk
from threads import run_threads
from watchdog import PATIENCE
from wsgi_driver import Response, call, environ_of, get, hello

from headgate.adapters.wsgi import CacheMiddleware
from headgate.errors import HeadgateError
from headgate.httpcache import HTTPCache, _fills

SLICE = 64 * 1024
MIB = 2**20
PLAIN = ("Content-Type", "text/plain")
CACHED = (PLAIN, ("Cache-Control", "max-age=60"))


class Origin:
    """An application that counts its calls. It returns `parts`, and waits for `gate` before each of them if
    it is `gated`; None stands for an error."""

    def __init__(self, *parts, status="200 OK", headers=CACHED, gated=False):
        self.parts, self.status, self.headers, self.gated = parts or (b"Hello",), status, headers, gated
        self.environs, self.closed = [], 0
        self.gate, self.called = threading.Semaphore(0), threading.Semaphore(0)
        self.error = ZeroDivisionError("app")

    @property
    def calls(self):
        return len(self.environs)

    def __call__(self, environ, start_response):
        self.environs.append(environ)
        self.called.release()
        start_response(self.status, list(self.headers))
        return self

    def __iter__(self):
        for part in self.parts:
            if self.gated:
                assert self.gate.acquire(timeout=PATIENCE)
            if part is None:
                raise self.error
            yield part

    def close(self):
        self.closed += 1


class Client(threading.Thread):
    """A request in a thread; `error` is what the server would see."""

    def __init__(self, app, path="/", **options):
        super().__init__(daemon=True)
        self.app, self.environ = app, environ_of(path, **options)
        self.response = self.error = None
        self.start()

    def run(self):
        try:
            self.response = call(self.app, self.environ)
        except Exception as error:
            self.error = error

    def done(self):
        self.join(PATIENCE)
        assert not self.is_alive(), "a thread hangs"
        return self

    @property
    def outcome(self):
        return self.response.fields["cache-status"].partition("; ")[2]


def waiting(app, count):
    """Returns once so many clients wait for fills."""
    fills = app.cache.fills
    deadline = time.monotonic() + PATIENCE
    while sum(len(fill._readers) for fill in list(fills._fills.values())) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def all_done(clients):
    for client in clients:
        client.done()


def test_a_hit_does_not_call_the_application():
    origin = Origin()
    app = CacheMiddleware(origin)
    first, second = get(app), get(app)
    assert (first.status, first.body) == (second.status, second.body) == (200, b"Hello")
    assert first.fields["cache-status"] == "headgate; fwd=uri-miss; fwd-status=200; stored"
    assert second.fields["cache-status"].startswith("headgate; hit; ttl=")
    assert (origin.calls, origin.closed) == (1, 1)


def test_many_threads_share_one_call():
    origin = Origin(b"Hello, ", b"world", gated=True)
    app = CacheMiddleware(origin)
    clients = [Client(app) for _ in range(200)]
    waiting(app, 200)
    origin.gate.release(2)
    all_done(clients)
    assert (origin.calls, origin.closed) == (1, 1)
    assert {client.response.body for client in clients} == {b"Hello, world"}
    outcomes = sorted(client.outcome.rpartition("; ")[2] for client in clients)
    assert outcomes == ["collapsed"] * 199 + ["stored"]


def test_no_url_is_requested_twice():
    """Whether a thread comes before, while or after another one's response is stored."""
    origin = Origin(b"a", b"b")
    app = CacheMiddleware(origin)

    def work(number):
        for page in range(300):
            assert call(app, environ_of(f"/{page}")).body == b"ab"

    run_threads(work, 8)
    assert (origin.calls, origin.closed) == (300, 300)


def test_followers_get_parts_before_the_body_is_complete():
    origin = Origin(b"a", b"b", gated=True)
    app = CacheMiddleware(origin)
    leader = Client(app)
    assert origin.called.acquire(timeout=PATIENCE)
    origin.gate.release()
    response = Response()
    parts = iter(app(environ_of(), response.start))
    assert next(parts) == b"a" and leader.is_alive()
    origin.gate.release()
    assert b"".join(parts) == b"b" and leader.done().response.body == b"ab" and origin.calls == 1


def test_a_client_that_takes_nothing_slows_no_other():
    origin = Origin(*[bytes(SLICE)] * 20)
    app = CacheMiddleware(origin)
    stalled = app(environ_of(), Response().start)  # never iterated: the body was read before
    assert len(Client(app).done().response.body) == 20 * SLICE
    assert sum(map(len, stalled)) == 20 * SLICE and origin.calls == 1


def test_private_responses_are_not_waited_for():
    origin = Origin(headers=[("Cache-Control", "private")], gated=True)
    app = CacheMiddleware(origin)
    clients = [Client(app) for _ in range(5)]
    for _ in range(5):
        assert origin.called.acquire(timeout=PATIENCE)
    origin.gate.release(5)
    all_done(clients)
    assert {client.response.body for client in clients} == {b"Hello"} and origin.closed == 5


def test_a_follower_waits_for_a_head_for_some_time_only():
    gate = threading.Event()
    origin = Origin()

    def slow(environ, start_response):
        origin.called.release()
        assert gate.wait(PATIENCE)
        return origin(environ, start_response)

    app = CacheMiddleware(slow, HTTPCache(wait=0.05))
    clients = [Client(app) for _ in range(3)]
    for _ in range(3):
        assert origin.called.acquire(timeout=PATIENCE)
    gate.set()
    all_done(clients)
    assert {client.response.body for client in clients} == {b"Hello"}


def test_variants_have_fills_of_their_own():
    origin = Origin(headers=[*CACHED, ("Vary", "Accept-Language")], gated=True)
    app = CacheMiddleware(origin)
    clients = [Client(app, headers=[("accept-language", code)]) for code in ["de", "en"] * 5]
    origin.gate.release(2)
    all_done(clients)
    assert origin.calls == 2 and {client.response.body for client in clients} == {b"Hello"}


def test_a_failure_before_the_head_reaches_all():
    gate, origin = threading.Event(), Origin()

    def failing(environ, start_response):
        origin.environs.append(environ)
        assert gate.wait(PATIENCE)
        raise origin.error

    app = CacheMiddleware(failing)
    clients = [Client(app) for _ in range(10)]
    waiting(app, 10)
    gate.set()
    all_done(clients)
    assert [client.error for client in clients] == [origin.error] * 10 and origin.calls == 1


def test_a_failure_within_the_body_aborts_every_response_and_stores_nothing():
    origin = Origin(b"abc", None, gated=True)
    app = CacheMiddleware(origin)
    clients = [Client(app) for _ in range(5)]
    waiting(app, 5)
    origin.gate.release(2)
    all_done(clients)
    assert [client.error for client in clients] == [origin.error] * 5
    assert app.cache.stats().entries == 0 and (origin.calls, origin.closed) == (1, 1)


@pytest.mark.parametrize("body", [b"Hell", b"Hello!"])
def test_a_body_of_another_length_is_an_error(body):
    origin = Origin(body, headers=[*CACHED, ("Content-Length", "5")])
    app = CacheMiddleware(origin)
    with pytest.raises(HeadgateError, match="the body has"):
        call(app, environ_of())
    assert app.cache.stats().entries == 0 and origin.closed == 1


def test_a_content_length_above_the_bound_is_returned_untouched():
    origin = Origin(b"abcdef", headers=[*CACHED, ("Content-Length", "6")])
    app = CacheMiddleware(origin, HTTPCache(max_object=5))
    assert call(app, environ_of()).returned is origin


def test_threads_under_way_get_a_body_that_is_too_large_to_be_stored():
    origin = Origin(*[bytes(SLICE)] * 64, gated=True)
    app = CacheMiddleware(origin, HTTPCache(max_object=MIB))
    clients = [Client(app) for _ in range(4)]
    waiting(app, 4)
    origin.gate.release(64)
    all_done(clients)
    assert {len(client.response.body) for client in clients} == {4 * MIB}
    assert (origin.calls, origin.closed) == (1, 1)
    assert app.cache.stats().entries == 0 and app.cache.fills.filling == 0


def test_a_leader_whose_client_leaves_reads_the_rest_for_the_others():
    origin = Origin(*[bytes(SLICE)] * 64, gated=True)
    app = CacheMiddleware(origin, HTTPCache(max_object=MIB))
    body = []
    leading = threading.Thread(target=lambda: body.append(app(environ_of(), Response().start)), daemon=True)
    leading.start()
    waiting(app, 1)
    follower = Client(app)
    waiting(app, 2)
    origin.gate.release(17)  # above 1 MiB
    leading.join(PATIENCE)
    next(iter(body[0]))
    origin.gate.release(47)
    body[0].close()
    assert len(follower.done().response.body) == 4 * MIB and (origin.calls, origin.closed) == (1, 1)


def test_a_leader_whose_client_leaves_alone_stops():
    origin = Origin(*[bytes(SLICE)] * 64)
    app = CacheMiddleware(origin, HTTPCache(max_object=MIB))
    body = app(environ_of(), Response().start)
    next(iter(body))
    body.close()
    body.close()
    assert origin.closed == 1 and len(app.cache.fills) == 0


def test_a_thread_that_stalls_is_cut_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(_fills, "STALL", 0.1)
    origin = Origin(*[bytes(SLICE)] * 64, gated=True)
    app = CacheMiddleware(origin, HTTPCache(max_object=MIB))
    leader = Client(app)
    waiting(app, 1)
    origin.gate.release(1)
    slow = iter(app(environ_of(), Response().start))
    next(slow)
    origin.gate.release(63)
    assert len(leader.done().response.body) == 4 * MIB
    with pytest.raises(HeadgateError, match="the client was cut"):
        list(slow)


class Staleness:
    """A cache whose clock the test moves, with a response that is stale by now."""

    def __init__(self, directives, **headers):
        self.seconds = 0
        self.cache = HTTPCache(clock=lambda: self.seconds * 10**9)
        self.origin = Origin(b"old", headers=[PLAIN, ("Cache-Control", directives), *headers.items()])
        self.app = CacheMiddleware(self.origin, self.cache)
        assert get(self.app).body == b"old"
        self.seconds = 20


def test_a_stale_response_is_refreshed_in_the_background():
    stale = Staleness("max-age=10, stale-while-revalidate=60")
    stale.origin.parts, stale.origin.gated = (b"new",), True
    assert {get(stale.app).body for _ in range(5)} == {b"old"}
    stale.origin.gate.release()
    (refresh,) = stale.app._refreshes
    refresh.join(PATIENCE)
    assert get(stale.app).body == b"new" and (stale.origin.calls, stale.origin.closed) == (2, 2)


def test_refreshes_have_a_bound():
    stale = Staleness("max-age=10, stale-while-revalidate=60")
    for number in range(20):
        get(stale.app, f"/{number}")
    stale.seconds = 40
    stale.origin.gated = True
    for number in range(20):
        assert get(stale.app, f"/{number}").body == b"old"
    assert sum(thread.is_alive() for thread in stale.app._refreshes) == 8
    stale.origin.gate.release(8)
    for thread in stale.app._refreshes:
        thread.join(PATIENCE)


@pytest.mark.parametrize("failure", ["exception", "status", "within the first part"])
def test_a_stale_response_is_served_for_an_error(failure, monkeypatch):
    stale, caught = Staleness("max-age=10, stale-if-error=60"), []
    monkeypatch.setattr("headgate.adapters.wsgi._cache.report", caught.append)
    if failure == "status":
        stale.origin.status, stale.origin.parts = "503 Service Unavailable", (b"sorry",)
        app = stale.app
    else:
        def failing(environ, start_response):
            if failure == "exception":
                raise stale.origin.error
            yield 1 / 0

        app = CacheMiddleware(failing, stale.cache)
    response = get(app)
    assert response.body == b"old" and "stale-if-error" in response.fields["cache-status"]
    assert len(caught) == (failure != "status")


def test_a_304_validates():
    stale = Staleness("max-age=10", ETag='"1"')
    stale.origin.status, stale.origin.parts = "304 Not Modified", ()
    assert call(stale.app, environ_of()).body == b"old" and stale.origin.calls == 2
    assert stale.origin.environs[1]["HTTP_IF_NONE_MATCH"] == '"1"'
    assert get(stale.app).fields["cache-status"].startswith("headgate; hit")


def test_preconditions_are_evaluated_on_the_result():
    origin = Origin(headers=[*CACHED, ("ETag", '"1"')])
    response = call(CacheMiddleware(origin), environ_of(headers=[("if-none-match", '"1"')]))
    assert (response.status, response.body) == (304, b"")
    assert "HTTP_IF_NONE_MATCH" not in origin.environs[0]


# PEP 3333


def test_a_file_wrapper_is_returned_untouched_unless_it_is_stored(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    wrappers = []

    def serve(environ, start_response):
        start_response("200 OK", [("Cache-Control", environ["QUERY_STRING"])])
        wrappers.append(environ["wsgi.file_wrapper"](path.open("rb")))
        return wrappers[-1]

    app = CacheMiddleware(serve)
    private = call(app, environ_of(QUERY_STRING="private"))
    assert isinstance(private.returned, FileWrapper) and private.returned is wrappers[0]
    posted = call(app, environ_of(method="POST"))
    assert posted.returned is wrappers[1]
    stored = call(app, environ_of(QUERY_STRING="max-age=60"))
    assert stored.body == b"content" and stored.returned is not wrappers[2] and wrappers[2].filelike.closed


def generating(environ, start_response):
    """An application that starts its response with its first part."""
    start_response("200 OK", list(CACHED))
    yield b""
    yield b"Hello"


def writing(environ, start_response):
    write = start_response("200 OK", list(CACHED))
    write(b"Hel")
    write(b"")
    return [b"lo"]


def starting_again(environ, start_response):
    start_response("500 Oops", [])
    try:
        raise ZeroDivisionError
    except ZeroDivisionError as error:
        start_response("200 OK", list(CACHED), (type(error), error, error.__traceback__))
    return [b"Hello"]


@pytest.mark.parametrize("application", [generating, writing, starting_again])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_all_ways_to_respond(application, method):
    app = CacheMiddleware(application)
    for _ in range(2):
        response = call(app, environ_of(method=method))
        assert (response.status, response.body) == (200, b"Hello")
    assert ("hit" in response.fields["cache-status"]) == (method == "GET")


@pytest.mark.parametrize("directive", ["max-age=60", "private"])
def test_a_body_that_is_written_may_be_large(directive):
    def application(environ, start_response):
        write = start_response("200 OK", [("Cache-Control", directive)])
        for _ in range(64):
            write(bytes(SLICE))
        return [b"end"]

    app = CacheMiddleware(application, HTTPCache(max_object=MIB))
    assert call(app, environ_of()).body == bytes(4 * MIB) + b"end"


@pytest.mark.parametrize("directive", ["max-age=60", "private"])
def test_an_error_that_an_application_tells_late(directive):
    """With exc_info, after its head: the server decides whether it can still be told."""
    def application(environ, start_response):
        start_response("200 OK", [("Cache-Control", directive)])

        def parts():
            try:
                raise ZeroDivisionError
            except ZeroDivisionError as error:
                start_response("500 Oops", [], (type(error), error, error.__traceback__))
            yield b"sorry"

        return parts()

    app = CacheMiddleware(application)
    if directive == "private":
        response = call(app, environ_of())
        assert (response.status, response.body) == (500, b"sorry")
    else:
        with pytest.raises(ZeroDivisionError):
            call(app, environ_of())
    assert app.cache.stats().entries == 0


def test_an_application_that_does_not_start_is_an_error():
    with pytest.raises(RuntimeError, match="did not call start_response"):
        call(CacheMiddleware(lambda environ, start_response: [b"a"]), environ_of())


def test_an_application_that_starts_twice_is_an_error():
    def application(environ, start_response):
        start_response("200 OK", [])
        start_response("200 OK", [])

    with pytest.raises(RuntimeError, match="start_response was called again, without exc_info"):
        call(CacheMiddleware(application), environ_of())


def test_an_unsafe_request_invalidates():
    origin = Origin()
    app = CacheMiddleware(origin)
    for method in ("GET", "POST", "GET"):
        call(app, environ_of(method=method))
    assert (origin.calls, origin.closed) == (3, 3)


def test_a_purge_during_a_fill_wins():
    origin = Origin(gated=True)
    app = CacheMiddleware(origin)
    client = Client(app)
    waiting(app, 1)
    app.cache.purge("/")
    origin.gate.release()
    assert client.done().outcome == "fwd=uri-miss; fwd-status=200" and app.cache.stats().entries == 0


def test_exempt_requests_are_left_alone():
    app = CacheMiddleware(hello, exempt=["/health*"])
    assert "cache-status" not in get(app, "/healthz").fields
    assert "cache-status" in get(app, "/other").fields


def test_the_key_is_the_path_as_it_is_mounted_and_the_query():
    origin = Origin()
    app = CacheMiddleware(origin)
    for options in ({}, {"SCRIPT_NAME": "/shop"}, {"QUERY_STRING": "a"}, {"HTTP_HOST": "other"},
                    {"wsgi.url_scheme": "https"}):
        get(app, "/a", **options)
        assert "hit" in get(app, "/a", **options).fields["cache-status"]
    assert origin.calls == 5
    assert app.cache.purge("http://example.com/shop/a") == 1


def test_junk_in_headers_never_raises():
    """In 10,000 requests and responses; a client that asks for all of it gets the whole body."""
    random, statuses = Random(15), ["200 OK", "200 OK", "304 ", "404 Not Found", "503 Oops", "599 ?"]
    cache, origin = HTTPCache("1 MiB", stale_if_error=1), Origin(b"Hello, ", b"world")
    app = CacheMiddleware(origin, cache)

    def latin(fields):
        return [(name, value.encode().decode("latin-1")) for name, value in fields]

    for _ in range(10_000):
        origin.status, origin.headers = random.choice(statuses), latin(junk(random, RESPONSE_NAMES))
        fields = dict(latin(junk(random, REQUEST_NAMES)))
        path = random.choice(["/", "/\xff", "", "//b", "/" + "a" * 20_000])
        method = random.choice(["GET"] * 8 + ["HEAD", "POST", "BREW"])
        response = call(app, environ_of(path, method=method, headers=fields.items(), QUERY_STRING="%"))
        assert "Cache-Status" in {name.title() for name, _ in response.starts[-1][1]}
        if response.status == 200 and method == "GET":
            assert response.body == b"Hello, world"
    cache._check()


@pytest.mark.parametrize("cache", [1, "64 MiB", {}])
def test_a_cache_of_another_type_is_refused(cache):
    with pytest.raises(TypeError, match="cache must be an HTTPCache or None, got"):
        CacheMiddleware(hello, cache)
