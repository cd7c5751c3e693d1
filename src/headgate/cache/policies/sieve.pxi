# SIEVE.
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef class SieveCache(_Cache):
    """SieveCache(maxsize, getsizeof=None, *, ttl=None, tti=None, jitter=0.0, clock=None, \
    on_evict=None, seed=0)\n--\n
    A mapping of at most `maxsize` entries that drops one not read since the hand last passed it.

    New entries join the newest end of a queue and never move. A read marks its entry; the hand goes
    from old to new, takes marks off and evicts the first entry without one. Arguments, errors and
    complexity are those of ``LRUCache``; an eviction is O(1) amortised over the reads. Iteration goes
    over a snapshot, oldest first.

    Source: Zhang, Yang, Yue, Vigfusson, Rashmi, "SIEVE is simpler than LRU", NSDI 2024.

    >>> cache = SieveCache(2)
    >>> cache["a"], cache["b"] = 1, 2
    >>> cache["a"]
    1
    >>> cache["c"] = 3
    >>> list(cache)
    ['a', 'c']
    """

    cdef uint32_t hand

    def __cinit__(self, *args, **kwargs):
        self.marked = True

    @cython.final
    cdef void _hit(self, uint32_t slot) noexcept:
        self.marks[slot] = 1

    @cython.final
    cdef void _join(self, uint32_t slot) noexcept:
        self.marks[slot] = 0
        self._link(slot, 0)

    @cython.final
    cdef void _leave(self, uint32_t slot) noexcept:
        if self.hand == slot:
            self.hand = self.nodes[slot].next
        self._unlink(slot)

    @cython.final
    cdef uint32_t _victim(self, int64_t size) noexcept:
        cdef uint32_t slot = self.hand
        while True:
            if slot == 0:
                slot = self.nodes[0].next
            if not self.marks[slot]:
                self.hand = slot
                return slot
            self.marks[slot] = 0
            slot = self.nodes[slot].next

    @cython.final
    cdef void _move_policy(self, const uint32_t *places, const uint64_t *side) noexcept:
        self.hand = places[self.hand]

    @cython.final
    cdef void _empty_policy(self) noexcept:
        self.hand = 0
