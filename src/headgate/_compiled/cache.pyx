# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, embedsignature=True, embedsignature.format=clinic, autotestdict=False
"""The cache engine and its policies.

    table (u32)      nodes (C structs)                 entries (one Python list)
    +---+            slot  hash   prev  next           2*slot   2*slot+1
    | 0 |             0     -      3     1             None     None      <- sentinel: the ends of the list
    | 2 | --------->  1    h(a)    0     2             "a"      value     <- next victim
    | 0 |     +---->  2    h(b)    1     3             "b"      value
    | 3 | ----|--+->  3    h(c)    2     0             "c"      value     <- most recently used
    | 1 | ----+  |    4     -      -     5             None     None      <- free, chained by next
    +---+
    home(hash) = top bits of hash * golden ratio; linear probing; removal shifts back

Invariants (`_check` walks them all)
- Slot 0 is the sentinel of the circular list; 0 in the table means empty, 0 ends the free chain.
- The table is at most two fifths full, and every live slot stands in it once, reachable from its home.
- The list holds exactly the live slots; the entries of any other slot are None.
- len(entries) == 2 * (capacity + 1). The garbage collector sees keys and values in that list; when
  it has torn it down in a dead cycle, `_intact` notices and the cache is empty from then on.
- currsize is the sum of the live sizes, at most maxsize; without getsizeof every size is 1.

Foreign code - ``__hash__``, getsizeof, ``__eq__`` in `_find`, finalizers run by an allocation - runs before
the first edit. `version` counts structural edits: a probe that called ``__eq__`` starts over when it changed.
From the first edit to the last nothing is allocated and nothing released. Evicted references are dropped
last, and then the listener is called; both may re-enter.
"""
cimport cython
from cpython.list cimport PyList_New
from cpython.object cimport Py_EQ, PyObject, PyObject_RichCompareBool
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc

from collections.abc import Mapping, MutableMapping
from operator import index
from types import GenericAlias

from headgate._listeners import notify
from headgate._pickling import attributes, name_class, restore
from headgate._stats import CacheStats
from headgate._views import _ABSENT, CacheItems, CacheKeys, CacheValues


cdef extern from "Python.h":
    PyObject *PyList_GET_ITEM(PyObject *entries, Py_ssize_t i)
    void PyList_SET_ITEM(PyObject *entries, Py_ssize_t i, PyObject *item)
    Py_ssize_t PyList_GET_SIZE(PyObject *entries)
    bint PyUnicode_CheckExact(PyObject *key)
    void Py_INCREF(PyObject *o)
    void Py_DECREF(PyObject *o)
    void Py_XDECREF(PyObject *o)
    int Py_ReprEnter(object o) except -1
    void Py_ReprLeave(object o)
    PyObject *Py_None

cdef extern from "unicode_eq.h":
    Py_hash_t hg_hash(PyObject *key) except -1
    bint hg_str_equal(PyObject *a, PyObject *b)

cdef struct Node:
    Py_hash_t hash
    uint32_t prev
    uint32_t next

cdef enum:
    NIL = 0
    FIRST_CAPACITY = 8

cdef extern from *:
    """
    #define MOST_ENTRIES INT64_C(0x80000000)
    """
    const int64_t MOST_ENTRIES


cdef inline void _swap(list a, Py_ssize_t i, list b, Py_ssize_t j) noexcept:
    cdef PyObject *item = PyList_GET_ITEM(<PyObject *>a, i)
    PyList_SET_ITEM(<PyObject *>a, i, PyList_GET_ITEM(<PyObject *>b, j))
    PyList_SET_ITEM(<PyObject *>b, j, item)


cdef int64_t _checked_maxsize(object maxsize, bint weighted) except -1:
    try:
        maxsize = index(maxsize)
    except TypeError:
        raise TypeError(f"maxsize must be an int, got {maxsize!r}") from None
    if maxsize < 0:
        raise ValueError(f"maxsize must be non-negative, got {maxsize!r}")
    most = INT64_MAX if weighted else MOST_ENTRIES
    if maxsize > most:
        raise ValueError(f"maxsize must be at most {most}, got {maxsize!r}")
    return maxsize


cdef object _checked_callable(str name, object value):
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable or None, got {value!r}")
    return value


cdef class LRUCache:
    """A mapping of at most `maxsize` entries that drops the least recently used one first.

    With `getsizeof`, a callable from a value to a non-negative int, `maxsize` bounds the sum of
    the sizes instead of the number of entries. ``on_evict(key, value, reason)`` is called after
    an entry has left, with the reason ``"size"``, ``"replaced"`` or ``"removed"``; what it
    raises goes to ``sys.unraisablehook``.

    ``cache[key]``, ``get``, ``setdefault`` and ``put`` make an entry the most recently used;
    ``peek``, ``in`` and iteration touch nothing. Iteration goes over a snapshot, least recently
    used first. Every method is atomic among threads.

    Raises ValueError if `maxsize` is negative or above 2**31 entries (2**63 - 1 with
    `getsizeof`), TypeError if an argument has the wrong type.

    Complexity: O(1) for every operation on one key; memory grows with use, never beyond maxsize.

    >>> cache = LRUCache(2)
    >>> cache["a"], cache["b"] = 1, 2
    >>> cache["a"]
    1
    >>> cache["c"] = 3
    >>> cache
    LRUCache({'a': 1, 'c': 3}, maxsize=2, currsize=2)
    """

    cdef object __weakref__
    cdef list entries
    cdef object sizer
    cdef object listener
    cdef Node *nodes
    cdef uint32_t *table
    cdef int64_t *sizes
    cdef uint64_t version
    cdef int64_t room
    cdef int64_t filled
    cdef uint64_t hit_count
    cdef uint64_t miss_count
    cdef uint64_t eviction_count
    cdef uint32_t shift
    cdef uint32_t mask
    cdef uint32_t capacity
    cdef uint32_t count
    cdef uint32_t used
    cdef uint32_t free

    __hash__ = None
    __class_getitem__ = classmethod(GenericAlias)

    def __cinit__(self, *args, **kwargs):
        self.entries = [None, None]
        self.nodes = <Node *>calloc(1, sizeof(Node))
        self.table = <uint32_t *>calloc(1, sizeof(uint32_t))
        self.shift = 63
        if self.nodes == NULL or self.table == NULL:
            raise MemoryError

    def __init__(self, maxsize, getsizeof=None, *, on_evict=None):
        room = _checked_maxsize(maxsize, getsizeof is not None)
        _checked_callable("getsizeof", getsizeof)
        _checked_callable("on_evict", on_evict)
        self.clear()
        self.sizer = getsizeof
        self.listener = on_evict
        self.room = room

    def __dealloc__(self):
        free(self.nodes)
        free(self.table)
        free(self.sizes)

    # ---- the slab and its table -------------------------------------------------------------

    @cython.final
    cdef inline bint _intact(self) noexcept:
        return (self.entries is not None
                and PyList_GET_SIZE(<PyObject *>self.entries) == 2 * (<Py_ssize_t>self.capacity + 1))

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
        return <uint32_t>((<uint64_t>hash * <uint64_t>0x9E3779B97F4A7C15) >> self.shift) & self.mask

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
            slot = self.table[at]
            if slot == NIL:
                return NIL
            if self.nodes[slot].hash == hash:
                stored = self._key(slot)
                if stored == key:
                    return slot
                if PyUnicode_CheckExact(stored) and PyUnicode_CheckExact(key):
                    if hg_str_equal(stored, key):
                        return slot
                else:
                    version = self.version
                    Py_INCREF(stored)
                    try:
                        equal = PyObject_RichCompareBool(<object>stored, <object>key, Py_EQ)
                    finally:
                        Py_DECREF(stored)
                    if version != self.version:
                        at = self._home(hash)
                        continue
                    if equal:
                        return slot
            at = (at + 1) & self.mask

    @cython.final
    cdef inline uint32_t _seek(self, PyObject *key, Py_hash_t hash) except 0xFFFFFFFF:
        """`_find`, spared where the very key object stands at its home."""
        cdef uint32_t slot
        if self._intact():
            slot = self.table[self._home(hash)]
            if slot != NIL and self._key(slot) == key:
                return slot
        return self._find(key, hash)

    @cython.final
    cdef void _enter(self, uint32_t slot) noexcept:
        """Write `slot` into the table."""
        cdef uint32_t at = self._home(self.nodes[slot].hash)
        while self.table[at] != NIL:
            at = (at + 1) & self.mask
        self.table[at] = slot

    @cython.final
    cdef void _leave(self, uint32_t slot) noexcept:
        """Take `slot` out of the table and shift back those that its place had pushed on."""
        cdef uint32_t hole = self._home(self.nodes[slot].hash)
        cdef uint32_t at, other, home
        while self.table[hole] != slot:
            hole = (hole + 1) & self.mask
        at = hole
        while True:
            at = (at + 1) & self.mask
            other = self.table[at]
            if other == NIL:
                break
            home = self._home(self.nodes[other].hash)
            if ((at - home) & self.mask) >= ((at - hole) & self.mask):
                self.table[hole] = other
                hole = at
        self.table[hole] = NIL

    @cython.final
    cdef int _wipe(self) except -1:
        """Be empty, when the garbage collector has already torn the entries down."""
        self.entries = [None, None]
        self._forget_slots()
        return 0

    @cython.final
    cdef void _forget_slots(self) noexcept:
        """Shrink the slab to its sentinel, after the entries were taken away."""
        self.nodes = <Node *>realloc(self.nodes, sizeof(Node))
        self.table = <uint32_t *>realloc(self.table, sizeof(uint32_t))
        free(self.sizes)
        self.sizes = NULL
        self.capacity = self.count = self.used = self.free = self.mask = 0
        self.filled = 0
        self.table[0] = NIL
        self.nodes[0].prev = self.nodes[0].next = 0
        self.version += 1

    @cython.final
    cdef inline uint32_t _limit(self) noexcept:
        return <uint32_t>(MOST_ENTRIES + 1) if self.sizer is not None else <uint32_t>self.room

    @cython.final
    cdef inline bint _lacks_slot(self) noexcept:
        return self.free == NIL and self.used == self.capacity and self.capacity < self._limit()

    @cython.final
    cdef int _grow(self) except -1:
        cdef uint64_t doubled = max(<uint64_t>FIRST_CAPACITY, 2 * <uint64_t>self.capacity)
        return self._move(<uint32_t>min(doubled, <uint64_t>self._limit()))

    @cython.final
    cdef int _move(self, uint32_t capacity) except -1:
        """Move the live entries into a slab of `capacity` slots, unless the cache changes meanwhile."""
        cdef uint64_t version = self.version
        cdef uint32_t cells = 4, shift = 62, at, slot, moved = 0
        cdef list entries = [None] * (2 * (<Py_ssize_t>capacity + 1))
        cdef Node *nodes
        cdef uint32_t *table
        cdef uint32_t *places
        cdef int64_t *sizes = NULL
        if version != self.version or not self._intact():
            return 0
        while 2 * <uint64_t>cells < 5 * <uint64_t>capacity:
            cells *= 2
            shift -= 1
        nodes = <Node *>malloc((<size_t>capacity + 1) * sizeof(Node))
        table = <uint32_t *>calloc(cells, sizeof(uint32_t))
        places = <uint32_t *>calloc(<size_t>self.capacity + 1, sizeof(uint32_t))
        if self.sizer is not None:
            sizes = <int64_t *>calloc(<size_t>capacity + 1, sizeof(int64_t))
        if nodes == NULL or table == NULL or places == NULL or (self.sizer is not None and sizes == NULL):
            free(nodes)
            free(table)
            free(places)
            free(sizes)
            raise MemoryError
        if self.capacity > 0:
            for at in range(self.mask + 1):
                slot = self.table[at]
                if slot != NIL:
                    moved += 1
                    places[slot] = moved
        for slot in range(self.used + 1):
            if slot != 0 and places[slot] == 0:
                continue
            at = places[slot]
            nodes[at].hash = self.nodes[slot].hash
            nodes[at].prev = places[self.nodes[slot].prev]
            nodes[at].next = places[self.nodes[slot].next]
            if sizes != NULL and self.sizes != NULL:
                sizes[at] = self.sizes[slot]
            _swap(entries, 2 * <Py_ssize_t>at, self.entries, 2 * <Py_ssize_t>slot)
            _swap(entries, 2 * <Py_ssize_t>at + 1, self.entries, 2 * <Py_ssize_t>slot + 1)
        free(places)
        free(self.nodes)
        free(self.table)
        free(self.sizes)
        self.nodes, self.table, self.sizes = nodes, table, sizes
        self.entries, entries = entries, self.entries
        self.mask, self.shift = cells - 1, shift
        self.capacity, self.used, self.free = capacity, moved, NIL
        self.version += 1
        for slot in range(1, moved + 1):
            self._enter(slot)
        return 0

    @cython.final
    cdef uint32_t _take_slot(self) noexcept:
        cdef uint32_t slot = self.free
        if slot != NIL:
            self.free = self.nodes[slot].next
        else:
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
    cdef void _insert(self, PyObject *key, Py_hash_t hash, PyObject *value, int64_t size) noexcept:
        cdef uint32_t slot = self._take_slot()
        Py_INCREF(key)
        Py_INCREF(value)
        self._set_entry(slot, key, value)
        self.nodes[slot].hash = hash
        if self.sizes != NULL:
            self.sizes[slot] = size
        self._enter(slot)
        self._link(slot)
        self.count += 1
        self.filled += size
        self.version += 1

    @cython.final
    cdef void _remove(self, uint32_t slot, PyObject **key, PyObject **value) noexcept:
        """Take an entry out; the caller owns the two references and drops them last."""
        self._leave(slot)
        self._unlink(slot)
        key[0] = self._key(slot)
        value[0] = self._value(slot)
        Py_INCREF(Py_None)
        Py_INCREF(Py_None)
        PyList_SET_ITEM(<PyObject *>self.entries, 2 * <Py_ssize_t>slot, Py_None)
        PyList_SET_ITEM(<PyObject *>self.entries, 2 * <Py_ssize_t>slot + 1, Py_None)
        self.count -= 1
        self.filled -= self._size(slot)
        self.version += 1
        self.nodes[slot].next = self.free
        self.free = slot

    # ---- the order: least recently used first -----------------------------------------------

    @cython.final
    cdef inline void _link(self, uint32_t slot) noexcept:
        cdef uint32_t last = self.nodes[0].prev
        self.nodes[slot].prev = last
        self.nodes[slot].next = 0
        self.nodes[last].next = slot
        self.nodes[0].prev = slot

    @cython.final
    cdef inline void _unlink(self, uint32_t slot) noexcept:
        cdef uint32_t prev = self.nodes[slot].prev, next = self.nodes[slot].next
        self.nodes[prev].next = next
        self.nodes[next].prev = prev

    @cython.final
    cdef inline void _touch(self, uint32_t slot) noexcept:
        if self.nodes[slot].next != 0:
            self._unlink(slot)
            self._link(slot)

    @cython.final
    cdef inline uint32_t _victim(self) noexcept:
        return self.nodes[0].next

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
            raise ValueError(f"value too large: size {size} exceeds maxsize {self.room}")
        return size

    @cython.final
    cdef int _evict(self, int64_t size, list dropped, PyObject **key, PyObject **value) except -1:
        """Evict until `size` more fits. With `dropped` None, at most one entry has to go."""
        cdef uint32_t slot
        while self.filled > self.room - size or self.count > MOST_ENTRIES:
            slot = self._victim()
            if dropped is None:
                self._remove(slot, key, value)
            else:
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
    cdef uint32_t _find_or_slot(self, PyObject *key, Py_hash_t hash) except 0xFFFFFFFF:
        """The slot of `key`; when NIL, an insertion needs no allocation."""
        cdef uint32_t slot
        while True:
            if self._lacks_slot():
                self._grow()
            slot = self._find(key, hash)
            if slot != NIL or not self._lacks_slot():
                return slot

    @cython.final
    cdef object _store(self, object key, object value, bint keep):
        """Put an entry; with `keep`, an entry that is there stays and its value is returned."""
        cdef Py_hash_t hash = hg_hash(<PyObject *>key)
        cdef int64_t size = self._measure(value)
        cdef PyObject *old_key = NULL
        cdef PyObject *old_value = NULL
        cdef list replaced = None, dropped = None
        cdef uint32_t slot
        if self.sizer is not None or self.listener is not None:
            dropped = []
            replaced = []
        with cython.critical_section(self):
            slot = self._find_or_slot(<PyObject *>key, hash)
            if keep and slot != NIL:
                self._touch(slot)
                value = <object>self._value(slot)
            elif size > self.room:
                raise ValueError(f"value too large: size {size} exceeds maxsize {self.room}")
            elif slot == NIL:
                self._evict(size, dropped, &old_key, &old_value)
                self._insert(<PyObject *>key, hash, <PyObject *>value, size)
            else:
                if replaced is not None:
                    replaced.append(<object>self._key(slot))
                    replaced.append(<object>self._value(slot))
                old_value = self._replace(slot, <PyObject *>value, size)
                self._evict(0, dropped, &old_key, &old_value)
        Py_XDECREF(old_key)
        Py_XDECREF(old_value)
        if self.listener is not None:
            notify(self.listener, replaced, "replaced")
            notify(self.listener, dropped, "size")
        return value

    @cython.final
    cdef object _take(self, PyObject *key, Py_hash_t hash):
        """Remove the entry of `key` and return its key and value, or None where there is none."""
        cdef PyObject *old_key = NULL
        cdef PyObject *old_value = NULL
        cdef uint32_t slot
        cdef tuple entry = None
        with cython.critical_section(self):
            slot = self._find(key, hash)
            if slot != NIL:
                self._remove(slot, &old_key, &old_value)
        if old_key != NULL:
            try:
                entry = (<object>old_key, <object>old_value)
            finally:
                Py_DECREF(old_key)
                Py_DECREF(old_value)
            if self.listener is not None:
                notify(self.listener, entry, "removed")
        return entry

    @cython.final
    cdef PyObject *_replace(self, uint32_t slot, PyObject *value, int64_t size) noexcept:
        """Exchange the value of a live slot; the caller owns the old one."""
        cdef PyObject *old = self._value(slot)
        Py_INCREF(value)
        PyList_SET_ITEM(<PyObject *>self.entries, 2 * <Py_ssize_t>slot + 1, value)
        if self.sizes != NULL:
            self.filled += size - self.sizes[slot]
            self.sizes[slot] = size
        self._touch(slot)
        return old

    @cython.final
    cdef list _flat(self):
        """Keys and values in turn, in the order of eviction."""
        cdef list flat
        cdef uint32_t slot
        cdef Py_ssize_t at = 0
        while True:
            if not self._intact():
                self._wipe()
            flat = PyList_New(2 * <Py_ssize_t>self.count)
            if self._intact() and PyList_GET_SIZE(<PyObject *>flat) == 2 * <Py_ssize_t>self.count:
                break
        slot = self.nodes[0].next
        while slot != 0:
            Py_INCREF(self._key(slot))
            Py_INCREF(self._value(slot))
            PyList_SET_ITEM(<PyObject *>flat, at, self._key(slot))
            PyList_SET_ITEM(<PyObject *>flat, at + 1, self._value(slot))
            at += 2
            slot = self.nodes[slot].next
        return flat

    # ---- the mapping ------------------------------------------------------------------------

    def __getitem__(self, key):
        cdef Py_hash_t hash = hg_hash(<PyObject *>key)
        cdef uint32_t slot
        cdef object value = None
        with cython.critical_section(self):
            slot = self._seek(<PyObject *>key, hash)
            if slot != NIL:
                self.hit_count += 1
                self._touch(slot)
                value = <object>self._value(slot)
            else:
                self.miss_count += 1
        if slot == NIL:
            raise KeyError(key)
        return value

    def __setitem__(self, key, value):
        self._store(key, value, False)

    def __delitem__(self, key):
        if self._take(<PyObject *>key, hg_hash(<PyObject *>key)) is None:
            raise KeyError(key)

    def __contains__(self, key):
        cdef Py_hash_t hash = hg_hash(<PyObject *>key)
        cdef uint32_t slot
        with cython.critical_section(self):
            slot = self._find(<PyObject *>key, hash)
        return slot != NIL

    def __len__(self):
        return self.count if self._intact() else 0

    def __iter__(self):
        return iter(self._flat_locked()[::2])

    def __eq__(self, other):
        if not isinstance(other, Mapping):
            return NotImplemented
        return dict(self.items()) == dict(other.items())

    def __repr__(self):
        if Py_ReprEnter(self) != 0:
            return "..."
        try:
            entries = dict(self._entries())
            return f"{type(self).__name__}({entries!r}, maxsize={self.room}, currsize={self.currsize})"
        finally:
            Py_ReprLeave(self)

    def __sizeof__(self):
        """The bytes of the cache and its slab, without keys and values."""
        cdef size_t slot = sizeof(Node) + 2 * sizeof(PyObject *)
        if self.sizes != NULL:
            slot += sizeof(int64_t)
        return (object.__sizeof__(self) + (<size_t>self.capacity + 1) * slot
                + (<size_t>self.mask + 1) * sizeof(uint32_t))

    @cython.final
    cdef list _flat_locked(self):
        cdef list flat
        with cython.critical_section(self):
            flat = self._flat()
        return flat

    def _entries(self):
        flat = iter(self._flat_locked())
        return list(zip(flat, flat, strict=True))

    @cython.binding(False)
    def get(self, key, default=None):
        """The value of `key`, made the most recently used; `default` where there is none.

        Counts a hit or a miss. Complexity: O(1).

        >>> cache = LRUCache(2)
        >>> cache.get("a", "nothing")
        'nothing'
        """
        cdef Py_hash_t hash = hg_hash(<PyObject *>key)
        cdef uint32_t slot
        cdef object value = default
        with cython.critical_section(self):
            slot = self._seek(<PyObject *>key, hash)
            if slot != NIL:
                self.hit_count += 1
                self._touch(slot)
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
        cdef object value = default
        with cython.critical_section(self):
            slot = self._find(<PyObject *>key, hash)
            if slot != NIL:
                value = <object>self._value(slot)
        return value

    @cython.binding(False)
    def put(self, key, value):
        """Store `value` under `key` as the most recently used and evict what no longer fits.

        The same as ``cache[key] = value``. Raises ValueError if the value's size is negative or
        above `maxsize`; the cache is then as it was. Complexity: O(1), amortised over the
        entries evicted where sizes differ.

        >>> cache = LRUCache(3, getsizeof=len)
        >>> cache.put("a", "xy")
        >>> cache.put("b", "xyz")
        >>> list(cache)
        ['b']
        """
        self._store(key, value, False)

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
        with cython.critical_section(self):
            if self.count > 0 and self._intact():
                self._remove(self._victim(), &key, &value)
        if key == NULL:
            raise KeyError(f"{type(self).__name__} is empty")
        try:
            entry = (<object>key, <object>value)
        finally:
            Py_DECREF(key)
            Py_DECREF(value)
        if self.listener is not None:
            notify(self.listener, entry, "removed")
        return entry

    def setdefault(self, key, default=None):
        """The value of `key`; where there is none, `default`, stored under `key`.

        Counts a hit or a miss. Raises what ``put`` raises. Complexity: O(1).

        >>> cache = LRUCache(2)
        >>> cache.setdefault("a", 1), cache.setdefault("a", 2)
        (1, 1)
        """
        found = self.get(key, _ABSENT)
        return self._store(key, default, True) if found is _ABSENT else found

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
        """Remove every entry and give the memory back; counters stay.

        Complexity: O(n).

        >>> cache = LRUCache(2)
        >>> cache["a"] = 1
        >>> cache.clear()
        >>> len(cache)
        0
        """
        cdef list fresh = [None, None]
        cdef list flat = None
        with cython.critical_section(self):
            if self.listener is not None:
                flat = self._flat()
            self.entries, fresh = fresh, self.entries
            self._forget_slots()
        del fresh
        if flat is not None:
            notify(self.listener, flat, "removed")

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
        return self.room

    @property
    def currsize(self):
        """The number of entries, or the sum of their sizes where the cache has a getsizeof.

        >>> cache = LRUCache(10, getsizeof=len)
        >>> cache["a"] = "xyz"
        >>> cache.currsize
        3
        """
        return self.filled if self._intact() else 0

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
    def hits(self):
        """How many lookups found their key.

        >>> cache = LRUCache(1)
        >>> cache["a"] = 1
        >>> cache.get("a"), cache.hits
        (1, 1)
        """
        return self.hit_count

    @property
    def misses(self):
        """How many lookups did not find their key.

        >>> cache = LRUCache(1)
        >>> cache.get("a"), cache.misses
        (None, 1)
        """
        return self.miss_count

    @property
    def evictions(self):
        """How many entries were dropped to keep within `maxsize`.

        >>> cache = LRUCache(1)
        >>> cache.update(a=1, b=2)
        >>> cache.evictions
        1
        """
        return self.eviction_count

    def stats(self):
        """A snapshot of the counters and of the size.

        >>> LRUCache(2).stats()
        CacheStats(hits=0, misses=0, evictions=0, currsize=0, maxsize=2)
        """
        return CacheStats(self.hit_count, self.miss_count, self.eviction_count, self.currsize, self.room)

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
        with cython.critical_section(self):
            if not self._intact():
                self._wipe()
            self.room = room
            self._evict(0, dropped, NULL, NULL)
            if self.capacity > self._limit() or self.capacity > 4 * <uint64_t>self.count:
                self._move(max(self.count, min(<uint32_t>FIRST_CAPACITY, self._limit())))
        if self.listener is not None:
            notify(self.listener, dropped, "size")

    # ---- copies, pickles, checks ------------------------------------------------------------

    def __copy__(self):
        cdef LRUCache copy = type(self)._from_state(self._state())
        attributes(copy).update(attributes(self))
        listener, copy.listener = copy.listener, None
        for key, value in self._entries():
            copy._store(key, value, False)
        copy.listener = listener
        return copy

    def __reduce__(self):
        rebuild = (name_class(self), self._state())
        return restore, rebuild, attributes(self) or None, None, iter(self._entries())

    def _state(self):
        return 1, self.room, self.sizer, self.listener

    @classmethod
    def _from_state(cls, state):
        version, maxsize, getsizeof, on_evict = state
        if version != 1:
            raise ValueError(f"state must be of version 1, got {version!r}")
        cache = cls.__new__(cls)
        LRUCache.__init__(cache, maxsize, getsizeof, on_evict=on_evict)
        return cache

    def _check(self):
        cdef uint32_t slot, at, seen = 0, chained = 0, prev = 0
        cdef int64_t filled = 0
        assert self._intact(), "the list of entries fits the capacity"
        assert self.used <= self.capacity <= self._limit() or self.capacity == FIRST_CAPACITY
        assert 2 * (<uint64_t>self.mask + 1) >= 5 * <uint64_t>self.capacity or self.capacity == 0
        slot = self.nodes[0].next
        while slot != 0:
            assert self.nodes[slot].prev == prev, "the list is doubly linked"
            assert slot <= self.used
            at = self._home(self.nodes[slot].hash)
            while self.table[at] != slot:
                assert self.table[at] != NIL, "a live slot is reachable from its home"
                at = (at + 1) & self.mask
            filled += self._size(slot)
            seen += 1
            prev = slot
            slot = self.nodes[slot].next
        assert self.nodes[0].prev == prev
        assert seen == self.count, "the list holds every live slot"
        assert filled == self.filled <= self.room, "currsize is the sum of the sizes, within maxsize"
        for at in range(self.mask + 1):
            seen -= self.table[at] != NIL
        assert seen == 0, "the table holds every live slot once"
        slot = self.free
        while slot != NIL:
            assert self._key(slot) == Py_None and self._value(slot) == Py_None, "free slots hold nothing"
            chained += 1
            slot = self.nodes[slot].next
        assert self.count + chained == self.used, "every used slot is live or free"


MutableMapping.register(LRUCache)
