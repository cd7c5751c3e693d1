"""Many callers of one cold key: one loads, whatever comes between, and no caller hangs."""

import asyncio
import os
import threading

import pytest
from watchdog import PATIENCE, in_a_loop, in_a_thread, in_threads, until

THREADS, TASKS = 200, 2000


class Gate:
    """A loader that counts its calls and waits until it is opened."""

    def __init__(self):
        self.calls = 0
        self.inside = threading.Event()
        self.open = threading.Event()

    def __call__(self, *args):
        self.calls += 1
        self.inside.set()
        assert self.open.wait(PATIENCE)
        return [args]


def open_when_all_are_inside(gate, load, threads):
    """Open `gate` once so many calls of `load` have missed; the thread that does."""

    def body():
        until(lambda: load.cache_info().misses >= threads)
        gate.open.wait(0.05)
        gate.open.set()

    opener = threading.Thread(target=body, daemon=True)
    opener.start()
    return opener


@pytest.fixture(params=["own", "dict", "ttl"])
def options(request):
    return {"own": {}, "dict": {"cache": {}}, "ttl": {"ttl": 60}}[request.param]


def test_threads_load_once(twin, options):
    gate = Gate()
    load = twin.memoize.cached(**options)(gate)
    opener = open_when_all_are_inside(gate, load, THREADS)
    results = in_threads(load, THREADS, 1)
    opener.join()
    assert gate.calls == 1
    assert all(result is results[0] for result in results)
    assert load.cache_info().misses + load.cache_info().hits == THREADS


def test_threads_on_one_method_load_once(twin):
    gate = Gate()
    gate.open.set()

    class Service:
        @twin.memoize.cached
        def load(self):
            return gate()

    service = Service()
    results = in_threads(lambda: service.load(), THREADS)
    assert gate.calls == 1
    assert all(result is results[0] for result in results)


def test_quick_loads_in_threads_run_once_a_key(twin, options):
    for _ in range(20):
        calls = []
        load = twin.memoize.cached(**options)(calls.append)
        in_threads(load, 20, object())
        assert len(calls) == 1


def test_a_failure_reaches_the_threads_that_wait(twin):
    gate = Gate()

    @twin.memoize.cached
    def load(x):
        gate()
        raise ZeroDivisionError(x)

    opener = open_when_all_are_inside(gate, load, THREADS)
    results = in_threads(load, THREADS, 1)
    opener.join()
    assert {type(error) for error in results} == {ZeroDivisionError}
    assert gate.calls < THREADS / 4
    with pytest.raises(ZeroDivisionError):
        load(1)


def test_an_interrupted_thread_hands_over(twin):
    gate, interrupts = Gate(), iter([KeyboardInterrupt, SystemExit])

    @twin.memoize.cached
    def load(x):
        gate()
        for interrupt in interrupts:
            raise interrupt
        return [x]

    opener = open_when_all_are_inside(gate, load, 50)
    results = in_threads(load, 50, 1)
    opener.join()
    assert gate.calls == 3
    assert sorted(type(result).__name__ for result in results) == (
        ["KeyboardInterrupt", "SystemExit"] + ["list"] * 48)


def test_an_interrupted_thread_alone(twin):
    interrupts = iter([KeyboardInterrupt])

    @twin.memoize.cached
    def load(x):
        for interrupt in interrupts:
            raise interrupt
        return [x]

    assert isinstance(in_a_thread(load, 1), KeyboardInterrupt)
    assert in_a_thread(load, 1) == [1]


@pytest.mark.parametrize("depth", [1, 5])
def test_recursion_on_the_same_key_calls_through(twin, depth):
    calls = []

    @twin.memoize.cached
    def load(x):
        calls.append(x)
        return load(x) + 1 if len(calls) <= depth else 0

    assert in_a_thread(load, 1) == depth
    assert len(calls) == depth + 1
    assert load(1) == depth and len(calls) == depth + 1


def test_threads_whose_keys_need_each_other(twin):
    """One loads a and then needs b, the other loads b and then needs a."""
    both = threading.Barrier(2)
    seen = threading.local()

    @twin.memoize.cached
    def load(x):
        if getattr(seen, "keys", None) is None:
            seen.keys = {x}
            both.wait(PATIENCE)
            return x + load("ba"[x == "b"])
        return x if x in seen.keys else x + load("ab"[x == "a"])

    results = []
    threads = [threading.Thread(target=lambda key=key: results.append(load(key)), daemon=True)
               for key in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(results) == 2


@pytest.mark.parametrize("cache", [None, "dict", "LRUCache"])
def test_clear_during_a_load_keeps_the_result_out(twin, cache):
    gate = Gate()
    store = {None: None, "dict": {}, "LRUCache": twin.cache.LRUCache(5)}[cache]
    load = twin.memoize.cached(store)(gate)
    results = []
    early = threading.Thread(target=lambda: results.append(load(1)), daemon=True)
    early.start()
    assert gate.inside.wait(PATIENCE)
    load.cache_clear()
    gate.inside.clear()
    late = threading.Thread(target=lambda: results.append(load(1)), daemon=True)
    late.start()
    assert gate.inside.wait(PATIENCE)
    assert gate.calls == 2
    gate.open.set()
    early.join(PATIENCE), late.join(PATIENCE)
    assert len(results) == 2 and results[0] is not results[1]
    assert load.cache_info().currsize == 1
    assert any(load(1) is result for result in results)


def test_clear_during_the_only_load(twin):
    @twin.memoize.cached
    def load(x):
        load.cache_clear()
        return [x]

    assert load(1) is not load(1)
    assert load.cache_info().currsize == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are POSIX's")
def test_a_fork_during_a_load(twin):
    """The child leaves the events alone, whose locks a thread of its parent's may hold."""
    gate, parent = Gate(), os.getpid()
    load = twin.memoize.cached(lambda x: gate(x) if os.getpid() == parent else [x])
    thread = threading.Thread(target=load, args=(1,), daemon=True)
    thread.start()
    assert gate.inside.wait(PATIENCE)
    child = os.fork()
    if child == 0:
        try:
            os._exit(load(1) != [1])
        finally:
            os._exit(2)
    ended = []
    until(lambda: ended.append(os.waitpid(child, os.WNOHANG)) or ended[-1][0])
    assert ended[-1] == (child, 0)
    gate.open.set()
    thread.join(PATIENCE)


# ---- tasks ------------------------------------------------------------------------------------------


def test_tasks_load_once(twin, options):
    calls = []

    @twin.memoize.cached(**options)
    async def load(x):
        calls.append(x)
        await asyncio.sleep(0.01)
        return [x]

    async def main():
        results = await asyncio.gather(*(load(1) for _ in range(TASKS)))
        assert all(result is results[0] for result in results)

    in_a_loop(main())
    assert calls == [1]


def test_a_failure_reaches_the_tasks_that_wait(twin):
    calls = []

    @twin.memoize.cached
    async def load(x):
        calls.append(x)
        await asyncio.sleep(0.01)
        raise ZeroDivisionError(x)

    async def main():
        results = await asyncio.gather(*(load(1) for _ in range(TASKS)), return_exceptions=True)
        assert {type(error) for error in results} == {ZeroDivisionError}
        assert calls == [1]
        with pytest.raises(ZeroDivisionError):
            await load(1)
        assert calls == [1, 1]

    in_a_loop(main())


@pytest.mark.parametrize("cancelled", [1, 3, TASKS // 2, TASKS])
def test_a_cancelled_task_hands_over(twin, cancelled):
    calls = []

    @twin.memoize.cached
    async def load(x):
        calls.append(x)
        await asyncio.sleep(0.02)
        return [x]

    async def main():
        tasks = [asyncio.ensure_future(load(1)) for _ in range(TASKS)]
        await asyncio.sleep(0.001)
        for task in tasks[:cancelled]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results[:cancelled])
        assert all(result == [1] for result in results[cancelled:])
        assert await load(1) == [1]

    in_a_loop(main())
    assert len(calls) == 2


def test_leaders_that_are_cancelled_one_after_another(twin):
    calls = []

    @twin.memoize.cached
    async def load(x):
        calls.append(x)
        await asyncio.sleep(0.001 if len(calls) == 50 else 10)
        return [x]

    async def main():
        tasks = [asyncio.ensure_future(load(1)) for _ in range(200)]
        for task in tasks[:49]:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result == [1] for result in results[49:])

    in_a_loop(main())
    assert len(calls) == 50


def test_a_task_that_waits_under_a_timeout(twin):
    landing = asyncio.Event()

    @twin.memoize.cached
    async def load(x):
        await landing.wait()
        return [x]

    async def main():
        leader = asyncio.ensure_future(load(1))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                await load(1)
        landing.set()
        assert await leader == [1]

    in_a_loop(main())


def test_recursion_in_a_task_calls_through(twin):
    calls = []

    @twin.memoize.cached
    async def load(x):
        calls.append(x)
        return await load(x) + 1 if len(calls) < 4 else 0

    assert in_a_loop(load(1)) == 3


def test_recursion_in_a_task_of_its_own_calls_through(twin):
    calls = []

    @twin.memoize.cached
    async def load(x):
        calls.append(x)
        if len(calls) < 4:
            (below,) = await asyncio.gather(load(x))
            return below + 1
        return 0

    assert in_a_loop(load(1)) == 3


def test_tasks_whose_keys_need_each_other(twin):
    calls = []

    @twin.memoize.cached
    async def load(x):
        calls.append(x)
        await asyncio.sleep(0.001)
        return x + await load("ab"[x == "a"]) if len(calls) < 5 else x

    async def main():
        await asyncio.gather(load("a"), load("b"))

    in_a_loop(main())


def test_clear_during_a_load_in_a_loop_keeps_the_result_out(twin):
    calls = []

    @twin.memoize.cached
    async def load(x):
        calls.append(landing := asyncio.Event())
        await landing.wait()
        return [x]

    async def main():
        early = asyncio.ensure_future(load(1))
        await asyncio.sleep(0)
        load.cache_clear()
        late = asyncio.ensure_future(load(1))
        await asyncio.sleep(0)
        calls[0].set()
        first = await early
        assert load.cache_info().currsize == 0
        calls[1].set()
        assert await load(1) is await late is not first
        assert len(calls) == 2

    in_a_loop(main())


def test_every_loop_has_a_flight_of_its_own(twin):
    calls = []

    @twin.memoize.cached
    async def load(x):
        calls.append(threading.get_ident())
        await asyncio.sleep(0.05)
        return [x]

    async def main():
        return await asyncio.gather(*(load(1) for _ in range(20)))

    outcomes = in_threads(lambda: asyncio.run(main()), 5)
    assert all(outcome == [[1]] * 20 for outcome in outcomes)
    assert len(calls) == len(set(calls)) <= 5


def test_a_loop_that_is_closed_in_the_middle(twin):
    """What its tasks leave behind blocks no other caller."""
    seconds = [60]

    @twin.memoize.cached
    async def load(x):
        await asyncio.sleep(seconds[-1])
        return [x]

    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(load(1)) for _ in range(3)]
    loop.run_until_complete(asyncio.sleep(0))
    for task in tasks:
        task._log_destroy_pending = False
    del task, tasks
    loop.close()
    del loop
    seconds.append(0)
    assert in_a_loop(load(1)) == [1]
