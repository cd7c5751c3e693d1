"""Fills: one response of the application, written once, and read by all clients that asked for it.

    pending --> open --> complete       head unknown; head known and to be stored; whole body known
       |          '----> detached       will not be stored any more: no new readers, and a window
       |----> released                  not to be stored: each follower calls the application itself
       |----> settled                   a stored response is the result: validated, or served for an error
    any of them --> failed

The leader calls the application and writes; each client, the leader's too, has a `Reader` that knows how far
it has come. The lock of a fill protects its few words, and is never held while anything is sent, received,
stored or awaited. An open fill keeps the body from its first byte on, so that no reader slows the
application. A detached one keeps only what its slowest reader still needs: the application waits while that
is more than `WINDOW`, and a reader that takes nothing for `STALL` seconds while others wait for it is cut.
"""

from __future__ import annotations

from bisect import bisect_right
from time import monotonic

from headgate._base.forks import new_lock, renew
from headgate.errors import HeadgateError
from headgate.httpcache._changes import Changes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from types import TracebackType
    from typing import Any, Self

SLICE = 64 * 2**10
WINDOW = 2**20
STALL = 10.0
_LONGEST = 3600.0
_SMALL = 4 * 2**10
PENDING, OPEN, DETACHED, COMPLETE, RELEASED, SETTLED, FAILED = range(7)
HEADLESS, STORABLE = (PENDING,), (PENDING, OPEN)
_JOINABLE = PENDING, OPEN, COMPLETE, SETTLED
_OVER = COMPLETE, RELEASED, SETTLED, FAILED


class IncompleteResponseError(HeadgateError):
    """The rest of a response is missing, so what was sent of it must not look whole."""


class Reader:
    """A client of a fill, which it leaves at the end of a ``with`` block.

    `on_cut` is called, from any thread, when the fill goes on without it.
    """

    __slots__ = ("at", "fill", "is_cut", "leads", "moved", "on_cut")

    def __init__(self, fill: Fill, leads: bool) -> None:
        self.fill = fill
        self.leads = leads
        self.is_cut = False
        self.on_cut: Callable[[], object] | None = None
        self.at = 0
        self.moved = 0.0

    def wait_past(self, states: tuple[int, ...], timeout: float | None) -> int:
        """The state of the fill once it is none of `states`, or after `timeout` seconds. Raises the error of
        a failed fill."""
        fill, end = self.fill, _end_of(timeout)
        while fill.state in states and (left := end - monotonic()) > 0:
            seen = fill.changes.number
            if fill.state in states:
                fill.changes.wait(seen, min(left, _LONGEST))
        return fill.checked_state()

    async def wait_past_async(self, states: tuple[int, ...], timeout: float | None) -> int:
        """`wait_past` in a task."""
        fill, end = self.fill, _end_of(timeout)
        while fill.state in states and (left := end - monotonic()) > 0:
            seen = fill.changes.number
            if fill.state in states:
                await fill.changes.wait_async(seen, None if timeout is None else left)
        return fill.checked_state()

    def take(self) -> tuple[bytes, bool] | None:
        """The next part of the body, at most `SLICE` bytes, and whether more may follow; None if no part is
        there yet. Raises the error of a failed fill. Complexity: O(log n) for n parts."""
        return self.fill.take(self)

    def read(self, timeout: float | None) -> tuple[bytes, bool]:
        """`take`, once a part is there; IncompleteResponseError if none comes for `timeout` seconds."""
        while True:
            seen = self.fill.changes.number
            part = self.fill.take(self)
            if part is not None:
                return part
            if not self.fill.changes.wait(seen, timeout):
                raise _late(timeout)

    async def read_async(self, timeout: float | None) -> tuple[bytes, bool]:
        """`read` in a task."""
        while True:
            seen = self.fill.changes.number
            part = self.fill.take(self)
            if part is not None:
                return part
            if not await self.fill.changes.wait_async(seen, timeout):
                raise _late(timeout)

    def leave(self) -> None:
        """Read no further. A fill without clients is abandoned, unless it will be stored in time."""
        self.fill.leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.leave()


class Fill:
    """A response on its way from the application to its clients, and to the store."""

    __slots__ = (
        "_blocks", "_error", "_fills", "_full_since", "_held", "_is_kept", "_lock", "_progress", "_readers",
        "_size", "_starts", "_trace", "changes", "ends", "head", "is_abandoned", "key", "length", "lookup",
        "outcome", "state",
    )

    def __init__(self, fills: Fills, key: Hashable, lookup: Any, ends: float, is_kept: bool) -> None:
        self.key = key
        self.lookup = lookup
        self.ends = ends
        self.changes = Changes()
        self.state = PENDING
        self.is_abandoned = False
        self.head: Any = None
        self.length: int | None = None
        self.outcome: Any = None
        self._fills = fills
        self._is_kept = is_kept
        self._lock = new_lock()
        self._progress = Changes()
        self._readers: dict[Reader, None] = {}
        self._blocks: list[bytes] = []
        self._starts: list[int] = []
        self._size = self._held = 0
        self._full_since: float | None = None
        self._error: BaseException | None = None
        self._trace: TracebackType | None = None

    def open(self, head: Any, length: int | None) -> bool:
        """Let clients read a response with this head, which will be stored; False, with the fill released, if
        its `length` is too large for that."""
        if length is not None and length > self._fills.max_object:
            self.release()
            return False
        with self._lock:
            if self.state == PENDING:
                self.head, self.length, self.state = head, length, OPEN
        self.changes.add()
        return True

    def release(self) -> None:
        """Let followers call the application themselves, since the response will not be stored."""
        self._end(RELEASED)

    def settle(self, outcome: Any) -> None:
        """Give all clients `outcome`, a stored response, in place of this one."""
        self._end(SETTLED, outcome)

    def fail(self, error: BaseException) -> None:
        """Give all clients an error, those that have a part of the body too. They get an exception as it is;
        anything else that ended the call, such as its cancellation, is not their own."""
        if not isinstance(error, Exception):
            cause, error = error, IncompleteResponseError("the call of the application was cancelled")
            error.__cause__ = cause
        self._end(FAILED, error=error)

    def _end(self, state: int, outcome: Any = None, error: Exception | None = None) -> None:
        with self._lock:
            if self.state in _OVER:
                return
            self.state, self.outcome, self._error = state, outcome, error
            self._trace = None if error is None else error.__traceback__
            self._blocks, self._starts = [], []
            held, self._held = self._held, 0
        self._fills.give_back(held)
        self._announce_end()

    def _announce_end(self) -> None:
        self._fills.retire(self)
        self.changes.add()
        self._progress.add()

    def write(self, data: bytes) -> bool:
        """Add a part of the body; False if the window is full, and the leader must wait for space.

        Raises IncompleteResponseError if all clients have left, or the body is longer than its length.
        """
        detaches = self._put(data)
        if detaches:
            self._fills.retire(self)
        self.changes.add()
        return self.state != DETACHED or not self._full()

    def finish(self, data: bytes, store: Callable[[bytes], object]) -> None:
        """Add the last part of the body. If the fill is still open, its outcome is ``store(body)``.

        Raises IncompleteResponseError, and stores nothing, if the body has another length than its head says.
        """
        self._put(data)
        if self.length is not None and self._size != self.length:
            error = IncompleteResponseError(f"the body has {self._size} of {self.length} bytes")
            self.fail(error)
            raise error
        with self._lock:
            body = b"".join(self._blocks) if self.state == OPEN else None
        outcome = None if body is None else store(body)
        with self._lock:
            if self.state not in (OPEN, DETACHED):
                return
            if body is not None:
                self._blocks, self._starts = [body], [0]
                self.outcome = outcome
            self.state = COMPLETE
            held, self._held = self._held, 0
        self._fills.give_back(held)
        self._announce_end()

    def _put(self, data: bytes) -> bool:
        """Append to the body; whether the fill is detached by that."""
        with self._lock:
            if self._error is not None:
                raise self._error
            if self.state not in (OPEN, DETACHED):
                raise IncompleteResponseError("the response has ended")
            if data:
                self._append(bytes(data))
            if self.length is not None and self._size > self.length:
                too_long = IncompleteResponseError(f"the body has more than {self.length} bytes")
            else:
                detaches = self.state == OPEN and not self._may_hold(len(data))
                if detaches:
                    held = self._detach()
                    is_left = self._is_left()
                too_long = None
        if too_long is not None:
            self.fail(too_long)
            raise too_long
        if detaches:
            self._fills.give_back(held)
            if is_left:
                self._abandon()
        return detaches

    def _append(self, data: bytes) -> None:
        """Small parts are joined, so that what a fill keeps is bounded by the bytes that it counts."""
        blocks = self._blocks
        if blocks and len(blocks[-1]) + len(data) <= _SMALL:
            blocks[-1] += data
        else:
            blocks.append(data)
            self._starts.append(self._size)
        self._size += len(data)

    def _may_hold(self, added: int) -> bool:
        if self._size > self._fills.max_object or monotonic() >= self.ends:
            return False
        if not self._fills.hold(added):
            return False
        self._held += added
        return True

    def _detach(self) -> int:
        """Keep only what readers still need; returns how many bytes are no longer held for the store."""
        self.state = DETACHED
        held, self._held = self._held, 0
        self._trim()
        return held

    def _trim(self) -> int:
        """Drop the blocks that all readers have read; how many bytes the slowest one still needs."""
        slowest = min((reader.at for reader in self._readers), default=self._size)
        count = bisect_right(self._starts, slowest) - 1
        if slowest == self._size:
            count += 1
        if count > 0:
            del self._blocks[:count], self._starts[:count]
        return self._size - slowest

    def _full(self) -> bool:
        with self._lock:
            return self._trim() > WINDOW

    def wait_for_space(self) -> None:
        """Block until the window has space, or the fill has ended."""
        while True:
            seen = self._progress.number
            patience = self._patience()
            if not patience:
                return
            self._progress.wait(seen, patience)

    async def wait_for_space_async(self) -> None:
        """`wait_for_space` in a task."""
        while True:
            seen = self._progress.number
            patience = self._patience()
            if not patience:
                return
            await self._progress.wait_async(seen, patience)

    def _patience(self) -> float:
        """The seconds until the slowest reader is cut, 0.0 if there is space. Cuts those that are due."""
        with self._lock:
            if self.state != DETACHED or self._trim() <= WINDOW:
                self._full_since = None
                return 0.0
            now = monotonic()
            if self._full_since is None:
                self._full_since = now
            stalled = self._stalled(now - STALL)
            for reader in stalled:
                reader.is_cut = True
                del self._readers[reader]
            behind = [reader.moved for reader in self._readers if self._is_behind(reader)]
            is_shared = len(self._readers) > 1
        for reader in stalled:
            if reader.on_cut is not None:
                reader.on_cut()
        if stalled:
            return 1e-6
        if not is_shared:
            return _LONGEST
        return max(max(min(behind), self._full_since) + STALL - now, 1e-3)

    def _is_behind(self, reader: Reader) -> bool:
        return self._size - reader.at > WINDOW

    def _stalled(self, due: float) -> list[Reader]:
        """The readers for which others wait too long; the only reader may take its time."""
        since = self._full_since or 0.0
        found = [reader for reader in self._readers
                 if self._is_behind(reader) and max(reader.moved, since) <= due]
        return found[1:] if len(found) == len(self._readers) else found

    def admit(self, leads: bool) -> Reader | None:
        """A new reader from the first byte on; None if there is no more such."""
        reader = Reader(self, leads)
        with self._lock:
            if self.state not in _JOINABLE or self.is_abandoned:
                return None
            self._readers[reader] = None
        return reader

    def take(self, reader: Reader) -> tuple[bytes, bool] | None:
        with self._lock:
            if reader.is_cut:
                raise IncompleteResponseError("the client was cut: it took nothing while others waited")
            if reader not in self._readers:
                raise IncompleteResponseError("the client has left")
            self.checked_state()
            if reader.at >= self._size:
                return (b"", False) if self.state == COMPLETE else None
            index = bisect_right(self._starts, reader.at) - 1
            offset = reader.at - self._starts[index]
            part = self._blocks[index][offset : offset + SLICE]
            reader.at += len(part)
            more = self.state != COMPLETE or reader.at < self._size
            is_detached = self.state == DETACHED
            if is_detached:
                reader.moved = monotonic()
        if is_detached:
            self._progress.add()
        return part, more

    def leave(self, reader: Reader) -> None:
        with self._lock:
            if self._readers.pop(reader, self) is self:
                return
            is_left = self._is_left()
        self._progress.add()
        if is_left:
            self._abandon()

    def _is_left(self) -> bool:
        if self._readers or self._is_kept:
            return False
        if self.state == OPEN:
            return self.time_left() is None
        return self.state in (PENDING, DETACHED, RELEASED)

    def time_left(self) -> float | None:
        """The seconds for which it may still be joined and stored, None after them."""
        left = self.ends - monotonic()
        return left if left > 0 else None

    def expire(self) -> None:
        """Abandon the fill if it has taken too long and no client reads it."""
        with self._lock:
            is_left = self._is_left()
        if is_left:
            self._abandon()

    def _abandon(self) -> None:
        self.is_abandoned = True
        self.fail(IncompleteResponseError("all clients have left"))
        self.changes.add()

    def is_read(self) -> bool:
        """Whether any client reads it."""
        return bool(self._readers)

    def checked_state(self) -> int:
        """The state; raises the error of a failed fill."""
        if self._error is not None:
            raise self._error.with_traceback(self._trace)
        return self.state


class Fills:
    """The fills of a cache that are under way, by what they fill.

    Locks are taken in one order: that of the registry, that of a fill, that of the bytes held.

    `max_object` is the largest body in bytes, `max_filling` the most bytes that all fills may keep for the
    store; `timeout` is in seconds: a fill that takes longer gets no new readers and is not stored. Followers
    wait `wait` seconds for a head, and `timeout` for a part of a body.
    """

    __slots__ = ("__weakref__", "_filling", "_fills", "_holding", "_lock", "completed", "max_filling",
                 "max_object", "timeout", "wait")

    def __init__(self, max_object: int, max_filling: int, wait: float = 5.0, timeout: float = 60.0) -> None:
        self.reconfigure(max_object, max_filling, wait, timeout)
        self._lock = new_lock()
        self._holding = new_lock()
        self._renew()
        renew(self)

    def _renew(self) -> None:
        """In a child of a fork too: the writers of the fills of the parent do not exist there."""
        self._fills: dict[Hashable, Fill] = {}
        self._filling = 0
        self.completed = 0

    def reconfigure(self, max_object: int, max_filling: int, wait: float, timeout: float) -> None:
        """Set other bounds; the time of a fill under way stays."""
        self.max_object = max_object
        self.max_filling = max_filling
        self.wait = wait
        self.timeout = timeout

    def join(self, key: Hashable, lookup: Any) -> Reader:
        """A reader of the fill of `key`; if there is none, of a new one after `lookup`, which it leads.

        The response may have been stored between the lookup and this call if `completed` changed meanwhile.
        """
        with self._lock:
            fill = self._current(key)
            reader = None if fill is None else fill.admit(leads=False)
            if reader is None:
                reader = self._begin(key, lookup, is_kept=False).admit(leads=True)
                assert reader is not None
        return reader

    def refresh(self, key: Hashable, lookup: Any) -> Fill | None:
        """A fill that goes on without clients, for the caller to lead; None if there is one already."""
        with self._lock:
            return None if self._current(key) is not None else self._begin(key, lookup, is_kept=True)

    def _current(self, key: Hashable) -> Fill | None:
        fill = self._fills.get(key)
        return fill if fill is not None and monotonic() < fill.ends else None

    def _begin(self, key: Hashable, lookup: Any, is_kept: bool) -> Fill:
        fill = self._fills[key] = Fill(self, key, lookup, monotonic() + self.timeout, is_kept)
        return fill

    def retire(self, fill: Fill) -> None:
        with self._lock:
            self.completed += 1
            if self._fills.get(fill.key) is fill:
                del self._fills[fill.key]

    def hold(self, count: int) -> bool:
        """Count bytes that a fill keeps; False if that would be too many."""
        with self._holding:
            if self._filling + count > self.max_filling:
                return False
            self._filling += count
            return True

    def give_back(self, count: int) -> None:
        with self._holding:
            self._filling -= count

    def __len__(self) -> int:
        """How many fills are under way that others can join."""
        return len(self._fills)

    @property
    def filling(self) -> int:
        """The bytes that fills keep for the store."""
        return self._filling


def _end_of(timeout: float | None) -> float:
    return float("inf") if timeout is None else monotonic() + timeout


def _late(timeout: float | None) -> IncompleteResponseError:
    return IncompleteResponseError(f"no part of the body came within {timeout} seconds")
