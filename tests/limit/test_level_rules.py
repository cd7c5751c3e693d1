"""Rules of levels: networks that are exempt or denied, counters, and levels that are only counted."""

import tracemalloc
from ipaddress import ip_network

import pytest
from threads import run_threads

from headgate import AddressLimiter, HotKeys, RateLimits

pytestmark = pytest.mark.usefixtures("limits_of_twin")

LEVELS = {"rate": "2/s", "addresses": None}


@pytest.fixture(params=LEVELS)
def limits(request, clock):
    limit = LEVELS[request.param] or AddressLimiter("2/s", clock=clock)
    return RateLimits(ip=limit, user="5/s", clock=clock)


def passed(limits, address, times=4):
    return sum(limits.allow(ip=address) for _ in range(times))


def test_networks_that_are_exempt(limits):
    limits.exempt("ip", "10.0.0.0/8", ip_network("2001:db8::/32"), "::1")
    for address in ("10.255.0.1", "::ffff:10.0.0.1", "64:ff9b::10.1.1.1", "2002:a01:101::1", "2001:db8::1"):
        assert passed(limits, address) == 4
    for address in ("11.0.0.1", "2001:db9::1", "fe80::2"):
        assert passed(limits, address) == 2
    limits.restore("ip", "10.0.0.0/8", "::1")
    assert passed(limits, "10.0.0.1") == passed(limits, "::1") == 2
    assert passed(limits, "2001:db8::1") == 4
    limits._check()


def test_what_is_denied(limits):
    limits.deny("ip", "192.0.2.0/24", "198.51.100.7")
    decision = limits.decide(ip="192.0.2.1")
    assert (decision.allowed, decision.limit, decision.policy) == (False, 0, "ip: 0/s")
    assert decision.retry_after == float("inf")
    assert decision.headers() == {"RateLimit-Policy": '"ip: 0/s";q=0;w=1', "RateLimit": '"ip: 0/s";r=0'}
    assert passed(limits, "198.51.100.7") == 0
    assert passed(limits, "198.51.100.8") == 2
    assert limits.allow(ip="192.0.2.1", cost=0)
    assert not limits.acquire(ip="192.0.2.1", timeout=0.01)
    assert not limits.reserve(ip="192.0.2.1", user="ann")
    assert limits.peek(user="ann").remaining == 5
    limits.refund(ip="192.0.2.1")
    limits.reset(ip="192.0.2.1")
    limits._check()
    limits.override("ip", "198.51.100.7", "3/s")
    assert passed(limits, "198.51.100.7") == 3


def test_the_narrowest_network_counts_and_a_key_comes_first(limits):
    limits.deny("ip", "10.0.0.0/8")
    limits.exempt("ip", "10.1.0.0/16")
    limits.deny("ip", "10.1.2.0/24")
    limits.exempt("ip", "10.1.2.3")
    addresses = ["10.9.9.9", "10.1.9.9", "10.1.2.9", "10.1.2.3"]
    assert [passed(limits, address) for address in addresses] == [0, 4, 0, 4]


def test_keys_that_are_networks_and_keys_that_only_look_like_them():
    limits = RateLimits(net="1/h", endpoint="1/h")
    limits.deny("net", "10.0.0.0/8", "2001:db8::/32")
    assert not limits.allow(net="10.3.0.0/16")
    assert not limits.allow(net="2001:db8:5::/64")
    assert limits.allow(net="0.0.0.0/0")
    limits.exempt("endpoint", "/search", "a/8", b"x", 5)
    for key in ("/search", "a/8", b"x", 5):
        assert limits.allow(endpoint=key)
        assert limits.allow(endpoint=key)
    with pytest.raises(TypeError, match=r"^key must be str, bytes or int, got \[\]$"):
        limits.deny("endpoint", [])


def test_counters(limits):
    for _ in range(3):
        limits.allow(ip="192.0.2.1", user="ann")
    for _ in range(4):
        limits.decide(user="ann")
    limits.reserve(user="ann")
    limits.peek(user="ann")
    counters = limits.counters()
    assert counters["ip"][:2] == (2, 1)
    assert sum(counters["ip"].policies.values()) == 1
    assert counters["user"] == (5, 2, {"5/s": 2})


def test_denied_keys_are_counted(clock):
    limits = RateLimits(ip="1/s", user="2/s", shadow=["user"], clock=clock)
    by_ip, by_user = HotKeys(10), HotKeys(10)
    limits.count_denied(ip=by_ip, user=by_user)
    assert limits.denied == {"ip": by_ip, "user": by_user}
    assert limits.allow(ip="::1", user="ann")
    assert by_ip.total == by_user.total == 0
    assert not limits.allow(ip="::1", user="ann")
    assert not limits.decide(ip="::1")
    assert not limits.reserve(ip="::1")
    assert not limits.peek(ip="::1").allowed
    assert [limits.allow(user=user) for user in ("ann", "ann", b"bob")] == [True] * 3
    assert (by_ip.top(), by_user.top()) == ([("::1", 3, 0)], [("ann", 1, 0)])

    for long in ("x" * 10**6, b"x" * 10**6):
        limits.deny("ip", long)
        assert not limits.allow(ip=long)
    assert {key for key, *_ in by_ip.top()} == {"::1", "x" * 256, b"x" * 256}

    limits.count_denied(ip=None)
    assert not limits.allow(ip="::1")
    assert (by_ip.total, limits.denied) == (5, {"user": by_user})


def test_counters_of_denied_keys_are_checked():
    limits, counter = RateLimits(ip="1/s", user="2/s"), HotKeys(1)
    with pytest.raises(ValueError, match=r"^level must be one of ip, user, got 'team'$"):
        limits.count_denied(ip=counter, team=counter)
    with pytest.raises(TypeError, match=r"^user must have a method add, as HotKeys has, .* got 5$"):
        limits.count_denied(ip=counter, user=5)
    assert limits.denied == {}


def test_threads_lose_no_count():
    limits = RateLimits(user="1000000/s, burst 100000")
    run_threads(lambda _: [limits.allow(user="ann") for _ in range(500)])
    assert limits.counters()["user"].allowed == 4000


def test_levels_that_are_only_counted(clock):
    limits = RateLimits(ip="9/s", user="2/s; 3/min", shadow=["user"], clock=clock)
    assert [limits.allow(ip="::1", user="ann") for _ in range(4)] == [True] * 4
    assert limits.decide(ip="::1", user="ann").policy == "ip: 9/s"
    assert limits.counters() == {"ip": (5, 0, {}), "user": (2, 3, {"2/s": 3})}
    assert limits.peek(ip="::1", user="ann").allowed
    assert limits.allow(ip="::1", user="bob", cost=3)
    assert limits.counters()["user"] == (2, 4, {"2/s": 4, "3/min": 1})
    assert not limits.allow(ip="::1", user="eve", cost=2)
    assert limits.counters()["user"].allowed == 2
    assert limits.allow(user="ann")
    with pytest.raises(TypeError, match=r"^key must be str, bytes or int, got 1.5$"):
        limits.allow(user=1.5)


def test_a_reservation_is_settled_with_shadows_too(twin, clock):
    limits = RateLimits(ip="9/s", user="4/s", shadow=["user"], clock=clock)
    shadow = limits._levels["user"]
    first = limits.reserve(ip="::1", user="ann", cost=3)
    second = limits.reserve(ip="::1", user="ann", cost=3)
    assert (bool(first), bool(second)) == (True, True)
    assert shadow.peek("ann").remaining == 1
    second.cancel()
    assert shadow.peek("ann").remaining == 1
    first.settle(1)
    assert shadow.peek("ann").remaining == 3
    assert isinstance(shadow, twin.keyed.RateLimiter)


def test_shadow_names_levels():
    with pytest.raises(ValueError, match=r"^shadow must be some of ip, got \['user'\]$"):
        RateLimits(ip="1/s", shadow=["user"])
    with pytest.raises(TypeError, match=r"^shadow must be names of levels, got 'ip'$"):
        RateLimits(ip="1/s", shadow="ip")


def test_keys_with_rates_of_their_own_take_little_memory(twin, clock):
    limits = RateLimits(user="9/s", max_keys=10, clock=clock)
    limits.override("user", "first", "1/s")
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(200):
            limits.override("user", number, "1/s")
        each = (tracemalloc.get_traced_memory()[0] - before) / 200
    finally:
        tracemalloc.stop()
    assert each < (2300 if twin.name == "compiled" else 2600)


def test_shadow_is_set_and_unset(clock):
    limits = RateLimits(ip="9/s", user="1/s", clock=clock)
    limits.set_shadow("user")
    assert [limits.allow(user="ann") for _ in range(3)] == [True] * 3
    with pytest.raises(ValueError, match=r"^shadow must be some of ip, user, got \('usr',\)$"):
        limits.set_shadow("usr")
    limits.set_shadow()
    assert not limits.allow(user="ann"), "what was counted is owed"
    assert limits.counters()["user"].denied == 3
