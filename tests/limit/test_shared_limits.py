"""Limits that processes share through a file: one limit for all, which users may open it, what is refused."""

import os
import subprocess
import sys
from functools import partial

import pytest
from damage import overwrite
from finalizers import struck_at
from threads import run_threads
from watchdog import in_a_thread

from headgate import AddressLimiter, ConcurrencyLimiter
from headgate._base import shared_files

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="a shared limit needs fcntl"),
    pytest.mark.usefixtures("one_secret"),
]

CELLS = 4096
MODULE = "headgate.limit.keyed._{}"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "limit"


@pytest.fixture
def make(twin, path, clock):
    """Makes limiters that share the file."""
    def make(rate="5/s; 100/min", where=path, **options):
        return twin.keyed.RateLimiter(rate, path=where, **{"max_keys": 100, "clock": clock, **options})
    return make


def run(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# one limit


def test_limiters_of_one_file_are_one_limit(make):
    one, other = make(), make()
    assert [one.allow("ann", 2), other.allow("ann", 3), one.allow("ann"), other.allow("ann")] == [
        True, True, False, False]
    assert other.allow("bob", 5)
    one.refund("bob", 2)
    assert other.peek("bob").remaining == 2
    one.reset("ann")
    assert other.peek("ann").remaining == 5
    one._check()


def test_a_shared_limit_decides_as_a_private_one(make, twin, clock):
    shared = [make("3/s; 10/10s", max_keys=4), make("3/s; 10/10s", max_keys=4)]
    private = twin.keyed.RateLimiter("3/s; 10/10s", max_keys=4, clock=clock)
    for turn in range(300):
        clock.advance((0.05, 0.21, 0.0, -0.03)[turn % 4])
        key, cost = f"user:{turn * turn % 3}", (1, 0, 2, 0.5)[turn % 7 % 4]
        assert shared[turn % 2].decide(key, cost) == private.decide(key, cost)
    assert shared[0].evictions == shared[1].evictions == private.evictions


def test_a_shared_strict_limit_decides_as_a_private_one(make, twin, clock):
    options = {"strict": True, "max_keys": 4}
    shared = [make("3/s; 10/10s", **options), make("3/s; 10/10s", **options)]
    private = twin.keyed.RateLimiter("3/s; 10/10s", clock=clock, **options)
    for turn in range(300):
        clock.advance((0.05, 0.21, 0.0, -0.03)[turn % 4])
        key, cost = f"user:{turn * turn % 3}", (1, 0, 2)[turn % 7 % 3]
        assert shared[turn % 2].decide(key, cost) == private.decide(key, cost)
        if turn % 11 == 0:
            for limiter in (shared[0], private):
                limiter.refund(key)
    assert shared[0].evictions == shared[1].evictions == private.evictions
    shared[1]._check()


def test_a_strict_limit_outlives_its_limiters(make, clock):
    assert make("5/min", strict=True).allow("ann", 4)
    clock.advance(30)
    assert [make("5/min", strict=True).allow("ann"), make("5/min", strict=True).allow("ann")] == [True, False]


def test_the_limit_outlives_its_limiters(make):
    assert make().allow("ann", 5)
    assert not make().allow("ann")


def test_time_goes_on_for_all(make, clock):
    one = make()
    assert one.allow("ann", 5)
    clock.advance(0.4)
    other = make()
    assert [other.allow("ann", 2), one.allow("ann")] == [True, False]
    clock.advance(86400)
    assert [one.allow("ann", 5), other.allow("ann")] == [True, False]


def test_evictions_and_overflow(make):
    limiters = [make("1/h", max_keys=4, on_full="deny"), make("1/h", max_keys=4, on_full="deny")]
    assert sum(limiters[key % 2].allow(key) for key in range(20)) == 8
    assert limiters[0].decide("new").allowed is False


def test_evictions_are_counted_by_all(make):
    limiters = [make("1/h", max_keys=4), make("1/h", max_keys=4)]
    for key in range(20):
        assert limiters[key % 2].allow(key)
    assert [limiter.evictions for limiter in limiters] == [12, 12]


def test_another_process_has_the_same_limit(make, twin, path):
    limiter = make("5/h", clock=None)
    code = f"""
import sys
from {MODULE.format(twin.name)} import RateLimiter
limiter = RateLimiter("5/h", max_keys=100, path=sys.argv[1])
print([limiter.allow("ann") for _ in range(3)].count(True))
"""
    assert limiter.allow("ann", 3)
    assert run(code, path) == ["2"]
    assert not limiter.allow("ann")


def test_a_child_shares_the_limit_with_its_parent(twin, path):
    code = f"""
import os, sys
from {MODULE.format(twin.name)} import RateLimiter
limiter = RateLimiter("1000/h", max_keys=100, path=sys.argv[1])
children = [os.fork() for _ in range(2)]
admitted = sum(limiter.allow("ann") for _ in range(600))
os.write(1, b"%d\\n" % admitted)
if 0 not in children:
    for child in children:
        os.waitpid(child, 0)
"""
    assert sum(map(int, run(code, path))) == 1000


def test_threads_through_limiters_of_their_own(make):
    limiters = [make("100/h") for _ in range(4)]
    admitted = [0] * 4

    def work(number):
        admitted[number] = sum(limiters[number].allow("ann") for _ in range(50))

    run_threads(work, 4)
    assert sum(admitted) == 100


def test_waiting(make):
    limiter = make("1000/s, burst 1", clock=None)
    assert [limiter.acquire("ann", timeout=5) for _ in range(5)] == [True] * 5


def test_many_openers_at_once(twin, path):
    code = f"""
import sys
from {MODULE.format(twin.name)} import RateLimiter
sys.stdin.readline()
print(sum(RateLimiter("5/h", max_keys=100_000, path=sys.argv[1]).allow("ann") for _ in range(4)))
"""
    command = [sys.executable, "-c", code, str(path)]
    openers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
               for _ in range(3)]
    for opener in openers:
        opener.stdin.write("go\n")
        opener.stdin.flush()
    assert sum(int(opener.communicate(timeout=60)[0]) for opener in openers) == 5
    assert [opener.returncode for opener in openers] == [0, 0, 0]


# one bucket


@pytest.fixture
def bucket(twin, path, clock):
    """Makes buckets that share the file."""
    def bucket(capacity=5, refill_rate=2, **options):
        return twin.bucket.TokenBucket(capacity, refill_rate, **{"path": path, "clock": clock, **options})
    return bucket


def test_buckets_of_one_file_are_one_bucket(bucket, clock):
    one, other = bucket(), bucket(5.0, 2.0)
    assert [one.consume(3), other.consume(3), other.consume(2), one.consume()] == [True, False, True, False]
    clock.advance(1)
    assert (one.available, bucket().available) == (2, 2)
    other._check()


def test_a_shared_bucket_decides_as_a_private_one(bucket, twin, clock):
    shared, private = [bucket(), bucket()], twin.bucket.TokenBucket(5, 2, clock=clock)
    for turn in range(300):
        clock.advance((0.5, 0.21, 0.0, -0.3)[turn % 4])
        tokens = (1, 0, 2, 0.5)[turn % 7 % 4]
        assert shared[turn % 2].decide(tokens) == private.decide(tokens)
        if turn % 5 == 0:
            bookings = shared[turn % 2].reserve(2), private.reserve(2)
            assert bookings[0].delay == bookings[1].delay
            if turn % 10 == 0:
                for booking in bookings:
                    booking.cancel()
    for limiter in (*shared, private):
        limiter._check()


def test_a_reservation_counts_for_all(bucket):
    one, other = bucket(), bucket()
    assert one.consume(5)
    assert one.reserve(4).delay == 2
    assert other.reserve(2).delay == 3


def test_another_process_has_the_same_bucket(bucket, twin, path):
    code = f"""
import sys
from headgate.limit.bucket._{twin.name} import TokenBucket
bucket = TokenBucket(5, 0.001, path=sys.argv[1])
print([bucket.consume() for _ in range(3)].count(True))
"""
    one = bucket(5, 0.001, clock=None)
    assert one.consume(3)
    assert run(code, path) == ["2"]
    assert not one.consume()
    assert not one.acquire(timeout=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capacity": 6}, "capacity must be 5 as in .*limit', got 6"),
        ({"refill_rate": 2.5}, r"refill_rate must be 2 as in .*limit', got 2\.5"),
        ({"mode": 0o644}, "mode must be 0o600 as of .*limit', got 0o644"),
    ],
)
def test_other_buckets_are_refused(bucket, options, message):
    bucket()
    with pytest.raises(ValueError, match=message):
        bucket(**options)


def test_a_limiter_refuses_the_file_of_a_bucket(bucket, make):
    bucket()
    with pytest.raises(ValueError, match=r"limiter must be 'TokenBucket' as in .*limit', got 'RateLimiter'"):
        make()


def test_a_shared_bucket_keeps_its_settings(bucket):
    limiter = bucket()
    with pytest.raises(ValueError, match=r"cannot be reconfigured, got '.*limit': another path begins"):
        limiter.reconfigure(7, 7)
    assert limiter.capacity == 5
    limiter._check()


def test_a_bucket_is_full_after_a_reboot(bucket, path, clock):
    assert bucket().consume(5)
    overwrite(path, (2, 12345))
    clock.now = 77
    assert bucket().consume(5)


# a clock that was read before others wrote


class Interrupted:
    """A clock whose reader is interrupted: what `meanwhile` does comes between the reading and its use."""

    def __init__(self, clock):
        self.clock, self.meanwhile = clock, None

    def __call__(self):
        now = self.clock()
        if self.meanwhile:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return now


def fill(clock, seconds, call):
    """A function that advances the clock and then takes all that there is."""
    def fill():
        clock.advance(seconds)
        assert call()
    return fill


@pytest.mark.parametrize("use", ["allow", "decide", "refund"])
def test_a_stale_reading_gives_no_debt_back(make, clock, use):
    interrupted = Interrupted(clock)
    one, other = make("5/s", clock=interrupted), make("5/s")
    assert other.allow("ann", 5)
    interrupted.meanwhile = fill(clock, 1.0, lambda: other.allow("ann", 5))
    if use == "refund":
        one.refund("ann")
        assert other.peek("ann").remaining == 1
    else:
        assert not getattr(one, use)("ann")
        assert other.peek("ann").remaining == 0


@pytest.mark.parametrize("use", ["consume", "decide", "reserve"])
def test_a_stale_reading_gives_no_tokens_back(bucket, clock, use):
    interrupted = Interrupted(clock)
    one, other = bucket(5, 5, clock=interrupted), bucket(5, 5)
    assert other.consume(5)
    interrupted.meanwhile = fill(clock, 1.0, lambda: other.consume(5))
    if use == "reserve":
        assert one.reserve().delay == 0.2
    else:
        assert not getattr(one, use)()
        assert other.available == 0


@pytest.mark.parametrize("on_full", ["evict", "deny"])
def test_a_stale_reading_gives_no_debt_of_others_back(make, clock, on_full):
    interrupted = Interrupted(clock)
    options = {"rate": "5/s", "max_keys": 4, "on_full": on_full}
    one, other = make(clock=interrupted, **options), make(**options)
    interrupted.meanwhile = fill(clock, 1.0, lambda: all(other.allow(key, 5) for key in range(8)))
    assert one.allow("ann") is (on_full == "evict")
    assert [other.peek(key).remaining for key in range(8)].count(0) == 8 - one.evictions
    assert other.peek("ann").remaining == 0


def test_a_wait_of_minutes_for_the_lock_gives_no_debt_back(both_twins, path, clock):
    pure = both_twins[1].keyed.RateLimiter
    one, other = (pure("5/s", max_keys=100, path=path, clock=clock) for _ in range(2))
    assert other.allow("ann", 5)
    late = fill(clock, 300.0, lambda: other.allow("ann", 5))

    def contended(function, *args):
        one._locked = one._table.locked
        late()
        return one._locked(function, *args)

    one._locked = contended
    assert not one.allow("ann")
    assert other.peek("ann").remaining == 0


def test_a_reading_that_is_hours_old(make, clock):
    interrupted = Interrupted(clock)
    one, other = make("5/s", clock=interrupted), make("5/s")
    assert other.allow("ann", 5)
    interrupted.meanwhile = fill(clock, 7200, lambda: other.allow("ann", 5))
    assert not one.allow("ann")
    assert other.peek("ann").remaining == 0


# the file


def test_the_file_is_for_its_owner(make, path):
    make()
    assert path.stat().st_mode & 0o777 == 0o600
    other = path.with_name("other")
    make(where=other, mode=0o660)
    assert other.stat().st_mode & 0o777 == 0o660
    assert make(where=str(other), mode=0o660).allow("ann")


def test_all_blocks_are_there_from_the_start(make, path):
    make(max_keys=10_000)
    assert path.stat().st_blocks * 512 >= path.stat().st_size > 10_000 * 16


def test_after_a_reboot_nothing_is_owed(make, path, clock):
    assert make().allow("ann", 5)
    overwrite(path, (2, 12345))
    clock.now = 77
    one, other = make(), make()
    assert [one.allow("ann", 5), other.allow("ann")] == [True, False]
    clock.advance(1)
    assert other.allow("ann", 5)


def test_a_file_whose_maker_was_killed_is_laid_out_again(make, path):
    make(max_keys=2000)
    with path.open("r+b") as file:
        file.write(b"hgMaking")
    assert [make().allow("ann", 5), make().allow("ann")] == [True, False]


def test_a_file_that_was_removed_is_made_anew(make, path):
    old = make()
    assert old.allow("ann", 5)
    path.unlink()
    assert make().allow("ann", 5)
    assert not old.allow("ann")


def test_a_full_disk_is_an_error_at_once(make, path, monkeypatch):
    def full(file, start, size):
        os.ftruncate(file, size // 2)
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"28\] path must have space for \d+ bytes: No space .*: '.*limit'"):
        make()
    assert path.stat().st_size == 0
    monkeypatch.undo()
    assert make().allow("ann")


def test_a_limit_on_file_sizes_is_met_at_once(make, path):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            make(max_keys=1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.stat().st_size == 0


# refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": "5/s"}, "rate must be '5/s; 100/min' as in .*limit', got '5/s'"),
        ({"max_keys": 99}, "max_keys must be 100 as in .*limit', got 99"),
        ({"strict": True}, "strict must be False as in .*limit', got True"),
        ({"on_full": "deny"}, "on_full must be 'evict' as in .*limit', got 'deny'"),
        ({"mode": 0o644}, "mode must be 0o600 as of .*limit', got 0o644"),
    ],
)
def test_other_settings_are_refused(make, options, message):
    limiter = make()
    with pytest.raises(ValueError, match=message):
        make(**options)
    assert limiter.allow("ann")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((0, 7), "path must be a file of a shared limit, got '.*limit'"),
        ((1, 4), "path must have layout 3, got 4 in '.*limit': stop its processes and remove it, or"),
        ((3, 99), "path must belong to processes with one clock, got '.*limit'"),
    ],
)
def test_other_layouts_are_refused(make, path, change, message):
    make()
    overwrite(path, change)
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("mode", [0o600, 0o644])
@pytest.mark.parametrize("content", [b"hello", bytes(100), b"x" * CELLS, bytes(CELLS + 64)])
def test_foreign_files_are_refused_and_kept(make, path, content, mode):
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(ValueError, match=r"path must be a file of a shared limit, got '.*limit'"):
        make()
    assert path.read_bytes() == content


def test_a_truncated_file_is_refused(make, path):
    make(max_keys=1000)
    size = path.stat().st_size
    os.truncate(path, CELLS + 128)
    with pytest.raises(ValueError, match=f"path must have {size} bytes, got {CELLS + 128} in '.*limit'"):
        make(max_keys=1000)


def test_what_is_no_file_is_refused(make, path):
    path.symlink_to(path.with_name("elsewhere"))
    for wrong in (path, path.parent, path.parent / "none" / "file"):
        with pytest.raises(OSError, match="Errno"):
            make(where=wrong)
    fifo = path.with_name("fifo")
    os.mkfifo(fifo)
    for wrong in ("/dev/null", fifo):
        with pytest.raises(ValueError, match="path must be a file"):
            make(where=wrong)
    with pytest.raises(TypeError):
        make(where=7)


@pytest.mark.parametrize(("mode", "error"), [(0o400, ValueError), (0o1600, ValueError), ("0600", TypeError)])
def test_modes_that_make_no_sense_are_refused(make, path, mode, error):
    with pytest.raises(error, match=r"^mode must be"):
        make(mode=mode)
    assert not path.exists()


@pytest.mark.parametrize("empty", [False, True])
def test_a_file_of_another_user_is_refused(make, path, empty, monkeypatch):
    path.touch(0o600) if empty else make()
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(ValueError, match=f"path must be a file of user {me + 1}, got .* of user {me}"):
        make()


def test_twins_refuse_the_file_of_each_other(both_twins, path):
    for twin, other in (both_twins, both_twins[::-1]):
        where = path.with_name(twin.name)
        twin.keyed.RateLimiter("5/s", path=where)
        message = f"twin must be '{twin.name}' as in .*, got '{other.name}'"
        with pytest.raises(ValueError, match=message):
            other.keyed.RateLimiter("5/s", path=where)


def test_a_system_without_locks_is_refused(make, monkeypatch):
    monkeypatch.setattr("headgate._base.shared_files.SHARES_FILES", False)
    with pytest.raises(ValueError, match="path must be None on a system without fcntl and mmap, got"):
        make()


def use_twice(make, path):
    """A finalizer uses the second of two objects of one file wherever the first one's call is."""
    first, second = make(path), make(path)
    for number in range(60):
        with struck_at(number, second):
            first()


@pytest.mark.parametrize("kind", ["bucket", "keys", "permits"])
def test_a_finalizer_may_use_another_object_of_the_same_file(twin, kind, tmp_path):
    def make(path):
        if kind == "bucket":
            return twin.bucket.TokenBucket(1e6, 1e6, path=path).consume
        if kind == "keys":
            return partial(twin.keyed.RateLimiter("1000000/s", max_keys=100, path=path).allow, "ann")
        limiter = ConcurrencyLimiter(path=path)
        return lambda: limiter.acquire().release()

    assert in_a_thread(use_twice, make, tmp_path / "limit") is None


@pytest.mark.parametrize("strict", [False, True])
def test_a_new_limiter_may_adopt_the_rate_of_the_file(twin, tmp_path, strict):
    """A deploy with another rate: the old workers go on, and the new ones share their limit."""
    options = {"path": tmp_path / "limit", "max_keys": 8, "strict": strict, "clock": lambda: 0}
    old = twin.keyed.RateLimiter("10/s; 20/min", **options)
    assert old.allow("ann", 7)
    with pytest.raises(ValueError, match=r"^rate must be .* got '5/s'; on_mismatch='adopt' takes"):
        twin.keyed.RateLimiter("5/s", **options)
    new = twin.keyed.RateLimiter("5/s", on_mismatch="adopt", **options)
    assert new.rates == old.rates
    assert [new.allow("ann", 4), new.allow("ann", 3), old.allow("ann")] == [False, True, False]
    new._check()
    other = options | {"path": tmp_path / "other"}
    assert str(twin.keyed.RateLimiter("5/s", on_mismatch="adopt", **other).rates[0]) == "5/s"
    with pytest.raises(ValueError, match=r"^max_keys must be 8 as in "):
        twin.keyed.RateLimiter("5/s", on_mismatch="adopt", **options | {"max_keys": 9})
    with pytest.raises(ValueError, match=r"^limiter must be 'RateLimiter' as in "):
        twin.bucket.TokenBucket(5, 1, path=options["path"], on_mismatch="adopt")


def test_a_bucket_may_adopt_what_the_file_has(twin, tmp_path):
    options = {"path": tmp_path / "bucket", "clock": lambda: 0}
    old = twin.bucket.TokenBucket(10, 1.5, **options)
    assert old.consume(7)
    with pytest.raises(ValueError, match=r"^capacity must be 10 .*, got 5; on_mismatch='adopt' takes"):
        twin.bucket.TokenBucket(5, 1, **options)
    new = twin.bucket.TokenBucket(5, 1, on_mismatch="adopt", **options)
    assert (new.capacity, new.refill_rate, new.available) == (10, 1.5, 3.0)


@pytest.fixture
def before_it_opens(monkeypatch):
    """Lets something be done when a file has been looked for, and is about to be opened."""

    def before(do):
        def opening(path, mode, opens=shared_files.open_file):
            monkeypatch.setattr(shared_files, "open_file", opens)
            do()
            return opens(path, mode)

        monkeypatch.setattr(shared_files, "open_file", opening)

    return before


@pytest.mark.parametrize("strict", [False, True])
def test_of_two_that_make_a_file_at_once_one_adopts(twin, tmp_path, before_it_opens, strict):
    options = {"max_keys": 8, "path": tmp_path / "limit", "strict": strict, "clock": lambda: 0}
    options["on_mismatch"] = "adopt"
    others = []
    before_it_opens(lambda: others.append(twin.keyed.RateLimiter("10/s; 20/min", **options)))
    late = twin.keyed.RateLimiter("5/s", **options)
    assert late.rates == others[0].rates
    assert [late.allow("ann", 6), others[0].allow("ann", 5), others[0].allow("ann", 4)] == [True, False, True]
    late._check()


def test_of_two_that_make_a_bucket_at_once_one_adopts(twin, tmp_path, before_it_opens):
    options = {"path": tmp_path / "bucket", "clock": lambda: 0, "on_mismatch": "adopt"}
    others = []
    before_it_opens(lambda: others.append(twin.bucket.TokenBucket(10, 1.5, **options)))
    late = twin.bucket.TokenBucket(5, 1, **options)
    assert (late.capacity, late.refill_rate, late.consume(6), others[0].available) == (10, 1.5, True, 4.0)


def test_a_limiter_of_another_kind_is_not_adopted(twin, tmp_path):
    options = {"max_keys": 8, "path": tmp_path / "limit", "clock": lambda: 0}
    twin.keyed.RateLimiter("2.5/s", **options)
    with pytest.raises(ValueError, match=r"^strict must be False as in "):
        twin.keyed.RateLimiter("2/s", strict=True, on_mismatch="adopt", **options)


@pytest.mark.parametrize("v4", [{32: 1, 24: 2}, {32: 2, 24: 4}, 32])
def test_networks_may_adopt_what_the_files_have(tmp_path, v4):
    options = {"v4": v4, "max_keys": 8, "path": tmp_path / "limit", "clock": lambda: 0}
    options["v6"] = v4
    old = AddressLimiter("2/s", **options)
    with pytest.raises(ValueError, match=r"on_mismatch='adopt' takes what is there"):
        AddressLimiter("9/s", **options)
    new = AddressLimiter("9/s", on_mismatch="adopt", **options)
    assert new.rates == old.rates
    while old.allow("192.0.2.1"):
        assert new.peek("192.0.2.1") == old.peek("192.0.2.1")
    assert not new.allow("192.0.2.1")
    new._check()
    other = options | {"path": tmp_path / "other"}
    assert AddressLimiter("9/s", on_mismatch="adopt", **other).rates[0].limit == 9


def test_arguments_of_a_shared_limit_are_named(twin, tmp_path):
    for make in (
        lambda **options: twin.keyed.RateLimiter("1/s", **options),
        lambda **options: twin.bucket.TokenBucket(1, 1, **options),
    ):
        with pytest.raises(ValueError, match=r"^on_mismatch must be 'raise' or 'adopt', got 'join'$"):
            make(on_mismatch="join")
        with pytest.raises(TypeError, match=r"^path must be a str or an os.PathLike, got 5$"):
            make(path=5)
    with pytest.raises(UnicodeEncodeError, match=r": key must have no surrogates$"):
        twin.keyed.RateLimiter("1/s").allow("\ud800")
