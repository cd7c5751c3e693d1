"""Interrupts by signal handlers, and cancellations, at every point of a load: no key is lost."""

import asyncio
import signal
import threading
from contextlib import suppress
from queue import SimpleQueue

import pytest
from interrupts import interruptions
from watchdog import in_a_loop, in_a_thread, until

from headgate.cache import _flights

needs_signals = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals are POSIX's")


def function(twin, load, **options):
    """A cached function, its call, and what forgets it."""
    cached = twin.memoize.cached(**options)(load)
    return lambda: cached("key"), cached.cache_clear


def plain(twin, load, clock):
    return function(twin, load)


def kept(twin, load, clock):
    """Where more is to be done than to call the function."""
    return function(twin, load, keep=bool)


def aging(twin, load, clock):
    return function(twin, load, ttl=1, clock=clock)


def elsewhere(twin, load, clock):
    return function(twin, load, cache=twin.cache.LRUCache(8))


def loader(twin, load, clock):
    cache = twin.cache.LRUCache(8)
    return lambda: cache.get_or_load("key", load), cache.clear


KINDS = [plain, kept, aging, elsewhere, loader]


def no_flight_is_led():
    return _flights._led_by_thread.get() == () == _flights._led_by_task.get()


@needs_signals
@pytest.mark.parametrize("make", KINDS)
def test_a_leader_that_is_interrupted_leaves_the_key_to_others(twin, clock, make):
    call, forget = make(twin, str.upper, clock)
    for number in interruptions(call):
        assert no_flight_is_led(), number
        assert in_a_thread(call) == "KEY", number
        forget()


@needs_signals
@pytest.mark.parametrize("make", [plain, loader])
def test_a_waiter_that_is_interrupted_leaves_the_key_to_others(twin, clock, make, monkeypatch):
    """The leader is cancelled when the other waits, and tries to hand over to it."""
    starts, ends, wait = SimpleQueue(), SimpleQueue(), _flights._ThreadWaiter.wait
    leaders = []

    def load(key):
        if threading.current_thread() in leaders:
            starts.put(None)
            ends.get(timeout=60)
            raise SystemExit
        return key.upper()

    def wait_for_a_leader_that_ends(waiter):
        ends.put(None)
        wait(waiter)

    monkeypatch.setattr(_flights._ThreadWaiter, "wait", wait_for_a_leader_that_ends)
    call, forget = make(twin, load, clock)

    def lead():
        with suppress(SystemExit):
            call()

    def begin():
        while not ends.empty():
            ends.get()
        leaders[:] = [threading.Thread(target=lead, daemon=True)]
        leaders[0].start()
        starts.get(timeout=60)

    begin()
    for number in interruptions(call, 2):
        ends.put(None)
        leaders[0].join(60)
        assert not leaders[0].is_alive() and no_flight_is_led(), number
        assert in_a_thread(call) == "KEY", number
        forget()
        begin()
    ends.put(None)


@needs_signals
def test_a_refresh_that_is_interrupted_begins_anew(twin, clock):
    calls = []

    class Here:
        def submit(self, call):
            call()

    call, _ = function(twin, lambda key: calls.append(key) or len(calls), ttl=1, stale=100, clock=clock,
                            executor=Here())
    call()
    clock.advance(2)
    for number in interruptions(call):
        assert no_flight_is_led(), number
        call()
        before = len(calls)
        clock.advance(2)
        in_a_thread(call)
        assert len(calls) == before + 1, number
        clock.advance(2)


@needs_signals
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_coroutine_that_is_interrupted_leaves_the_key_to_others(twin):
    cache = twin.cache.LRUCache(8)

    async def load(key):
        return key.upper()

    def step():
        """The whole coroutine: nothing in it is suspended."""
        with suppress(StopIteration):
            cache.aget_or_load("key", load).send(None)

    async def main():
        for number in interruptions(step):
            assert no_flight_is_led(), number
            async with asyncio.timeout(60):
                assert await cache.aget_or_load("key", load) == "KEY", number
            cache.clear()

    asyncio.run(main())


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("victims", [(0,), (1,), (0, 1), (1, 2), (0, 1, 2)], ids=str)
def test_tasks_that_are_cancelled_leave_the_key_to_others(twin, victims, steps):
    """They are cancelled after so many steps of the event loop."""
    cache = twin.cache.LRUCache(8)

    async def load(key):
        for _ in range(3):
            await asyncio.sleep(0)
        return key.upper()

    async def main():
        tasks = [asyncio.create_task(cache.aget_or_load("key", load)) for _ in range(4)]
        for _ in range(steps):
            await asyncio.sleep(0)
        for number in victims:
            tasks[number].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[3] == "KEY"
        assert all(result == "KEY" or isinstance(result, asyncio.CancelledError) for result in results)

    in_a_loop(main())
    until(no_flight_is_led)
