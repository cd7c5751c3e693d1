/* Rendezvous hashing: every node scores a key, the highest score wins, on a tie the later node. */
#ifndef HEADGATE_RACE_H
#define HEADGATE_RACE_H

#include "xxh64.h"
#include <math.h>
#include <string.h>

typedef struct {
    uint64_t score;
    uint32_t rank;
} hg_racer;

static int hg_compare_racers(const void *a, const void *b)
{
    const hg_racer *x = (const hg_racer *)a, *y = (const hg_racer *)b;
    if (x->score != y->score)
        return x->score < y->score ? 1 : -1;
    return x->rank < y->rank ? 1 : -1;
}

static inline uint64_t hg_draw(uint64_t base, uint64_t key) { return hg_splitmix64(base ^ key); }

/* The time -ln(u) / weight at which a node answers, u being the draw in (0, 1). */
static inline double hg_time(uint64_t draw, double weight)
{
    return -log(((double)(draw >> 12) + 0.5) * 0x1p-52) / weight;
}

/* Times as scores: the earlier, the higher. Positive doubles are in the order of their bits. */
static inline uint64_t hg_score_of_time(double time)
{
    uint64_t bits;
    memcpy(&bits, &time, sizeof(bits));
    return ~bits;
}

static size_t hg_best_of_equals(const uint64_t *bases, size_t count, uint64_t key)
{
    size_t best = 0;
    uint64_t high = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t draw = hg_draw(bases[i], key);
        best = draw >= high ? i : best;
        high = draw >= high ? draw : high;
    }
    return best;
}

/* -ln(u) >= 1 - u spares most logarithms: a node that could not win even then is passed over. */
static size_t hg_best_of_weighted(const uint64_t *bases, const double *weights, size_t count, uint64_t key)
{
    size_t best = 0;
    double first = INFINITY;
    for (size_t i = 0; i < count; i++) {
        uint64_t draw = hg_draw(bases[i], key);
        double least = 1.0 - ((double)(draw >> 12) + 0.5) * 0x1p-52;
        if (least > first * weights[i] * (1 + 1e-12))
            continue;
        double time = hg_time(draw, weights[i]);
        if (time <= first) {
            first = time;
            best = i;
        }
    }
    return best;
}

/* MurmurHash3 of 32 bits, begun: what all keys of a node have in front. */
typedef struct {
    uint32_t state;
    uint32_t rest;      /* the bytes after the last block of four */
    uint32_t rest_size;
    uint32_t size;
} hg_prefix;

static inline uint32_t hg_murmur_rotl(uint32_t x, int bits) { return x << bits | x >> (32 - bits); }

static inline uint32_t hg_murmur_mix(uint32_t k) { return hg_murmur_rotl(k * 0xcc9e2d51, 15) * 0x1b873593; }

static inline uint32_t hg_murmur_step(uint32_t h, uint32_t k)
{
    return hg_murmur_rotl(h ^ hg_murmur_mix(k), 13) * 5 + 0xe6546b64;
}

static inline uint32_t hg_murmur_last(uint32_t h)
{
    h = (h ^ h >> 16) * 0x85ebca6b;
    h = (h ^ h >> 13) * 0xc2b2ae35;
    return h ^ h >> 16;
}

static inline uint32_t hg_read_few(const unsigned char *p, size_t size)
{
    uint32_t word = 0;
    for (size_t i = 0; i < size; i++)
        word |= (uint32_t)p[i] << (8 * i);
    return word;
}

static void hg_murmur_begin(hg_prefix *prefix, const unsigned char *p, size_t size, uint32_t seed)
{
    size_t whole = size & ~(size_t)3;
    prefix->state = seed;
    for (size_t at = 0; at < whole; at += 4)
        prefix->state = hg_murmur_step(prefix->state, hg_read32(p + at));
    prefix->rest_size = (uint32_t)(size - whole);
    prefix->rest = hg_read_few(p + whole, size - whole);
    prefix->size = (uint32_t)size;
}

static inline uint32_t hg_murmur_end(const hg_prefix *prefix, const unsigned char *p, size_t size)
{
    unsigned char few[8] = {0};
    uint32_t h = prefix->state, rest = prefix->rest, have = prefix->rest_size;
    if (size < 4) { /* behind zeros, so that four bytes end where it ends */
        for (size_t i = 0; i < size; i++)
            few[4 + i] = p[i];
        p = few + 4;
    }
    rest |= hg_read32(p) << (8 * have);
    if (have + size >= 4) {
        const unsigned char *end = p + size, *at = p + (4 - have);
        h = hg_murmur_step(h, rest);
        for (; at + 4 <= end; at += 4)
            h = hg_murmur_step(h, hg_read32(at));
        rest = (uint32_t)((uint64_t)hg_read32(end - 4) >> (32 - 8 * (end - at)));
    }
    return hg_murmur_last(h ^ hg_murmur_mix(rest) ^ (prefix->size + (uint32_t)size));
}

enum { HG_MOST_WORDS = 32 };

/* What a key adds behind prefixes that leave `have` bytes over: but for its first word the same to all of them. */
typedef struct {
    uint32_t mixed[HG_MOST_WORDS];
    size_t count;
    uint32_t rest;
} hg_suffix;

static void hg_suffix_begin(hg_suffix *suffix, const unsigned char *p, size_t size, size_t have)
{
    const unsigned char *end = p + size, *at = p + (4 - have);
    for (suffix->count = 0; at + 4 <= end; at += 4)
        suffix->mixed[suffix->count++] = hg_murmur_mix(hg_read32(at));
    suffix->rest = hg_murmur_mix((uint32_t)((uint64_t)hg_read32(end - 4) >> (32 - 8 * (end - at))));
}

static inline uint32_t hg_murmur_behind(const hg_prefix *prefix, const hg_suffix *suffix, uint32_t first,
                                        uint32_t size)
{
    uint32_t h = hg_murmur_step(prefix->state, prefix->rest | first << (8 * prefix->rest_size));
    for (size_t i = 0; i < suffix->count; i++)
        h = hg_murmur_rotl(h ^ suffix->mixed[i], 13) * 5 + 0xe6546b64;
    return hg_murmur_last(h ^ suffix->rest ^ (prefix->size + size));
}

static size_t hg_best_of_prefixes(const hg_prefix *prefixes, size_t count, const unsigned char *p, size_t size)
{
    hg_suffix suffixes[4];
    size_t best = 0;
    uint32_t high = 0, first, score;
    int apart = size < 4 || size > 4 * HG_MOST_WORDS;
    for (size_t have = 0; !apart && have < 4; have++)
        hg_suffix_begin(&suffixes[have], p, size, have);
    first = apart ? 0 : hg_read32(p);
    for (size_t i = 0; i < count; i++) {
        const hg_prefix *prefix = &prefixes[i];
        if (apart)
            score = hg_murmur_end(prefix, p, size);
        else
            score = hg_murmur_behind(prefix, &suffixes[prefix->rest_size], first, (uint32_t)size);
        best = score >= high ? i : best;
        high = score >= high ? score : high;
    }
    return best;
}

/* The length of the UTF-8 sequence at `p`, its code point in `code`; 0 if it is none. */
static size_t hg_utf8(const unsigned char *p, size_t size, uint32_t *code)
{
    size_t length = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : p[0] >> 4 == 0xe ? 3 : p[0] >> 3 == 0x1e ? 4 : 0;
    if (length == 0 || length > size)
        return 0;
    *code = length == 1 ? p[0] : p[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if (p[i] >> 6 != 2)
            return 0;
        *code = *code << 6 | (p[i] & 63u);
    }
    int overlong = (length == 3 && *code < 0x800) || (length == 4 && *code < 0x10000);
    return overlong || *code > 0x10ffff || *code >> 11 == 0x1b ? 0 : length;
}

/* The low byte of each code point of UTF-8; bytes that are none stay. Returns the new size. */
static size_t hg_low_bytes(const unsigned char *p, size_t size, unsigned char *out)
{
    size_t made = 0;
    for (size_t at = 0; at < size;) {
        uint32_t code = p[at];
        size_t length = hg_utf8(p + at, size - at, &code);
        out[made++] = (unsigned char)(length ? code : p[at]);
        at += length ? length : 1;
    }
    return made;
}

#endif
