"""Four threads that do everything at once to one object, of each public class.

What comes of it is hardly worth an assertion beyond `_check`; it is for builds without the GIL, and above all
for ThreadSanitizer (``make tsan``), which reports fields that two threads use without a lock between them.
"""

import copy
import pickle
import random
import time
from functools import partial

import pytest
from policies import POLICIES
from threads import run_threads

import headgate
from headgate import NoServerError

NODES = [f"n{i}" for i in range(8)]
CALLS = 150


def key(draw):
    number = draw.randrange(60)
    return draw.choice([number, f"key:{number}", ("t", number)])


def name(draw):
    return f"k{draw.randrange(40)}"


def cache_calls(cache, **put):
    return cache._check, [
        lambda draw: cache.get(key(draw)),
        lambda draw: cache.put(key(draw), b"a", **{option: draw.choice(put[option]) for option in put}),
        lambda draw: cache.update([(key(draw), b"x") for _ in range(3)]),
        lambda draw: cache.pop(key(draw), None),
        lambda draw: cache.setdefault(key(draw), b"y"),
        lambda draw: cache.get_or_load(key(draw), lambda key: b"z"),
        lambda draw: (len(cache), key(draw) in cache, cache.peek(key(draw)), repr(cache), cache == cache),
        lambda draw: (list(cache), list(cache.items()), list(cache.values())),
        lambda draw: (copy.copy(cache), pickle.dumps(cache), cache.__sizeof__()),
        lambda draw: (cache.stats(), cache.hits, cache.misses, cache.evictions, cache.expirations),
        lambda draw: (cache.currsize, cache.maxsize, cache.generation, cache.ttl, cache.tti),
        lambda draw: (cache.stats(reset=True), cache.expire()),
        lambda draw: cache.resize(draw.randrange(6, 90)),
        lambda draw: cache.invalidate(tag=draw.choice("ab")),
        lambda draw: cache.clear() if draw.random() < 0.2 else None,
    ]


def memoized_calls(function):
    return None, [
        lambda draw: function(draw.randrange(60)),
        lambda draw: function(name(draw)),
        lambda draw: function(1, b=draw.randrange(30)),
        lambda draw: function.cache_info(),
        lambda draw: function.cache_clear() if draw.random() < 0.2 else None,
    ]


def body(a, b=0):
    return a, b


def method_calls(cached):
    class Owner:
        method = cached(maxsize=20)(lambda self, a: a)

    owners = [Owner() for _ in range(3)]

    def replace(draw):
        owners[draw.randrange(3)] = Owner()

    return None, [
        lambda draw: draw.choice(owners).method(draw.randrange(30)),
        lambda draw: draw.choice(owners).method.cache_info(),
        lambda draw: draw.choice(owners).method.cache_invalidate(draw.randrange(30)),
        replace,
    ]


def ignoring(error, call, *args):
    try:
        call(*args)
    except error:
        pass


def placement_calls(placement):
    return placement._check, [
        lambda draw: placement.get_node(name(draw)),
        lambda draw: (placement.get_nodes(name(draw), 3), placement.preference(7)),
        lambda draw: placement.get_many(["a", "b"]),
        lambda draw: (placement.nodes, placement.weights, len(placement), "n1" in placement, repr(placement)),
        lambda draw: (placement.ownership(), placement == placement, pickle.dumps(placement)),
        lambda draw: placement.diff(copy.copy(placement)),
        lambda draw: ignoring(ValueError, placement.add_node, f"n{draw.randrange(20)}", draw.choice([1, 2])),
        lambda draw: ignoring(KeyError, placement.remove_node, f"n{draw.randrange(20)}"),
        lambda draw: ignoring(KeyError, placement.set_weight, "n1", draw.choice([0, 1, 2])),
        lambda draw: placement.replace_nodes(NODES) if draw.random() < 0.2 else None,
    ]


def use(pick, draw):
    """End a pick well, or now and then as one that failed."""
    try:
        with pick:
            assert draw.random() < 0.8
    except AssertionError:
        pass


def bounded_calls(twin):
    ring = twin.placement.HashRing(NODES)
    bounded = twin.placement.BoundedLoad(ring)
    return bounded._check, [
        lambda draw: use(bounded.pick(name(draw)), draw),
        lambda draw: (bounded.pick(name(draw)), bounded.loads, repr(bounded)),
        lambda draw: ignoring(ValueError, ring.add_node, f"n{draw.randrange(20)}"),
        lambda draw: ignoring(KeyError, ring.remove_node, f"n{draw.randrange(1, 20)}"),
    ]


def balancer_calls(balancer, pick_key):
    return balancer._check, [
        lambda draw: use(balancer.pick(pick_key(draw)), draw),
        lambda draw: balancer.get_server(pick_key(draw)),
        lambda draw: balancer.get_server(pick_key(draw), exclude=["n0"]),
        lambda draw: (balancer.servers, balancer.records, len(balancer), repr(balancer)),
        lambda draw: ignoring(KeyError, balancer.set_weight, "n1", draw.choice([1, 2])),
        lambda draw: ignoring(ValueError, balancer.add_server, f"n{draw.randrange(20)}"),
        lambda draw: ignoring(KeyError, balancer.remove_server, f"n{draw.randrange(1, 20)}"),
        lambda draw: ignoring(KeyError, balancer.drain_server, f"n{draw.randrange(1, 20)}"),
        lambda draw: ignoring(KeyError, balancer.mark_down, f"n{draw.randrange(20)}"),
        lambda draw: ignoring(KeyError, balancer.mark_up, f"n{draw.randrange(20)}"),
    ]


def limiter_calls(limiter, *rates):
    calls = [
        lambda draw: limiter.allow(name(draw), draw.randrange(3)),
        lambda draw: (limiter.decide(name(draw)).headers(), limiter.peek(name(draw))),
        lambda draw: (limiter.refund(name(draw)), limiter.reset(name(draw))),
        lambda draw: limiter.acquire(name(draw), timeout=0),
        lambda draw: limiter.reserve(name(draw)).settle(0),
        lambda draw: (limiter.rates, repr(limiter), limiter.__sizeof__()),
    ]
    if rates:
        calls.append(lambda draw: limiter.reconfigure(draw.choice(rates)))
    return limiter._check, calls


def hot_hash(twin):
    hotkeys = twin.hotkeys.HotKeys(20)
    hotkeys.add("k1", 1000)
    return twin.balance.KeyHash(NODES, hotkeys=hotkeys)


def address(draw):
    return f"10.0.0.{draw.randrange(40)}"


def address_calls(limiter):
    return limiter._check, [
        lambda draw: limiter.allow(address(draw)),
        lambda draw: (limiter.decide(address(draw)), limiter.peek(address(draw))),
        lambda draw: (limiter.refund(address(draw)), limiter.reset(address(draw))),
        lambda draw: (limiter.rates, repr(limiter)),
        lambda draw: limiter.reconfigure(draw.choice(["50/s", "5/min"])),
    ]


def bucket_calls(bucket, *settings):
    calls = [
        lambda draw: bucket.consume(draw.choice([1, 1, 2])),
        lambda draw: (bucket.decide(), bucket.peek(), bucket.available, repr(bucket)),
        lambda draw: bucket.acquire(timeout=0.001),
        lambda draw: bucket.reserve(1).cancel(),
    ]
    if settings:
        calls.append(lambda draw: bucket.reconfigure(*draw.choice(settings)))
    return bucket._check, calls


def hot_key_calls(hot):
    return hot._check, [
        lambda draw: hot.add(key(draw)),
        lambda draw: hot.add(name(draw), 3),
        lambda draw: (hot.top(5), len(hot), hot.total, name(draw) in hot),
        lambda draw: (hot.k, hot.half_life, repr(hot), copy.copy(hot), pickle.dumps(hot)),
        lambda draw: hot.clear() if draw.random() < 0.2 else None,
    ]


def slo_calls(slo):
    return slo._check, [
        lambda draw: slo.record(draw.random() < 0.9, draw.randrange(3)),
        lambda draw: slo.record(seconds=draw.random()),
        lambda draw: (slo.availability(), slo.error_budget(), slo.burn_rate(60), slo.good, slo.bad),
        lambda draw: slo.alerts(repr),
        lambda draw: (repr(slo), slo.rules, slo.window),
    ]


def level_calls(limits):
    def keys(draw):
        return {"user": name(draw), "all": "all"}

    return limits._check, [
        lambda draw: limits.allow(**keys(draw)),
        lambda draw: (limits.decide(**keys(draw)), limits.peek(**keys(draw)), limits.refund(**keys(draw))),
        lambda draw: limits.reserve(**keys(draw)).cancel(),
        lambda draw: (limits.rates, repr(limits)),
        lambda draw: limits.reconfigure(user=draw.choice(["50/s", "9/s"])),
        lambda draw: (limits.override("user", "k1", "1/s"), limits.exempt("user", "k2")),
        lambda draw: limits.restore("user", "k1", "k2"),
    ]


def permit_calls(limiter):
    return limiter._check, [
        lambda draw: limiter.acquire().release(draw.choice(["success", "dropped", "ignored"])),
        lambda draw: bool(limiter.acquire()),  # which is deleted without release
        lambda draw: (limiter.limit, limiter.inflight, repr(limiter)),
    ]


def throttle_calls(throttle):
    return throttle._check, [
        lambda draw: throttle.allow() and throttle.accept(),
        lambda draw: (throttle.rejection_probability, throttle.requests, throttle.accepts, repr(throttle)),
    ]


BALANCERS = ("RoundRobin", "WeightedRoundRobin", "RandomChoice", "LeastLoaded", "PowerOfTwo", "PeakEWMA")
CASES = {
    **{f"{policy} plain": lambda twin, policy=policy: cache_calls(getattr(twin.cache, policy)(50))
       for policy in POLICIES},
    **{f"{policy} timed": lambda twin, policy=policy: cache_calls(
        getattr(twin.cache, policy)(50, getsizeof=len, tti=0.01, jitter=0.1),
        ttl=[None, 0.001, 1e5], tags=[(), ("a",), ("b",)]) for policy in POLICIES},
    "LRUCache timed later": lambda twin: cache_calls(twin.cache.LRUCache(50), ttl=[None, 0.01]),
    **{f"lru_cache {size}": lambda twin, size=size: memoized_calls(twin.memoize.lru_cache(size)(body))
       for size in (40, None)},
    "cached": lambda twin: memoized_calls(twin.memoize.cached(maxsize=40)(body)),
    "cached stale": lambda twin: memoized_calls(twin.memoize.cached(ttl=0.002, stale=0.002)(body)),
    "cached cache": lambda twin: memoized_calls(twin.memoize.cached(twin.cache.LRUCache(40))(body)),
    "cached method": lambda twin: method_calls(twin.memoize.cached),
    "HashRing": lambda twin: placement_calls(twin.placement.HashRing(NODES, 20)),
    "Rendezvous": lambda twin: placement_calls(twin.placement.Rendezvous(NODES)),
    "Maglev": lambda twin: placement_calls(twin.placement.Maglev(NODES, 251)),
    "BoundedLoad": bounded_calls,
    **{kind: lambda twin, kind=kind: balancer_calls(getattr(twin.balance, kind)(NODES), lambda draw: None)
       for kind in BALANCERS},
    "KeyHash": lambda twin: balancer_calls(twin.balance.KeyHash(NODES), name),
    "KeyHash, hot keys": lambda twin: balancer_calls(hot_hash(twin), name),
    "AddressHash": lambda twin: balancer_calls(twin.balance.AddressHash(NODES), address),
    "TokenBucket": lambda twin: bucket_calls(
        twin.bucket.TokenBucket(50, 1000), (50, 1000), (60, 2000)),
    "RateLimiter": lambda twin: limiter_calls(
        twin.keyed.RateLimiter("50/s", max_keys=50), "50/s", "5/min"),
    "RateLimiter tiers": lambda twin: limiter_calls(
        twin.keyed.RateLimiter("50/s; 900/min", max_keys=50), "50/s; 900/min", "50/s"),
    "RateLimiter strict": lambda twin: limiter_calls(
        twin.keyed.RateLimiter("50/s", max_keys=50, strict=True), "50/s", "90/s"),
    "SLO": lambda twin: slo_calls(twin.slo.SLO(
        99, "12 h", latency=0.9, clock=lambda: time.monotonic_ns() * 100)),
    "HotKeys": lambda twin: hot_key_calls(twin.hotkeys.HotKeys(20)),
    "HotKeys halved": lambda twin: hot_key_calls(twin.hotkeys.HotKeys(20, half_life=0.001)),
}
COMPOSITES = {  # of the twin that is in use
    "AddressLimiter": lambda path: address_calls(headgate.AddressLimiter("50/s")),
    "RateLimits": lambda path: level_calls(headgate.RateLimits(user="50/s", all="900/min")),
    "Throttle": lambda path: throttle_calls(headgate.Throttle()),
    **{f"ConcurrencyLimiter {algorithm}": lambda path, algorithm=algorithm: permit_calls(
        headgate.ConcurrencyLimiter(10, algorithm=algorithm)) for algorithm in ("fixed", "gradient")},
    "ConcurrencyLimiter shared": lambda path: permit_calls(headgate.ConcurrencyLimiter(2, path=path)),
    "TokenBucket shared": lambda path: bucket_calls(headgate.TokenBucket(50, 1000, path=path)),
    "RateLimiter shared": lambda path: limiter_calls(headgate.RateLimiter("50/s", max_keys=50, path=path)),
}


def everything_at_once(check, calls):
    def work(number):
        draw = random.Random(number)
        for call in draw.choices(calls, k=CALLS):
            ignoring((KeyError, NoServerError), partial(call, draw))

    run_threads(work, count=4)
    if check is not None:
        check()


@pytest.mark.parametrize("case", CASES)
def test_everything_at_once(twin, case):
    everything_at_once(*CASES[case](twin))


@pytest.mark.filterwarnings("ignore:.*deleted without release:ResourceWarning")
@pytest.mark.parametrize("case", COMPOSITES)
def test_composites_at_once(case, tmp_path):
    everything_at_once(*COMPOSITES[case](tmp_path / "state"))
