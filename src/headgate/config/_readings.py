"""Readings of the files of a document: when what they contain has changed, and is whole.

A file that was replaced, by a rename or a symbolic link, is complete once its name is there; one that is
edited in place may be read half-written, and a YAML file cut off anywhere is often valid. So content counts
when two readings agree: the second comes shortly after the first if a file was replaced, as some editors
write what they have created, and an interval later if it is another content of the same file.
"""

from __future__ import annotations

import os
import stat
from hashlib import blake2b
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SETTLING = 0.02
"""The seconds between the two readings of a file that was replaced."""
_SPECIAL = "it is no regular file"
_MOST_BYTES = 16 * 2**20
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class Reading(NamedTuple):
    """A file as it was read: which file it was, when it was written, and a hash of what it contained. One
    that could not be read has the error in its place.
    """

    identity: tuple[int, int] | None
    written: int
    content: bytes | str


def read_file(path: str) -> Reading:
    """A reading of a file; no error is raised.

    >>> read_file("no such file").content
    'FileNotFoundError'
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        return Reading(None, 0, type(error).__name__)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return Reading(None, 0, _SPECIAL)
        found = blake2b(digest_size=16)
        left = _MOST_BYTES
        while left > 0 and (data := os.read(descriptor, min(left, 2**20))):
            found.update(data)
            left -= len(data)
        return Reading((status.st_dev, status.st_ino), status.st_mtime_ns, found.digest())
    except OSError as error:
        return Reading(None, 0, type(error).__name__)
    finally:
        os.close(descriptor)


class Readings:
    """What the files of a document contain, and what of it is new to the caller.

    ``look`` reads them and returns whether they have a new content that is whole. Then the caller reads the
    document, asks ``is_same`` whether that was it, and calls ``done`` when it has dealt with it. `pause` is
    the time until the next look. At first everything is new.

    >>> readings = Readings(["no such file"], every=1)
    >>> readings.look(), readings.pause, readings.look(), readings.done(), readings.look()
    (False, 0.02, True, None, False)
    """

    __slots__ = ("_candidate", "_known", "_seen", "every", "paths", "pause")

    def __init__(self, paths: Iterable[str], every: float) -> None:
        self.paths = _distinct(paths)
        self.every = self.pause = every
        self._seen = self._read()
        self._known: dict[str, bytes | str] = {}
        self._candidate: dict[str, Reading] | None = None

    def look(self) -> bool:
        """Read all files; whether they changed and two readings agree."""
        found = self._read()
        self.pause = self.every
        before, self._seen = self._seen, found
        if _contents(found) == self._known:
            self._candidate = None
            return False
        if found == self._candidate:
            return True
        self._candidate = found
        if _are_replaced(before, found):
            self.pause = min(SETTLING, self.every)
        return False

    @property
    def special(self) -> str | None:
        """A file that is a pipe, a device or a folder, which may keep a reader waiting without end."""
        return next((path for path, reading in self._seen.items() if reading.content == _SPECIAL), None)

    def is_same(self) -> bool:
        """Whether the files still are as they were when looked at; if not, that is to be confirmed anew."""
        found = self._read()
        if found == self._candidate:
            return True
        self._candidate = self._seen = found
        return False

    def done(self, paths: Iterable[str] = ()) -> None:
        """What was looked at is dealt with; `paths` are the files from now on, if there are other ones."""
        if self._candidate is not None:
            self._known = _contents(self._candidate)
        self._candidate = None
        self.paths = _distinct(paths) or self.paths
        for path in self.paths:
            if path not in self._seen:
                self._seen[path] = read_file(path)
                self._known[path] = self._seen[path].content
        self._known = {path: self._known[path] for path in self.paths}

    def _read(self) -> dict[str, Reading]:
        return {path: read_file(path) for path in self.paths}


def _distinct(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(paths))


def _contents(readings: dict[str, Reading]) -> dict[str, bytes | str]:
    return {path: reading.content for path, reading in readings.items()}


def _are_replaced(before: dict[str, Reading], after: dict[str, Reading]) -> bool:
    """Whether each file whose content changed is another file now, and can be read."""
    return all(
        reading.identity is not None and reading.identity != before[path].identity
        for path, reading in after.items()
        if path not in before or reading.content != before[path].content
    )
