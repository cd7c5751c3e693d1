"""Products of 64-bit numbers, shifted right."""
from libc.stdint cimport int64_t, uint64_t


cdef extern from "mulshift.h" nogil:
    uint64_t hg_mulshift(uint64_t a, uint64_t b, unsigned shift)
    uint64_t hg_units_at(int64_t elapsed, uint64_t multiplier, unsigned shift)
    int64_t hg_wait(int64_t elapsed, int64_t units, uint64_t multiplier, unsigned shift)
    int64_t hg_rescaled(int64_t debt, unsigned old_bits, unsigned bits, int64_t most)
