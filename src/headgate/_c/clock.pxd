"""The monotonic clock."""
from libc.stdint cimport int64_t


cdef extern from "clock.h" nogil:
    int64_t hg_monotonic_ns()
