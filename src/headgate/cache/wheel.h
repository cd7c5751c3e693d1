/* A hierarchical timing wheel that is exact to the nanosecond.
 *
 *   level 1   [ ][ ][x][ ]...[ ]    64 buckets of 64 ns        base: a time, at most that of any timer
 *   level 0   [ ][x][ ][x]...[ ]    64 buckets of 1 ns         first[level, digit]: the bucket's oldest timer,
 *                                                              whose prev is the newest; full: bits of buckets
 *
 * Times are counted in digits of six bits. A timer is at the level of the highest digit in which its time
 * differs from base, in the bucket of its own digit there; so all timers of one time share a bucket, in the
 * order of insertion. When the first bucket is due, base moves there and its timers move down at least one
 * level each: at most ten times, whatever the lifetime.
 */
#ifndef HEADGATE_WHEEL_H
#define HEADGATE_WHEEL_H

#include <stdint.h>
#include <string.h>

#define HG_NEVER INT64_MAX
#define HG_LEVELS 11

typedef struct {
    int64_t due;
    uint32_t prev, next;
} hg_timer;

typedef struct {
    uint64_t base, soonest;
    uint64_t full[HG_LEVELS];
    uint32_t first[HG_LEVELS * 64];
} hg_wheel;

static inline int hg_top_bit(uint64_t x)
{
#if defined(__GNUC__)
    return 63 - __builtin_clzll(x);
#else
    int bit = 0;
    while (x >>= 1)
        bit++;
    return bit;
#endif
}

static inline int hg_low_bit(uint64_t x)
{
    return hg_top_bit(x & (0 - x));
}

/* Times in the order of unsigned numbers. */
static inline uint64_t hg_rank(int64_t due)
{
    return (uint64_t)due ^ UINT64_C(1) << 63;
}

static inline void hg_wheel_clear(hg_wheel *wheel)
{
    memset(wheel, 0, sizeof *wheel);
    wheel->soonest = UINT64_MAX;
}

static inline unsigned hg_bucket(const hg_wheel *wheel, uint64_t rank)
{
    unsigned level = rank == wheel->base ? 0 : (unsigned)hg_top_bit(rank ^ wheel->base) / 6;
    return level * 64 + (unsigned)(rank >> 6 * level & 63);
}

static inline void hg_wheel_append(hg_wheel *wheel, hg_timer *timers, uint32_t slot)
{
    unsigned bucket = hg_bucket(wheel, hg_rank(timers[slot].due));
    uint32_t first = wheel->first[bucket];
    timers[slot].next = 0;
    if (first == 0) {
        wheel->first[bucket] = timers[slot].prev = slot;
        wheel->full[bucket / 64] |= UINT64_C(1) << bucket % 64;
    } else {
        uint32_t last = timers[first].prev;
        timers[last].next = slot;
        timers[slot].prev = last;
        timers[first].prev = slot;
    }
}

/* Take a bucket's chain out. */
static inline uint32_t hg_wheel_empty(hg_wheel *wheel, unsigned bucket)
{
    uint32_t slot = wheel->first[bucket];
    wheel->first[bucket] = 0;
    wheel->full[bucket / 64] &= ~(UINT64_C(1) << bucket % 64);
    return slot;
}

static inline void hg_wheel_refill(hg_wheel *wheel, hg_timer *timers, uint32_t slot)
{
    while (slot != 0) {
        uint32_t next = timers[slot].next;
        hg_wheel_append(wheel, timers, slot);
        slot = next;
    }
}

/* After a clock has stepped back, times may precede base: every timer is inserted again. */
static inline void hg_wheel_step_back(hg_wheel *wheel, hg_timer *timers, uint64_t base)
{
    uint32_t chain = 0, last = 0;
    for (unsigned level = 0; level < HG_LEVELS; level++)
        while (wheel->full[level] != 0) {
            uint32_t slot = hg_wheel_empty(wheel, level * 64 + (unsigned)hg_low_bit(wheel->full[level]));
            if (last == 0)
                chain = slot;
            else
                timers[last].next = slot;
            last = timers[slot].prev;
        }
    wheel->base = base;
    hg_wheel_refill(wheel, timers, chain);
}

static inline void hg_wheel_add(hg_wheel *wheel, hg_timer *timers, uint32_t slot, int64_t due)
{
    uint64_t rank = hg_rank(due);
    if (rank < wheel->base)
        hg_wheel_step_back(wheel, timers, rank);
    timers[slot].due = due;
    hg_wheel_append(wheel, timers, slot);
    if (rank < wheel->soonest)
        wheel->soonest = rank;
}

static inline void hg_wheel_remove(hg_wheel *wheel, hg_timer *timers, uint32_t slot)
{
    unsigned bucket = hg_bucket(wheel, hg_rank(timers[slot].due));
    uint32_t prev = timers[slot].prev, next = timers[slot].next, first = wheel->first[bucket];
    timers[slot].due = HG_NEVER;
    if (first == slot) {
        if (next == 0) {
            hg_wheel_empty(wheel, bucket);
            return;
        }
        wheel->first[bucket] = next;
        timers[next].prev = prev;
        return;
    }
    timers[prev].next = next;
    timers[next == 0 ? first : next].prev = prev;
}

/* The first timer that is due, or 0: in the order of times, then of insertion. */
static inline uint32_t hg_wheel_due(hg_wheel *wheel, hg_timer *timers, int64_t now)
{
    uint64_t rank = hg_rank(now);
    while (rank >= wheel->soonest) {
        unsigned level = 0, digit;
        uint64_t start;
        while (level < HG_LEVELS && wheel->full[level] == 0)
            level++;
        if (level == HG_LEVELS) {
            wheel->soonest = UINT64_MAX;
            return 0;
        }
        digit = (unsigned)hg_low_bit(wheel->full[level]);
        start = level == HG_LEVELS - 1 ? 0 : wheel->base >> 6 * (level + 1) << 6 * (level + 1);
        start |= (uint64_t)digit << 6 * level;
        wheel->soonest = start;
        if (start > rank)
            return 0;
        wheel->base = start;
        if (level == 0)
            return wheel->first[digit];
        hg_wheel_refill(wheel, timers, hg_wheel_empty(wheel, level * 64 + digit));
    }
    return 0;
}

#endif
