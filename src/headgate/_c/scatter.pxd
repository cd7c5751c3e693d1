"""The place of a hash in a table, which depends on the table's secret."""
from libc.stdint cimport uint32_t, uint64_t


cdef extern from "scatter.h" nogil:
    ctypedef struct hg_secret:
        pass

    uint64_t hg_scatter(uint64_t hash, const hg_secret *secret)
    uint32_t hg_home(uint64_t hash, const hg_secret *secret)
    hg_secret hg_draw_secret()
    void hg_seed_secrets(const char *seed)
