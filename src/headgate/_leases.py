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

import os
import stat
import sys

from headgate._forks import renew
from headgate._shared import SHARES_FILES, SharedFile, boot_id, namespace, read_bytes
from headgate.errors import HeadgateError

if SHARES_FILES:
    import fcntl
    import mmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike
    from typing import Any, Self

_MAGIC = int.from_bytes(b"hgLease\n", "little")
_VERSION = 1
_WORD = 8
_AT_MAGIC, _AT_VERSION, _AT_NAMESPACE, _AT_BOOT, _AT_ALGORITHM, _AT_LEAST, _AT_MOST, _AT_TOTAL = range(8)
_STATE = slice(8, 16)
_HEADER = 16
_LEASE = 3
_LEASES = 1000
SIZE = _WORD * (_HEADER + _LEASE * _LEASES)
_PAUSE = 100_000_000
_PATIENCE = 1.0
_SETTINGS = ("algorithm", "min_limit", "max_limit")
_FIXED = "fixed"
_UNKNOWN, _ZOMBIE = 0, -1


def _started(pid: int) -> int:
    """When a process started, so that a later one with the same pid is not taken for it."""
    fields = read_bytes(f"/proc/{pid}/stat").rpartition(b")")[2].split()
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


class SharedLedger(SharedFile):
    """The ledger of headgate._concurrency in a file."""

    __slots__ = ("_checked", "_lease", "_map", "_settings", "_words", "owner", "state")

    def __init__(
        self, path: str | PathLike[str], mode: int, limit: float, algorithm: str, least: int, most: int
    ) -> None:
        self._lease = 0
        self._settings = algorithm, least, most
        super().__init__(path, mode)
        while not self._begin(limit):
            self._open()
        renew(self)

    def __enter__(self) -> Self:
        file = self._file
        file._lock.acquire()
        file._depth += 1
        try:
            file._lock_file(_PATIENCE)
        except BaseException:
            file._depth -= 1
            file._lock.release()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        file = self._file
        file._depth -= 1
        if not file._depth:
            fcntl.flock(file.descriptor, fcntl.LOCK_UN)
        file._lock.release()

    def _begin(self, limit: float) -> bool:
        """Map the file; False if it was removed meanwhile."""
        with self:
            if not os.fstat(self._file.descriptor).st_nlink:
                return False
            self._map_words(limit)
        return True

    def _map_words(self, limit: float) -> None:
        self._lease = 0
        self._checked: int | None = None
        self.owner = os.getpid()
        status = os.fstat(self._file.descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size not in (0, SIZE):
            raise self._foreign()
        self._check_owner(status)
        if not status.st_size:
            self._allocate(SIZE)
        self._map = mmap.mmap(self._file.descriptor, SIZE)
        self._words = memoryview(self._map).cast("Q")
        self.state = memoryview(self._map).cast("d")[_STATE]
        if not self._words[_AT_MAGIC]:
            os.fchmod(self._file.descriptor, self._mode)
            self._lay_out(limit)
        self._attach(limit)

    def _foreign(self) -> ValueError:
        return ValueError(f"path must be a file of a ConcurrencyLimiter, got {self._path!r}")

    def _lay_out(self, limit: float) -> None:
        words = self._words
        words[_AT_VERSION] = _VERSION
        words[_AT_NAMESPACE], words[_AT_BOOT] = namespace("pid"), boot_id()
        algorithm, words[_AT_LEAST], words[_AT_MOST] = self._settings
        words[_AT_ALGORITHM] = int.from_bytes(algorithm.encode(), "little")
        self.state[0] = limit
        words[_AT_MAGIC] = _MAGIC

    def _attach(self, limit: float) -> None:
        words = self._words
        if words[_AT_MAGIC] != _MAGIC:
            raise self._foreign()
        self._check_mode(os.fstat(self._file.descriptor))
        if words[_AT_VERSION] != _VERSION:
            raise ValueError(f"path must have layout {_VERSION}, got {words[_AT_VERSION]} in {self._path!r}")
        found = (_algorithm(words), words[_AT_LEAST], words[_AT_MOST])
        for name, wanted, there in zip(_SETTINGS, self._settings, found, strict=True):
            if wanted != there:
                raise ValueError(f"{name} must be {there!r} as in {self._path!r}, got {wanted!r}")
        if self._settings[0] == _FIXED and limit != self.state[0]:
            raise ValueError(f"limit must be {self.state[0]:.0f} as in {self._path!r}, got {limit:.0f}")
        if words[_AT_BOOT] != boot_id():
            words[_HEADER:] = memoryview(bytes(SIZE - _HEADER * _WORD)).cast("Q")
            words[_AT_TOTAL] = 0
            words[_AT_NAMESPACE], words[_AT_BOOT] = namespace("pid"), boot_id()
        if words[_AT_NAMESPACE] != namespace("pid"):
            raise ValueError(f"path must belong to processes that see each other, got {self._path!r}")

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
        words, others = self._words, 0
        for lease in range(_HEADER, len(words), _LEASE):
            pid, started, permits = words[lease : lease + _LEASE]
            if pid and not _is_alive(pid, started):
                self._clear(lease)
            elif pid and lease != self._lease:
                others += permits
        words[_AT_TOTAL] = others + (words[self._lease + 2] if self._lease else 0)

    def _clear(self, lease: int, size: int = _LEASE) -> None:
        """Free a lease; its pid goes last, since without one it may be claimed."""
        for at in reversed(range(lease, lease + size)):
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

    def _renew(self) -> None:
        """In a child: a lease of its own too."""
        self._lease, self._checked, self.owner = 0, None, os.getpid()

    def __del__(self, getpid: Callable[[], int] = os.getpid) -> None:
        """Without the lock, which whoever is interrupted by the garbage collector may hold; so the total
        may stay too high until it is counted anew."""
        if self._lease and self.owner == getpid():
            self._clear(self._lease)


def is_ledger(content: bytes) -> bool:
    """Whether `content` is that of a ledger."""
    return len(content) == SIZE and int.from_bytes(content[:_WORD], sys.byteorder) == _MAGIC


def settings_of(content: bytes) -> dict[str, Any]:
    """The settings in the content of a ledger, of another version only which; ValueError if it is damaged."""
    words = memoryview(content).cast("Q")
    if words[_AT_VERSION] != _VERSION:
        return {"limiter": f"of layout {words[_AT_VERSION]}"}
    least, most, limit = words[_AT_LEAST], words[_AT_MOST], memoryview(content).cast("d")[_STATE][0]
    algorithm = _algorithm(words)
    settings = dict(zip(_SETTINGS, (algorithm, least, most), strict=True))
    if not (algorithm.isidentifier() and 1 <= least <= most and least <= limit <= most):
        raise ValueError(f"no ConcurrencyLimiter has {settings} and the limit {limit}")
    if algorithm == _FIXED:
        settings["limit"] = int(limit)
    return {"limiter": "ConcurrencyLimiter"} | settings


def state_of(content: bytes) -> dict[str, Any]:
    """The limit, how many are under way, and how many of each process that has a lease; nothing if that was
    before the system was started."""
    words, reals = memoryview(content).cast("Q"), memoryview(content).cast("d")[_STATE]
    if words[_AT_BOOT] != boot_id():
        return {}
    leases = [words[at : at + _LEASE].tolist() for at in range(_HEADER, len(words), _LEASE)]
    permits: dict[int, int] = {}
    for pid, _, count in leases:
        if pid:
            permits[pid] = permits.get(pid, 0) + count
    return {"limit": reals[0], "inflight": words[_AT_TOTAL], "permits": permits}


def _algorithm(words: memoryview) -> str:
    return words[_AT_ALGORITHM].to_bytes(_WORD, "little").rstrip(b"\0").decode(errors="replace")
