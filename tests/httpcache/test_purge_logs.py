"""Logs of purges in memory, and tasks that keep caches purged as a log says."""

import asyncio
import os
import sys
from functools import partial

import pytest
from clocks import FakeClock
from http_exchange import Exchange
from hypothesis import given
from hypothesis import strategies as st
from virtual_time import run_on, started
from watchdog import in_threads

from headgate.httpcache import AsyncPurges, HTTPCache, PurgeFollower, PurgeLog

SECOND = 10**9
START = 1_796_000_000.0


def seconds_of(clock):
    return lambda: clock() / SECOND


class Log:
    """A log that does what a test wants: each reading takes the next of `steps`, an exception or a batch."""

    def __init__(self, *steps):
        self.steps, self.readings = list(steps), []

    def append(self, url=None, **purge):
        raise OSError("full")

    def read(self, position, wait=0.0):
        self.readings.append((position, wait))
        step = self.steps.pop(0) if self.steps else ("a", position[1] if position else 0, [])
        if isinstance(step, BaseException):
            raise step
        return step


def following(log, **options):
    clock = FakeClock(0)
    return clock, AsyncPurges(log, HTTPCache(), clock=seconds_of(clock), **options)


async def during(purges, seconds):
    """Run for so many seconds."""
    (task,) = await started(purges.run())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


# ---- the log --------------------------------------------------------------------------------


def test_records_have_numbers_and_times():
    clock = FakeClock(0)
    log = PurgeLog(3, clock=seconds_of(clock))
    assert log.read(None)[1:] == (0, [])
    for number in range(1, 6):
        clock.now = number * SECOND
        assert log.append(tag=f"t{number}", stale=number == 2) == (
            number, {"tag": f"t{number}", "at": float(number), **({"stale": True} if number == 2 else {})})
    epoch, last, records = log.read(None)
    assert last == 5 and [number for number, _ in records] == [3, 4, 5]
    for position, expected in (((epoch, 4), [5]), ((epoch, 5), []), ((epoch, 9), []), (("x", 5), [3, 4, 5])):
        assert [number for number, _ in log.read(position)[2]] == expected
    assert repr(log) == "<PurgeLog of 5 purges>"
    assert PurgeLog().read(None)[0] != epoch


@pytest.mark.parametrize(("purge", "error"), [
    ({}, TypeError), ({"tag": "a", "url": "/"}, TypeError), ({"url": "a"}, ValueError),
    ({"tag": 5}, TypeError), ({"prefix": 5}, TypeError), ({"tag": "a", "stale": 1}, TypeError),
    ({"tag": "a", "at": 1}, TypeError),
])
def test_what_is_no_purge_is_not_added(purge, error):
    log = PurgeLog()
    with pytest.raises(error):
        log.append(**purge)
    assert log.read(None)[1] == 0


@pytest.mark.parametrize(("maxlen", "error"), [(0, ValueError), (10**6 + 1, ValueError), ("5", TypeError)])
def test_lengths_are_checked(maxlen, error):
    with pytest.raises(error, match="maxlen must be"):
        PurgeLog(maxlen)
    with pytest.raises(TypeError, match="clock must be"):
        PurgeLog(clock=5)


def test_threads_that_append():
    log = PurgeLog()
    in_threads(lambda: [log.append(tag="a") for _ in range(500)], 4)
    _, last, records = log.read(None)
    assert last == 2000 and [number for number, _ in records] == list(range(1, 2001))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_the_log_of_a_child_is_another_one():
    log = PurgeLog()
    log.append(tag="a")
    epoch = log.read(None)[0]
    child = os.fork()
    if not child:
        found, last, records = log.read((epoch, 1))
        os._exit(found == epoch or last > 0 or bool(records))
    assert os.waitpid(child, 0)[1] == 0 and log.read((epoch, 0))[1] == 1


@given(st.lists(st.one_of(st.just("append"), st.integers(0, 3))), st.integers(1, 5))
def test_followers_that_read_now_and_then(steps, maxlen):
    """A follower has a gap exactly if more records came than the log keeps."""
    log, at = PurgeLog(maxlen, clock=lambda: START), [0] * 4
    followers, gaps, count = [PurgeFollower(HTTPCache()) for _ in at], [0] * 4, 0
    for follower in followers:
        follower.receive(*log.read(follower.position))
    for step in steps:
        if step == "append":
            log.append(tag="a")
            count += 1
            continue
        gaps[step] += count - at[step] > maxlen
        applied = followers[step].receive(*log.read(followers[step].position))
        assert applied == min(count - at[step], maxlen) and followers[step].gaps == gaps[step]
        at[step] = count


# ---- tasks ----------------------------------------------------------------------------------


def test_a_purge_holds_here_at_once_and_elsewhere_after_the_next_reading():
    clock = FakeClock(0)
    log = PurgeLog()
    points = [AsyncPurges(log, HTTPCache(), every=5, clock=seconds_of(clock)) for _ in range(2)]
    caches = [point.follower.cache for point in points]
    purged = [[], []]

    def noting(cache, found, **purge):
        found.append(purge)
        return HTTPCache.purge(cache, **purge)

    for point, cache, found in zip(points, caches, purged, strict=True):
        point.follower.cache = type("Noting", (), {"purge": staticmethod(partial(noting, cache, found))})

    async def main():
        tasks = await started(*[point.run() for point in points])
        assert await points[0].purge(tag="a", stale=True) == log.read(None)[2][0]
        assert [len(found) for found in purged] == [1, 0] and purged[0][0]["stale"] is True
        await asyncio.sleep(5.001)
        assert [found[-1]["tag"] for found in purged] == ["a", "a"]
        assert [point.follower.position[1] for point in points] == [1, 1]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    run_on(clock, main())


def test_a_log_that_returns_at_once_is_read_at_intervals():
    log = Log()
    clock, purges = following(log, every=5)
    run_on(clock, during(purges, 21))
    assert log.readings == [(None, 0.0), *[(("a", 0), 5.0)] * 5]


def test_a_log_that_waits_is_read_again_when_it_has_waited():
    class Waiting(Log):
        async def read(self, position, wait=0.0):
            await asyncio.sleep(wait and 2)
            return super().read(position, wait)

    log = Waiting(("a", 0, []), ("a", 1, [(1, {"tag": "a", "at": START})]))
    clock, purges = following(log, every=2)
    run_on(clock, during(purges, 6.5))
    assert [position and position[1] for position, _ in log.readings] == [None, 0, 1, 1]  # at 0, 2, 4 and 6
    assert purges.follower.position == ("a", 1) and purges.behind == 0.5


def test_there_is_no_pause_while_records_come():
    batches = [("a", number, [(number, {"tag": "a", "at": START})]) for number in range(1, 6)]
    log = Log(*batches)
    clock, purges = following(log, every=3600)
    run_on(clock, during(purges, 1))
    assert purges.follower.position == ("a", 5) and len(log.readings) == 6


def test_there_is_no_pause_behind_records_that_are_no_purges():
    batches = [("a", number, [(number, {"tag": "a", "of": "later", "at": START})]) for number in range(1, 6)]
    log = Log(*batches)
    clock, purges = following(log, every=3600)
    run_on(clock, during(purges, 1))
    assert purges.follower.position == ("a", 5) and purges.follower.gaps == 5


def test_a_log_that_is_another_one_each_time_is_read_at_intervals():
    log = Log(*[("ab"[at % 2], 1, [(1, {"tag": "a", "at": START})]) for at in range(100)])
    clock, purges = following(log, every=5)
    run_on(clock, during(purges, 21))
    assert len(log.readings) == 6 and purges.follower.gaps == 5


def test_the_loop_waits_for_one_purge_at_most():
    records = [(number, {"tag": "a", "at": START}) for number in range(1, 101)]
    clock, purges = following(Log(("a", 100, records)))

    async def main():
        seen = set()
        (task,) = await started(purges.run())
        while (position := purges.follower.position) is None or position[1] < 100:
            seen.add(position and position[1])
            await asyncio.sleep(0)
        assert len(seen) > 90
        task.cancel()
        await asyncio.wait([task])

    run_on(clock, main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_the_child_of_one_that_follows_may_follow():
    clock, purges = following(PurgeLog())

    async def is_stopped():
        (task,) = await started(purges.run())
        return task.done()

    async def main():
        (task,) = await started(purges.run())
        child = os.fork()
        if not child:
            try:
                os._exit(asyncio.run(is_stopped()))
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        with pytest.raises(RuntimeError):
            purges.run().send(None)
        task.cancel()
        await asyncio.wait([task])

    run_on(clock, main())


def test_what_append_returns_is_the_callers_own():
    log = PurgeLog(clock=lambda: START)
    log.append(tag="a")[1]["seen"] = True
    assert log.read(None)[2] == [(1, {"tag": "a", "at": START})]


@pytest.mark.parametrize("record", [
    None, [], "at", {}, {"tag": "a"}, {"tag": "a", "at": None}, {"tag": "a", "at": "1"},
    {"tag": "a", "at": float("nan")}, {"tag": "a", "at": float("inf")}, {"tag": "a", "at": -1.0},
    {"tag": "a", "at": 10**400}, {"tag": "a", "at": 2.0**33 - 1}, {"at": START}, {1: 2, "at": START},
    {"tag": "a", "at": START, "of": "later"}, {"url": "x", "at": START},
])
@pytest.mark.parametrize("skew", [0, 0.1, 86400])
def test_what_is_no_purge_counts_as_missing(record, skew):
    follower = PurgeFollower(HTTPCache(), skew=skew)
    assert follower.receive("a", 4, [(1, record), (4, record)]) == 0
    assert follower.position == ("a", 4) and follower.gaps == 3
    with pytest.raises((KeyError, TypeError, ValueError)):
        follower.apply(record)
    assert follower.receive("a", 5, [(5, {"tag": "a", "at": START})]) == 1


def test_a_key_that_raises_does_not_stop_the_follower(monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: reported.append(found.exc_value))

    def key(request):
        raise error

    error = RuntimeError("no key")
    follower = PurgeFollower(HTTPCache(key=key))
    records = [(1, {"url": "http://a/", "at": START}), (2, {"tag": "a", "at": START})]
    assert follower.receive("a", 2, records) == 1
    assert follower.position == ("a", 2) and follower.gaps == 1 and reported == [error]
    with pytest.raises(RuntimeError, match="no key"):
        follower.apply(records[0][1])


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("no JSON"), KeyError(1), RecursionError()])
def test_a_log_that_fails_is_tried_again(error):
    log = Log(("a", 0, []), error, error, error, ("a", 1, [(1, {"tag": "a", "at": START})]))
    clock, purges = following(log, every=1)

    async def main():
        (task,) = await started(purges.run())
        assert purges.error is None and purges.behind == 0.0
        await asyncio.sleep(2.5)
        assert purges.failures == 3 and purges.error is error and purges.behind == 2.5
        await asyncio.sleep(1)
        assert purges.failures == 3 and purges.error is None and purges.behind == 0.5
        assert purges.follower.position == ("a", 1) and purges.follower.gaps == 0
        task.cancel()
        await asyncio.wait([task])

    run_on(clock, main())


@pytest.mark.parametrize("batch", [None, (), ("a", 0), ("a", 0, 5), ("a", 1, [5]), ("a", 1, [(1,)])])
def test_a_log_that_returns_something_else_fails(batch):
    clock, purges = following(Log(batch), every=1)
    run_on(clock, during(purges, 1.5))
    assert purges.failures == 1 and purges.error is None


def test_a_purge_that_cannot_be_written_changes_nothing():
    log = Log()
    clock, purges = following(log)
    with pytest.raises(OSError, match="full"):
        run_on(clock, purges.purge("/"))
    assert purges.follower.cache.stats().purged == 0


def test_methods_may_be_coroutine_functions():
    class Async:
        def __init__(self):
            self.log = PurgeLog()

        async def append(self, *args, **named):
            await asyncio.sleep(0)
            return self.log.append(*args, **named)

        async def read(self, *args):
            await asyncio.sleep(0)
            return self.log.read(*args)

    clock, purges = following(Async())

    async def main():
        await purges.purge(prefix="/a")
        await during(purges, 1.5)

    run_on(clock, main())
    assert purges.follower.position[1] == 1 and purges.failures == 0


def test_one_task_follows():
    clock, purges = following(PurgeLog())

    async def main():
        (task,) = await started(purges.run())
        with pytest.raises(RuntimeError, match="run must not be called while it runs"):
            await purges.run()
        task.cancel()
        await asyncio.wait([task])
        await during(purges, 1)

    run_on(clock, main())


def test_cancellation_within_a_reading():
    class Endless(Log):
        async def read(self, position, wait=0.0):
            await asyncio.sleep(10**9)

    clock, purges = following(Endless())
    run_on(clock, during(purges, 5))
    assert purges.failures == 0 and purges.error is None and purges.behind == 5.0


@pytest.mark.parametrize(("options", "error"), [
    ({"every": 0}, ValueError), ({"every": float("nan")}, ValueError), ({"every": 86401}, ValueError),
    ({"every": "1"}, TypeError), ({"skew": -1}, ValueError),
    ({"skew": 86401}, ValueError), ({"skew": float("nan")}, ValueError), ({"clock": 5}, TypeError),
])
def test_arguments(options, error):
    (name,) = options
    with pytest.raises(error, match=f"{name} must"):
        AsyncPurges(PurgeLog(), HTTPCache(), **options)


def test_what_it_shows():
    _, purges = following(PurgeLog())
    assert repr(purges) == "<AsyncPurges, <PurgeFollower at None, 0 gaps>, behind by 0.0 s>"


def test_a_gap_is_counted_once_whatever_is_missing():
    follower = PurgeFollower(HTTPCache())
    follower.receive("a", 3, [(3, {"tag": "a", "at": START})])
    follower.receive("b", 9, [(5, {"tag": "a", "at": START})])
    assert follower.gaps == 2, "the epoch with what it lacks before 5, and what it lacks after"
    follower.receive("c", 0, [])
    assert follower.gaps == 3


def test_a_purge_reaches_a_cache_with_a_response():
    exchange = Exchange(lambda request: (200, [("cache-control", "max-age=60")], b"x"))
    purges = AsyncPurges(PurgeLog(clock=lambda: exchange.wall_clock() / 1e9 + 1), exchange.cache)
    exchange.get()
    before = len(exchange.forwarded)
    exchange.get()
    assert len(exchange.forwarded) == before
    asyncio.run(purges.purge("/"))
    exchange.get()
    assert len(exchange.forwarded) == before + 1
