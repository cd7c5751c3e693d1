# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, embedsignature=True, embedsignature.format=clinic, autotestdict=False
"""The cache engine and its policies.

    table (u32)      nodes (C structs)                 entries (one Python list)
    +---+            slot  hash   prev  next           2*slot   2*slot+1
    | 0 |             0     -      4     3             None     None      <- sentinels: the ends of lists 0,
    | 3 | --------->  1     -      1     1             None     None         1 and 2; LRU uses the first only
    | 0 |     +---->  2     -      2     2             None     None
    | 4 | ----|--+->  3    h(a)    0     4             "a"      value     <- next victim
    | 0 |     |  +->  4    h(b)    3     0             "b"      value     <- most recently used
    | 5 | ----+       5     -      -     6             None     None      <- free, chained by next
    +---+
    nodes, their table and their lists are those of slots.h
    marks (u8), ranks and side (u32, u64) as a policy needs them: its counts, and which list a slot is in
    timers: due, prev, next of a slot in the wheel of wheel.h; hards: due by ttl, where there is a tti too
    labels: a Python list of a _Label a slot; tagged: tag -> {label: None}

A policy answers where a new entry goes, what a hit changes and who is the victim; all else is the engine's.

Invariants (`_check` walks them all)
- Slots 0 to 2 are the sentinels of circular lists; 0 in the table means empty, 0 ends the free chain.
- The table is at most two fifths full, and every live slot stands in it once, reachable from its home.
- The lists hold exactly the live slots; the entries of any other slot are None.
- len(entries) == 2 * (capacity + 3). The garbage collector sees keys and values in that list; when
  it has torn it down in a dead cycle, `_intact` notices and the cache is empty from then on.
- currsize is the sum of the live sizes, at most maxsize; without getsizeof every size is 1.
- A slot is in the wheel exactly when its due is not NEVER, and has a label exactly when it has tags.

Foreign code - ``__hash__``, getsizeof, the clock, ``__eq__`` in `_find`, finalizers run by an allocation -
runs before the first edit. The table's version counts its edits: a probe that called ``__eq__`` starts over
when it changed. From the first edit to the last nothing of Python is allocated and nothing released. Evicted
references are dropped last, and then the listener is called; both may re-enter.
"""
cimport cython
from cpython.dict cimport PyDict_Contains, PyDict_DelItem, PyDict_GetItem, PyDict_SetItem
from cpython.list cimport PyList_New
from cpython.object cimport Py_EQ, PyObject, PyObject_RichCompareBool
from libc.math cimport rint
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset

from headgate._base.checks import checked_callable, checked_int
from headgate._base.clock import checked_clock, checked_now
from headgate._c.atomics cimport hg_add
from headgate._c.clock cimport hg_monotonic_ns
from headgate._c.fields cimport hg_get, hg_set
from headgate._c.mulshift cimport hg_mulshift
from headgate._c.own_method cimport hg_own_method
from headgate._c.scatter cimport hg_seed_secrets
from headgate._c.slots cimport (
    hg_chain_pop,
    hg_chain_push,
    hg_list_append,
    hg_list_insert,
    hg_list_remove,
    hg_node,
    hg_table,
    hg_table_adopt,
    hg_table_allocate,
    hg_table_cell,
    hg_table_empty,
    hg_table_enter,
    hg_table_filled,
    hg_table_has,
    hg_table_home,
    hg_table_leave,
    hg_table_next,
    hg_table_probe,
    hg_table_probes,
    hg_table_set,
    hg_table_shrink,
    hg_table_size,
)
from headgate._c.unicode_eq cimport hg_hash, hg_str_equal
from headgate._c.xxh64 cimport hg_splitmix64

from collections.abc import Mapping, MutableMapping
from operator import index
from os import urandom
from types import GenericAlias

from headgate.cache._flights import Flights
from headgate.cache._lifetimes import (
    checked_fraction,
    checked_lifetime,
    checked_seed,
    checked_tags,
    shortened,
)
from headgate.cache._listeners import notify
from headgate.cache._loaders import checked_loader, checked_result, is_awaitable, refuse_coroutine_function
from headgate.cache._dumps import dump_rows, leases, load_rows
from headgate._base.pickling import carried, carry, checked_state, initialized, name_class, restore
from headgate.cache._stats import CacheStats
from headgate.cache._views import _ABSENT, CacheItems, CacheKeys, CacheValues

hg_seed_secrets(urandom(16))

cdef extern from "Python.h":
    PyObject *PyList_GET_ITEM(PyObject *entries, Py_ssize_t i)
    void PyList_SET_ITEM(PyObject *entries, Py_ssize_t i, PyObject *item)
    Py_ssize_t PyList_GET_SIZE(PyObject *entries)
    bint PyUnicode_CheckExact(PyObject *key)
    bint PyFloat_CheckExact(object o)
    void Py_INCREF(PyObject *o)
    void Py_DECREF(PyObject *o)
    void Py_XDECREF(PyObject *o)
    int Py_ReprEnter(object o) except -1
    void Py_ReprLeave(object o)
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

cdef extern from "ghosts.h" nogil:
    ctypedef struct hg_ghosts:
        uint32_t capacity
        uint32_t cells
        uint64_t weight
    void hg_ghosts_clear(hg_ghosts *ghosts)
    uint32_t hg_ghost_find(hg_ghosts *ghosts, int64_t hash)
    void hg_ghost_remove(hg_ghosts *ghosts, uint32_t slot)
    void hg_ghosts_add(hg_ghosts *ghosts, int64_t hash, int64_t weight, uint64_t room, bint weighted)
    void hg_ghosts_trim(hg_ghosts *ghosts, uint64_t room)
    uint64_t hg_ghosts_probes(hg_ghosts *ghosts)

cdef extern from "echoes.h" nogil:
    ctypedef struct hg_echoes:
        uint64_t size
        uint64_t sum
    void hg_echoes_clear(hg_echoes *echoes)
    void hg_echoes_add(hg_echoes *echoes, int64_t hash, int64_t weight, uint64_t entries)
    bint hg_echoes_has(hg_echoes *echoes, int64_t hash, uint64_t span)

cdef extern from "sketch.h" nogil:
    ctypedef struct hg_sketch:
        uint64_t size
        uint64_t sample
    void hg_sketch_clear(hg_sketch *sketch)
    void hg_sketch_ensure(hg_sketch *sketch, uint64_t entries)
    void hg_sketch_add(hg_sketch *sketch, int64_t hash)
    unsigned hg_sketch_frequency(hg_sketch *sketch, int64_t hash)

cdef enum:
    NIL = 0
    FIRST_CAPACITY = 8

cdef enum Reason:
    EXPIRED
    REPLACED
    REMOVED
    REASONS

cdef extern from *:
    """
    #define MOST_ENTRIES INT64_C(0x80000000)
    #define MOST_USES UINT32_MAX
    #define NEVER INT64_MAX
    #define LISTS UINT32_C(3)
    """
    const int64_t MOST_ENTRIES
    const uint32_t MOST_USES
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
    int64_t *hards


cdef void _free_slab(Slab *slab) noexcept:
    free(slab.nodes)
    free(slab.cells)
    free(slab.places)
    free(slab.sizes)
    free(slab.marks)
    free(slab.ranks)
    free(slab.side)
    free(slab.timers)
    free(slab.hards)


cdef void _copy_extras(Slab *new, uint32_t at, const Slab *old, uint32_t slot) noexcept:
    """What stands beside a node, timers aside."""
    if new.sizes != NULL and old.sizes != NULL:
        new.sizes[at] = old.sizes[slot]
    if new.marks != NULL and old.marks != NULL:
        new.marks[at] = old.marks[slot]
    if new.ranks != NULL and old.ranks != NULL:
        new.ranks[at] = old.ranks[slot]
    if new.hards != NULL and old.hards != NULL:
        new.hards[at] = old.hards[slot]


cdef inline void _swap(list a, Py_ssize_t i, list b, Py_ssize_t j) noexcept:
    cdef PyObject *item = PyList_GET_ITEM(<PyObject *>a, i)
    PyList_SET_ITEM(<PyObject *>a, i, PyList_GET_ITEM(<PyObject *>b, j))
    PyList_SET_ITEM(<PyObject *>b, j, item)


cdef int64_t _checked_maxsize(object maxsize, bint weighted) except -1:
    maxsize = checked_int("maxsize", maxsize)
    if maxsize < 0:
        raise ValueError(f"maxsize must be non-negative, got {maxsize!r}")
    most = INT64_MAX if weighted else MOST_ENTRIES
    if maxsize > most:
        raise ValueError(f"maxsize must be at most {most}, got {maxsize!r}")
    return maxsize


cdef int64_t _nanoseconds(object ttl) except -1:
    """What `checked_lifetime` answers, sooner for a plain number."""
    cdef double seconds
    if PyFloat_CheckExact(ttl) or type(ttl) is int:
        seconds = ttl
        if 1e-9 <= seconds < 1e9:
            return <int64_t>rint(seconds * 1e9)
    return checked_lifetime("ttl", ttl)


@cython.final
cdef class _Label:
    """The tags of one live slot."""

    cdef uint32_t slot
    cdef tuple tags


cdef class _Cache:
    """What the policies share: see the picture of the module."""

    cdef object __weakref__
    cdef list entries
    cdef list labels
    cdef dict tagged
    cdef object sizer
    cdef object listener
    cdef object tick
    cdef object flights
    cdef hg_node *nodes
    cdef hg_table table
    cdef int64_t *sizes
    cdef uint8_t *marks
    cdef uint32_t *ranks
    cdef uint64_t *side
    cdef hg_timer *timers
    cdef int64_t *hards
    cdef hg_wheel *wheel
    cdef int64_t room
    cdef int64_t filled
    cdef int64_t lifetime
    cdef int64_t idle
    cdef double jitter
    cdef uint64_t seed
    cdef uint64_t draws
    cdef uint64_t hit_count
    cdef uint64_t miss_count
    cdef uint64_t eviction_count
    cdef uint64_t[3] left
    cdef uint64_t load_count
    cdef uint64_t failure_count
    cdef uint64_t load_time
    cdef uint64_t emptied
    cdef uint32_t vacant  # the cell where the last probe in vain has ended
    cdef uint32_t capacity
    cdef uint32_t count
    cdef uint32_t used
    cdef uint32_t free
    cdef uint64_t timed
    cdef bint marked
    cdef bint ranked
    cdef bint learns
    cdef bint sweeps
    cdef bint plain
    cdef bint made

    __hash__ = None
    __reversed__ = None
    __class_getitem__ = classmethod(GenericAlias)

    def __cinit__(self, *args, **kwargs):
        self.lifetime = self.idle = NEVER
        self.entries = [None] * (2 * <Py_ssize_t>LISTS)
        self.nodes = <hg_node *>malloc(LISTS * sizeof(hg_node))
        self.table.cells = hg_table_allocate(1)
        if self.nodes == NULL or self.table.cells == NULL:
            raise MemoryError
        self._forget_slots()

    def __init__(self, maxsize, getsizeof=None, *, ttl=None, tti=None, jitter=0.0, clock=None, on_evict=None,
                 seed=0):
        self._begin(maxsize, getsizeof, ttl, tti, jitter, clock, on_evict, seed)

    @cython.final
    cdef int _begin(self, maxsize, getsizeof, ttl, tti, jitter, clock, on_evict, seed) except -1:
        room = _checked_maxsize(maxsize, getsizeof is not None)
        checked_callable("getsizeof", getsizeof)
        lifetime, idle = checked_lifetime("ttl", ttl), checked_lifetime("tti", tti)
        share, tick, draws = checked_fraction("jitter", jitter), checked_clock(clock), checked_seed(seed)
        checked_callable("on_evict", on_evict)
        return self._configure(room, getsizeof, lifetime, idle, share, tick, on_evict, draws)

    @cython.final
    cdef int _configure(self, room, sizer, lifetime, idle, jitter, clock, listener, seed) except -1:
        with cython.critical_section(self):
            if self.made:
                raise initialized(self)
            self.made = True
            self.sizer, self.listener, self.tick = sizer, listener, clock
            self.lifetime = NEVER if lifetime is None else lifetime
            self.idle = NEVER if idle is None else idle
            self.jitter = jitter
            hg_set(&self.timed, self.lifetime != NEVER or self.idle != NEVER)
            self.seed = self.draws = seed
            self.room = room
            self.plain = sizer is None and listener is None and not self.learns and not self.sweeps
            self._fit()
        return 0

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
        free(self.hards)
        self.sizes = NULL
        self.marks = NULL
        self.ranks = NULL
        self.side = NULL
        self.timers = NULL
        self.hards = NULL

    # ---- the policy: what a subclass answers ------------------------------------------------

    cdef void _fit(self) noexcept:
        """Adopt another maxsize."""

    cdef void _asked(self, Py_hash_t hash) noexcept:
        """A key with this hash is about to be stored."""

    cdef void _join(self, uint32_t slot) noexcept:
        """Link a new entry."""
        self._link(slot, 0)

    cdef void _part(self, uint32_t slot) noexcept:
        """Unlink an entry."""
        self._unlink(slot)

    cdef void _hit(self, uint32_t slot) noexcept:
        """An entry was read."""

    cdef void _rewrite(self, uint32_t slot) noexcept:
        """An entry has another value."""
        self._hit(slot)

    cdef uint32_t _victim(self, int64_t size) noexcept:
        """The entry that gives way to `size` more."""
        return self.nodes[0].next

    cdef int _evict_some(self, int64_t size, list dropped) except -1:
        """Evict one entry, or as many as one step of the policy evicts."""
        return self._evict_one(self._victim(size), dropped)

    cdef void _move_policy(self, const uint32_t *places, const uint64_t *side) noexcept:
        """Every slot has got another number; `side` is what stood there before."""

    cdef void _empty_policy(self) noexcept:
        """There are no entries any more."""

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
        """`_find`, spared where the very key object stands at its home."""
        cdef uint32_t slot
        if self._intact():
            slot = self.table.cells[self._home(hash)]
            if slot != NIL and self._key(slot) == key:
                return slot
        return self._find(key, hash)

    @cython.final
    cdef int _wipe(self) except -1:
        """Be empty, when the garbage collector has already torn the entries down."""
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
        return <uint32_t>(MOST_ENTRIES + 1) if self.sizer is not None else <uint32_t>self.room

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
        self.ranks, self.side, self.timers, self.hards = new.ranks, new.side, new.timers, new.hards
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
        slab.ranks, slab.side, slab.timers, slab.hards = self.ranks, self.side, self.timers, self.hards
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
            slab.hards = <int64_t *>calloc(slots, sizeof(int64_t))
            if slab.hards == NULL:
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
    cdef uint32_t _take_slot(self) noexcept:
        cdef uint32_t slot = hg_chain_pop(self.nodes, sizeof(hg_node), &self.free)
        if slot == NIL:
            self.used += 1
            slot = self.used
        return slot

    @cython.final
    cdef void _set_entry(self, uint32_t slot, PyObject *key, PyObject *value) noexcept:
        """Give the two references to an unused slot."""
        Py_DECREF(self._key(slot))
        Py_DECREF(self._value(slot))
        PyList_SET_ITEM(<PyObject *>self.entries, 2 * <Py_ssize_t>slot, key)
        PyList_SET_ITEM(<PyObject *>self.entries, 2 * <Py_ssize_t>slot + 1, value)

    @cython.final
    cdef uint32_t _insert(self, PyObject *key, Py_hash_t hash, PyObject *value, int64_t size) noexcept:
        cdef uint32_t slot = self._take_slot()
        Py_INCREF(key)
        Py_INCREF(value)
        self._set_entry(slot, key, value)
        self.nodes[slot].hash = hash
        if self.sizes != NULL:
            self.sizes[slot] = size
        hg_table_enter(&self.table, hash, slot)
        self._join(slot)
        self.count += 1
        self.filled += size
        return slot

    @cython.final
    cdef void _remove(self, uint32_t slot, PyObject **key, PyObject **value) noexcept:
        """Take an entry out; the caller owns the two references and drops them last."""
        hg_table_leave(&self.table, self.nodes, sizeof(hg_node), slot)
        self._part(slot)
        if self.timers != NULL and self.timers[slot].due != NEVER:
            hg_wheel_remove(self.wheel, self.timers, slot)
        if self.labels is not None:
            self._unlabel(slot)
        key[0] = self._key(slot)
        value[0] = self._value(slot)
        Py_INCREF(Py_None)
        Py_INCREF(Py_None)
        PyList_SET_ITEM(<PyObject *>self.entries, 2 * <Py_ssize_t>slot, Py_None)
        PyList_SET_ITEM(<PyObject *>self.entries, 2 * <Py_ssize_t>slot + 1, Py_None)
        self.count -= 1
        self.filled -= self._size(slot)
        hg_chain_push(self.nodes, sizeof(hg_node), &self.free, slot)

    @cython.final
    cdef inline PyObject *_exchange_item(self, Py_ssize_t i, PyObject *item) noexcept:
        """Set an item of the entries; the caller owns the old one."""
        cdef PyObject *old = PyList_GET_ITEM(<PyObject *>self.entries, i)
        Py_INCREF(item)
        PyList_SET_ITEM(<PyObject *>self.entries, i, item)
        return old

    @cython.final
    cdef inline void _oust(self, PyObject *key, Py_hash_t hash, PyObject *value,
                           PyObject **old_key, PyObject **old_value) noexcept:
        """Let a plain entry that was just probed for in vain take the slot of the victim.

        It is entered where the probe has ended, while the victim still stands in the table; so there is no
        second probe, and a slot that nobody holds is never seen. The caller drops the old references last.
        """
        cdef uint32_t slot = self._victim(1), hole
        self._part(slot)
        hole = hg_table_cell(&self.table, self.nodes[slot].hash, slot)
        self.nodes[slot].hash = hash
        hg_table_set(&self.table, self.vacant, slot)
        hg_table_empty(&self.table, self.nodes, sizeof(hg_node), hole)
        old_key[0] = self._exchange_item(2 * <Py_ssize_t>slot, key)
        old_value[0] = self._exchange_item(2 * <Py_ssize_t>slot + 1, value)
        self._join(slot)
        self.eviction_count += 1

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

    # ---- lifetimes --------------------------------------------------------------------------

    @cython.final
    cdef inline bint _is_timed(self) noexcept:
        """Whether entries may have a lifetime: read without the lock; once true, it stays so."""
        return hg_get(&self.timed) != 0

    @cython.final
    cdef int64_t _now(self) except? -1:
        """The time where entries may have a lifetime; runs the clock."""
        if not self._is_timed():
            return 0
        return hg_monotonic_ns() if self.tick is None else checked_now(self.tick())

    @cython.final
    cdef uint64_t _draw(self) noexcept:
        """The next 64 bits of splitmix64's sequence."""
        return hg_splitmix64(hg_add(&self.draws, 1))

    @cython.final
    cdef int64_t _ttl_end(self, int64_t now, int64_t lifetime) except? -1:
        """When an entry that is written now ends by its ttl."""
        if lifetime == NEVER:
            return NEVER
        if self.jitter != 0:
            lifetime = shortened(lifetime, self.jitter, self._draw())
        return now + lifetime

    @cython.final
    cdef inline int64_t _due(self, uint32_t slot) noexcept:
        return NEVER if self.timers == NULL else self.timers[slot].due

    @cython.final
    cdef inline int64_t _hard(self, uint32_t slot) noexcept:
        return self._due(slot) if self.hards == NULL else self.hards[slot]

    @cython.final
    cdef bint _ready_wheel(self) noexcept:
        if self.wheel == NULL:
            self.wheel = <hg_wheel *>malloc(sizeof(hg_wheel))
            if self.wheel == NULL:
                return False
            hg_wheel_clear(self.wheel)
        return True

    @cython.final
    cdef int _ready_timers(self) except -1:
        """Have a timer a slot, in a cache whose entries had no lifetime so far."""
        cdef Py_ssize_t slot
        cdef hg_timer *timers
        if self.timers == NULL and self.capacity > 0:
            timers = <hg_timer *>malloc(<size_t>self._slots() * sizeof(hg_timer))
            if timers == NULL or not self._ready_wheel():
                free(timers)
                raise MemoryError
            for slot in range(self._slots()):
                timers[slot].due = NEVER
            self.timers = timers
        return 0

    @cython.final
    cdef inline void _set_timer(self, uint32_t slot, int64_t due) noexcept:
        if self.timers[slot].due != NEVER:
            hg_wheel_remove(self.wheel, self.timers, slot)
        if due != NEVER:
            hg_wheel_add(self.wheel, self.timers, slot, due)

    @cython.final
    cdef inline void _lease(self, uint32_t slot, int64_t now, int64_t hard) noexcept:
        """Let a live entry end by its ttl, or when it has been idle for too long."""
        if self.hards != NULL:
            self.hards[slot] = hard
        if self.idle != NEVER:
            hard = min(hard, now + self.idle)
        self._set_timer(slot, hard)

    @cython.final
    cdef inline void _touch(self, uint32_t slot, int64_t now) noexcept:
        """Count a read of a live entry for the policy and for its idle time."""
        if self.hards != NULL:
            self._lease(slot, now, self.hards[slot])
        self._hit(slot)

    @cython.final
    cdef int _purge(self, int64_t now, list dropped) except -1:
        """Drop every entry whose lifetime has ended."""
        cdef uint32_t slot
        if self.timers == NULL or not self._intact():
            return 0
        while True:
            slot = hg_wheel_due(self.wheel, self.timers, now)
            if slot == NIL:
                return 0
            self._drop(slot, dropped)
            self.left[<int>EXPIRED] += 1

    @cython.final
    cdef list _purge_now(self):
        """What `_purge_at` dropped now."""
        return self._purge_at(self._now()) if self._is_timed() else []

    @cython.final
    cdef int _purge_if_due(self, int64_t now) except -1:
        """`_purge_at`, spared while no lifetime has ended."""
        cdef bint due
        with cython.critical_section(self):
            due = self.timers != NULL and hg_rank(now) >= self.wheel.soonest
        if due:
            self._purge_at(now)
        return 0

    @cython.final
    cdef list _purge_at(self, int64_t now):
        """What `_purge` dropped, told to the listener."""
        cdef list dropped = []
        with cython.critical_section(self):
            self._purge(now, dropped)
        self._tell(dropped, "expired")
        return dropped

    # ---- tags -------------------------------------------------------------------------------

    @cython.final
    cdef void _unlabel(self, uint32_t slot) noexcept:
        """Take the tags off a slot; labels and plain strings run no foreign code."""
        cdef PyObject *stored = PyList_GET_ITEM(<PyObject *>self.labels, slot)
        cdef PyObject *group
        cdef _Label label
        if stored == Py_None:
            return
        label = <_Label>stored
        Py_INCREF(Py_None)
        PyList_SET_ITEM(<PyObject *>self.labels, slot, Py_None)
        Py_DECREF(stored)
        label.slot = NIL
        for tag in label.tags:
            group = PyDict_GetItem(self.tagged, tag) if self.tagged is not None else NULL
            if group != NULL and PyDict_Contains(<object>group, label):
                PyDict_DelItem(<object>group, label)
                if len(<dict><object>group) == 0:
                    PyDict_DelItem(self.tagged, tag)

    @cython.final
    cdef int _label(self, uint32_t slot, _Label label, list groups) except -1:
        """Give a live slot its tags; `groups` are dicts to use for those that are new."""
        cdef PyObject *stored = PyList_GET_ITEM(<PyObject *>self.labels, slot)
        cdef Py_ssize_t i
        label.slot = slot
        Py_INCREF(<PyObject *>label)
        PyList_SET_ITEM(<PyObject *>self.labels, slot, <PyObject *>label)
        Py_DECREF(stored)
        for i in range(len(label.tags)):
            tag = label.tags[i]
            if PyDict_GetItem(self.tagged, tag) == NULL:
                PyDict_SetItem(self.tagged, tag, groups[i])
            PyDict_SetItem(<object>PyDict_GetItem(self.tagged, tag), label, None)
        return 0

    # ---- what the methods are made of -------------------------------------------------------

    @cython.final
    cdef int64_t _measure(self, object value) except -1:
        """The size of `value`; runs getsizeof."""
        if self.sizer is None:
            return 1
        size = self.sizer(value)
        try:
            size = index(size)
        except TypeError:
            raise TypeError(f"getsizeof must return an int, got {size!r}") from None
        if size < 0:
            raise ValueError(f"value size must be non-negative, got {size!r}")
        if size > INT64_MAX:
            raise self._too_large(size)
        return size

    @cython.final
    cdef object _too_large(self, size):
        return ValueError(f"value too large: size {size} exceeds maxsize {self.room}")

    @cython.final
    cdef int _tell(self, dropped, str reason) except -1:
        """Tell the listener of the keys and values that `dropped` alternates."""
        if self.listener is not None and dropped:
            notify(self.listener, dropped, reason)
        return 0

    @cython.final
    cdef int _evict(self, int64_t size, list dropped, PyObject **key, PyObject **value) except -1:
        """Evict until `size` more fits. With `dropped` None, at most one entry has to go."""
        while self.filled > self.room - size or self.count > MOST_ENTRIES:
            if dropped is None:
                self._remove(self._victim(size), key, value)
                self.eviction_count += 1
            else:
                self._evict_some(size, dropped)
        return 0

    @cython.final
    cdef int _evict_one(self, uint32_t slot, list dropped) except -1:
        self._drop(slot, dropped)
        self.eviction_count += 1
        return 0

    @cython.final
    cdef int _drop(self, uint32_t slot, list dropped) except -1:
        """Move an entry to the end of `dropped`."""
        cdef PyObject *key
        cdef PyObject *value
        dropped.append(<object>self._key(slot))
        dropped.append(<object>self._value(slot))
        self._remove(slot, &key, &value)
        Py_DECREF(key)
        Py_DECREF(value)
        return 0

    @cython.final
    cdef uint32_t _find_or_slot(self, PyObject *key, Py_hash_t hash, bint tagging) except 0xFFFFFFFF:
        """The slot of `key`; when NIL, an insertion needs no allocation."""
        cdef uint32_t slot
        cdef list labels
        while True:
            if self._lacks_slot():
                self._grow()
            if tagging and self.labels is None:
                labels = [None] * self._slots()
                if self.labels is None and PyList_GET_SIZE(<PyObject *>labels) == self._slots():
                    self.labels = labels
                    self.tagged = {}
            slot = self._find(key, hash)
            if (slot != NIL or not self._lacks_slot()) and (self.labels is not None or not tagging):
                return slot

    @cython.final
    cdef inline int _set(self, object key, object value) except -1:
        if not self.plain or self._is_timed() or not self._store_plain(key, value):
            self._store(key, value, False, None, None)
        return 0

    @cython.final
    cdef bint _store_plain(self, object key, object value) except -1:
        """What `_store` does where entries have no size, lifetime, tag or listener; False if they have."""
        cdef Py_hash_t hash = hg_hash(<PyObject *>key)
        cdef PyObject *old_key = NULL
        cdef PyObject *old_value = NULL
        cdef uint32_t slot
        cdef bint stored = False
        with cython.critical_section(self):
            slot = self._find_or_slot(<PyObject *>key, hash, False)
            if self.plain and self.room > 0 and not self._is_timed() and self.labels is None:
                stored = True
                if slot != NIL:
                    old_value = self._exchange(slot, <PyObject *>value)
                    self._rewrite(slot)
                elif self.count >= self.room:
                    self._oust(<PyObject *>key, hash, <PyObject *>value, &old_key, &old_value)
                else:
                    self._insert(<PyObject *>key, hash, <PyObject *>value, 1)
        Py_XDECREF(old_key)
        Py_XDECREF(old_value)
        return stored

    @cython.final
    cdef inline PyObject *_exchange(self, uint32_t slot, PyObject *value) noexcept:
        """Give a live slot another value; the caller owns the old one."""
        self.left[<int>REPLACED] += 1
        return self._exchange_item(2 * <Py_ssize_t>slot + 1, value)

    @cython.final
    cdef object _store(self, object key, object value, bint keep, object ttl, tuple tags):
        """Put an entry; with `keep`, an entry that is there stays and its value is returned."""
        cdef Py_hash_t hash = hg_hash(<PyObject *>key)
        cdef int64_t size = self._measure(value), now, hard, lifetime = self.lifetime
        cdef PyObject *old_key = NULL
        cdef PyObject *old_value = NULL
        cdef list replaced = None, dropped = None, groups = None
        cdef _Label label = None
        cdef uint32_t slot
        if ttl is not None:
            lifetime = ttl
            hg_set(&self.timed, True)
        now = self._now()
        hard = self._ttl_end(now, lifetime)
        if self._is_timed():
            self._purge_if_due(now)
        if self.sizer is not None or self.listener is not None or self.sweeps:
            dropped = []
            replaced = []
        if tags:
            label = _Label.__new__(_Label)
            label.tags = tags
            groups = [{} for _ in tags]
        with cython.critical_section(self):
            if self.learns:
                self._asked(hash)
            slot = self._find_or_slot(<PyObject *>key, hash, label is not None)
            if keep and slot != NIL:
                self._touch(slot, now)
                value = <object>self._value(slot)
            elif size > self.room:
                raise self._too_large(size)
            else:
                if self._is_timed():
                    self._ready_timers()
                if slot == NIL:
                    self._evict(size, dropped, &old_key, &old_value)
                    slot = self._insert(<PyObject *>key, hash, <PyObject *>value, size)
                else:
                    if replaced is not None:
                        replaced.append(<object>self._key(slot))
                        replaced.append(<object>self._value(slot))
                    old_value = self._replace(slot, <PyObject *>value, size, dropped)
                if self.timers != NULL:
                    self._lease(slot, now, hard)
                if self.labels is not None:
                    self._unlabel(slot)
                if label is not None:
                    self._label(slot, label, groups)
        Py_XDECREF(old_key)
        Py_XDECREF(old_value)
        if self.listener is not None:
            self._tell(replaced, "replaced")
            self._tell(dropped, "size")
        return value

    @cython.final
    cdef object _take(self, PyObject *key, Py_hash_t hash):
        """Remove the entry of `key` and return its key and value, or None where there is none."""
        cdef PyObject *old_key = NULL
        cdef PyObject *old_value = NULL
        cdef uint32_t slot
        cdef int64_t now = self._now()
        cdef tuple entry = None
        cdef Reason reason = REMOVED
        with cython.critical_section(self):
            slot = self._find(key, hash)
            if slot != NIL:
                if self._due(slot) <= now:
                    reason = EXPIRED
                self._remove(slot, &old_key, &old_value)
                self.left[<int>reason] += 1
        if old_key != NULL:
            entry = self._let_go(old_key, old_value, "expired" if reason == EXPIRED else "removed")
        return None if reason == EXPIRED else entry

    @cython.final
    cdef tuple _let_go(self, PyObject *key, PyObject *value, str reason):
        """Own what was removed, and tell the listener."""
        cdef tuple entry
        try:
            entry = (<object>key, <object>value)
        finally:
            Py_DECREF(key)
            Py_DECREF(value)
        self._tell(entry, reason)
        return entry

    @cython.final
    cdef PyObject *_replace(self, uint32_t slot, PyObject *value, int64_t size, list dropped) except? NULL:
        """Exchange the value of a live slot; the caller owns the old one.

        What grows beyond the room leaves its place and comes in anew, when the others have made room.
        """
        cdef PyObject *old = self._exchange(slot, value)
        cdef int64_t old_size = self._size(slot)
        if self.filled - old_size > self.room - size:
            self._part(slot)
            self.filled -= old_size
            self._evict(size, dropped, NULL, NULL)
            self.sizes[slot] = size
            self.filled += size
            self._join(slot)
            return old
        if self.sizes != NULL:
            self._part_resized(slot, size - old_size)
            self.filled += size - old_size
            self.sizes[slot] = size
        self._rewrite(slot)
        return old

    cdef void _part_resized(self, uint32_t slot, int64_t growth) noexcept:
        """The size of a live entry changes by `growth`, in its place."""

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

    @cython.final
    cdef object _read(self, PyObject *key, Py_hash_t hash, object default):
        """The value of `key`, or `default`; counts a hit or a miss."""
        cdef PyObject *old_key = NULL
        cdef PyObject *old_value = NULL
        cdef uint32_t slot
        cdef int64_t now = self._now()
        cdef object value = default
        with cython.critical_section(self):
            slot = self._seek(key, hash)
            if slot != NIL and self._due(slot) > now:
                self.hit_count += 1
                self._touch(slot, now)
                value = <object>self._value(slot)
            else:
                self.miss_count += 1
                if slot != NIL:
                    self._remove(slot, &old_key, &old_value)
                    self.left[<int>EXPIRED] += 1
        if old_key != NULL:
            self._let_go(old_key, old_value, "expired")
        return value

    @cython.final
    cdef int _remove_labelled(self, list labels, list dropped) except -1:
        """Remove the entries that still have one of `labels`."""
        cdef _Label label
        for label in labels:
            if label.slot != NIL and self._intact():
                self._drop(label.slot, dropped)
                self.left[<int>REMOVED] += 1
        return 0

    # ---- the mapping ------------------------------------------------------------------------

    def __getitem__(self, key):
        value = self._read(<PyObject *>key, hg_hash(<PyObject *>key), _ABSENT)
        if value is _ABSENT:
            raise KeyError(key)
        return value

    def __setitem__(self, key, value):
        self._set(key, value)

    def __delitem__(self, key):
        if self._take(<PyObject *>key, hg_hash(<PyObject *>key)) is None:
            raise KeyError(key)

    def __contains__(self, key):
        cdef Py_hash_t hash = hg_hash(<PyObject *>key)
        cdef int64_t now = self._now()
        cdef bint found
        with cython.critical_section(self):
            slot = self._find(<PyObject *>key, hash)
            found = slot != NIL and self._due(slot) > now
        return found

    def __len__(self):
        cdef Py_ssize_t count
        if self._is_timed():
            self._purge_now()
        with cython.critical_section(self):
            count = self.count if self._intact() else 0
        return count

    def __iter__(self):
        return iter(self._flat_now()[::2])

    def __eq__(self, other):
        if not isinstance(other, Mapping):
            return NotImplemented
        return dict(self.items()) == dict(other.items())

    def __repr__(self):
        if Py_ReprEnter(self) != 0:
            return "..."
        if self._is_timed():
            self._purge_now()
        try:
            with cython.critical_section(self):
                flat, room, filled = self._flat(), self.room, self.filled
            entries = dict(zip(flat[::2], flat[1::2], strict=True))
            return f"{type(self).__name__}({entries!r}, maxsize={room}, currsize={filled})"
        finally:
            Py_ReprLeave(self)

    def __sizeof__(self):
        """The bytes of the cache and its slab, without keys and values."""
        cdef size_t fixed = object.__sizeof__(self), slab
        with cython.critical_section(self):
            slab = self._slab_bytes()
        return fixed + slab

    @cython.final
    cdef size_t _slab_bytes(self) noexcept:
        cdef size_t slot = sizeof(hg_node) + 2 * sizeof(PyObject *)
        cdef size_t fixed = self._policy_bytes()
        if self.sizes != NULL:
            slot += sizeof(int64_t)
        if self.marks != NULL:
            slot += sizeof(uint8_t)
        if self.ranks != NULL:
            slot += sizeof(uint32_t) + sizeof(uint64_t)
        if self.timers != NULL:
            slot += sizeof(hg_timer)
        if self.hards != NULL:
            slot += sizeof(int64_t)
        if self.labels is not None:
            slot += sizeof(PyObject *)
        if self.wheel != NULL:
            fixed += sizeof(hg_wheel)
        return fixed + <size_t>self._slots() * slot + (<size_t>self.table.mask + 1) * sizeof(uint32_t)

    cdef size_t _policy_bytes(self) noexcept:
        return 0

    @cython.final
    cdef list _flat_now(self):
        cdef list flat
        if self._is_timed():
            self._purge_now()
        with cython.critical_section(self):
            flat = self._flat()
        return flat

    def _entries(self):
        flat = iter(self._flat_now())
        return list(zip(flat, flat, strict=True))

    @cython.binding(False)
    def get(self, key, default=None):
        """The value of `key`, read as the policy counts reads; `default` where there is none.

        Counts a hit or a miss. Complexity: O(1).

        >>> cache = LRUCache(2)
        >>> cache.get("a", "nothing")
        'nothing'
        """
        cdef Py_hash_t hash = hg_hash(<PyObject *>key)
        cdef uint32_t slot
        cdef object value = default
        if self._is_timed():
            return self._read(<PyObject *>key, hash, default)
        with cython.critical_section(self):
            slot = self._seek(<PyObject *>key, hash)
            if slot != NIL:
                self.hit_count += 1
                self._hit(slot)
                value = <object>self._value(slot)
            else:
                self.miss_count += 1
        return value

    @cython.binding(False)
    def peek(self, key, default=None):
        """The value of `key`, or `default`; neither the order nor a counter changes.

        Complexity: O(1).

        >>> cache = LRUCache(2)
        >>> cache["a"] = 1
        >>> cache.peek("a"), cache.hits
        (1, 0)
        """
        cdef Py_hash_t hash = hg_hash(<PyObject *>key)
        cdef uint32_t slot
        cdef int64_t now = self._now()
        cdef object value = default
        with cython.critical_section(self):
            slot = self._find(<PyObject *>key, hash)
            if slot != NIL and self._due(slot) > now:
                value = <object>self._value(slot)
        return value

    @cython.binding(False)
    def put(self, key, value, *, ttl=None, tags=()):
        """Store `value` under `key` and evict what no longer fits.

        The same as ``cache[key] = value``, for an entry of its own lifetime `ttl`, in seconds:
        None takes that of the cache, ``math.inf`` none at all. An entry can be dropped by each
        of its `tags`, see ``invalidate``.

        Raises ValueError if the value's size is negative or above `maxsize` or `ttl` is not
        positive, TypeError if `ttl` is no number or a tag no str; the cache is then as it was.
        Complexity: O(1), amortised over the entries evicted where sizes differ.

        >>> cache = LRUCache(3, getsizeof=len)
        >>> cache.put("a", "xy")
        >>> cache.put("b", "xyz", ttl=60)
        >>> list(cache)
        ['b']
        """
        if ttl is None and type(tags) is tuple and not tags:
            self._set(key, value)
        else:
            self._store(key, value, False, None if ttl is None else _nanoseconds(ttl), checked_tags(tags))

    def pop(self, key, default=_ABSENT):
        """Remove `key` and return its value; `default` where there is none.

        Raises KeyError if there is no such key and no default was given. Complexity: O(1).

        >>> cache = LRUCache(2)
        >>> cache["a"] = 1
        >>> cache.pop("a"), cache.pop("a", None)
        (1, None)
        """
        entry = self._take(<PyObject *>key, hg_hash(<PyObject *>key))
        if entry is not None:
            return entry[1]
        if default is _ABSENT:
            raise KeyError(key)
        return default

    def popitem(self):
        """Remove the entry that would be evicted next and return its key and value.

        Raises KeyError if the cache is empty. Complexity: O(1).

        >>> cache = LRUCache(2)
        >>> cache["a"], cache["b"] = 1, 2
        >>> cache.popitem()
        ('a', 1)
        """
        cdef PyObject *key = NULL
        cdef PyObject *value = NULL
        if self._is_timed():
            self._purge_now()
        with cython.critical_section(self):
            if self.count > 0 and self._intact():
                self._remove(self._victim(0), &key, &value)
                self.left[<int>REMOVED] += 1
        if key == NULL:
            raise KeyError(f"{type(self).__name__} is empty")
        return self._let_go(key, value, "removed")

    def setdefault(self, key, default=None):
        """The value of `key`; where there is none, `default`, stored under `key`.

        Counts a hit or a miss. Raises what ``put`` raises. Complexity: O(1).

        >>> cache = LRUCache(2)
        >>> cache.setdefault("a", 1), cache.setdefault("a", 2)
        (1, 1)
        """
        found = self._read(<PyObject *>key, hg_hash(<PyObject *>key), _ABSENT)
        return self._store(key, default, True, None, None) if found is _ABSENT else found

    def get_or_load(self, key, loader):
        """The value of `key`; where there is none, what ``loader(key)`` returns, stored under `key`.

        Of all threads that ask for one missing key at one time, one calls its loader and the others
        wait for the outcome, an error included; an error is never stored. A loader may ask for keys
        itself, even for its own. What was loaded is not stored if the cache was cleared meanwhile, or
        if it is too large. Counts a hit or a miss, and the load and its time.

        Raises what the loader raises, and TypeError if it is no callable, is a coroutine function or
        returns an awaitable: ``aget_or_load`` takes these. Complexity: O(1), the loader aside.

        >>> cache = LRUCache(2)
        >>> cache.get_or_load("a", str.upper), cache.get_or_load("a", str.lower)
        ('A', 'A')
        >>> cache.stats().loads
        1
        """
        checked_loader(loader)
        found = self._read(<PyObject *>key, hg_hash(<PyObject *>key), _ABSENT)
        if found is not _ABSENT:
            return found
        refuse_coroutine_function(loader)
        return self._shared_flights().load(self, key, lambda: self._load(key, loader))

    async def aget_or_load(self, key, loader):
        """The value of `key`; where there is none, what ``await loader(key)`` returns, stored under `key`.

        ``get_or_load`` for coroutines of asyncio: of all tasks of an event loop that ask for one missing
        key at one time, one calls its loader and the others wait for the outcome. If its task is cancelled,
        the next that waits takes over. Other event loops, and threads in ``get_or_load``, load for
        themselves. `loader` may be any callable; what it returns is awaited if it is awaitable.

        Raises what the loader raises, and TypeError if it is no callable. Complexity: O(1), the loader
        aside.

        >>> import asyncio
        >>> async def load(key):
        ...     return key.upper()
        >>> cache = LRUCache(2)
        >>> asyncio.run(cache.aget_or_load("a", load)), cache["a"]
        ('A', 'A')
        """
        checked_loader(loader)
        found = self._read(<PyObject *>key, hg_hash(<PyObject *>key), _ABSENT)
        if found is not _ABSENT:
            return found
        return await self._shared_flights().load_async(self, key, lambda: self._load_async(key, loader))

    @cython.final
    cdef object _shared_flights(self):
        """The flights by which all threads and event loops load; made by whoever loads first."""
        with cython.critical_section(self):
            flights = self.flights
        if flights is None:
            made = Flights()
            with cython.critical_section(self):
                if self.flights is None:
                    self.flights = made
                flights = self.flights
        return flights

    @cython.final
    cdef object _load(self, object key, object loader):
        cdef bint failed = True
        cdef int64_t started = hg_monotonic_ns()
        try:
            value = checked_result(loader(key))
            failed = False
        finally:
            self._count_load(failed, started)
        return value

    async def _load_async(self, key, loader):
        cdef bint failed = True
        cdef int64_t started = hg_monotonic_ns()
        try:
            value = loader(key)
            if is_awaitable(value):
                value = await value
            failed = False
        finally:
            self._count_load(failed, started)
        return value

    @cython.final
    cdef int _count_load(self, bint failed, int64_t started) except -1:
        """Count a load that began when the clock of loads was at `started`."""
        with cython.critical_section(self):
            self.load_count += 1
            self.failure_count += failed
            self.load_time += <uint64_t>(hg_monotonic_ns() - started)
        return 0

    def update(self, other=(), /, **kwargs):
        """Put every entry of a mapping, of an iterable of pairs, and of the keyword arguments.

        Complexity: O(1) an entry.

        >>> cache = LRUCache(2)
        >>> cache.update({"a": 1}, b=2)
        >>> list(cache.items())
        [('a', 1), ('b', 2)]
        """
        MutableMapping.update(self, other, **kwargs)

    def clear(self):
        """Remove every entry and give the memory back; counters stay, `generation` goes up.

        Complexity: O(n).

        >>> cache = LRUCache(2)
        >>> cache["a"] = 1
        >>> cache.clear()
        >>> len(cache), cache.generation
        (0, 1)
        """
        self._clear()

    @cython.final
    cdef Py_ssize_t _clear(self) except -1:
        """Remove every entry, and return how many there were."""
        cdef list fresh = [None] * (2 * <Py_ssize_t>LISTS)
        cdef list flat = None, labels = None
        cdef dict tagged = None
        cdef Py_ssize_t count
        with cython.critical_section(self):
            if self.listener is not None:
                flat = self._flat()
            count = self.count if self._intact() else 0
            self.left[<int>REMOVED] += count
            self.emptied += 1
            self.entries, fresh = fresh, self.entries
            labels, self.labels = self.labels, None
            tagged, self.tagged = self.tagged, tagged
            self._forget_slots()
            flights = self.flights
        if flights is not None:
            flights.ground()
        _forget_labels(labels)
        del fresh, tagged
        if flat is not None:
            self._tell(flat, "removed")
        return count

    def keys(self):
        """A view of the keys, the next victim first; iterating it goes over a snapshot.

        >>> cache = LRUCache(2)
        >>> cache.update(a=1, b=2)
        >>> list(cache.keys())
        ['a', 'b']
        """
        return CacheKeys(self)

    def values(self):
        """A view of the values in the order of the keys; reading it touches nothing.

        >>> cache = LRUCache(2)
        >>> cache.update(a=1, b=2)
        >>> list(cache.values())
        [1, 2]
        """
        return CacheValues(self)

    def items(self):
        """A view of the pairs of key and value; reading it touches nothing.

        >>> cache = LRUCache(2)
        >>> cache.update(a=1, b=2)
        >>> list(cache.items())
        [('a', 1), ('b', 2)]
        """
        return CacheItems(self)

    # ---- beyond the mapping -----------------------------------------------------------------

    @property
    def maxsize(self):
        """The bound on `currsize`.

        >>> LRUCache(2).maxsize
        2
        """
        return self._maxsize()

    @property
    def currsize(self):
        """The number of entries, or the sum of their sizes where the cache has a getsizeof.

        >>> cache = LRUCache(10, getsizeof=len)
        >>> cache["a"] = "xyz"
        >>> cache.currsize
        3
        """
        cdef int64_t filled
        if self._is_timed():
            self._purge_now()
        with cython.critical_section(self):
            filled = self.filled if self._intact() else 0
        return filled

    @property
    def getsizeof(self):
        """The callable that sizes a value, or None.

        >>> LRUCache(10, getsizeof=len).getsizeof("xyz")
        3
        """
        return self.sizer

    @property
    def on_evict(self):
        """The listener that is told of every entry that has left, or None.

        >>> cache = LRUCache(1, on_evict=print)
        >>> cache["a"] = 1
        >>> cache["b"] = 2
        a 1 size
        """
        return self.listener

    @property
    def ttl(self):
        """The lifetime of an entry in seconds, or None.

        >>> LRUCache(2, ttl=60).ttl
        60.0
        """
        return None if self.lifetime == NEVER else self.lifetime / 1e9

    @property
    def tti(self):
        """The time in seconds after which an entry that is not used ends, or None.

        >>> LRUCache(2, tti=0.5).tti
        0.5
        """
        return None if self.idle == NEVER else self.idle / 1e9

    @property
    def clock(self):
        """The callable that answers integer nanoseconds, or None for the monotonic clock.

        >>> LRUCache(2).clock is None
        True
        """
        return self.tick

    @property
    def generation(self):
        """How often the whole cache was emptied, by ``clear`` or by ``invalidate()``.

        >>> LRUCache(2).generation
        0
        """
        with cython.critical_section(self):
            count = self.emptied
        return count

    @property
    def hits(self):
        """How many lookups found their key.

        >>> cache = LRUCache(1)
        >>> cache["a"] = 1
        >>> cache.get("a"), cache.hits
        (1, 1)
        """
        with cython.critical_section(self):
            count = self.hit_count
        return count

    @property
    def misses(self):
        """How many lookups did not find their key.

        >>> cache = LRUCache(1)
        >>> cache.get("a"), cache.misses
        (None, 1)
        """
        with cython.critical_section(self):
            count = self.miss_count
        return count

    @property
    def evictions(self):
        """How many entries were dropped to keep within `maxsize`.

        >>> cache = LRUCache(1)
        >>> cache.update(a=1, b=2)
        >>> cache.evictions
        1
        """
        with cython.critical_section(self):
            count = self.eviction_count
        return count

    @property
    def expirations(self):
        """How many entries were dropped at the end of their lifetime.

        >>> LRUCache(1).expirations
        0
        """
        with cython.critical_section(self):
            count = self.left[<int>EXPIRED]
        return count

    def stats(self, *, reset=False):
        """A snapshot of the counters and of the size; with `reset` the counters start anew.

        >>> cache = LRUCache(2)
        >>> cache.get("a")
        >>> cache.stats(reset=True).misses, cache.stats().misses
        (1, 0)
        """
        cdef bint anew = reset
        if self._is_timed():
            self._purge_now()
        with cython.critical_section(self):
            currsize, room = self.filled if self._intact() else 0, self.room
            counts = (self.hit_count, self.miss_count, self.eviction_count, self.left[<int>EXPIRED],
                      self.left[<int>REPLACED], self.left[<int>REMOVED], self.load_count, self.failure_count,
                      self.load_time / 1e9)
            if anew:
                self.hit_count = self.miss_count = self.eviction_count = 0
                self.left[<int>EXPIRED] = self.left[<int>REPLACED] = self.left[<int>REMOVED] = 0
                self.load_count = self.failure_count = self.load_time = 0
        return CacheStats(*counts, currsize, room)

    def expire(self):
        """Drop every entry whose lifetime has ended, and return their keys and values.

        It is never needed: whatever writes or counts does it too. Complexity: O(1) amortised an
        entry.

        >>> now = [0]
        >>> cache = LRUCache(2, ttl=1, clock=lambda: now[0])
        >>> cache["a"] = 1
        >>> now[0] = 10**9
        >>> cache.expire()
        [('a', 1)]
        """
        flat = iter(self._purge_now())
        return list(zip(flat, flat, strict=True))

    def invalidate(self, *, tag=None, predicate=None):
        """Remove the entries of a tag, or those for which ``predicate(key, value)`` is true, or all.

        Returns how many they were. Raises TypeError if both are given, or are no str and no
        callable. Complexity: O(entries of the tag); O(n) for a predicate and for all.

        >>> cache = LRUCache(9)
        >>> cache.put("a", 1, tags=("user:7",))
        >>> cache.put("b", 2)
        >>> cache.invalidate(tag="user:7"), list(cache)
        (1, ['b'])
        >>> cache.invalidate(predicate=lambda key, value: value > 1)
        1
        """
        cdef list dropped = [], labels = None
        if tag is not None and predicate is not None:
            raise TypeError(f"either tag or predicate must be None, got {tag!r} and {predicate!r}")
        if tag is not None:
            checked_tags((tag,))
            with cython.critical_section(self):
                labels = list(self.tagged.get(tag, ())) if self.tagged is not None else []
                self._remove_labelled(labels, dropped)
            self._tell(dropped, "removed")
            return len(dropped) // 2
        checked_callable("predicate", predicate)
        if predicate is None:
            self._purge_now()
            return self._clear()
        chosen = [(key, value) for key, value in self._entries() if predicate(key, value)]
        try:
            for key, value in chosen:
                self._drop_unchanged(key, value, dropped)
        finally:
            self._tell(dropped, "removed")
        return len(dropped) // 2

    @cython.final
    cdef int _drop_unchanged(self, object key, object value, list dropped) except -1:
        """Drop the entry of `key` if its value is still this one."""
        cdef Py_hash_t hash = hg_hash(<PyObject *>key)
        cdef uint32_t slot
        with cython.critical_section(self):
            slot = self._find(<PyObject *>key, hash)
            if slot != NIL and self._value(slot) == <PyObject *>value:
                self._drop(slot, dropped)
                self.left[<int>REMOVED] += 1
        return 0

    def resize(self, maxsize):
        """Set another `maxsize`, evict what no longer fits and give spare memory back.

        Raises what the constructor raises. Complexity: O(entries evicted), and O(n) where
        memory is given back.

        >>> cache = LRUCache(3)
        >>> cache.update(a=1, b=2, c=3)
        >>> cache.resize(1)
        >>> list(cache)
        ['c']
        """
        cdef int64_t room = _checked_maxsize(maxsize, self.sizer is not None)
        cdef list dropped = []
        self._purge_now()
        with cython.critical_section(self):
            if not self._intact():
                self._wipe()
            self.room = room
            self._fit()
            self._evict(0, dropped, NULL, NULL)
            if self.capacity > self._limit() or self.capacity > 4 * <uint64_t>self.count:
                self._move(max(self.count, min(<uint32_t>FIRST_CAPACITY, self._limit())))
        self._tell(dropped, "size")

    def dump(self, file, *, serializer=None):
        """Write all entries, their lifetimes and tags to a path or a binary file.

        `serializer` has ``dumps`` and ``loads``, as modules like pickle have; by default it is json. A
        path is replaced as a whole, by a file of the same mode: a reader finds the old dump or the new.
        Raises what the serializer raises, and TypeError if a key or a value does not come back from it
        the same, as tuples do not from json, which makes lists of them; the file is then as it was.
        Complexity: O(n).

        >>> import io
        >>> cache, file = LRUCache(2), io.BytesIO()
        >>> cache["a"] = [1, 2]
        >>> cache.dump(file)
        >>> file.getvalue().startswith(b"headgate cache 1")
        True
        """
        _, rows = self._moment()
        dump_rows(rows, file, serializer)

    def load(self, file, *, serializer=None):
        """Put all entries of a path or a binary file that ``dump`` wrote, and return how many they were.

        Lifetimes go on from where they stood at the dump. `serializer` must be the one that wrote the
        file: reading it runs that serializer on what the file holds, so pickle is for trusted files
        only. Raises ValueError if the file is no dump, was truncated or altered or names another
        serializer, or if a value is too large; the cache is then as it was. Complexity: O(entries of the
        file).

        >>> import io
        >>> cache, file = LRUCache(2), io.BytesIO()
        >>> cache["a"] = [1, 2]
        >>> cache.dump(file)
        >>> other = LRUCache(2)
        >>> other.load(io.BytesIO(file.getvalue())), other["a"]
        (1, [1, 2])
        """
        rows = load_rows(file, serializer)
        for _, value, *_ in rows:
            size = self._measure(value)
            if size > self._maxsize():
                raise self._too_large(size)
        for key, value, *_ in rows:
            self[key] = value
        self.__setstate__(({}, leases(rows)))
        return len(rows)

    # ---- copies, pickles, checks ------------------------------------------------------------

    def __copy__(self):
        room, rows = self._moment()
        cdef _Cache copy = type(self)._from_state(self._state(room))
        listener, copy.listener = copy.listener, None
        for key, value, *_ in rows:
            copy._store(key, value, False, None, None)
        copy.__setstate__((carried(self), leases(rows)))
        copy.left[<int>REPLACED] = 0
        copy.listener = listener
        return copy

    def __reduce__(self):
        room, rows = self._moment()
        own, lasting = carried(self), leases(rows)
        more = (own, lasting) if own or lasting else None
        return restore, (name_class(self), self._state(room)), more, None, iter([row[:2] for row in rows])

    @cython.final
    cdef int64_t _maxsize(self):
        """maxsize, which another thread may be changing."""
        cdef int64_t room
        with cython.critical_section(self):
            room = self.room
        return room

    def _state(self, room):
        return (2, room, self.sizer, None if self.lifetime == NEVER else self.lifetime,
                None if self.idle == NEVER else self.idle, self.jitter, self.tick, self.listener, self.seed)

    @classmethod
    def _from_state(cls, state):
        if state[0] != 2:
            raise ValueError(f"state must be of version 2, got {state[0]!r}")
        cdef _Cache cache = cls.__new__(cls)
        _, room, sizer, lifetime, idle, jitter, clock, listener, seed = state
        cache._configure(room, sizer, lifetime, idle, jitter, clock, listener, seed)
        return cache

    @cython.final
    cdef tuple _moment(self):
        """The bound, and of every entry key, value, nanoseconds left in all and by ttl, and tags."""
        cdef int64_t now, room
        cdef int64_t *ends = NULL
        cdef bint timed, whole = False
        cdef list flat, labels, rows = []
        cdef Py_ssize_t at, count
        try:
            while not whole:
                timed, now = self._is_timed(), self._now()
                self._purge_at(now)
                with cython.critical_section(self):
                    count = self.count
                labels = [None] * count
                free(ends)
                ends = <int64_t *>malloc((2 * len(labels) + 1) * sizeof(int64_t))
                if ends == NULL:
                    raise MemoryError
                with cython.critical_section(self):
                    flat, room = self._flat(), self.room
                    if timed == self._is_timed():  # or `now` is no time
                        whole = PyList_GET_SIZE(<PyObject *>flat) == 2 * PyList_GET_SIZE(<PyObject *>labels)
                    if whole:
                        self._read_leases(labels, ends)
            for at in range(len(labels)):
                label = labels[at]
                rows.append((
                    flat[2 * at], flat[2 * at + 1],
                    ends[2 * at] if ends[2 * at] == NEVER else ends[2 * at] - now,
                    ends[2 * at + 1] if ends[2 * at + 1] == NEVER else ends[2 * at + 1] - now,
                    () if label is None else (<_Label>label).tags,
                ))
        finally:
            free(ends)
        return room, rows

    @cython.final
    cdef void _read_leases(self, list labels, int64_t *ends) noexcept:
        """The label of each entry, and when it ends in all and by ttl, in the order of `_flat`."""
        cdef uint32_t slot, end
        cdef Py_ssize_t at = 0
        for end in range(LISTS):
            slot = self.nodes[end].next
            while slot != end:
                ends[2 * at] = self._due(slot)
                ends[2 * at + 1] = self._hard(slot)
                if self.labels is not None:
                    Py_INCREF(PyList_GET_ITEM(<PyObject *>self.labels, slot))
                    PyList_SET_ITEM(<PyObject *>labels, at, PyList_GET_ITEM(<PyObject *>self.labels, slot))
                    Py_DECREF(Py_None)  # which stood there
                at += 1
                slot = self.nodes[slot].next

    def __setstate__(self, state):
        """Adopt the attributes of a subclass, and lifetimes and tags: what ``__reduce__`` wrote."""
        own, lasting = checked_state(state)
        carry(self, own)
        for key, left, hard_left, tags in lasting:
            self._resume(key, left, hard_left, tags)

    @cython.final
    cdef int _resume(self, object key, int64_t left, int64_t hard_left, tuple tags) except -1:
        """Let the entry of `key` live for `left` nanoseconds more, and give it its tags."""
        cdef Py_hash_t hash = hg_hash(<PyObject *>key)
        cdef uint32_t slot
        cdef int64_t now
        cdef list groups = [{} for _ in tags]
        cdef _Label label = _Label.__new__(_Label)
        label.tags = tags
        if left != NEVER:
            hg_set(&self.timed, True)
        now = self._now()
        with cython.critical_section(self):
            slot = self._find_or_slot(<PyObject *>key, hash, bool(tags))
            if slot != NIL:
                if self._is_timed():
                    self._ready_timers()
                    if self.hards != NULL:
                        self.hards[slot] = NEVER if hard_left == NEVER else now + hard_left
                    self._set_timer(slot, NEVER if left == NEVER else now + left)
                if tags:
                    self._unlabel(slot)
                    self._label(slot, label, groups)
        return 0

    def _check(self):
        cdef uint32_t slot, at, end, seen = 0, chained = 0, prev, leased = 0, timers = 0
        cdef int64_t filled = 0
        assert self._intact(), "the list of entries fits the capacity"
        assert self.used < self.capacity + LISTS
        assert self.capacity <= self._limit() or self.capacity == FIRST_CAPACITY
        assert 2 * (<uint64_t>self.table.mask + 1) >= 5 * <uint64_t>self.capacity or self.capacity == 0
        for end in range(LISTS):
            prev = end
            slot = self.nodes[end].next
            while slot != end:
                assert self.nodes[slot].prev == prev, "the lists are doubly linked"
                assert LISTS <= slot <= self.used
                assert hg_table_has(&self.table, self.nodes[slot].hash, slot), "a live slot is reachable"
                filled += self._size(slot)
                leased += self._due(slot) != NEVER
                seen += 1
                prev = slot
                slot = self.nodes[slot].next
            assert self.nodes[end].prev == prev
        assert seen == self.count, "the lists hold every live slot"
        assert filled == self.filled <= self.room, "currsize is the sum of the sizes, within maxsize"
        assert hg_table_filled(&self.table) == seen, "the table holds every live slot once"
        slot = self.free
        while slot != NIL:
            assert self._key(slot) == Py_None and self._value(slot) == Py_None, "free slots hold nothing"
            assert self._due(slot) == NEVER, "free slots have no lifetime"
            chained += 1
            slot = self.nodes[slot].next
        assert self.count + chained == self.used + 1 - LISTS, "every used slot is live or free"
        if self.timers != NULL:
            for at in range(704):
                slot = self.wheel.first[at]
                while slot != NIL:
                    assert hg_bucket(self.wheel, hg_rank(self.timers[slot].due)) == at, "a timer's bucket"
                    timers += 1
                    slot = self.timers[slot].next
        assert timers == leased, "the wheel holds every slot that has a lifetime"
        self._check_labels()
        self._check_policy()

    def _probes(self):
        """How many cells of the table the lookups of all keys read."""
        with cython.critical_section(self):
            cells = hg_table_probes(&self.table, self.nodes, sizeof(hg_node))
        return cells

    @cython.final
    cdef int _check_labels(self) except -1:
        cdef _Label label
        for tag, group in (self.tagged or {}).items():
            assert group, "a tag that nothing has is forgotten"
            for label in group:
                assert PyList_GET_ITEM(<PyObject *>self.labels, label.slot) == <PyObject *>label
                assert tag in label.tags and self._key(label.slot) != Py_None or label.slot >= LISTS
        return 0


MutableMapping.register(_Cache)


cdef int _forget_labels(list labels) except -1:
    """Make clear to whoever holds one that its slot is gone."""
    for label in labels or ():
        if label is not None:
            (<_Label>label).slot = NIL
    return 0


cdef class LRUCache(_Cache):
    """LRUCache(maxsize, getsizeof=None, *, ttl=None, tti=None, jitter=0.0, clock=None, on_evict=None, \
    seed=0)\n--\n
    A mapping of at most `maxsize` entries that drops the least recently used one first.

    With `getsizeof`, a callable from a value to a non-negative int, `maxsize` bounds the sum of
    the sizes instead of the number of entries. ``on_evict(key, value, reason)`` is called after
    an entry has left, with the reason ``"size"``, ``"expired"``, ``"replaced"`` or ``"removed"``;
    what it raises goes to ``sys.unraisablehook``.

    An entry ends `ttl` seconds after it was written, or `tti` seconds after it was last used,
    whatever comes first; each ttl is shortened at random by up to the share `jitter`. `clock` is a
    callable that answers integer nanoseconds, by default the monotonic clock. An entry that has
    ended is never returned nor counted, and leaves with the next write or count. All draws follow
    from `seed`.

    ``cache[key]``, ``get``, ``setdefault`` and ``put`` make an entry the most recently used;
    ``peek``, ``in`` and iteration touch nothing. Iteration goes over a snapshot, least recently
    used first. Every method is atomic among threads.

    Raises ValueError if `maxsize` is negative or above 2**31 entries (2**63 - 1 with
    `getsizeof`), `ttl` or `tti` is not positive or `jitter` outside [0, 1), TypeError if an
    argument has the wrong type.

    Complexity: O(1) for every operation on one key; memory grows with use, never beyond maxsize.

    >>> cache = LRUCache(2)
    >>> cache["a"], cache["b"] = 1, 2
    >>> cache["a"]
    1
    >>> cache["c"] = 3
    >>> cache
    LRUCache({'a': 1, 'c': 3}, maxsize=2, currsize=2)
    """

    @cython.final
    cdef void _hit(self, uint32_t slot) noexcept:
        self._renew(slot)


cdef class TTLCache(LRUCache):
    """TTLCache(maxsize, ttl, getsizeof=None, *, tti=None, jitter=0.0, clock=None, on_evict=None, \
    seed=0)\n--\n
    An LRUCache whose entries end `ttl` seconds after they were written.

    Arguments, errors and complexity are those of ``LRUCache``; ``put`` may give an entry another
    lifetime.

    >>> now = [0]
    >>> cache = TTLCache(2, ttl=1, clock=lambda: now[0])
    >>> cache["a"] = 1
    >>> now[0] = 999_999_999
    >>> cache["a"]
    1
    >>> now[0] = 1_000_000_000
    >>> "a" in cache, len(cache), cache.expirations
    (False, 0, 1)
    """

    def __init__(self, maxsize, ttl, getsizeof=None, *, tti=None, jitter=0.0, clock=None, on_evict=None,
                 seed=0):
        if ttl is None:
            raise TypeError(f"ttl must be a number of seconds, got {ttl!r}")
        self._begin(maxsize, getsizeof, ttl, tti, jitter, clock, on_evict, seed)


cdef class FIFOCache(_Cache):
    """FIFOCache(maxsize, getsizeof=None, *, ttl=None, tti=None, jitter=0.0, clock=None, on_evict=None, \
    seed=0)\n--\n
    A mapping of at most `maxsize` entries that drops the one written longest ago first.

    Reading an entry does not save it, writing it again puts it last in the queue. Arguments,
    errors and complexity are those of ``LRUCache``. Iteration goes over a snapshot, the next
    victim first.

    >>> cache = FIFOCache(2)
    >>> cache["a"], cache["b"] = 1, 2
    >>> cache["a"]
    1
    >>> cache["c"] = 3
    >>> list(cache)
    ['b', 'c']
    """

    @cython.final
    cdef void _hit(self, uint32_t slot) noexcept:
        pass

    @cython.final
    cdef void _rewrite(self, uint32_t slot) noexcept:
        self._renew(slot)


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
        """Let the group of `slot` end before it; whether nobody is left in the group."""
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
    cdef void _part(self, uint32_t slot) noexcept:
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
            assert self._group(self.ranks[slot]).uses > uses, "groups stand in the order of their uses"
            while next != 0 and self.ranks[next] == self.ranks[slot]:
                slot = next
                next = self.nodes[slot].next
            uses = self._group(self.ranks[slot]).uses
            assert self._group(self.ranks[slot]).last == slot, "a group knows its last entry"
            slot = next
        return 0


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
    cdef void _part(self, uint32_t slot) noexcept:
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


cdef class _Queues(_Cache):
    """What policies of several lists share: a mark is 16 * list + a count, sums are sizes of lists."""

    cdef int64_t[3] sums

    def __cinit__(self, *args, **kwargs):
        self.marked = self.learns = True

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
    cdef void _part(self, uint32_t slot) noexcept:
        self._delist(slot)

    @cython.final
    cdef void _part_resized(self, uint32_t slot, int64_t growth) noexcept:
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
            assert filled == self.sums[end], "a list knows its size"
        return 0


cdef class S3FIFOCache(_Queues):
    """S3FIFOCache(maxsize, getsizeof=None, *, ttl=None, tti=None, jitter=0.0, clock=None, \
    on_evict=None, seed=0)\n--\n
    A mapping of at most `maxsize` entries in a small queue, a main queue and a queue of ghosts.

    A new entry joins the small queue, a tenth of the cache; who was read twice there by its turn is
    moved to the main queue, and who was not leaves a ghost: its hash, of which as many are kept as
    the main queue has room for (an entry of size 0 counts there as 1). A key that still has a ghost
    comes back into the main queue, whose entries get as many further turns as they were read, at
    most three. Arguments, errors and complexity are those of ``LRUCache``; an eviction is O(1)
    amortised over the reads. Iteration goes over a snapshot: the small queue, then the main one,
    oldest first.

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
        self.sweeps = True

    def __dealloc__(self):
        hg_ghosts_clear(&self.ghosts)

    @cython.final
    cdef void _fit(self) noexcept:
        self.tenth = self.room // 10 + (self.room % 10 != 0)
        hg_ghosts_trim(&self.ghosts, <uint64_t>(self.room - self.tenth))

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
            if self.sums[1] > self.room - self.tenth:
                self._evict_one(self._main_victim(), dropped)
            slot = self.nodes[0].next
        if slot != 0:
            hash, weight = self.nodes[slot].hash, max(1, self._size(slot))
            self._evict_one(slot, dropped)
            hg_ghosts_add(&self.ghosts, hash, weight, <uint64_t>(self.room - self.tenth),
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
    cdef hg_echoes echoes  # what was rejected lately
    cdef int64_t window_room
    cdef int64_t protected_room
    cdef int64_t span  # a sixteenth of the cache
    cdef uint64_t promotions  # from probation since the last entry joined
    cdef double aim  # what window_room follows

    def __cinit__(self, *args, **kwargs):
        hg_sketch_clear(&self.sketch)

    def __dealloc__(self):
        hg_sketch_clear(&self.sketch)
        hg_echoes_clear(&self.echoes)

    @cython.final
    cdef void _fit(self) noexcept:
        self.window_room = self.room // 100
        if self.window_room == 0:
            self.window_room = min(1, self.room)
        self._fit_protected()
        self.span = max(1, self.room // 16)
        self.promotions = 0
        self.aim = <double>self.window_room

    @cython.final
    cdef void _fit_protected(self) noexcept:
        cdef int64_t main = self.room - self.window_room
        self.protected_room = main // 5 * 4 + main % 5 * 4 // 5

    @cython.final
    cdef void _asked(self, Py_hash_t hash) noexcept:
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
        while self.sums[2] > self.protected_room and self.nodes[2].next != 2:
            self._move_to(self.nodes[2].next, 1, 0)

    @cython.final
    cdef uint32_t _shrink_window(self, int64_t size) noexcept:
        """Let entries fall out of the window until `size` more fits, and return the last of them, or 0."""
        cdef uint32_t candidate = 0
        while self.sums[0] > self.window_room - size and self.nodes[0].next != 0:
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
            hg_echoes_add(&self.echoes, self.nodes[victim].hash, self._size(victim), self.count)
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
        """Move the border between window and main part by what was asked for since the last entry joined.

        A main part smaller by `span` would have lost some of the promotions, the reads on probation: half the
        share of `span` in the probation, as its old end is read less than its new one. A wider window has to
        be worth a 64th of the cache, for each step costs an entry of the main part. No product is added to
        anything, as a compiler might round both but once and the pure twin could not follow.
        """
        cdef int64_t least = min(1, self.room), most = self.room - least, window
        cdef double size = <double>self._size(slot)
        cdef double lost = size * <double>self.promotions
        self.promotions = 0
        if self.echoes.sum == 0:
            return
        lost /= max(2.0, 2.0 * <double>self.sums[1] / <double>self.span)
        self.aim = max(self.aim - lost, <double>least)
        if hg_echoes_has(&self.echoes, self.nodes[slot].hash, <uint64_t>self.span):
            self.aim += size
        if self.aim >= <double>most:
            self.aim = <double>most
            window = most
        elif self.aim < <double>self.window_room:
            window = <int64_t>self.aim
        elif self.aim - <double>self.window_room >= <double>self.room / 64.0:
            window = <int64_t>self.aim
        else:
            return
        if window != self.window_room:
            self.window_room = window
            self._fit_protected()
            self._shrink_protected()

    @cython.final
    cdef void _empty_policy(self) noexcept:
        self.sums[0] = self.sums[1] = self.sums[2] = 0
        self.promotions = 0
        hg_sketch_clear(&self.sketch)
        hg_echoes_clear(&self.echoes)

    @cython.final
    cdef size_t _policy_bytes(self) noexcept:
        return <size_t>(self.sketch.size + 2 * self.echoes.size) * sizeof(uint64_t)


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
    cdef void _part(self, uint32_t slot) noexcept:
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
            assert self.ranks[self.side[at]] == at, "a slot knows its place among all"
        return 0


for cls in (LRUCache, TTLCache, FIFOCache, LFUCache, SieveCache, S3FIFOCache, TinyLFUCache, RRCache):
    for name in ("get", "peek", "put"):
        hg_own_method(cls, name)
del cls, name
