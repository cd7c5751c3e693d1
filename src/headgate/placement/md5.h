/* The first half of an MD5 digest, as two little-endian words of 32 bits, written from RFC 1321.
 * A short key is one block or two, so no state is kept between calls. */
#ifndef HEADGATE_MD5_H
#define HEADGATE_MD5_H

#include "bits.h"
#include "xxh64.h"
#include <string.h>

static const uint32_t hg_md5_sines[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
};
static const uint8_t hg_md5_rotations[16] = {7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21};

static inline uint32_t hg_md5_mix(int round, uint32_t b, uint32_t c, uint32_t d)
{
    switch (round) {
    case 0: return (b & c) | (~b & d);
    case 1: return (d & b) | (~d & c);
    case 2: return b ^ c ^ d;
    default: return c ^ (b | ~d);
    }
}

static void hg_md5_block(uint32_t state[4], const unsigned char *block)
{
    static const uint8_t step[4] = {1, 5, 3, 7}, offset[4] = {0, 1, 5, 0};
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    for (int round = 0; round < 4; round++)
        for (int i = 0; i < 16; i++) {
            uint32_t word = hg_read32(block + 4 * ((i * step[round] + offset[round]) & 15));
            uint32_t sum = a + hg_md5_mix(round, b, c, d) + word + hg_md5_sines[16 * round + i];
            a = d;
            d = c;
            c = b;
            b += hg_rotl32(sum, hg_md5_rotations[4 * round + (i & 3)]);
        }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
}

static void hg_md5_half(const unsigned char *data, size_t size, uint32_t half[2])
{
    uint32_t state[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
    unsigned char tail[128] = {0};
    size_t whole = size & ~(size_t)63, rest = size - whole, end = rest < 56 ? 64 : 128;
    for (size_t at = 0; at < whole; at += 64)
        hg_md5_block(state, data + at);
    if (rest)
        memcpy(tail, data + whole, rest);
    tail[rest] = 0x80;
    for (int i = 0; i < 8; i++)
        tail[end - 8 + i] = (unsigned char)((uint64_t)size << 3 >> (8 * i));
    for (size_t at = 0; at < end; at += 64)
        hg_md5_block(state, tail + at);
    half[0] = state[0];
    half[1] = state[1];
}

#endif
