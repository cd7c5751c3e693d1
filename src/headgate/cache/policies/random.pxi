# Random replacement.
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from headgate._c.mulshift cimport hg_mulshift


cdef class RRCache(_Cache):
    """RRCache(maxsize, getsizeof=None, *, ttl=None, tti=None, jitter=0.0, clock=None, on_evict=None, \
    seed=0)\n--\n
    A mapping of at most `maxsize` entries that drops one chosen at random.

    Arguments, errors and complexity are those of ``LRUCache``. Iteration goes over a snapshot,
    the entry written first at the front.

    >>> cache = RRCache(2, seed=7)
    >>> cache.update(a=1, b=2, c=3)
    >>> len(cache), "c" in cache
    (2, True)
    """

    cdef uint32_t linked

    def __cinit__(self, *args, **kwargs):
        self.ranked = True

    @cython.final
    cdef void _hit(self, uint32_t slot) noexcept:
        pass

    @cython.final
    cdef void _join(self, uint32_t slot) noexcept:
        self.side[self.linked] = slot
        self.ranks[slot] = self.linked
        self.linked += 1
        self._link(slot, 0)

    @cython.final
    cdef void _leave(self, uint32_t slot) noexcept:
        cdef uint32_t last
        self.linked -= 1
        last = <uint32_t>self.side[self.linked]
        self.side[self.ranks[slot]] = last
        self.ranks[last] = self.ranks[slot]
        self._unlink(slot)

    @cython.final
    cdef uint32_t _victim(self, int64_t size) noexcept:
        return <uint32_t>self.side[hg_mulshift(self._draw(), self.linked, 64)]

    @cython.final
    cdef void _move_policy(self, const uint32_t *places, const uint64_t *side) noexcept:
        cdef uint32_t at
        for at in range(self.linked):
            self.side[at] = places[side[at]]

    @cython.final
    cdef void _empty_policy(self) noexcept:
        self.linked = 0

    @cython.final
    cdef int _check_policy(self) except -1:
        cdef uint32_t at
        assert self.linked == self.count
        for at in range(self.linked):
            assert self.ranks[self.side[at]] == at, "the rank of a slot is its index"
        return 0
