"""Decisions made without a call of Python code, inlined into the modules of limits."""
from cpython.object cimport PyTypeObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_SET_ITEM


cdef extern from "Python.h":
    object PyType_GenericAlloc(PyTypeObject *cls, Py_ssize_t items)


cdef inline bint is_allowed(type cls, object decision) except -1:
    """Whether a decision, a `Decision`, which is `cls`, or another with its fields, allows the request."""
    return <object>PyTuple_GET_ITEM(decision, 0) if type(decision) is cls else decision.allowed


cdef inline object decided(type cls, object allowed, object limit, object remaining, object retry_after,
                           object reset_after, object policy):
    """A `Decision`, which is `cls`, of these fields."""
    made = PyType_GenericAlloc(<PyTypeObject *>cls, 6)
    _set(made, 0, allowed)
    _set(made, 1, limit)
    _set(made, 2, remaining)
    _set(made, 3, retry_after)
    _set(made, 4, reset_after)
    _set(made, 5, policy)
    return made


cdef inline void _set(object made, Py_ssize_t at, object field) noexcept:
    Py_INCREF(field)
    PyTuple_SET_ITEM(made, at, field)
