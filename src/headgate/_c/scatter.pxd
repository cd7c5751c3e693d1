"""Hashes mixed with a secret, and the secrets."""
from libc.stdint cimport uint64_t


cdef extern from "scatter.h" nogil:
    ctypedef struct hg_secret:
        pass

    uint64_t hg_scatter(uint64_t hash, const hg_secret *secret)
    hg_secret hg_draw_secret()
    void hg_seed_secrets(const char *seed)
