/* SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012) with a 128-bit key. */
#ifndef HEADGATE_SIPHASH_H
#define HEADGATE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>
#include "bits.h"

static inline void hg_sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = hg_rotl64(v[1], 13) ^ v[0];
    v[3] = hg_rotl64(v[3], 16) ^ v[2];
    v[0] = hg_rotl64(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = hg_rotl64(v[1], 17) ^ v[2];
    v[3] = hg_rotl64(v[3], 21) ^ v[0];
    v[2] = hg_rotl64(v[2], 32);
}

static inline uint64_t hg_little(const unsigned char *p, size_t size)
{
    uint64_t word = 0;
    for (size_t i = 0; i < size; i++)
        word |= (uint64_t)p[i] << (8 * i);
    return word;
}

static inline uint64_t hg_siphash13(const uint64_t key[2], const unsigned char *p, size_t size)
{
    uint64_t v[4] = {
        key[0] ^ UINT64_C(0x736f6d6570736575), key[1] ^ UINT64_C(0x646f72616e646f6d),
        key[0] ^ UINT64_C(0x6c7967656e657261), key[1] ^ UINT64_C(0x7465646279746573),
    };
    const unsigned char *end = p + (size & ~(size_t)7);
    for (; p != end; p += 8) {
        uint64_t word = hg_little(p, 8);
        v[3] ^= word;
        hg_sip_round(v);
        v[0] ^= word;
    }
    uint64_t last = (uint64_t)size << 56 | hg_little(p, size & 7);
    v[3] ^= last;
    hg_sip_round(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        hg_sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
