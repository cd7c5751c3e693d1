# S3-FIFO.
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "policies/ghosts.h" nogil:
    ctypedef struct hg_ghosts:
        uint32_t capacity
        uint32_t cells
        uint64_t weight
    void hg_ghosts_clear(hg_ghosts *ghosts)
    uint32_t hg_ghost_find(hg_ghosts *ghosts, int64_t hash)
    void hg_ghost_remove(hg_ghosts *ghosts, uint32_t slot)
    void hg_ghosts_add(hg_ghosts *ghosts, int64_t hash, int64_t weight, uint64_t maximum, bint weighted)
    void hg_ghosts_trim(hg_ghosts *ghosts, uint64_t maximum)
    uint64_t hg_ghosts_probes(hg_ghosts *ghosts)


cdef class S3FIFOCache(_Queues):
    """S3FIFOCache(maxsize, getsizeof=None, *, ttl=None, tti=None, jitter=0.0, clock=None, \
    on_evict=None, seed=0)\n--\n
    A mapping of at most `maxsize` entries in a small queue, a main queue and a queue of ghosts.

    A new entry joins the small queue, a tenth of the cache. When it reaches the head there, it is moved
    to the main queue if it was read at least twice; otherwise it is evicted and leaves a ghost, its
    hash. The ghosts kept are as many as the entries of a full main queue (an entry of size 0 counts as
    1). A key that still has a ghost joins the main queue, whose entries are reinserted as many times as
    they were read, at most three. Arguments, errors and complexity are those of ``LRUCache``; an
    eviction is O(1) amortised over the reads. Iteration goes over a snapshot: the small queue, then the
    main one, oldest first.

    Source: Yang, Zhang, Qiu, Yue, Rashmi, "FIFO queues are all you need for cache eviction",
    SOSP 2023.

    >>> cache = S3FIFOCache(10)
    >>> cache.update((i, i) for i in range(10))
    >>> cache[0], cache[0], cache[1]
    (0, 0, 1)
    >>> cache[10] = 10
    >>> 0 in cache, 1 in cache
    (True, False)
    """

    cdef hg_ghosts ghosts
    cdef int64_t tenth

    def __cinit__(self, *args, **kwargs):
        self.evicts_many = True

    def __dealloc__(self):
        hg_ghosts_clear(&self.ghosts)

    @cython.final
    cdef void _fit(self) noexcept:
        self.tenth = self.maximum // 10 + (self.maximum % 10 != 0)
        hg_ghosts_trim(&self.ghosts, <uint64_t>(self.maximum - self.tenth))

    @cython.final
    cdef void _hit(self, uint32_t slot) noexcept:
        self.marks[slot] += (self.marks[slot] & 15) < 3

    @cython.final
    cdef void _join(self, uint32_t slot) noexcept:
        cdef uint32_t ghost = hg_ghost_find(&self.ghosts, self.nodes[slot].hash)
        if ghost != 0:
            hg_ghost_remove(&self.ghosts, ghost)
        self._enlist(slot, 0 if ghost == 0 else 1, 0)

    @cython.final
    cdef bint _is_small_turn(self) noexcept:
        return self.nodes[0].next != 0 and (self.sums[0] >= self.tenth or self.nodes[1].next == 1)

    @cython.final
    cdef uint32_t _main_victim(self) noexcept:
        cdef uint32_t slot = self.nodes[1].next
        while slot != 1 and self.marks[slot] & 15:
            self._move_to(slot, 1, (self.marks[slot] & 15) - 1)
            slot = self.nodes[1].next
        return slot

    @cython.final
    cdef uint32_t _victim(self, int64_t size) noexcept:
        cdef uint32_t slot
        while self._is_small_turn():
            slot = self.nodes[0].next
            if self.marks[slot] & 15 < 2:
                return slot
            self._move_to(slot, 1, 0)
        return self._main_victim()

    @cython.final
    cdef int _evict_some(self, int64_t size, list dropped) except -1:
        cdef uint32_t slot
        cdef Py_hash_t hash
        cdef int64_t weight
        if not self._is_small_turn():
            return self._evict_one(self._main_victim(), dropped)
        slot = self.nodes[0].next
        while slot != 0 and self.marks[slot] & 15 > 1:
            self._move_to(slot, 1, 0)
            if self.sums[1] > self.maximum - self.tenth:
                self._evict_one(self._main_victim(), dropped)
            slot = self.nodes[0].next
        if slot != 0:
            hash, weight = self.nodes[slot].hash, max(1, self._size(slot))
            self._evict_one(slot, dropped)
            hg_ghosts_add(&self.ghosts, hash, weight, <uint64_t>(self.maximum - self.tenth),
                          self.sizer is not None)
        return 0

    def _ghost_probes(self):
        """How many cells of the ghosts' table the lookups of all ghosts read."""
        with cython.critical_section(self):
            cells = hg_ghosts_probes(&self.ghosts)
        return cells

    @cython.final
    cdef void _empty_policy(self) noexcept:
        self.sums[0] = self.sums[1] = 0
        hg_ghosts_clear(&self.ghosts)

    @cython.final
    cdef size_t _policy_bytes(self) noexcept:
        cdef size_t ghost = 16 if self.sizer is None else 24
        return (<size_t>self.ghosts.capacity + 1) * ghost + <size_t>self.ghosts.cells * sizeof(uint32_t)
