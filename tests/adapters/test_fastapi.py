"""Limits of routes in FastAPI, with and without the middleware."""

from typing import Annotated

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from fastapi.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from headgate import AddressLimiter, RateLimiter, RateLimits
from headgate.adapters.asgi import RateLimitMiddleware
from headgate.adapters.fastapi import Charge, RateLimit, RateLimited, install
from headgate.adapters.keys import client as by_client
from headgate.adapters.keys import const, header

QUOTA = "https://iana.org/assignments/http-problem-types#quota-exceeded"


@pytest.fixture
def limiter(clock):
    return RateLimiter("2/min", clock=clock)


@pytest.fixture
def app():
    app = FastAPI()
    install(app)
    return app


def statuses(app, *paths, **options):
    client = TestClient(app)
    return [client.get(path, **options).status_code for path in paths]


def test_each_route_and_method_counts_for_itself(app, limiter):
    limit = Depends(RateLimit(limiter))

    @app.get("/items/{number}", dependencies=[limit])
    async def item(number: int):
        return number

    @app.put("/items/{number}", dependencies=[limit])
    def change(number: int):
        return number

    @app.get("/other", dependencies=[limit])
    def other():
        return PlainTextResponse("other")

    assert statuses(app, "/items/1", "/items/2", "/items/3", "/other") == [200, 200, 429, 200]
    assert TestClient(app).put("/items/1").status_code == 200
    response = TestClient(app).get("/items/9")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "30"
    assert response.headers["ratelimit"] == '"2/min";r=0;t=30'
    assert (response.json()["type"], response.json()["status"]) == (QUOTA, 429)
    assert int(response.headers["content-length"]) == len(response.content)


def test_shared_routes_count_as_one(app, limiter):
    @app.get("/a", dependencies=[Depends(RateLimit(limiter, shared="search"))])
    def a():
        return 1

    @app.get("/b", dependencies=[Depends(RateLimit(limiter, shared="search"))])
    def b():
        return 2

    @app.get("/c", dependencies=[Depends(RateLimit(limiter, shared=""))])
    @app.post("/c", dependencies=[Depends(RateLimit(limiter, shared=""))])
    def c():
        return 3

    assert statuses(app, "/a", "/b", "/a", "/b", "/c") == [200, 200, 429, 429, 200]
    assert TestClient(app).post("/c").status_code == 200
    assert statuses(app, "/c") == [429]


def test_fields_of_responses_that_fastapi_makes(app, limiter):
    @app.get("/", dependencies=[Depends(RateLimit(limiter, headers="both"))])
    def root():
        return {}

    fields = TestClient(app).get("/").headers
    assert fields["ratelimit"] == '"2/min";r=1;t=30'
    assert fields["x-ratelimit-remaining"] == "1"


def test_without_the_handler_fastapi_responds(limiter):
    app = FastAPI(dependencies=[Depends(RateLimit(limiter, headers=None))])
    app.get("/")(lambda: 1)
    assert statuses(app, "/", "/") == [200, 200]
    response = TestClient(app).get("/")
    assert (response.status_code, response.json()) == (429, {"detail": "Too Many Requests"})
    assert response.headers["retry-after"] == "30"
    assert "ratelimit" not in response.headers


def test_a_handler_of_ones_own(limiter):
    app = FastAPI(dependencies=[Depends(RateLimit(limiter))])
    app.get("/")(lambda: 1)

    @app.exception_handler(RateLimited)
    def handle(request: Request, error: RateLimited):
        return PlainTextResponse(error.charge.decision.policy, 418)

    statuses(app, "/", "/")
    assert (TestClient(app).get("/").status_code, TestClient(app).get("/").text) == (418, "2/min")


def test_routers_and_mounted_applications(app, limiter):
    limit = Depends(RateLimit(limiter))
    router, sub = APIRouter(prefix="/r", dependencies=[limit]), FastAPI(dependencies=[limit])
    router.get("/{x}")(lambda x: x)
    sub.get("/{x}")(lambda x: x)
    app.include_router(router, prefix="/one")
    app.include_router(router, prefix="/two", dependencies=[limit])  # twice the same: charged once
    app.mount("/sub", sub)
    install(sub)
    assert statuses(app, "/one/r/1", "/one/r/2", "/one/r/3") == [200, 200, 429]
    assert statuses(app, "/two/r/1", "/two/r/2", "/two/r/3") == [200, 200, 429]
    assert statuses(app, "/sub/1", "/sub/2", "/sub/3") == [200, 200, 429]


class TestWithTheMiddleware:
    def make(self, app, outer, *limits, **options):
        for limit in limits:
            app.router.dependencies.append(Depends(limit))
        app.get("/")(lambda: PlainTextResponse("hello"))
        app.add_middleware(RateLimitMiddleware, limits=outer, keys=by_client(), **options)
        return TestClient(app)

    def test_a_request_is_decided_as_a_whole(self, app, limiter, clock):
        outer = RateLimiter("9/min", clock=clock)
        client = self.make(app, outer, RateLimit(limiter))
        responses = [client.get("/") for _ in range(3)]
        assert [response.status_code for response in responses] == [200, 200, 429]
        assert outer.peek("testclient").remaining == 7
        assert [response.headers["ratelimit"] for response in responses] == [
            '"2/min";r=1;t=30', '"2/min";r=0;t=30', '"2/min";r=0;t=30']
        assert responses[2].headers["retry-after"] == "30"
        assert len(responses[2].headers.get_list("retry-after")) == 1

    def test_a_later_denial_cancels_an_earlier_dependency(self, app, limiter, clock):
        first, outer = RateLimiter("9/min", clock=clock), RateLimiter("9/min", clock=clock)
        client = self.make(app, outer, RateLimit(first, shared="s"), RateLimit(limiter))
        assert [client.get("/").status_code for _ in range(4)] == [200, 200, 429, 429]
        assert first.peek("s\ntestclient").remaining == outer.peek("testclient").remaining == 7

    def test_what_the_middleware_denies_reaches_no_route(self, app, limiter, clock):
        client = self.make(app, limiter, RateLimit(RateLimiter("9/min", clock=clock)))
        assert [client.get("/").status_code for _ in range(3)] == [200, 200, 429]
        assert client.get("/").json()["violated-policies"] == ["2/min"]

    def test_exempt_from_the_middleware_alone(self, app, limiter, clock):
        client = self.make(app, "1/h", RateLimit(limiter), exempt=["/"])
        responses = [client.get("/") for _ in range(3)]
        assert [response.status_code for response in responses] == [200, 200, 429]
        assert responses[0].headers["ratelimit"] == '"2/min";r=1;t=30'

    def test_request_state_settles(self, app, clock):
        tokens = RateLimiter("1000/min", clock=clock)

        @app.get("/complete")
        def complete(request: Request):
            request.state.headgate.settle(300)
            return {}

        client = self.make(app, tokens, cost=800)
        assert client.get("/complete").headers["ratelimit"] == '"1000/min";r=200;t=48'
        assert tokens.peek("testclient").remaining == 700


def test_the_dependency_is_the_charge(app, clock):
    tokens = RateLimiter("1000/min", clock=clock)
    limit = RateLimit(tokens, cost=lambda request: int(request.header("x-estimate")), shared="tokens")

    @app.post("/complete")
    async def complete(charge: Annotated[Charge, Depends(limit)]):
        charge.settle(100)
        return charge.decision.remaining

    response = TestClient(app).post("/complete", headers={"x-estimate": "400"})
    assert response.json() == 600
    assert tokens.peek("tokens\ntestclient").remaining == 900
    assert limit.stats() == {"default": (1, 0, {})}


def test_keys_that_are_awaited_or_none(app, limiter):
    async def key(request):
        return request.header("x-user")

    app.get("/awaited", dependencies=[Depends(RateLimit(limiter, key=key))])(lambda: 1)
    app.get("/header", dependencies=[Depends(RateLimit(limiter, key=header("x-user")))])(lambda: 1)
    for path in ("/awaited", "/header"):
        assert statuses(app, *[path] * 3, headers={"x-user": "ann"}) == [200, 200, 429]
        assert statuses(app, *[path] * 3) == [200, 200, 200]


def test_dry_run(app, limiter):
    limit = RateLimit(limiter, dry_run=True)
    app.get("/", dependencies=[Depends(limit)])(lambda: 1)
    assert statuses(app, "/", "/", "/") == [200, 200, 200]
    assert limit.stats()["default"].denied == 1


class TestWebSockets:
    @pytest.fixture
    def app(self, app, limiter):
        @app.websocket("/ws", dependencies=[Depends(RateLimit(limiter, key=const("all")))])
        async def talk(websocket: WebSocket):
            await websocket.accept()
            await websocket.send_text("hello")
            await websocket.close()

        return app

    def test_denied_with_429_where_the_server_can(self, app):
        client = TestClient(app)
        for _ in range(2):
            with client.websocket_connect("/ws") as websocket:
                assert websocket.receive_text() == "hello"
        with pytest.raises(WebSocketDisconnect) as caught, client.websocket_connect("/ws"):
            pass
        assert caught.value.status_code == 429
        assert caught.value.headers["retry-after"] == "30"

    def test_closed_elsewhere(self, app, limiter):
        async def plain(scope, receive, send):
            await app(scope | {"extensions": {}}, receive, send)

        assert limiter.allow("GET /ws\nall", cost=2)
        with pytest.raises(WebSocketDisconnect) as caught, TestClient(plain).websocket_connect("/ws"):
            pass
        assert caught.value.code == 1013


@pytest.mark.parametrize(("arguments", "error", "message"), [
    (("10/fortnight",), ValueError, "rate must be like"),
    ((RateLimits(ip="1/s"),), TypeError, "limits must be a rate or a limiter by key of any text"),
    ((AddressLimiter("1/s"),), TypeError, "limits must be a rate or a limiter by key of any text"),
])
def test_limits_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        RateLimit(*arguments)


@pytest.mark.parametrize(("name", "value"), [("key", "ip"), ("shared", 1), ("cost", None), ("exempt", 1)])
def test_arguments_are_checked(name, value):
    with pytest.raises(TypeError, match=f"{name} must be"):
        RateLimit("1/s", **{name: value})
