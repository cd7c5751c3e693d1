"""The log of purges that worker processes share: a mapped file with a ring of records.

    words   | magic | layout | twin | bytes of the ring | reserved | published |
    ring    | records, from byte 4096 on, each of them behind two words: its position; its CRC and length |

Positions count the bytes ever written. A writer reserves a place, writes its record, and publishes what is
complete, in order; so a reader sees all records before a position, and finds news by loading one word. Each
step is one atomic change of one word, and no step waits for a lock: a writer that is killed, or stopped for
longer than `_PATIENCE`, leaves a hole, which is published when the next one has waited that long. A reader
that comes to a hole, or behind what was overwritten, knows only that records are lost: everything older must
go. A record that a stopped writer damages when it continues has another CRC, and is such a hole too.
"""

from __future__ import annotations

import os
import stat
import zlib
from time import monotonic, sleep

from headgate._base.backend import backend
from headgate._base.shared_files import LONG_PATIENCE, SharedFile
from headgate._base.words import Words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike

_MAGIC = int.from_bytes(b"hgPurge\n", "little")
_LAYOUT = 2
_AT_MAGIC, _AT_LAYOUT, _AT_TWIN, _AT_RING, _AT_RESERVED, _AT_PUBLISHED, _WORDS = range(7)
_HEADER = 4096
_WORD = 8
_HEAD = 2 * _WORD
RING = 2**20
LONGEST = 2**16 - 1
_PATIENCE, _PAUSE = 0.02, 1e-4


class SharedLog(SharedFile):
    """The purges of all processes that open the file at `path`.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     log, other = SharedLog(file.name), SharedLog(file.name)
    ...     before = other.position()
    ...     after = log.append(b"a")
    ...     other.position() == after, other.read(before), other.read(after)
    (True, [b'a'], [])
    """

    __slots__ = ("_map", "_memory", "_words", "shared")

    def __init__(self, path: str | PathLike[str], mode: int = 0o600) -> None:
        super().__init__(path, mode)
        self.shared = True
        while not self._file.locked(self._attach, patience=LONG_PATIENCE):
            self._open()
        self._words = Words(self._memory[: _WORDS * _WORD], self._file)

    def _attach(self) -> bool:
        """Map the file; False if it was removed meanwhile."""
        file, size = self._file.descriptor, _HEADER + RING
        status = os.fstat(file)
        if not status.st_nlink:
            return False
        if not stat.S_ISREG(status.st_mode) or status.st_size not in (0, size):
            raise self._foreign()
        self._check_owner(status)
        if not status.st_size:
            self._allocate(size)
        self._map = self._mapped(size)
        self._memory = memoryview(self._map)
        words = self._memory[:_HEADER].cast("Q")
        if not words[_AT_MAGIC]:
            os.fchmod(file, self._mode)
            words[_AT_LAYOUT], words[_AT_TWIN], words[_AT_RING] = _LAYOUT, _twin(), RING
            words[_AT_MAGIC] = _MAGIC
        if words[_AT_MAGIC] != _MAGIC:
            raise self._foreign()
        self._check_mode(os.fstat(file))
        found = words[_AT_LAYOUT], words[_AT_TWIN], words[_AT_RING]
        if found != (_LAYOUT, _twin(), RING):
            raise ValueError(f"path must be a file of this version of headgate and of its {backend} twin, "
                             f"got {self._path!r}")
        return True

    def _foreign(self) -> ValueError:
        return ValueError(f"path must be a file of an HTTPCache, got {self._path!r}")

    def position(self) -> int:
        """Where the next record will be published. Complexity: O(1), one word is loaded."""
        return self._words.load(_AT_PUBLISHED)

    def append(self, record: bytes, /) -> int:
        """Write a record, and return a position after it. All records are lost with one above `LONGEST`."""
        fits = len(record) <= LONGEST
        taken = _taken(record) if fits else RING + _WORD
        end = self._words.add(_AT_RESERVED, taken)
        if fits:
            self._write(end - taken, record)
        self._publish(end)
        return end

    def _write(self, start: int, record: bytes) -> None:
        """The word with the position is the last one written: with it the record is complete."""
        self._put(start + _HEAD, record)
        self._put(start + _WORD, (zlib.crc32(record) << 32 | len(record)).to_bytes(_WORD, "little"))
        self._put(start, (start + 1).to_bytes(_WORD, "little"))

    def _put(self, position: int, data: bytes) -> None:
        at = position % RING
        first = min(len(data), RING - at)
        self._memory[_HEADER + at : _HEADER + at + first] = data[:first]
        self._memory[_HEADER : _HEADER + len(data) - first] = data[first:]

    def _get(self, position: int, count: int) -> bytes:
        at = position % RING
        first = min(count, RING - at)
        start = bytes(self._memory[_HEADER + at : _HEADER + at + first])
        return start + bytes(self._memory[_HEADER : _HEADER + count - first])

    def _record(self, start: int) -> bytes | None:
        """The record at a position; None if there is no complete one."""
        head = self._get(start, _HEAD)
        if int.from_bytes(head[:_WORD], "little") != start + 1:
            return None
        check = int.from_bytes(head[_WORD:], "little")
        record = self._get(start + _HEAD, min(check & 0xFFFFFFFF, LONGEST))
        return record if zlib.crc32(record) == check >> 32 else None

    def _publish(self, end: int) -> None:
        """Publish up to `end`: what is complete, and after a while what is not."""
        words, deadline = self._words, monotonic() + _PATIENCE
        while (published := words.load(_AT_PUBLISHED)) < end:
            record = self._record(published)
            if record is not None:
                words.cas(_AT_PUBLISHED, published, published + _taken(record))
            elif end - published > RING or monotonic() >= deadline:
                words.cas(_AT_PUBLISHED, published, end)
            else:
                sleep(_PAUSE)

    def read(self, since: int, /) -> list[bytes] | None:
        """The records from a position on; None if some of them are lost. Complexity: O(n) for n bytes."""
        end, records = self.position(), []
        while since < end:
            record = self._record(since)
            if record is None or self._words.add(_AT_RESERVED, 0) - since > RING:
                return None
            records.append(record)
            since += _taken(record)
        return records if since == end else None


def _taken(record: bytes) -> int:
    """The bytes of the ring that a record takes: whole words."""
    return _HEAD + -(-len(record) // _WORD) * _WORD


def _twin() -> int:
    """The twins change words in different ways, and so must not share one."""
    return int.from_bytes(backend.encode(), "little")
