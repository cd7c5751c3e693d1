"""Fields of one process that are read without the lock under which they are written."""
from libc.stdint cimport int64_t, uint64_t


cdef extern from "fields.h" nogil:
    uint64_t hg_get(uint64_t *field)
    void hg_set(uint64_t *field, uint64_t value)
    int64_t hg_get_time(int64_t *field)
    void hg_set_time(int64_t *field, int64_t value)
    double hg_get_double(double *field)
    void hg_set_double(double *field, double value)
