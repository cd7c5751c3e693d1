"""acquire and acquire_async by key: in order, on time, and safe to cancel or to time out."""

import asyncio
import time
from itertools import count

import pytest
from finalizers import struck_at
from threads import run_threads
from virtual_time import SECOND, started

from headgate import RateLimits

pytestmark = pytest.mark.usefixtures("one_secret")


def test_a_thousand_tasks_of_which_every_third_is_cancelled(make, clock, run):
    limiter = make("1000/s", burst=1)
    left, cancelled = [], []

    async def task(number):
        try:
            assert await limiter.acquire_async("ann")
        except asyncio.CancelledError:
            cancelled.append(number)
            raise
        left.append((number, clock.now))

    async def main():
        start = clock.now
        tasks = await started(*[task(number) for number in range(1000)])
        for number in range(2, 1000, 3):
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert cancelled == list(range(2, 1000, 3))
        assert [number for number, _ in left] == [n for n in range(1000) if n % 3 != 2]
        for place, (_, when) in enumerate(left):
            assert abs(when - start - place * SECOND // 1000) < 100_000

    run(main())
    limiter._check()


def test_a_large_cost_at_the_head_is_not_starved(make, run):
    limiter = make("5/5s; 100/h")
    left = []

    async def task(cost):
        await limiter.acquire_async("ann", cost)
        left.append(cost)

    async def main():
        limiter.allow("ann", 5)
        await asyncio.gather(*await started(task(5), *[task(1) for _ in range(20)]))
        assert left == [5] + [1] * 20

    run(main())


def test_keys_wait_apart(make, clock, run):
    limiter = make("1/10s")

    async def main():
        start = clock.now
        limiter.allow("slow")
        slow, *_ = await started(limiter.acquire_async("slow"))
        assert await limiter.acquire_async("quick")
        assert clock.now == start
        assert await slow
        assert clock.now >= start + 10 * SECOND

    run(main())


def test_the_slowest_tier_sets_the_time(make, clock, run):
    limiter = make("10/s; 2/min")

    async def main():
        start = clock.now
        for _ in range(3):
            assert await limiter.acquire_async("ann")
        assert 0 <= clock.now - start - 30 * SECOND < SECOND // 1000

    run(main())


def test_timeouts(make, clock, run):
    limiter = make("1/s")

    async def main():
        assert await limiter.acquire_async("ann", timeout=0)
        start = clock.now
        assert not await limiter.acquire_async("ann", timeout=0)
        assert clock.now == start
        assert not await limiter.acquire_async("ann", timeout=0.25)
        assert clock.now == start + SECOND // 4, "the time is waited to its end"
        assert await limiter.acquire_async("ann", timeout=0.76)
        tasks = await started(*[limiter.acquire_async("ann", timeout=1.5) for _ in range(2)])
        assert await asyncio.gather(*tasks) == [True, False]

    run(main())


def test_a_waiter_overtaken_by_allow_still_ends_in_time(make, clock, run):
    limiter = make("2/2s")

    async def overtake():
        for _ in range(5):
            await asyncio.sleep(1.1)
            assert limiter.allow("ann")

    async def main():
        limiter.allow("ann", 2)
        start = clock.now
        waiter, _ = await started(limiter.acquire_async("ann", 2, timeout=4.5), overtake())
        assert not await waiter
        assert clock.now - start <= 4.5 * SECOND

    run(main())


def test_a_full_table_is_waited_for(make, clock, run):
    limiter = make("10/min", on_full="deny", max_keys=1)

    async def main():
        for number in range(8):
            limiter.allow(number, number + 1)
        start = clock.now
        assert await limiter.acquire_async("new")
        assert 0 <= clock.now - start - 6 * SECOND < SECOND // 1000

    run(main())


def test_bad_arguments(make, run):
    limiter = make("1/s")
    with pytest.raises(ValueError, match=r"^timeout must be a non-negative number or None, got -1$"):
        run(limiter.acquire_async("ann", timeout=-1))
    with pytest.raises(ValueError, match=r"^cost must be at most the burst 1, got 2$"):
        run(limiter.acquire_async("ann", 2))
    with pytest.raises(TypeError, match=r"^key must be str, bytes or int, got None$"):
        run(limiter.acquire_async(None))
    assert limiter.allow("ann")


def test_threads_and_two_loops_share_the_line_of_a_key(twin):
    limiter = twin.keyed.RateLimiter("2000/s", burst=1, max_keys=100)
    done = [0] * 8
    start = time.monotonic()

    def work(number):
        if number < 4:
            for _ in range(25):
                done[number] += limiter.acquire("ann")
        else:

            async def main():
                results = await asyncio.gather(*[limiter.acquire_async("ann") for _ in range(25)])
                done[number] = sum(results)

            asyncio.run(main())

    run_threads(work)
    assert done == [25] * 8
    assert time.monotonic() - start >= 198 / 2000
    limiter._check()


def test_a_finalizer_amid_a_call_may_wait_too(make):
    for step in count():
        limiter, results = make("9/s"), []

        def strike(limiter=limiter, results=results):
            results.append(limiter.acquire("ann", timeout=0))

        with struck_at(step, strike):
            assert limiter.acquire("ann")
        assert limiter.peek("ann").remaining == 8 - sum(results)
        if not results:
            break


def test_a_loop_that_is_not_of_asyncio_is_refused_at_once(twin):
    for waiting in (
        twin.keyed.RateLimiter("1/s").acquire_async("ann"),
        twin.bucket.TokenBucket(1, 1).acquire_async(),
        RateLimits(user="1/s").acquire_async(user="ann"),
    ):
        with pytest.raises(RuntimeError, match=r"^acquire_async needs a running event loop of asyncio"):
            waiting.send(None)
