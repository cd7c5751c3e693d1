"""``__init__`` called again, which others that use the object would notice, is refused."""

import copy
import os
import threading

import pytest

import headgate
from headgate import AddressLimiter, ConcurrencyLimiter, RateLimits, Throttle


@pytest.fixture
def limiters(twin):
    """Every limiter, and arguments for ``__init__``."""
    return [
        (twin.bucket.TokenBucket(2, 1), (5, 1)),
        (twin.keyed.RateLimiter("2/s", max_keys=100), ("5/s",)),
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
    bucket = twin.bucket.TokenBucket(2, 1, clock=clock)
    bucket.consume(2)
    for thing, arguments in ((limiter, (9,)), (bucket, (9, 1))):
        with pytest.raises(TypeError):
            thing.__init__(*arguments)
    assert (limiter.inflight, bucket.available) == (1, 0.0)
    permit.release()
    assert limiter.inflight == 0


@pytest.mark.skipif(os.name != "posix", reason="a shared limit needs fcntl")
def test_a_limiter_that_others_use_is_not_taken_from_them(twin, tmp_path):
    limiter, stop = twin.keyed.RateLimiter("1000000/s", max_keys=100), threading.Event()
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


@pytest.fixture
def others(twin):
    """Every cache, placement and balancer, and HotKeys, in use; and arguments for ``__init__``."""
    caches = [name for name in headgate.cache.__all__ if name.endswith("Cache")]
    made = [(getattr(twin.cache, name)(10, **({"ttl": 60} if name == "TTLCache" else {})), (20, None))
            for name in caches]
    for cache, _ in made:
        cache["key"] = 1
    rings = [getattr(twin.placement, name)(["a", "b"]) for name in ("HashRing", "Rendezvous", "Maglev")]
    made += [(ring, (["c"],)) for ring in rings]
    made.append((twin.placement.BoundedLoad(rings[0]), (rings[1],)))
    for name in ("AddressHash", "KeyHash", "LeastLoaded", "PeakEWMA", "PowerOfTwo", "RandomChoice",
                 "RoundRobin", "WeightedRoundRobin"):
        made.append((getattr(twin.balance, name)(["a", "b"]), (["c"],)))
    hot = twin.hotkeys.HotKeys(3)
    hot.add("key")
    return [*made, (hot, (2,))]


def shown(thing):
    names = ("servers", "nodes", "placement", "k", "maxsize")
    return repr(thing), {name: getattr(thing, name) for name in names if hasattr(thing, name)}


def test_what_others_use_is_not_taken_from_them(others):
    for thing, arguments in others:
        before = shown(thing)
        with pytest.raises(TypeError, match=f"a {type(thing).__name__} is initialized once, got another"):
            thing.__init__(*((5, 60) if type(thing).__name__ == "TTLCache" else arguments))
        assert shown(thing) == before
        if hasattr(thing, "_check"):
            thing._check()


def test_copies_are_initialized_too(others):
    for thing, arguments in others:
        try:
            copied = copy.copy(thing)
        except TypeError:  # neither balancers nor BoundedLoad are copied
            continue
        before = shown(copied)
        with pytest.raises(TypeError, match="initialized once"):
            copied.__init__(*((5, 60) if type(thing).__name__ == "TTLCache" else arguments))
        assert shown(copied) == before


def test_arguments_that_are_refused_do_not_count(twin):
    for cls, wrong, right in ((twin.cache.LRUCache, -1, 2), (twin.placement.HashRing, 5, ["a"]),
                              (twin.placement.BoundedLoad, None, twin.placement.HashRing(["a"])),
                              (twin.balance.RoundRobin, 5, ["a"]), (twin.hotkeys.HotKeys, 0, 2)):
        thing = cls.__new__(cls)
        with pytest.raises((TypeError, ValueError)):
            thing.__init__(wrong)
        thing.__init__(right)
