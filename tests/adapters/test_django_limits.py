"""RateLimitMiddleware and `ratelimit` for Django, under WSGI and ASGI."""

import asyncio
import json
from types import ModuleType

import django_settings
import pytest
from asgiref.sync import iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.utils.functional import SimpleLazyObject
from django.views import View
from wsgi_driver import get as get_by_wsgi

from headgate import AddressLimiter, RateLimiter, RateLimits
from headgate.adapters import keys
from headgate.adapters.asgi import RateLimitMiddleware as ASGIMiddleware
from headgate.adapters.django import RateLimitMiddleware, ratelimit
from headgate.adapters.wsgi import RateLimitMiddleware as WSGIMiddleware

LIMITS = "headgate.adapters.django.RateLimitMiddleware"


def hello(request, **arguments):
    return HttpResponse("hello")


async def hello_async(request, **arguments):
    return HttpResponse("hello")


class Synchronous:
    """Requests to the site by WSGI's handler."""

    def __init__(self):
        self.client = Client()

    def get(self, path="/", **options):
        return self.client.get(path, **options)


class Asynchronous:
    """Requests to the site by ASGI's handler."""

    def __init__(self):
        self.client = AsyncClient()

    def get(self, path="/", **options):
        return asyncio.run(self.client.get(path, **options))


@pytest.fixture(params=[Synchronous, Asynchronous], ids=["WSGI", "ASGI"])
def http(request):
    return request.param()


def statuses(http, *paths, **options):
    return [http.get(path, **options).status_code for path in paths]


def options(limits, **more):
    return {"limits": limits, "keys": keys.client()} | more


@pytest.fixture
def limiter(clock):
    return RateLimiter("2/min", clock=clock)


def test_a_burst_passes_and_the_rest_is_denied(site, http, limiter, clock):
    site(path("", hello), middleware=[LIMITS], HEADGATE_RATE_LIMITS=options(limiter))
    assert statuses(http, *["/"] * 3) == [200, 200, 429]
    clock.advance(30)
    assert statuses(http, "/", "/") == [200, 429]


def test_fields_and_body(site, http, limiter):
    site(path("", hello_async), middleware=[LIMITS], HEADGATE_RATE_LIMITS=options(limiter))
    assert http.get()["RateLimit"] == '"2/min";r=1;t=30'
    http.get()
    denied = http.get()
    assert denied["RateLimit-Policy"] == '"2/min";q=2;w=60'
    assert (denied["Retry-After"], denied["Content-Type"]) == ("30", "application/problem+json")
    assert json.loads(denied.content)["violated-policies"] == ["2/min"]
    assert http.get("/nowhere").status_code == 429, "what no view handles is limited too"


@pytest.mark.parametrize(("style", "names"), [("legacy", {"x-ratelimit-remaining"}), (None, set())])
def test_other_fields(site, http, limiter, style, names):
    site(path("", hello), middleware=[LIMITS], HEADGATE_RATE_LIMITS=options(limiter, headers=style))
    response = http.get()
    assert names <= set(map(str.lower, response.headers))
    assert "RateLimit" not in response.headers


def test_levels_in_settings(site, http):
    levels = {"ip": "3/min", "team": "1/min"}
    extractors = {"ip": keys.client(), "team": keys.header("X-Team")}
    site(path("", hello), middleware=[LIMITS], HEADGATE_RATE_LIMITS={"limits": levels, "keys": extractors})
    blue = {"headers": {"X-Team": "blue"}}
    assert statuses(http, "/", "/", **blue) == [200, 429]
    assert statuses(http, "/", "/", "/") == [200, 200, 429], "a denial is charged nowhere"


def test_the_chain_stays_as_it_is():
    for get_response in (hello, hello_async):
        class Limits(RateLimitMiddleware):
            options = options("1/min")

        middleware = Limits(get_response)
        assert iscoroutinefunction(middleware) == iscoroutinefunction(get_response)
        assert middleware.stats() == {"default": (0, 0, {})}
    assert RateLimitMiddleware.sync_capable is RateLimitMiddleware.async_capable is True


def later(request):
    return HttpResponse(f"denied by {request.headgate.decision.violated[0]}", status=503)


async def later_async(request):
    return later(request)


def test_an_own_response(site, http, limiter):
    views = {Synchronous: [later, f"{__name__}.later"], Asynchronous: [later, later_async]}[type(http)]
    for view in views:
        site(path("", hello), middleware=[LIMITS],
             HEADGATE_RATE_LIMITS=options(limiter, on_denied=view, cost=2))
        response = [http.get() for _ in range(2)][1]
        assert (response.status_code, response.content) == (503, b"denied by 2/min")
        assert response["RateLimit"] == '"2/min";r=0;t=30'


def test_exempt_paths_cost_and_dry_run(site, http, limiter):
    more = {"exempt": ["/free/*"], "cost": lambda request: 2 if request.query == "all" else 1}
    site(path("free/<name>", hello), path("", hello), middleware=[LIMITS],
         HEADGATE_RATE_LIMITS=options(limiter, **more))
    assert statuses(http, *["/free/a"] * 4) == [200] * 4
    assert statuses(http, "/?all", "/") == [200, 429]
    site(path("", lambda request: HttpResponse(f"{request.headgate.would_deny is not None}")),
         middleware=[LIMITS], HEADGATE_RATE_LIMITS=options("1/min", dry_run=True))
    dry = type(http)()
    assert [dry.get().content for _ in range(2)] == [b"False", b"True"]
    assert "RateLimit" not in dry.get().headers


def test_settling(site, http, clock):
    whole, single = RateLimiter("1000/min", clock=clock), RateLimiter("2000/min", clock=clock)

    def costly(request):
        request.headgate.settle(300)
        return StreamingHttpResponse(["done"])

    view = ratelimit(single, cost=800, key=keys.const("all"), shared="all")(costly)
    site(path("", view), middleware=[LIMITS], HEADGATE_RATE_LIMITS=options(whole, cost=800))
    assert http.get()["RateLimit"].startswith('"1000/min";r=200;')
    assert whole.peek("127.0.0.1").remaining == 700
    assert single.peek("all\nall").remaining == 1700


def test_a_view_that_raises_has_the_fields_too(site, http, limiter):
    def broken(request):
        raise LookupError

    site(path("", broken), middleware=[LIMITS], HEADGATE_RATE_LIMITS=options(limiter))
    http.client.raise_request_exception = False
    response = http.get()
    assert (response.status_code, response["RateLimit"]) == (500, '"2/min";r=1;t=30')


def test_routes_are_known_to_the_middleware(site, http):
    seen = []
    site(path("shop/", include([path("orders/<int:number>/", hello)])), middleware=[LIMITS],
         HEADGATE_RATE_LIMITS={"limits": "9/min", "keys": lambda request: seen.append(request.route)})
    assert statuses(http, "/shop/orders/7/", "/shop/") == [200, 404]
    assert seen == ["/shop/orders/<int:number>/", None]


class User:
    pk = 7
    is_authenticated = True


def with_user(get_response):
    """A middleware that authenticates everybody, but only asynchronously in an event loop."""
    async def auser():
        return User

    if iscoroutinefunction(get_response):
        async def middleware(request):
            request.user, request.auser = SimpleLazyObject(blocking_user), auser
            return await get_response(request)
    else:
        def middleware(request):
            request.user = User
            return get_response(request)
    return middleware


with_user.sync_capable = with_user.async_capable = True


def blocking_user():
    raise AssertionError("a blocking call in the event loop")


def test_users(site, http, limiter):
    site(path("", hello), middleware=[f"{__name__}.with_user", LIMITS],
         HEADGATE_RATE_LIMITS={"limits": limiter, "keys": keys.user()})
    assert statuses(http, *["/"] * 3) == [200, 200, 429]
    assert limiter.peek("7").remaining == 0


def test_a_user_that_is_known_needs_no_waiting(site, limiter):
    async def respond(request):
        request._cached_user, request.user, request.auser = User, User, None
        return await Limits(hello_async)(request)

    class Limits(RateLimitMiddleware):
        options = options(limiter, keys=keys.user())

    asyncio.run(respond(RequestFactory().get("/")))
    assert limiter.peek("7").remaining == 1


def by_token(get_response):
    """A middleware below Django's that authenticates by other means than the session."""
    if iscoroutinefunction(get_response):
        async def middleware(request):
            request.user = User
            return await get_response(request)
    else:
        def middleware(request):
            request.user = User
            return get_response(request)
    return middleware


by_token.sync_capable = by_token.async_capable = True


def test_a_user_that_another_middleware_has_set(site, http, limiter):
    authentication = [f"django.contrib.{each}" for each in (
        "sessions.middleware.SessionMiddleware", "auth.middleware.AuthenticationMiddleware")]
    site(path("", hello), middleware=[*authentication, f"{__name__}.by_token", LIMITS],
         HEADGATE_RATE_LIMITS={"limits": limiter, "keys": keys.user()},
         SESSION_ENGINE="django.contrib.sessions.backends.cache")
    assert statuses(http, *["/"] * 3) == [200, 200, 429]


def test_nobody_has_no_say(site, http, limiter):
    site(path("", hello), middleware=[LIMITS], HEADGATE_RATE_LIMITS={"limits": limiter, "keys": keys.user()})
    assert statuses(http, *["/"] * 3) == [200] * 3


class Blocking(RateLimiter):
    blocking = True


class AsynchronousLimiter(RateLimiter):
    async def reserve(self, key, cost=1):
        return super().reserve(key, cost)


@pytest.mark.parametrize(("wrong", "message"), [
    (None, "HEADGATE_RATE_LIMITS must have limits and keys"),
    ({"limits": "1/s"}, "HEADGATE_RATE_LIMITS must have limits and keys"),
    (options("1/s", key=1), "HEADGATE_RATE_LIMITS must have limits and keys, and be of cost"),
    (options("many"), "HEADGATE_RATE_LIMITS: .*'many'"),
    (options("1/s", on_denied="no.such.view"), "HEADGATE_RATE_LIMITS: No module named 'no'"),
    (options({"ip": "1/s", "user": "1/s"}), "keys must be a mapping of levels"),
    (options(Blocking("1/s")), "limits must not block the event loop"),
])
def test_options_that_are_refused(wrong, message):
    with override_settings(HEADGATE_RATE_LIMITS=wrong), pytest.raises(ImproperlyConfigured, match=message):
        RateLimitMiddleware(hello_async)


def test_an_asynchronous_limiter_is_awaited_in_an_event_loop_only():
    class Limits(RateLimitMiddleware):
        options = options(AsynchronousLimiter("1/min"))

    request = RequestFactory().get("/")
    middleware = Limits(hello_async)
    assert asyncio.run(middleware(request)).status_code == 200
    with pytest.raises(ImproperlyConfigured, match="limits must not be asynchronous"):
        Limits(hello)


# ---- the decorator


@pytest.mark.parametrize("view", [hello, hello_async])
def test_a_view_is_counted_by_its_route_and_method(site, http, limiter, view):
    limited = ratelimit(limiter)
    site(path("orders/<int:number>", limited(view)), path("items", limited(view)))
    assert statuses(http, "/orders/1", "/orders/2", "/orders/3", "/items") == [200, 200, 429, 200]
    posted = http.client.post("/orders/1")
    assert (asyncio.run(posted) if asyncio.iscoroutine(posted) else posted).status_code == 200
    assert http.get("/items")["RateLimit"] == '"2/min";r=0;t=30'
    assert limited.stats()["default"] == (5, 1, {"2/min": 1})
    assert iscoroutinefunction(limited(view)) == iscoroutinefunction(view)
    assert limited(view).__name__ == view.__name__


def test_methods_that_clients_invent_are_no_way_around_a_limit(site):
    site(path("", ratelimit("2/min")(hello)))
    for methods in (["GET", "HEAD", "GET"], ["A", "B", "C"]):
        assert [Client().generic(method, "/").status_code for method in methods] == [200, 200, 429]


@pytest.mark.parametrize("key", [object(), 1.5, [], ("ann", 1)])
def test_keys_that_limiters_do_not_have(site, http, key):
    site(path("", ratelimit("1/min", key=lambda request: key)(hello)))
    with pytest.raises(TypeError, match="key must be str, bytes or int"):
        http.get("/")


@pytest.mark.parametrize("key", [7, b"ann", "ann"])
def test_other_keys(site, http, key):
    site(path("", ratelimit("1/min", key=lambda request: key)(hello)))
    assert statuses(http, "/", "/") == [200, 429]


def none(request):
    return None


async def none_async(request):
    return None


@pytest.mark.parametrize("view", [none, none_async])
def test_a_view_that_returns_no_response(site, http, view):
    site(path("", ratelimit("1/min")(view)))
    with pytest.raises(ValueError, match="didn't return an HttpResponse object"):
        http.get("/")


class Page(View):
    def get(self, request):
        return hello(request)


class AsyncPage(View):
    async def get(self, request):
        return hello(request)


@pytest.mark.parametrize("view", [Page, AsyncPage])
@pytest.mark.parametrize("name", ["dispatch", "get"])
def test_class_based_views(site, http, view, name):
    class Limited(view):
        """A class of its own for each test."""

    if name == "get":
        Limited.get = view.get
    site(path("", method_decorator(ratelimit("2/min"), name=name)(Limited).as_view()),
         path("all", ratelimit("1/min")(view.as_view())))
    assert statuses(http, *["/"] * 3, "/all", "/all") == [200, 200, 429, 200, 429]
    assert http.get()["Retry-After"] == "30"


def test_one_name_for_several_views(site, http):
    limited = ratelimit("2/min", shared="reports")
    site(path("a", limited(hello)), path("b", limited(hello_async)))
    assert statuses(http, "/a", "/b", "/a", "/b") == [200, 200, 429, 429]


async def much_later(request):
    await asyncio.sleep(0)
    return HttpResponse("later", status=503)


def test_an_asynchronous_response_of_a_site(site, http):
    site(path("", hello), middleware=[LIMITS], HEADGATE_RATE_LIMITS=options("1/min", on_denied=much_later))
    assert statuses(http, "/", "/") == [200, 503]


@pytest.mark.parametrize("view", [hello, hello_async])
def test_an_asynchronous_response_of_a_view(site, http, view):
    site(path("", ratelimit("1/min", on_denied=much_later)(view)))
    assert statuses(http, "/", "/") == [200, 503]


def test_an_own_response_of_a_view(site, http):
    site(path("a", ratelimit("1/min", on_denied=much_later)(hello)),
         path("b", ratelimit("1/min", on_denied=later_async)(hello_async)))
    assert statuses(http, "/a", "/a", "/b", "/b") == [200, 503, 200, 503]


def test_a_middleware_and_views_decide_as_one(site, http, clock):
    whole, wide, narrow = (RateLimiter(f"{limit}/min", clock=clock) for limit in (20, 10, 1))
    everybody = {"key": keys.const("all"), "shared": "all", "headers": "legacy"}
    view = ratelimit(wide, **everybody)(ratelimit(wide, **everybody)(ratelimit(narrow, **everybody)(hello)))
    site(path("", view), middleware=[LIMITS, LIMITS], HEADGATE_RATE_LIMITS=options(whole))
    responses = [http.get() for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 429, 429]
    assert whole.peek("127.0.0.1").remaining == 19, "charged once, and not for what was denied"
    assert wide.peek("all\nall").remaining == 9
    assert responses[2]["RateLimit"] == '"1/min";r=0;t=60', "written by the outermost"
    assert "X-RateLimit-Limit" not in responses[2].headers


def test_a_middleware_around_django_takes_part(site, clock):
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application

    whole, single = RateLimiter("10/min", clock=clock), RateLimiter("1/min", clock=clock)
    site(path("", ratelimit(single)(hello)))
    app = WSGIMiddleware(get_wsgi_application(), whole, keys=keys.const("all"))
    responses = [get_by_wsgi(app) for _ in range(2)]
    assert [response.status for response in responses] == [200, 429]
    assert whole.peek("all").remaining == 9
    assert responses[1].fields["ratelimit"] == '"1/min";r=0;t=60'

    site(path("", ratelimit(single, shared="other")(hello)))
    app = ASGIMiddleware(get_asgi_application(), whole, keys=keys.const("all"))

    async def ask():
        from asgi_driver import scope_of
        from asgiref.testing import ApplicationCommunicator

        communicator = ApplicationCommunicator(app, scope_of())
        await communicator.send_input({"type": "http.request"})
        start = await communicator.receive_output()
        await communicator.receive_output()
        await communicator.wait()
        return start["status"], dict(start["headers"])[b"ratelimit"]

    assert [asyncio.run(ask()) for _ in range(2)] == [(200, b'"1/min";r=0;t=60'), (429, b'"1/min";r=0;t=60')]
    assert whole.peek("all").remaining == 8


def test_a_view_without_a_route():
    """Called directly, as in a test of the view."""
    view = ratelimit("1/min")(hello)
    with override_settings(ROOT_URLCONF=ModuleType("urls")):
        django_settings.settings.ROOT_URLCONF.urlpatterns = []
        requests = [RequestFactory().get(path) for path in ("/a", "/a", "/b", "/c")]
        requests[-1].path = "/\udcff"  # as some servers decode a byte that is not UTF-8
        assert [view(request).status_code for request in requests] == [200, 429, 200, 200]


@pytest.mark.parametrize(("limits", "arguments", "view", "message"), [
    (RateLimits(ip="1/s"), {}, hello, "limits must be a rate or a limiter by key"),
    (AddressLimiter("1/s"), {}, hello, "limits must be a rate or a limiter by key"),
    (AsynchronousLimiter("1/s"), {}, hello, "limits must not be asynchronous"),
    (Blocking("1/s"), {}, hello_async, "limits must not block the event loop"),
    ("1/s", {"on_denied": 429}, hello, "on_denied must be callable or None, got 429"),
    ("1/s", {}, Page, "view must be a function, got <class '.*Page'>; decorate a class by method_decorator"),
    ("1/s", {}, "hello", "view must be a function, got 'hello'"),
])
def test_decorators_that_are_refused(limits, arguments, view, message):
    with pytest.raises(TypeError, match=message):
        ratelimit(limits, **arguments)(view)
