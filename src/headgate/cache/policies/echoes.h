/* Which hashes were rejected lately, each with the weight of all that was rejected until then.
 *
 *   cells: a power of two; the mixed hash chooses its cell by the low bits and replaces what is there
 */
#ifndef HEADGATE_ECHOES_H
#define HEADGATE_ECHOES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "xxh64.h"

typedef struct {
    uint64_t mixed, at;
} hg_echo;

typedef struct {
    hg_echo *cells;
    uint64_t size, sum;
} hg_echoes;

static inline void hg_echoes_clear(hg_echoes *echoes)
{
    free(echoes->cells);
    memset(echoes, 0, sizeof *echoes);
}

/* Have a cell for each of `entries`, at least 8; new cells are empty. */
static inline void hg_echoes_ensure(hg_echoes *echoes, uint64_t entries)
{
    uint64_t size = echoes->size == 0 ? 8 : echoes->size;
    hg_echo *cells;
    while (size < entries)
        size *= 2;
    if (size == echoes->size || size > SIZE_MAX / 32)
        return;
    cells = calloc(size, sizeof *cells);
    if (cells == NULL)
        return;
    free(echoes->cells);
    echoes->cells = cells;
    echoes->size = size;
}

/* A hash is rejected, in a cache of so many entries. */
static inline void hg_echoes_add(hg_echoes *echoes, int64_t hash, int64_t weight, uint64_t entries)
{
    uint64_t mixed = hg_splitmix64((uint64_t)hash);
    hg_echo *cell;
    hg_echoes_ensure(echoes, entries / 8);
    echoes->sum += (uint64_t)weight;
    if (echoes->cells == NULL)
        return;
    cell = echoes->cells + (mixed & (echoes->size - 1));
    cell->mixed = mixed;
    cell->at = echoes->sum;
}

/* Whether a hash was rejected, and since then less than the weight of `span`. */
static inline int hg_echoes_has(const hg_echoes *echoes, int64_t hash, uint64_t span)
{
    uint64_t mixed = hg_splitmix64((uint64_t)hash);
    const hg_echo *cell;
    if (echoes->cells == NULL)
        return 0;
    cell = echoes->cells + (mixed & (echoes->size - 1));
    return cell->mixed == mixed && echoes->sum - cell->at < span;
}

#endif
