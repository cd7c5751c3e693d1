"""The storage of limits in a shared file: windows against naive models, kills, floods, locks and URIs."""

import asyncio
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from limits import parse
from limits.aio import strategies as async_strategies
from limits.errors import ConfigurationError, StorageError
from limits.storage import storage_from_string
from limits.strategies import STRATEGIES

from headgate._base.shared_files import SHARES_FILES
from headgate.adapters.limits import AsyncHeadgateStorage, HeadgateStorage, _windows
from headgate.cli import main
from headgate.errors import HeadgateError

pytestmark = pytest.mark.skipif(not SHARES_FILES, reason="needs fcntl and mmap")
SECOND = 10**9


@pytest.fixture
def uri(tmp_path):
    return f"headgate://{tmp_path}/app.limit"


@pytest.fixture
def clock(monkeypatch):
    """A list whose only element is the time in nanoseconds."""
    now = [10**15]
    monkeypatch.setattr(_windows, "monotonic_ns", lambda: now[0])
    return now


@contextmanager
def held(storage):
    """Another process has the file and is stopped."""
    import fcntl

    descriptor = os.open(storage._records._path, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
    os.close(descriptor)


def test_schemes(uri):
    assert type(storage_from_string(uri)) is HeadgateStorage
    assert type(storage_from_string(f"async+{uri}")) is AsyncHeadgateStorage


@pytest.mark.parametrize("rest, problem", [
    ("", "uri must be headgate:///PATH, got 'headgate://'"),
    ("host:1/x", "uri must be headgate:///PATH"),
    ("{path}?sizes=1MB", r"no options but mode and size, got \['sizes'\]"),
    ("{path}?size=1kB", "size must be at least 8192 bytes, got '1kB'"),
    ("{path}?size=much", "size must be"),
    ("{path}?mode=9", "mode must be octal digits, got '9'"),
    ("{path}?mode=400", "mode must be permissions from 0o600"),
])
def test_wrong_uris(rest, problem, tmp_path):
    with pytest.raises(ConfigurationError, match=problem):
        storage_from_string("headgate://" + rest.format(path=tmp_path / "app.limit"))
    assert not (tmp_path / "app.limit").exists()


def test_size_and_mode_of_the_file(tmp_path):
    path = tmp_path / "a file"
    storage_from_string(f"headgate://{tmp_path}/a%20file?size=65536&mode=640")
    assert (path.stat().st_size, path.stat().st_mode & 0o777) == (65536, 0o640)
    storage_from_string(f"headgate://{path}", size="64 KiB", mode=0o640)
    with pytest.raises(ConfigurationError, match="size must be 65536 as in"):
        storage_from_string(f"headgate://{path}", mode=0o640)


@pytest.mark.parametrize("arguments, problem", [
    (("k", 1, -1), "amount must be in"), (("k", 1, 2**32), "amount must be in"),
    (("k", 0), "expiry must be in"), (("k", float("nan")), "expiry must be in"),
])
def test_wrong_arguments_change_nothing(arguments, problem, uri):
    storage = storage_from_string(uri)
    with pytest.raises(ValueError, match=problem):
        storage.incr(*arguments)
    with pytest.raises(ValueError, match="limit must be in"):
        storage.acquire_entry("k", 2**32, 1)
    assert storage.reset() == 0


def test_fixed_windows(uri, clock):
    storage = storage_from_string(uri)
    assert [storage.incr("k", 60, 3), storage.incr("k", 60), storage.incr("other", 1)] == [3, 4, 1]
    clock[0] += 59 * SECOND
    assert storage.get("k") == 4
    assert storage.get_expiry("k") == pytest.approx(time.time() + 1, abs=0.5)
    clock[0] += SECOND
    assert storage.get("k") == 0
    assert storage.get_expiry("k") == pytest.approx(time.time(), abs=0.5)
    assert storage.incr("k", 60) == 1
    storage.clear("k")
    assert storage.get("k") == 0


@pytest.mark.parametrize("seed", range(4))
def test_moving_windows_are_those_of_a_list_of_times(uri, clock, seed):
    storage, draw, log, limit, span = storage_from_string(uri), random.Random(seed), [], 12, 30
    for _ in range(1500):
        clock[0] += draw.choice([0, 1, SECOND, 7 * SECOND, 90 * SECOND * (draw.random() < 0.02)])
        log = [when for when in log if when > clock[0] - span * SECOND]
        amount = draw.choice([0, 1, 1, 1, 2, 5, 13])
        admitted = len(log) + amount <= limit
        assert storage.acquire_entry("k", limit, span, amount) == admitted
        log += [clock[0]] * (amount * admitted)
        start, count = storage.get_moving_window("k", limit, span)
        assert count == len(log)
        oldest = (log[0] - clock[0]) / SECOND if log else 0
        assert start - time.time() == pytest.approx(oldest, abs=0.5)
        if draw.random() < 0.01:
            storage.clear("k")
            log.clear()


def test_moving_windows_outlive_the_numbers_of_their_runs(uri, clock):
    storage = storage_from_string(uri)
    assert storage.acquire_entry("k", 5, 60)
    records = storage._records
    root = records.find(records.tag(b"m", b"k"))
    storage.clear("k")
    records.words[root + 3] = 2**32 - 3 << 32
    records.words[root + 2] = clock[0] + SECOND
    for _ in range(8):
        clock[0] += 20 * SECOND
        records.words[root + 2] = clock[0] + SECOND
        assert storage.acquire_entry("k", 3, 60)
    assert storage.get_moving_window("k", 3, 60)[1] == 3
    assert not storage.acquire_entry("k", 3, 60)


@pytest.mark.parametrize("seed", range(4))
def test_sliding_windows_are_those_of_two_counters(uri, clock, seed):
    storage, draw, limit, span = storage_from_string(uri), random.Random(seed), 12, 30 * SECOND
    start = previous = current = 0
    for _ in range(1500):
        clock[0] += draw.choice([0, 1, SECOND, 7 * SECOND, 90 * SECOND * (draw.random() < 0.02)])
        now = clock[0]
        if now >= start + 2 * span:
            start, previous, current = now, 0, 0
        elif now >= start + span:
            start, previous, current = start + span, current, 0
        amount = draw.choice([1, 1, 2, 5, 13])
        admitted = previous * (start + span - now) // span + current + amount <= limit
        assert storage.acquire_sliding_window_entry("k", limit, 30, amount) == admitted
        current += amount * admitted
        if not previous and not current:
            start = 0
        window = storage.get_sliding_window("k", 30)
        assert window[::2] == (previous, current)
        if previous:
            assert window[1] == pytest.approx((start + span - now) / SECOND)
    storage.clear_sliding_window("k", 30)
    assert storage.get_sliding_window("k", 30)[::2] == (0, 0)


class Killed(BaseException):
    """The process ends here."""


class Stores:
    """The words of a file, of which only so many stores are done."""

    def __init__(self, words, left):
        self._words, self.left = words, left

    def __getitem__(self, at):
        return self._words[at]

    def __setitem__(self, at, value):
        if not self.left:
            raise Killed
        self.left -= 1
        self._words[at] = value


ACQUIRE = {
    "fixed": lambda storage, amount: storage.incr("k", 60, amount),
    "moving": lambda storage, amount: storage.acquire_entry("k", 9, 60, amount),
    "sliding": lambda storage, amount: storage.acquire_sliding_window_entry("k", 9, 60, amount),
}
COUNT = {
    "fixed": lambda storage: (storage.get("k"),),
    "moving": lambda storage: (storage.get_moving_window("k", 9, 60)[1],),
    "sliding": lambda storage: storage.get_sliding_window("k", 60)[::2],
}
SILENCES = {"new": None, "counted": 0, "next window": 70, "long past": 500}


def later(clock, seconds):
    clock[0] += seconds * SECOND


@pytest.mark.parametrize("kind", ACQUIRE)
@pytest.mark.parametrize("silence", SILENCES.values(), ids=SILENCES)
def test_a_kill_between_any_two_stores_changes_nothing_else(tmp_path, clock, kind, silence):
    for stores in range(40):
        storage = storage_from_string(f"headgate://{tmp_path}/{stores}?size=8192")
        whole = storage_from_string(f"headgate://{tmp_path}/{stores} whole?size=8192")
        if silence is not None:
            assert ACQUIRE[kind](storage, 3) and ACQUIRE[kind](whole, 3)
            later(clock, silence)
        before, words = COUNT[kind](storage), storage._records.words
        storage._records.words = limited = Stores(words, stores)
        try:
            ACQUIRE[kind](storage, 2)
        except Killed:
            pass
        storage._records.words = words
        ACQUIRE[kind](whole, 2)
        found, done = COUNT[kind](storage), COUNT[kind](whole)
        assert found in (before, done) and before != done
        later(clock, 1)
        ACQUIRE[kind](storage, 1)
        assert sum(COUNT[kind](storage)) == sum(found) + 1
        later(clock, 130)
        assert sum(COUNT[kind](storage)) == 0
        if limited.left:
            assert found == done
            return
    pytest.fail("more stores than were counted")


PROGRAM = """
import sys
from limits import parse
from limits.storage import storage_from_string
from limits.strategies import STRATEGIES
import headgate.adapters.limits
limiter = STRATEGIES[sys.argv[2]](storage_from_string(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(sum(limiter.hit(parse(sys.argv[3]), "ann") for _ in range(int(sys.argv[4]))), flush=True)
"""


@contextmanager
def processes(count, *arguments):
    """Processes that hit a limit, once all of them are ready."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
               for _ in range(count)]
    try:
        for process in started:
            process.stdout.readline()
        for process in started:
            process.stdin.write("\n")
            process.stdin.flush()
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_processes_admit_exactly_the_limit(uri, strategy):
    with processes(2, uri, strategy, "500/day", 400) as started:
        assert sum(int(process.stdout.readline()) for process in started) == 500


def test_processes_may_be_killed(uri):
    with processes(2, uri, "moving-window", "1000000/day", 10**6) as started:
        for process in started:
            time.sleep(0.1)
            process.send_signal(signal.SIGKILL)
            process.wait()
    storage, key = storage_from_string(uri), parse("1000000/day").key_for("ann")
    count = storage.get_moving_window(key, 10**6, 86400)[1]
    assert storage.acquire_entry(key, 10**6, 86400)
    assert storage.get_moving_window(key, 10**6, 86400)[1] == count + 1 > 1


def test_after_a_fork(uri):
    storage = storage_from_string(uri)
    storage.incr("k", 60)
    child = os.fork()
    if not child:
        os._exit(storage.incr("k", 60))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert storage.get("k") == 2


def test_a_copy_shares_the_file(uri):
    storage = storage_from_string(uri, size="64 KiB", wrap_exceptions=True)
    copy = pickle.loads(pickle.dumps(storage))
    storage.incr("k", 60)
    assert (copy.get("k"), copy.wrap_exceptions) == (1, True)


def test_a_flood_of_keys_evicts_what_expires_first(tmp_path):
    storage = storage_from_string(f"headgate://{tmp_path}/app.limit?size=8192")
    storage.incr("kept", 3600)
    for number in range(1000):
        assert storage.incr(f"key {number}", 60) == 1
    assert (storage.get("kept"), storage.get("key 999"), storage.get("key 0")) == (1, 1, 0)
    assert storage.reset() == 64


def test_moving_windows_go_on_where_their_blocks_are_evicted(tmp_path, clock):
    storage = storage_from_string(f"headgate://{tmp_path}/app.limit?size=8192")
    draw = random.Random(5)
    for _ in range(3000):
        clock[0] += SECOND // 10
        key, amount = f"key {draw.randrange(8)}", draw.choice([1, 1, 3])
        before = storage.get_moving_window(key, 40, 60)[1]
        admitted = storage.acquire_entry(key, 40, 60, amount)
        assert admitted == (before + amount <= 40)
        assert storage.get_moving_window(key, 40, 60)[1] in range(amount * admitted, before + amount + 1)


def test_reset_counts_keys_not_blocks(uri):
    storage = storage_from_string(uri)
    for number in range(10):
        storage.incr(f"{number}", 60)
        storage.acquire_entry("moving", 10, 60)
    storage.acquire_sliding_window_entry("sliding", 10, 60)
    assert (storage.reset(), storage.reset()) == (12, 0)
    assert storage.get_moving_window("moving", 10, 60)[1] == 0


def test_check(uri, tmp_path):
    storage = storage_from_string(uri)
    assert storage.check()
    (tmp_path / "app.limit").unlink()
    assert not storage.check()


def test_a_file_that_another_process_holds_is_not_healthy(uri):
    storage, other = storage_from_string(uri), storage_from_string(f"async+{uri}")
    with held(storage):
        assert not storage.check()
        assert not asyncio.run(other.check())
    assert storage.check()


def test_the_command_line_knows_the_file(uri, tmp_path, capsys):
    storage = storage_from_string(uri, size="64 KiB")
    assert main(["shm", "ls", str(tmp_path)]) == main(["shm", "show", str(tmp_path / "app.limit")]) == 0
    shown = capsys.readouterr().out
    assert shown.count("HeadgateStorage") == 2
    assert f"processes  {os.getpid()}" in shown
    assert storage.check()


@pytest.mark.parametrize("wrap, error", [(False, HeadgateError), (True, StorageError)])
def test_a_stopped_process_is_an_error_in_time(uri, wrap, error):
    storage = storage_from_string(uri, wrap_exceptions=wrap)
    with held(storage), pytest.raises(error):
        storage.incr("k", 60)
    assert storage.incr("k", 60) == 1


def test_event_loops_run_on_while_the_file_is_held(uri):
    storage = storage_from_string(f"async+{uri}", wrap_exceptions=True)
    ticks = []

    async def tick():
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.01)

    async def main():
        ticking = asyncio.create_task(tick())
        with held(storage), pytest.raises(StorageError):
            await storage.incr("k", 60)
        ticking.cancel()
        return await storage.incr("k", 60)

    assert asyncio.run(main()) == 1
    assert len(ticks) > 20


@pytest.mark.parametrize("strategy", async_strategies.STRATEGIES)
def test_event_loops_and_threads_have_one_limit(uri, strategy):
    storage, limit = storage_from_string(f"async+{uri}"), parse("10/day")
    limiter = async_strategies.STRATEGIES[strategy](storage)
    other = STRATEGIES[strategy](storage_from_string(uri))

    async def main():
        assert await storage.check()
        hits = [await limiter.hit(limit, "ann") for _ in range(4)]
        hits += [other.hit(limit, "ann") for _ in range(5)]
        assert await limiter.test(limit, "ann")
        hits += [await limiter.hit(limit, "ann") for _ in range(2)]
        assert (await limiter.get_window_stats(limit, "ann")).remaining == 0
        await limiter.clear(limit, "ann")
        assert (await limiter.get_window_stats(limit, "ann")).remaining == 10
        assert await storage.reset() == 0
        return hits

    assert asyncio.run(main()) == [True] * 10 + [False]
