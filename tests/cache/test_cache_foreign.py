"""Foreign code that a cache runs blocks no other thread's use of the cache."""

import gc
import io
import json
import threading

import pytest
from clocks import FakeClock
from policies import CacheMaker
from threads import run_threads
from watchdog import PATIENCE


@pytest.fixture(params=["LRUCache", "TinyLFUCache"])
def policy(request, twin):
    """A policy without hashes, and one with them; the rest is the engine's."""
    return getattr(twin.cache, request.param)


@pytest.fixture(params=[False, True], ids=["plain", "timed"])
def make_cache(request, policy):
    return CacheMaker(policy, request.param)


class Meeting:
    """Once armed, the next ``strike()`` waits for another thread that uses all of the cache."""

    def __init__(self, *caches):
        self.caches, self.armed, self.outcomes = caches, False, []

    def strike(self):
        if self.armed:
            self.armed = False
            other = threading.Thread(target=self.use, daemon=True)
            other.start()
            other.join(PATIENCE)
            self.outcomes.append(not other.is_alive())

    def use(self):
        for cache in self.caches:
            cache["other"] = 1
            cache.put("another", 2, ttl=100, tags=("tag",))
            cache.get("other"), cache.peek("other"), cache.setdefault("other", 1)
            cache.pop("other", None), len(cache), list(cache.items()), cache.expire(), cache.stats()
            cache.invalidate(tag="tag")
            cache._check()

    def held(self):
        """Whether it struck, and the other thread ended."""
        return self.outcomes == [True]


class Key:
    """Equal to keys of the same name; hashing or comparing one strikes, as configured."""

    def __init__(self, meeting, name, strikes="eq"):
        self.meeting, self.name, self.strikes = meeting, name, strikes

    def __hash__(self):
        if self.strikes == "hash":
            self.meeting.strike()
        return 7

    def __eq__(self, other):
        if not isinstance(other, Key):
            return False
        if "eq" in (self.strikes, other.strikes):
            self.meeting.strike()
        return self.name == other.name


class Dying:
    """Its ``__del__`` strikes."""

    def __init__(self, meeting):
        self.meeting = meeting

    def __del__(self):
        self.meeting.strike()


OPERATIONS = {
    "set": lambda cache, key: cache.__setitem__(key, 1),
    "put": lambda cache, key: cache.put(key, 1, ttl=50, tags=("other tag",)),
    "get": lambda cache, key: cache.get(key),
    "item": lambda cache, key: cache[key],
    "peek": lambda cache, key: cache.peek(key),
    "contains": lambda cache, key: key in cache,
    "pop": lambda cache, key: cache.pop(key),
    "del": lambda cache, key: cache.__delitem__(key),
    "setdefault": lambda cache, key: cache.setdefault(key, 2),
    "load": lambda cache, key: cache.get_or_load(key, lambda key: 2),
    "update": lambda cache, key: cache.update({key: 2}),
    "items": lambda cache, key: (key, 1) in cache.items(),
}


@pytest.mark.parametrize("strikes", ["eq", "hash"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_keys(make_cache, operation, strikes):
    cache = make_cache(10)
    meeting = Meeting(cache)
    cache[Key(meeting, "a", "")] = 1
    cache[Key(meeting, "b", "")] = 1
    key = Key(meeting, "b", strikes)
    meeting.armed = True
    OPERATIONS[operation](cache, key)
    assert meeting.held()
    cache._check()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_keys_of_two_caches_that_need_each_other(make_cache, operation):
    """Both threads compare at the same time, and then each writes to the other's cache."""
    caches, both = [make_cache(10), make_cache(10)], threading.Barrier(2)

    class Writing(Key):
        def __eq__(self, other):
            for key in (self, other):
                if key.strikes:
                    key.strikes = ""
                    both.wait(PATIENCE)
                    key.meeting["other"] = 1
            return self.name == other.name

        __hash__ = Key.__hash__

    for cache in caches:
        cache[Writing(None, "a", "")] = 1

    def work(number):
        OPERATIONS[operation](caches[number], Writing(caches[1 - number], "a"))

    run_threads(work, 2)
    for cache in caches:
        cache._check()


DEPARTURES = {
    "set": lambda cache: cache.__setitem__("a", 2),
    "tagged": lambda cache: cache.put("a", 2, tags=("tag",)),
    "evict": lambda cache: [cache.get(number % 10) or cache.put(number % 10, 1) for number in range(200)],
    "pop": lambda cache: cache.pop("a") and None,
    "popitem": lambda cache: cache.popitem() and None,
    "del": lambda cache: cache.__delitem__("a"),
    "clear": lambda cache: cache.clear(),
    "invalidate": lambda cache: cache.invalidate(predicate=lambda key, value: True) and None,
    "resize": lambda cache: cache.resize(1),
}


@pytest.mark.parametrize("departure", DEPARTURES)
def test_finalizers_of_values(make_cache, departure):
    cache = make_cache(10)
    meeting = Meeting(cache)
    cache["a"], cache["b"] = Dying(meeting), Dying(meeting)
    meeting.armed = True
    DEPARTURES[departure](cache)
    gc.collect()
    assert meeting.held()
    cache._check()


def test_finalizers_of_what_has_expired(policy):
    clock = FakeClock()
    cache = policy(10, ttl=1, clock=clock)
    meeting = Meeting(cache)
    cache["a"] = Dying(meeting)
    meeting.armed = True
    clock.advance(1)
    cache["b"] = 1
    assert meeting.held()


def test_callables(policy):
    """getsizeof, the clock, the listener, a predicate, a loader and a serializer."""

    def striking(function):
        def strike(*args):
            meeting.strike()
            return function(*args)

        return strike

    meeting = Meeting()
    cache = policy(10, striking(lambda value: 1), on_evict=striking(lambda *event: None))
    timed = policy(10, ttl=100, clock=striking(lambda: 10**9))
    meeting.caches = cache, timed

    class Serializer:
        dumps, loads = striking(json.dumps), striking(json.loads)

    for run in (
        lambda: cache.update(a=1),
        lambda: cache.pop("a"),
        lambda: timed.get("a"),
        lambda: timed.update(a=1),
        lambda: timed.invalidate(predicate=striking(lambda key, value: True)),
        lambda: cache.get_or_load("a", striking(lambda key: 1)),
        lambda: cache.dump(io.BytesIO(), serializer=Serializer),
    ):
        meeting.armed, meeting.outcomes = True, []
        run()
        assert meeting.held()
