"""The ledger of a concurrency limit that processes share: a file with a slot for each of them.

    words  | magic | version | pid namespace | boot | algorithm, bounds | permits in all, and changes |
    state  | limit | the other state of the algorithm |
    twin   | 7 words that are not used |
    slots  | which process: 44 bits | its permits: 20 bits |          one per possible process

The header is written under a lock that the kernel drops with the process that holds it; all else changes by
compare-and-swap. A process raises its own slot before the permits in all and lowers it after them, so one
that is stopped or killed in between leaves them too high, never too low. When a request is about to be
denied, the slots of processes that have ended are freed, and the permits in all lowered to what the others
have. A process is identified by its pid and the time at which it started.
"""

from __future__ import annotations

import os
import stat
import sys

from headgate._base.backend import backend
from headgate._base.forks import new_lock, renew
from headgate._base.shared_files import LONG_PATIENCE, SharedFile, boot_id, namespace, read_bytes
from headgate._base.words import Words
from headgate.errors import HeadgateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike
    from typing import Any

_MAGIC = int.from_bytes(b"hgLease\n", "little")
_VERSION = 2
_WORD = 8
_AT_MAGIC, _AT_VERSION, _AT_NAMESPACE, _AT_BOOT, _AT_ALGORITHM, _AT_LEAST, _AT_MOST, _AT_TOTAL = range(8)
_AT_STATE, _AT_TWIN, _AT_SLOTS = 8, 16, 24
_SLOTS = 1000
SIZE = _WORD * (_AT_SLOTS + _SLOTS)
_SLOT = _AT_SLOTS - _AT_TOTAL
_PAUSE = 100_000_000
_SETTINGS = ("algorithm", "min_limit", "max_limit", "twin")
_FIXED = "fixed"
_ONE = 2**32
_COUNT, _PERMITS, _PID, _START = 2**32 - 1, 2**20 - 1, 2**22 - 1, 2**22 - 1
_UNKNOWN, _ZOMBIE = 0, -1


def _started(pid: int) -> int:
    """When a process started, so that a later one with the same pid is not taken for it."""
    fields = read_bytes(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    if not fields:
        return _UNKNOWN
    return _ZOMBIE if fields[0] in (b"Z", b"X") else int(fields[19])


def _tag(pid: int, started: int) -> int:
    """The slot of a process without permits."""
    return ((started & _START) << 22 | pid & _PID) << 20


def _is_alive(slot: int) -> bool:
    pid = slot >> 20 & _PID
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    started = _started(pid)
    return started == _UNKNOWN or (started != _ZOMBIE and _tag(pid, started) == slot & ~_PERMITS)


class SharedLedger(SharedFile):
    """The ledger of headgate.limit._concurrency in a file."""

    __slots__ = (
        "_checked", "_claiming", "_map", "_settings", "_words", "owner", "permits", "slot", "state",
    )

    def __init__(
        self, path: str | PathLike[str], mode: int, limit: int, algorithm: str, least: int, most: int
    ) -> None:
        self._settings = algorithm, least, most, backend
        super().__init__(path, mode)
        while not self._file.locked(self._attach, limit, patience=LONG_PATIENCE):
            self._open()
        self.permits = Words(self._words[_AT_TOTAL:], self._file)
        self.state = Words(self._words[_AT_STATE:_AT_TWIN], self._file)
        self._claiming = new_lock()
        self._renew()
        renew(self)

    def _renew(self) -> None:
        """In a child of a fork too: it claims a slot of its own when it takes a permit."""
        self.slot = 0
        self._checked: int | None = None
        self.owner = os.getpid()

    def _attach(self, limit: int) -> bool:
        """Map the file; False if it was removed meanwhile."""
        file = self._file.descriptor
        status = os.fstat(file)
        if not status.st_nlink:
            return False
        if not stat.S_ISREG(status.st_mode) or status.st_size not in (0, SIZE):
            raise self._foreign()
        self._check_owner(status)
        if not status.st_size:
            self._allocate(SIZE)
        self._map = self._mapped(SIZE)
        self._words = memoryview(self._map).cast("Q")
        if not self._words[_AT_MAGIC]:
            os.fchmod(file, self._mode)
            self._lay_out(limit)
        self._check_header(limit)
        return True

    def _foreign(self) -> ValueError:
        return ValueError(f"path must be a file of a ConcurrencyLimiter, got {self._path!r}")

    def _lay_out(self, limit: int) -> None:
        words = self._words
        words[_AT_VERSION] = _VERSION
        words[_AT_NAMESPACE], words[_AT_BOOT] = namespace("pid"), boot_id()
        algorithm, words[_AT_LEAST], words[_AT_MOST], twin = self._settings
        words[_AT_ALGORITHM], words[_AT_TWIN] = _word(algorithm), _word(twin)
        words[_AT_STATE] = limit
        words[_AT_MAGIC] = _MAGIC

    def _check_header(self, limit: int) -> None:
        words = self._words
        if words[_AT_MAGIC] != _MAGIC:
            raise self._foreign()
        self._check_mode(os.fstat(self._file.descriptor))
        if words[_AT_VERSION] != _VERSION:
            raise ValueError(f"path must have layout {_VERSION}, got {words[_AT_VERSION]} in {self._path!r}")
        for name, wanted, there in zip(_SETTINGS, self._settings, _found(words), strict=True):
            if wanted != there:
                raise ValueError(f"{name} must be {there!r} as in {self._path!r}, got {wanted!r}")
        if self._settings[0] == _FIXED and limit != words[_AT_STATE]:
            there = words[_AT_STATE] / _ONE
            raise ValueError(f"limit must be {there:.0f} as in {self._path!r}, got {limit / _ONE:.0f}")
        if words[_AT_BOOT] != boot_id():
            words[_AT_SLOTS:] = memoryview(bytes(_SLOTS * _WORD)).cast("Q")
            words[_AT_TOTAL] = 0
            words[_AT_NAMESPACE], words[_AT_BOOT] = namespace("pid"), boot_id()
        if words[_AT_NAMESPACE] != namespace("pid"):
            raise ValueError(f"path must belong to processes that see each other, got {self._path!r}")

    @property
    def inflight(self) -> int:
        return self.permits.load(0) & _COUNT

    def reclaim(self, now: int) -> None:
        """Free the slots of processes that have ended and count all permits, unless that was just done."""
        if self._checked is None or not self._checked <= now < self._checked + _PAUSE:
            self._checked = now
            self._free_dead()
            self.permits.recount(self._count)

    def _slots(self) -> enumerate[int]:
        """The slots with their indexes, as they are now."""
        return enumerate(self.permits.load_from(_SLOT), _SLOT)

    def _count(self) -> int:
        return sum([word & _PERMITS for _, word in self._slots()])

    def _free_dead(self) -> None:
        for at, word in self._slots():
            if word and not _is_alive(word):
                self.permits.cas(at, word, 0)

    def claim(self) -> int:
        """The slot of this process: the one that it has already, or a free one."""
        own = _tag(self.owner, _started(self.owner))
        with self._claiming:
            slot = self.slot or self._slot_of(own) or self._free_slot(own)
            if not slot:
                self._free_dead()
                slot = self._free_slot(own)
            if not slot:
                raise HeadgateError(f"{self._path!r} has no slot left: {_SLOTS} processes share it")
            self.slot = slot
        return slot

    def _slot_of(self, own: int) -> int:
        found = (at for at, word in self._slots() if word & ~_PERMITS == own)
        return next(found, 0)

    def _free_slot(self, own: int) -> int:
        free = (at for at, word in self._slots() if not word)
        return next((at for at in free if self.permits.cas(at, 0, own)), 0)


def _word(name: str) -> int:
    return int.from_bytes(name.encode(), "little")


def _name(word: int) -> str:
    return word.to_bytes(_WORD, "little").rstrip(b"\0").decode(errors="replace")


def _found(words: memoryview) -> tuple[str, int, int, str]:
    """The settings that a header has."""
    return _name(words[_AT_ALGORITHM]), words[_AT_LEAST], words[_AT_MOST], _name(words[_AT_TWIN])


def is_ledger(content: bytes) -> bool:
    """Whether `content` is that of a ledger."""
    return len(content) == SIZE and int.from_bytes(content[:_WORD], sys.byteorder) == _MAGIC


def settings_of(content: bytes) -> dict[str, Any]:
    """The settings in the content of a ledger, of another version only which; ValueError if it is damaged."""
    words = memoryview(content).cast("Q")
    if words[_AT_VERSION] != _VERSION:
        return {"limiter": f"of layout {words[_AT_VERSION]}"}
    limit = words[_AT_STATE] / _ONE
    settings: dict[str, Any] = dict(zip(_SETTINGS, _found(words), strict=True))
    least, most = settings["min_limit"], settings["max_limit"]
    if not (settings["algorithm"].isidentifier() and 1 <= least <= most and least <= limit <= most):
        raise ValueError(f"no ConcurrencyLimiter has {settings} and the limit {limit}")
    if settings["algorithm"] == _FIXED:
        settings["limit"] = int(limit)
    return {"limiter": "ConcurrencyLimiter"} | settings


def state_of(content: bytes) -> dict[str, Any]:
    """The limit, how many requests are in flight, and how many of each process that has a slot; nothing if
    the system was restarted since."""
    words = memoryview(content).cast("Q")
    if words[_AT_BOOT] != boot_id():
        return {}
    permits: dict[int, int] = {}
    for word in words[_AT_SLOTS:].tolist():
        if word:
            pid = word >> 20 & _PID
            permits[pid] = permits.get(pid, 0) + (word & _PERMITS)
    return {"limit": words[_AT_STATE] / _ONE, "inflight": words[_AT_TOTAL] & _COUNT, "permits": permits}
