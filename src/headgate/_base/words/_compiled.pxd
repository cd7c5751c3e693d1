"""Words, for the compiled twins of what is kept in them."""
from libc.stdint cimport int64_t, uint64_t


cdef class Words:
    cdef object __weakref__
    cdef Py_buffer view
    cdef uint64_t *words

    cdef uint64_t *at_word(self, Py_ssize_t at) except NULL
    cdef int64_t taken(self, Py_ssize_t slot, uint64_t limit, list mark) except -1
    cdef bint given(self, Py_ssize_t slot, list mark) except -1
