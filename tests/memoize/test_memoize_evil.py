"""Foreign code that raises, mutates or re-enters at every place where a memoizer runs it."""

import gc

import pytest
from evil import EvilKey, EvilValue, Mischief

STEPS = 5_000


class Game:
    """What Mischief takes for a cache: every act of it is a call of the memoizer."""

    def __init__(self, memoizer):
        self.memoizer = memoizer

    def __setitem__(self, key, value):
        self.memoizer(key, "again")

    def __iter__(self):
        return iter(())

    def get(self, key):
        return self.memoizer(key)

    def clear(self):
        self.memoizer.cache_clear()

    def popitem(self):
        self.memoizer(EvilKey(self.mischief), evil=1)

    def resize(self, size):
        self.memoizer(size)

    def update(self, entries):
        for key in entries:
            self.memoizer(key)


@pytest.mark.parametrize("maxsize", [None, 1, 10, 100])
@pytest.mark.parametrize("typed", [False, True])
def test_random_calls_with_evil_keys_and_results(twin, exhaustive, maxsize, typed):
    mischief = Mischief(1)

    @twin.memoize.lru_cache(maxsize, typed)
    def memoized(*args, **kwargs):
        mischief.strike(may_raise=True)
        return EvilValue(mischief)

    game = mischief.cache = Game(memoized)
    game.mischief = mischief
    draw = mischief.draw
    for i in range(STEPS if exhaustive else STEPS // 4):
        try:
            if draw.random() < 0.5:
                memoized(EvilKey(mischief), draw.randrange(3))
            elif draw.random() < 0.5:
                memoized(draw.randrange(20), key=EvilKey(mischief))
            else:
                memoized(str(draw.randrange(20)))
        except ZeroDivisionError:
            pass
        if i % 20 == 0:
            memoized._check()
    mischief.active = False
    memoized._check()
    assert maxsize is None or memoized.cache_info().currsize <= maxsize
    memoized.cache_clear()
    mischief.cache = None


@pytest.mark.parametrize("maxsize", [None, 5])
def test_errors_of_eq_and_hash_reach_the_caller(twin, maxsize):
    class Key:
        def __init__(self, fail_hash):
            self.fail_hash = fail_hash

        def __hash__(self):
            if self.fail_hash:
                raise ZeroDivisionError("hash")
            return 1

        def __eq__(self, other):
            raise ZeroDivisionError("eq")

    memoized = twin.memoize.lru_cache(maxsize)(lambda key: 1)
    assert memoized(Key(False)) == 1
    for fail_hash, message in [(True, "hash"), (False, "eq")]:
        with pytest.raises(ZeroDivisionError, match=message):
            memoized(Key(fail_hash))
    assert memoized.cache_info().currsize == 1
    memoized._check()


def test_eq_that_clears_while_it_is_compared(twin):
    class Key:
        def __hash__(self):
            return 1

        def __eq__(self, other):
            memoized.cache_clear()
            return True

    memoized = twin.memoize.lru_cache(5)(lambda key: [key])
    for _ in range(20):
        memoized(Key())
        memoized._check()
    assert memoized.cache_info().currsize <= 1


def test_eq_that_fills_while_it_is_compared(twin):
    class Key:
        def __hash__(self):
            return 1

        def __eq__(self, other):
            if self is not other and memoized.cache_info().currsize < 50:
                for i in range(100):
                    memoized(i)
            return False

    memoized = twin.memoize.lru_cache(100)(lambda key: [key])
    for _ in range(20):
        memoized(Key())
        memoized._check()
    assert memoized.cache_info().currsize == 100


def test_keys_whose_hash_changes_can_still_be_evicted(twin):
    class Key:
        def __init__(self):
            self.hash = 1

        def __hash__(self):
            return self.hash

    memoized = twin.memoize.lru_cache(2)(lambda key: key)
    for _ in range(10):
        key = Key()
        memoized(key)
        key.hash = 2
    memoized._check()
    assert memoized.cache_info() == (0, 10, 2, 2)


def test_del_that_calls(twin):
    class Result:
        def __del__(self):
            seen.append(memoized.cache_info().currsize)
            memoized("late")

    seen = []
    memoized = twin.memoize.lru_cache(2)(lambda key: Result() if key != "late" else None)
    for i in range(10):
        memoized(i)
        memoized._check()
    assert set(seen) == {2}


def test_collector_that_runs_during_every_call(twin):
    """Finalizers of cycles call while the memoizer allocates."""
    thresholds = gc.get_threshold()

    class Cyclic:
        def __init__(self):
            self.self = self

        def __del__(self):
            memoized(2, 3)

    memoized = twin.memoize.lru_cache(50)(lambda *args: Cyclic())
    gc.set_threshold(5, 1, 1)
    try:
        for i in range(2000):
            Cyclic()
            memoized(i % 70, i % 3)
            if i % 100 == 99:
                gc.disable()
                memoized._check()
                memoized.cache_clear()
                gc.enable()
    finally:
        gc.set_threshold(*thresholds)
    memoized.cache_clear()
    gc.collect()
    memoized._check()


def test_memoizer_in_a_dead_cycle_that_a_finalizer_calls(twin):
    """An untracked object's ``__del__`` calls the memoizer after the collector has cleared it."""
    met = []

    def build():
        class Untracked:
            __slots__ = ()

            def __del__(self):
                memoizer = type(self).memoizer
                try:
                    memoizer("late")
                except TypeError:
                    pass
                memoizer.cache_clear()
                met.append(memoizer.cache_info().currsize)

        memoizer = twin.memoize.lru_cache(100)(lambda x: Untracked() if x == 50 else [x])
        for i in range(60):
            memoizer(i)
        Untracked.memoizer = memoizer

    build()
    gc.collect()
    assert met in ([], [0])
