# Where the entries of a cache are found, and the lists in which its policy keeps them.
cimport cython
from cpython.list cimport PyList_New
from cpython.object cimport Py_EQ, PyObject, PyObject_RichCompareBool
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset

from headgate._c.fields cimport hg_get
from headgate._c.slots cimport (
    hg_list_append,
    hg_list_remove,
    hg_node,
    hg_table,
    hg_table_adopt,
    hg_table_allocate,
    hg_table_enter,
    hg_table_home,
    hg_table_next,
    hg_table_probe,
    hg_table_shrink,
    hg_table_size,
)
from headgate._c.unicode_eq cimport hg_str_equal


cdef extern from "Python.h":
    PyObject *PyList_GET_ITEM(PyObject *entries, Py_ssize_t i)
    void PyList_SET_ITEM(PyObject *entries, Py_ssize_t i, PyObject *item)
    Py_ssize_t PyList_GET_SIZE(PyObject *entries)
    bint PyUnicode_CheckExact(PyObject *key)
    void Py_INCREF(PyObject *o)
    void Py_DECREF(PyObject *o)
    void Py_XDECREF(PyObject *o)
    PyObject *Py_None


cdef extern from "wheel.h" nogil:
    ctypedef struct hg_timer:
        int64_t due
        uint32_t prev
        uint32_t next
    ctypedef struct hg_wheel:
        uint64_t soonest
        uint32_t first[704]
    void hg_wheel_clear(hg_wheel *wheel)
    void hg_wheel_add(hg_wheel *wheel, hg_timer *timers, uint32_t slot, int64_t due)
    void hg_wheel_remove(hg_wheel *wheel, hg_timer *timers, uint32_t slot)
    uint32_t hg_wheel_due(hg_wheel *wheel, hg_timer *timers, int64_t now)
    unsigned hg_bucket(hg_wheel *wheel, uint64_t rank)
    uint64_t hg_rank(int64_t due)


cdef enum:
    NIL = 0
    FIRST_CAPACITY = 8


cdef extern from *:
    """
    #define MOST_ENTRIES INT64_C(0x80000000)
    #define NEVER INT64_MAX
    #define LISTS UINT32_C(3)
    """
    const int64_t MOST_ENTRIES
    const int64_t NEVER
    const uint32_t LISTS


cdef struct Slab:
    hg_node *nodes
    uint32_t *cells
    uint32_t *places
    int64_t *sizes
    uint8_t *marks
    uint32_t *ranks
    uint64_t *side
    hg_timer *timers
    int64_t *ttl_dues


cdef void _free_slab(Slab *slab) noexcept:
    free(slab.nodes)
    free(slab.cells)
    free(slab.places)
    free(slab.sizes)
    free(slab.marks)
    free(slab.ranks)
    free(slab.side)
    free(slab.timers)
    free(slab.ttl_dues)


cdef void _copy_extras(Slab *new, uint32_t at, const Slab *old, uint32_t slot) noexcept:
    """Copy what belongs to a node in the other arrays, timers aside."""
    if new.sizes != NULL and old.sizes != NULL:
        new.sizes[at] = old.sizes[slot]
    if new.marks != NULL and old.marks != NULL:
        new.marks[at] = old.marks[slot]
    if new.ranks != NULL and old.ranks != NULL:
        new.ranks[at] = old.ranks[slot]
    if new.ttl_dues != NULL and old.ttl_dues != NULL:
        new.ttl_dues[at] = old.ttl_dues[slot]


cdef inline void _swap(list a, Py_ssize_t i, list b, Py_ssize_t j) noexcept:
    cdef PyObject *item = PyList_GET_ITEM(<PyObject *>a, i)
    PyList_SET_ITEM(<PyObject *>a, i, PyList_GET_ITEM(<PyObject *>b, j))
    PyList_SET_ITEM(<PyObject *>b, j, item)


@cython.final
cdef class _Label:
    """The tags of one live slot."""

    cdef uint32_t slot
    cdef tuple tags


cdef class _Table:
    """The state of a cache, how an entry is found, and the lists."""

    cdef object __weakref__
    cdef list entries
    cdef list labels
    cdef dict tagged
    cdef object sizer
    cdef object listener
    cdef object ticker
    cdef object flights
    cdef hg_node *nodes
    cdef hg_table table
    cdef int64_t *sizes
    cdef uint8_t *marks
    cdef uint32_t *ranks
    cdef uint64_t *side
    cdef hg_timer *timers
    cdef int64_t *ttl_dues
    cdef hg_wheel *wheel
    cdef int64_t maximum
    cdef int64_t filled
    cdef int64_t lifetime
    cdef int64_t idle
    cdef double jitter
    cdef uint64_t seed
    cdef uint64_t draws
    cdef uint64_t hit_count
    cdef uint64_t miss_count
    cdef uint64_t eviction_count
    cdef uint64_t[3] drop_counts
    cdef uint64_t load_count
    cdef uint64_t failure_count
    cdef uint64_t load_time
    cdef uint64_t clear_count
    cdef uint32_t vacant  # the cell where the last probe that found no key ended
    cdef uint32_t capacity
    cdef uint32_t count
    cdef uint32_t used
    cdef uint32_t free
    cdef uint64_t timed
    cdef bint marked
    cdef bint ranked
    cdef bint counts_requests
    cdef bint evicts_many
    cdef bint plain
    cdef bint initialized

    def __cinit__(self, *args, **kwargs):
        self.lifetime = self.idle = NEVER
        self.entries = [None] * (2 * <Py_ssize_t>LISTS)
        self.nodes = <hg_node *>malloc(LISTS * sizeof(hg_node))
        self.table.cells = hg_table_allocate(1)
        if self.nodes == NULL or self.table.cells == NULL:
            raise MemoryError
        self._forget_slots()

    def __dealloc__(self):
        free(self.nodes)
        free(self.table.cells)
        free(self.wheel)
        self._free_extras()

    @cython.final
    cdef void _free_extras(self) noexcept:
        free(self.sizes)
        free(self.marks)
        free(self.ranks)
        free(self.side)
        free(self.timers)
        free(self.ttl_dues)
        self.sizes = NULL
        self.marks = NULL
        self.ranks = NULL
        self.side = NULL
        self.timers = NULL
        self.ttl_dues = NULL

    cdef void _move_policy(self, const uint32_t *places, const uint64_t *side) noexcept:
        """Renumber the slots; `side` is the old array."""

    cdef void _empty_policy(self) noexcept:
        """Forget all entries."""

    cdef size_t _policy_bytes(self) noexcept:
        return 0

    cdef int _check_policy(self) except -1:
        return 0

    # ---- the slab and its table -------------------------------------------------------------

    @cython.final
    cdef inline Py_ssize_t _slots(self) noexcept:
        return <Py_ssize_t>self.capacity + LISTS

    @cython.final
    cdef inline bint _intact(self) noexcept:
        return (self.entries is not None and PyList_GET_SIZE(<PyObject *>self.entries) == 2 * self._slots()
                and (self.labels is None or PyList_GET_SIZE(<PyObject *>self.labels) == self._slots()))

    @cython.final
    cdef inline PyObject *_key(self, uint32_t slot) noexcept:
        return PyList_GET_ITEM(<PyObject *>self.entries, 2 * <Py_ssize_t>slot)

    @cython.final
    cdef inline PyObject *_value(self, uint32_t slot) noexcept:
        return PyList_GET_ITEM(<PyObject *>self.entries, 2 * <Py_ssize_t>slot + 1)

    @cython.final
    cdef inline int64_t _size(self, uint32_t slot) noexcept:
        return 1 if self.sizes == NULL else self.sizes[slot]

    @cython.final
    cdef inline uint32_t _home(self, Py_hash_t hash) noexcept:
        return hg_table_home(&self.table, hash)

    @cython.final
    cdef uint32_t _find(self, PyObject *key, Py_hash_t hash) except 0xFFFFFFFF:
        """The slot of `key`, or NIL; may run ``__eq__``."""
        cdef uint32_t at, slot
        cdef uint64_t version
        cdef PyObject *stored
        cdef int equal
        if not self._intact():
            self._wipe()
        at = self._home(hash)
        while True:
            at = hg_table_probe(&self.table, self.nodes, sizeof(hg_node), hash, at)
            slot = self.table.cells[at]
            if slot == NIL:
                self.vacant = at
                return NIL
            stored = self._key(slot)
            if stored == key:
                return slot
            if PyUnicode_CheckExact(stored) and PyUnicode_CheckExact(key):
                if hg_str_equal(stored, key):
                    return slot
            else:
                version = self.table.version
                Py_INCREF(stored)
                try:
                    equal = PyObject_RichCompareBool(<object>stored, <object>key, Py_EQ)
                finally:
                    Py_DECREF(stored)
                if version != self.table.version:
                    at = self._home(hash)
                    continue
                if equal:
                    return slot
            at = hg_table_next(&self.table, at)

    @cython.final
    cdef inline uint32_t _seek(self, PyObject *key, Py_hash_t hash) except 0xFFFFFFFF:
        """`_find`, faster where the very key object is in its home cell."""
        cdef uint32_t slot
        if self._intact():
            slot = self.table.cells[self._home(hash)]
            if slot != NIL and self._key(slot) == key:
                return slot
        return self._find(key, hash)

    @cython.final
    cdef int _wipe(self) except -1:
        """Become empty after the garbage collector has cleared the entries."""
        self.entries = [None] * (2 * <Py_ssize_t>LISTS)
        self.labels = self.tagged = None
        self._forget_slots()
        return 0

    @cython.final
    cdef void _forget_slots(self) noexcept:
        """Shrink the slab to its sentinels, after the entries were taken away."""
        cdef uint32_t end
        self.nodes = <hg_node *>realloc(self.nodes, LISTS * sizeof(hg_node))
        hg_table_shrink(&self.table)
        self._free_extras()
        if self.wheel != NULL:
            hg_wheel_clear(self.wheel)
        self.capacity = self.count = self.free = 0
        self.used = LISTS - 1
        self.filled = 0
        for end in range(LISTS):
            self.nodes[end].prev = self.nodes[end].next = end
        self._empty_policy()

    @cython.final
    cdef inline uint32_t _limit(self) noexcept:
        return <uint32_t>(MOST_ENTRIES + 1) if self.sizer is not None else <uint32_t>self.maximum

    @cython.final
    cdef inline bint _lacks_slot(self) noexcept:
        return self.free == NIL and self.used == self.capacity + LISTS - 1 and self.capacity < self._limit()

    @cython.final
    cdef int _grow(self) except -1:
        cdef uint64_t doubled = max(<uint64_t>FIRST_CAPACITY, 2 * <uint64_t>self.capacity)
        return self._move(<uint32_t>min(doubled, <uint64_t>self._limit()))

    @cython.final
    cdef int _move(self, uint32_t capacity) except -1:
        """Move the live entries into a slab of `capacity` slots, unless the cache changes meanwhile."""
        cdef uint64_t version = self.table.version, cells = hg_table_size((5 * <uint64_t>capacity + 1) // 2)
        cdef uint32_t at, slot, last = LISTS - 1
        cdef size_t slots = <size_t>capacity + LISTS
        cdef list entries = [None] * (2 * <Py_ssize_t>slots)
        cdef list labels = [None] * <Py_ssize_t>slots if self.labels is not None else None
        cdef Slab old, new
        if version != self.table.version or not self._intact() or (labels is None) != (self.labels is None):
            return 0
        old = self._slab()
        if not self._allocate(&new, slots, cells):
            _free_slab(&new)
            raise MemoryError
        for end in range(LISTS):
            new.places[end] = end
        for end in range(LISTS):
            slot = self.nodes[end].next
            while slot != end:
                last += 1
                new.places[slot] = last
                slot = self.nodes[slot].next
        for slot in range(self.used + 1):
            at = new.places[slot]
            if slot >= LISTS and at == 0:
                continue
            new.nodes[at].hash = old.nodes[slot].hash
            new.nodes[at].prev = new.places[old.nodes[slot].prev]
            new.nodes[at].next = new.places[old.nodes[slot].next]
            _copy_extras(&new, at, &old, slot)
            _swap(entries, 2 * <Py_ssize_t>at, self.entries, 2 * <Py_ssize_t>slot)
            _swap(entries, 2 * <Py_ssize_t>at + 1, self.entries, 2 * <Py_ssize_t>slot + 1)
            if labels is not None:
                _swap(labels, at, self.labels, slot)
                if PyList_GET_ITEM(<PyObject *>labels, at) != Py_None:
                    (<_Label>PyList_GET_ITEM(<PyObject *>labels, at)).slot = at
        self._move_wheel(&new)
        self.nodes, self.sizes, self.marks = new.nodes, new.sizes, new.marks
        self.ranks, self.side, self.timers, self.ttl_dues = new.ranks, new.side, new.timers, new.ttl_dues
        self.entries, entries = entries, self.entries
        self.labels, labels = labels, self.labels
        self.capacity, self.used, self.free = capacity, last, NIL
        hg_table_adopt(&self.table, new.cells, cells)
        for slot in range(LISTS, last + 1):
            hg_table_enter(&self.table, self.nodes[slot].hash, slot)
        self._move_policy(new.places, old.side)
        old.places = new.places
        _free_slab(&old)
        return 0

    @cython.final
    cdef Slab _slab(self) noexcept:
        """The arrays but the cells, which the table frees when it adopts others."""
        cdef Slab slab
        slab.nodes, slab.sizes, slab.marks = self.nodes, self.sizes, self.marks
        slab.ranks, slab.side, slab.timers, slab.ttl_dues = self.ranks, self.side, self.timers, self.ttl_dues
        slab.cells = slab.places = NULL
        return slab

    @cython.final
    cdef bint _allocate(self, Slab *slab, size_t slots, uint64_t cells) noexcept:
        """The arrays of a slab; whether there was memory for all of them."""
        cdef size_t slot
        memset(slab, 0, sizeof(Slab))
        slab.nodes = <hg_node *>malloc(slots * sizeof(hg_node))
        slab.cells = hg_table_allocate(cells)
        slab.places = <uint32_t *>calloc(<size_t>self._slots(), sizeof(uint32_t))
        if slab.nodes == NULL or slab.cells == NULL or slab.places == NULL:
            return False
        if self.sizer is not None:
            slab.sizes = <int64_t *>calloc(slots, sizeof(int64_t))
            if slab.sizes == NULL:
                return False
        if self.marked:
            slab.marks = <uint8_t *>calloc(slots, sizeof(uint8_t))
            if slab.marks == NULL:
                return False
        if self.ranked:
            slab.ranks = <uint32_t *>calloc(slots, sizeof(uint32_t))
            slab.side = <uint64_t *>calloc(slots, sizeof(uint64_t))
            if slab.ranks == NULL or slab.side == NULL:
                return False
        if self._is_timed():
            slab.timers = <hg_timer *>malloc(slots * sizeof(hg_timer))
            if slab.timers == NULL or not self._ready_wheel():
                return False
            for slot in range(slots):
                slab.timers[slot].due = NEVER
        if self.idle != NEVER:
            slab.ttl_dues = <int64_t *>calloc(slots, sizeof(int64_t))
            if slab.ttl_dues == NULL:
                return False
        return True

    @cython.final
    cdef void _move_wheel(self, Slab *slab) noexcept:
        """Give the wheel the new numbers of slots."""
        cdef unsigned bucket
        cdef uint32_t slot
        if self.timers == NULL or slab.timers == NULL:
            return
        for bucket in range(704):
            self.wheel.first[bucket] = slab.places[self.wheel.first[bucket]]
        for slot in range(LISTS, self.used + 1):
            if self.timers[slot].due != NEVER:
                slab.timers[slab.places[slot]].due = self.timers[slot].due
                slab.timers[slab.places[slot]].prev = slab.places[self.timers[slot].prev]
                slab.timers[slab.places[slot]].next = slab.places[self.timers[slot].next]

    @cython.final
    cdef bint _ready_wheel(self) noexcept:
        if self.wheel == NULL:
            self.wheel = <hg_wheel *>malloc(sizeof(hg_wheel))
            if self.wheel == NULL:
                return False
            hg_wheel_clear(self.wheel)
        return True

    @cython.final
    cdef inline bint _is_timed(self) noexcept:
        """Whether entries may have a lifetime: read without the lock; once true, it stays so."""
        return hg_get(&self.timed) != 0

    # ---- the lists: the oldest follows the sentinel, the newest precedes it ------------------

    @cython.final
    cdef inline void _link(self, uint32_t slot, uint32_t end) noexcept:
        hg_list_append(self.nodes, sizeof(hg_node), end, slot)

    @cython.final
    cdef inline void _unlink(self, uint32_t slot) noexcept:
        hg_list_remove(self.nodes, sizeof(hg_node), slot)

    @cython.final
    cdef inline void _renew(self, uint32_t slot) noexcept:
        """Make an entry the newest of list 0."""
        if self.nodes[slot].next != 0:
            self._unlink(slot)
            self._link(slot, 0)

    @cython.final
    cdef list _flat(self):
        """Keys and values in turn, list by list, the oldest first."""
        cdef list flat
        cdef uint32_t slot, end
        cdef Py_ssize_t at = 0
        while True:
            if not self._intact():
                self._wipe()
            flat = PyList_New(2 * <Py_ssize_t>self.count)
            if self._intact() and PyList_GET_SIZE(<PyObject *>flat) == 2 * <Py_ssize_t>self.count:
                break
        for end in range(LISTS):
            slot = self.nodes[end].next
            while slot != end:
                Py_INCREF(self._key(slot))
                Py_INCREF(self._value(slot))
                PyList_SET_ITEM(<PyObject *>flat, at, self._key(slot))
                PyList_SET_ITEM(<PyObject *>flat, at + 1, self._value(slot))
                at += 2
                slot = self.nodes[slot].next
        return flat
