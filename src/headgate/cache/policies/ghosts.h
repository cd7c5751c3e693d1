/* The ghosts of a cache: hashes of evicted keys, in the order of eviction.
 *
 *   table (u32)                     slab: hash, prev, next          weights, where sizes differ
 *   home: by scatter.h              slot 0: the ends of the queue, prev the newest and next the oldest
 *
 * Linear probing at two thirds full at most; removal shifts back. The number of cells is not a power of two, as in the
 * tables of slots.h: the memory of ghosts follows their number. Their list and the chain of free slots are those of
 * slots.h.
 */
#ifndef HEADGATE_GHOSTS_H
#define HEADGATE_GHOSTS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "scatter.h"
#include "slots.h"

typedef struct {
    hg_node *slab;
    int64_t *weights;
    uint32_t *table;
    uint64_t weight;
    hg_secret secret;
    uint32_t capacity, used, free, cells, count;
} hg_ghosts;

static inline void hg_ghosts_clear(hg_ghosts *ghosts)
{
    free(ghosts->slab);
    free(ghosts->weights);
    free(ghosts->table);
    memset(ghosts, 0, sizeof *ghosts);
}

static inline uint32_t hg_ghost_home(const hg_ghosts *ghosts, int64_t hash)
{
    return (uint32_t)((uint64_t)hg_home((uint64_t)hash, &ghosts->secret) * ghosts->cells >> 32);
}

static inline void hg_ghost_enter(hg_ghosts *ghosts, uint32_t slot)
{
    uint32_t at = hg_ghost_home(ghosts, ghosts->slab[slot].hash);
    while (ghosts->table[at] != 0)
        at = at + 1 == ghosts->cells ? 0 : at + 1;
    ghosts->table[at] = slot;
}

static inline uint32_t hg_ghost_find(const hg_ghosts *ghosts, int64_t hash)
{
    uint32_t at, slot;
    if (ghosts->count == 0)
        return 0;
    at = hg_ghost_home(ghosts, hash);
    while ((slot = ghosts->table[at]) != 0 && ghosts->slab[slot].hash != hash)
        at = at + 1 == ghosts->cells ? 0 : at + 1;
    return slot;
}

static inline void hg_ghost_remove(hg_ghosts *ghosts, uint32_t slot)
{
    hg_node *slab = ghosts->slab;
    uint32_t cells = ghosts->cells, hole = hg_ghost_home(ghosts, slab[slot].hash), at, other;
    while (ghosts->table[hole] != slot)
        hole = hole + 1 == cells ? 0 : hole + 1;
    for (at = hole;;) {
        uint32_t home, from_home, from_hole;
        at = at + 1 == cells ? 0 : at + 1;
        other = ghosts->table[at];
        if (other == 0)
            break;
        home = hg_ghost_home(ghosts, slab[other].hash);
        from_home = at >= home ? at - home : at + cells - home;
        from_hole = at >= hole ? at - hole : at + cells - hole;
        if (from_home >= from_hole) {
            ghosts->table[hole] = other;
            hole = at;
        }
    }
    ghosts->table[hole] = 0;
    hg_list_remove(slab, sizeof *slab, slot);
    ghosts->count--;
    ghosts->weight -= ghosts->weights == NULL ? 1 : (uint64_t)ghosts->weights[slot];
    hg_chain_push(slab, sizeof *slab, &ghosts->free, slot);
}

/* Allocate `capacity` ghosts, at least as many as there are; 0 where memory lacks. */
static inline int hg_ghosts_grow(hg_ghosts *ghosts, uint64_t capacity, int weighted)
{
    uint64_t cells = capacity + capacity / 2 + 2;
    hg_node *slab = capacity < UINT32_MAX / 2 ? realloc(ghosts->slab, (capacity + 1) * sizeof *slab) : NULL;
    uint32_t *table;
    uint32_t slot;
    if (slab == NULL)
        return 0;
    if (ghosts->slab == NULL)
        slab[0].prev = slab[0].next = 0;
    ghosts->slab = slab;
    if (weighted) {
        int64_t *weights = realloc(ghosts->weights, (capacity + 1) * sizeof *weights);
        if (weights == NULL)
            return 0;
        ghosts->weights = weights;
    }
    table = calloc(cells, sizeof *table);
    if (table == NULL)
        return 0;
    free(ghosts->table);
    ghosts->table = table;
    ghosts->secret = hg_draw_secret();
    ghosts->cells = (uint32_t)cells;
    ghosts->capacity = (uint32_t)capacity;
    for (slot = slab[0].next; slot != 0; slot = slab[slot].next)
        hg_ghost_enter(ghosts, slot);
    return 1;
}

/* Forget the oldest ghosts until the weight of the others is at most `maximum`. */
static inline void hg_ghosts_trim(hg_ghosts *ghosts, uint64_t maximum)
{
    while (ghosts->weight > maximum)
        hg_ghost_remove(ghosts, ghosts->slab[0].next);
}

/* How many cells the lookups of all ghosts read. */
static inline uint64_t hg_ghosts_probes(const hg_ghosts *ghosts)
{
    uint64_t probes = 0;
    for (uint32_t at = 0; at < ghosts->cells; at++)
        if (ghosts->table[at] != 0) {
            uint32_t home = hg_ghost_home(ghosts, ghosts->slab[ghosts->table[at]].hash);
            probes += 1 + (at >= home ? at - home : at + ghosts->cells - home);
        }
    return probes;
}

/* Add a ghost, whose weight is at least 1; none where memory lacks. `maximum` bounds the weight of all. */
static inline void hg_ghosts_add(hg_ghosts *ghosts, int64_t hash, int64_t weight, uint64_t maximum,
                                 int weighted)
{
    uint32_t slot = hg_ghost_find(ghosts, hash);
    if (slot != 0)
        hg_ghost_remove(ghosts, slot);
    if ((uint64_t)weight > maximum) {
        hg_ghosts_trim(ghosts, 0);
        return;
    }
    hg_ghosts_trim(ghosts, maximum - (uint64_t)weight);
    if (ghosts->free == 0 && ghosts->used == ghosts->capacity) {
        uint64_t doubled = ghosts->capacity * UINT64_C(2) + 8;
        if (!hg_ghosts_grow(ghosts, maximum < doubled ? maximum : doubled, weighted))
            return;
    }
    slot = hg_chain_pop(ghosts->slab, sizeof *ghosts->slab, &ghosts->free);
    if (slot == 0)
        slot = ++ghosts->used;
    ghosts->slab[slot].hash = hash;
    hg_list_append(ghosts->slab, sizeof *ghosts->slab, 0, slot);
    if (weighted)
        ghosts->weights[slot] = weight;
    ghosts->weight += (uint64_t)weight;
    ghosts->count++;
    hg_ghost_enter(ghosts, slot);
}

#endif
