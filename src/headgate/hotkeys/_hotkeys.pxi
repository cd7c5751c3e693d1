# Space-Saving on a stream summary.
cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport INT64_MAX, int64_t, uint32_t

from headgate._c.unicode_eq cimport hg_hash

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

cdef object _ONE = 1


cdef class HotKeys(_Summary):
    """HotKeys(k, *, half_life=None, clock=None)\n--\n
    The most frequent keys of a stream, counted in fixed memory for at most `k` keys.

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

    __class_getitem__ = classmethod(GenericAlias)

    def __init__(self, k, *, half_life=None, clock=None):
        most = checked_k(k)
        half, tick = checked_half_life(half_life), checked_clock(clock)
        with cython.critical_section(self):
            if self.made:
                raise initialized(self)
            self.made = True
        self._install(most, half_life, half, tick)

    @cython.binding(False)
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
        cdef Py_hash_t hash
        cdef uint32_t node
        cdef int64_t number = 1
        cdef PyObject *dropped = NULL
        if n is not _ONE:
            number = checked_count(n)
        hash = hg_hash(<PyObject *>key)
        with cython.critical_section(self):
            _halved = self._decay() if self.half else None
            node = self._find(<PyObject *>key, hash)
            if number > INT64_MAX - self.sum:
                raise ValueError(f"n must leave the total below 2**63, got {n!r}")
            self.sum += number
            if node != NIL:
                self._add_count(node, number)
            else:
                dropped = self._insert_key(<PyObject *>key, hash, number, NIL)
        if dropped != NULL:
            Py_DECREF(dropped)

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
        return [HotKey(*row) for row in self._rows(checked_limit(n))]

    def clear(self):
        """Removes all keys and sets the total to 0; a half-life starts now.

        Complexity: O(k).

        >>> hot = HotKeys(2)
        >>> hot.add("a")
        >>> hot.clear()
        >>> len(hot), hot.total
        (0, 0)
        """
        keys = [None] * (<Py_ssize_t>self.most + 1)
        cdef int64_t now = self._now() if self.half else 0
        with cython.critical_section(self):
            self.since = now
            self._reset()
            self.keys, keys = keys, self.keys

    @property
    def k(self):
        """The maximum number of keys that are counted.

        >>> HotKeys(3).k
        3
        """
        return self.most

    @property
    def half_life(self):
        """The seconds after which counts are halved, or None.

        >>> HotKeys(3, half_life=60).half_life
        60
        """
        return self.lifetime

    @property
    def total(self):
        """The sum of all additions, decayed like the counts.

        >>> hot = HotKeys(1)
        >>> hot.add("a")
        >>> hot.add("b")
        >>> hot.total
        2
        """
        with cython.critical_section(self):
            _halved = self._decay() if self.half else None
            return self.sum

    def __len__(self):
        with cython.critical_section(self):
            _halved = self._decay() if self.half else None
            if not self._intact():
                self._restore()
            return self.count

    def __contains__(self, key):
        cdef Py_hash_t hash = hg_hash(<PyObject *>key)
        with cython.critical_section(self):
            _halved = self._decay() if self.half else None
            return self._find(<PyObject *>key, hash) != NIL

    def __repr__(self):
        decay = "" if self.lifetime is None else f", half_life={self.lifetime!r}"
        return f"{type(self).__name__}({self.most}{decay})"

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

    @cython.final
    cdef tuple _state(self):
        with cython.critical_section(self):
            rows = self._rows(self.most)
            phase = self._now() - self.since if self.half else 0
            return (1, self.most, self.lifetime, self.clock, phase, self.sum, rising(rows), attributes(self))

    @classmethod
    def _from_state(cls, state):
        cdef HotKeys self
        if state[0] != 1:
            raise ValueError(f"state must be of version 1, got {state[0]!r}")
        _, k, half_life, clock, phase, total, rows, extra = state
        self = cls.__new__(cls)
        HotKeys.__init__(self, k, half_life=half_life, clock=clock)
        self._refill(phase, total, rows)
        if extra:
            self.__dict__.update(extra)
        return self

    @cython.final
    cdef int _refill(self, int64_t phase, int64_t total, tuple rows) except -1:
        cdef uint32_t node, last
        cdef Py_hash_t hash
        cdef PyObject *dropped
        for key, count, error in rows:
            hash = hg_hash(<PyObject *>key)
            with cython.critical_section(self):
                node = self._find(<PyObject *>key, hash)
                last = self.buckets[0].prev
                least = self.buckets[last].count
                if node != NIL or self.free_node == NIL or not 0 <= error <= count >= least:
                    raise bad_row(key)
                node = self.free_node
                dropped = self._insert_key(<PyObject *>key, hash, count, last)
                self.nodes[node].error = error
            Py_DECREF(dropped)
        self.since -= phase
        self.sum = total
        return 0
