"""Items, dumps, copies, pickles and comparisons show a cache as it was at one moment."""

import copy
import io
import json
import pickle
import sys

import pytest
from test_cache_evil import Interrupter
from threads import run_threads

ABSENT = object()


def dumped(cache):
    records = []

    class Recording:
        loads = json.loads

        @staticmethod
        def dumps(record):
            records.append(record)
            return json.dumps(record)

    cache.dump(io.BytesIO(), serializer=Recording)
    return [(key, value, left) for key, value, left, _, _ in records]


def pickled(cache):
    _, _, more, _, items = cache.__reduce__()
    ends = {key: left for key, left, _, _ in more[1]}
    return [(key, value, ends[key]) for key, value in items]


SHOWN = {
    "items": lambda cache: list(cache.items()),
    "values": lambda cache: [(value[0], value) for value in cache.values()],
    "dump": dumped,
    "pickle": pickled,
    "loads": lambda cache: pickle.loads(pickle.dumps(cache)).items(),
    "copy": lambda cache: copy.copy(cache).items(),
    "filter": lambda cache: cache.invalidate(predicate=lambda key, value: value[0] != key) and [("", [1, 1])],
    "equal": lambda cache: cache == {} or [],
}
LIFETIMES = [50, 60]


def rewrite(cache, name):
    """Store another value under a key, with the lifetime of that value."""
    _, seconds = cache.peek(name)
    other = LIFETIMES[seconds == LIFETIMES[0]]
    cache.put(name, [name, other], ttl=other)


class Clock:
    """A clock that does not advance, and can be pickled."""

    def __call__(self):
        return 10**9


def filled(policy, count=8, **options):
    cache = policy(2 * count, clock=Clock(), **options)
    for number in range(count):
        cache.put(str(number), [str(number), LIFETIMES[number % 2]], ttl=LIFETIMES[number % 2])
    return cache


def is_whole(rows):
    """Whether keys are shown with their own values, and with their lifetimes where these are shown."""
    return all(key == name and left in ([], [seconds * 10**9]) for key, (name, seconds), *left in rows)


@pytest.mark.parametrize("show", SHOWN)
def test_it_may_be_interrupted_before_any_line(policy, show):
    at = lines = 1
    while at <= lines:
        cache = filled(policy, getsizeof=len)

        def act(cache=cache):
            rewrite(cache, "3")
            cache.pop("5")
            cache.put("5", ["5", 50], ttl=50)
            rewrite(cache, "7")

        interrupter = Interrupter(act, at)
        sys.settrace(interrupter)
        try:
            rows = list(SHOWN[show](cache) or [])
        finally:
            sys.settrace(None)
        assert is_whole(rows)
        cache._check()
        at, lines = at + 3, min(interrupter.lines, 150)


def test_keys_that_change_the_cache_when_they_are_hashed(policy):
    """The lifetimes in a pickle are those of its values."""
    cache = filled(policy, 4)
    armed = []

    class Acting(str):
        def __hash__(self):
            if armed:
                armed.pop()
                for name in "123":
                    rewrite(cache, name)
            return str.__hash__(self)

    cache.pop("0")
    cache.put(Acting("0"), ["0", 50], ttl=50)
    for show in (pickled, SHOWN["items"]):
        armed.append(True)
        assert is_whole(show(cache))
        armed.clear()


@pytest.mark.parametrize("options", [{}, {"getsizeof": len}], ids=["counted", "sized"])
def test_while_another_thread_writes(policy, options):
    cache = policy(200, **options)
    for number in range(100):
        cache[number] = (number,)
    done = []

    def work(number):
        if number:
            step = 0
            while not done:
                step += 1
                cache.pop(step % 100, None)
                cache[step % 100] = (step % 100,)
            return
        for _ in range(30):
            rows = [*cache.items(), *copy.copy(cache).items(), *pickle.loads(pickle.dumps(cache)).items()]
            rows += [(key, cache.peek(key, (key,))) for key in range(100)]
            rows += [(key, cache.get(key, (key,))) for key in range(100)]
            assert all(value == (key,) for key, value in rows)
        done.append(True)

    try:
        run_threads(work, 2)
    finally:
        done.append(True)
    cache._check()


def test_bound_and_entries_are_of_one_moment(twin):
    """Whenever Python code runs in a copy or a pickle, the cache gets another maxsize and is filled."""
    armed = []

    class Growing(twin.cache.LRUCache):
        def grow(self):
            if armed:
                armed.pop()
                self.resize(6 - self.maxsize)
                self.update(dict.fromkeys("abcd"))
                armed.append(True)

        def __getstate__(self):
            self.grow()

    def clock():
        cache.grow()
        return 0

    cache = Growing(2, ttl=1, clock=clock)
    cache.update(dict.fromkeys("abcd"))
    for _ in range(4):
        armed.append(True)
        _, (_, state), *_, rows = cache.__reduce__()
        copied = copy.copy(cache)
        armed.pop()
        assert state[1] == len(list(rows))
        assert len(copied) == copied.maxsize


def test_it_may_be_interrupted_by_a_resize(twin):
    at = lines = 1
    while at <= lines:
        cache = twin.cache.LRUCache(4)
        cache.update(dict.fromkeys("abcd"))

        def act(cache=cache):
            cache.resize(2)

        interrupter = Interrupter(act, at)
        sys.settrace(interrupter)
        try:
            _, (_, state), *_, rows = cache.__reduce__()
        finally:
            sys.settrace(None)
        assert state[1] == len(list(rows))
        at, lines = at + 1, interrupter.lines


def test_it_may_be_interrupted_by_the_first_entry_with_a_lifetime(twin):
    """Until then the cache has read no clock."""
    at = lines = 1
    while at <= lines:
        cache = twin.cache.LRUCache(4, clock=Clock())
        cache["a"] = 1

        def act(cache=cache):
            cache.put("b", ["b", 5], ttl=5)

        interrupter = Interrupter(act, at)
        sys.settrace(interrupter)
        try:
            copied = copy.copy(cache)
        finally:
            sys.settrace(None)
        assert is_whole([row for row in dumped(copied) if row[0] == "b"]), (at, dumped(copied))
        at, lines = at + 1, interrupter.lines
