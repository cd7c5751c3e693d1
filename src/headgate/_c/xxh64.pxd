"""XXH64 and splitmix64 on plain memory."""
from libc.stdint cimport uint64_t


cdef extern from "xxh64.h" nogil:
    uint64_t hg_xxh64(const unsigned char *p, size_t size, uint64_t seed)
    uint64_t hg_splitmix64(uint64_t x)
