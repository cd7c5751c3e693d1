"""The ledger of a concurrency limit that processes share: a file with a lease for each of them.

    words   | magic | version | pid namespace | boot | algorithm, bounds | permits in all |
    reals   | limit | what else the algorithm knows |
    leases  | pid | start of the process | permits |          one for each process that there may be

All words are changed under a lock that the kernel drops with the process that holds it. A process writes
its own permits to its own lease only. The permits in all are raised before the lease is and lowered after
it, so whoever is killed in between leaves them too high, never too low. They are counted anew, without the
leases of the dead, when a request is about to be turned away. A process is known by its pid and the time at
which it started.
"""

from __future__ import annotations

import mmap
import os
import stat
import threading
import weakref

from headgate.errors import HeadgateError

if os.name == "posix":
    import fcntl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike
    from typing import Self

_MAGIC = int.from_bytes(b"hgLease\n", "little")
_VERSION = 1
_WORD = 8
_AT_MAGIC, _AT_VERSION, _AT_NAMESPACE, _AT_BOOT, _AT_ALGORITHM, _AT_LEAST, _AT_MOST, _AT_TOTAL = range(8)
_STATE = slice(8, 16)
_HEADER = 16
_LEASE = 3
_LEASES = 1000
_SIZE = _WORD * (_HEADER + _LEASE * _LEASES)
_PAUSE = 100_000_000
_SETTINGS = ("algorithm", "min_limit", "max_limit")
_UNKNOWN, _ZOMBIE = 0, -1
_open_ledgers: weakref.WeakSet[SharedLedger] = weakref.WeakSet()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _boot() -> int:
    """A number of this start of the system, 0 where it does not tell."""
    text = _read("/proc/sys/kernel/random/boot_id").replace(b"-", b"").strip()
    return int(text[:16], 16) if text else 0


def _namespace() -> int:
    """A number of the namespace in which our pids are valid, 0 where there are none."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def _started(pid: int) -> int:
    """When a process started, so that a later one with the same pid is not taken for it."""
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    if not fields:
        return _UNKNOWN
    return _ZOMBIE if fields[0] in (b"Z", b"X") else int(fields[19])


def _is_alive(pid: int, started: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _started(pid) in (_UNKNOWN, started)


def _allocate(file: int) -> None:
    """Give the file its size, and its blocks where the system can, so that no write fails later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, _SIZE)
    else:
        os.ftruncate(file, _SIZE)


class SharedLedger:
    """The ledger of headgate._concurrency in a file."""

    __slots__ = (
        "__weakref__",
        "_checked",
        "_file",
        "_lease",
        "_lock",
        "_map",
        "_mode",
        "_path",
        "_settings",
        "_words",
        "owner",
        "state",
    )

    def __init__(
        self, path: str | PathLike[str], mode: int, limit: float, algorithm: str, least: int, most: int
    ) -> None:
        self._file = -1
        self._path = os.fspath(path)
        self._mode = mode
        self._settings = algorithm, least, most
        if os.name != "posix":
            raise ValueError(f"path must be None on a system without fcntl, got {path!r}")
        self._open(limit)
        _open_ledgers.add(self)

    def _open(self, limit: float) -> None:
        self._lock = threading.Lock()
        self._lease = 0
        self._checked: int | None = None
        self.owner = os.getpid()
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(self._path, flags, self._mode)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._map_words(limit)
            fcntl.flock(self._file, fcntl.LOCK_UN)
        except BaseException:
            os.close(self._file)
            self._file = -1
            raise

    def _map_words(self, limit: float) -> None:
        status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode) or status.st_size not in (0, _SIZE):
            raise ValueError(f"path must be a file of a ConcurrencyLimiter, got {self._path!r}")
        if not status.st_size:
            os.fchmod(self._file, self._mode)
            _allocate(self._file)
        self._map = mmap.mmap(self._file, _SIZE)
        self._words = memoryview(self._map).cast("Q")
        self.state = memoryview(self._map).cast("d")[_STATE]
        if not self._words[_AT_MAGIC]:
            self._lay_out(limit)
        self._attach()

    def _lay_out(self, limit: float) -> None:
        words = self._words
        words[_AT_VERSION] = _VERSION
        words[_AT_NAMESPACE], words[_AT_BOOT] = _namespace(), _boot()
        algorithm, words[_AT_LEAST], words[_AT_MOST] = self._settings
        words[_AT_ALGORITHM] = int.from_bytes(algorithm.encode(), "little")
        self.state[0] = limit
        words[_AT_MAGIC] = _MAGIC

    def _attach(self) -> None:
        words = self._words
        if words[_AT_MAGIC] != _MAGIC:
            raise ValueError(f"path must be a file of a ConcurrencyLimiter, got {self._path!r}")
        if words[_AT_VERSION] != _VERSION:
            raise ValueError(f"path must have layout {_VERSION}, got {words[_AT_VERSION]} in {self._path!r}")
        algorithm = words[_AT_ALGORITHM].to_bytes(_WORD, "little").rstrip(b"\0").decode()
        found = (algorithm, words[_AT_LEAST], words[_AT_MOST])
        for name, wanted, there in zip(_SETTINGS, self._settings, found, strict=True):
            if wanted != there:
                raise ValueError(f"{name} must be {there!r} as in {self._path!r}, got {wanted!r}")
        if words[_AT_BOOT] != _boot():
            words[_HEADER:] = memoryview(bytes(_SIZE - _HEADER * _WORD)).cast("Q")
            words[_AT_TOTAL] = 0
            words[_AT_NAMESPACE], words[_AT_BOOT] = _namespace(), _boot()
        if words[_AT_NAMESPACE] != _namespace():
            raise ValueError(f"path must belong to processes that see each other, got {self._path!r}")

    def __enter__(self) -> Self:
        self._lock.acquire()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)
        self._lock.release()

    @property
    def inflight(self) -> int:
        return self._words[_AT_TOTAL]

    def take(self, count: int) -> None:
        """Take permits, or give them back if `count` is negative."""
        words = self._words
        lease = self._lease or self._claim()
        if count > 0:
            words[_AT_TOTAL] += count
            words[lease + 2] += count
        else:
            words[lease + 2] += count
            words[_AT_TOTAL] += count

    def reclaim(self, now: int) -> None:
        """Free the leases of the dead and count all permits, if that was not done just now."""
        if self._checked is None or not self._checked <= now < self._checked + _PAUSE:
            self._checked = now
            self._free_dead()

    def _free_dead(self) -> None:
        words, total = self._words, 0
        for lease in range(_HEADER, len(words), _LEASE):
            pid, started, permits = words[lease : lease + _LEASE]
            if pid and not _is_alive(pid, started):
                self._clear(lease)
            elif pid:
                total += permits
        words[_AT_TOTAL] = total

    def _clear(self, lease: int) -> None:
        """Free a lease; its pid goes last, since without one it may be claimed."""
        for at in reversed(range(lease, lease + _LEASE)):
            self._words[at] = 0

    def _claim(self) -> int:
        lease = self._free_lease()
        if lease is None:
            self._free_dead()
            lease = self._free_lease()
        if lease is None:
            raise HeadgateError(f"{self._path!r} has no lease left: {_LEASES} processes share it")
        self._words[lease + 1] = _started(self.owner)
        self._words[lease] = self.owner
        self._lease = lease
        return lease

    def _free_lease(self) -> int | None:
        return next((at for at in range(_HEADER, len(self._words), _LEASE) if not self._words[at]), None)

    def _reopen(self) -> None:
        """In a child: a lock and a lease of its own, since the parent's lock would let the child in too."""
        os.close(self._file)
        self._open(self.state[0])

    def __del__(self) -> None:
        """Without the lock, which whoever is interrupted by the garbage collector may hold; so the total
        may stay too high until it is counted anew."""
        if self._file < 0:
            return
        if self._lease and self.owner == os.getpid():
            self._clear(self._lease)
        os.close(self._file)


def _reopen_all() -> None:
    for ledger in list(_open_ledgers):
        ledger._reopen()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reopen_all)
