"""The queues of waiters for buckets and keys: cancelled at any moment, in numbers, on loops that end."""

import asyncio
import gc
import math
import signal
import threading
import time
from functools import partial

import pytest
from finalizers import struck_at
from interrupts import interruptions
from virtual_time import SECOND, started
from watchdog import PATIENCE, in_a_loop, in_a_thread, until

from headgate import AddressLimiter, RateLimits
from headgate.limit import _waiting


class OneKey:
    """One key of a limiter, with what a bucket has to offer."""

    def __init__(self, limiter):
        self.limiter = limiter
        self.consume = partial(limiter.allow, "ann")
        self.acquire = partial(limiter.acquire, "ann")
        self.acquire_async = partial(limiter.acquire_async, "ann")


@pytest.fixture(params=["bucket", "key"])
def make(request, twin):
    """Makes something of which `rate` tokens come in a second, and `burst` are there."""

    def make(burst, rate, **options):
        if request.param == "bucket":
            return twin.bucket.TokenBucket(burst, rate, **options)
        limiter = twin.keyed.RateLimiter(f"{rate}/s, burst {burst}", max_keys=100, **options)
        return OneKey(limiter)

    return make


@pytest.fixture
def joined(monkeypatch):
    """The places of those that have gone to the end of a line."""
    wakes, join = [], _waiting.Queue.join

    def joining(line, waiter):
        if waiter.ref not in line._waiters:
            wakes.append(waiter.ref)
        join(line, waiter)

    monkeypatch.setattr(_waiting.Queue, "join", joining)
    return wakes


async def leaving(bucket, clock, left, number, tokens=1, timeout=None):
    assert await bucket.acquire_async(tokens, timeout=timeout)
    left.append((number, clock.now))


def test_one_timer_for_all_waiters(make, clock, run):
    bucket = make(1, 1, clock=clock)

    async def main():
        bucket.consume()
        timers = len(asyncio.get_running_loop()._scheduled)
        tasks = await started(*[bucket.acquire_async() for _ in range(1000)])
        assert len(asyncio.get_running_loop()._scheduled) == timers + 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(main())


@pytest.mark.parametrize("after", [0, 1, 500, 999, 1000, 1001], ids="{} ms later".format)
def test_a_cancelled_head_of_the_queue_takes_no_token(make, clock, run, after):
    """Before, when and after its token comes, at which time it may have left with it."""
    bucket = make(1, 1, clock=clock)
    left = []

    async def main():
        bucket.consume()
        start = clock.now
        tasks = await started(*[leaving(bucket, clock, left, number) for number in range(3)])
        if after:
            await asyncio.sleep(after / 1000)
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [number for number, _ in left[-2:]] == [1, 2]
        for place, (_, when) in enumerate(left, 1):
            assert abs(when - start - place * SECOND) < 1_000_000

    run(main())


def test_tasks_that_are_all_cancelled_as_first_in_line_do_not_stop_the_tokens(make, clock, run):
    bucket = make(1, 1, clock=clock)
    left = []

    async def main():
        bucket.consume()
        start = clock.now
        *early, _ = tasks = await started(*[leaving(bucket, clock, left, number) for number in range(5)])
        for task in early:
            await asyncio.sleep(0.24)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [number for number, _ in left] == [4]
        assert abs(left[0][1] - start - SECOND) < 1_000_000

    run(main())


@pytest.mark.parametrize("timeout", [None, 60])
@pytest.mark.parametrize("turns", range(5))
def test_a_waiter_cancelled_as_its_turn_comes_is_cancelled(make, clock, run, timeout, turns):
    bucket = make(1, 1, clock=clock)
    left = []

    async def main():
        bucket.consume()
        first, second, third = tasks = await started(
            *[leaving(bucket, clock, left, number, timeout=timeout) for number in range(3)]
        )
        await first
        for _ in range(turns):
            await asyncio.sleep(0)
        assert second.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert second.cancelled()
        assert third.result() is None
        assert [number for number, _ in left] == [0, 2]

    run(main())


def test_every_third_is_cancelled_at_any_time(make, clock, run):
    bucket = make(5, 10, clock=clock)
    left = []

    async def main():
        bucket.consume(5)
        start = clock.now
        costs = [1 + number % 5 for number in range(300)]
        tasks = await started(
            *[leaving(bucket, clock, left, number, cost) for number, cost in enumerate(costs)]
        )
        for number in range(2, 300, 3):
            await asyncio.sleep(0.37)
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert {number for number, _ in left} >= {number for number in range(300) if number % 3 != 2}
        assert [number for number, _ in left] == sorted(number for number, _ in left)
        taken = 0
        for number, when in left:
            taken += costs[number]
            assert abs(when - start - taken * SECOND // 10) < 1_000_000

    run(main())


def test_threads_leave_in_order(make, clock, joined):
    bucket = make(1, 100, clock=clock)
    bucket.consume()
    left = []

    def work(number):
        assert bucket.acquire()
        left.append(number)

    for number in range(8):
        threading.Thread(target=work, args=(number,), daemon=True).start()
        until(lambda number=number: len(joined) > number)
    for number in range(8):
        clock.advance(0.01)
        until(lambda number=number: len(left) > number)
    assert left == list(range(8))


@pytest.fixture
def slept(clock, monkeypatch):
    """The pauses of threads, which the clock makes in their place."""
    slept = []

    def pause(waiter, seconds):
        slept.append(seconds)
        clock.advance(seconds)

    monkeypatch.setattr(_waiting.ThreadWaiter, "pause", pause)
    return slept


def test_a_thread_that_times_out(make, clock, slept):
    bucket = make(1, 20, clock=clock)
    assert bucket.acquire(timeout=0)
    assert not bucket.acquire(timeout=0)
    assert slept == []
    assert bucket.acquire(timeout=5)
    assert slept == [pytest.approx(0.05)]


def test_a_loop_that_is_blocked_is_passed_over_and_served_when_it_goes_on(make, clock, joined):
    bucket = make(1, 100, clock=clock)
    bucket.consume()
    loop, outcomes = asyncio.new_event_loop(), []
    first, second = loop.run_until_complete(started(bucket.acquire_async(), bucket.acquire_async()))
    thread = threading.Thread(target=lambda: outcomes.append(bucket.acquire()), daemon=True)
    thread.start()
    until(lambda: len(joined) == 3)
    clock.advance(0.01)
    thread.join(PATIENCE)
    assert outcomes == [True]
    second.cancel()
    clock.advance(0.01)
    assert loop.run_until_complete(asyncio.wait_for(first, PATIENCE))
    loop.run_until_complete(asyncio.gather(second, return_exceptions=True))
    loop.close()
    clock.advance(0.01)
    assert bucket.acquire(timeout=0)


@pytest.mark.parametrize("end", ["stop", "close"])
def test_a_waiter_behind_a_loop_that_ends_meanwhile(make, clock, joined, monkeypatch, end):
    """The loop stops when the thread has joined the line, so that only the thread can see it."""
    monkeypatch.setattr(_waiting, "_POLL", 0.01)
    bucket = make(1, 100, clock=clock)
    bucket.consume()
    loop, outcomes = asyncio.new_event_loop(), []

    async def main():
        tasks = await started(*[bucket.acquire_async() for _ in range(3)])
        threading.Thread(target=lambda: outcomes.append(bucket.acquire()), daemon=True).start()
        while len(joined) < 4:
            await asyncio.sleep(0.001)
        return tasks

    tasks = loop.run_until_complete(main())
    if end == "close":
        loop.close()
    until(lambda: clock.advance(0.01) or outcomes)
    assert outcomes == [True]
    for task in tasks:
        task._log_destroy_pending = False
        task.get_coro().close()
    loop.close()


@pytest.fixture
def held_up(monkeypatch):
    """Pauses of threads end only when they are woken; counts those that have begun."""
    begun, pause = [], _waiting.ThreadWaiter.pause

    def paused(waiter, seconds):
        begun.append(seconds)
        pause(waiter, None)

    monkeypatch.setattr(_waiting.ThreadWaiter, "pause", paused)
    return begun


def waiting(acquire, held_up):
    """The outcomes of a thread that has begun to wait."""
    outcomes = []
    threading.Thread(target=lambda: outcomes.append(acquire()), daemon=True).start()
    until(lambda: held_up)
    return outcomes


@pytest.mark.parametrize("bring", [
    lambda limiter: limiter.refund("ann"),
    lambda limiter: limiter.reset("ann"),
    lambda limiter: (limiter.reconfigure("1000000/s"), limiter.refund("ann")),
], ids=["refund", "reset", "reconfigure"])
def test_what_brings_a_keys_tokens_sooner_wakes_the_head(twin, clock, held_up, bring):
    limiter = twin.keyed.RateLimiter("1/h", max_keys=100, clock=clock)
    limiter.allow("ann")
    outcomes = waiting(lambda: limiter.acquire("ann", timeout=60), held_up)
    bring(limiter)
    until(lambda: outcomes)
    assert outcomes == [True]


def test_a_rate_that_is_raised_wakes_the_heads(twin, clock, held_up):
    limiter = twin.keyed.RateLimiter("1/h", strict=True, max_keys=100, clock=clock)
    limiter.allow("ann")
    outcomes = waiting(lambda: limiter.acquire("ann", timeout=60), held_up)
    limiter.reconfigure("2/h")
    until(lambda: outcomes)
    bucket = twin.bucket.TokenBucket(1, 1 / 3600, clock=clock)
    bucket.consume()
    held_up.clear()
    outcomes = waiting(partial(bucket.acquire, timeout=60), held_up)
    bucket.reconfigure(capacity=3, refill_rate=1)
    clock.advance(1)
    bucket.reconfigure(refill_rate=2)
    until(lambda: outcomes)
    assert outcomes == [True]


def test_a_reservation_that_is_cancelled_wakes_the_head(twin, clock, held_up):
    bucket = twin.bucket.TokenBucket(1, 1 / 3600, clock=clock)
    reservation = bucket.reserve()
    outcomes = waiting(partial(bucket.acquire, timeout=60), held_up)
    reservation.cancel()
    until(lambda: outcomes)
    assert outcomes == [True]


@pytest.mark.parametrize("bring", [
    lambda limits: limits.refund(user="ann"),
    lambda limits: limits.reset(user="ann"),
    lambda limits: limits.exempt("user", "ann"),
    lambda limits: limits.override("user", "ann", "9/h"),
    lambda limits: (limits.override("user", "bob", "9/h"), limits.reset(user="ann")),
], ids=["refund", "reset", "exempt", "override", "several"])
def test_what_brings_tokens_of_a_level_sooner_wakes_the_head(clock, held_up, bring):
    limits = RateLimits(ip="10/h", user="1/h", max_keys=100, clock=clock)
    limits.allow(user="ann")
    outcomes = waiting(lambda: limits.acquire(ip="::1", user="ann", timeout=60), held_up)
    bring(limits)
    until(lambda: outcomes)
    assert outcomes == [True]


def slow(twin, clock):
    """A bucket, a key, a level and addresses that have no tokens for an hour, and what brings one."""
    limiter = twin.keyed.RateLimiter("1/h", max_keys=100, clock=clock)
    bucket = twin.bucket.TokenBucket(1, 1 / 3600, clock=clock)
    limits = RateLimits(user="1/h", ip=AddressLimiter("1/h", max_keys=100, clock=clock), clock=clock)
    reservation = bucket.reserve()
    assert limiter.allow("ann") and limits.allow(user="ann") and limits.allow(ip="::1")
    yield partial(limiter.acquire_async, "ann"), partial(limiter.reset, "ann")
    yield bucket.acquire_async, reservation.cancel
    yield partial(limits.acquire_async, user="ann"), partial(limits.reset, user="ann")
    yield partial(limits.acquire_async, ip="::1"), partial(limits.reset, ip="::1")


def test_a_timeout_is_waited_to_its_end_and_may_be_worth_it(twin, clock, run):
    async def main():
        for acquire_async, bring in slow(twin, clock):
            start = clock.now
            assert not await acquire_async(timeout=0)
            assert clock.now == start
            assert not await acquire_async(timeout=5)
            assert abs(clock.now - start - 5 * SECOND) < 1000
            task, *_ = await started(acquire_async(timeout=5))
            await asyncio.sleep(2)
            bring()
            assert await task
            assert clock.now - start < 8 * SECOND

    run(main())


def test_what_can_never_come_is_waited_for(twin, clock, run):
    """A rate of nothing may be changed; a cost above the burst is an error, whatever the timeout."""
    limiter = twin.keyed.RateLimiter("0/s", max_keys=100, clock=clock)
    limits = RateLimits(user="2/s", clock=clock)
    limits.deny("user", "ann")

    async def main():
        start = clock.now
        assert not await limiter.acquire_async("ann", timeout=3)
        assert not await limits.acquire_async(user="ann", timeout=4)
        assert abs(clock.now - start - 7 * SECOND) < 1000
        task, *_ = await started(limiter.acquire_async("ann", timeout=3))
        limiter.reconfigure("1/s")
        assert await task
        with pytest.raises(ValueError, match=r"^cost must be at most the burst 1, got 2$"):
            await limiter.acquire_async("ann", 2, timeout=3)

    run(main())


def test_tokens_that_come_by_another_way_are_seen(twin, clock, monkeypatch):
    """As by another process, or another RateLimits over the same limiter: the head looks once a second."""
    limiter = twin.keyed.RateLimiter("1/h", max_keys=100, clock=clock)
    limiter.allow("ann")
    limits, start = RateLimits(user=limiter), clock.now

    def pause(waiter, seconds):
        clock.advance(seconds)
        if clock.now - start > 5e9:
            limiter.reset("ann")

    monkeypatch.setattr(_waiting.ThreadWaiter, "pause", pause)
    assert limits.acquire(user="ann")
    assert 5 <= (clock.now - start) / 1e9 <= 7


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals are POSIX's")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_wait_that_is_interrupted_leaves_the_line(make, clock, slept):
    """What comes out amid a weak reference's callback, as of the line itself, goes to the unraisable hook."""
    bucket = make(1, 10, clock=clock)
    every = 11 if isinstance(bucket, OneKey) else 3
    bucket.consume()

    def call():
        bucket.consume()
        bucket.acquire()

    for _ in interruptions(call, every):
        assert bucket.acquire(timeout=PATIENCE), "it is not behind one that is gone"


def test_timeouts_of_any_length(make):
    for timeout in (10**10, 1e300, math.inf, 10**400):
        bucket = make(1, 100)
        bucket.consume()
        assert [bucket.acquire(timeout=timeout) for _ in range(2)] == [True, True]

        async def both(bucket=bucket, timeout=timeout):
            return await asyncio.gather(*[bucket.acquire_async(timeout=timeout) for _ in range(2)])

        assert in_a_loop(both()) == [True, True]


def test_no_sleep_is_longer_than_the_system_counts(make, clock, monkeypatch):
    bucket = make(1, 5e-10, clock=clock)
    bucket.consume()
    slept = []

    def pause(waiter, seconds):
        slept.append(seconds)
        clock.advance(1.1e9)

    monkeypatch.setattr(_waiting.ThreadWaiter, "pause", pause)
    assert bucket.acquire()
    assert slept == [1.0, 1.0]


def test_a_loop_closed_with_thousands_of_waiters_blocks_no_other(make, clock, monkeypatch):
    bucket = make(1, 100, clock=clock)
    bucket.consume()
    results, asleep = [], threading.Event()

    def pausing(waiter, seconds, pause=_waiting.ThreadWaiter.pause):
        asleep.set()
        pause(waiter, seconds)

    def acquire():
        results.append(bucket.acquire())

    async def thousands():
        tasks = [asyncio.ensure_future(bucket.acquire_async()) for _ in range(3000)]
        await asyncio.sleep(0)
        return tasks

    monkeypatch.setattr(_waiting.ThreadWaiter, "pause", pausing)
    threads = [threading.Thread(target=acquire, daemon=True) for _ in range(2)]
    threads[0].start()
    assert asleep.wait(PATIENCE)
    loop = asyncio.new_event_loop()
    tasks = loop.run_until_complete(thousands())
    loop.close()
    threads[1].start()
    until(lambda: clock.advance(0.01) or len(results) == 2)
    assert results == [True, True]
    for task in tasks:
        task._log_destroy_pending = False
        task.get_coro().close()
    clock.advance(1)
    assert bucket.acquire(timeout=0)


def cost_of_a_waiter(count):
    """The thread's time for each of `count` waiters that join and leave a line."""
    line = _waiting.Queue()
    start = time.thread_time()
    waiters = []
    for number in range(count):
        assert len(line) == number
        waiters.append(_waiting.ThreadWaiter(line))
        line.join(waiters[-1])
    for waiter in reversed(waiters):
        line.leave(waiter)
    assert len(line) == 0
    return (time.thread_time() - start) / count


def test_a_long_line_costs_no_more_a_waiter_than_a_short_one():
    short = min(cost_of_a_waiter(500) for _ in range(5))
    assert cost_of_a_waiter(50_000) < 10 * short, "a quadratic one costs 100 times as much"


def test_a_finalizer_may_leave_the_line_amid_a_step_of_another():
    """As when the garbage collector ends a coroutine that waits."""
    for number in range(60):
        line = _waiting.Queue()
        first, second, last, new = [_waiting.ThreadWaiter(line) for _ in range(4)]
        for waiter in (first, second, last):
            line.join(waiter)

        def steps(line=line, first=first, second=second, new=new, number=number):
            with struck_at(number, lambda: line.leave(first)):
                line.leave(second)
                line.join(new)

        assert in_a_thread(steps) is None
        if hasattr(first, "ref"):  # the number was beyond the last step
            line.leave(first)
        assert line.head() is last
        assert len(line) == 2


def test_coroutines_that_are_dropped_leave_no_line_behind(twin, clock):
    limiter = twin.keyed.RateLimiter("1/s", max_keys=100, clock=clock)
    lines = _waiting.Queues()

    async def main():
        tasks = await started(
            *[_waiting.acquire_key_async(limiter, lines, number % 10, 1, None) for number in range(30)]
        )
        assert len(lines) == 10
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    limiter.allow("ann")
    in_a_loop(main())
    gc.collect()
    until(lambda: len(lines) == 0)
