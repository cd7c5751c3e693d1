/* XXH64 and splitmix64 on plain memory; own code, written from the published algorithms:
 * https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md and Vigna's splitmix64.c.
 * Words are assembled byte by byte, so the result does not depend on the platform's byte
 * order or alignment; compilers turn each assembly into one load. */
#ifndef HEADGATE_XXH64_H
#define HEADGATE_XXH64_H

#include <stddef.h>
#include <stdint.h>
#include "bits.h"

#define HG_P1 UINT64_C(0x9E3779B185EBCA87)
#define HG_P2 UINT64_C(0xC2B2AE3D27D4EB4F)
#define HG_P3 UINT64_C(0x165667B19E3779F9)
#define HG_P4 UINT64_C(0x85EBCA77C2B2AE63)
#define HG_P5 UINT64_C(0x27D4EB2F165667C5)

static inline uint32_t hg_read32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t hg_read64(const unsigned char *p)
{
    return (uint64_t)hg_read32(p) | (uint64_t)hg_read32(p + 4) << 32;
}

static inline uint64_t hg_round(uint64_t acc, uint64_t lane)
{
    return hg_rotl64(acc + lane * HG_P2, 31) * HG_P1;
}

static inline uint64_t hg_merge(uint64_t acc, uint64_t v)
{
    return (acc ^ hg_round(0, v)) * HG_P1 + HG_P4;
}

static inline uint64_t hg_stripes(const unsigned char *p, size_t size, uint64_t seed)
{
    uint64_t v1 = seed + HG_P1 + HG_P2, v2 = seed + HG_P2, v3 = seed, v4 = seed - HG_P1;
    for (; size >= 32; p += 32, size -= 32) {
        v1 = hg_round(v1, hg_read64(p));
        v2 = hg_round(v2, hg_read64(p + 8));
        v3 = hg_round(v3, hg_read64(p + 16));
        v4 = hg_round(v4, hg_read64(p + 24));
    }
    uint64_t acc = hg_rotl64(v1, 1) + hg_rotl64(v2, 7) + hg_rotl64(v3, 12) + hg_rotl64(v4, 18);
    return hg_merge(hg_merge(hg_merge(hg_merge(acc, v1), v2), v3), v4);
}

static inline uint64_t hg_xxh64(const unsigned char *p, size_t size, uint64_t seed)
{
    uint64_t acc = size >= 32 ? hg_stripes(p, size, seed) : seed + HG_P5;
    size_t rest = size & 31;
    p += size - rest;
    acc += (uint64_t)size;
    for (; rest >= 8; p += 8, rest -= 8)
        acc = hg_rotl64(acc ^ hg_round(0, hg_read64(p)), 27) * HG_P1 + HG_P4;
    if (rest >= 4) {
        acc = hg_rotl64(acc ^ hg_read32(p) * HG_P1, 23) * HG_P2 + HG_P3;
        p += 4;
        rest -= 4;
    }
    for (; rest > 0; p++, rest--)
        acc = hg_rotl64(acc ^ *p * HG_P5, 11) * HG_P1;
    acc = (acc ^ acc >> 33) * HG_P2;
    acc = (acc ^ acc >> 29) * HG_P3;
    return acc ^ acc >> 32;
}

static inline uint64_t hg_splitmix64(uint64_t x)
{
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 31;
}

#endif
