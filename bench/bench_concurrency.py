"""A permit acquired and released, private and shared, compared with a semaphore; and the client's
throttle."""

import os
import threading

import pytest

from headgate import ConcurrencyLimiter, Throttle


def use(limiter):
    with limiter.acquire():
        pass


@pytest.mark.parametrize("algorithm", ["fixed", "aimd", "gradient"])
@pytest.mark.benchmark(group="acquire and release a permit")
def test_permit(benchmark, algorithm):
    benchmark(use, ConcurrencyLimiter(algorithm=algorithm, max_latency=60))


@pytest.mark.benchmark(group="acquire and release a permit")
def test_semaphore(benchmark):
    semaphore = threading.BoundedSemaphore(20)

    def use_semaphore():
        if semaphore.acquire(blocking=False):
            semaphore.release()

    benchmark(use_semaphore)


@pytest.mark.skipif(os.name != "posix", reason="a shared limit needs fcntl")
@pytest.mark.benchmark(group="acquire and release a permit")
def test_shared_permit(benchmark, tmp_path):
    benchmark(use, ConcurrencyLimiter(path=tmp_path / "permits"))


@pytest.mark.benchmark(group="denied")
def test_denied(benchmark):
    limiter = ConcurrencyLimiter(1)
    permit = limiter.acquire()
    benchmark(use, limiter)
    permit.release()


@pytest.mark.benchmark(group="throttle")
def test_throttle(benchmark):
    benchmark(Throttle().allow)
