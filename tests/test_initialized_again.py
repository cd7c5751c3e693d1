"""``__init__`` called again: what is in use is replaced as a whole, or the call is refused."""

import os
import threading

import pytest

import headgate
from headgate import AddressLimiter, ConcurrencyLimiter, RateLimits, Throttle


@pytest.fixture
def limiters(twin):
    """Every limiter, and arguments for ``__init__``."""
    return [
        (twin.limit.TokenBucket(2, 1), (5, 1)),
        (twin.ratelimit.RateLimiter("2/s", max_keys=100), ("5/s",)),
        (RateLimits(user="2/s", max_keys=100), ({"user": "5/s"},)),
        (AddressLimiter("2/s", max_keys=100), ("5/s",)),
        (ConcurrencyLimiter(2), (5,)),
        (Throttle(3), (2,)),
    ]


def test_limiters_refuse_and_stay_as_they_are(limiters):
    for limiter, arguments in limiters:
        before = repr(limiter)
        with pytest.raises(TypeError, match=f"a {type(limiter).__name__} is initialized once, got another"):
            limiter.__init__(*arguments)
        assert repr(limiter) == before
        limiter._check()


def test_permits_and_debts_survive_a_call_that_is_refused(twin, clock):
    limiter = ConcurrencyLimiter(2, algorithm="fixed")
    permit = limiter.acquire()
    bucket = twin.limit.TokenBucket(2, 1, clock=clock)
    bucket.consume(2)
    for thing, arguments in ((limiter, (9,)), (bucket, (9, 1))):
        with pytest.raises(TypeError):
            thing.__init__(*arguments)
    assert (limiter.inflight, bucket.available) == (1, 0.0)
    permit.release()
    assert limiter.inflight == 0


@pytest.mark.skipif(os.name != "posix", reason="a shared limit needs fcntl")
def test_a_limiter_that_others_use_is_not_taken_from_them(twin, tmp_path):
    limiter, stop = twin.ratelimit.RateLimiter("1000000/s", max_keys=100), threading.Event()
    allowed = []

    def use():
        while not stop.is_set():
            allowed.append(limiter.allow("ann"))

    threads = [threading.Thread(target=use, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(50):
        path = tmp_path / str(number) if number % 2 else None
        with pytest.raises(TypeError, match="a RateLimiter is initialized once"):
            limiter.__init__("1000000/s", max_keys=100, path=path)
    stop.set()
    for thread in threads:
        thread.join()
    assert all(allowed)
    assert not list(tmp_path.iterdir()), "no file was made"


@pytest.mark.parametrize("name", ["AddressHash", "LeastLoaded", "PeakEWMA", "PowerOfTwo", "RandomChoice",
                                  "RoundRobin", "WeightedRoundRobin"])
def test_balancers_take_other_servers_and_old_picks_do_no_harm(twin, name):
    balancer = getattr(twin.balance, name)(["a", "b"])
    pick = balancer.pick("192.0.2.1") if name == "AddressHash" else balancer.pick()
    balancer.__init__(["c"])
    pick.done()
    assert balancer.servers == ("c",)


@pytest.mark.parametrize("name", [name for name in headgate.cache.__all__ if name.endswith("Cache")])
def test_caches_begin_anew(twin, name):
    cls = getattr(twin.cache, name)
    arguments = (10, 60) if name == "TTLCache" else (10,)
    cache = cls(*arguments)
    cache["key"] = 1
    cache.__init__(*arguments)
    assert len(cache) == 0
    cache._check()


def test_hot_keys_and_placements_begin_anew(twin):
    hot = twin.hotkeys.HotKeys(3)
    hot.add("key")
    hot.__init__(2)
    assert (len(hot), hot.k) == (0, 2)
    for cls in (twin.placement.HashRing, twin.placement.Rendezvous, twin.placement.Maglev):
        placement = cls(["a", "b"])
        placement.__init__(["c"])
        assert placement.nodes == ("c",)
        placement._check()
