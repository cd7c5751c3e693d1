"""An exception out of a signal handler, wherever it comes in a call, leaves nothing locked."""

import os
import signal
import warnings
from contextlib import nullcontext

import pytest
from interrupts import interruptions
from watchdog import in_a_thread

from headgate import ConcurrencyLimiter, HeadgateError, Throttle
from headgate._base import shared_files

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals are POSIX's"),
    pytest.mark.usefixtures("ledger_of_twin"),
]


def is_locked(path):
    """Whether another process would have to wait for the lock of a file."""
    import fcntl

    file = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def bucket(twin, path):
    bucket = twin.bucket.TokenBucket(1e6, 1e6, path=path)
    return bucket, bucket.consume


def keys(twin, path):
    limiter = twin.keyed.RateLimiter("1000000/s", max_keys=100, path=path)
    return limiter, lambda: limiter.allow("ann")


def throttle(twin, path):
    throttle = Throttle()
    return throttle, throttle.allow


def permits(twin, path):
    limiter = ConcurrencyLimiter(5, path=path)

    def call():
        with limiter.acquire() as permit:
            assert permit

    return limiter, call


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("path", [None, "permits"])
def test_a_permit_whose_call_is_interrupted_comes_back(twin, path, tmp_path):
    """What comes out in the finalizer of a permit that was not released goes to the unraisable hook."""
    limiter, call = permits(twin, path and tmp_path / path)
    for number in interruptions(call, 1 if path is None else 3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            held = [limiter.acquire() for _ in range(5)]
            assert all(held), number
        for permit in held:
            permit.release("ignored")
        assert limiter.inflight == 0, number
        assert path is None or not is_locked(tmp_path / path), number
    limiter._check()


@pytest.mark.parametrize("make", [bucket, keys, throttle])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_a_call_that_is_interrupted_leaves_nothing_locked(twin, make, shared, tmp_path):
    path = tmp_path / "limit" if shared and make is not throttle else None
    thing, call = make(twin, path)
    for number in interruptions(call):
        assert path is None or not is_locked(path), number
        if number % 20 == 0:
            in_a_thread(call)
    in_a_thread(call)
    thing._check()


def test_a_locked_file_is_not_waited_for_without_end(twin, clock, monkeypatch, tmp_path):
    """As when the process that holds the lock is stopped; the compiled twin locks nothing in a decision."""
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(shared_files, "monotonic", lambda: clock.now / 1e9)
    monkeypatch.setattr(shared_files, "sleep", clock.advance)
    path = tmp_path / "limit"
    limiter = twin.keyed.RateLimiter("10/s", max_keys=100, path=path)
    file = os.open(path, os.O_RDWR)
    fcntl.flock(file, fcntl.LOCK_EX)
    refused = pytest.raises(HeadgateError, match="path is locked by a process that is stopped, got")
    with refused if twin.name == "pure" else nullcontext():
        assert limiter.allow("ann")
    start = clock.now
    with refused:
        twin.keyed.RateLimiter("10/s", max_keys=100, path=path)
    assert 30 <= (clock.now - start) / 1e9 < 31
    os.close(file)
    assert limiter.allow("ann")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # as one may come in __del__
@pytest.mark.parametrize("name", ["WeightedRoundRobin", "RandomChoice", "PowerOfTwo", "KeyHash"])
@pytest.mark.parametrize("change", [
    lambda balancer: balancer.drain_server("b", balancer.records[1].health != "draining"),
    lambda balancer: balancer.set_weight("a", 5 - balancer.records[0].weight),
    lambda balancer: balancer.pick("key", exclude=["a", "b"]).done(ok=False),
])
def test_a_change_of_a_fleet_that_is_interrupted_is_made_up_for(twin, name, change):
    balancer = getattr(twin.balance, name)({"a": 2, "b": 1, "c": 1, "d": 1}, seed=0, max_failures=3)
    for _ in interruptions(lambda: change(balancer), every=7):
        for _ in range(3):
            balancer.pick("key").done()
        balancer._check()
        assert not any(record.in_flight for record in balancer.records)
