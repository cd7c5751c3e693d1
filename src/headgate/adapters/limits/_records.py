"""Records by key in a file that processes share: a hash table of buckets with one page each.

    words  | tag | tag | end | state | four words of payload |

The 64 records of a bucket are all that can hold a key of it. A record is dead at its `end`, in nanoseconds of
the monotonic clock; a new key takes the place of the record that ends first, dead or not.

All is read and written while the file is locked. A process may be killed between any two stores of a word,
so each change becomes valid with its last store.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from time import monotonic_ns

from headgate._base.sizes import checked_size
from headgate.limit._files import HEADER, SharedTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike
    from typing import Any

RECORD, END, STATE, PAYLOAD = 8, 2, 3, 4
_PAGE, _WAYS, _BYTES = 4096, 64, 64
_BUCKET = _PAGE // 8
_TAG = 15


class Records(SharedTable):
    """The file of a storage: `size` bytes, with the table behind a header of one page."""

    __slots__ = ("_buckets", "words")

    def __init__(self, path: str | PathLike[str], size: int | str, mode: int) -> None:
        total = checked_size("size", size)
        self._buckets = (total - HEADER) // _PAGE
        if self._buckets < 1:
            raise ValueError(f"size must be at least {HEADER + _PAGE} bytes, got {size!r}")
        settings = {"limiter": "HeadgateStorage", "size": total}
        super().__init__(path, mode, settings, self._buckets * _PAGE, monotonic_ns())
        self.words = memoryview(self.map).cast("Q")

    def locked_within(self, patience: float, function: Callable[..., Any], *args: Any) -> Any:
        """What ``function(*args)`` returns, called while no other thread or process does so.

        Raises HeadgateError if another process holds the lock for longer than `patience` seconds.
        """
        return self._file.locked(function, *args, patience=patience)

    def exists(self) -> bool:
        """Whether the path still names the file, so that processes to come share it too."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._file.descriptor))
        except FileNotFoundError:
            return False

    def tag(self, kind: bytes, key: bytes) -> bytes:
        """What identifies a key of a kind, a letter: a keyed hash of 120 bits, and the letter."""
        return blake2b(key, digest_size=_TAG, key=self.secret, person=kind).digest() + kind

    def find(self, tag: bytes) -> int:
        """The word at which the record of a tag begins, dead or not; 0 if there is none."""
        start = self._bucket(tag)
        page = self.map[start : start + _PAGE]
        at = page.find(tag)
        while at > 0 and at % _BYTES:
            at = page.find(tag, at + 1)
        return (start + at) // 8 if at >= 0 else 0

    def find_live(self, tag: bytes, now: int) -> int:
        """As `find`, 0 for a dead one."""
        at = self.find(tag)
        return at if at and self.words[at + END] > now else 0

    def claim(self, tag: bytes) -> int:
        """As `find`; if there is none, a dead record of that tag in place of the one that ends first."""
        at = self.find(tag)
        if at:
            return at
        words, first = self.words, self._bucket(tag) // 8
        ends = words[first + END : first + _BUCKET : RECORD].tolist()
        at = first + ends.index(min(ends)) * RECORD
        words[at + END] = 0
        for word in range(at + STATE, at + RECORD):
            words[word] = 0
        self.map[8 * at : 8 * at + len(tag)] = tag
        return at

    def drop(self, tag: bytes) -> None:
        at = self.find(tag)
        if at:
            self.words[at + END] = 0

    def clear(self, kinds: bytes, now: int) -> int:
        """Empty the table; how many records of these kinds were live."""
        count = 0
        for start in range(HEADER, len(self.map), _PAGE):
            first = start // 8
            ends = self.words[first + END : first + _BUCKET : RECORD].tolist()
            if any(ends):
                letters = self.map[start + _TAG : start + _PAGE : _BYTES]
                count += sum(end > now and kind in kinds for end, kind in zip(ends, letters, strict=True))
                self.map[start : start + _PAGE] = bytes(_PAGE)
        return count

    def _bucket(self, tag: bytes) -> int:
        return HEADER + int.from_bytes(tag[:8], "little") % self._buckets * _PAGE
