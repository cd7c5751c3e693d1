"""A permit taken and given back, alone and shared, beside a semaphore; and the client's throttle."""

import os
import threading

import pytest

from headgate import ConcurrencyLimiter, Throttle


def use(limiter):
    with limiter.acquire():
        pass


@pytest.mark.parametrize("algorithm", ["fixed", "aimd", "gradient"])
@pytest.mark.benchmark(group="a permit, taken and given back")
def test_permit(benchmark, algorithm):
    benchmark(use, ConcurrencyLimiter(algorithm=algorithm, max_latency=60))


@pytest.mark.benchmark(group="a permit, taken and given back")
def test_semaphore(benchmark):
    semaphore = threading.BoundedSemaphore(20)

    def use_semaphore():
        if semaphore.acquire(blocking=False):
            semaphore.release()

    benchmark(use_semaphore)


@pytest.mark.skipif(os.name != "posix", reason="a shared limit needs fcntl")
@pytest.mark.benchmark(group="a permit, taken and given back")
def test_shared_permit(benchmark, tmp_path):
    benchmark(use, ConcurrencyLimiter(path=tmp_path / "permits"))


@pytest.mark.benchmark(group="turned away")
def test_denied(benchmark):
    limiter = ConcurrencyLimiter(1)
    permit = limiter.acquire()
    benchmark(use, limiter)
    permit.release()


@pytest.mark.benchmark(group="throttle")
def test_throttle(benchmark):
    benchmark(Throttle().allow)
