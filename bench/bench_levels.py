"""RateLimits, compared with the limiters it is made of; prefixes of addresses; clients behind proxies."""

import pytest

from headgate import AddressLimiter, RateLimiter, RateLimits, address_prefix, client_address
from headgate.limit._networks import Proxies

RATE = "1000000/s"
USERS = [f"user:{number}" for number in range(1_000)]
ADDRESSES = [f"192.0.{number // 250}.{number % 250}" for number in range(1_000)]
SCOPE = {
    "type": "http",
    "client": ("10.0.0.1", 4711),
    "headers": [(b"host", b"example"), (b"x-forwarded-for", b"6.6.6.6, 203.0.113.9, 10.0.0.3")],
}


def one_level():
    limits = RateLimits(user=RATE)
    return lambda user, address: limits.allow(user=user)


def two_levels():
    limits = RateLimits(user=RATE, ip=RATE)
    return lambda user, address: limits.allow(user=user, ip=address)


def overrides():
    limits = RateLimits(user=RATE, ip=RATE)
    for user in USERS[::2]:
        limits.override("user", user, RATE)
    return lambda user, address: limits.allow(user=user, ip=address)


def two_limiters():
    users, addresses = RateLimiter(RATE), RateLimiter(RATE)
    return lambda user, address: users.allow(user) and addresses.allow(address)


def four_prefixes():
    limiter = AddressLimiter(RATE, v4={32: 1, 24: 32, 20: 256, 18: 768})
    return lambda user, address: limiter.allow(address)


def limits_twice():
    peer = pytest.importorskip("limits")
    strategy = peer.strategies.FixedWindowRateLimiter(peer.storage.MemoryStorage())
    item = peer.RateLimitItemPerSecond(10**6)
    return lambda user, address: strategy.hit(item, "user", user) and strategy.hit(item, "ip", address)


def with_policies():
    limits = RateLimits(user=RATE, ip=RATE)
    decision = limits.decide(user="ann", ip="192.0.2.1")
    return lambda: decision.fields(policies=limits.policies)


def denied():
    limiter = RateLimiter("1/h")
    limiter.allow("ann")
    return limiter.decide("ann").fields


CANDIDATES = [two_limiters, one_level, two_levels, overrides, four_prefixes, limits_twice]


def call_all(call):
    for user, address in zip(USERS, ADDRESSES, strict=True):
        call(user, address)


@pytest.mark.parametrize("make", CANDIDATES, ids=lambda make: make.__name__)
@pytest.mark.benchmark(group="allowed, a thousand requests")
def test_levels(benchmark, make):
    benchmark(call_all, make())


@pytest.mark.parametrize("method", ["decide", "reserve"])
@pytest.mark.benchmark(group="a decision, and a reservation")
class TestDecisions:
    def test_limiter(self, benchmark, method):
        benchmark(getattr(RateLimiter(RATE), method), "ann")

    def test_one_level(self, benchmark, method):
        benchmark(getattr(RateLimits(user=RATE), method), user="ann")

    def test_two_levels(self, benchmark, method):
        benchmark(getattr(RateLimits(user=RATE, ip=RATE), method), user="ann", ip="192.0.2.1")


@pytest.mark.parametrize("style", ["draft", "legacy", "both"])
@pytest.mark.benchmark(group="header fields of a response")
def test_fields(benchmark, style):
    benchmark(RateLimiter("10/s").decide("ann").fields, style=style)


@pytest.mark.parametrize("make", [with_policies, denied], ids=lambda make: make.__name__)
@pytest.mark.benchmark(group="header fields of a response")
def test_more_fields(benchmark, make):
    benchmark(make())


@pytest.mark.benchmark(group="header fields of a response")
def test_headers(benchmark):
    benchmark(RateLimiter("10/s").decide("ann").headers)


@pytest.mark.parametrize("trusted", [["10.0.0.0/8"], 2], ids=["networks", "hops"])
@pytest.mark.benchmark(group="client address")
def test_client_address(benchmark, trusted):
    benchmark(client_address, SCOPE, trusted)


@pytest.mark.parametrize("value", ["203.0.113.9", "6.6.6.6, 203.0.113.9, 10.0.0.3"], ids=["one", "three"])
@pytest.mark.benchmark(group="client address")
def test_proxies(benchmark, value):
    """As extractors of web frameworks use them."""
    benchmark(Proxies(["10.0.0.0/8"]).client, "10.0.0.1", {"X-Forwarded-For": value}.get)


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::17"], ids=["v4", "v6"])
@pytest.mark.benchmark(group="client address")
def test_address_prefix(benchmark, address):
    benchmark(address_prefix, address)
