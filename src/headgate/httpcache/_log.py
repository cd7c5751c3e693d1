"""The purges of a process, so that the result of a request that was under way is not stored after one."""

from __future__ import annotations

from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class ProcessLog(Protocol):
        """What a cache needs of the log of its host, of one process or shared by several."""

        shared: bool

        def position(self) -> int:
            """What changes with every record."""

        def append(self, record: bytes, /) -> int:
            """Writes a record, and returns the position after it."""

        def read(self, since: int, /) -> list[bytes] | None:
            """The records from a position on, None if some of them are lost."""


MOST_RECORDS = 1024


class LocalLog:
    """The last purges of one process; at most `MOST_RECORDS`, the oldest are lost.

    >>> log = LocalLog()
    >>> log.append(b"a"), log.append(b"b"), log.read(1), log.position()
    (1, 2, [b'b'], 2)
    """

    __slots__ = ("_position", "_records", "shared")

    def __init__(self) -> None:
        self.shared = False
        self._position = 0
        self._records: deque[bytes] = deque(maxlen=MOST_RECORDS)

    def position(self) -> int:
        """How many records were ever written."""
        return self._position

    def append(self, record: bytes, /) -> int:
        """Writes a record, and returns the position after it."""
        self._records.append(record)
        self._position += 1
        return self._position

    def read(self, since: int, /) -> list[bytes] | None:
        """The records from a position on, None if some of them are lost."""
        count = self._position - since
        if count <= 0:
            return []
        if count > len(self._records):
            return None
        return list(self._records)[-count:]
