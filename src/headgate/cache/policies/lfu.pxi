# Least frequently used.
cimport cython
from libc.stdint cimport uint32_t, uint64_t

from headgate._c.slots cimport hg_list_insert, hg_node


cdef extern from *:
    """
    #define MOST_USES UINT32_MAX
    """
    const uint32_t MOST_USES


cdef struct Group:
    uint32_t uses
    uint32_t last


cdef class LFUCache(_Cache):
    """LFUCache(maxsize, getsizeof=None, *, ttl=None, tti=None, jitter=0.0, clock=None, on_evict=None, \
    seed=0)\n--\n
    A mapping of at most `maxsize` entries that drops the least frequently used one first.

    Writing an entry and each read count as one use; among equals the one that has had its count
    for longest goes first. Counts end at 2**32 - 1. Arguments, errors and complexity are those of
    ``LRUCache``. Iteration goes over a snapshot, the next victim first.

    Source: Shah, Mitra, Matani, "An O(1) algorithm for implementing the LFU cache eviction
    scheme", 2010.

    >>> cache = LFUCache(2)
    >>> cache["a"], cache["b"] = 1, 2
    >>> cache["a"]
    1
    >>> cache["c"] = 3
    >>> list(cache)
    ['c', 'a']
    """

    cdef uint32_t spare
    cdef uint32_t groups

    def __cinit__(self, *args, **kwargs):
        self.ranked = True

    @cython.final
    cdef inline Group *_group(self, uint32_t number) noexcept:
        """Entries that follow each other and are used equally often; free ones are chained by `last`."""
        return <Group *>self.side + number

    @cython.final
    cdef uint32_t _new_group(self, uint32_t uses) noexcept:
        cdef uint32_t number = self.spare
        if number != NIL:
            self.spare = self._group(number).last
        else:
            self.groups += 1
            number = self.groups
        self._group(number).uses = uses
        return number

    @cython.final
    cdef void _free_group(self, uint32_t number) noexcept:
        self._group(number).last = self.spare
        self.spare = number

    @cython.final
    cdef void _insert_after(self, uint32_t slot, uint32_t prev) noexcept:
        hg_list_insert(self.nodes, sizeof(hg_node), prev, slot, self.nodes[prev].next)

    @cython.final
    cdef bint _leave_group(self, uint32_t slot) noexcept:
        """Take `slot` out of its group, if it is the last there; whether the group is empty then."""
        cdef uint32_t number = self.ranks[slot], prev = self.nodes[slot].prev
        if self._group(number).last != slot:
            return False
        self._group(number).last = prev
        return prev == 0 or self.ranks[prev] != number

    @cython.final
    cdef void _join(self, uint32_t slot) noexcept:
        cdef uint32_t first = self.nodes[0].next, number
        if first != 0 and self._group(self.ranks[first]).uses == 1:
            number = self.ranks[first]
            self._insert_after(slot, self._group(number).last)
        else:
            number = self._new_group(1)
            self._insert_after(slot, 0)
        self.ranks[slot] = number
        self._group(number).last = slot

    @cython.final
    cdef void _leave(self, uint32_t slot) noexcept:
        if self._leave_group(slot):
            self._free_group(self.ranks[slot])
        self._unlink(slot)

    @cython.final
    cdef void _hit(self, uint32_t slot) noexcept:
        cdef uint32_t number = self.ranks[slot], target = NIL
        cdef uint32_t last = self._group(number).last, uses = self._group(number).uses
        cdef uint32_t after = self.nodes[last].next
        if uses == MOST_USES:
            target = number
        else:
            uses += 1
            if after != 0 and self._group(self.ranks[after]).uses == uses:
                target = self.ranks[after]
                last = self._group(target).last
        if last == slot and target == number:
            return
        if self._leave_group(slot):
            if target == NIL:
                self._group(number).uses = uses
                self._group(number).last = slot
                return
            self._free_group(number)
        if last != slot:
            self._unlink(slot)
            self._insert_after(slot, last)
        if target == NIL:
            target = self._new_group(uses)
        self.ranks[slot] = target
        self._group(target).last = slot

    @cython.final
    cdef void _move_policy(self, const uint32_t *places, const uint64_t *side) noexcept:
        cdef const Group *old = <const Group *>side
        cdef uint32_t slot = self.nodes[0].next, number = NIL, before = NIL
        self.groups = self.spare = 0
        while slot != 0:
            if self.ranks[slot] != before:
                before = self.ranks[slot]
                number = self._new_group(old[before].uses)
            self.ranks[slot] = number
            self._group(number).last = slot
            slot = self.nodes[slot].next

    @cython.final
    cdef void _empty_policy(self) noexcept:
        self.groups = self.spare = 0

    @cython.final
    cdef int _check_policy(self) except -1:
        cdef uint32_t slot = self.nodes[0].next, uses = 0, next
        while slot != 0:
            next = self.nodes[slot].next
            assert self._group(self.ranks[slot]).uses > uses, "groups are in the order of their uses"
            while next != 0 and self.ranks[next] == self.ranks[slot]:
                slot = next
                next = self.nodes[slot].next
            uses = self._group(self.ranks[slot]).uses
            assert self._group(self.ranks[slot]).last == slot, "a group ends at its last entry"
            slot = next
        return 0
