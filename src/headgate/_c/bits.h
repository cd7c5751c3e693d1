/* Rotations. */
#ifndef HEADGATE_BITS_H
#define HEADGATE_BITS_H

#include <stdint.h>

static inline uint32_t hg_rotl32(uint32_t x, unsigned bits) { return x << bits | x >> (-bits & 31); }
static inline uint64_t hg_rotl64(uint64_t x, unsigned bits) { return x << bits | x >> (-bits & 63); }

#endif
