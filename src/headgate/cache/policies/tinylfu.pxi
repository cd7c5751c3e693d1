# W-TinyLFU.
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "policies/rejections.h" nogil:
    ctypedef struct hg_rejections:
        uint64_t size
        uint64_t sum
    void hg_rejections_clear(hg_rejections *rejections)
    void hg_rejections_add(hg_rejections *rejections, int64_t hash, int64_t weight, uint64_t entries)
    bint hg_rejections_has(hg_rejections *rejections, int64_t hash, uint64_t span)


cdef extern from "policies/sketch.h" nogil:
    ctypedef struct hg_sketch:
        uint64_t size
        uint64_t sample
    void hg_sketch_clear(hg_sketch *sketch)
    void hg_sketch_ensure(hg_sketch *sketch, uint64_t entries)
    void hg_sketch_add(hg_sketch *sketch, int64_t hash)
    unsigned hg_sketch_frequency(hg_sketch *sketch, int64_t hash)


cdef class TinyLFUCache(_Queues):
    """TinyLFUCache(maxsize, getsizeof=None, *, ttl=None, tti=None, jitter=0.0, clock=None, \
    on_evict=None, seed=0)\n--\n
    A mapping of at most `maxsize` entries that admits by frequency: W-TinyLFU.

    A new entry joins an LRU window. An entry that falls out of the window is on probation in the main
    part, and when the cache is full its frequency, estimated by a Count-Min sketch of 4-bit counters
    that are halved from time to time, is compared with that of the least recently used entry on
    probation: the rarer of the two leaves. A read on probation protects, up to four fifths of the
    main part.

    The window starts with 1% of the cache. From the first rejection on it is widened when a key comes
    back that a window wider by a sixteenth of the cache would have kept, and narrowed by the hits that a
    main part smaller by as much would have lost, so that both halves of the cache end with equal use of
    their last entries. Arguments, errors and complexity are those of ``LRUCache``, the ageing of the
    sketch O(1) amortised. Iteration goes over a snapshot: window, probation, protected, each least
    recently used first.

    Source: Einziger, Friedman, Manes, "TinyLFU: a highly efficient cache admission policy", ACM TOS
    2017; the adaptive window is headgate's own and replaces the hill climbing of Einziger, Eytan,
    Friedman, Manes, "Adaptive software cache management", Middleware 2018.

    >>> cache = TinyLFUCache(100)
    >>> for key in range(100):
    ...     cache[key] = cache.get(key)
    >>> all(cache.get(key, key) is None for key in range(100))
    True
    >>> cache.update((key, key) for key in range(100, 200))
    >>> sum(key in cache for key in range(100))
    99
    """

    cdef hg_sketch sketch
    cdef hg_rejections rejections  # what was rejected lately
    cdef int64_t window_maximum
    cdef int64_t protected_maximum
    cdef int64_t span  # a sixteenth of the cache
    cdef uint64_t promotions  # from probation since the last entry joined
    cdef double target  # window_maximum is adapted to it

    def __cinit__(self, *args, **kwargs):
        hg_sketch_clear(&self.sketch)

    def __dealloc__(self):
        hg_sketch_clear(&self.sketch)
        hg_rejections_clear(&self.rejections)

    @cython.final
    cdef void _fit(self) noexcept:
        self.window_maximum = self.maximum // 100
        if self.window_maximum == 0:
            self.window_maximum = min(1, self.maximum)
        self._fit_protected()
        self.span = max(1, self.maximum // 16)
        self.promotions = 0
        self.target = <double>self.window_maximum

    @cython.final
    cdef void _fit_protected(self) noexcept:
        cdef int64_t main = self.maximum - self.window_maximum
        self.protected_maximum = main // 5 * 4 + main % 5 * 4 // 5

    @cython.final
    cdef void _count_request(self, Py_hash_t hash) noexcept:
        hg_sketch_ensure(&self.sketch, self.count)
        hg_sketch_add(&self.sketch, hash)

    @cython.final
    cdef void _hit(self, uint32_t slot) noexcept:
        hg_sketch_add(&self.sketch, self.nodes[slot].hash)
        self._rewrite(slot)

    @cython.final
    cdef void _rewrite(self, uint32_t slot) noexcept:
        cdef uint32_t end = self.marks[slot] >> 4
        if end != 1:
            if self.nodes[slot].next != end:
                self._unlink(slot)
                self._link(slot, end)
            return
        self.promotions += 1
        self._move_to(slot, 2, 0)
        self._shrink_protected()

    @cython.final
    cdef void _shrink_protected(self) noexcept:
        while self.sums[2] > self.protected_maximum and self.nodes[2].next != 2:
            self._move_to(self.nodes[2].next, 1, 0)

    @cython.final
    cdef uint32_t _shrink_window(self, int64_t size) noexcept:
        """Let entries fall out of the window until `size` more fits, and return the last of them, or 0."""
        cdef uint32_t candidate = 0
        while self.sums[0] > self.window_maximum - size and self.nodes[0].next != 0:
            candidate = self.nodes[0].next
            self._move_to(candidate, 1, 0)
        return candidate

    @cython.final
    cdef void _join(self, uint32_t slot) noexcept:
        self._shrink_window(self._size(slot))
        self._enlist(slot, 0, 0)
        self._adapt(slot)

    @cython.final
    cdef uint32_t _victim(self, int64_t size) noexcept:
        cdef uint32_t candidate = self._shrink_window(size), victim = self._rarer(candidate)
        if victim == candidate and size > 0:
            hg_rejections_add(&self.rejections, self.nodes[victim].hash, self._size(victim), self.count)
        return victim

    @cython.final
    cdef uint32_t _rarer(self, uint32_t candidate) noexcept:
        """The rarer of the candidate, which may be none, and the least recently used of the main part."""
        cdef uint32_t victim = self.nodes[1].next
        if victim == 1:
            victim = self.nodes[2].next
            if victim == 2:
                victim = self.nodes[0].next
        if candidate == 0 or candidate == victim:
            return victim
        if (hg_sketch_frequency(&self.sketch, self.nodes[candidate].hash)
                > hg_sketch_frequency(&self.sketch, self.nodes[victim].hash)):
            return victim
        return candidate

    @cython.final
    cdef void _adapt(self, uint32_t slot) noexcept:
        """Adapt the size of the window to the requests since the last entry joined.

        A main part smaller by `span` would have lost some of the promotions, the reads on probation: half the
        share of `span` in the probation, as its old end is read less than its new one. A wider window has to
        be worth a 64th of the cache, for each step costs an entry of the main part. No product is added to
        anything, as a compiler might round both but once and the pure twin could not follow.
        """
        cdef int64_t least = min(1, self.maximum), most = self.maximum - least, window
        cdef double size = <double>self._size(slot)
        cdef double lost = size * <double>self.promotions
        self.promotions = 0
        if self.rejections.sum == 0:
            return
        lost /= max(2.0, 2.0 * <double>self.sums[1] / <double>self.span)
        self.target = max(self.target - lost, <double>least)
        if hg_rejections_has(&self.rejections, self.nodes[slot].hash, <uint64_t>self.span):
            self.target += size
        if self.target >= <double>most:
            self.target = <double>most
            window = most
        elif self.target < <double>self.window_maximum:
            window = <int64_t>self.target
        elif self.target - <double>self.window_maximum >= <double>self.maximum / 64.0:
            window = <int64_t>self.target
        else:
            return
        if window != self.window_maximum:
            self.window_maximum = window
            self._fit_protected()
            self._shrink_protected()

    @cython.final
    cdef void _empty_policy(self) noexcept:
        self.sums[0] = self.sums[1] = self.sums[2] = 0
        self.promotions = 0
        hg_sketch_clear(&self.sketch)
        hg_rejections_clear(&self.rejections)

    @cython.final
    cdef size_t _policy_bytes(self) noexcept:
        return <size_t>(self.sketch.size + 2 * self.rejections.size) * sizeof(uint64_t)
