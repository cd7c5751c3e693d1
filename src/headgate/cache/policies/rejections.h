/* Which hashes were rejected lately, each with the weight of all that was rejected until then.
 *
 *   cells: a power of two; the mixed hash chooses its cell by the low bits and replaces what is there
 */
#ifndef HEADGATE_REJECTIONS_H
#define HEADGATE_REJECTIONS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "xxh64.h"

typedef struct {
    uint64_t mixed, at;
} hg_rejection;

typedef struct {
    hg_rejection *cells;
    uint64_t size, sum;
} hg_rejections;

static inline void hg_rejections_clear(hg_rejections *rejections)
{
    free(rejections->cells);
    memset(rejections, 0, sizeof *rejections);
}

/* Grow to a cell for each of `entries`, at least 8; new cells are empty. */
static inline void hg_rejections_ensure(hg_rejections *rejections, uint64_t entries)
{
    uint64_t size = rejections->size == 0 ? 8 : rejections->size;
    hg_rejection *cells;
    while (size < entries)
        size *= 2;
    if (size == rejections->size || size > SIZE_MAX / 32)
        return;
    cells = calloc(size, sizeof *cells);
    if (cells == NULL)
        return;
    free(rejections->cells);
    rejections->cells = cells;
    rejections->size = size;
}

/* Add a rejected hash, in a cache of so many entries. */
static inline void hg_rejections_add(hg_rejections *rejections, int64_t hash, int64_t weight,
                                     uint64_t entries)
{
    uint64_t mixed = hg_splitmix64((uint64_t)hash);
    hg_rejection *cell;
    hg_rejections_ensure(rejections, entries / 8);
    rejections->sum += (uint64_t)weight;
    if (rejections->cells == NULL)
        return;
    cell = rejections->cells + (mixed & (rejections->size - 1));
    cell->mixed = mixed;
    cell->at = rejections->sum;
}

/* Whether a hash was rejected, and since then less than the weight of `span`. */
static inline int hg_rejections_has(const hg_rejections *rejections, int64_t hash, uint64_t span)
{
    uint64_t mixed = hg_splitmix64((uint64_t)hash);
    const hg_rejection *cell;
    if (rejections->cells == NULL)
        return 0;
    cell = rejections->cells + (mixed & (rejections->size - 1));
    return cell->mixed == mixed && rejections->sum - cell->at < span;
}

#endif
