"""Tables of linked slots."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from headgate._c.scatter cimport hg_secret


cdef extern from "slots.h" nogil:
    ctypedef struct hg_node:
        int64_t hash
        uint32_t prev
        uint32_t next

    ctypedef struct hg_table:
        uint32_t *cells
        uint64_t version
        hg_secret secret
        uint32_t mask

    uint64_t hg_table_size(uint64_t least)
    uint32_t *hg_table_allocate(uint64_t size)
    void hg_table_adopt(hg_table *table, uint32_t *cells, uint64_t size)
    void hg_table_clear(hg_table *table)
    void hg_table_shrink(hg_table *table)
    uint32_t hg_table_home(const hg_table *table, int64_t hash)
    uint32_t hg_table_next(const hg_table *table, uint32_t at)
    uint32_t hg_table_probe(const hg_table *table, const void *records, size_t stride, int64_t hash,
                            uint32_t at)
    uint32_t hg_table_cell(const hg_table *table, int64_t hash, uint32_t slot)
    void hg_table_set(hg_table *table, uint32_t at, uint32_t slot)
    void hg_table_enter(hg_table *table, int64_t hash, uint32_t slot)
    void hg_table_empty(hg_table *table, const void *records, size_t stride, uint32_t at)
    void hg_table_leave(hg_table *table, const void *records, size_t stride, uint32_t slot)
    bint hg_table_has(const hg_table *table, int64_t hash, uint32_t slot)
    uint64_t hg_table_filled(const hg_table *table)
    uint64_t hg_table_probes(const hg_table *table, const void *records, size_t stride)

    void hg_list_insert(void *records, size_t stride, uint32_t prev, uint32_t slot, uint32_t next)
    void hg_list_append(void *records, size_t stride, uint32_t end, uint32_t slot)
    void hg_list_remove(void *records, size_t stride, uint32_t slot)
    void hg_chain_push(void *records, size_t stride, uint32_t *free_slot, uint32_t slot)
    uint32_t hg_chain_pop(void *records, size_t stride, uint32_t *free_slot)
