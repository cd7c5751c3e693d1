"""get_or_load and aget_or_load: one loader per key at a time, under all interruptions."""

import asyncio
import gc
import inspect
import re
import sys
import threading
from functools import partial

import pytest
from watchdog import PATIENCE, in_a_loop, in_a_thread, in_threads, until

CROWD = 50


def test_a_missing_key_is_loaded_and_stored(twin):
    cache = twin.cache.LRUCache(2)
    assert cache.get_or_load("a", str.upper) == "A"
    assert cache.get_or_load("a", str.lower) == "A"
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.loads, stats.load_failures) == (1, 1, 1, 0)
    assert stats.load_seconds >= 0


def test_an_error_reaches_the_caller_and_is_not_stored(twin):
    cache = twin.cache.LRUCache(2)
    with pytest.raises(ZeroDivisionError):
        cache.get_or_load("a", lambda key: 1 / 0)
    assert "a" not in cache
    stats = cache.stats(reset=True)
    assert (stats.loads, stats.load_failures) == (1, 1)
    assert cache.get_or_load("a", str.upper) == "A"
    assert cache.stats().load_failures == 0


@pytest.mark.parametrize("loader", [7, None, "load"])
def test_a_loader_must_be_callable(twin, loader):
    cache = twin.cache.LRUCache(2)
    cache["there"] = 1
    for key in ("there", "a"):
        with pytest.raises(TypeError, match=rf"^loader must be callable, got {loader!r}$"):
            cache.get_or_load(key, loader)
        with pytest.raises(TypeError, match=rf"^loader must be callable, got {loader!r}$"):
            in_a_loop(cache.aget_or_load(key, loader))
    assert list(cache.items()) == [("there", 1)]


async def load(key):
    return key.upper()


class Loader:
    async def __call__(self, key):
        return await load(key)

    async def method(self, key):
        return await load(key)


class Result:
    """An awaitable that is no coroutine."""

    def __init__(self, key):
        self.key = key

    def __await__(self):
        return load(self.key).__await__()


COROUTINE_FUNCTIONS = {
    "function": load,
    "object": Loader(),
    "method": Loader().method,
    "partial": partial(load),
    "partial of an object": partial(Loader()),
    "partial of a partial": partial(partial(Loader().method)),
}
AWAITABLES = {"coroutine": lambda key: load(key), "object": lambda key: Result(key)}


@pytest.mark.parametrize("loader", COROUTINE_FUNCTIONS.values(), ids=COROUTINE_FUNCTIONS)
def test_a_coroutine_function_is_refused_by_name(twin, loader):
    cache = twin.cache.LRUCache(2)
    name = re.escape(repr(loader))
    with pytest.raises(
        TypeError, match=rf"^loader must not be a coroutine function, got {name}; await aget_or_load instead$"
    ):
        cache.get_or_load("a", loader)
    assert (len(cache), cache.stats().loads) == (0, 0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("loader", AWAITABLES.values(), ids=AWAITABLES)
def test_a_loader_that_returns_an_awaitable_is_refused(twin, loader):
    cache = twin.cache.LRUCache(2)
    with pytest.raises(
        TypeError, match=r"^loader must not return an awaitable, got <.*>; await aget_or_load instead$"
    ):
        cache.get_or_load("a", loader)
    gc.collect()
    assert "a" not in cache
    assert (cache.stats().loads, cache.stats().load_failures) == (1, 1)


@pytest.mark.parametrize("loader", [*COROUTINE_FUNCTIONS.values(), *AWAITABLES.values(), str.upper])
def test_aget_or_load_takes_them_all(policy, loader):
    cache = policy(2)

    async def main():
        return await cache.aget_or_load("a", loader), await cache.aget_or_load("a", str.lower)

    assert in_a_loop(main()) == ("A", "A")
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.loads, stats.load_failures) == (1, 1, 1, 0)
    assert inspect.iscoroutinefunction(cache.aget_or_load)


def test_a_crowd_loads_once(twin):
    cache, calls, gate = twin.cache.LRUCache(2), [], threading.Event()

    def loader(key):
        calls.append(key)
        assert gate.wait(PATIENCE)
        return object()

    def opened_when_all_have_missed():
        until(lambda: cache.misses >= CROWD)
        gate.set()

    opener = threading.Thread(target=opened_when_all_have_missed, daemon=True)
    opener.start()
    results = in_threads(cache.get_or_load, CROWD, "a", loader)
    opener.join(PATIENCE)
    assert calls == ["a"]
    assert set(map(id, results)) == {id(cache["a"])}


def test_threads_that_miss_first_share_their_loads(twin, monkeypatch):
    """Both find that the cache has not yet loaded anything."""
    both, second, calls = threading.Barrier(2), threading.Event(), []
    home = sys.modules[twin.cache.LRUCache.get_or_load.__module__]
    new_flights = home.Flights

    def flights():
        both.wait(10)
        return new_flights()

    def loader(key):
        calls.append(key)
        if len(calls) == 2:
            second.set()
        return second.wait(0.1)

    monkeypatch.setattr(home, "Flights", flights)
    in_threads(twin.cache.LRUCache(2).get_or_load, 2, "a", loader)
    assert calls == ["a"]


def test_a_loader_may_request_its_own_key(twin):
    cache = twin.cache.LRUCache(2)

    def loader(key):
        return cache.get_or_load(key, str.upper) * 2

    assert in_a_thread(cache.get_or_load, "a", loader) == "AA"
    assert cache["a"] in ("A", "AA")


def test_what_was_loaded_during_a_clear_stays_out(twin):
    cache = twin.cache.LRUCache(2)

    def loader(key):
        cache.clear()
        return key

    assert cache.get_or_load("a", loader) == "a"
    assert "a" not in cache
    assert cache.generation == 1


def test_what_is_too_large_is_returned_and_not_stored(twin):
    cache = twin.cache.LRUCache(2, getsizeof=len)
    assert cache.get_or_load("a", lambda key: "large") == "large"
    assert len(cache) == 0


def test_a_loaded_entry_has_the_lifetime_of_the_cache(twin, clock):
    cache = twin.cache.TTLCache(2, 1, clock=clock)
    assert cache.get_or_load("a", str.upper) == "A"
    clock.advance(1)
    assert cache.get_or_load("a", str.lower) == "a"


# ---- tasks ------------------------------------------------------------------------------------------


class Door:
    """A loader that waits until it is opened."""

    def __init__(self):
        self.calls, self.open = [], asyncio.Event()

    async def __call__(self, key):
        self.calls.append(key)
        await self.open.wait()
        return [key]


async def turns():
    """Let other tasks run until they wait."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_crowd_of_tasks_loads_once(policy):
    cache = policy(2)

    async def main():
        door = Door()
        tasks = [asyncio.ensure_future(cache.aget_or_load("a", door)) for _ in range(CROWD)]
        await turns()
        door.open.set()
        results = await asyncio.gather(*tasks)
        assert all(result is results[0] is cache["a"] for result in results)
        assert door.calls == ["a"]

    in_a_loop(main())
    assert (cache.stats().misses, cache.stats().loads) == (CROWD, 1)


def test_an_error_reaches_the_tasks_that_wait(twin):
    cache, calls = twin.cache.LRUCache(2), []

    async def failing(key):
        calls.append(key)
        await turns()
        raise ZeroDivisionError

    async def main():
        tasks = (cache.aget_or_load("a", failing) for _ in range(5))
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [ZeroDivisionError] * 5

    in_a_loop(main())
    assert calls == ["a"] and "a" not in cache
    assert cache.stats().load_failures == 1


def test_the_next_takes_over_from_a_task_that_is_cancelled(twin):
    cache = twin.cache.LRUCache(2)

    async def main():
        door = Door()
        first, second = (asyncio.ensure_future(cache.aget_or_load("a", door)) for _ in range(2))
        await turns()
        first.cancel()
        await turns()
        door.open.set()
        assert await second == ["a"]
        assert first.cancelled() and door.calls == ["a", "a"]

    in_a_loop(main())
    assert cache["a"] == ["a"]


def test_a_loader_in_a_task_may_request_its_own_key(twin):
    cache = twin.cache.LRUCache(2)

    async def loader(key):
        return await cache.aget_or_load(key, load) * 2

    assert in_a_loop(cache.aget_or_load("a", loader)) == "AA"


def test_what_a_task_loaded_during_a_clear_stays_out(twin):
    cache = twin.cache.LRUCache(2)

    async def main():
        door = Door()
        task = asyncio.ensure_future(cache.aget_or_load("a", door))
        await turns()
        cache.clear()
        door.open.set()
        assert await task == ["a"]

    in_a_loop(main())
    assert "a" not in cache


def test_every_loop_loads_for_itself(twin):
    cache, calls, both = twin.cache.LRUCache(2), [], threading.Barrier(2)

    async def loader(key):
        calls.append(key)
        both.wait(PATIENCE)
        return key

    assert in_threads(lambda: asyncio.run(cache.aget_or_load("a", loader)), 2) == ["a", "a"]
    assert calls == ["a", "a"]
