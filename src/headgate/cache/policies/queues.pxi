# What the policies of several queues share; in the pure twin, lists of the engine suffice.
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t


cdef class _Queues(_Cache):
    """What policies of several lists share: a mark is 16 * list + a count, sums are sizes of lists."""

    cdef int64_t[3] sums

    def __cinit__(self, *args, **kwargs):
        self.marked = self.counts_requests = True

    @cython.final
    cdef inline void _enlist(self, uint32_t slot, uint32_t end, uint8_t count) noexcept:
        self.marks[slot] = <uint8_t>(16 * end + count)
        self.sums[end] += self._size(slot)
        self._link(slot, end)

    @cython.final
    cdef inline uint32_t _delist(self, uint32_t slot) noexcept:
        cdef uint32_t end = self.marks[slot] >> 4
        self.sums[end] -= self._size(slot)
        self._unlink(slot)
        return end

    @cython.final
    cdef inline void _move_to(self, uint32_t slot, uint32_t end, uint8_t count) noexcept:
        self._delist(slot)
        self._enlist(slot, end, count)

    @cython.final
    cdef void _leave(self, uint32_t slot) noexcept:
        self._delist(slot)

    @cython.final
    cdef void _resized(self, uint32_t slot, int64_t growth) noexcept:
        self.sums[self.marks[slot] >> 4] += growth

    cdef void _empty_policy(self) noexcept:
        self.sums[0] = self.sums[1] = self.sums[2] = 0

    cdef int _check_policy(self) except -1:
        cdef uint32_t end, slot
        cdef int64_t filled
        for end in range(LISTS):
            filled = 0
            slot = self.nodes[end].next
            while slot != end:
                assert self.marks[slot] >> 4 == end, "a mark names the list of its slot"
                filled += self._size(slot)
                slot = self.nodes[slot].next
            assert filled == self.sums[end], "the sum of a list is its size"
        return 0
