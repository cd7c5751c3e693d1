"""Every public object in the child of a fork: threads of the parent use it meanwhile, or wait for it."""

import asyncio
import os
import signal
import sys
import threading
from itertools import cycle

import pytest
from watchdog import PATIENCE, until

import headgate
from headgate import cachetools
from headgate.adapters.pymemcache import Hasher, hasher
from headgate.cachetools.func import lru_cache as drop_in_lru_cache
from headgate.limit import _waiting

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are POSIX's")

IDEAS = {name: idea for idea, names in {
    "balance": headgate.balance.__all__,
    "cache": headgate.cache.__all__,
    "hotkeys": headgate.hotkeys.__all__,
    "bucket": ["TokenBucket"],
    "memoize": ["lru_cache"],
    "placement": headgate.placement.__all__,
    "keyed": ["RateLimiter"],
    "slo": ["SLO"],
}.items() for name in names}
RECORDS = {"Alert", "AlertRule", "CacheInfo", "CacheStats", "Decision", "HotKey", "Permit", "Rate",
           "Reservation", "ServerRecord"}
DROP_IN = [f"cachetools.{name}" for name in ("Cache", "LRUCache", "TTLCache", "TLRUCache", "func.lru_cache")]
DROP_IN_MAKERS = {"TLRUCache": lambda cls: cls(100, lambda key, value, now: now + 60)}


def put(cache):
    cache["key"] = cache.get("key", 0)
    return cache


def pick(balancer):
    with balancer.pick():
        return balancer.servers


def place(placement):
    node = f"{os.getpid()}:{threading.get_ident()}"
    placement.add_node(node)
    placement.remove_node(node)
    return placement.get_node("key")


def bounded_pick(bounded):
    with bounded.pick("key"):
        return bounded.loads


def take(limiter):
    with limiter.acquire():
        return limiter.limit


def throttle(throttle):
    throttle.accept()
    return throttle.allow()


MAKERS = {
    "AddressHash": (lambda cls: cls(["a", "b"]), lambda balancer: balancer.pick("192.0.2.1").done()),
    "BoundedLoad": (lambda cls: cls(sibling(cls, "HashRing")(["a", "b"])), bounded_pick),
    "KeyHash": (lambda cls: cls(["a", "b"]), lambda balancer: balancer.pick("key").done()),
    "HotKeys": (lambda cls: cls(10), lambda hot: [hot.add(key) for key in "abcabca"]),
    "Maglev": (lambda cls: cls(["a", "b"], size=11), place),
    "RateLimiter": (lambda cls: cls("1000000/s", max_keys=100), lambda limiter: limiter.allow("key")),
    "SLO": (lambda cls: cls(99.9), lambda slo: [slo.record(), slo.alerts()]),
    "TTLCache": (lambda cls: cls(10, 60), put),
    "TokenBucket": (lambda cls: cls(1e6, 1e6), lambda bucket: bucket.consume()),
    "lru_cache": (lambda cls: cls(maxsize=10)(lambda key: key), lambda function: [function(1), function(2)]),
}


def sibling(cls, name):
    return getattr(sys.modules[cls.__module__], name)


def made(twin, name, folder):
    """An object of that name, and something that uses it."""
    if name == "ConcurrencyLimiter":
        return headgate.ConcurrencyLimiter(), take
    if name == "shared ConcurrencyLimiter":
        return headgate.ConcurrencyLimiter(path=folder / "permits"), take
    if name == "Throttle":
        return headgate.Throttle(), throttle
    if name == "RetryBudget":
        return headgate.RetryBudget(), lambda budget: [budget.deposit(), budget.withdraw()]
    if name == "RateLimits":
        limiter = twin.keyed.RateLimiter("1000000/s", max_keys=100)
        return headgate.RateLimits(user=limiter), lambda limits: limits.allow(user="ann")
    if name == "AddressLimiter":
        limiter = headgate.AddressLimiter("1000000/s", max_keys=100)
        return limiter, lambda limiter: limiter.allow("192.0.2.1")
    if name == "cached":
        function = headgate.cached(twin.cache.LRUCache(10))(lambda key: key)
        return function, lambda function: [function(1), function(2)]
    if name == "shared RateLimiter":
        limiter = twin.keyed.RateLimiter("1000000/s", max_keys=100, path=folder / "limit")
        return limiter, lambda limiter: limiter.allow("key")
    if name == "switched RateLimiter":
        limiter = twin.keyed.RateLimiter("1000/s", max_keys=100, path=folder / "limit")
        rates = cycle(["2000/s", "1000/s"])
        return limiter, lambda limiter: [limiter.reconfigure(next(rates)), limiter.allow("key")]
    if name == "shared TokenBucket":
        bucket = twin.bucket.TokenBucket(1e6, 1e6, path=folder / "bucket")
        return bucket, lambda bucket: bucket.consume()
    if name == "Hasher":
        return hasher()(), place
    if name == "cachetools.func.lru_cache":
        return drop_in_lru_cache(10)(lambda key: key), lambda function: [function(1), function(2)]
    if name.startswith("cachetools."):
        name = name.partition(".")[2]
        make = DROP_IN_MAKERS.get(name, lambda cls: cls(100, 60) if name == "TTLCache" else cls(100))
        return make(getattr(cachetools, name)), put
    idea = IDEAS[name]
    cls = getattr(getattr(twin, idea), name)
    default = {
        "balance": (lambda cls: cls(["a", "b"]), pick),
        "cache": (lambda cls: cls(10), put),
        "placement": (lambda cls: cls(["a", "b"]), place),
    }
    make, use = MAKERS.get(name) or default[idea]
    return make(cls), use


OWN = [name for name in headgate.__all__ if isinstance(getattr(headgate, name), type)
       and not issubclass(getattr(headgate, name), Exception) and name not in RECORDS]
NAMES = [*OWN, "lru_cache", "cached", "shared ConcurrencyLimiter", "shared RateLimiter",
         "switched RateLimiter", "shared TokenBucket", Hasher.__name__, *DROP_IN]


class Amid:
    """A thread that uses an object and waits at the step of that number, wherever Python calls or
    returns, until it is released."""

    def __init__(self, use, number):
        self.number, self.steps = number, 0
        self.there, self.go_on = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.run, args=(use,), daemon=True)
        self.thread.start()
        assert self.there.wait(PATIENCE)

    def run(self, use):
        sys.setprofile(self.step)
        try:
            use()
        finally:
            sys.setprofile(None)
            self.there.set()

    def step(self, frame, event, argument):
        if self.steps == self.number:
            self.there.set()
            self.go_on.wait(PATIENCE)
        self.steps += 1

    def end(self):
        self.go_on.set()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


def in_child(work, meanwhile=lambda: None):
    """Whether ``work()`` ends in a child without an error; the parent calls ``meanwhile()``."""
    child = os.fork()
    if not child:
        signal.alarm(PATIENCE // 6)
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    meanwhile()
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("name", NAMES)
def test_what_others_use_at_the_fork_works_in_the_child(twin, name, tmp_path, exhaustive):
    thing, use = made(twin, name, tmp_path)

    def work():
        use(thing)
        use(thing)
        getattr(thing, "_check", lambda: None)()

    use(thing)
    counted = Amid(lambda: use(thing), -1)
    steps = counted.steps
    counted.end()
    for number in range(0, steps, 1 if exhaustive else 1 + steps // 3):
        amid = Amid(lambda: use(thing), number)
        assert in_child(work, amid.end), f"the child hangs or fails when its parent was at step {number}"
    work()


@pytest.fixture(params=["bucket", "key", "levels"])
def empty(request, twin, clock):
    """A limiter of one token an hour, without any left."""
    if request.param == "bucket":
        bucket = twin.bucket.TokenBucket(1, 1 / 3600, clock=clock)
        bucket.consume()
        return bucket
    limiter = twin.keyed.RateLimiter("1/h", max_keys=100, clock=clock)
    limiter.allow("ann")
    return OneKey(limiter) if request.param == "key" else OneUser(headgate.RateLimits(user=limiter))


class OneKey:
    def __init__(self, limiter):
        self.limiter = limiter

    def acquire(self, **options):
        return self.limiter.acquire("ann", **options)

    def acquire_async(self, **options):
        return self.limiter.acquire_async("ann", **options)


class OneUser:
    def __init__(self, limits):
        self.limits = limits

    def acquire(self, **options):
        return self.limits.acquire(user="ann", **options)

    def acquire_async(self, **options):
        return self.limits.acquire_async(user="ann", **options)


def waiting_in_a_thread(bucket):
    threading.Thread(target=bucket.acquire, daemon=True).start()


def waiting_on_a_loop(bucket):
    threading.Thread(target=lambda: asyncio.run(bucket.acquire_async()), daemon=True).start()


@pytest.mark.parametrize("waiting", [waiting_in_a_thread, waiting_on_a_loop])
@pytest.mark.parametrize("kind", ["thread", "loop"])
def test_who_waits_in_the_parent_is_not_in_the_childs_line(empty, clock, waiting, kind, monkeypatch):
    joined, join = [], _waiting.Queue.join

    def joining(line, *args):
        join(line, *args)
        joined.append(line)

    monkeypatch.setattr(_waiting.Queue, "join", joining)
    waiting(empty)
    until(lambda: joined)

    def work():
        clock.advance(3600)
        assert len(joined[0]) == 0
        assert empty.acquire() if kind == "thread" else asyncio.run(empty.acquire_async())

    assert in_child(work)
    clock.advance(3600)  # the parent's waiter need not wait for the end of the tests


def test_what_is_in_flight_in_the_parent_is_not_in_the_child():
    limiter = headgate.ConcurrencyLimiter(2, algorithm="fixed")
    held = [limiter.acquire(), limiter.acquire()]

    def work():
        assert limiter.inflight == 0
        for permit in held:
            permit.release()
        assert limiter.inflight == 0
        assert limiter.acquire()

    assert in_child(work)
    assert limiter.inflight == 2


BALANCERS = ["RoundRobin", "WeightedRoundRobin", "RandomChoice", "LeastLoaded", "PowerOfTwo", "PeakEWMA",
             "KeyHash", "AddressHash"]


def in_flight(balancer):
    return [record.in_flight for record in balancer.records]


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("name", BALANCERS)
def test_picks_of_the_parent_are_not_in_flight_in_the_child(twin, name, seed):
    balancer = getattr(twin.balance, name)({"a": 1, "b": 2, "c": 2}, seed=seed)
    picks = [balancer.pick("192.0.2.1") for _ in range(9)]
    before = in_flight(balancer)
    assert sum(before) == 9

    def work():
        balancer._check()
        assert in_flight(balancer) == [0, 0, 0]
        own = balancer.pick("192.0.2.1")
        picks.pop().done()
        picks.pop().done(ok=False)
        with picks.pop():
            pass
        picks.clear()
        assert sum(in_flight(balancer)) == 1
        own.done()
        assert in_flight(balancer) == [0, 0, 0]
        balancer._check()

    assert in_child(work)
    assert in_flight(balancer) == before
    picks.clear()
    assert in_flight(balancer) == [0, 0, 0]


def test_hot_keys_are_hot_in_the_child(twin):
    hotkeys = twin.hotkeys.HotKeys(9)
    hotkeys.add("key", 1000)
    balancer = twin.balance.KeyHash(["a", "b", "c"], hotkeys=hotkeys)
    homes = {balancer.get_server("key") for _ in range(60)}
    assert len(homes) == 2

    def work():
        assert {balancer.pick("key").server for _ in range(60)} == homes
        assert balancer.hotkeys.total == 1060
        balancer._check()

    assert in_child(work)
    assert balancer.hotkeys.total == 1000


def test_a_failure_in_the_parent_is_not_counted_in_the_child(twin):
    balancer = twin.balance.RoundRobin(["a", "b"], seed=0, max_failures=1)
    pick = balancer.pick()

    def work():
        pick.done(ok=False)
        assert [record.health for record in balancer.records] == ["healthy", "healthy"]

    assert in_child(work)
    pick.done(ok=False)
    assert [record.health for record in balancer.records] == ["ejected", "healthy"]


def test_bounded_picks_of_the_parent_are_not_in_flight_in_the_child(twin):
    placement = twin.placement.HashRing(["a", "b"])
    bounded = twin.placement.BoundedLoad(placement)
    departed = bounded.pick("x", exclude=["b"])
    picks = [bounded.pick(key) for key in range(8)]
    placement.remove_node("a")
    picks.append(bounded.pick("x"))

    def work():
        bounded._check()
        placement.add_node("a")
        assert bounded.loads == {"a": 0, "b": 0}
        own = bounded.pick("x", exclude=["b"])
        picks.clear()
        departed.done()
        assert bounded.loads == {"a": 1, "b": 0}
        own.done()
        assert bounded.loads == {"a": 0, "b": 0}
        bounded._check()

    assert in_child(work)
    placement.add_node("a")
    assert sum(bounded.loads.values()) == 10
    departed.done()
    picks.clear()
    assert bounded.loads == {"a": 0, "b": 0}


def test_hot_keys_are_whole_though_a_fork_cut_an_edit(twin):
    hot = twin.hotkeys.HotKeys(3)

    def use():
        for key in "aabcccdd":
            hot.add(key)

    def work():
        use()
        hot._check()
        assert len(hot) == 3

    use()
    for number in range(0, 60, 5):
        amid = Amid(use, number)
        assert in_child(work, amid.end), number
