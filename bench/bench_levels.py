"""RateLimits, compared with the limiters it is made of; prefixes of addresses; clients behind proxies."""

import pytest

from headgate import AddressLimiter, RateLimiter, RateLimits, client_address

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


CANDIDATES = [two_limiters, one_level, two_levels, overrides, four_prefixes, limits_twice]


def call_all(call):
    for user, address in zip(USERS, ADDRESSES, strict=True):
        call(user, address)


@pytest.mark.parametrize("make", CANDIDATES, ids=lambda make: make.__name__)
@pytest.mark.benchmark(group="allowed, a thousand requests")
def test_levels(benchmark, make):
    benchmark(call_all, make())


@pytest.mark.benchmark(group="headers of a response")
def test_headers(benchmark):
    benchmark(RateLimiter("10/s").decide("ann").headers)


@pytest.mark.parametrize("trusted", [["10.0.0.0/8"], 2], ids=["networks", "hops"])
@pytest.mark.benchmark(group="client address")
def test_client_address(benchmark, trusted):
    benchmark(client_address, SCOPE, trusted)
