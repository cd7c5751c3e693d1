/* Rendezvous hashing: every node has a score for a key, and the highest owns the key; of equal scores, that of
 * the node of higher rank. */
#ifndef HEADGATE_RENDEZVOUS_H
#define HEADGATE_RENDEZVOUS_H

#include "xxh64.h"
#include <math.h>
#include <string.h>

typedef struct {
    uint64_t score;
    uint32_t rank;
} hg_candidate;

static int hg_compare_candidates(const void *a, const void *b)
{
    const hg_candidate *x = (const hg_candidate *)a, *y = (const hg_candidate *)b;
    if (x->score != y->score)
        return x->score < y->score ? 1 : -1;
    return x->rank < y->rank ? 1 : -1;
}

/* The pseudo-random draw of a node for a key. */
static inline uint64_t hg_draw(uint64_t name_hash, uint64_t key_hash) { return hg_splitmix64(name_hash ^ key_hash); }

/* The distance -ln(u) / weight of a node from a key, where u is the draw scaled to (0, 1). */
static inline double hg_distance(uint64_t draw, double weight)
{
    return -log(((double)(draw >> 12) + 0.5) * 0x1p-52) / weight;
}

/* A distance as a score: the smaller, the higher. Positive doubles have the order of their bits. */
static inline uint64_t hg_score_of_distance(double distance)
{
    uint64_t bits;
    memcpy(&bits, &distance, sizeof(bits));
    return ~bits;
}

static size_t hg_best_of_equals(const uint64_t *name_hashes, size_t count, uint64_t key_hash)
{
    size_t best = 0;
    uint64_t high = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t draw = hg_draw(name_hashes[i], key_hash);
        best = draw >= high ? i : best;
        high = draw >= high ? draw : high;
    }
    return best;
}

/* As -ln(u) >= 1 - u, a node is skipped if even (1 - u) / weight is too large, which avoids most logarithms. */
static size_t hg_best_of_weighted(const uint64_t *name_hashes, const double *weights, size_t count, uint64_t key_hash)
{
    size_t best = 0;
    double nearest = INFINITY;
    for (size_t i = 0; i < count; i++) {
        uint64_t draw = hg_draw(name_hashes[i], key_hash);
        double least = 1.0 - ((double)(draw >> 12) + 0.5) * 0x1p-52;
        if (least > nearest * weights[i] * (1 + 1e-12))
            continue;
        double distance = hg_distance(draw, weights[i]);
        if (distance <= nearest) {
            nearest = distance;
            best = i;
        }
    }
    return best;
}

/* The states of MurmurHash3 of 32 bits after the prefixes of eight nodes, all with the same number of bytes after the
 * last block of four, so that compilers vectorize the loops over them. GCC would unroll such short loops first, which
 * the pragma prevents. They are also compiled for AVX2, whose multiplication is fast. */
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
    uint32_t rest[HG_LANES]; /* the bytes after the last block of four, times the first factor */
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

/* The words of a key, mixed, for all prefixes with the same number of remaining bytes: only the first word, which
 * contains these bytes, depends on the prefix. */
typedef struct {
    uint32_t first; /* times the first factor */
    uint32_t *mixed;
    size_t count;
    uint32_t rest;
    uint32_t size;
    int joined; /* whether prefix and key fill a first word */
} hg_suffix;

/* `have` is the number of remaining bytes of the prefix; `mixed` has size / 4 words. */
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

/* The scores of all nodes; groups of prefixes with the same number of remaining bytes are adjacent. */
static void hg_scores_of_prefixes(const hg_prefixes *all, size_t count, const unsigned char *p, size_t size,
                                  uint32_t *mixed, hg_candidate *candidates)
{
    hg_suffix suffix;
    uint32_t scores[HG_LANES];
    for (size_t at = 0; at < count; at++) {
        if (at == 0 || all[at].rest_size != all[at - 1].rest_size)
            hg_suffix_begin(&suffix, p, size, all[at].rest_size, mixed);
        hg_murmur_end(&all[at], &suffix, scores);
        HG_EACH_LANE(i)
            candidates[all[at].rank[i]].score = scores[i];
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

/* The length of the UTF-8 sequence at `p`, whose code point is stored in `code`; 0 if there is none. */
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

/* The low byte of each code point of UTF-8; other bytes are unchanged. Returns the new size. */
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
