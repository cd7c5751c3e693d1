/* Tables of linked slots: open addressing from a hash to a slot, circular lists of slots, and a chain of free slots.
 *
 *   cells (u32)      records
 *   +---+            slot   hash   prev   next
 *   | 0 |             0      -      2      1      <- the sentinel of a list
 *   | 1 | --------->  1     h(a)    0      2      <- the oldest slot of the list
 *   | 0 |     +---->  2     h(b)    1      0      <- the newest
 *   | 2 | ----+       3      -      -      4      <- free, chained by next; 0 ends the chain
 *   +---+
 *
 * The number of cells is a power of two. scatter.h maps a hash to its home cell, probing is linear, and removal
 * shifts back. 0 marks an empty cell, so slot 0 is never in the table; at least one cell must be empty.
 *
 * A record is any struct whose first members are those of hg_node; in a record that is in no table, the hash may be
 * any 8 bytes. `records` points at the record of slot 0, and `stride` is the size of a record, which is a constant
 * wherever these functions are inlined.
 */
#ifndef HEADGATE_SLOTS_H
#define HEADGATE_SLOTS_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "scatter.h"

/* Keeps a rare path out of line, so that the frequent path saves fewer registers. */
#if defined(__GNUC__)
#define HG_APART __attribute__((noinline))
#elif defined(_MSC_VER)
#define HG_APART __declspec(noinline)
#else
#define HG_APART
#endif

typedef struct {
    int64_t hash;
    uint32_t prev, next;
} hg_node;

typedef struct {
    uint32_t *cells;
    uint64_t version; /* changes with every edit: a probe that has called other code compares it, and starts over */
    hg_secret secret;
    uint32_t mask;
} hg_table;

/* The record of a slot and its members. Access is not through hg_node: records of other types may not alias it. */
static inline char *hg_record(const void *records, size_t stride, uint32_t slot)
{
    return (char *)records + slot * stride;
}

static inline int64_t *hg_hash_of(char *record) { return (int64_t *)record; }
static inline uint32_t *hg_prev(char *record) { return (uint32_t *)(record + offsetof(hg_node, prev)); }
static inline uint32_t *hg_next(char *record) { return (uint32_t *)(record + offsetof(hg_node, next)); }

/* ---- memory ---- */

/* The size of a table with at least so many cells; at most 2**32. */
static inline uint64_t hg_table_size(uint64_t least)
{
    uint64_t size = 4;
    while (size < least && size <= UINT32_MAX)
        size *= 2;
    return size;
}

/* Returns empty cells, or NULL if out of memory. */
static inline uint32_t *hg_table_allocate(uint64_t size)
{
    return size > SIZE_MAX / sizeof(uint32_t) ? NULL : calloc((size_t)size, sizeof(uint32_t));
}

/* Replaces the cells by empty ones from hg_table_allocate, and draws a new secret; slots have to be entered again. */
static inline void hg_table_adopt(hg_table *table, uint32_t *cells, uint64_t size)
{
    free(table->cells);
    table->cells = cells;
    table->mask = (uint32_t)(size - 1);
    table->secret = hg_draw_secret();
    table->version++;
}

static inline void hg_table_clear(hg_table *table)
{
    memset(table->cells, 0, ((size_t)table->mask + 1) * sizeof *table->cells);
    table->version++;
}

/* Reduces the table to one empty cell. */
static inline void hg_table_shrink(hg_table *table)
{
    uint32_t *cells = realloc(table->cells, sizeof *cells);
    if (cells != NULL)
        table->cells = cells;
    table->mask = 0;
    hg_table_clear(table);
}

/* ---- the table ---- */

static inline uint32_t hg_table_home(const hg_table *table, int64_t hash)
{
    return hg_home((uint64_t)hash, &table->secret) & table->mask;
}

static inline uint32_t hg_table_next(const hg_table *table, uint32_t at)
{
    return (at + 1) & table->mask;
}

/* The first cell from `at` on that is empty or has a slot with this hash. */
static inline uint32_t hg_table_probe(const hg_table *table, const void *records, size_t stride, int64_t hash,
                                      uint32_t at)
{
    uint32_t slot = table->cells[at];
    while (slot != 0 && *hg_hash_of(hg_record(records, stride, slot)) != hash) {
        at = hg_table_next(table, at);
        slot = table->cells[at];
    }
    return at;
}

/* The cell of a slot that is in the table. */
static inline uint32_t hg_table_cell(const hg_table *table, int64_t hash, uint32_t slot)
{
    uint32_t at = hg_table_home(table, hash);
    while (table->cells[at] != slot)
        at = hg_table_next(table, at);
    return at;
}

static inline void hg_table_set(hg_table *table, uint32_t at, uint32_t slot)
{
    table->cells[at] = slot;
    table->version++;
}

static inline void hg_table_enter(hg_table *table, int64_t hash, uint32_t slot)
{
    uint32_t at = hg_table_home(table, hash);
    while (table->cells[at] != 0)
        at = hg_table_next(table, at);
    hg_table_set(table, at, slot);
}

/* Shifts back the slots that the slot in `hole` displaced. Returns the cell that is to be emptied instead. */
static HG_APART uint32_t hg_table_shift_back(const hg_table *table, const void *records, size_t stride, uint32_t hole)
{
    uint32_t *cells = table->cells, mask = table->mask, at = hole, slot;
    hg_secret secret = table->secret;
    while ((slot = cells[at = (at + 1) & mask]) != 0) {
        uint32_t home = hg_home((uint64_t)*hg_hash_of(hg_record(records, stride, slot)), &secret);
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            cells[hole] = slot;
            hole = at;
        }
    }
    return hole;
}

/* Removes the slot in the cell `at`. */
static inline void hg_table_empty(hg_table *table, const void *records, size_t stride, uint32_t at)
{
    if (table->cells[hg_table_next(table, at)] != 0)
        at = hg_table_shift_back(table, records, stride, at);
    hg_table_set(table, at, 0);
}

static inline void hg_table_leave(hg_table *table, const void *records, size_t stride, uint32_t slot)
{
    hg_table_empty(table, records, stride, hg_table_cell(table, *hg_hash_of(hg_record(records, stride, slot)), slot));
}

/* Whether a slot is reachable from the home of its hash. */
static inline int hg_table_has(const hg_table *table, int64_t hash, uint32_t slot)
{
    uint32_t at = hg_table_home(table, hash);
    while (table->cells[at] != 0 && table->cells[at] != slot)
        at = hg_table_next(table, at);
    return table->cells[at] == slot;
}

/* The number of cells that are not empty. */
static inline uint64_t hg_table_filled(const hg_table *table)
{
    uint64_t filled = 0;
    for (uint64_t at = 0; at <= table->mask; at++)
        filled += table->cells[at] != 0;
    return filled;
}

/* The number of cells that a lookup of each slot reads, added up. */
static inline uint64_t hg_table_probes(const hg_table *table, const void *records, size_t stride)
{
    uint64_t probes = 0;
    for (uint64_t at = 0; at <= table->mask; at++) {
        uint32_t slot = table->cells[at];
        if (slot != 0) {
            uint32_t home = hg_table_home(table, *hg_hash_of(hg_record(records, stride, slot)));
            probes += 1 + (((uint32_t)at - home) & table->mask);
        }
    }
    return probes;
}

/* ---- the lists ---- */

/* Links a slot between two neighbours, which are the same slot if the list has no other. */
static inline void hg_list_insert(void *records, size_t stride, uint32_t prev, uint32_t slot, uint32_t next)
{
    char *own = hg_record(records, stride, slot);
    *hg_prev(own) = prev;
    *hg_next(own) = next;
    *hg_next(hg_record(records, stride, prev)) = slot;
    *hg_prev(hg_record(records, stride, next)) = slot;
}

/* Links a slot before `end`; if that is the sentinel, as the newest slot. */
static inline void hg_list_append(void *records, size_t stride, uint32_t end, uint32_t slot)
{
    hg_list_insert(records, stride, *hg_prev(hg_record(records, stride, end)), slot, end);
}

static inline void hg_list_remove(void *records, size_t stride, uint32_t slot)
{
    char *own = hg_record(records, stride, slot);
    uint32_t prev = *hg_prev(own), next = *hg_next(own);
    *hg_next(hg_record(records, stride, prev)) = next;
    *hg_prev(hg_record(records, stride, next)) = prev;
}

/* ---- the chain ---- */

static inline void hg_chain_push(void *records, size_t stride, uint32_t *free_slot, uint32_t slot)
{
    *hg_next(hg_record(records, stride, slot)) = *free_slot;
    *free_slot = slot;
}

/* Removes and returns the slot that was pushed last; 0 if there is none. */
static inline uint32_t hg_chain_pop(void *records, size_t stride, uint32_t *free_slot)
{
    uint32_t slot = *free_slot;
    if (slot != 0)
        *free_slot = *hg_next(hg_record(records, stride, slot));
    return slot;
}

#endif
