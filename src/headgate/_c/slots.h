/* Tables of linked slots: cells that lead from a hash to a slot, circular lists, and a chain of free slots.
 *
 *   cells (u32)      records of any struct that has a hash, and prev and next side by side
 *   +---+            slot   hash   prev   next
 *   | 0 |             0      -      2      1      <- where a list begins and ends
 *   | 1 | --------->  1     h(a)    0      2      <- the oldest of the list
 *   | 0 |     +---->  2     h(b)    1      0      <- the newest
 *   | 2 | ----+       3      -      -      4      <- free, chained by next; 0 ends the chain
 *   +---+
 *
 * The number of cells is a power of two; a home is by scatter.h, probing is linear, and a removal shifts back. 0 in
 * a cell means empty, so slot 0 is never in the table, and one cell at least must stay empty.
 *
 * A record is found by its slot: `hashes` and `links` point at the hash and at prev of slot 0, `stride` is the size
 * of a record, a constant wherever these functions are inlined.
 */
#ifndef HEADGATE_SLOTS_H
#define HEADGATE_SLOTS_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "scatter.h"

typedef struct {
    uint32_t *cells;
    uint64_t version; /* counts edits of the cells: a probe that ran other code starts over when it has changed */
    hg_secret secret;
    uint32_t mask;
} hg_table;

static inline int64_t hg_hash_at(const int64_t *hashes, size_t stride, uint32_t slot)
{
    return *(const int64_t *)(const void *)((const char *)hashes + slot * stride);
}

/* ---- memory ---- */

/* The number of cells that are to be at least so many. */
static inline uint64_t hg_table_size(uint64_t least)
{
    uint64_t size = 4;
    while (size < least && size <= UINT32_MAX)
        size *= 2;
    return size;
}

/* Empty cells, or NULL where memory lacks. */
static inline uint32_t *hg_table_allocate(uint64_t size)
{
    return size > SIZE_MAX / sizeof(uint32_t) ? NULL : calloc((size_t)size, sizeof(uint32_t));
}

/* Take over empty cells of `hg_table_allocate`; homes are then by another secret. */
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

/* Keep a single cell, which is empty. */
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
    return (uint32_t)hg_scatter((uint64_t)hash, &table->secret) & table->mask;
}

static inline uint32_t hg_table_next(const hg_table *table, uint32_t at)
{
    return (at + 1) & table->mask;
}

/* The first cell, from `at` on, that is empty or whose slot has this hash. */
static inline uint32_t hg_table_probe(const hg_table *table, const int64_t *hashes, size_t stride, int64_t hash,
                                      uint32_t at)
{
    uint32_t slot;
    while ((slot = table->cells[at]) != 0 && hg_hash_at(hashes, stride, slot) != hash)
        at = hg_table_next(table, at);
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

/* Take the slot of a cell out, and shift back those that its place had pushed on. */
static inline void hg_table_empty(hg_table *table, const int64_t *hashes, size_t stride, uint32_t hole)
{
    uint32_t *cells = table->cells, mask = table->mask, at = hole, slot;
    while ((slot = cells[at = (at + 1) & mask]) != 0) {
        uint32_t home = hg_table_home(table, hg_hash_at(hashes, stride, slot));
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            cells[hole] = slot;
            hole = at;
        }
    }
    hg_table_set(table, hole, 0);
}

static inline void hg_table_leave(hg_table *table, const int64_t *hashes, size_t stride, uint32_t slot)
{
    hg_table_empty(table, hashes, stride, hg_table_cell(table, hg_hash_at(hashes, stride, slot), slot));
}

/* Whether a slot is reachable from the home of its hash. */
static inline int hg_table_has(const hg_table *table, int64_t hash, uint32_t slot)
{
    uint32_t at = hg_table_home(table, hash);
    while (table->cells[at] != 0 && table->cells[at] != slot)
        at = hg_table_next(table, at);
    return table->cells[at] == slot;
}

/* How many cells are not empty. */
static inline uint64_t hg_table_filled(const hg_table *table)
{
    uint64_t filled = 0;
    for (uint64_t at = 0; at <= table->mask; at++)
        filled += table->cells[at] != 0;
    return filled;
}

/* How many cells the lookups of all slots read. */
static inline uint64_t hg_table_probes(const hg_table *table, const int64_t *hashes, size_t stride)
{
    uint64_t probes = 0;
    for (uint64_t at = 0; at <= table->mask; at++) {
        uint32_t slot = table->cells[at];
        if (slot != 0)
            probes += 1 + (((uint32_t)at - hg_table_home(table, hg_hash_at(hashes, stride, slot))) & table->mask);
    }
    return probes;
}

/* ---- the lists ---- */

static inline uint32_t *hg_prev(uint32_t *links, size_t stride, uint32_t slot)
{
    return (uint32_t *)(void *)((char *)links + slot * stride);
}

static inline uint32_t *hg_next(uint32_t *links, size_t stride, uint32_t slot)
{
    return hg_prev(links, stride, slot) + 1;
}

/* Link a slot between two that are neighbours, or one and the same where it is alone. */
static inline void hg_list_insert(uint32_t *links, size_t stride, uint32_t prev, uint32_t slot, uint32_t next)
{
    *hg_prev(links, stride, slot) = prev;
    *hg_next(links, stride, slot) = next;
    *hg_next(links, stride, prev) = slot;
    *hg_prev(links, stride, next) = slot;
}

/* Link a slot before `end`: as the newest, where `end` is where the list begins and ends. */
static inline void hg_list_append(uint32_t *links, size_t stride, uint32_t end, uint32_t slot)
{
    hg_list_insert(links, stride, *hg_prev(links, stride, end), slot, end);
}

static inline void hg_list_remove(uint32_t *links, size_t stride, uint32_t slot)
{
    uint32_t prev = *hg_prev(links, stride, slot), next = *hg_next(links, stride, slot);
    *hg_next(links, stride, prev) = next;
    *hg_prev(links, stride, next) = prev;
}

/* ---- the chain ---- */

static inline void hg_chain_push(uint32_t *links, size_t stride, uint32_t *free_slot, uint32_t slot)
{
    *hg_next(links, stride, slot) = *free_slot;
    *free_slot = slot;
}

/* The slot that was freed last, or 0. */
static inline uint32_t hg_chain_pop(uint32_t *links, size_t stride, uint32_t *free_slot)
{
    uint32_t slot = *free_slot;
    if (slot != 0)
        *free_slot = *hg_next(links, stride, slot);
    return slot;
}

#endif
