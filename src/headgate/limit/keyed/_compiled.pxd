"""What `headgate.limit.joint` calls of a `RateLimiter` directly, not as methods of Python."""
from libc.stdint cimport int64_t


cdef class _Decider:
    """A limit by key, without state; `RateLimiter` is the only one."""

    cdef int64_t _now(self) except? -1
    cdef bint _allows(self, object key, object cost, bint take) except -1
    cdef object _decide(self, object key, object cost, object name, double least)
