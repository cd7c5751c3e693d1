"""`Throttle` for Django REST framework."""

from concurrent.futures import ThreadPoolExecutor
from time import sleep

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path
from django_settings import settings
from rest_framework.decorators import api_view, throttle_classes, throttle_scope
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.test import APIClient
from rest_framework.throttling import ScopedRateThrottle
from rest_framework.views import APIView

from headgate import RateLimiter
from headgate.adapters import keys
from headgate.adapters.django import Throttle, ratelimit

assert settings.configured
LIMITS = "headgate.adapters.django.RateLimitMiddleware"


def page(*throttles, **attributes):
    class Page(APIView):
        throttle_classes = throttles

        def get(self, request):
            return Response("hello")

    for name, value in attributes.items():
        setattr(Page, name, value)
    return Page.as_view()


def throttle(**attributes):
    return type("Own", (Throttle,), attributes)


def statuses(client, *paths, **options):
    return [client.get(path, **options).status_code for path in paths]


class User:
    is_authenticated = is_active = True

    def __init__(self, pk):
        self.pk = pk


def clients():
    """Of nobody and of two users."""
    for user in (None, User(1), User(2)):
        client = APIClient()
        if user is not None:
            client.force_authenticate(user)
        yield client


@pytest.fixture
def http():
    return APIClient()


@pytest.fixture(autouse=True)
def forget():
    """Limiters of scopes live as long as the process, or its settings."""
    with override_settings(REST_FRAMEWORK={}):
        yield


def test_a_rate(site, http):
    site(path("", page(throttle(rate="2/min"))))
    assert statuses(http, *["/"] * 3) == [200, 200, 429]
    assert statuses(http, "/", REMOTE_ADDR="192.0.2.9") == [200]


def test_the_denial_is_that_of_rest_framework(site, http, clock):
    site(path("", page(throttle(limits=RateLimiter("2/min", clock=clock)))))
    statuses(http, "/", "/")
    denied = http.get("/")
    assert denied["Retry-After"] == "30"
    assert denied.json() == {"detail": "Request was throttled. Expected available in 30 seconds."}
    clock.advance(30)
    assert statuses(http, "/", "/") == [200, 429]


RATES = {"DEFAULT_THROTTLE_RATES": {"burst": "1/min", "sustained": "3/day", "free": None}}


def test_scopes(site, http):
    burst, sustained = throttle(scope="burst"), throttle(scope="sustained")
    site(path("a", page(burst, sustained)), path("b", page(sustained)),
         path("c", page(throttle(scope="free"))), REST_FRAMEWORK=RATES)
    assert statuses(http, "/a", "/a", "/a") == [200, 429, 429]
    assert statuses(http, "/b", "/b", "/b") == [200, 200, 429], "sustained is not charged what burst denies"
    assert statuses(http, *["/c"] * 5) == [200] * 5
    assert http.get("/b")["Retry-After"] == "28800"


def test_scopes_of_views(site, http):
    @api_view(["GET"])
    @throttle_classes([Throttle])
    @throttle_scope("burst")
    def function(request):
        return Response("hello")

    site(path("a", page(Throttle, throttle_scope="burst")), path("b", function), path("c", page(Throttle)),
         REST_FRAMEWORK=RATES)
    assert statuses(http, "/a", "/b", "/c", "/c") == [200, 429, 200, 200]


def test_it_can_be_the_default():
    paths = ["headgate.adapters.django.Throttle"]
    with override_settings(REST_FRAMEWORK={"DEFAULT_THROTTLE_CLASSES": paths}):
        (found,) = api_settings.DEFAULT_THROTTLE_CLASSES
    assert found is Throttle


def test_it_agrees_with_that_of_rest_framework(site):
    """Within the burst; afterwards theirs waits for the window, and a limiter refills."""
    from django.core.cache import cache

    cache.clear()
    theirs = type("Theirs", (ScopedRateThrottle,), {"THROTTLE_RATES": {"scope": "5/hour"}})
    ours = throttle(rate="5/hour")
    site(path("theirs", page(theirs, throttle_scope="scope")), path("ours", page(ours)))
    for http in clients():
        assert statuses(http, *["/theirs"] * 7) == statuses(http, *["/ours"] * 7) == [200] * 5 + [429] * 2


def test_users_and_clients_are_told_apart(site):
    site(path("", page(throttle(rate="1/min"))))
    for http in clients():
        assert statuses(http, "/", "/") == [200, 429]


@pytest.mark.parametrize(("proxies", "expected"), [(None, [200, 429]), (0, [200, 429]), (1, [200, 200])])
def test_the_number_of_proxies(site, http, proxies, expected):
    site(path("", page(throttle(rate="1/min"))), REST_FRAMEWORK={"NUM_PROXIES": proxies})
    addresses = ("198.51.100.1", "198.51.100.2")
    assert [http.get("/", HTTP_X_FORWARDED_FOR=address).status_code for address in addresses] == expected


def test_own_keys(site, http):
    def get_cache_key(self, request, view):
        assert self.get_ident(request) == "127.0.0.1"
        return request.headers.get("X-Team")

    site(path("", page(throttle(rate="1/min", get_cache_key=get_cache_key))))
    assert statuses(http, "/", "/") == [200, 200], "no key, no say"
    assert statuses(http, "/", "/", HTTP_X_TEAM="blue") == [200, 429]
    assert statuses(http, "/", HTTP_X_TEAM="red") == [200]


def test_first_requests_at_the_same_time_have_one_limiter(site, monkeypatch):
    from headgate.adapters.django import _throttle

    def make(rate):
        sleep(0.05)  # the others arrive
        return RateLimiter(rate)

    monkeypatch.setattr(_throttle, "RateLimiter", make)
    site(path("", page(throttle(rate="1/day"))))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda http: http.get("/").status_code, [APIClient() for _ in range(4)]))
    assert sorted(found) == [200, 429, 429, 429]


def test_own_keys_of_what_rest_framework_has_parsed(site, http):
    def get_cache_key(self, request, view):
        return request.data["email"]

    def post(self, request):
        return Response(request.data)

    site(path("", page(throttle(rate="1/min", get_cache_key=get_cache_key), post=post)))
    found = [http.post("/", {"email": email}, format="json").status_code for email in ("a", "a", "b")]
    assert found == [200, 429, 200]


def test_a_key_that_is_none_of_a_limiter(site, http):
    site(path("", page(throttle(rate="1/min", get_cache_key=lambda self, request, view: [1]))))
    with pytest.raises(TypeError, match=r"key must be str, bytes or int, got \[1\]"):
        http.get("/")


def test_an_own_rate(site, http):
    def get_rate(self):
        return {"search": "1/min"}[self.scope]

    site(path("", page(throttle(get_rate=get_rate), throttle_scope="search")))
    assert statuses(http, "/", "/") == [200, 429]


def test_settings_that_tests_override_begin_with_full_bursts(site, http):
    site(path("", page(throttle(scope="search"))))
    for _ in range(2):
        with override_settings(REST_FRAMEWORK={"DEFAULT_THROTTLE_RATES": {"search": "1/min"}}):
            assert statuses(http, "/", "/") == [200, 429]


def test_cost_and_dry_run(site, http, clock):
    limiter = RateLimiter("4/min", clock=clock)
    costly = throttle(limits=limiter, cost=lambda request: 3 if request.query == "all" else 1)
    never = throttle(limits=limiter, cost=5)
    site(path("a", page(costly)), path("b", page(never)),
         path("c", page(throttle(rate="1/min", dry_run=True))))
    assert statuses(http, "/a?all", "/a?all", "/a") == [200, 429, 200]
    denied = http.get("/b")
    assert denied.status_code == 429
    assert "Retry-After" not in denied.headers, "it can never pass"
    assert statuses(http, "/c", "/c") == [200, 200]


def test_a_throttle_a_view_and_a_middleware_decide_as_one(site, http, clock):
    whole, wide, narrow = (RateLimiter(f"{limit}/min", clock=clock) for limit in (20, 10, 1))
    view = page(throttle(limits=wide), throttle(limits=narrow), throttle(limits=wide))
    site(path("", ratelimit(whole, key=keys.const("all"), shared="all")(view)), middleware=[LIMITS],
         HEADGATE_RATE_LIMITS={"limits": whole, "keys": keys.client()})
    responses = [http.get("/") for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 429, 429]
    assert responses[2]["RateLimit"] == '"1/min";r=0;t=60'
    assert responses[2]["Retry-After"] == "60"
    assert whole.peek("127.0.0.1").remaining == whole.peek("all\nall").remaining == 19
    assert wide.peek(f"{__name__}.Own\nclient 127.0.0.1").remaining == 9


def test_settling(site, http, clock):
    limiter = RateLimiter("1000/min", clock=clock)

    def get(self, request):
        request.headgate.settle(300)
        return HttpResponse("done")

    site(path("", page(throttle(limits=limiter, cost=800), get=get)))
    assert statuses(http, "/") == [200]
    assert limiter.peek(f"{__name__}.Own\nclient 127.0.0.1").remaining == 700


@pytest.mark.parametrize(("attributes", "message"), [
    ({"scope": "unknown"}, "DEFAULT_THROTTLE_RATES must have the scope 'unknown'"),
    ({"rate": "many"}, "throttle '.*Own': .*many"),
    ({"rate": 7}, "throttle '.*Own'"),
])
def test_rates_that_are_refused(site, http, attributes, message):
    site(path("", page(throttle(**attributes))))
    with pytest.raises(ImproperlyConfigured, match=message):
        http.get("/")
