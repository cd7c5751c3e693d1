"""Hashes and equality of str without a call of Python's."""
from cpython.object cimport PyObject


cdef extern from "unicode_eq.h":
    Py_hash_t hg_hash(PyObject *key) except -1
    bint hg_str_equal(PyObject *a, PyObject *b)
