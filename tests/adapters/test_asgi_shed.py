"""ShedMiddleware under ASGI: each way in which a request ends gives its permit back, once and in time."""

import asyncio
import json
from contextlib import suppress
from functools import partial

import pytest
from asgi_driver import call, get, hello, scope_of
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from threads import run_threads

from headgate import ConcurrencyLimiter
from headgate.adapters.asgi import ShedMiddleware
from headgate.adapters.keys import header, user

START = {"type": "http.response.start", "status": 200, "headers": []}
LAST = {"type": "http.response.body", "body": b"last"}
PART = {"type": "http.response.body", "body": b"part", "more_body": True}


def shed_by(limit=1, app=hello, *, priorities=None, **options):
    """The middleware with a fixed limit, and its limiter."""
    limiter = ConcurrencyLimiter(limit, algorithm="fixed", priorities=priorities)
    return ShedMiddleware(app, limiter, **options), limiter


class Client:
    """What a server passes to an application, and what becomes of it."""

    def __init__(self, messages=(), error=None):
        self._messages = list(messages)
        self.error = error
        self.sent = []

    async def receive(self):
        if not self._messages:
            await asyncio.Event().wait()
        return self._messages.pop(0)

    async def send(self, message):
        if self.error is not None and self.sent:
            raise self.error
        self.sent.append(message)


async def complete(limiter, receive, send):
    await send(START)
    await send(LAST)
    assert limiter.inflight == 0, "background tasks hold nothing"


async def stream(limiter, receive, send):
    await send(START)
    for _ in range(3):
        await send(PART)
        assert limiter.inflight == 1, "a stream is in flight until its end"
    await send({"type": "http.response.body"})
    assert limiter.inflight == 0


async def no_response(limiter, receive, send):
    """The server responds with 500."""


async def no_end(limiter, receive, send):
    await send(START)
    await send(PART)


async def fail(limiter, receive, send):
    raise RuntimeError


async def time_out(limiter, receive, send):
    raise TimeoutError


async def fail_in_stream(limiter, receive, send):
    await send(START)
    await send(PART)
    raise RuntimeError


async def time_out_in_stream(limiter, receive, send):
    await send(START)
    raise TimeoutError


async def wait(limiter, receive, send):
    await receive()


async def wait_in_stream(limiter, receive, send):
    await send(START)
    await receive()


async def learn_of_disconnect(limiter, receive, send):
    assert (await receive())["type"] == "http.disconnect"
    assert limiter.inflight == 0, "the permit is given back before the application ends"
    await send(START)
    await send(LAST)


async def learn_of_disconnect_in_stream(limiter, receive, send):
    await send(START)
    await receive()
    assert limiter.inflight == 0
    await receive()


async def send_to_nobody(limiter, receive, send):
    await send(START)
    with suppress(OSError):
        await send(PART)
    assert limiter.inflight == 0
    with suppress(OSError):
        await send(LAST)


async def path_send(limiter, receive, send):
    await send(START)
    await send({"type": "http.response.pathsend", "path": "/file"})
    assert limiter.inflight == 0


async def zero_copy_send(limiter, receive, send):
    await send(START)
    await send({"type": "http.response.zerocopysend", "file": 3, "more_body": True})
    assert limiter.inflight == 1
    await send({"type": "http.response.zerocopysend", "file": 3})
    assert limiter.inflight == 0


async def respond(status, limiter, receive, send):
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send(LAST)


DISCONNECTS = [{"type": "http.disconnect"}] * 2
SUCCESS, DROPPED, IGNORED = 3, 1, 2
ENDINGS = {
    "complete": (complete, SUCCESS), "stream": (stream, SUCCESS), "path send": (path_send, SUCCESS),
    "zero copy send": (zero_copy_send, SUCCESS), "no response": (no_response, IGNORED),
    "no end": (no_end, SUCCESS), "error": (fail, IGNORED), "timeout": (time_out, DROPPED),
    "error in stream": (fail_in_stream, SUCCESS), "timeout in stream": (time_out_in_stream, SUCCESS),
    "cancelled": (wait, IGNORED), "cancelled in stream": (wait_in_stream, SUCCESS),
    "disconnect": (learn_of_disconnect, IGNORED),
    "disconnect in stream": (learn_of_disconnect_in_stream, SUCCESS),
    "broken pipe": (send_to_nobody, SUCCESS), "404": (partial(respond, 404), SUCCESS),
    "500": (partial(respond, 500), SUCCESS), "503": (partial(respond, 503), DROPPED),
    "504": (partial(respond, 504), DROPPED),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_endings(ending):
    """The permit is back, and the limit, which was two, has changed by the outcome."""
    handle, limit = ENDINGS[ending]
    limiter = ConcurrencyLimiter(2, algorithm="aimd", max_latency=60)

    async def app(scope, receive, send):
        await handle(limiter, receive, send)

    async def serve():
        client = Client(DISCONNECTS if "disconnect" in ending else (),
                        BrokenPipeError() if ending == "broken pipe" else None)
        task = asyncio.ensure_future(middleware(scope_of(), client.receive, client.send))
        await asyncio.sleep(0)
        if "cancelled" in ending:
            assert limiter.inflight == 1
            task.cancel()
        with suppress(RuntimeError, TimeoutError, asyncio.CancelledError):
            await task

    middleware = ShedMiddleware(app, limiter)
    asyncio.run(serve())
    assert (limiter.inflight, limiter.limit) == (0, limit)
    for _ in range(5):
        asyncio.run(serve())
    assert middleware.stats() == ({None: 6}, {None: 0}, 0, limiter.limit)
    limiter._check()


def test_errors_of_the_application_reach_the_server():
    for handle, error in (fail, RuntimeError), (time_out, TimeoutError):
        middleware, _ = shed_by(app=lambda scope, receive, send, handle=handle: handle(None, receive, send))
        with pytest.raises(error):
            get(middleware)


def test_a_refusal():
    middleware, limiter = shed_by(retry_after=7)
    with limiter.acquire():
        response = get(middleware)
        assert response.status == 503
        assert response.fields == {"content-type": "application/problem+json", "retry-after": "7",
                                   "content-length": str(len(response.body))}
        problem = json.loads(response.body)
        assert problem["status"] == 503
        assert problem["type"].startswith("https://iana.org/assignments/http-problem-types#")
        assert get(middleware, method="HEAD").body == b""
        assert middleware.stats() == ({None: 0}, {None: 2}, 1, 1)
    assert get(middleware).status == 200


def test_refusals_share_no_list_that_outer_middleware_may_change():
    middleware, limiter = shed_by()
    with limiter.acquire():
        get(middleware).start["headers"].append((b"x-outer", b"1"))
        assert "x-outer" not in get(middleware).fields


def test_the_latency_ends_with_the_start_of_the_response(clock):
    """A stream of an hour is no sign of overload."""
    limiter = ConcurrencyLimiter(2, algorithm="aimd", max_latency=1, clock=clock)

    async def app(scope, receive, send):
        clock.advance(0.5)
        await send(START)
        clock.advance(3600)
        await send(LAST)

    get(ShedMiddleware(app, limiter))
    assert limiter.limit == 3


def test_a_late_start_is_dropped(clock):
    limiter = ConcurrencyLimiter(2, algorithm="aimd", max_latency=1, clock=clock)

    async def app(scope, receive, send):
        clock.advance(1.5)
        await send(START)
        assert limiter.limit == 1, "before the response ends"
        await send(LAST)

    get(ShedMiddleware(app, limiter))


def test_priorities():
    """The lower ones are shed first; unknown names and requests without a name are the lowest."""
    middleware, limiter = shed_by(10, priorities={"user": 1.0, "low": 0.2, "batch": 0.5},
                                  priority=header("x-priority"))

    def statuses(*names):
        return [get(middleware, headers=[("X-Priority", name)] if name else ()).status for name in names]

    names = "user", "batch", "low", "junk", "\xff" * 5000, None
    assert statuses(*names) == [200] * 6
    held = [limiter.acquire("user") for _ in range(2)]
    assert statuses(*names) == [200, 200, 503, 503, 503, 503]
    held += [limiter.acquire("user") for _ in range(3)]
    assert statuses(*names) == [200, 503, 503, 503, 503, 503]
    held += [limiter.acquire("user") for _ in range(5)]
    assert statuses(*names) == [503] * 6
    stats = middleware.stats()
    assert stats.admitted == {"user": 3, "low": 4, "batch": 2}
    assert stats.shed == {"user": 1, "low": 12, "batch": 2}
    for permit in held:
        permit.release()


def test_awaitable_extractors():
    async def priority(request):
        await asyncio.sleep(0)
        return request.header("x-priority")

    async def exempt(request):
        await asyncio.sleep(0)
        return request.method == "OPTIONS"

    middleware, limiter = shed_by(2, priorities={"user": 1, "batch": 0.5}, priority=priority, exempt=exempt)
    with limiter.acquire("user"):
        assert get(middleware, headers=[("x-priority", "user")]).status == 200
        assert get(middleware, headers=[("x-priority", "batch")]).status == 503
        assert get(middleware, method="OPTIONS").status == 200


def test_an_extractor_that_raises_takes_no_permit():
    def priority(request):
        raise LookupError

    middleware, _ = shed_by(priorities={"user": 1}, priority=priority)
    with pytest.raises(LookupError):
        get(middleware)
    assert middleware.stats() == ({"user": 0}, {"user": 0}, 0, 1)


@pytest.mark.parametrize("exempt", [
    ["/static/*", "/version"], lambda request: request.path[:2] in ("/s", "/v"),
])
def test_exempt_requests(exempt):
    """They are neither refused nor counted, and health checks never are."""
    middleware, limiter = shed_by(exempt=exempt)
    with limiter.acquire():
        for path in "/static/a.css", "/version", "/health", "/healthz", "/livez", "/ping", "/readyz":
            assert get(middleware, path).status == 200
        for path in "/", "/healthz/other", "/favicon.ico":
            assert get(middleware, path).status == 503
    assert middleware.stats().admitted == {None: 0}


@pytest.mark.parametrize("scope", [
    {"type": "lifespan"}, {"type": "custom", "any": 1}, scope_of(kind="websocket"), scope_of("/healthz"),
])
def test_what_is_exempt_passes_unchanged(scope):
    seen = []

    async def app(*arguments):
        seen.append(arguments)

    middleware, limiter = shed_by(app=app)
    arguments = scope, object(), object()
    with limiter.acquire():
        asyncio.run(middleware(*arguments))
    assert all(one is other for one, other in zip(seen[0], arguments, strict=True))


def test_unknown_messages_pass_unchanged():
    async def app(scope, receive, send):
        await send({"type": "http.response.early_hint", "links": []})
        await send(START | {"trailers": True})
        await send({"type": "http.response.debug", "info": 1})
        await send(LAST)
        await send({"type": "http.response.trailers", "headers": []})

    middleware, limiter = shed_by(app=app)
    kinds = [message["type"].removeprefix("http.response.") for message in get(middleware).messages]
    assert kinds == ["early_hint", "start", "debug", "body", "trailers"]
    assert limiter.inflight == 0


EXTENSION = {"extensions": {"websocket.http.response": {}}}


def handshake(middleware, **more):
    return asyncio.run(call(middleware, scope_of(kind="websocket", **more))).messages


def test_a_websocket_holds_a_permit_if_wanted():
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        assert limiter.inflight == 1
        await send({"type": "websocket.send", "text": "a"})
        assert limiter.inflight == 1
        await send({"type": "websocket.close"})
        assert limiter.inflight == 0

    middleware, limiter = shed_by(app=app, websockets=True)
    handshake(middleware)
    with limiter.acquire():
        assert handshake(middleware) == [{"type": "websocket.close", "code": 1013}]
        start, body = handshake(middleware, **EXTENSION)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)
    assert json.loads(body["body"])["status"] == 503
    assert middleware.stats() == ({None: 1}, {None: 2}, 0, 1)


def test_a_websocket_whose_client_goes():
    async def app(scope, receive, send):
        await send({"type": "websocket.accept"})
        await receive()
        assert limiter.inflight == 0
        await asyncio.Event().wait()

    async def serve():
        client = Client([{"type": "websocket.disconnect"}])
        task = asyncio.ensure_future(middleware(scope_of(kind="websocket"), client.receive, client.send))
        await asyncio.sleep(0)
        assert not task.done()
        assert limiter.inflight == 0
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    middleware, limiter = shed_by(app=app, websockets=True)
    asyncio.run(serve())
    assert limiter.inflight == 0


def test_a_denied_handshake_of_the_application():
    """As any response with this status it says something about the load."""
    async def app(scope, receive, send):
        await send({"type": "websocket.http.response.start", "status": 503, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b""})
        assert limiter.inflight == 0

    limiter = ConcurrencyLimiter(2, algorithm="aimd", max_latency=1)
    handshake(ShedMiddleware(app, limiter, websockets=True), **EXTENSION)
    assert limiter.limit == 1


@pytest.mark.parametrize("limiter, options, message", [
    (None, {}, "limiter must be a ConcurrencyLimiter, got None"),
    ({"user": 1}, {}, "priority must be given for a limiter with priorities, got None"),
    ({}, {"priority": str}, "priority must be None for a limiter without priorities, got <class 'str'>"),
    ({"user": 1}, {"priority": "user"}, "priority must be callable or None, got 'user'"),
    ({}, {"retry_after": -1}, r"retry_after must be in \[0, 1000000000\], got -1"),
    ({}, {"retry_after": 1.5}, "retry_after must be an int, got 1.5"),
    ({}, {"exempt": ["static"]}, "exempt must be paths or patterns .* got 'static'"),
    ({}, {"exempt": "/static"}, "exempt must be an iterable of paths or a callable, got '/static'"),
    ({"user": 1}, {"priority": user}, r"priority must be what user\(\) returns, got the func"),
])
def test_bad_arguments(limiter, options, message):
    if limiter is not None:
        limiter = ConcurrencyLimiter(priorities=limiter or None)
    with pytest.raises((TypeError, ValueError), match=message):
        ShedMiddleware(hello, limiter, **options)


def test_event_loops_in_threads_share_a_limit(tmp_path):
    """No more requests than the limit are in the application, in two loops with limiters of one file."""
    limiters = [ConcurrencyLimiter(5, algorithm="fixed", path=tmp_path / "permits") for _ in range(2)]
    inside, most = [], []

    async def app(scope, receive, send):
        inside.append(scope)
        most.append(len(inside))
        await asyncio.sleep(0)
        await send(START)
        await asyncio.sleep(0)
        inside.pop()
        await send(LAST)

    middlewares = [ShedMiddleware(app, limiter) for limiter in limiters]

    async def load(middleware):
        responses = await asyncio.gather(*(call(middleware, scope_of()) for _ in range(200)))
        assert {response.status for response in responses} <= {200, 503}

    run_threads(lambda number: asyncio.run(load(middlewares[number])), count=2)
    assert max(most) <= 5
    for middleware in middlewares:
        stats = middleware.stats()
        assert (stats.admitted[None] + stats.shed[None], stats.inflight) == (200, 0)


class Waiting:
    """What the application of the machine awaits; it is resumed with what to do next."""

    def __await__(self):
        return (yield)


SHARES = {"high": 1.0, "middle": 0.6, "low": 0.2}
LIMIT = 5
ERRORS = RuntimeError, TimeoutError, asyncio.CancelledError


class Requests(RuleBasedStateMachine):
    """Requests that begin, go on and end in any order, against a set of those that are in flight."""

    def __init__(self):
        super().__init__()
        self.running, self.held = {}, set()
        self.counts = {name: [0, 0] for name in SHARES}
        self.middleware, self.limiter = shed_by(LIMIT, self.app, priorities=SHARES, priority=header("p"))
        self.begun = 0

    async def app(self, scope, receive, send):
        while await (await Waiting())(receive, send):
            pass

    @rule(name=st.sampled_from([*SHARES, "junk"]))
    def begin(self, name):
        known = name if name in SHARES else "low"
        admitted = len(self.held) < max(1, int(LIMIT * SHARES[known]))
        self.counts[known][not admitted] += 1
        client = Client()
        coroutine = self.middleware(scope_of(headers=[("p", name)]), client.receive, client.send)
        try:
            coroutine.send(None)
        except StopIteration:
            assert client.sent[0]["status"] == 503
            assert not admitted
            return
        assert admitted
        self.begun += 1
        self.running[self.begun] = coroutine, client
        self.held.add(self.begun)

    def resume(self, which, action, *, ends):
        """A request performs `action` and awaits the next one, or ends."""
        number = sorted(self.running)[which % len(self.running)]
        coroutine, client = self.running[number]
        try:
            if isinstance(action, BaseException):
                coroutine.throw(action)
            else:
                coroutine.send(partial(action, client))
        except (StopIteration, RuntimeError, OSError, asyncio.CancelledError):
            del self.running[number]
        if ends:
            self.held.discard(number)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 99))
    def start(self, which):
        async def action(client, receive, send):
            await send(START)
            return True

        self.resume(which, action, ends=False)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 99), last=st.booleans())
    def body(self, which, last):
        async def action(client, receive, send):
            await send(LAST if last else PART)
            return True

        self.resume(which, action, ends=last)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 99))
    def disconnect(self, which):
        async def action(client, receive, send):
            client._messages.append({"type": "http.disconnect"})
            await receive()
            return True

        self.resume(which, action, ends=True)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 99))
    def broken_pipe(self, which):
        async def action(client, receive, send):
            client.sent.append(None)
            client.error = BrokenPipeError()
            with suppress(OSError):
                await send(PART)
            return True

        self.resume(which, action, ends=True)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 99))
    def leave(self, which):
        async def action(client, receive, send):
            return False

        self.resume(which, action, ends=True)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 99), error=st.sampled_from(ERRORS))
    def fail(self, which, error):
        self.resume(which, error(), ends=True)

    @invariant()
    def permits_are_those_of_the_requests_in_flight(self):
        stats = self.middleware.stats()
        assert (stats.inflight, stats.limit) == (len(self.held), LIMIT)
        assert {name: [stats.admitted[name], stats.shed[name]] for name in SHARES} == self.counts
        self.limiter._check()

    def teardown(self):
        for coroutine, _ in self.running.values():
            coroutine.close()
        assert self.limiter.inflight == 0


TestRequests = Requests.TestCase
