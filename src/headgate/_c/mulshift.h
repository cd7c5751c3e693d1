/* The units of headgate/limit/_units.py: what the refill brings in a time, and debts in other units. */
#ifndef HEADGATE_MULSHIFT_H
#define HEADGATE_MULSHIFT_H

#include <stdint.h>
#ifdef _MSC_VER
#include <intrin.h>
#endif

static inline uint64_t hg_mulshift(uint64_t a, uint64_t b, unsigned shift)
{
#if defined(__SIZEOF_INT128__)
    return (uint64_t)((unsigned __int128)a * b >> shift);
#else
    uint64_t high, low;
#if defined(_M_X64)
    low = _umul128(a, b, &high);
#elif defined(_M_ARM64)
    low = a * b;
    high = __umulh(a, b);
#else
    uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
    uint64_t mid = a1 * b0 + (a0 * b0 >> 32);
    uint64_t carry = (uint32_t)mid + a0 * b1;
    low = a * b;
    high = a1 * b1 + (mid >> 32) + (carry >> 32);
#endif
    if (shift == 0)
        return low;
    return shift < 64 ? low >> shift | high << (64 - shift) : high >> (shift - 64);
#endif
}

/* elapsed * multiplier / 2**shift, rounded down, modulo 2**64; elapsed is signed, shift below 128. */
static inline uint64_t hg_units_at(int64_t elapsed, uint64_t multiplier, unsigned shift)
{
    if (elapsed >= 0)
        return hg_mulshift((uint64_t)elapsed, multiplier, shift);
    return (uint64_t)0 - hg_mulshift((uint64_t)0 - (uint64_t)elapsed, multiplier, shift) - 1;
}

/* The nanoseconds, counted from `elapsed`, after which the refill has brought `units` more; -1 if that is not
   known in 128 bits. The refill so far, elapsed * multiplier, is a remainder beyond its whole units. */
static inline int64_t hg_wait(int64_t elapsed, int64_t units, uint64_t multiplier, unsigned shift)
{
    if (units <= 0)
        return 0;
#if defined(__SIZEOF_INT128__)
    if (elapsed >= 0 && (shift <= 64 || (uint64_t)units >> (127 - shift) == 0)) {
        unsigned __int128 one = 1, remainder = (unsigned __int128)elapsed * multiplier & ((one << shift) - 1);
        unsigned __int128 wait = ((units * (one << shift)) - remainder + multiplier - 1) / multiplier;
        if (wait <= INT64_MAX)
            return (int64_t)wait;
    }
#else
    (void)elapsed, (void)multiplier, (void)shift;
#endif
    return -1;
}

/* A debt in units of 2**-old_bits tokens in those of 2**-bits, rounded up, but at most `most`. */
static inline int64_t hg_rescaled(int64_t debt, unsigned old_bits, unsigned bits, int64_t most)
{
    if (bits < old_bits) {
        debt = (debt + (INT64_C(1) << (old_bits - bits)) - 1) >> (old_bits - bits);
        return debt < most ? debt : most;
    }
    return debt > most >> (bits - old_bits) ? most : debt << (bits - old_bits);
}

#endif
