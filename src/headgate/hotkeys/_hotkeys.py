"""Space-Saving on a stream summary."""

from __future__ import annotations

from types import GenericAlias

from headgate._base.clock import checked_clock
from headgate._base.pickling import attributes, initialized, name_class, restore
from headgate.hotkeys._settings import (
    HotKey,
    bad_row,
    checked_count,
    checked_half_life,
    checked_k,
    checked_limit,
    rising,
)
from headgate.hotkeys._summary import _Entry, _live, _Summary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class HotKeys(_Summary):
    """The most frequent keys of a stream, counted in fixed memory for at most `k` keys.

    This is Space-Saving: a key that is not counted yet replaces one with the least count, and starts from
    that count, which is its error. So every key has been added at least ``count - error`` and at most `count`
    times, and every key added more than ``total / k`` times is counted. Keys are any hashables.

    With a `half_life` in seconds, all counts, errors and `total` are halved, rounded down, each time that it
    has passed; keys whose count falls to 0 are removed, and all bounds hold for the decayed counts. `clock`
    returns integer nanoseconds and defaults to the monotonic clock; when it steps back, the half-life starts
    again. Every method is atomic among threads.

    Raises ValueError if `k` is not from 1 to 2**26 or `half_life` is less than a nanosecond, TypeError if an
    argument has the wrong type.

    Source: Metwally, Agrawal, El Abbadi, "Efficient computation of frequent and top-k elements in data
    streams", 2005.

    Complexity: O(k) memory, allocated at once.

    >>> hot = HotKeys(2)
    >>> for key in "aababcab":
    ...     hot.add(key)
    >>> hot.top(1)
    [HotKey(key='a', count=4, error=0)]
    >>> hot
    HotKeys(2)
    """
    __slots__ = ()

    if TYPE_CHECKING:
        __class_getitem__: Any

    __class_getitem__ = classmethod(GenericAlias)

    def __init__(self, k, *, half_life=None, clock=None):
        most = checked_k(k)
        half, tick = checked_half_life(half_life), checked_clock(clock)
        with self._lock:
            if self._made:
                raise initialized(self)
            self._made = True
        self._install(most, half_life, half, tick)

    def add(self, key, n=1):
        """Adds `n` to the count of `key`.

        Raises ValueError if `n` is not positive or brings the total to 2**63, TypeError if `n` is not an int
        or `key` is not hashable.

        Complexity: O(1) for n = 1; a greater `n` passes every count between the old and the new one. A
        half-life that has passed costs O(k) once.

        >>> hot = HotKeys(10)
        >>> hot.add("user:1", 3)
        >>> hot.total
        3
        """
        number = checked_count(n)
        self._add(_Entry(key, hash(key)), number, n)
        self._apply_deferred()

    def top(self, n=None):
        """Returns the `n` most frequent keys, or all, as a list of `HotKey`: key, count and error.

        The greatest count comes first; of equal counts the one that was reached first.

        Raises ValueError if `n` is negative, TypeError if it is neither int nor None.

        Complexity: O(n).

        >>> hot = HotKeys(1)
        >>> hot.add("a")
        >>> hot.add("b")
        >>> hot.top()
        [HotKey(key='b', count=2, error=1)]
        """
        limit = checked_limit(n)
        self._decayed()
        return [HotKey(*row) for row in self._rows(limit)]

    def clear(self):
        """Removes all keys and sets the total to 0; a half-life starts now.

        Complexity: O(k).

        >>> hot = HotKeys(2)
        >>> hot.add("a")
        >>> hot.clear()
        >>> len(hot), hot.total
        (0, 0)
        """
        self._clear()

    @property
    def k(self):
        """The maximum number of keys that are counted.

        >>> HotKeys(3).k
        3
        """
        return self._most

    @property
    def half_life(self):
        """The seconds after which counts are halved, or None.

        >>> HotKeys(3, half_life=60).half_life
        60
        """
        return self._half_life

    @property
    def total(self):
        """The sum of all additions, decayed like the counts.

        >>> hot = HotKeys(1)
        >>> hot.add("a")
        >>> hot.add("b")
        >>> hot.total
        2
        """
        return self._decayed()[0]

    def __len__(self):
        return self._decayed()[1]

    def __contains__(self, key):
        hash_ = hash(key)
        while True:
            now = self._now()
            found, version = self._find(key, hash_)
            with self._lock:
                holds = version == self._version
                _halved = self._decay(now)
            self._apply_deferred()
            if holds:
                return _live(found) is not None

    def __repr__(self):
        decay = "" if self._half_life is None else f", half_life={self._half_life!r}"
        return f"{type(self).__name__}({self._most}{decay})"

    # ---- copies -----------------------------------------------------------------------------

    def copy(self):
        """Returns an independent copy with the same counts.

        Complexity: O(k).

        >>> hot = HotKeys(2)
        >>> hot.add("a")
        >>> other = hot.copy()
        >>> other.add("a")
        >>> hot.total, other.total
        (1, 2)
        """
        return self.__copy__()

    def __copy__(self):
        return type(self)._from_state(self._state())

    def __reduce__(self):
        return restore, (name_class(self), self._state())

    def _state(self):
        now = self._now()
        with self._lock:
            _halved = self._decay(now)
            busy, self._busy = self._busy, True
            try:
                phase = now - self._since if self._half else 0
                state = (1, self._most, self._half_life, self._clock, phase, self._total,
                         rising(self._rows(self._most)))
            finally:
                self._busy = busy
        if not busy:
            self._apply_deferred()
        return *state, attributes(self)

    @classmethod
    def _from_state(cls, state):
        if state[0] != 1:
            raise ValueError(f"state must be of version 1, got {state[0]!r}")
        _, k, half_life, clock, phase, total, rows, extra = state
        self = cls.__new__(cls)
        HotKeys.__init__(self, k, half_life=half_life, clock=clock)
        self._refill(phase, total, rows)
        if extra:
            self.__dict__.update(extra)
        return self

    def _refill(self, phase, total, rows):
        for key, count, error in rows:
            entry = _Entry(key, hash(key))
            known, _ = self._find(key, entry.hash)
            with self._lock:
                last = self._sentinel.prev
                if known is not None or self._count == self._most or not 0 <= error <= count >= last.count:
                    raise bad_row(key)
                self._insert_key(entry, count, last)
                entry.error = error
        self._since -= phase
        self._total = total
