# Keys of calls, and the results of the most recently used ones.
cimport cython
from cpython.number cimport PyNumber_AsSsize_t
from cpython.object cimport Py_EQ, PyObject, PyObject_RichCompareBool
from libc.stdint cimport UINT64_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc

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

from os import urandom

from headgate.cache._views import _ABSENT
from headgate.memoize._cached import KEYWORDS


cdef extern from "Python.h":
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
    void Py_INCREF(PyObject *o)
    void Py_XDECREF(PyObject *o)

cdef enum:
    NIL = 0
    FIRST_CAPACITY = 8
    MOST_ENTRIES = 0x33333333  # two fifths of 2**31 cells
    UNBOUNDED = -1

cdef object ABSENT = _ABSENT
cdef object MARK = KEYWORDS

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


cdef Py_ssize_t _checked_maxsize(object maxsize) except -2:
    if maxsize is None:
        return UNBOUNDED
    if not isinstance(maxsize, int):
        raise TypeError("Expected first argument to be an integer, a callable, or None")
    return PyNumber_AsSsize_t(max(maxsize, 0), OverflowError)


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
        self._wipe_if_cleared()
        return self._home(call.hash)

    @cython.final
    cdef inline uint32_t _find(self, Call *call) except 0xFFFFFFFF:
        if not self._intact():
            self._wipe_if_cleared()
        if call.own_key != NULL:
            return self._find_own(call.own_key, call.hash)
        return self._find_flat(call)

    @cython.final
    cdef int _wipe_if_cleared(self) except -1:
        """Become empty after the garbage collector has cleared the entries."""
        if not self._intact():
            self._forget()
        return 0

    @cython.final
    cdef list _forget(self):
        """Shrink the slab to its sentinel and return what it held."""
        cdef list nothing = [None, None]
        self.entries, nothing = nothing, self.entries
        self.nodes = <hg_node *>realloc(self.nodes, sizeof(hg_node))
        hg_table_shrink(&self.table)
        self.capacity = self.count = 0
        self.nodes[0].prev = self.nodes[0].next = 0
        return nothing

    @cython.final
    cdef inline uint32_t _limit(self) noexcept:
        if self.maxsize == UNBOUNDED or self.maxsize > <int64_t>MOST_ENTRIES:
            return MOST_ENTRIES
        return <uint32_t>self.maxsize

    @cython.final
    cdef int _grow(self) except -1:
        """Double the slab, unless foreign code did."""
        cdef uint64_t version = self.table.version, size
        cdef uint32_t capacity = max(<uint32_t>FIRST_CAPACITY, 2 * self.capacity)
        cdef uint32_t slot
        cdef list entries
        cdef hg_node *nodes
        cdef uint32_t *cells
        cdef Py_ssize_t i
        capacity = min(capacity, self._limit())
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
            while version != self.table.version or not self._has_slot():
                if not self._has_slot():
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
    cdef inline bint _has_slot(self) noexcept:
        return self._intact() and (self.count < self.capacity or self.capacity == self._limit())

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
        result = _owned(self._recall(&call))
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
        return default if result == NULL else _owned(result)

    def values(self):
        with cython.critical_section(self):
            self._wipe_if_cleared()
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
        assert self.count <= self.capacity <= self._limit()
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
