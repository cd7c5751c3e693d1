"""acquire and acquire_async: first come first served, on time, and safe to cancel or to time out."""

import asyncio
import random
import time

import pytest
from threads import run_threads
from virtual_time import SECOND, started


def test_tasks_leave_in_order_and_on_time(twin, clock, run):
    bucket = twin.bucket.TokenBucket(1, 10, clock=clock)
    left = []

    async def task(number):
        assert await bucket.acquire_async()
        left.append((number, clock.now))

    async def main():
        start = clock.now
        await asyncio.gather(*await started(*[task(number) for number in range(50)]))
        assert [number for number, _ in left] == list(range(50))
        for number, when in left:
            assert abs(when - start - number * SECOND // 10) < 1000

    run(main())
    bucket._check()


def test_a_thousand_tasks_with_every_third_cancelled(twin, clock, run):
    bucket = twin.bucket.TokenBucket(1, 1000, clock=clock)
    left, cancelled = [], []

    async def task(number):
        try:
            assert await bucket.acquire_async()
            left.append((number, clock.now))
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    async def main():
        start = clock.now
        tasks = await started(*[task(number) for number in range(1000)])
        for number in range(2, 1000, 3):
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert sorted(cancelled) == list(range(2, 1000, 3))
        assert [number for number, _ in left] == [n for n in range(1000) if n % 3 != 2]
        for place, (_, when) in enumerate(left):
            assert abs(when - start - place * SECOND // 1000) < 100_000

    run(main())
    bucket._check()


def test_cancelling_at_random_times_loses_no_token(twin, clock, run):
    bucket = twin.bucket.TokenBucket(5, 100, clock=clock)
    draw = random.Random(1)
    taken = []

    async def task():
        tokens = draw.randrange(1, 6)
        await bucket.acquire_async(tokens)
        taken.append((clock.now, tokens))

    async def main():
        start = clock.now
        tasks = await started(*[task() for _ in range(200)])
        while not all(task.done() for task in tasks):
            await asyncio.sleep(draw.random() / 10)
            draw.choice(tasks).cancel()
        spent = sum(tokens for _, tokens in taken)
        assert spent <= 5 + 100 * (clock.now - start) / SECOND
        await asyncio.sleep(1)
        assert bucket.available == 5.0

    run(main())


def test_a_large_request_at_the_head_is_not_starved(twin, clock, run):
    bucket = twin.bucket.TokenBucket(5, 1, clock=clock)
    left = []

    async def task(tokens):
        await bucket.acquire_async(tokens)
        left.append(tokens)

    async def main():
        bucket.consume(5)
        tasks = await started(task(5), *[task(1) for _ in range(20)])
        await asyncio.gather(*tasks)
        assert left == [5] + [1] * 20

    run(main())


def test_timeouts(twin, clock, run):
    bucket = twin.bucket.TokenBucket(1, 1, clock=clock)

    async def main():
        assert await bucket.acquire_async(timeout=0)
        start = clock.now
        assert not await bucket.acquire_async(timeout=0)
        assert clock.now == start
        assert not await bucket.acquire_async(timeout=0.25)
        assert clock.now == start + SECOND // 4, "the time is waited to its end"
        assert await bucket.acquire_async(timeout=0.75)
        tasks = await started(bucket.acquire_async(), bucket.acquire_async(timeout=1.5))
        assert await asyncio.gather(*tasks) == [True, False]

    run(main())
    bucket._check()


def test_a_timeout_while_in_line(twin, clock, run):
    """A waiter behind a large request that is later cancelled moves up in time."""
    bucket = twin.bucket.TokenBucket(10, 1, clock=clock)

    async def main():
        bucket.consume(10)
        first, second = await started(bucket.acquire_async(10), bucket.acquire_async(1, timeout=50))
        await asyncio.sleep(2)
        first.cancel()
        start = clock.now
        assert await second
        assert clock.now - start <= 2 * SECOND

    run(main())


def test_bad_arguments(twin, run):
    bucket = twin.bucket.TokenBucket(1, 1)
    for timeout, error in [(-1, ValueError), (float("nan"), ValueError), ("x", TypeError)]:
        message = rf"^timeout must be a non-negative number or None, got {timeout!r}$"
        with pytest.raises(error, match=message):
            bucket.acquire(timeout=timeout)
        with pytest.raises(error, match=message):
            run(bucket.acquire_async(timeout=timeout))
    with pytest.raises(ValueError, match=r"^tokens must be at most the capacity 1, got 2$"):
        run(bucket.acquire_async(2))
    assert bucket.consume()


def test_threads_and_two_loops_share_one_line(twin):
    bucket = twin.bucket.TokenBucket(1, 2000)
    done = [0] * 8
    start = time.monotonic()

    def work(number):
        if number < 4:
            for _ in range(25):
                done[number] += bucket.acquire()
        else:

            async def main():
                results = await asyncio.gather(*[bucket.acquire_async() for _ in range(25)])
                done[number] = sum(results)

            asyncio.run(main())

    run_threads(work)
    assert done == [25] * 8
    assert time.monotonic() - start >= 198 / 2000
    bucket._check()
