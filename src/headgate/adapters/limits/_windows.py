"""The three windows of limits over records in a file; times in nanoseconds of the monotonic clock.

Fixed: the state is the count, until the end of the record.

Moving: what was admitted is a log of runs, two in each block. A run has its time, what was admitted before
it, and its amount, the last two modulo 2**32. The state of the root is the number of the first run and how
many there are; blocks of runs that are past end by themselves. A run whose block was evicted is past too.

Sliding: the payload is two windows, each its start and its counts, previous and current; the state is which
of the two is valid.
"""

from __future__ import annotations

from bisect import bisect_right
from time import monotonic_ns

from headgate._base.checks import checked_int
from headgate._base.keys import key_bytes
from headgate.adapters.limits._records import END, PAYLOAD, STATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from headgate.adapters.limits._records import Records

_FIXED, _ROOT, _BLOCK, _SLIDING = b"f", b"m", b"b", b"s"
_SECOND = 10**9
_HALF, _LOW = 32, 2**32 - 1
_MOST_COUNT = 2**64 - 1
_PAST = 0, 0, 0


def _checked(amount: int, expiry: float, limit: int = 0) -> int:
    """`expiry` in nanoseconds, if what is given with it can be counted."""
    for name, value in (("amount", amount), ("limit", limit)):
        if not 0 <= checked_int(name, value) <= _LOW:
            raise ValueError(f"{name} must be in [0, 2**32), got {value!r}")
    if not 0 < expiry < 2**32:
        raise ValueError(f"expiry must be in (0, 2**32) seconds, got {expiry!r}")
    return int(expiry * _SECOND)


class Windows:
    """What the storage does while the file is locked. Times that are returned are seconds from now."""

    __slots__ = ("_records",)

    def __init__(self, records: Records) -> None:
        self._records = records

    # Fixed windows

    def incr(self, key: str, expiry: float, amount: int) -> int:
        span, now, records = _checked(amount, expiry), monotonic_ns(), self._records
        words, at = records.words, records.claim(records.tag(_FIXED, key_bytes(key, "key")))
        if words[at + END] > now:
            count = words[at + STATE] = min(words[at + STATE] + amount, _MOST_COUNT)
            return count
        words[at + STATE] = amount
        words[at + END] = now + span
        return amount

    def get(self, key: str) -> tuple[int, float]:
        """The count of a fixed window, and when it ends."""
        now, records = monotonic_ns(), self._records
        at = records.find_live(records.tag(_FIXED, key_bytes(key, "key")), now)
        if not at:
            return 0, 0.0
        return records.words[at + STATE], (records.words[at + END] - now) / _SECOND

    def clear(self, key: str) -> None:
        """Forget a fixed and a moving window."""
        name, records = key_bytes(key, "key"), self._records
        records.drop(records.tag(_FIXED, name))
        records.drop(records.tag(_ROOT, name))

    def reset(self) -> int:
        return self._records.clear(_FIXED + _ROOT + _SLIDING, monotonic_ns())

    # Moving windows

    def acquire(self, key: str, limit: int, expiry: float, amount: int) -> bool:
        span, now, name = _checked(amount, expiry, limit), monotonic_ns(), key_bytes(key, "key")
        first, end, total, admitted = self._runs(name, span, now)
        if admitted + amount > limit:
            return False
        if amount:
            self._write(name, end, (now, total, amount), now + span)
            root = self._records.claim(self._records.tag(_ROOT, name))
            words = self._records.words
            words[root + STATE] = (first & _LOW) << _HALF | end + 1 - first
            words[root + END] = now + span
        return True

    def moving(self, key: str, expiry: float) -> tuple[float, int]:
        """When the oldest run of a moving window was admitted, and how much there is in the window."""
        now, name = monotonic_ns(), key_bytes(key, "key")
        first, _, _, admitted = self._runs(name, _checked(0, expiry), now)
        return ((self._read(name, first)[0] - now) / _SECOND, admitted) if admitted else (0.0, 0)

    def _runs(self, name: bytes, span: int, now: int) -> tuple[int, int, int, int]:
        """The numbers of the first live run and of the next one to come, all that was ever admitted, and what
        of it is in the window.
        """
        records = self._records
        root = records.find_live(records.tag(_ROOT, name), now)
        if not root:
            return 0, 0, 0, 0
        state = records.words[root + STATE]
        first, horizon = state >> _HALF, now - span
        end = first + (state & _LOW)
        time, before, amount = self._read(name, end - 1)
        if time <= horizon:
            return end, end, 0, 0
        total = before + amount & _LOW
        time, before, _ = self._read(name, first)
        if time <= horizon:
            first = bisect_right(range(end - 1), horizon, first, key=lambda run: self._read(name, run)[0])
            before = self._read(name, first)[1]
        return first, end, total, total - before & _LOW

    def _block(self, name: bytes, run: int) -> tuple[bytes, int]:
        """The tag of the block of a run, and its place there."""
        number, place = divmod(run & _LOW, 2)
        return self._records.tag(_BLOCK, number.to_bytes(4, "little") + name), PAYLOAD + 2 * place

    def _read(self, name: bytes, run: int) -> tuple[int, int, int]:
        tag, place = self._block(name, run)
        at = self._records.find(tag)
        if not at:
            return _PAST
        time, counts = self._records.words[at + place : at + place + 2]
        return time, counts >> _HALF, counts & _LOW

    def _write(self, name: bytes, number: int, run: tuple[int, int, int], end: int) -> None:
        tag, place = self._block(name, number)
        words, at = self._records.words, self._records.claim(tag)
        time, before, amount = run
        words[at + place] = time
        words[at + place + 1] = before << _HALF | amount
        words[at + END] = end

    # Sliding windows

    def acquire_sliding(self, key: str, limit: int, expiry: float, amount: int) -> bool:
        span, now, records = _checked(amount, expiry, limit), monotonic_ns(), self._records
        tag = self._sliding_tag(key, span)
        start, previous, current = self._sliding(tag, span, now)
        if previous * (start + span - now) // span + current + amount > limit:
            return False
        words, at = records.words, records.claim(tag)
        other = 1 - words[at + STATE]
        words[at + PAYLOAD + 2 * other] = start
        words[at + PAYLOAD + 2 * other + 1] = previous << _HALF | current + amount
        words[at + END] = start + 2 * span
        words[at + STATE] = other
        return True

    def sliding(self, key: str, expiry: float) -> tuple[int, float, int, float]:
        """The count of the previous window and when it ends to weigh, and the same of the current one."""
        span, now = _checked(0, expiry), monotonic_ns()
        start, previous, current = self._sliding(self._sliding_tag(key, span), span, now)
        left = (start + span - now) / _SECOND
        return previous, left if previous else 0.0, current, left + span / _SECOND

    def clear_sliding(self, key: str, expiry: float) -> None:
        self._records.drop(self._sliding_tag(key, _checked(0, expiry)))

    def _sliding_tag(self, key: str, span: int) -> bytes:
        return self._records.tag(_SLIDING, span.to_bytes(8, "little") + key_bytes(key, "key"))

    def _sliding(self, tag: bytes, span: int, now: int) -> tuple[int, int, int]:
        """The start of the window in which `now` is, what the one before admitted, and what it admitted."""
        words, at = self._records.words, self._records.find_live(tag, now)
        if not at:
            return now, 0, 0
        valid = at + PAYLOAD + 2 * words[at + STATE]
        start, counts = words[valid : valid + 2]
        if now < start + span:
            return start, counts >> _HALF, counts & _LOW
        return (start + span, counts & _LOW, 0) if now < start + 2 * span else (now, 0, 0)
