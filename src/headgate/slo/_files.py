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
from collections import namedtuple
from time import time_ns

from headgate._base.durations import DAY, HOUR, written_duration
from headgate._base.shared_files import LONG_PATIENCE, SharedFile, boot_id, namespace
from headgate.slo._alerts import availability_of
from headgate.slo._rings import BAD, CURRENT, FIRST, GOOD, RINGS, WALL, WORDS, events_of, move, read
from headgate.slo._terms import checked_terms, first_epoch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike
    from typing import Any

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


class Header(namedtuple("Header", ["version", "boot", "namespace", "epoch", "settings"])):
    """The fields of the header of a file, the settings as reprs."""

    __slots__ = ()


def header_of(content: bytes) -> Header | None:
    """The header with which `content` begins, None if it is no file of an `SLO`."""
    if len(content) < HEADER:
        return None
    words = memoryview(content)[:HEADER].cast("Q")
    if words[_AT_MAGIC] != _MAGIC:
        return None
    lines = content[_TEXT].rstrip(b"\0").decode(errors="replace").splitlines()
    settings = {name: value for name, _, value in (line.partition("=") for line in lines)}
    epoch = (words[_AT_EPOCH] + _WORD // 2) % _WORD - _WORD // 2
    return Header(words[_AT_VERSION], words[_AT_BOOT], words[_AT_NAMESPACE], epoch, settings)


def state_of(content: bytes, header: Header, now: int) -> dict[str, Any]:
    """All events, and the availability of the last hour, day and window at the time `now`; of a file from
    before the last boot only the events, since its slots have not moved on.

    Raises ValueError if the file is damaged.
    """
    terms = terms_of(header)
    if len(content) < _SIZE:
        raise ValueError("the file is shorter than its header says")
    words = memoryview(bytearray(content[HEADER:_SIZE])).cast("Q")
    found: dict[str, Any] = {"good": words[GOOD], "bad": words[BAD]}
    if header.boot != boot_id():
        return found
    slot = move(words, max(0, (now - header.epoch) // terms.unit))
    windows = sorted({min(seconds, terms.window) for seconds in (HOUR, DAY, terms.window)})
    found["availability"] = {
        written_duration(seconds): availability_of(*events_of(words, slot, terms.slots(seconds)))
        for seconds in windows}
    return found


def terms_of(header: Header) -> Terms:
    """The window and the latency of a file, with any target. Raises ValueError for others than `SLO` has."""
    latency = header.settings["latency"]
    return checked_terms(
        99, float(header.settings["window"]), None if latency == "None" else float(latency), (), 0)


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

    def _join(self, content: bytes, now: int) -> None:
        there = header_of(content)
        if there is None:
            raise self._foreign()
        if there.version != VERSION:
            raise ValueError(f"path must have layout {VERSION}, got {there.version} in {self._path!r}")
        for name, wanted in self._settings.items():
            found = there.settings.get(name)
            if found != wanted:
                raise ValueError(f"{name} must be {found} as in {self._path!r}, got {wanted}")
        if there.boot != boot_id():
            self._move_on(now)
        elif there.namespace != namespace("time"):
            raise ValueError(f"path must belong to processes with one clock, got {self._path!r}")
        else:
            self.epoch = there.epoch

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
