/* The key hashes of other programs; the reference is headgate/schemes/_hashes.py. */
#ifndef HEADGATE_KEYHASH_H
#define HEADGATE_KEYHASH_H

#include "bits.h"
#include "md5.h"
#include "xxh64.h"

/* HG_GIVEN_HASH is a hash that the caller computes, by no function of this file. */
enum hg_key_hash {
    HG_XXH64, HG_GIVEN_HASH, HG_MD5, HG_MD5_TOP, HG_CRC32, HG_CRC32_15, HG_ONE_AT_A_TIME, HG_FNV1A_64,
    HG_SDBM, HG_DJB2, HG_WT6,
    HG_AVALANCHE = 32 /* a flag */
};

/* CRC-32 by half bytes: the table fits in one cache line. */
static uint32_t hg_crc32(const unsigned char *p, size_t size)
{
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < size; i++) {
        crc ^= p[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

static uint32_t hg_one_at_a_time(const unsigned char *p, size_t size)
{
    uint32_t h = 0;
    for (size_t i = 0; i < size; i++) {
        h += (uint32_t)(signed char)p[i];
        h += h << 10;
        h ^= h >> 6;
    }
    h += h << 3;
    h ^= h >> 11;
    return h + (h << 15);
}

static uint32_t hg_fnv1a_64(const unsigned char *p, size_t size)
{
    uint32_t h = 0x84222325;
    for (size_t i = 0; i < size; i++)
        h = (h ^ (uint32_t)(signed char)p[i]) * 0x1b3;
    return h;
}

static uint32_t hg_sdbm(const unsigned char *p, size_t size)
{
    uint32_t h = 0;
    for (size_t i = 0; i < size; i++)
        h = p[i] + (h << 6) + (h << 16) - h;
    return h;
}

static uint32_t hg_djb2(const unsigned char *p, size_t size)
{
    uint32_t h = 5381;
    for (size_t i = 0; i < size; i++)
        h = h * 33 + p[i];
    return h;
}

static uint32_t hg_wt6(const unsigned char *p, size_t size)
{
    uint32_t h0 = 0xa53c965a, h1 = 0x5ca6953a;
    unsigned step0 = 6, step1 = 18;
    for (size_t i = 0; i < size; i++) {
        h0 = ~(h0 ^ p[i]);
        h1 = ~(h1 + p[i]);
        uint32_t rotated = hg_rotl32(h1, step0);
        h1 = hg_rotl32(h0, step1);
        h0 = rotated;
        uint32_t mixed = (h0 >> 16 ^ h1) & 0xffff;
        step0 = mixed & 31;
        step1 = mixed >> 11;
    }
    return h0 ^ h1;
}

static uint32_t hg_avalanche(uint32_t a)
{
    a = a + 0x7ed55d16 + (a << 12);
    a = a ^ 0xc761c23c ^ a >> 19;
    a = a + 0x165667b1 + (a << 5);
    a = (a + 0xd3a2646c) ^ a << 9;
    a = a + 0xfd7046c5 + (a << 3);
    a = a ^ 0xb55a4f09 ^ a >> 16;
    return a * 3221225473u;
}

static uint32_t hg_hash_key_32(int kind, const unsigned char *p, size_t size)
{
    uint32_t half[2];
    switch (kind) {
    case HG_MD5: hg_md5_half(p, size, half); return half[0];
    case HG_CRC32: return hg_crc32(p, size);
    case HG_CRC32_15: return hg_crc32(p, size) >> 16 & 0x7fff;
    case HG_ONE_AT_A_TIME: return hg_one_at_a_time(p, size);
    case HG_FNV1A_64: return hg_fnv1a_64(p, size);
    case HG_SDBM: return hg_sdbm(p, size);
    case HG_DJB2: return hg_djb2(p, size);
    default: return hg_wt6(p, size);
    }
}

static uint32_t hg_swap32(uint32_t x) { return x >> 24 | (x >> 8 & 0xff00) | (x << 8 & 0xff0000) | x << 24; }

static uint64_t hg_hash_key_other(int kind, const unsigned char *p, size_t size)
{
    if (kind == HG_MD5_TOP) {
        uint32_t half[2];
        hg_md5_half(p, size, half);
        return (uint64_t)hg_swap32(half[0]) << 32 | hg_swap32(half[1]);
    }
    uint32_t hash = hg_hash_key_32(kind & ~HG_AVALANCHE, p, size);
    return kind & HG_AVALANCHE ? hg_avalanche(hash) : hash;
}

static inline uint64_t hg_hash_key(int kind, const unsigned char *p, size_t size)
{
    return kind == HG_XXH64 ? hg_xxh64(p, size, 0) : hg_hash_key_other(kind, p, size);
}

#endif
