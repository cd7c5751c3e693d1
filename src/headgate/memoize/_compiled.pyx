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
from cpython.object cimport PyObject

cdef extern from "Python.h":
    ctypedef PyObject *(*vectorcallfunc)(PyObject *, PyObject **, size_t, PyObject *)
    ctypedef struct PyTypeObject
    PyTypeObject *Py_TYPE(PyObject *o)

cdef extern from "memo.h":
    void hg_call_by_vector(PyTypeObject *type, Py_ssize_t offset, bint binds)


include "_results.pxi"
include "_lru_cache.pxi"
include "_lookup.pxi"


cdef _Memoizer _memoizer = _Memoizer.__new__(_Memoizer)
cdef _Lookup _lookup = _Lookup.__new__(_Lookup)
hg_call_by_vector(Py_TYPE(<PyObject *>_memoizer),
                  <char *>&_memoizer.vectorcall - <char *><void *>_memoizer, True)
hg_call_by_vector(Py_TYPE(<PyObject *>_lookup), <char *>&_lookup.vectorcall - <char *><void *>_lookup, False)
