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

A key identifies a call. The only argument, an exact str or int, is its own key. Every other
call has a flat one, a tuple: the positional arguments; with keywords KEYWORDS, their names in the order of
the call and their values; and for a typed function the types of all arguments. The tuple is made when a call
is missed; a lookup hashes the arguments where they lie and compares them with the tuple one by one.

Invariants (`_check` walks them all)
- Slots 1..count are live and no others: where an entry leaves by itself, that of the last slot moves.
- Slot 0 is the sentinel of the circular list; 0 in the table means empty.
- The table is at most two fifths full, and every live slot is in it once, reachable from its home.
- len(entries) == 2 * (capacity + 1). The garbage collector sees keys and results in that list; when
  it has cleared it in a dead cycle, `_intact` is false and nothing is remembered from then on.

Foreign code - ``__hash__``, ``__eq__`` in `_find_flat`, the function, finalizers run by an allocation -
runs before the first edit. The table's version counts its edits: a probe that called ``__eq__`` starts over
when it changed, and a result is stored without another look when no edit came between. From the first edit to
the last nothing is allocated and nothing released. Evicted references are dropped last.

``cached`` puts a `_Lookup` before such `_Results`, or before a user's cache; the rest of it is not hot, and
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
    PyObject *hg_wrapper_of(PyObject *by_id, PyObject *instance) except? NULL
    void hg_call_by_vector(PyTypeObject *type, Py_ssize_t offset, bint binds)

cdef enum:
    NIL = 0
    FIRST_CAPACITY = 8
    MOST_ENTRIES = 0x33333333  # two fifths of 2**31 cells
    UNBOUNDED = -1

cdef object ABSENT = _ABSENT
cdef object MARK = KEYWORDS
cdef object TIMED = Timed
cdef object MONOTONIC = monotonic_ns


include "_results.pxi"
include "_lru_cache.pxi"
include "_lookup.pxi"


cdef _Memoizer _memoizer = _Memoizer.__new__(_Memoizer)
cdef _Lookup _lookup = _Lookup.__new__(_Lookup)
hg_call_by_vector(Py_TYPE(<PyObject *>_memoizer),
                  <char *>&_memoizer.vectorcall - <char *><void *>_memoizer, True)
hg_call_by_vector(Py_TYPE(<PyObject *>_lookup), <char *>&_lookup.vectorcall - <char *><void *>_lookup, False)
