"""Foreign code that raises, mutates or re-enters at every place where the cache runs it."""

import gc
import sys

import pytest
from evil import EvilKey, EvilValue, Mischief

STEPS = 1_000
TAGS = [(), ("x",), ("x", "y")]


def step(cache, mischief):
    """One random operation with evil keys and values."""
    draw = mischief.draw
    key = EvilKey(mischief) if draw.random() < 0.8 else str(draw.randrange(10))
    choice = draw.randrange(12)
    if choice < 3:
        cache[key] = EvilValue(mischief)
    elif choice == 3:
        cache.get(key)
    elif choice == 4:
        cache.pop(key, None)
    elif choice == 5:
        cache.setdefault(key, EvilValue(mischief))
    elif choice == 6:
        cache.__contains__(key)
    elif choice == 7:
        list(cache.items())
    elif choice == 8:
        cache.popitem()
    elif choice == 9:
        cache.put(key, EvilValue(mischief), ttl=draw.choice([None, 0.05, 1]), tags=draw.choice(TAGS))
    elif choice == 10:
        cache.get_or_load(key, lambda key: EvilValue(mischief))
    else:
        cache.invalidate(tag=draw.choice("xy"))


@pytest.mark.parametrize("seed", [1, 2])
def test_random_operations_with_evil_keys_and_values(make_cache, exhaustive, seed):
    mischief = Mischief(seed)
    cache = mischief.cache = make_cache(20)
    for i in range(3 * STEPS if exhaustive else STEPS):
        try:
            step(cache, mischief)
        except (KeyError, ZeroDivisionError):
            pass
        assert len(cache) <= cache.maxsize
        if i % 20 == 0:
            mischief.active = False
            cache._check()
            mischief.active = True
    mischief.active = False
    cache._check()
    cache.clear()
    assert len(cache) == 0
    mischief.cache = None


def test_random_operations_with_evil_weights_and_listener(make_cache, exhaustive):
    mischief = Mischief(3)

    def getsizeof(value):
        mischief.strike(may_raise=True)
        return mischief.draw.randrange(4)

    def on_evict(key, value, reason):
        mischief.strike(may_raise=False)

    cache = mischief.cache = make_cache(20, getsizeof, on_evict=on_evict)
    for i in range(STEPS if exhaustive else STEPS // 3):
        try:
            step(cache, mischief)
        except (KeyError, ZeroDivisionError, ValueError):
            pass
        assert cache.currsize <= cache.maxsize
        if i % 20 == 0:
            mischief.active = False
            cache._check()
            mischief.active = True
    mischief.active = False
    cache._check()
    mischief.cache = None


@pytest.mark.parametrize("method", ["get", "peek", "pop", "__getitem__", "__contains__", "__delitem__"])
def test_errors_of_eq_and_hash_reach_the_caller(make_cache, method):
    class Key:
        def __init__(self, fail_hash):
            self.fail_hash = fail_hash

        def __hash__(self):
            if self.fail_hash:
                raise ZeroDivisionError("hash")
            return hash("a")

        def __eq__(self, other):
            raise ZeroDivisionError("eq")

    cache = make_cache(2)
    cache["a"] = 1
    for fail_hash, message in [(True, "hash"), (False, "eq")]:
        with pytest.raises(ZeroDivisionError, match=message):
            getattr(cache, method)(Key(fail_hash))
        with pytest.raises(ZeroDivisionError, match=message):
            cache[Key(fail_hash)] = 2
    assert list(cache.items()) == [("a", 1)]
    assert cache.hits == cache.misses == 0
    cache._check()


def test_eq_that_clears_while_it_is_compared(make_cache):
    class Key:
        def __hash__(self):
            return 1

        def __eq__(self, other):
            cache.clear()
            return True

    cache = make_cache(5)
    cache[Key()] = 1
    assert cache.get(Key()) is None
    cache[Key()] = 2
    cache[Key()] = 3
    assert len(cache) == 1
    cache._check()


def test_a_key_that_is_equal_to_all(make_cache):
    class Key:
        def __hash__(self):
            return hash("a")

        def __eq__(self, other):
            return True

    cache = make_cache(5)
    cache["a"] = 1
    assert cache[Key()] == 1
    cache[Key()] = 2
    assert list(cache.items()) == [("a", 2)]


def test_a_key_whose_hash_changes_can_still_be_evicted(twin):
    class Key:
        def __init__(self):
            self.hash = 1

        def __hash__(self):
            return self.hash

    cache = twin.cache.LRUCache(2)
    key = Key()
    cache[key] = 1
    key.hash = 2
    for i in range(10):
        cache[i] = i
    assert list(cache) == [8, 9]
    cache._check()


def test_listener_may_use_the_cache(make_cache):
    events = []

    def on_evict(key, value, reason):
        events.append((key, reason))
        if reason == "size" and len(events) < 5:
            cache["again"] = len(events)

    cache = make_cache(2, on_evict=on_evict)
    cache.update(a=1, b=2, c=3)
    assert len(cache) == 2
    assert events[0][1] == "size"
    cache._check()


def test_getsizeof_that_fills_the_cache(make_cache):
    def getsizeof(value):
        if value == "outer":
            cache["key"] = "inner"
        return 1

    cache = make_cache(2, getsizeof)
    assert cache.setdefault("key", "outer") == "inner"
    cache["key"] = "outer"
    assert cache["key"] == "outer"
    assert cache.currsize == 1
    cache._check()


def test_getsizeof_that_shrinks_the_cache(make_cache):
    def getsizeof(value):
        cache.resize(1)
        return 5

    cache = make_cache(10, getsizeof)
    with pytest.raises(ValueError, match=r"^value too large: size 5 exceeds maxsize 1$"):
        cache["a"] = 1
    cache._check()


def test_del_that_reads_the_cache(twin):
    seen = []

    class Value:
        def __del__(self):
            seen.append(list(cache))

    cache = twin.cache.LRUCache(2)
    cache["a"] = Value()
    cache["a"] = Value()
    cache.update(b=1, c=2)
    gc.collect()
    assert seen == [["a"], ["b", "c"]]


def test_repr_that_raises(twin):
    class Value:
        def __repr__(self):
            raise ZeroDivisionError

    cache = twin.cache.LRUCache(2)
    cache["a"] = Value()
    with pytest.raises(ZeroDivisionError):
        repr(cache)
    cache.clear()
    assert repr(cache) == "LRUCache({}, maxsize=2, currsize=0)"


def test_collector_that_runs_during_every_operation(make_cache):
    """Finalizers of cycles use the cache while it allocates."""
    thresholds = gc.get_threshold()

    class Cyclic:
        def __init__(self):
            self.self = self

        def __del__(self):
            cache.pop(1, None)
            cache[2] = 2

    cache = make_cache(50)
    gc.set_threshold(5, 1, 1)
    try:
        for i in range(3000):
            Cyclic()
            cache[i % 70] = Cyclic()
            list(cache.items())
            if i % 100 == 0:
                gc.disable()  # nothing must change what is checked
                cache._check()
                gc.enable()
    finally:
        gc.enable()
        gc.set_threshold(*thresholds)
    assert len(cache) <= 50
    cache.clear()
    gc.collect()
    cache._check()


def test_cache_in_a_dead_cycle_that_a_finalizer_uses(make_cache):
    """The ``__del__`` of an untracked object uses the cache after the collector has cleared it."""
    met = []

    def build():
        class Untracked:
            __slots__ = ()

            def __del__(self):
                cache = type(self).cache
                cache["late"] = 1
                met.append((cache.get("a"), len(cache), sys.getsizeof(cache) > 0, list(cache)))
                cache._check()

        cache = make_cache(100)
        for i in range(50):
            cache[i] = i
        cache["value"] = Untracked()
        Untracked.cache = cache

    build()
    gc.collect()
    assert len(met) <= 1


class Interrupter:
    """A trace function that calls `act` before one of the lines that run, and bounds how many do."""

    def __init__(self, act, at, most=20_000):
        self.act, self.at, self.most, self.lines = act, at, most, 0

    def __call__(self, frame, event, argument):
        if "headgate" not in frame.f_code.co_filename:
            return None
        if event == "line":
            self.lines += 1
            assert self.lines < self.most, "a reader goes round in circles"
            if self.lines == self.at:
                sys.settrace(None)
                self.act()
                sys.settrace(self)
        return self


def test_a_reader_may_be_interrupted_before_any_line(policy):
    """A key is read, and so perhaps moved, while the entries are listed, as threads and finalizers may do."""
    for at in range(1, 60):
        cache = policy(8)
        for key in range(8):
            cache[key] = key
        cache.get(7)

        def act(cache=cache):
            for key in (3, 5, 5, 0):
                cache.get(key)
            cache["new"] = 1

        sys.settrace(Interrupter(act, at))
        try:
            listed = list(cache)
        finally:
            sys.settrace(None)
        assert len(listed) == len(set(listed)) == 8
        cache._check()
