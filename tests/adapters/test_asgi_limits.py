"""RateLimitMiddleware in front of ASGI applications, without a server."""

import asyncio
import json
from random import Random

import pytest
from asgi_driver import call, get, hello, scope_of

from headgate import AddressLimiter, RateLimiter, RateLimits, Reservation, TokenBucket
from headgate.adapters.asgi import RateLimitMiddleware
from headgate.adapters.keys import client, const, header, path

IP = ("192.0.2.1", 5)


@pytest.fixture
def limiter(clock):
    return RateLimiter("2/min", clock=clock)


def statuses(app, count, **options):
    return [get(app, **options).status for _ in range(count)]


def test_a_burst_passes_and_the_rest_is_denied(limiter, clock):
    app = RateLimitMiddleware(hello, limiter, keys=client())
    assert statuses(app, 3) == [200, 200, 429]
    assert statuses(app, 1, client=("192.0.2.2", 5)) == [200]
    clock.now += 30_000_000_000
    assert statuses(app, 2) == [200, 429]


def test_fields_of_the_draft(limiter):
    app = RateLimitMiddleware(hello, limiter, keys=client())
    assert get(app).fields == {
        "content-type": "text/plain", "ratelimit-policy": '"2/min";q=2;w=60', "ratelimit": '"2/min";r=1;t=30'}
    get(app)
    denied = get(app)
    assert denied.fields == {
        "content-type": "application/problem+json", "content-length": str(len(denied.body)),
        "ratelimit-policy": '"2/min";q=2;w=60', "ratelimit": '"2/min";r=0;t=30', "retry-after": "30"}
    assert json.loads(denied.body) == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "status": 429, "detail": "Try again in 30 seconds.", "violated-policies": ["2/min"]}


@pytest.mark.parametrize(("style", "names"), [
    ("draft", {"ratelimit-policy", "ratelimit"}),
    ("legacy", {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}),
    ("both", {"ratelimit-policy", "ratelimit", "x-ratelimit-limit", "x-ratelimit-remaining",
              "x-ratelimit-reset"}),
    (None, set()),
])
def test_styles_of_fields(limiter, style, names):
    app = RateLimitMiddleware(hello, limiter, keys=client(), headers=style)
    for _ in range(2):
        assert get(app).fields.keys() == names | {"content-type"}
    assert get(app).fields.keys() == names | {"content-type", "content-length", "retry-after"}


def test_fields_of_the_application_are_replaced(limiter):
    """A proxy's, for example; those of the other style stay."""
    fields = [(b"ratelimit", b"a"), (b"ratelimit-policy", b"b"), (b"via", b"c"), (b"x-ratelimit-limit", b"d")]

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": tuple(fields)})
        await send({"type": "http.response.body"})

    limited = RateLimitMiddleware(app, limiter, keys=client(), exempt=["/free"])
    assert get(limited).fields == {"via": "c", "x-ratelimit-limit": "d", "ratelimit": '"2/min";r=1;t=30',
                                   "ratelimit-policy": '"2/min";q=2;w=60'}
    assert list(get(limited, "/free").start["headers"]) == fields


def test_a_message_that_is_sent_again_is_not_changed(limiter):
    start = {"type": "http.response.start", "status": 204}

    async def constant(scope, receive, send):
        await send(start)
        await send({"type": "http.response.body"})

    app = RateLimitMiddleware(constant, limiter, keys=client())
    assert get(app).fields["ratelimit"] == '"2/min";r=1;t=30'
    assert get(app).fields["ratelimit"] == '"2/min";r=0;t=30'
    assert start == {"type": "http.response.start", "status": 204}


def test_the_body_of_a_denied_head_is_empty(limiter):
    app = RateLimitMiddleware(hello, limiter, keys=client(), cost=2)
    get(app)
    response = get(app, method="HEAD")
    assert (response.status, response.body) == (429, b"")
    assert int(response.fields["content-length"]) > 100


class TestLevels:
    @pytest.fixture
    def limits(self, clock):
        return RateLimits(ip="3/min", user="2/min", clock=clock)

    def test_a_denied_request_charges_no_level(self, limits):
        app = RateLimitMiddleware(hello, limits, keys={"user": header("x-user"), "ip": client()})
        assert statuses(app, 4, headers=[("X-User", "ann")]) == [200, 200, 429, 429]
        assert limits.peek(ip="192.0.2.1").remaining == 1
        assert app.stats()["ip"] == (2, 0, {})
        assert app.stats()["user"] == (2, 2, {"2/min": 2})

    def test_a_level_without_a_key_has_no_say(self, limits):
        app = RateLimitMiddleware(hello, limits, keys={"user": header("x-user"), "ip": client()})
        assert statuses(app, 4) == [200, 200, 200, 429]
        assert app.stats() == {"user": (0, 0, {}), "ip": (3, 1, {"3/min": 1})}

    def test_no_level_at_all(self, limits):
        app = RateLimitMiddleware(hello, limits, keys={"user": header("x-user")})
        assert statuses(app, 9) == [200] * 9
        assert get(app).fields == {"content-type": "text/plain"}

    def test_one_level_takes_one_extractor(self, clock):
        app = RateLimitMiddleware(hello, RateLimits(ip="1/min", clock=clock), keys=client())
        assert statuses(app, 2) == [200, 429]


def test_no_key_is_no_limit(limiter):
    app = RateLimitMiddleware(hello, limiter, keys=header("x-team"))
    assert statuses(app, 5) == [200] * 5
    assert app.stats() == {"default": (0, 0, {})}


def test_awaitable_extractors_costs_and_exemptions(limiter):
    async def key(request):
        await asyncio.sleep(0)
        return request.header("x-user")

    async def cost(request):
        await asyncio.sleep(0)
        return 2

    async def exempt(request):
        await asyncio.sleep(0)
        return request.path == "/free"

    app = RateLimitMiddleware(hello, limiter, keys=key, cost=lambda request: cost(request), exempt=exempt)
    assert statuses(app, 2, headers=[("x-user", "ann")]) == [200, 429]
    assert statuses(app, 3, path="/free", headers=[("x-user", "ann")]) == [200, 200, 200]
    levels = RateLimits(user="1/min", ip="9/min", clock=lambda: 0)
    app = RateLimitMiddleware(hello, levels, keys={"user": lambda request: key(request), "ip": client()})
    assert statuses(app, 2, headers=[("x-user", "ann")]) == [200, 429]


def test_exempt_paths(limiter):
    app = RateLimitMiddleware(hello, limiter, keys=client(), exempt=["/healthz", "/static/*"])
    assert statuses(app, 3, path="/healthz") == [200] * 3
    assert statuses(app, 3, path="/static/a/b.css") == [200] * 3
    assert "ratelimit" not in get(app, "/healthz").fields
    assert [get(app, path).status for path in ("/healthz/", "/static", "/a/static/")] == [200, 200, 429]


def test_a_cost_above_the_burst_is_denied_for_ever(limiter):
    app = RateLimitMiddleware(hello, limiter, keys=client(), cost=lambda request: int(request.query))
    response = get(app, query_string=b"3")
    assert response.status == 429
    assert "retry-after" not in response.fields
    assert json.loads(response.body)["detail"] == "Such requests are not allowed."
    assert limiter.peek("192.0.2.1").remaining == 2
    with pytest.raises(ValueError, match="cost must be finite and non-negative, got -1"):
        get(app, query_string=b"-1")


def test_dry_run_lets_pass_counts_and_marks(limiter):
    marks = []

    async def marked(scope, receive, send):
        marks.append(scope["headgate"].would_deny)
        await hello(scope, receive, send)

    app = RateLimitMiddleware(marked, limiter, keys=client(), dry_run=True)
    assert [get(app).fields for _ in range(3)] == [{"content-type": "text/plain"}] * 3
    assert app.stats() == {"default": (2, 1, {"2/min": 1})}
    assert [None if mark is None else mark.policy for mark in marks] == [None, None, "2/min"]


def test_on_denied_is_an_application(limiter):
    async def sorry(scope, receive, send):
        assert scope["state"]["headgate"] is scope["headgate"]
        body = f"later: {scope['headgate'].decision.retry_after:.0f}".encode()
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": body})

    app = RateLimitMiddleware(hello, limiter, keys=client(), on_denied=sorry)
    assert statuses(app, 2) == [200, 200]
    response = get(app)
    assert (response.status, response.body) == (503, b"later: 30")
    assert response.fields == {"ratelimit-policy": '"2/min";q=2;w=60', "ratelimit": '"2/min";r=0;t=30'}


class TestWebSockets:
    def test_denied_with_429_where_the_server_can(self, limiter):
        app = RateLimitMiddleware(hello, limiter, keys=client(), cost=2)
        extended = {"kind": "websocket", "extensions": {"websocket.http.response": {}}}
        (accepted,) = get(app, **extended).messages
        assert accepted["type"] == "websocket.accept"
        assert dict(accepted["headers"])[b"ratelimit"] == b'"2/min";r=0;t=30'
        denied = get(app, **extended)
        assert [message["type"] for message in denied.messages] == [
            "websocket.http.response.start", "websocket.http.response.body"]
        assert (denied.status, denied.fields["retry-after"]) == (429, "60")
        assert json.loads(denied.body)["status"] == 429

    def test_closed_elsewhere(self, limiter):
        app = RateLimitMiddleware(hello, limiter, keys=client(), cost=2, on_denied=hello)
        get(app, kind="websocket")
        assert get(app, kind="websocket", extensions=None).messages == [
            {"type": "websocket.close", "code": 1013}]

    def test_on_denied_responds_to_a_handshake(self, limiter):
        async def sorry(scope, receive, send):
            await send({"type": "http.response.start", "status": 503, "headers": []})
            await send({"type": "http.response.body", "body": b"sorry"})

        app = RateLimitMiddleware(hello, limiter, keys=client(), cost=2, on_denied=sorry)
        extended = {"kind": "websocket", "extensions": {"websocket.http.response": {}}}
        get(app, **extended)
        assert (get(app, **extended).status, get(app, **extended).body) == (503, b"sorry")


@pytest.mark.parametrize("kind", ["lifespan", "unknown"])
def test_other_scopes_pass_unchanged(limiter, kind):
    seen = []

    async def app(*arguments):
        seen.append(arguments)

    scope, receive, send = {"type": kind}, object(), object()
    asyncio.run(RateLimitMiddleware(app, limiter, keys=client())(scope, receive, send))
    assert seen == [(scope, receive, send)]
    assert seen[0][0] is scope
    assert scope == {"type": kind}


class TestJoining:
    """Limits further in join the charge: a request is decided as a whole."""

    def test_a_denial_further_in_cancels_what_was_charged_further_out(self, limiter, clock):
        inner = RateLimiter("1/min", clock=clock)
        app = RateLimitMiddleware(RateLimitMiddleware(hello, inner, keys=client()), limiter, keys=client())
        assert get(app).fields["ratelimit"] == '"1/min";r=0;t=60'
        denied = get(app)
        assert denied.status == 429
        assert denied.fields["ratelimit-policy"] == '"1/min";q=1;w=60'
        assert limiter.peek("192.0.2.1").remaining == 1

    def test_the_tightest_limit_is_shown(self, limiter, clock):
        inner = RateLimiter("100/min", clock=clock)
        app = RateLimitMiddleware(RateLimitMiddleware(hello, inner, keys=client()), limiter, keys=client())
        assert get(app).fields["ratelimit-policy"] == '"2/min";q=2;w=60'

    def test_the_same_limit_is_charged_once(self, limiter):
        app = RateLimitMiddleware(hello, limiter, keys=client())
        app = RateLimitMiddleware(app, limiter, keys=client())
        assert statuses(app, 3) == [200, 200, 429]

    def test_for_other_keys_it_is_charged_again(self, limiter):
        inner = RateLimitMiddleware(hello, limiter, keys=const("all"))
        app = RateLimitMiddleware(inner, limiter, keys=client())
        assert [get(app, client=(f"192.0.2.{host}", 5)).status for host in range(3)] == [200, 200, 429]
        assert limiter.peek("192.0.2.2").remaining == 2

    def test_dry_run_further_out_denies_nothing(self, limiter, clock):
        dry = RateLimiter("1/h", clock=clock)
        app = RateLimitMiddleware(RateLimitMiddleware(hello, limiter, keys=client()), dry, keys=client(),
                                  dry_run=True)
        responses = [get(app) for _ in range(3)]
        assert [response.status for response in responses] == [200, 200, 429]
        assert responses[0].fields["ratelimit-policy"] == '"2/min";q=2;w=60'


class TestSettling:
    def make(self, limits, actual, **options):
        async def app(scope, receive, send):
            assert scope["state"]["headgate"] is scope["headgate"]
            scope["headgate"].settle(actual)
            await hello(scope, receive, send)

        return RateLimitMiddleware(app, limits, **options)

    def test_all_levels_and_tiers(self, clock):
        limits = RateLimits(user="1000/min; 9000/h", team="5000/min", clock=clock)
        app = self.make(limits, 300, keys={"user": const("ann"), "team": const("a")}, cost=800)
        get(app)
        assert limits.peek(user="ann").remaining == 700
        assert limits.peek(team="a").remaining == 4700

    def test_limits_that_count_requests_keep_their_count(self, limiter, clock):
        tokens = RateLimiter("1000/min", clock=clock)
        inner = self.make(tokens, 300, keys=client(), cost=lambda request: 800)
        get(RateLimitMiddleware(inner, limiter, keys=client()))
        assert (tokens.peek("192.0.2.1").remaining, limiter.peek("192.0.2.1").remaining) == (700, 1)

    def test_a_limit_alone_is_settled_whatever_its_cost(self, limiter):
        get(self.make(limiter, 0, keys=client()))
        assert limiter.peek("192.0.2.1").remaining == 2

    def test_cancel(self, limiter):
        async def app(scope, receive, send):
            assert scope["headgate"].cancel() is None
            await hello(scope, receive, send)

        get(RateLimitMiddleware(app, limiter, keys=client()))
        assert limiter.peek("192.0.2.1").remaining == 2


class AsyncLimiter:
    """A limiter whose state is elsewhere."""

    def __init__(self, limiter):
        self.limiter, self.settled, self.make = limiter, [], AsyncReservation
        self.rates = limiter.rates

    async def reserve(self, key, cost=1):
        await asyncio.sleep(0)
        return self.make(self.limiter.reserve(key, cost), self.settled)

    async def peek(self, key, cost=1):
        await asyncio.sleep(0)
        return self.limiter.peek(key, cost)


class AsyncReservation:
    def __init__(self, reservation, settled):
        self._reservation, self._settled = reservation, settled
        self.decision = reservation.decision

    def __bool__(self):
        return bool(self._reservation)

    async def settle(self, actual):
        await asyncio.sleep(0)
        self._settled.append(actual)
        self._reservation.settle(actual)

    async def cancel(self):
        await self.settle(0)


class TestAsyncLimiters:
    def test_they_are_awaited(self, limiter):
        app = RateLimitMiddleware(hello, AsyncLimiter(limiter), keys=client())
        assert statuses(app, 3) == [200, 200, 429]
        too_large = RateLimitMiddleware(hello, AsyncLimiter(limiter), keys=client(), cost=3)
        assert get(too_large).status == 429

    def test_settling_is_awaited(self, limiter):
        async def settling(scope, receive, send):
            await scope["headgate"].settle(0)
            await hello(scope, receive, send)

        remote = AsyncLimiter(limiter)
        assert statuses(RateLimitMiddleware(settling, remote, keys=client()), 3) == [200, 200, 200]
        assert remote.settled == [0, 0, 0]

    def test_a_denial_further_in_cancels_them(self, limiter, clock):
        inner = RateLimitMiddleware(hello, RateLimiter("0/s", clock=clock), keys=client())
        remote = AsyncLimiter(limiter)
        assert get(RateLimitMiddleware(inner, remote, keys=client())).status == 429
        assert remote.settled == [0]
        assert limiter.peek("192.0.2.1").remaining == 2


class BrokenReservation(AsyncReservation):
    async def settle(self, actual):
        raise ConnectionError("settle")


class TestLimitsThatCannotSettle:
    """The others are settled and cancelled nevertheless."""

    def test_of_a_store_that_is_gone(self, limiter, clock):
        async def app(scope, receive, send):
            with pytest.raises(ConnectionError):
                await scope["headgate"].settle(0)
            await hello(scope, receive, send)

        gone, remote = AsyncLimiter(RateLimiter("9/min", clock=clock)), AsyncLimiter(limiter)
        gone.make = BrokenReservation
        for limits in (limiter, remote, gone):
            app = RateLimitMiddleware(app, limits, keys=const(type(limits).__name__))
        assert get(app).status == 200
        assert (limiter.peek("RateLimiter").remaining, remote.settled) == (2, [0])

    def test_of_amounts_that_a_limit_refuses(self, clock):
        async def app(scope, receive, send):
            with pytest.raises(ValueError, match="actual must be"):
                scope["headgate"].settle(0.5)
            await hello(scope, receive, send)

        strict, limiter = RateLimiter("9/min", strict=True, clock=clock), RateLimiter("9/min", clock=clock)
        for limits in (limiter, strict):
            app = RateLimitMiddleware(app, limits, keys=client(), cost=2)
        get(app)
        assert limiter.peek("192.0.2.1").remaining == 8.5


class Blocking:
    blocking = True
    rates = ()

    def reserve(self, key, cost=1):
        return Reservation(cost, [])


@pytest.mark.parametrize(("limits", "options", "error", "message"), [
    (Blocking(), {}, TypeError, "limits must not block the event loop"),
    (TokenBucket(1, 1), {}, TypeError, "limits must be a limiter by key"),
    ("2/fortnight", {}, ValueError, "rate must be like"),
    (RateLimits(ip="1/s", user="1/s"), {}, TypeError, r"keys must be a mapping of levels \(ip, user\)"),
    (RateLimits(ip="1/s"), {"keys": {"address": client()}}, ValueError, "keys must be for levels among ip"),
    (RateLimits(ip="1/s"), {"keys": {"ip": "client"}}, TypeError, "keys must be extractors, got 'client'"),
    ("1/s", {"keys": {"ip": client()}}, TypeError, "keys must be one extractor"),
    ("1/s", {"keys": None}, TypeError, "keys must be one extractor"),
    ("1/s", {"keys": client}, TypeError, r"keys must be what client\(\) returns, got the function client"),
    (RateLimits(ip="1/s"), {"keys": {"ip": header}}, TypeError, r"keys must be what header\(\) returns"),
    ({"ip": "1/s"}, {"keys": {"ip": client()}}, TypeError, r"limits must .*RateLimits.* got {'ip': '1/s'}"),
    (AddressLimiter("1/s"), {}, TypeError, r"keys must be client\(v6=128\) for AddressLimiter"),
    (RateLimits(ip=AddressLimiter("1/s")), {}, TypeError, r"must be client\(v6=128\)"),
    (RateLimits(ip=AddressLimiter("1/s")), {"keys": {"ip": client(1)}}, TypeError, r"be client\(v6=128\)"),
    ("1/s", {"cost": -1}, ValueError, "cost must be finite and non-negative, got -1"),
    ("1/s", {"cost": "1"}, TypeError, "cost must be a number, got '1'"),
    ("1/s", {"headers": "x"}, ValueError, "headers must be one of"),
    ("1/s", {"exempt": "/health"}, TypeError, "be an iterable of paths or a callable, got '/health'"),
    ("1/s", {"exempt": ["healthz"]}, ValueError, "exempt must be paths or patterns"),
    ("1/s", {"on_denied": 429}, TypeError, "on_denied must be callable or None, got 429"),
])
def test_arguments_are_checked_at_construction(limits, options, error, message):
    with pytest.raises(error, match=message):
        RateLimitMiddleware(hello, limits, **{"keys": client(), **options})


def test_a_blocking_level_is_refused():
    class Level(Blocking):
        allow = decide = peek = refund = reset = reconfigure = None

    with pytest.raises(TypeError, match="limits must not block the event loop"):
        RateLimitMiddleware(hello, RateLimits(ip=Level()), keys=client())


def test_errors_of_extractors_reach_the_server(limiter):
    with pytest.raises(ZeroDivisionError):
        get(RateLimitMiddleware(hello, limiter, keys=lambda request: 1 / 0))


def test_junk_in_headers_never_raises():
    """10,000 requests with random and recorded headers, through every extractor that reads them."""
    random = Random(14)
    names = ["x-forwarded-for", "forwarded", "cookie", "host", "x-user"]
    parts = ["for=", '"', "[", "]", ":", ",", ";", "2001:db8::1", "192.0.2.1", "%eth0", "unknown", "_a", " ",
             "=", "\\", "\xff", "999.1.1.1", "::ffff:10.0.0.1", "10.0.0.1:80", "sid=1", "\t", "0x7f.1"]
    parts += ["for=192.0.2.60;proto=http;by=203.0.113.43", 'for="[2001:db8:cafe::17]:4711"', "for=_hidden",
              'For="_mdn"', "for=192.0.2.43, for=198.51.100.17;by=unknown", "203.0.113.7, 10.0.0.3",
              "_ga=GA1.2.1; csrftoken=u32t4o3tb3gg43", 'theme="dark\\073 x"; sid=38afes7a8', "a.example:443"]
    limits = RateLimits(ip="1000000/s", forwarded="1000000/s", user="1000000/s", path="1000000/s")
    keys = {"ip": client(trusted=["10.0.0.0/8", "unix"]), "user": header("x-user"), "path": path(),
            "forwarded": client(trusted=3, header="Forwarded")}
    app = RateLimitMiddleware(hello, limits, keys=keys)
    peers = [None, ("10.0.0.1", 5), ("unix", 0), ("testclient", 1), ("", 0), ("::1%lo", 2)]

    async def run():
        for _ in range(10_000):
            headers = [(random.choice(names), "".join(random.choices(parts, k=random.randrange(9))))
                       for _ in range(random.randrange(4))]
            url = random.choice(["/", "/\udcff", "/é", "/" + "a" * 3000])
            scope = scope_of("/", headers=headers, client=random.choice(peers)) | {"path": url}
            assert (await call(app, scope)).status == 200

    asyncio.run(run())


def test_networks_of_an_address_limiter(clock):
    limiter = AddressLimiter("1/min", v4={32: 1, 24: 2}, clock=clock)
    app = RateLimitMiddleware(hello, limiter, keys=client(v6=128))
    assert [get(app, client=(f"192.0.2.{host}", 5)).status for host in (1, 1, 2, 3)] == [200, 429, 200, 429]
    assert get(app, client=("2001:db8::1", 5)).status == 200


def test_tiers_that_a_limiter_gets_later_are_policies():
    limiter = RateLimiter("5/s", clock=lambda: 0)
    app = RateLimitMiddleware(hello, limiter, keys=const("all"))
    assert get(app).fields["ratelimit-policy"] == '"5/s";q=5;w=1'
    limiter.reconfigure("5/s; 9/min")
    assert get(app).fields["ratelimit-policy"] == '"5/s";q=5;w=1, "9/min";q=9;w=60'
