"""What the shared files of running workers say, read without touching them.

A file is opened for reading and read by calls to the system; it is neither mapped, nor locked, nor created,
and its processes do not notice.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headgate.cli.shm.files import SharedFile, files_in, inspect_file, state
from headgate.cli.shm.headers import DamagedHeaderError

_LOOK_EVERY = 5.0
_SHARE = 10
"""A file is read again after ten times as long as reading it took: large tables take a while."""
_COUNTERS = "evictions", "good", "bad"

Row = dict[str, Any]


class Files:
    """The files at some places: found anew every few seconds, since workers come and go."""

    def __init__(self, places: Sequence[Path]) -> None:
        self._places = places
        self._looked_at: float | None = None
        self._watched: dict[Path, _Watched] = {}

    def read(self) -> list[Row]:
        """A row for each file. Raises CommandError if a place cannot be read."""
        now = time.monotonic()
        if self._looked_at is None or now >= self._looked_at + _LOOK_EVERY:
            self._looked_at = now
            self._look()
        return [watched.read(now) for watched in self._watched.values()]

    def _look(self) -> None:
        found: dict[Path, _Watched] = {}
        for place in self._places:
            for path in files_in(place):
                file = _inspected(path)
                if file is not None:
                    found[path] = self._watched.get(path) or _Watched()
                    found[path].file = file
        self._watched = found


def _inspected(path: Path) -> SharedFile | None:
    try:
        return inspect_file(path)
    except OSError:  # it is gone, or another user's
        return None


class _Watched:
    """A file, its last state, and what its counters were before."""

    def __init__(self) -> None:
        self.file: SharedFile
        self._next = 0.0
        self._taken_at = 0.0
        self._row: Row = {}

    def read(self, now: float) -> Row:
        if now >= self._next:
            self._row = self._taken(now)
            self._next = now + _SHARE * (time.monotonic() - now)
        return self._row

    def _taken(self, now: float) -> Row:
        file, before = self.file, self._row.get("state", {})
        try:
            found = state(file)
        except (DamagedHeaderError, OSError):
            found = {"damaged": True}
        seconds = now - self._taken_at
        rates = {name: max(0, found[name] - before[name]) / seconds
                 for name in _COUNTERS if seconds > 0 and name in found and name in before}
        self._taken_at = now
        return {
            "path": str(file.path), "bytes": file.bytes, "processes": file.processes,
            "settings": file.settings, "state": found, "per_second": rates,
        }
