# The stream summary: keys in buckets by count, a table that finds them, and the decay of counts.
cimport cython
from cpython.object cimport Py_EQ, PyObject, PyObject_RichCompareBool
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from headgate._c.clock cimport hg_monotonic_ns
from headgate._c.scatter cimport hg_seed_secrets
from headgate._c.slots cimport (
    hg_chain_pop,
    hg_chain_push,
    hg_list_append,
    hg_list_insert,
    hg_list_remove,
    hg_table,
    hg_table_adopt,
    hg_table_allocate,
    hg_table_clear,
    hg_table_enter,
    hg_table_filled,
    hg_table_home,
    hg_table_has,
    hg_table_leave,
    hg_table_next,
    hg_table_probes,
    hg_table_size,
)
from headgate._c.unicode_eq cimport hg_str_equal

from os import urandom

from headgate._base.clock import checked_now


cdef extern from "Python.h":
    PyObject *PyList_GET_ITEM(PyObject *entries, Py_ssize_t i)
    void PyList_SET_ITEM(PyObject *entries, Py_ssize_t i, PyObject *item)
    Py_ssize_t PyList_GET_SIZE(PyObject *entries)
    bint PyUnicode_CheckExact(PyObject *key)
    void Py_INCREF(PyObject *o)
    void Py_DECREF(PyObject *o)
    PyObject *Py_None

# Both begin like the records of slots.h.
cdef struct Node:
    int64_t hash
    uint32_t prev
    uint32_t next
    int64_t error
    uint32_t bucket

cdef struct Bucket:
    int64_t count
    uint32_t prev
    uint32_t next
    uint32_t head

cdef enum:
    NIL = 0

hg_seed_secrets(urandom(16))


cdef class _Summary:
    """The keys with their counts and errors."""

    cdef object __weakref__
    cdef list keys
    cdef object clock
    cdef object lifetime
    cdef Node *nodes
    cdef Bucket *buckets
    cdef hg_table table
    cdef uint64_t moves
    cdef int64_t sum
    cdef int64_t half
    cdef int64_t since
    cdef uint32_t most
    cdef uint32_t count
    cdef uint32_t free_node
    cdef uint32_t free_bucket
    cdef bint made

    def __cinit__(self, *args, **kwargs):
        self._install(1, None, 0, None)

    def __dealloc__(self):
        free(self.nodes)
        free(self.buckets)
        free(self.table.cells)

    # ---- memory -----------------------------------------------------------------------------

    @cython.final
    cdef int _install(self, uint32_t most, lifetime, int64_t half, clock) except -1:
        """Install new arrays, with no key."""
        cdef uint64_t size = hg_table_size(2 * <uint64_t>most)
        cdef Node *nodes
        cdef Bucket *buckets
        cdef uint32_t *cells
        cdef int64_t now = 0
        if half:
            now = checked_now(clock()) if clock is not None else hg_monotonic_ns()
        keys = [None] * (<Py_ssize_t>most + 1)
        nodes = <Node *>calloc(<size_t>most + 1, sizeof(Node))
        buckets = <Bucket *>calloc(<size_t>most + 1, sizeof(Bucket))
        cells = hg_table_allocate(size)
        if nodes == NULL or buckets == NULL or cells == NULL:
            free(nodes)
            free(buckets)
            free(cells)
            raise MemoryError
        with cython.critical_section(self):
            free(self.nodes)
            free(self.buckets)
            self.nodes, self.buckets = nodes, buckets
            hg_table_adopt(&self.table, cells, size)
            self.most = most
            self.half, self.since = half, now
            self._reset()
            self.clock, clock = clock, self.clock
            self.lifetime, lifetime = lifetime, self.lifetime
            self.keys, keys = keys, self.keys
        return 0

    @cython.final
    cdef void _reset(self) noexcept:
        """Remove all keys except from the list `keys`, which the caller replaces."""
        cdef uint32_t at
        hg_table_clear(&self.table)
        for at in range(1, self.most + 1):
            self.nodes[at].next = at + 1 if at < self.most else NIL
            self.buckets[at].next = self.nodes[at].next
        self.buckets[0].prev = self.buckets[0].next = 0
        self.free_node = self.free_bucket = 1
        self.count = 0
        self.sum = 0

    @cython.final
    cdef inline bint _intact(self) noexcept:
        return self.keys is not None and PyList_GET_SIZE(<PyObject *>self.keys) == <Py_ssize_t>self.most + 1

    @cython.final
    cdef int _restore(self) except -1:
        """Remove all keys, after the garbage collector has cleared their list."""
        self.keys = [None] * (<Py_ssize_t>self.most + 1)
        self._reset()
        return 0

    # ---- the table --------------------------------------------------------------------------

    @cython.final
    cdef inline PyObject *_key(self, uint32_t node) noexcept:
        return PyList_GET_ITEM(<PyObject *>self.keys, node)

    @cython.final
    cdef uint32_t _find(self, PyObject *key, Py_hash_t hash) except 0xFFFFFFFF:
        """The node of `key`, or NIL; may run ``__eq__``."""
        cdef uint32_t at, node
        cdef uint64_t version
        cdef PyObject *stored
        cdef int equal
        if not self._intact():
            self._restore()
        at = hg_table_home(&self.table, hash)
        while True:
            node = self.table.cells[at]
            if node == NIL:
                return NIL
            if self.nodes[node].hash == hash:
                stored = self._key(node)
                if stored == key:
                    return node
                if PyUnicode_CheckExact(stored) and PyUnicode_CheckExact(key):
                    if hg_str_equal(stored, key):
                        return node
                else:
                    version = self.table.version
                    Py_INCREF(stored)
                    try:
                        equal = PyObject_RichCompareBool(<object>stored, <object>key, Py_EQ)
                    finally:
                        Py_DECREF(stored)
                    if version != self.table.version:
                        at = hg_table_home(&self.table, hash)
                        continue
                    if equal:
                        return node
            at = hg_table_next(&self.table, at)

    # ---- the buckets ------------------------------------------------------------------------

    @cython.final
    cdef void _detach(self, uint32_t node) noexcept:
        """Remove `node` from its bucket, which has others."""
        cdef Bucket *bucket = &self.buckets[self.nodes[node].bucket]
        if bucket.head == node:
            bucket.head = self.nodes[node].next
        hg_list_remove(self.nodes, sizeof(Node), node)

    @cython.final
    cdef void _attach(self, uint32_t node, uint32_t at) noexcept:
        """Append `node` to a bucket."""
        cdef uint32_t head = self.buckets[at].head
        self.nodes[node].bucket = at
        if head != NIL:
            hg_list_append(self.nodes, sizeof(Node), head, node)
            return
        self.buckets[at].head = node
        self.nodes[node].prev = self.nodes[node].next = node

    @cython.final
    cdef uint32_t _new_bucket(self, int64_t count, uint32_t before) noexcept:
        """Insert a new bucket after `before`; returns it."""
        cdef uint32_t at = hg_chain_pop(self.buckets, sizeof(Bucket), &self.free_bucket)
        self.buckets[at].count, self.buckets[at].head = count, NIL
        hg_list_insert(self.buckets, sizeof(Bucket), before, at, self.buckets[before].next)
        return at

    @cython.final
    cdef void _remove_bucket(self, uint32_t at) noexcept:
        """Free an empty bucket."""
        hg_list_remove(self.buckets, sizeof(Bucket), at)
        hg_chain_push(self.buckets, sizeof(Bucket), &self.free_bucket, at)

    @cython.final
    cdef void _insert(self, uint32_t node, int64_t count, uint32_t before) noexcept:
        """Insert `node`, which is in no bucket, into the bucket of `count`, at or after `before`."""
        cdef uint32_t after = self.buckets[before].next
        while after != NIL and self.buckets[after].count <= count:
            before, after = after, self.buckets[after].next
        if before == NIL or self.buckets[before].count != count:
            before = self._new_bucket(count, before)
        self._attach(node, before)

    @cython.final
    cdef void _add_count(self, uint32_t node, int64_t n) noexcept:
        """Add `n` to the count of a live node."""
        cdef uint32_t at = self.nodes[node].bucket
        cdef Bucket *bucket = &self.buckets[at]
        cdef int64_t count = bucket.count + n
        cdef uint32_t before = at
        self.moves += 1
        if self.nodes[node].next == node:
            if bucket.next == NIL or self.buckets[bucket.next].count > count:
                bucket.count = count
                return
            before = bucket.prev
            self._remove_bucket(at)
        else:
            self._detach(node)
        self._insert(node, count, before)

    @cython.final
    cdef PyObject *_insert_key(self, PyObject *key, Py_hash_t hash, int64_t n, uint32_t before) noexcept:
        """Insert `key`, in place of a victim if full; returns the reference to drop."""
        cdef uint32_t node = hg_chain_pop(self.nodes, sizeof(Node), &self.free_node)
        cdef PyObject *victim
        if node != NIL:
            self.nodes[node].error = 0
            self.count += 1
            self._insert(node, n, before)
        else:
            node = self.buckets[self.buckets[0].next].head
            self.nodes[node].error = self.buckets[self.nodes[node].bucket].count
            self._add_count(node, n)
            hg_table_leave(&self.table, self.nodes, sizeof(Node), node)
        victim = self._key(node)
        Py_INCREF(key)
        PyList_SET_ITEM(<PyObject *>self.keys, node, key)
        self.nodes[node].hash = hash
        hg_table_enter(&self.table, hash, node)
        return victim

    # ---- decay ------------------------------------------------------------------------------

    @cython.final
    cdef int64_t _now(self) except? -1:
        if self.clock is None:
            return hg_monotonic_ns()
        return checked_now(self.clock())

    @cython.final
    cdef list _decay(self):
        """Halve the counts for each half-life that has passed; returns what is to be dropped last."""
        cdef int64_t now = self._now(), steps
        cdef uint64_t version
        cdef list fresh
        while True:
            if now < self.since:
                self.since = now
            if now - self.since < self.half:
                return None
            version = self.table.version
            fresh = [None] * (<Py_ssize_t>self.most + 1)
            if not self._intact():
                self._restore()
            if version == self.table.version and now - self.since >= self.half:
                steps = (now - self.since) // self.half
                self.since += steps * self.half
                return self._halve(<int>min(steps, 63), fresh)

    @cython.final
    cdef list _halve(self, int steps, list fresh):
        """Halve `steps` times, rounding down; the remaining keys move to `fresh`."""
        cdef Node *nodes = self.nodes
        cdef uint32_t at = self.buckets[0].next, after, into = NIL, node, next, last
        cdef int64_t count, halved
        cdef PyObject *key
        self.sum >>= steps
        self.table.version += 1
        while at != NIL:
            after = self.buckets[at].next
            count = self.buckets[at].count
            halved = count >> steps
            node = self.buckets[at].head
            last = nodes[node].prev
            if into == NIL or self.buckets[into].count != halved:
                self.buckets[at].count, self.buckets[at].head = halved, NIL
                into = at
            while True:
                next = nodes[node].next
                if halved == 0:
                    hg_table_leave(&self.table, nodes, sizeof(Node), node)
                    hg_chain_push(nodes, sizeof(Node), &self.free_node, node)
                    self.count -= 1
                else:
                    nodes[node].error = halved - ((count - nodes[node].error) >> steps)
                    self._attach(node, into)
                    key = self._key(node)
                    PyList_SET_ITEM(<PyObject *>self.keys, node, PyList_GET_ITEM(<PyObject *>fresh, node))
                    PyList_SET_ITEM(<PyObject *>fresh, node, key)
                if node == last:
                    break
                node = next
            if into != at or halved == 0:
                self._remove_bucket(at)
                into = NIL if halved == 0 else into
            at = after
        self.keys, fresh = fresh, self.keys
        return fresh

    @cython.final
    cdef list _rows(self, uint64_t limit):
        """Triples of key, count and error, the greatest count first; starts over if foreign code edits."""
        cdef list rows
        cdef uint64_t version, moves
        cdef uint32_t at, node
        while True:
            rows = []
            with cython.critical_section(self):
                _halved = self._decay() if self.half else None
                if not self._intact():
                    self._restore()
                version, moves = self.table.version, self.moves
                at = self.buckets[0].prev
                node = self.buckets[at].head
                while at != NIL and <uint64_t>len(rows) < limit:
                    row = (<object>self._key(node), self.buckets[at].count, self.nodes[node].error)
                    rows.append(row)
                    if version != self.table.version or moves != self.moves:
                        break
                    node = self.nodes[node].next
                    if node == self.buckets[at].head:
                        at = self.buckets[at].prev
                        node = self.buckets[at].head
                if version == self.table.version and moves == self.moves:
                    return rows

    def _check(self):
        """Check all structures; raise AssertionError if an invariant does not hold."""
        cdef uint32_t at, node, prev = NIL, live = 0
        cdef int64_t counted = 0
        assert self._intact()
        at = self.buckets[0].next
        while at != NIL:
            assert self.buckets[at].prev == prev
            assert self.buckets[at].count > (self.buckets[prev].count if prev != NIL else 0)
            node = self.buckets[at].head
            assert node != NIL
            while True:
                assert self.nodes[node].bucket == at
                assert self.nodes[self.nodes[node].next].prev == node
                assert 0 <= self.nodes[node].error <= self.buckets[at].count
                assert hg_table_has(&self.table, self.nodes[node].hash, node)
                counted += self.buckets[at].count
                live += 1
                assert live <= self.most
                node = self.nodes[node].next
                if node == self.buckets[at].head:
                    break
            prev, at = at, self.buckets[at].next
        assert self.buckets[0].prev == prev
        assert live == self.count <= self.most
        assert hg_table_filled(&self.table) == live
        assert counted == self.sum if not self.half else counted <= self.sum
        node, at = self.free_node, 0
        while node != NIL:
            assert self._key(node) == Py_None
            node = self.nodes[node].next
            at += 1
        assert at == self.most - live

    def _probes(self):
        """The number of table cells that a lookup of every key reads."""
        with cython.critical_section(self):
            cells = hg_table_probes(&self.table, self.nodes, sizeof(Node))
        return cells
