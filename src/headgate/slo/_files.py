"""Files in which processes share the counts of an SLO.

    words  | magic | layout | boot | time namespace | epoch |
    text   | of which twin, with which settings: a line each |
    counts | from byte 4096 on: the words of rings.h |

A header is read and written under a lock that the kernel drops with the process that holds it, and by one
call to the system; until there is one, all is zero. Slots are counted from the epoch by a clock that starts
with the system. After a restart the epoch is set anew, such that the slots have moved on by the time that
the wall clock says has passed since the current slot began, and never back.
"""

from __future__ import annotations

import os
import stat
from time import time_ns

from headgate._base.shared_files import LONG_PATIENCE, SharedFile, boot_id, namespace
from headgate.slo._rings import BAD, CURRENT, FIRST, GOOD, RINGS, WALL, WORDS, read
from headgate.slo._terms import first_epoch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike

    from headgate.slo._terms import Terms

HEADER = 4096
_MAGIC = int.from_bytes(b"hgSLO\n\0\0", "little")
VERSION = 1
_SIZE = HEADER + 8 * WORDS
_AT_MAGIC, _AT_VERSION, _AT_BOOT, _AT_NAMESPACE, _AT_EPOCH = range(5)
_TEXT = slice(64, HEADER)
_WORD = 2**64
_MOST_NANOSECONDS = 2**62
_OWN = 0o600


def wall_clock() -> int:
    """Nanoseconds since 1970."""
    return time_ns()


class SharedCounts(SharedFile):
    """The file of an `SLO`, mapped; its slots are counted from `epoch`."""

    __slots__ = ("_settings", "_unit", "epoch", "map")

    def __init__(self, path: str | PathLike[str], twin: str, terms: Terms, now: int) -> None:
        super().__init__(path, _OWN)
        self._settings = {"twin": twin, "window": repr(terms.window), "latency": repr(terms.latency)}
        self._unit = terms.unit
        while not self._file.locked(self._attach, now, patience=LONG_PATIENCE):
            self._open()

    def _attach(self, now: int) -> bool:
        """Map the file; False if it was removed meanwhile."""
        file = self._file.descriptor
        status = os.fstat(file)
        if not status.st_nlink:
            return False
        if not stat.S_ISREG(status.st_mode) or status.st_size not in (0, _SIZE):
            raise self._foreign()
        self._check_owner(status)
        if not status.st_size:
            os.fchmod(file, self._mode)
            self._allocate(_SIZE)
        self.map = self._mapped(_SIZE)
        header = self.map[:HEADER]
        if any(header):
            self._check_mode(status)
            self._join(header, now)
        else:
            self._begin(now)
        return True

    def _foreign(self) -> ValueError:
        return ValueError(f"path must be a file of an SLO, got {self._path!r}")

    def _begin(self, now: int) -> None:
        words = self._counts()
        epoch = first_epoch(now, self._unit)
        words[CURRENT] = words[FIRST] = (now - epoch) // self._unit
        words[WALL] = wall_clock()
        self._write_header(epoch)

    def _join(self, header: bytes, now: int) -> None:
        words = memoryview(header).cast("Q")
        if words[_AT_MAGIC] != _MAGIC:
            raise self._foreign()
        if words[_AT_VERSION] != VERSION:
            raise ValueError(f"path must have layout {VERSION}, got {words[_AT_VERSION]} in {self._path!r}")
        lines = header[_TEXT].rstrip(b"\0").decode(errors="replace").splitlines()
        there = {name: value for name, _, value in (line.partition("=") for line in lines)}
        for name, wanted in self._settings.items():
            if there.get(name) != wanted:
                raise ValueError(f"{name} must be {there.get(name)} as in {self._path!r}, got {wanted}")
        if words[_AT_BOOT] != boot_id():
            self._move_on(now)
        elif words[_AT_NAMESPACE] != namespace("time"):
            raise ValueError(f"path must belong to processes with one clock, got {self._path!r}")
        else:
            self.epoch = (words[_AT_EPOCH] + _WORD // 2) % _WORD - _WORD // 2

    def _move_on(self, now: int) -> None:
        """Set the epoch anew after a restart, and the counts to those of the last snapshot if they are older:
        what is mapped is not written to the disk in order.
        """
        words = self._counts()
        slots = words[CURRENT] * self._unit + max(0, wall_clock() - words[WALL])
        if slots >= _MOST_NANOSECONDS:
            raise ValueError(f"path must be a file that is not damaged, got {self._path!r}")
        current, newest = words[CURRENT], RINGS[0]
        slots_back = range(current - 1, max(-1, current - 1 - newest.snapshots), -1)
        found = (read(words, newest, slot, (_WORD, _WORD)) for slot in slots_back)
        last = next(filter(None, found), (0, 0))
        words[GOOD], words[BAD] = max(words[GOOD], last[0]), max(words[BAD], last[1])
        self._write_header(now - slots)

    def _write_header(self, epoch: int) -> None:
        header = bytearray(HEADER)
        words = memoryview(header).cast("Q")
        words[_AT_MAGIC], words[_AT_VERSION] = _MAGIC, VERSION
        words[_AT_BOOT], words[_AT_NAMESPACE] = boot_id(), namespace("time")
        words[_AT_EPOCH] = epoch % _WORD
        text = "".join(f"{name}={value}\n" for name, value in self._settings.items()).encode()
        header[_TEXT.start : _TEXT.start + len(text)] = text
        os.pwrite(self._file.descriptor, bytes(header), 0)
        self.epoch = epoch

    def _counts(self) -> memoryview[int]:
        return memoryview(self.map)[HEADER:].cast("Q")
