/* Counts of events, and snapshots of them in three rings: the words of an SLO, which processes may share.
 *
 *     words  | good | bad | current slot | first slot | wall clock | - | - | - |
 *     rings  | stamp | good | bad | ...      361 of a slot, 865 of 5 slots, 721 of 60 slots
 *
 * A snapshot has the counts at the end of its slot. The first call in a later slot writes it: the stamp
 * is claimed by compare-and-swap, and made valid, by a check of all three words, when the counts are there. So one that
 * a process was killed or stopped in is not valid, and neither are damaged ones, but for one of 8 million: its counts
 * are read from its older neighbour. Slots without events have theirs too, from the first call after them.
 */
#ifndef HEADGATE_SLO_RINGS_H
#define HEADGATE_SLO_RINGS_H

#include <stdint.h>

#include "atomics.h"

enum { HG_GOOD, HG_BAD, HG_CURRENT, HG_FIRST, HG_WALL, HG_RINGS = 8, HG_ENTRY = 3, HG_KINDS = 3, HG_WORDS = 5849 };
enum { HG_SLOTS = 43200 };
#define HG_STAMPED ((UINT64_C(1) << 40) - 1)

typedef struct {
    int64_t step;  /* slots */
    int64_t count; /* snapshots */
    int64_t at;    /* its first word */
} hg_ring;

static const hg_ring HG_RING[HG_KINDS] = {{1, 361, 8}, {5, 865, 1091}, {60, 721, 3686}};

typedef struct {
    uint64_t good;
    uint64_t bad;
} hg_events;

static inline uint64_t hg_stamp(int64_t slot, hg_events events)
{
    uint64_t mixed = events.good * UINT64_C(0x9e3779b97f4a7c15) + events.bad * UINT64_C(0xc2b2ae3d27d4eb4f) + (uint64_t)slot;
    mixed = (mixed ^ mixed >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return ((uint64_t)slot + 1) << 24 | mixed >> 40 | 1;
}

static inline hg_events hg_counted(uint64_t *words)
{
    hg_events events = {hg_load(words + HG_GOOD), hg_load(words + HG_BAD)};
    return events;
}

/* Write the snapshot of a slot, unless it is there or being written. */
static inline void hg_snap(uint64_t *words, const hg_ring *ring, int64_t slot, hg_events events)
{
    uint64_t *entry = words + ring->at + HG_ENTRY * (slot % ring->count);
    uint64_t seen = hg_load(entry), claimed = ((uint64_t)slot + 1) << 24;
    if (seen >> 24 == claimed >> 24 || !hg_cas(entry, seen, claimed))
        return;
    hg_store(entry + 1, events.good);
    hg_store(entry + 2, events.bad);
    hg_cas(entry, claimed, hg_stamp(slot, events));
}

/* Move on to a slot. The current slot afterwards: a later one, unless it is later by more than the window, as after a
 * step of the clock or in a damaged file. */
static inline int64_t hg_move(uint64_t *words, int64_t slot)
{
    while (1) {
        uint64_t current = hg_load(words + HG_CURRENT);
        hg_events events;
        int kind;
        if (current - (uint64_t)slot <= HG_SLOTS)
            return (int64_t)current;
        events = hg_counted(words);
        for (kind = 0; current < (uint64_t)slot && kind < HG_KINDS; kind++) {
            const hg_ring *ring = HG_RING + kind;
            int64_t next = slot / ring->step, ended = (int64_t)current / ring->step;
            for (ended = ended < next - ring->count ? next - ring->count : ended; ended < next; ended++)
                hg_snap(words, ring, ended, events);
        }
        if (hg_cas(words + HG_CURRENT, current, (uint64_t)slot))
            return slot;
    }
}

/* Read the counts at the end of a slot; false if its snapshot is not valid. */
static inline int hg_read(uint64_t *words, const hg_ring *ring, int64_t slot, hg_events most, hg_events *events)
{
    uint64_t *entry = words + ring->at + HG_ENTRY * (slot % ring->count);
    uint64_t stamp = hg_load(entry);
    events->good = hg_load(entry + 1);
    events->bad = hg_load(entry + 2);
    return stamp == hg_stamp(slot, *events) && events->good <= most.good && events->bad <= most.bad;
}

/* The counts at the end of a slot of a ring: those of its snapshot or the next older one, or of the next later one if
 * those are overwritten. `now` is the current slot of the ring, `most` the counts now. */
static inline hg_events hg_counts_at(uint64_t *words, const hg_ring *ring, int64_t slot, int64_t now, hg_events most)
{
    int64_t first = (int64_t)(hg_load(words + HG_FIRST) & HG_STAMPED) / ring->step, at;
    hg_events found = {0, 0};
    for (at = slot; at >= first && at >= now - ring->count; at--)
        if (hg_read(words, ring, at, most, &found))
            return found;
    if (at < first) {
        found.good = found.bad = 0;
        return found;
    }
    for (at = slot + 1; at < now; at++)
        if (hg_read(words, ring, at, most, &found))
            return found;
    return most;
}

/* The events of the current slot and of the whole slots that `slots` before it span, by the finest ring that has them. */
static inline hg_events hg_events_of(uint64_t *words, int64_t now, int64_t slots)
{
    const hg_ring *ring = HG_RING;
    hg_events counted = hg_counted(words), before;
    int64_t span;
    while (ring < HG_RING + HG_KINDS - 1 && slots > ring->step * (ring->count - 1))
        ring++;
    span = (slots + ring->step - 1) / ring->step;
    now /= ring->step;
    before = hg_counts_at(words, ring, now - span - 1, now, counted);
    counted.good -= before.good;
    counted.bad -= before.bad;
    return counted;
}

#endif
