"""A ConcurrencyLimiter that processes share: one limit, and permits of processes that ended come back."""

import gc
import os
import signal
import subprocess
import sys
import time
import weakref
from contextlib import ExitStack, contextmanager

import pytest
from damage import overwrite
from threads import run_threads
from twins import twin_names

from headgate import ConcurrencyLimiter
from headgate._base import shared_files
from headgate.limit import _files, _ledger

fcntl = pytest.importorskip("fcntl", reason="a shared limit needs it")

START = """
import sys, time
from headgate import ConcurrencyLimiter
limiter = ConcurrencyLimiter(int(sys.argv[2]), algorithm="fixed", path=sys.argv[1])
def report(*words):
    print(*words, flush=True)
"""
HOLD = START + """
permits = [limiter.acquire() for _ in range(int(sys.argv[3]))]
report(sum(map(bool, permits)))
sys.stdin.read()
"""
CHURN = START + """
report("ready")
while True:
    with limiter.acquire() as permit:
        pass
"""
CROWD = START + """
import os
most = admitted = 0
for turn in range(300):
    with limiter.acquire() as permit:
        if permit:
            admitted += 1
            name = os.path.join(sys.argv[3], str(os.getpid()))
            open(name, "x").close()
            most = max(most, len(os.listdir(sys.argv[3])))
            os.remove(name)
report(admitted, most)
"""
FORK = START + """
import os
inherited = limiter.acquire()
def child():
    inherited.release()
    with limiter.acquire() as permit:
        report(bool(permit), limiter.inflight)
    os._exit(0)
for _ in range(2):
    if not (pid := os.fork()):
        child()
    os.waitpid(pid, 0)
report(limiter.inflight)
inherited.release()
report(limiter.inflight)
"""

KILLED_AT = """
import os, signal, sys
from headgate import ConcurrencyLimiter

class Killing:
    def __init__(self, words, left):
        self.words, self.left = words, left
    def __len__(self):
        return len(self.words)
    def __getitem__(self, at):
        return self.words[at]
    def __setitem__(self, at, word):
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        self.words[at] = word

def dies(work):
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    return os.waitpid(child, 0)[1]

def work():
    limiter._ledger.permits._words = Killing(limiter._ledger.permits._words, step)
    permits = [limiter.acquire() for _ in range(3)]
    permits[0].release()
    permits[1].release()

now = step = 0
limiter = ConcurrencyLimiter(5, algorithm="fixed", path=sys.argv[1], clock=lambda: now)
permits = [limiter.acquire() for _ in range(2)]
alive = False
while not alive:
    dies(limiter.acquire)
    alive = dies(work) == 0
    spare = limiter.inflight - limiter._ledger._count()
    now += 10**9
    more = [permit for permit in [limiter.acquire() for _ in range(5)] if permit]
    print(spare, len(more), limiter.inflight)
    for permit in more:
        permit.release()
    limiter._check()
    step += 1
"""


DENIED = START + """
import os
from headgate import HeadgateError
permit = limiter.acquire()
real = os.open
def denied(path, *rest):
    if path.startswith("/proc/") or path == sys.argv[1]:
        raise PermissionError(13, "Permission denied", path)
    return real(path, *rest)
os.open = denied
if not (pid := os.fork()):
    del permit
    try:
        limiter.acquire()
    except HeadgateError as error:
        report(error)
    os._exit(0)
os.waitpid(pid, 0)
report(limiter.inflight)
"""


@contextmanager
def started(code, *arguments, **environment):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def reported(process):
    return process.stdout.readline().split()


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait(60)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "permits"


def shared(path, limit=5, **options):
    return ConcurrencyLimiter(limit, path=path, **{"algorithm": "fixed", **options})


def admitted(limiter):
    """So many permits as there are left."""
    permits = []
    while permit := limiter.acquire():
        permits.append(permit)
    return permits


# one limit for all


def test_one_limit_for_all_processes(path):
    limiter = shared(path)
    with started(HOLD, path, 5, 3) as other:
        assert reported(other) == ["3"]
        assert limiter.inflight == 3
        permits = admitted(limiter)
        assert len(permits) == 2
        with started(HOLD, path, 5, 3) as third:
            assert reported(third) == ["0"]
        for permit in permits:
            permit.release()
        assert limiter.inflight == 3
        limiter._check()


def test_never_are_more_in_than_the_limit(path, tmp_path):
    crowd = tmp_path / "crowd"
    crowd.mkdir()
    with ExitStack() as stack:
        processes = [stack.enter_context(started(CROWD, path, 2, crowd)) for _ in range(3)]
        results = [list(map(int, reported(process))) for process in processes]
    assert sum(admitted for admitted, _ in results) > 0
    assert max(most for _, most in results) <= 2
    assert shared(path, 2).inflight == 0


@pytest.mark.usefixtures("ledger_of_twin")
def test_limiters_of_one_process_share_too(path):
    one, other = shared(path), shared(path)
    permits = admitted(one)
    assert len(permits) == 5
    assert not other.acquire()
    permits.pop().release()
    assert other.acquire()
    assert (one.inflight, other.inflight) == (5, 5)


@pytest.mark.usefixtures("ledger_of_twin")
def test_a_limit_that_one_changes_is_changed_for_all(path):
    aimd = {"algorithm": "aimd", "max_latency": 60}
    one, other = (shared(path, 100, **aimd) for _ in range(2))
    one.acquire().release("dropped")
    assert other.limit == 90
    assert shared(path, 7, **aimd).limit == 90


@pytest.mark.usefixtures("ledger_of_twin")
def test_threads(path):
    limiters = [shared(path, 3), shared(path, 3)]
    inside, most = [], []

    def work(number):
        for _ in range(50):
            with limiters[number % 2].acquire() as permit:
                if permit:
                    inside.append(number)
                    most.append(len(inside))
                    inside.remove(number)

    run_threads(work, 4)
    assert [limiter.inflight for limiter in limiters] == [0, 0]
    assert 1 <= max(most) <= 3


# processes that end


def test_the_permits_of_a_killed_process_come_back(path):
    limiter = shared(path)
    with started(HOLD, path, 5, 4) as other:
        assert reported(other) == ["4"]
        permits = admitted(limiter)
        assert len(permits) == 1
        kill(other)
        time.sleep(0.11)
        permits += admitted(limiter)
        assert len(permits) == 5
        limiter._check()


def test_a_zombie_holds_no_permit(path):
    limiter = shared(path)
    with started(HOLD, path, 5, 4) as other:
        assert reported(other) == ["4"]
        other.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert len(admitted(limiter)) == 5


BUSY = START + """
permits = []
report("ready")
while True:
    for _ in range(3):
        if permit := limiter.acquire():
            permits.append(permit)
    while permits:
        permits.pop().release()
"""


ASK = START + """
from headgate import HeadgateError
report("ready")
for line in sys.stdin:
    permits, error, start = [], "-", time.monotonic()
    if line.strip() == "all":
        permits = [permit for permit in (limiter.acquire() for _ in range(20)) if permit]
        report(len(permits), limiter.inflight)
        break
    most = 0
    for _ in range(100):
        try:
            with limiter.acquire():
                most = max(most, limiter.inflight)
        except HeadgateError as raised:
            error = "locked"
            break
    report(time.monotonic() - start, most, error)
"""


@pytest.mark.parametrize("pure", twin_names().count("compiled") * ["0"] + ["1"])
def test_processes_that_are_stopped_stop_no_other(path, pure):
    """Six processes under load: one after another is stopped, wherever it is, and in the end five are killed.
    In the pure twin one may be stopped with the file locked: then others get an error, and do not hang."""
    with ExitStack() as stack:
        crowd = [stack.enter_context(started(BUSY, path, 12, HEADGATE_PURE=pure)) for _ in range(5)]
        asking = stack.enter_context(started(ASK, path, 12, HEADGATE_PURE=pure))
        assert [reported(process) for process in (*crowd, asking)] == [["ready"]] * 6
        errors = []
        for turn in range(8):
            stopped = crowd[turn % 5]
            stopped.send_signal(signal.SIGSTOP)
            asking.stdin.write("\n")
            asking.stdin.flush()
            seconds, most, error = reported(asking)
            assert float(seconds) < 10 and int(most) <= 12
            errors.append(error)
            stopped.send_signal(signal.SIGCONT)
        assert pure == "1" or set(errors) == {"-"}
        for process in crowd:
            kill(process)
        time.sleep(0.11)
        asking.stdin.write("all\n")
        asking.stdin.flush()
        assert reported(asking) == ["12", "12"]


def test_processes_that_are_killed_at_any_moment_leave_nothing(path):
    limiter = shared(path, 3)
    for round_ in range(4):
        with started(CHURN, path, 3) as one, started(CHURN, path, 3) as other:
            assert reported(one) == reported(other) == ["ready"]
            time.sleep(0.03 + 0.01 * round_)
            kill(one)
            kill(other)
    time.sleep(0.11)
    permits = admitted(limiter)
    assert len(permits) == 3
    for permit in permits:
        permit.release()
    assert limiter.inflight == 0


def test_a_kill_before_any_write_loses_and_doubles_no_permit(path):
    """Two permits of five are held, and one by a process that has ended, while another takes permits and is
    killed; the compiled twin writes the same words in the same order."""
    with started(KILLED_AT, path, HEADGATE_PURE="1") as process:
        results = [tuple(map(int, line.split())) for line in process.communicate(timeout=60)[0].splitlines()]
    assert process.returncode == 0
    assert len(results) > 10
    assert {spare for spare, _, _ in results} <= {-1, 0, 1}, "slots and their sum differ by one at most"
    assert {result[1:] for result in results} == {(3, 5)}


@pytest.mark.usefixtures("ledger_of_twin")
def test_a_limiter_that_goes_leaves_its_permits(path):
    limiter, other = shared(path), shared(path)
    permits = admitted(other)
    assert len(permits) == 5
    del permits, other
    gc.collect()
    assert len(admitted(limiter)) == 5


@pytest.mark.usefixtures("ledger_of_twin")
def test_leases_are_used_again(path):
    limiter = shared(path, 1)
    for _ in range(1100):
        shared(path, 1).acquire()
    assert limiter.acquire()


def test_a_child_has_a_lease_of_its_own(path):
    with started(FORK, path, 3) as process:
        results = process.communicate(timeout=60)[0].splitlines()
    assert results == ["True 2", "True 2", "1", "0"]


def test_a_child_that_may_not_open_the_file_fails_when_it_uses_it(path):
    with started(DENIED, path, 3, HEADGATE_PURE="1") as process:
        results, errors = process.communicate(timeout=60)
    assert results.splitlines() == [f"path could not be opened again after a fork, got {str(path)!r}", "1"]
    assert errors == ""


# the file


def test_the_file_is_for_its_owner(path):
    shared(path)
    assert path.stat().st_mode & 0o777 == 0o600
    other = path.with_name("other")
    shared(other, mode=0o660)
    assert other.stat().st_mode & 0o777 == 0o660


@pytest.mark.usefixtures("ledger_of_twin")
def test_after_a_reboot_no_permit_is_held(path):
    limiter = shared(path)
    permits = admitted(limiter)
    assert len(permits) == 5
    overwrite(path, (3, 12345))
    assert len(admitted(shared(path))) == 5


@pytest.mark.usefixtures("ledger_of_twin")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "gradient"}, "algorithm must be 'fixed' as in .*, got 'gradient'"),
        ({"min_limit": 2}, "min_limit must be 1 as in .*, got 2"),
        ({"max_limit": 9}, "max_limit must be 1000 as in .*, got 9"),
        ({"limit": 6}, "limit must be 5 as in .*, got 6"),
        ({"mode": 0o640}, "mode must be 0o600 as of .*, got 0o640"),
    ],
)
def test_other_settings_are_refused(path, options, message):
    shared(path)
    with pytest.raises(ValueError, match=message):
        shared(path, **options)


@pytest.mark.usefixtures("ledger_of_twin")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((0, 7), "path must be a file of a ConcurrencyLimiter, got"),
        ((1, 1), "path must have layout 2, got 1 in"),
        ((16, 99), "twin must be .* as in .*, got '(compiled|pure)'"),
        ((2, 99), "path must belong to processes that see each other, got"),
    ],
)
def test_other_layouts_are_refused(path, change, message):
    shared(path)
    overwrite(path, change)
    with pytest.raises(ValueError, match=message):
        shared(path)


@pytest.mark.parametrize("content", [b"hello", bytes(100), b"x" * _ledger.SIZE])
def test_foreign_files_are_refused_and_kept(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="path must be a file of a ConcurrencyLimiter, got"):
        shared(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("empty", [False, True])
def test_a_file_of_another_user_is_refused(path, empty, monkeypatch):
    path.touch(0o600) if empty else shared(path)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(ValueError, match=f"path must be a file of user {me + 1}, got .* of user {me}"):
        shared(path)


def test_a_file_that_is_removed_while_it_is_opened_is_made_anew(path, monkeypatch):
    old, lock = shared(path), fcntl.flock

    def unlinked(file, operation):
        monkeypatch.undo()
        path.unlink()
        lock(file, operation)
    monkeypatch.setattr(fcntl, "flock", unlinked)
    new = shared(path)
    assert new.acquire()
    assert (old.inflight, new.inflight, shared(path).inflight) == (0, 1, 1)


def test_what_is_no_file_is_refused(path):
    path.symlink_to(path.with_name("elsewhere"))
    for wrong in (path, path.parent, path.parent / "none" / "file"):
        with pytest.raises(OSError, match="Errno"):
            shared(wrong)
    fifo = path.with_name("fifo")
    os.mkfifo(fifo)
    for wrong in ("/dev/null", fifo):
        with pytest.raises(ValueError, match="path must be a file"):
            shared(wrong)
    with pytest.raises(TypeError):
        shared(7)


def test_a_file_whose_maker_was_killed_is_laid_out_again(path):
    path.write_bytes(bytes(_ledger.SIZE))
    assert len(admitted(shared(path))) == 5
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_limiter_may_outlive_the_modules(tmp_path, monkeypatch):
    """As at the end of a free-threaded interpreter, which sets their names to None."""
    limiter, caught = ConcurrencyLimiter(path=tmp_path / "limit"), []
    limiter.acquire()
    lock = weakref.ref(limiter._ledger)
    file = lock()._file.descriptor
    monkeypatch.setattr(sys, "unraisablehook", caught.append)
    for module in (_ledger, _files, shared_files):
        for name in [name for name in vars(module) if not name.startswith("__")]:
            monkeypatch.setitem(vars(module), name, None)
    del limiter
    gc.collect()
    monkeypatch.undo()
    assert (lock(), caught) == (None, [])
    with pytest.raises(OSError):
        os.fstat(file)
