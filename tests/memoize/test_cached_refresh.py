"""Refreshes of stale results: whatever becomes of one, no caller waits for it in vain."""

import asyncio
import os
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from watchdog import PATIENCE, in_a_loop, in_a_thread, until


class Counting:
    """A function that counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, *args):
        self.calls += 1
        return [args]


class Queue:
    """An executor that keeps its jobs and never runs them."""

    def __init__(self):
        self.jobs = []

    def submit(self, job):
        self.jobs.append(job)


class Failing(Executor):
    """An executor that fails each call before it runs, as one does that cannot pickle it."""

    def submit(self, job, /, *args, **kwargs):
        future = Future()
        future.set_exception(ZeroDivisionError("cannot pickle"))
        return future


class Full(Executor):
    """An executor that refuses every job."""

    def submit(self, job, /, *args, **kwargs):
        raise ZeroDivisionError("full")


class Elsewhere(Executor):
    """An executor that has run the call in another thread before ``submit`` returns."""

    def submit(self, job, /, *args, **kwargs):
        in_a_thread(job)
        return Future()


def stale_call(twin, clock, executor, function=None):
    """A cached function whose result has become stale, its loader, and that result."""
    function = function or Counting()
    load = twin.memoize.cached(ttl=10, stale=5, clock=clock, executor=executor)(function)
    first = load(1)
    clock.advance(11)
    return load, function, first


@pytest.mark.parametrize("later", [0, 10], ids=["stale", "ended"])
def test_a_refresh_that_is_cancelled(twin, clock, later):
    executor, gate = ThreadPoolExecutor(1), threading.Event()
    load, function, first = stale_call(twin, clock, executor)
    executor.submit(gate.wait, PATIENCE)
    assert load(1) is first
    executor.shutdown(wait=False, cancel_futures=True)
    gate.set()
    clock.advance(later)
    results = [in_a_thread(load, 1) for _ in range(2)]
    assert results[1] == [(1,)] and results[1] is not first
    assert function.calls == 2


def test_a_refresh_that_never_runs(twin, clock):
    queue = Queue()
    load, function, first = stale_call(twin, clock, queue)
    assert load(1) is load(1) is first
    assert len(queue.jobs) == 1
    clock.advance(5)
    second = in_a_thread(load, 1)
    assert second == [(1,)] and second is not first
    queue.jobs.pop()()
    assert load(1) is second
    assert function.calls == 2


@pytest.mark.parametrize("executor", [Failing(), Full()], ids=["failing", "full"])
def test_an_executor_that_cannot_run_it_is_reported(twin, clock, unraisable, executor):
    load, function, first = stale_call(twin, clock, executor)
    assert load(1) is load(1) is first
    assert [type(error) for error in unraisable] == [ZeroDivisionError] * 2
    clock.advance(5)
    assert in_a_thread(load, 1) is not first
    assert function.calls == 2


def test_who_leads_keeps_the_lead_while_a_refresh_runs(twin, clock):
    """The executor's thread leads a flight too, which is not the caller's."""
    load, function, first = stale_call(twin, clock, Elsewhere())
    calls = []

    @twin.memoize.cached
    def outer():
        calls.append(None)
        if len(calls) == 1:
            assert load(1) is first
            return outer()
        return 7

    assert in_a_thread(outer) == 7
    assert load(1) is not first
    assert function.calls == len(calls) == 2


def test_executors_that_run_nothing_here_are_refused(twin):
    with ProcessPoolExecutor(1) as processes, pytest.raises(
        TypeError, match=r"^executor must run calls in this process, in threads, got <.*ProcessPoolExecutor"
    ):
        twin.memoize.cached(ttl=1, stale=1, executor=processes)
    with pytest.raises(TypeError, match=r"^executor must have submit, got <class .*ThreadPoolExecutor"):
        twin.memoize.cached(ttl=1, stale=1, executor=ThreadPoolExecutor)


def test_an_executor_of_other_interpreters_is_refused(twin):
    interpreter = pytest.importorskip("concurrent.futures.interpreter", reason="before CPython 3.14")
    with interpreter.InterpreterPoolExecutor(1) as executor, pytest.raises(
        TypeError, match=r"^executor must run calls in this process"
    ):
        twin.memoize.cached(ttl=1, stale=1, executor=executor)


@pytest.mark.parametrize("later", [0, 10], ids=["stale", "ended"])
def test_a_refresh_in_a_loop_that_is_cancelled_before_it_begins(twin, clock, later):
    calls = []

    @twin.memoize.cached(ttl=10, stale=5, clock=clock)
    async def load(x):
        calls.append(x)
        return [x]

    async def main():
        first = await load(1)
        clock.advance(11)
        assert await load(1) is first
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        clock.advance(later)
        await load(1)
        for _ in range(3):
            await asyncio.sleep(0)
        assert await load(1) is not first
        assert calls == [1, 1]

    in_a_loop(main())


def in_a_child(works):
    """Whether ``works()`` is true in a fork."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(not works())
        finally:
            os._exit(2)
    ended = []
    until(lambda: ended.append(os.waitpid(child, os.WNOHANG)) or ended[-1][0])
    return ended[-1] == (child, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are POSIX's")
@pytest.mark.parametrize("own", [True, False], ids=["own", "given"])
def test_a_fork_during_a_refresh(twin, clock, own):
    """The child refreshes itself, and not in an executor whose threads it does not have."""
    inside, gate, parent = threading.Event(), threading.Event(), os.getpid()
    calls = []

    def function(x):
        calls.append(x)
        if len(calls) == 2 and os.getpid() == parent:
            inside.set()
            assert gate.wait(PATIENCE)
        return [x]

    executor = None if own else ThreadPoolExecutor(1)
    load, _, first = stale_call(twin, clock, executor, function)
    assert load(1) is first
    assert inside.wait(PATIENCE)

    def refreshed():
        until(lambda: load(1) is not first)
        second = load(1)
        clock.advance(11)
        until(lambda: load(1) is not second)
        clock.advance(16)
        return load(1) == [1]

    assert in_a_child(refreshed)
    gate.set()
    until(lambda: load(1) is not first)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are POSIX's")
def test_a_fork_before_a_refresh_has_begun(twin, clock):
    load, function, first = stale_call(twin, clock, Queue())
    assert load(1) is first

    def loads():
        clock.advance(5)
        return load(1) is not first and function.calls == 2

    assert in_a_child(loads)
    clock.advance(5)
    assert load(1) is not first
