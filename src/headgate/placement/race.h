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

/* MurmurHash3 of 32 bits, begun: what all keys of a node have in front. Eight nodes stand side by side, all with as
 * many bytes behind the last block of four, so that compilers turn the loops over them into vector instructions.
 * GCC would unroll such short loops before; what it is told to is made for AVX2 too, whose multiplication is fast. */
enum { HG_LANES = 8 };

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define HG_AVX2
#define HG_EACH_LANE(i) _Pragma("GCC unroll 1") for (int i = 0; i < HG_LANES; i++)
#define HG_INLINE static inline __attribute__((always_inline))
#else
#define HG_EACH_LANE(i) for (int i = 0; i < HG_LANES; i++)
#define HG_INLINE static inline
#endif

typedef struct {
    uint32_t state[HG_LANES];
    uint32_t rest[HG_LANES]; /* the bytes after the last block, times the first factor */
    uint32_t size[HG_LANES];
    uint32_t rank[HG_LANES];
    uint32_t rest_size;
} hg_prefixes;

#define HG_MURMUR_FIRST 0xcc9e2d51u
#define HG_MURMUR_SECOND 0x1b873593u

HG_INLINE uint32_t hg_murmur_rotl(uint32_t x, int bits) { return x << bits | x >> (32 - bits); }

HG_INLINE uint32_t hg_murmur_mix(uint32_t k)
{
    return hg_murmur_rotl(k * HG_MURMUR_FIRST, 15) * HG_MURMUR_SECOND;
}

HG_INLINE uint32_t hg_murmur_step(uint32_t h, uint32_t mixed)
{
    return hg_murmur_rotl(h ^ mixed, 13) * 5 + 0xe6546b64;
}

HG_INLINE uint32_t hg_murmur_last(uint32_t h)
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

static void hg_murmur_begin(hg_prefixes *all, size_t lane, uint32_t rank, const unsigned char *p, size_t size,
                            uint32_t seed)
{
    size_t whole = size & ~(size_t)3;
    uint32_t state = seed;
    for (size_t at = 0; at < whole; at += 4)
        state = hg_murmur_step(state, hg_murmur_mix(hg_read32(p + at)));
    all->state[lane] = state;
    all->rest[lane] = hg_read_few(p + whole, size - whole) * HG_MURMUR_FIRST;
    all->size[lane] = (uint32_t)size;
    all->rank[lane] = rank;
    all->rest_size = (uint32_t)(size - whole);
}

/* What a key adds behind prefixes that leave some bytes over: but for its first word the same to all of them. */
typedef struct {
    uint32_t first; /* times the first factor */
    uint32_t *mixed;
    size_t count;
    uint32_t rest;
    uint32_t size;
    int joined; /* whether prefix and key make up a first word */
} hg_suffix;

/* `mixed` needs room for size / 4 words. */
static void hg_suffix_begin(hg_suffix *suffix, const unsigned char *p, size_t size, uint32_t have, uint32_t *mixed)
{
    size_t at = size < 4 - have ? size : 4 - have;
    suffix->first = (hg_read_few(p, at) << (8 * have)) * HG_MURMUR_FIRST;
    suffix->joined = have + at == 4;
    suffix->mixed = mixed;
    for (suffix->count = 0; at + 4 <= size; at += 4)
        mixed[suffix->count++] = hg_murmur_mix(hg_read32(p + at));
    suffix->rest = hg_murmur_mix(hg_read_few(p + at, size - at));
    suffix->size = (uint32_t)size;
}

HG_INLINE void hg_murmur_end(const hg_prefixes *all, const hg_suffix *suffix, uint32_t *scores)
{
    uint32_t h[HG_LANES];
    HG_EACH_LANE(i)
        h[i] = all->state[i] ^ hg_murmur_rotl(all->rest[i] + suffix->first, 15) * HG_MURMUR_SECOND;
    if (suffix->joined) {
        HG_EACH_LANE(i)
            h[i] = hg_murmur_step(h[i], 0);
        for (size_t word = 0; word < suffix->count; word++)
            HG_EACH_LANE(i)
                h[i] = hg_murmur_step(h[i], suffix->mixed[word]);
        HG_EACH_LANE(i)
            h[i] ^= suffix->rest;
    }
    HG_EACH_LANE(i)
        scores[i] = hg_murmur_last(h[i] ^ (all->size[i] + suffix->size));
}

/* The scores of all nodes by rank; prefixes that leave as much over stand together. */
static void hg_scores_of_prefixes(const hg_prefixes *all, size_t count, const unsigned char *p, size_t size,
                                  uint32_t *mixed, hg_racer *racers)
{
    hg_suffix suffix;
    uint32_t scores[HG_LANES];
    for (size_t at = 0; at < count; at++) {
        if (at == 0 || all[at].rest_size != all[at - 1].rest_size)
            hg_suffix_begin(&suffix, p, size, all[at].rest_size, mixed);
        hg_murmur_end(&all[at], &suffix, scores);
        HG_EACH_LANE(i)
            racers[all[at].rank[i]].score = scores[i];
    }
}

HG_INLINE size_t hg_best_of_lanes(const hg_prefixes *all, size_t count, const unsigned char *p, size_t size,
                                  uint32_t *mixed)
{
    hg_suffix suffix;
    uint32_t scores[HG_LANES], high[HG_LANES] = {0}, best[HG_LANES] = {0};
    for (size_t at = 0; at < count; at++) {
        if (at == 0 || all[at].rest_size != all[at - 1].rest_size)
            hg_suffix_begin(&suffix, p, size, all[at].rest_size, mixed);
        hg_murmur_end(&all[at], &suffix, scores);
        HG_EACH_LANE(i) {
            int ahead = (scores[i] > high[i]) | ((scores[i] == high[i]) & (all[at].rank[i] > best[i]));
            best[i] = ahead ? all[at].rank[i] : best[i];
            high[i] = ahead ? scores[i] : high[i];
        }
    }
    for (int i = 1; i < HG_LANES; i++)
        if (high[i] > high[0] || (high[i] == high[0] && best[i] > best[0])) {
            high[0] = high[i];
            best[0] = best[i];
        }
    return best[0];
}

#ifdef HG_AVX2
__attribute__((target("avx2")))
static size_t hg_best_by_avx2(const hg_prefixes *all, size_t count, const unsigned char *p, size_t size, uint32_t *mixed)
{
    return hg_best_of_lanes(all, count, p, size, mixed);
}
#endif

static size_t hg_best_of_prefixes(const hg_prefixes *all, size_t count, const unsigned char *p, size_t size,
                                  uint32_t *mixed)
{
#ifdef HG_AVX2
    if (__builtin_cpu_supports("avx2"))
        return hg_best_by_avx2(all, count, p, size, mixed);
#endif
    return hg_best_of_lanes(all, count, p, size, mixed);
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
