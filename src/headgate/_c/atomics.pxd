"""Words that threads and processes share, changed by single atomic steps."""
from libc.stdint cimport uint64_t


cdef extern from "atomics.h" nogil:
    uint64_t hg_load(uint64_t *word)
    void hg_store(uint64_t *word, uint64_t value)
    uint64_t hg_swap(uint64_t *word, uint64_t value)
    bint hg_cas(uint64_t *word, uint64_t old, uint64_t value)
    uint64_t hg_add(uint64_t *word, uint64_t value)
    uint64_t hg_peek(uint64_t *field)
    void hg_poke(uint64_t *field, uint64_t value)
