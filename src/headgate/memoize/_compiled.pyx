# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, embedsignature=True, embedsignature.format=clinic, autotestdict=False
"""Memoized functions: the results of the most recently used calls.

    table (u32)      nodes (C structs)                 entries (one Python list)
    +---+            slot  hash   prev  next           2*slot              2*slot+1
    | 0 |             0     -      2     1             None                None      <- sentinel
    | 2 | --------->  1    h(7)    0     3             7                   f(7)      <- next victim
    | 3 | ----+---->  2    h(..)   3     0             (1, 2)              f(1, 2)   <- most recently used
    | 1 | ----+---->  3    h(..)   1     2             (1, KEYWORDS,       f(1, b=2)
    +---+                                               ("b",), 2)
    nodes, their table and their list are those of slots.h

A key is what tells two calls apart. The only argument, an exact str or int, is its own key. Every other
call has a flat one, a tuple: the positional arguments; with keywords KEYWORDS, their names in the order of
the call and their values; and for a typed function the types of all arguments. The tuple is made when a call
is missed; a lookup hashes the arguments where they lie and compares them with the tuple one by one.

Invariants (`_check` walks them all)
- Slots 1..count are live and no others: where an entry leaves by itself, that of the last slot moves.
- Slot 0 is the sentinel of the circular list; 0 in the table means empty.
- The table is at most two fifths full, and every live slot stands in it once, reachable from its home.
- len(entries) == 2 * (capacity + 1). The garbage collector sees keys and results in that list; when
  it has torn it down in a dead cycle, `_intact` notices and nothing is remembered from then on.

Foreign code - ``__hash__``, ``__eq__`` in `_find_flat`, the function, finalizers run by an allocation -
runs before the first edit. The table's version counts its edits: a probe that called ``__eq__`` starts over
when it changed, and a result is stored without another look when no edit came between. From the first edit to
the last nothing is allocated and nothing released. Evicted references are dropped last.

``cached`` puts a `_Front` before such `_Results`, or before a user's cache; the rest of it is not hot, and
shared with the pure twin.
"""
cimport cython
from cpython.number cimport PyNumber_AsSsize_t
from cpython.object cimport Py_EQ, PyObject, PyObject_RichCompareBool
from libc.stdint cimport UINT64_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc

from headgate._c.clock cimport hg_monotonic_ns
from headgate._c.scatter cimport hg_draw_secret, hg_scatter, hg_secret, hg_seed_secrets
from headgate._c.slots cimport (
    hg_list_append,
    hg_list_remove,
    hg_node,
    hg_table,
    hg_table_adopt,
    hg_table_allocate,
    hg_table_cell,
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

from functools import _CacheInfo, update_wrapper
from os import urandom
from time import monotonic_ns

from headgate.memoize._cached import DEFAULT_MAXSIZE, KEYWORDS, decorator
from headgate.cache._compiled import LRUCache
from headgate.memoize._stores import Timed
from headgate.cache._views import _ABSENT


cdef extern from "Python.h":
    ctypedef PyObject *(*vectorcallfunc)(PyObject *, PyObject **, size_t, PyObject *)
    ctypedef struct PyTypeObject
    PyTypeObject *Py_TYPE(PyObject *o)
    PyObject *PyList_GET_ITEM(PyObject *entries, Py_ssize_t i)
    void PyList_SET_ITEM(PyObject *entries, Py_ssize_t i, PyObject *item)
    Py_ssize_t PyList_GET_SIZE(PyObject *entries)
    bint PyLong_CheckExact(PyObject *key)
    bint PyTuple_CheckExact(PyObject *key)
    PyObject *PyTuple_GET_ITEM(PyObject *key, Py_ssize_t i)
    Py_ssize_t PyTuple_GET_SIZE(PyObject *key)
    tuple PyTuple_New(Py_ssize_t size)
    void PyTuple_SET_ITEM(PyObject *key, Py_ssize_t i, PyObject *item)
    bint PyUnicode_CheckExact(PyObject *key)
    Py_ssize_t PyVectorcall_NARGS(size_t nargsf)
    object PyObject_Vectorcall(object function, PyObject **args, size_t nargsf, PyObject *names)
    object PyMethod_New(object function, object instance)
    object PyVectorcall_Call(object function, object args, object kwargs)
    void Py_INCREF(PyObject *o)
    void Py_DECREF(PyObject *o)
    void Py_XDECREF(PyObject *o)

cdef extern from "memo.h":
    PyObject *hg_call(PyObject *function, PyObject **args, size_t count) except NULL
    PyObject *hg_placed(PyObject *places, PyObject *instance) except? NULL
    void hg_call_by_vector(PyTypeObject *type, Py_ssize_t offset, bint binds)

cdef struct Call:
    PyObject **args
    PyObject *names     # of the keywords; NULL where there are none
    PyObject *own_key   # NULL for a flat key
    PyObject *flat_key  # NULL where it has not been made
    Py_ssize_t given    # positional arguments
    Py_ssize_t total    # arguments
    Py_ssize_t size     # of the flat key
    Py_hash_t hash
    bint typed

cdef enum:
    NIL = 0
    FIRST_CAPACITY = 8
    MOST_ENTRIES = 0x33333333  # two fifths of 2**31 cells
    UNBOUNDED = -1

cdef object ABSENT = _ABSENT
cdef object MARK = KEYWORDS
cdef object TIMED = Timed
cdef object MONOTONIC = monotonic_ns


# One secret for the hashes of all calls: arguments must not be chosen so that these hashes are equal.
cdef hg_secret CALLS
hg_seed_secrets(urandom(16))
CALLS = hg_draw_secret()


cdef inline uint64_t _mixed(uint64_t state, Py_hash_t item) noexcept:
    return hg_scatter(state ^ <uint64_t>item, &CALLS)


cdef int _same(PyObject *a, PyObject *b) except -1:
    return a == b or PyObject_RichCompareBool(<object>a, <object>b, Py_EQ)


cdef Py_ssize_t _put(PyObject *key, Py_ssize_t at, PyObject *item) noexcept:
    Py_INCREF(item)
    PyTuple_SET_ITEM(key, at, item)
    return at + 1


cdef inline bint _is_own_key(PyObject *key) noexcept:
    return PyUnicode_CheckExact(key) or PyLong_CheckExact(key)


# ---- calls and their keys -----------------------------------------------------------------------

cdef int _read_own(Call *call, PyObject **args) except -1:
    """Describe a call whose only argument is its own key."""
    call.args = args
    call.names = NULL
    call.own_key = args[0]
    call.hash = hg_hash(args[0])
    return 0


cdef inline void _describe(
        Call *call, PyObject **args, Py_ssize_t given, PyObject *names, bint typed) noexcept:
    """Describe a call whose key is flat, except for its hash."""
    cdef Py_ssize_t keywords = 0
    if names != NULL:
        keywords = PyTuple_GET_SIZE(names)
    call.args = args
    call.names = names if keywords else NULL
    call.own_key = call.flat_key = NULL
    call.given = given
    call.total = given + keywords
    call.size = call.total + (2 if keywords else 0) + (call.total if typed else 0)
    call.typed = typed


cdef int _read_flat(Call *call, PyObject **args, Py_ssize_t given, PyObject *names, bint typed) except -1:
    """Describe a call whose key is flat; the hash is taken over the items of the key in turn."""
    cdef Py_ssize_t i
    cdef uint64_t state = 0
    _describe(call, args, given, names, typed)
    for i in range(given):
        state = _mixed(state, hg_hash(args[i]))
    if call.names != NULL:
        state = _mixed(state, hg_hash(<PyObject *>MARK))
        state = _mixed(state, hg_hash(names))
    for i in range(given, call.total):
        state = _mixed(state, hg_hash(args[i]))
    if typed:
        for i in range(call.total):
            state = _mixed(state, hg_hash(<PyObject *>Py_TYPE(args[i])))
    call.hash = <Py_hash_t>state
    return 0


cdef int _read_key(Call *call, PyObject **key) except -1:
    """Describe the call of a key that was made before."""
    cdef uint64_t state = 0
    cdef Py_ssize_t i
    if not PyTuple_CheckExact(key[0]):
        return _read_own(call, key)
    for i in range(PyTuple_GET_SIZE(key[0])):
        state = _mixed(state, hg_hash(PyTuple_GET_ITEM(key[0], i)))
    call.own_key = NULL
    call.flat_key = key[0]
    call.hash = <Py_hash_t>state
    return 0


cdef object _key(Call *call):
    if call.own_key != NULL:
        return <object>call.own_key
    cdef tuple made = PyTuple_New(call.size)
    cdef PyObject *key = <PyObject *>made
    cdef Py_ssize_t at = 0, i
    for i in range(call.given):
        at = _put(key, at, call.args[i])
    if call.names != NULL:
        at = _put(key, at, <PyObject *>MARK)
        at = _put(key, at, call.names)
    for i in range(call.given, call.total):
        at = _put(key, at, call.args[i])
    if call.typed:
        for i in range(call.total):
            at = _put(key, at, <PyObject *>Py_TYPE(call.args[i]))
    return made


cdef bint _alike(PyObject *key, Call *call) noexcept:
    """Whether sizes, the place of KEYWORDS and types agree, none of which runs foreign code."""
    cdef Py_ssize_t i, types = call.size - call.total
    if PyTuple_GET_SIZE(key) != call.size:
        return False
    if call.names != NULL and PyTuple_GET_ITEM(key, call.given) != <PyObject *>MARK:
        return False
    if call.typed:
        for i in range(call.total):
            if PyTuple_GET_ITEM(key, types + i) != <PyObject *>Py_TYPE(call.args[i]):
                return False
    return True


cdef int _matches(PyObject *key, Call *call) except -1:
    """Whether the flat `key` is that of `call`; runs ``__eq__``."""
    cdef Py_ssize_t at = 0, i
    if call.flat_key != NULL:
        return _same(key, call.flat_key)
    if not _alike(key, call):
        return False
    for i in range(call.total):
        if i == call.given:
            if not _same(PyTuple_GET_ITEM(key, i + 1), call.names):
                return False
            at = 2
        if not _same(PyTuple_GET_ITEM(key, i + at), call.args[i]):
            return False
    return True


@cython.trashcan(True)
cdef class _Results:
    """The results of at most `maxsize` calls, UNBOUNDED of all in the order in which they came."""

    cdef object __weakref__
    cdef list entries
    cdef hg_node *nodes
    cdef hg_table table
    cdef Py_ssize_t maxsize
    cdef uint32_t capacity
    cdef uint32_t count

    def __cinit__(self):
        self.entries = [None, None]
        self.nodes = <hg_node *>calloc(1, sizeof(hg_node))
        self.table.cells = hg_table_allocate(1)
        if self.nodes == NULL or self.table.cells == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.nodes)
        free(self.table.cells)

    # ---- the slab and its table -------------------------------------------------------------

    @cython.final
    cdef inline bint _intact(self) noexcept:
        return (self.entries is not None
                and PyList_GET_SIZE(<PyObject *>self.entries) == 2 * (<Py_ssize_t>self.capacity + 1))

    @cython.final
    cdef inline PyObject *_key(self, uint32_t slot) noexcept:
        return PyList_GET_ITEM(<PyObject *>self.entries, 2 * <Py_ssize_t>slot)

    @cython.final
    cdef inline PyObject *_result(self, uint32_t slot) noexcept:
        return PyList_GET_ITEM(<PyObject *>self.entries, 2 * <Py_ssize_t>slot + 1)

    @cython.final
    cdef inline uint32_t _home(self, Py_hash_t hash) noexcept:
        return hg_table_home(&self.table, hash)

    @cython.final
    cdef inline uint32_t _find_own(self, PyObject *key, Py_hash_t hash) noexcept:
        """The slot of an exact str or int, or NIL; runs no foreign code."""
        cdef uint32_t at = self._home(hash), slot = self.table.cells[at]
        cdef PyObject *stored
        while slot != NIL:
            stored = self._key(slot)
            if stored == key:
                return slot
            if self.nodes[slot].hash == hash and Py_TYPE(stored) == Py_TYPE(key):
                if PyUnicode_CheckExact(key):
                    if hg_str_equal(stored, key):
                        return slot
                elif PyObject_RichCompareBool(<object>stored, <object>key, Py_EQ):
                    return slot
            at = hg_table_next(&self.table, at)
            slot = self.table.cells[at]
        return NIL

    @cython.final
    cdef uint32_t _find_flat(self, Call *call) except 0xFFFFFFFF:
        """The slot of a flat key, or NIL; may run ``__eq__``."""
        cdef uint32_t at = self._home(call.hash), slot
        cdef uint64_t version
        cdef int equal
        cdef object stored
        while True:
            at = hg_table_probe(&self.table, self.nodes, sizeof(hg_node), call.hash, at)
            slot = self.table.cells[at]
            if slot == NIL:
                return NIL
            if PyTuple_CheckExact(self._key(slot)):
                stored = <object>self._key(slot)
                version = self.table.version
                equal = _matches(<PyObject *>stored, call)
                if version != self.table.version or not self._intact():
                    at = self._restart(call)
                    continue
                if equal:
                    return slot
            at = hg_table_next(&self.table, at)

    @cython.final
    cdef uint32_t _restart(self, Call *call) except 0xFFFFFFFF:
        """Where the probe for a call begins after foreign code has edited."""
        self._mend()
        return self._home(call.hash)

    @cython.final
    cdef inline uint32_t _find(self, Call *call) except 0xFFFFFFFF:
        if not self._intact():
            self._mend()
        if call.own_key != NULL:
            return self._find_own(call.own_key, call.hash)
        return self._find_flat(call)

    @cython.final
    cdef int _mend(self) except -1:
        """Be empty, when the garbage collector has torn the entries down."""
        if not self._intact():
            self._forget()
        return 0

    @cython.final
    cdef list _forget(self):
        """Shrink the slab to its sentinel and answer what it held."""
        cdef list nothing = [None, None]
        self.entries, nothing = nothing, self.entries
        self.nodes = <hg_node *>realloc(self.nodes, sizeof(hg_node))
        hg_table_shrink(&self.table)
        self.capacity = self.count = 0
        self.nodes[0].prev = self.nodes[0].next = 0
        return nothing

    @cython.final
    cdef inline uint32_t _room(self) noexcept:
        if self.maxsize == UNBOUNDED or self.maxsize > <int64_t>MOST_ENTRIES:
            return MOST_ENTRIES
        return <uint32_t>self.maxsize

    @cython.final
    cdef int _grow(self) except -1:
        """Double the slab, unless foreign code was faster."""
        cdef uint64_t version = self.table.version, size
        cdef uint32_t capacity = max(<uint32_t>FIRST_CAPACITY, 2 * self.capacity)
        cdef uint32_t slot
        cdef list entries
        cdef hg_node *nodes
        cdef uint32_t *cells
        cdef Py_ssize_t i
        capacity = min(capacity, self._room())
        entries = [None] * (2 * (<Py_ssize_t>capacity + 1))
        if version != self.table.version or not self._intact():
            return 0
        nodes = <hg_node *>realloc(self.nodes, (<size_t>capacity + 1) * sizeof(hg_node))
        if nodes == NULL:
            raise MemoryError
        self.nodes = nodes
        size = hg_table_size((5 * <uint64_t>capacity + 1) // 2)
        cells = hg_table_allocate(size)
        if cells == NULL:
            raise MemoryError
        hg_table_adopt(&self.table, cells, size)
        for i in range(PyList_GET_SIZE(<PyObject *>self.entries)):
            _swap(entries, i, self.entries, i)
        self.entries, entries = entries, self.entries
        self.capacity = capacity
        for slot in range(1, self.count + 1):
            hg_table_enter(&self.table, self.nodes[slot].hash, slot)
        return 0

    # ---- the order: least recently used first -----------------------------------------------

    @cython.final
    cdef inline void _link(self, uint32_t slot) noexcept:
        hg_list_append(self.nodes, sizeof(hg_node), 0, slot)

    @cython.final
    cdef inline void _unlink(self, uint32_t slot) noexcept:
        hg_list_remove(self.nodes, sizeof(hg_node), slot)

    @cython.final
    cdef inline void _touch(self, uint32_t slot) noexcept:
        if self.maxsize != UNBOUNDED and self.nodes[slot].next != 0:
            self._unlink(slot)
            self._link(slot)

    # ---- storing ----------------------------------------------------------------------------

    @cython.final
    cdef int _store(self, Call *call, PyObject *key, PyObject *result, uint64_t version, bint keep) except -1:
        """Remember a result, or with `keep` one that is there already; not found at `version`.

        UINT64_MAX is no version: the key has not been looked up.
        """
        cdef PyObject *old_key = NULL
        cdef PyObject *old_result = NULL
        cdef uint32_t slot = NIL
        with cython.critical_section(self):
            while version != self.table.version or not self._has_place():
                if not self._has_place():
                    self._grow()
                slot = self._find(call)
                version = self.table.version
                if slot != NIL:
                    break
            if slot == NIL:
                slot = self._take_slot()
                old_key = self._exchange(2 * <Py_ssize_t>slot, key)
                old_result = self._exchange(2 * <Py_ssize_t>slot + 1, result)
                self.nodes[slot].hash = call.hash
                hg_table_enter(&self.table, call.hash, slot)
                self._link(slot)
            elif not keep:
                old_result = self._exchange(2 * <Py_ssize_t>slot + 1, result)
        Py_XDECREF(old_key)
        Py_XDECREF(old_result)
        return 0

    @cython.final
    cdef inline bint _has_place(self) noexcept:
        return self._intact() and (self.count < self.capacity or self.capacity == self._room())

    @cython.final
    cdef uint32_t _take_slot(self) noexcept:
        """An unused slot, or that of the victim, which leaves."""
        if self.count < self.capacity:
            self.count += 1
            return self.count
        cdef uint32_t slot = self.nodes[0].next
        hg_table_leave(&self.table, self.nodes, sizeof(hg_node), slot)
        self._unlink(slot)
        return slot

    @cython.final
    cdef PyObject *_exchange(self, Py_ssize_t i, PyObject *item) noexcept:
        """Set an item of the entries; the caller owns the old one."""
        cdef PyObject *old = PyList_GET_ITEM(<PyObject *>self.entries, i)
        Py_INCREF(item)
        PyList_SET_ITEM(<PyObject *>self.entries, i, item)
        return old

    # ---- a store of `cached` ----------------------------------------------------------------

    def peek(self, key, default, /):
        cdef PyObject *held = <PyObject *>key
        cdef Call call
        cdef uint32_t slot
        cdef object result = default
        _read_key(&call, &held)
        with cython.critical_section(self):
            slot = self._find(&call)
            if slot != NIL:
                result = <object>self._result(slot)
        return result

    def get(self, key, default, /):
        cdef PyObject *held = <PyObject *>key
        cdef Call call
        _read_key(&call, &held)
        result = _taken(self._recall(&call))
        return default if result is ABSENT else result

    def put(self, key, result, /):
        cdef PyObject *held = <PyObject *>key
        cdef Call call
        if self.maxsize != 0:
            _read_key(&call, &held)
            self._store(&call, held, <PyObject *>result, UINT64_MAX, False)

    def setdefault(self, key, result, /):
        cdef PyObject *held = <PyObject *>key
        cdef Call call
        _read_key(&call, &held)
        self._store(&call, held, <PyObject *>result, UINT64_MAX, True)
        return self.get(key, result)

    def pop(self, key, default, /):
        cdef PyObject *held = <PyObject *>key
        cdef PyObject *old_key = NULL
        cdef PyObject *result = NULL
        cdef Call call
        cdef uint32_t slot, last
        _read_key(&call, &held)
        with cython.critical_section(self):
            slot = self._find(&call)
            if slot != NIL:
                last = self.count
                hg_table_leave(&self.table, self.nodes, sizeof(hg_node), slot)
                self._unlink(slot)
                self._move(last, slot)
                self.count -= 1
                old_key = self._exchange(2 * <Py_ssize_t>last, <PyObject *>None)
                result = self._exchange(2 * <Py_ssize_t>last + 1, <PyObject *>None)
        Py_XDECREF(old_key)
        return default if result == NULL else _taken(result)

    def values(self):
        with cython.critical_section(self):
            self._mend()
            found = self.entries[3:2 * self.count + 2:2]
        return found

    @cython.final
    cdef void _move(self, uint32_t slot, uint32_t unused) noexcept:
        """Let the entry of `slot` take an unused one, whose own entry goes into `slot`."""
        cdef hg_node *node = &self.nodes[slot]
        if slot == unused:
            return
        hg_table_set(&self.table, hg_table_cell(&self.table, node.hash, slot), unused)
        self.nodes[node.prev].next = self.nodes[node.next].prev = unused
        self.nodes[unused] = node[0]
        _swap(self.entries, 2 * <Py_ssize_t>slot, self.entries, 2 * <Py_ssize_t>unused)
        _swap(self.entries, 2 * <Py_ssize_t>slot + 1, self.entries, 2 * <Py_ssize_t>unused + 1)

    @cython.final
    cdef PyObject *_recall(self, Call *call) except NULL:
        """The result of a call, made the most recently used, or ABSENT."""
        cdef PyObject *found = <PyObject *>ABSENT
        cdef uint32_t slot
        with cython.critical_section(self):
            slot = self._find(call)
            if slot != NIL:
                self._touch(slot)
                found = self._result(slot)
            Py_INCREF(found)
        return found

    @property
    def currsize(self):
        cdef uint32_t count
        with cython.critical_section(self):
            count = self.count if self._intact() else 0
        return count

    def __sizeof__(self):
        """The bytes of the object and its slab, without keys and results."""
        cdef size_t cells, slots
        with cython.critical_section(self):
            cells, slots = <size_t>self.table.mask + 1, <size_t>self.capacity + 1
        return (object.__sizeof__(self) + cells * sizeof(uint32_t)
                + slots * (sizeof(hg_node) + 2 * sizeof(PyObject *)))

    def _check(self):
        cdef uint32_t slot, seen = 0, prev = 0
        assert self._intact(), "the list of entries fits the capacity"
        assert self.count <= self.capacity <= self._room()
        assert 2 * (<uint64_t>self.table.mask + 1) >= 5 * <uint64_t>self.capacity or self.capacity == 0
        slot = self.nodes[0].next
        while slot != 0:
            assert slot <= self.count and self.nodes[slot].prev == prev, "the list is doubly linked"
            assert hg_table_has(&self.table, self.nodes[slot].hash, slot), "a live slot is reachable"
            seen += 1
            prev = slot
            slot = self.nodes[slot].next
        assert self.nodes[0].prev == prev
        assert seen == self.count, "the list holds every live slot"
        assert hg_table_filled(&self.table) == seen, "the table holds every live slot once"
        for slot in range(self.count + 1, self.capacity + 1):
            assert self.entries[2 * slot] is self.entries[2 * slot + 1] is None, "unused slots hold nothing"

    def _probes(self):
        """How many cells of the table the lookups of all keys read."""
        with cython.critical_section(self):
            cells = hg_table_probes(&self.table, self.nodes, sizeof(hg_node))
        return cells


cdef void _swap(list a, Py_ssize_t i, list b, Py_ssize_t j) noexcept:
    cdef PyObject *item = PyList_GET_ITEM(<PyObject *>a, i)
    PyList_SET_ITEM(<PyObject *>a, i, PyList_GET_ITEM(<PyObject *>b, j))
    PyList_SET_ITEM(<PyObject *>b, j, item)


# ---- lru_cache ----------------------------------------------------------------------------------

@cython.final
@cython.trashcan(True)
cdef class _Memoizer(_Results):
    """A function that remembers the results of its most recent calls."""

    cdef vectorcallfunc vectorcall
    cdef dict __dict__
    cdef object function
    cdef uint64_t hits
    cdef uint64_t misses
    cdef bint typed
    cdef bint own_keys  # an only argument, an exact str or int, is its own key

    def __cinit__(self):
        self.vectorcall = <vectorcallfunc>_call

    cdef object _pass_on(self, PyObject **args, size_t nargsf, PyObject *names):
        """What a memoizer of size 0 does."""
        with cython.critical_section(self):
            self.misses += 1
        return PyObject_Vectorcall(self.function, args, nargsf, names)

    cdef object _miss(self, Call *call, size_t nargsf, uint64_t version):
        cdef object key = _key(call)
        cdef object result = PyObject_Vectorcall(self.function, call.args, nargsf, call.names)
        self._store(call, <PyObject *>key, <PyObject *>result, version, self.maxsize != UNBOUNDED)
        return result

    def __call__(self, /, *args, **kwargs):
        return PyVectorcall_Call(self, args, kwargs)

    def __get__(self, instance, owner):
        return self if instance is None else PyMethod_New(self, instance)

    def cache_info(self):
        """Report cache statistics"""
        with cython.critical_section(self):
            hits, misses, currsize = self.hits, self.misses, self.count if self._intact() else 0
        return _CacheInfo(hits, misses, None if self.maxsize == UNBOUNDED else self.maxsize, currsize)

    def cache_clear(self):
        """Clear the cache and cache statistics"""
        cdef list dropped
        with cython.critical_section(self):
            self.hits = self.misses = 0
            dropped = self._forget()
        dropped.clear()

    def cache_parameters(self):
        """The arguments of the decorator, by name"""
        return {"maxsize": None if self.maxsize == UNBOUNDED else self.maxsize, "typed": self.typed}

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        return self.__qualname__


cdef inline PyObject *_given(object result) noexcept:
    """`result` with a reference for the caller."""
    Py_INCREF(<PyObject *>result)
    return <PyObject *>result


cdef inline object _taken(PyObject *result):
    """`result`, whose reference is taken over."""
    cdef object taken = <object>result
    Py_DECREF(result)
    return taken


cdef PyObject *_call(_Memoizer self, PyObject **args, size_t nargsf, PyObject *names) except NULL:
    cdef Py_ssize_t given = PyVectorcall_NARGS(nargsf)
    cdef Call call
    cdef PyObject *result = NULL
    cdef uint64_t version = 0
    cdef uint32_t slot
    if given == 1 and names == NULL and self.own_keys and _is_own_key(args[0]):
        _read_own(&call, args)
    elif self.maxsize == 0:
        return _given(self._pass_on(args, nargsf, names))
    else:
        _read_flat(&call, args, given, names, self.typed)
    with cython.critical_section(self):
        slot = self._find(&call)
        if slot != NIL:
            self.hits += 1
            self._touch(slot)
            result = self._result(slot)
            Py_INCREF(result)
        else:
            self.misses += 1
            version = self.table.version
    return result if result != NULL else _given(self._miss(&call, nargsf, version))


cdef _Memoizer _memoize(object function, Py_ssize_t maxsize, bint typed):
    cdef _Memoizer memoizer = _Memoizer.__new__(_Memoizer)
    if not callable(function):
        raise TypeError("the first argument must be callable")
    memoizer.function = function
    memoizer.maxsize = maxsize
    memoizer.typed = typed
    memoizer.own_keys = not typed and maxsize != 0
    return update_wrapper(memoizer, function)


cdef Py_ssize_t _checked_maxsize(object maxsize) except -2:
    if maxsize is None:
        return UNBOUNDED
    if not isinstance(maxsize, int):
        raise TypeError("Expected first argument to be an integer, a callable, or None")
    return PyNumber_AsSsize_t(max(maxsize, 0), OverflowError)


def lru_cache(maxsize=128, typed=False):
    """Let a function remember the results of its `maxsize` most recently used calls.

    ``@lru_cache(maxsize, typed)``, or ``@lru_cache`` alone, to the contract of ``functools``: with
    `maxsize` None nothing is forgotten, a negative one counts as 0 and nothing is remembered. Calls
    are alike when their arguments are equal and keywords come in the same order; with `typed`
    arguments of different types are different. Arguments must be hashable.

    The function has ``cache_info()``, ``cache_clear()``, ``cache_parameters()`` and ``__wrapped__``.
    Threads that miss the same call at the same time each make it. What the function raises is
    not remembered.

    Raises TypeError if `maxsize` is not an int, a callable or None, or if the function is not callable;
    OverflowError if `maxsize` exceeds the size of an index.

    Complexity: O(arguments) for a call that is remembered, or O(1) besides the function.

    >>> @lru_cache(maxsize=2)
    ... def double(number):
    ...     return 2 * number
    >>> [double(number) for number in (1, 2, 1, 3)]
    [2, 4, 2, 6]
    >>> double.cache_info()
    CacheInfo(hits=1, misses=3, maxsize=2, currsize=2)
    """
    if not isinstance(maxsize, int) and callable(maxsize) and isinstance(typed, bool):
        return _memoize(maxsize, 128, typed)
    cdef Py_ssize_t room = _checked_maxsize(maxsize)

    def decorating_function(user_function):
        return _memoize(user_function, room, typed)

    return decorating_function


# ---- cached -------------------------------------------------------------------------------------

@cython.final
@cython.trashcan(True)
cdef class _Front:
    """Looks calls up in `_Results` or another cache; its memory gets what is not there, or not fresh."""

    cdef vectorcallfunc vectorcall
    cdef object __weakref__
    cdef dict __dict__
    cdef readonly object cache
    cdef object memory
    cdef object function   # None where a call is not all that is to be done
    cdef _Results results  # None before another cache
    cdef object get        # the method of another cache, or None
    cdef object is_fresh   # None where all that is in another cache is fresh
    cdef object mark       # in the keys of another cache, or None
    cdef object key
    cdef object bind       # returns an instance's own stand-in; None for that
    cdef dict places       # id(instance) -> (weak reference, stand-in)
    cdef object clock      # None where `results` do not age
    cdef uint64_t hits
    cdef uint64_t misses
    cdef Py_ssize_t skip
    cdef bint typed
    cdef bint own_keys
    cdef bint is_method

    def __cinit__(self, memory=None, function=None, key=None, typed=False, clock=None, bind=None,
                  dict places=None):
        self.vectorcall = <vectorcallfunc>_look_up
        self.memory, self.function, self.key, self.bind, self.places = memory, function, key, bind, places
        self.typed, self.clock, self.skip = typed, clock, bind is None
        self.own_keys = not typed and key is None

    def aim(self, cache, is_fresh, mark):
        """Look up in `cache` from now on; another than `_Results` is there from the beginning."""
        if isinstance(cache, _Results):
            with cython.critical_section(self):
                self.results = cache
        else:
            self.cache, self.get, self.is_fresh, self.mark = cache, cache.get, is_fresh, mark
            self.own_keys = False

    def fitted(self, key):
        """A key as it stands in the cache."""
        if self.get is not None or self.key is None or _is_own_key(<PyObject *>key):
            return key
        return (key,)

    def count(self, bint hit):
        with cython.critical_section(self):
            if hit:
                self.hits += 1
            else:
                self.misses += 1

    def counts(self):
        with cython.critical_section(self):
            hits, misses = self.hits, self.misses
        return hits, misses

    def forget_counts(self):
        with cython.critical_section(self):
            self.hits = self.misses = 0

    def __set_name__(self, owner, name):
        self.is_method = self.bind is not None
        self.own_keys = self.own_keys and not self.is_method

    def __call__(self, /, *args, **kwargs):
        return PyVectorcall_Call(self, args, kwargs)

    def __get__(self, instance, owner):
        if instance is None:
            return self
        if self.bind is None or (isinstance(instance, type) and not self.is_method):
            return PyMethod_New(self, instance)
        return PyMethod_New(self._bound(instance), instance)

    cdef object _bound(self, object instance):
        """`bind`, spared where the instance has its place already."""
        cdef PyObject *standin = NULL
        if self.places is not None:
            standin = hg_placed(<PyObject *>self.places, <PyObject *>instance)
        return self.bind(instance) if standin == NULL else _taken(standin)

    def cache_info(self):
        """Report cache statistics"""
        return self.memory.info(self)

    def cache_clear(self):
        """Clear the cache and its statistics; what is being loaded is not stored"""
        self.memory.clear(self)

    def cache_key(self, /, *args, **kwargs):
        """The key of a call"""
        if self.is_method and args:
            return self._bound(args[0]).cache_key(*args[1:], **kwargs)
        return self.memory.key_of(args, kwargs)

    def cache_contains(self, /, *args, **kwargs):
        """Whether a call is remembered, without counting or touching it"""
        if self.is_method and args:
            return self._bound(args[0]).cache_contains(*args[1:], **kwargs)
        return self.memory.contains(self, args, kwargs)

    def cache_invalidate(self, /, *args, **kwargs):
        """Forget one call, and return whether it was remembered; if it is being loaded, it is not stored"""
        if self.is_method and args:
            return self._bound(args[0]).cache_invalidate(*args[1:], **kwargs)
        return self.memory.invalidate(self, args, kwargs)

    def __repr__(self):
        return f"<cached {self.__wrapped__!r}>"

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        return self.__qualname__

    cdef object _made_key(self, PyObject **args, Py_ssize_t given, PyObject *names):
        """The key of a call as it stands in the cache, where it is not read from the arguments."""
        cdef Call call
        cdef object key
        if self.key is not None:
            key = PyObject_Vectorcall(self.key, args, <size_t>given, names)
        elif given == 1 and names == NULL and not self.typed and _is_own_key(args[0]):
            key = <object>args[0]
        else:
            _describe(&call, args, given, names, self.typed)
            key = _key(&call)
        return self.fitted(key) if self.mark is None else (self.mark, key)

    cdef PyObject *_recall(self, Call *call) except NULL:
        """What `results` have of a call, or ABSENT."""
        cdef _Results results
        with cython.critical_section(self):
            results = self.results
        if results is None:  # the garbage collector has torn this down in a dead cycle
            raise ReferenceError("a cached function was called amid its own collection")
        return results._recall(call)

    cdef PyObject *_fresh(self, object found) except? NULL:
        """The value of what is timed and fresh, otherwise NULL."""
        cdef bint fresh = False
        if type(found) is TIMED:
            if self.clock is MONOTONIC:
                fresh = hg_monotonic_ns() < <int64_t>found.fresh_until
            else:
                fresh = self.clock() < found.fresh_until
        return _given(found.value) if fresh else NULL

    cdef object _ask(self, object key, object found, PyObject **args, Py_ssize_t given, PyObject *names):
        """Come by the result of a call of which nothing, or nothing fresh, was found."""
        cdef Py_ssize_t i
        cdef dict kwargs
        if found is ABSENT and self.function is not None:
            return self._load(self.memory.trip(self, key), args, given, names)
        kwargs = {}
        if names != NULL:
            for i in range(PyTuple_GET_SIZE(names)):
                kwargs[<object>PyTuple_GET_ITEM(names, i)] = <object>args[given + i]
        return self.memory.answer(self, key, found, tuple([<object>args[i] for i in range(given)]), kwargs)

    cdef object _load(self, object trip, PyObject **args, Py_ssize_t given, PyObject *names):
        """Call the function, or take the outcome of whoever did."""
        with trip, trip:
            if trip.join() and not trip.find():
                trip.keep(PyObject_Vectorcall(self.function, args, <size_t>given, names))
        if trip.is_circular:
            return PyObject_Vectorcall(self.function, args, <size_t>given, names)
        return trip.result()

    cdef object _look_up_elsewhere(self, PyObject **args, Py_ssize_t given, PyObject *names):
        """The result of a call, where the cache is another than `_Results`."""
        cdef Py_ssize_t skip = min(self.skip, given)
        cdef object key = self._made_key(args + skip, given - skip, names)
        cdef PyObject *request[2]
        cdef object found
        request[0], request[1] = <PyObject *>key, <PyObject *>ABSENT
        found = PyObject_Vectorcall(self.get, request, 2, NULL)
        if found is ABSENT or not (self.is_fresh is None or self.is_fresh(key, found)):
            return self._ask(key, found, args, given, names)
        with cython.critical_section(self):
            self.hits += 1
        return found


cdef PyObject *_look_up(_Front self, PyObject **args, size_t nargsf, PyObject *names) except NULL:
    cdef Py_ssize_t given = PyVectorcall_NARGS(nargsf), skip = min(self.skip, given)
    cdef Call call
    cdef PyObject *found
    cdef PyObject *held
    cdef object key = None, aged = None
    if given == skip + 1 and names == NULL and self.own_keys and _is_own_key(args[skip]):
        _read_own(&call, args + skip)
    elif self.is_method and given > 0:
        return _given(PyObject_Vectorcall(self._bound(<object>args[0]), args, nargsf, names))
    elif self.get is not None:
        return _given(self._look_up_elsewhere(args, given, names))
    elif self.key is not None:
        key = self._made_key(args + skip, given - skip, names)
        held = <PyObject *>key
        _read_key(&call, &held)
    else:
        _read_flat(&call, args + skip, given - skip, names, self.typed)
    found = self._recall(&call)
    if found == <PyObject *>ABSENT or self.clock is not None:
        aged = _taken(found)
        found = NULL if self.clock is None else self._fresh(aged)
    if found == NULL:
        if self.key is None:
            key = _key(&call)
        return _given(self._ask(key, aged, args, given, names))
    with cython.critical_section(self):
        self.hits += 1
    return found


def cached(cache=None, *, maxsize=DEFAULT_MAXSIZE, policy=None, ttl=None, tti=None, stale=None, jitter=0.0,
           key=None, typed=False, keep=None, tags=(), on_evict=None, clock=None, executor=None):
    """Let a function, a coroutine function or a method remember its results, each loaded once at a time.

    ``@cached``, or ``@cached(...)`` with any of these:

    - `cache`: where the results go, any object with ``get(key, default)`` and ``put(key, value)``, or a
      mutable mapping. By default the `maxsize` most recently used results are kept in a store of the
      function's own; with `maxsize` None there is no bound.
    - `policy`: a cache class, such as ``TinyLFUCache``, for a cache of the function's own with the
      options `tti`, `jitter` and `on_evict` of that class, by default ``LRUCache``.
    - `ttl`: the seconds for which a result is fresh. With `stale`, for so many seconds more the old
      result is returned at once while one refresh runs: in a task for ``async def``, otherwise in
      `executor`, an executor of threads, by default one of headgate's own. What a refresh raises goes to
      ``sys.unraisablehook``. A refresh that the executor never runs keeps no caller waiting.
    - `key`: a callable that makes a key of the arguments, without ``self``; by default the arguments, of
      different types if `typed`.
    - `keep`: a callable; a result for which it is false is returned and not remembered.
    - `tags`: the tags of the results, or a callable that returns those of a call from its arguments,
      without ``self``; for ``cache.invalidate(tag=...)``.
    - `clock`: a callable that returns integer nanoseconds, by default that of `cache` if it has
      lifetimes, otherwise ``time.monotonic_ns``.

    Of all callers who miss the same call one runs the function and the others wait; for coroutines, in
    each event loop. What it raises reaches those who wait and is not remembered. If its task is
    cancelled, or it is interrupted, the next who waits takes over. A function that comes back to the same
    call, directly or through others, is called through. What is being loaded when ``cache_clear()``
    is called is not remembered.

    The results of a method are remembered by instance, whose ``__eq__`` and ``__hash__`` are not used,
    each with its own `maxsize`, and go with it. Instances without weak references, such as named tuples,
    are kept alive with their results: the `maxsize` most recently used of them.

    A `cache` that is given may serve several functions: its keys carry the function, and for methods the
    instance. With `key`, the keys of a function are those that it makes. Lifetimes are those of the
    cache if its ``put`` takes a `ttl` in seconds; otherwise deadlines stand beside it. A value that is
    put into the cache under ``f.cache_key(...)`` is returned like a result.

    The function has ``cache_info()``, ``cache_clear()``, ``cache_key(...)``, ``__wrapped__`` and `cache`,
    which is None for the built-in store. ``cache_contains(...)`` returns whether the call of these
    arguments is remembered; ``cache_invalidate(...)`` forgets it and returns whether it was. On a method
    of an instance they are about that instance alone; with a cache that is given, ``cache_clear()`` and
    ``cache_info()`` go through all its keys.

    Raises TypeError if the function is no callable or a generator function, or if an argument has the wrong
    type; ValueError if `ttl` or `stale` is not positive, `stale` comes without `ttl`, or an option of a
    cache of the function's own comes with a cache that is given.

    Complexity: O(arguments) for a call that is remembered, or O(1) besides the function.

    >>> @cached(maxsize=1000, ttl=60, stale=10)
    ... def load(name):
    ...     print("loading", name)
    ...     return name.upper()
    >>> load("a"), load("a")
    loading a
    ('A', 'A')
    >>> load.cache_info()
    CacheInfo(hits=1, misses=1, maxsize=1000, currsize=1)
    >>> load.cache_invalidate("a"), load.cache_contains("a")
    (True, False)
    """
    return decorator(_Front, _new_results, LRUCache, cache, maxsize=maxsize, policy=policy, ttl=ttl, tti=tti,
                     stale=stale, jitter=jitter, key=key, typed=typed, keep=keep, tags=tags,
                     on_evict=on_evict, clock=clock, executor=executor)


def _new_results(maxsize):
    cdef _Results results = _Results.__new__(_Results)
    results.maxsize = _checked_maxsize(maxsize)
    return results


# ---- both are called by vectorcall --------------------------------------------------------------

cdef _Memoizer _memoizer = _Memoizer.__new__(_Memoizer)
cdef _Front _front = _Front.__new__(_Front)
hg_call_by_vector(Py_TYPE(<PyObject *>_memoizer),
                  <char *>&_memoizer.vectorcall - <char *><void *>_memoizer, True)
hg_call_by_vector(Py_TYPE(<PyObject *>_front), <char *>&_front.vectorcall - <char *><void *>_front, False)
