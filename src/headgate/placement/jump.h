/* Jump consistent hash (Lamping and Veach, 2014), and the slot of a key in a Redis cluster. */
#ifndef HEADGATE_JUMP_H
#define HEADGATE_JUMP_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static int64_t hg_jump(uint64_t key, int64_t buckets)
{
    int64_t bucket = -1, next = 0;
    while (next < buckets) {
        bucket = next;
        key = key * UINT64_C(2862933555777941757) + 1;
        next = (int64_t)((double)(bucket + 1) * (2147483648.0 / (double)((key >> 33) + 1)));
    }
    return bucket;
}

/* CRC-16/XMODEM by half bytes. */
static unsigned hg_crc16(const unsigned char *p, size_t size)
{
    static const uint16_t table[16] = {
        0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
        0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef,
    };
    unsigned crc = 0;
    for (size_t i = 0; i < size; i++) {
        crc = (crc << 4 ^ table[crc >> 12 ^ p[i] >> 4]) & 0xffff;
        crc = (crc << 4 ^ table[crc >> 12 ^ (p[i] & 15)]) & 0xffff;
    }
    return crc;
}

/* Hashes the text between the first { and the next }, if there is any, else the whole key. */
static unsigned hg_redis_slot(const unsigned char *p, size_t size)
{
    const unsigned char *open = size ? memchr(p, '{', size) : NULL;
    const unsigned char *close = open ? memchr(open, '}', (size_t)(p + size - open)) : NULL;
    if (close && close > open + 1)
        return hg_crc16(open + 1, (size_t)(close - open - 1)) & 16383;
    return hg_crc16(p, size) & 16383;
}

#endif
