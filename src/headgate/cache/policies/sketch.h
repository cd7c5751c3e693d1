/* How often a hash was seen lately: Count-Min of 4-bit counters, halved after ten additions a word.
 *
 *   words: blocks of 8 words = 128 counters, 4 rows of 32; a mixed hash chooses the block by its low half
 *   and a counter in each row by 5 bits of its high half
 */
#ifndef HEADGATE_SKETCH_H
#define HEADGATE_SKETCH_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "xxh64.h"

typedef struct {
    uint64_t *words;
    uint64_t size, sample, additions;
} hg_sketch;

static inline void hg_sketch_clear(hg_sketch *sketch)
{
    free(sketch->words);
    memset(sketch, 0, sizeof *sketch);
    sketch->sample = 80;
}

/* Grow to a word per entry, at least 8; the new words repeat the old counts. */
static inline void hg_sketch_ensure(hg_sketch *sketch, uint64_t entries)
{
    uint64_t size = sketch->size == 0 ? 8 : sketch->size;
    uint64_t *words;
    while (size < entries)
        size *= 2;
    if (size == sketch->size || size > SIZE_MAX / 16)
        return;
    words = realloc(sketch->words, size * sizeof *words);
    if (words == NULL)
        return;
    if (sketch->size == 0) {
        memset(words, 0, size * sizeof *words);
        sketch->size = size;
    }
    for (; sketch->size < size; sketch->size *= 2)
        memcpy(words + sketch->size, words, sketch->size * sizeof *words);
    sketch->words = words;
    sketch->sample = 10 * size;
}

static inline unsigned hg_sketch_shift(uint64_t mixed, int row)
{
    return (unsigned)(mixed >> (32 + 5 * row) & 15) * 4;
}

static inline uint64_t *hg_sketch_word(const hg_sketch *sketch, uint64_t mixed, int row)
{
    uint64_t block = (mixed & UINT32_MAX) & (sketch->size / 8 - 1);
    return sketch->words + 8 * block + 2 * row + (mixed >> (36 + 5 * row) & 1);
}

static inline void hg_sketch_add(hg_sketch *sketch, int64_t hash)
{
    uint64_t mixed = hg_splitmix64((uint64_t)hash), added = 0, i;
    if (sketch->words == NULL)
        return;
    for (int row = 0; row < 4; row++) {
        uint64_t *word = hg_sketch_word(sketch, mixed, row);
        unsigned shift = hg_sketch_shift(mixed, row);
        if ((*word >> shift & 15) < 15) {
            *word += UINT64_C(1) << shift;
            added = 1;
        }
    }
    sketch->additions += added;
    if (sketch->additions < sketch->sample)
        return;
    sketch->additions /= 2;
    for (i = 0; i < sketch->size; i++)
        sketch->words[i] = sketch->words[i] >> 1 & UINT64_C(0x7777777777777777);
}

static inline unsigned hg_sketch_frequency(const hg_sketch *sketch, int64_t hash)
{
    uint64_t mixed = hg_splitmix64((uint64_t)hash);
    unsigned least = 15;
    if (sketch->words == NULL)
        return 0;
    for (int row = 0; row < 4; row++) {
        unsigned count = (unsigned)(*hg_sketch_word(sketch, mixed, row) >> hg_sketch_shift(mixed, row) & 15);
        if (count < least)
            least = count;
    }
    return least;
}

#endif
