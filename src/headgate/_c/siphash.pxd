"""SipHash-1-3."""
from libc.stdint cimport uint64_t


cdef extern from "siphash.h" nogil:
    uint64_t hg_siphash13(const uint64_t *key, const unsigned char *p, size_t size)
