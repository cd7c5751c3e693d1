"""The source of all viewers: one thread that takes a reading at a time, while anyone looks."""

from __future__ import annotations

import json
from collections import deque
from threading import Thread
from time import monotonic, sleep

from headgate._base.forks import new_lock, renew
from headgate.cache._listeners import report
from headgate.httpcache._changes import Changes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LINGER = 60.0
"""How many seconds the thread goes on without viewers, so that their charts outlive a reload."""
_POINTS = 300


class Feed:
    """The newest document as JSON, the past of its series, and how many look.

    `read` returns a document with ``at`` and ``series``. It is called every `every` seconds by one thread,
    which runs from the first viewer on until there has been none for a minute, and by ``current`` if the
    document is older than that. At most `viewers` are admitted. Nothing is queued for them: who is slow
    misses documents.

    >>> feed = Feed(lambda: {"at": 5, "series": {"a": 1}}, 1.0, 1)
    >>> feed.current(), feed.past()
    (b'{"at":5,"series":{"a":1}}', b'[{"at":5,"series":{"a":1}}]')
    >>> feed.enter(), feed.enter(), feed.leave(), feed.viewers
    (True, False, None, 0)
    """

    __slots__ = ("__weakref__", "_document", "_every", "_last_left", "_lock", "_most", "_past", "_read",
                 "_reading", "_taken_at", "_thread", "changes", "viewers")

    def __init__(self, read: Callable[[], dict[str, Any]], every: float, viewers: int) -> None:
        self._read, self._every, self._most = read, every, viewers
        self._lock, self._reading = new_lock(), new_lock()
        self._past: deque[dict[str, Any]] = deque(maxlen=_POINTS)
        self._document = b""
        self._taken_at = -every
        self._renew()
        renew(self)

    def _renew(self) -> None:
        """In the child of a fork there is no thread, and no viewer."""
        self._thread: Thread | None = None
        self.changes = Changes()
        self.viewers = 0
        self._last_left = 0.0

    def enter(self) -> bool:
        """Count a viewer, unless there are too many."""
        with self._lock:
            if self.viewers >= self._most:
                return False
            self.viewers += 1
            if self._thread is None:
                self._thread = Thread(target=self._run, name="headgate-dashboard", daemon=True)
                self._thread.start()
        return True

    def leave(self) -> None:
        """Count a viewer no longer."""
        with self._lock:
            self.viewers -= 1
            self._last_left = monotonic()

    def current(self) -> bytes:
        """The newest document; a new one if that is older than the interval."""
        with self._reading:
            if monotonic() - self._taken_at >= self._every:
                self._take()
            return self._document

    def latest(self) -> bytes:
        """The newest document as it is, empty before the first one."""
        return self._document

    def past(self) -> bytes:
        """The series of the last documents, oldest first."""
        with self._reading:
            return _encoded(list(self._past))

    def _take(self) -> None:
        document = self._read()
        self._past.append({"at": document["at"], "series": document["series"]})
        self._document = _encoded(document)
        self._taken_at = monotonic()
        self.changes.add()

    def _run(self) -> None:
        while not self._is_over():
            started = monotonic()
            try:
                with self._reading:
                    self._take()
            except Exception as error:
                report(error)
            sleep(max(self._every / 10, self._every - (monotonic() - started)))

    def _is_over(self) -> bool:
        with self._lock:
            over = not self.viewers and monotonic() - self._last_left > _LINGER
            if over:
                self._thread = None
        return over


def _encoded(value: Any) -> bytes:
    """JSON in ASCII: without line ends, which end a field of an event, and without bytes to decode."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def event(data: bytes, name: str = "") -> bytes:
    """An event of a stream.

    >>> event(b"[]", "past"), event(b"{}")
    (b'event: past\\ndata: []\\n\\n', b'data: {}\\n\\n')
    """
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + data + b"\n\n"
