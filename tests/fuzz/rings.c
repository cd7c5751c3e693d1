/* rings.h against the list of all events, of which snapshots are damaged, or never finished. */
#include "fuzz.h"
#include "rings.h"

enum { MOST = 256, DAMAGES = 32 };

typedef struct {
    int64_t slot;
    uint64_t good, bad;
} record;

static uint64_t words[HG_WORDS];
static record records[MOST];
static struct {
    const hg_ring *ring;
    int64_t slot;
} damaged[DAMAGES];
static int count, damages;
static int64_t first, now, highest;
static int stepped; /* the clock, by more than the window, or anything was overwritten */

static hg_events events_before(int64_t slot)
{
    hg_events sum = {0, 0};
    for (int i = 0; i < count; i++)
        if (records[i].slot < slot) {
            sum.good += records[i].good;
            sum.bad += records[i].bad;
        }
    return sum;
}

static int is_damaged(const hg_ring *ring, int64_t slot)
{
    for (int i = 0; i < damages; i++)
        if (damaged[i].ring == ring && damaged[i].slot == slot)
            return 1;
    return 0;
}

static void damage(const hg_ring *ring, int64_t slot)
{
    damaged[damages].ring = ring;
    damaged[damages++].slot = slot;
}

/* The end of the latest snapshot up to a slot of a ring, else of the earliest after it, else the end of time. */
static int64_t end_of_snapshot(const hg_ring *ring, int64_t slot)
{
    int64_t current = now / ring->step, start = first / ring->step, older = -1, later = -1;
    int64_t oldest = start > current - ring->count ? start : current - ring->count;
    for (int64_t at = oldest; at < current; at++)
        if (!is_damaged(ring, at)) {
            older = at <= slot ? at : older;
            later = at > slot && later < 0 ? at : later;
        }
    if (older >= 0)
        return (older + 1) * ring->step;
    if (slot < start || oldest == start)
        return 0;
    return later >= 0 ? (later + 1) * ring->step : INT64_MAX;
}

/* The finest that has the snapshot before as many slots. */
static const hg_ring *ring_of(int64_t slots)
{
    return slots <= 360 ? HG_RING : slots <= 5 * 864 ? HG_RING + 1 : HG_RING + 2;
}

static void check_events(int64_t slots)
{
    const hg_ring *ring = ring_of(slots);
    hg_events found = hg_events_of(words, now, slots), all = hg_counted(words), before;
    int64_t from = now / ring->step - (slots + ring->step - 1) / ring->step - 1;
    CHECK(found.good <= all.good && found.bad <= all.bad);
    if (stepped && (damages > 0 || from * ring->step <= highest))
        return;
    before = events_before(end_of_snapshot(ring, from));
    CHECK(found.good == all.good - before.good && found.bad == all.bad - before.bad);
}

/* A time that is not later than the current slot by more than the window counts as that slot. */
static void move_to(int64_t slot)
{
    int64_t moved = hg_move(words, slot);
    if (now - slot > HG_SLOTS)
        stepped = 1;
    if (slot > now || now - slot > HG_SLOTS)
        now = slot;
    CHECK(moved == now && words[HG_CURRENT] == (uint64_t)now);
    highest = now > highest ? now : highest;
}

static void add_events(fuzz_input *input)
{
    record *added = records + count;
    uint64_t number = fuzz_take(input, 1) << fuzz_take(input, 1) % 25;
    added->slot = now;
    added->good = number % 3 == 0 ? 0 : number;
    added->bad = number % 3 == 0 ? number : 0;
    words[HG_GOOD] += added->good;
    words[HG_BAD] += added->bad;
    count++;
}

/* Flip a bit of a snapshot, or leave it as a process does that is killed before it makes the stamp valid. */
static void damage_snapshot(fuzz_input *input, const hg_ring *ring)
{
    int64_t back = 1 + (int64_t)(fuzz_take(input, 2) % (uint64_t)ring->count), slot = now / ring->step - back;
    unsigned word = (unsigned)fuzz_take(input, 1) % 4, bit = (unsigned)fuzz_take(input, 1) % 64;
    uint64_t *entry = words + ring->at + HG_ENTRY * (slot < 0 ? 0 : slot % ring->count), before[HG_ENTRY];
    hg_events events = {UINT64_MAX, UINT64_MAX};
    if (slot < first / ring->step || stepped || !hg_read(words, ring, slot, events, &events))
        return;
    memcpy(before, entry, sizeof before);
    if (word == HG_ENTRY)
        *entry = *entry >> 24 << 24;
    else
        entry[word] ^= UINT64_C(1) << bit;
    events.good = events.bad = UINT64_MAX;
    if (hg_read(words, ring, slot, events, &events)) /* the one of 8 million */
        memcpy(entry, before, sizeof before);
    else {
        damage(ring, slot);
        damage(ring, (int64_t)(*entry >> 24) - 1); /* it may pass for a later one, which is then not written */
    }
}

/* A process claims the next snapshot of a ring and is killed. */
static void claim_next(const hg_ring *ring)
{
    int64_t slot = now / ring->step;
    if (is_damaged(ring, slot) || stepped)
        return;
    words[ring->at + HG_ENTRY * (slot % ring->count)] = ((uint64_t)slot + 1) << 24;
    damage(ring, slot);
    damage(ring, slot - ring->count);
}

/* A process that claimed a snapshot a turn of the ring ago goes on and writes its counts into that of another. */
static void write_late(fuzz_input *input, const hg_ring *ring)
{
    int64_t slot = now / ring->step - 1 - (int64_t)fuzz_take(input, 1) % 8;
    uint64_t *entry = words + ring->at + HG_ENTRY * (slot < 0 ? 0 : slot % ring->count);
    hg_events events = {UINT64_MAX, UINT64_MAX}, late = {entry[1] / 2, entry[2] / 2};
    if (slot < first / ring->step || stepped || !hg_read(words, ring, slot, events, &events))
        return;
    if (hg_stamp(slot, late) == *entry)
        return;
    entry[1] = late.good;
    entry[2] = late.bad;
    damage(ring, slot);
}

/* A later or an earlier slot, one a window ago, or one in which an event leaves the durations of a ring. */
static int64_t some_slot(fuzz_input *input)
{
    unsigned kind = (unsigned)fuzz_take(input, 1);
    int64_t step = (int64_t)fuzz_take(input, 1), slot = now + (step << kind % 16);
    const hg_ring *ring = HG_RING + kind % HG_KINDS;
    if (kind >= 240)
        slot = now - HG_SLOTS + step % 3 - 1;
    else if (kind >= 224)
        slot = now - (step << kind % 16) % (HG_SLOTS + 1);
    else if (kind >= 192 && count > 0)
        slot = records[count - 1].slot + ring->step * (ring->count - 1 + step % 4);
    return slot < 0 ? 0 : slot;
}

/* One of a random scale, one at the bounds of a ring, or one that begins at a damaged snapshot. */
static int64_t some_duration(fuzz_input *input, unsigned kind)
{
    const hg_ring *ring = damages > 0 ? damaged[damages - 1].ring : HG_RING + kind / 2 % HG_KINDS;
    int64_t slots = 1 + (int64_t)(fuzz_take(input, 2) % HG_SLOTS >> kind / 2);
    if (kind % 4 == 0)
        slots = ring->step * (ring->count - 1) + slots % 3 - 1;
    else if (kind % 4 == 1 && damages > 0)
        slots = ring->step * (now / ring->step - 1 - damaged[slots % damages].slot);
    return slots < 1 ? 1 : slots > HG_SLOTS ? HG_SLOTS : slots;
}

static void do_one(fuzz_input *input)
{
    unsigned step = (unsigned)fuzz_take(input, 1);
    const hg_ring *ring = HG_RING + step / 8 % HG_KINDS;
    switch (step % 8) {
    case 0:
    case 1:
        move_to(some_slot(input));
        break;
    case 2:
        move_to(now + 1);
        break;
    case 3:
    case 4:
        if (count < MOST)
            add_events(input);
        break;
    case 5:
        check_events(some_duration(input, step / 8));
        break;
    case 6:
        if (damages + 2 > DAMAGES)
            break;
        if (step / 64 == 0)
            claim_next(ring);
        else if (step / 64 == 1)
            write_late(input, ring);
        else
            damage_snapshot(input, ring);
        break;
    default:
        if (step == 255) { /* a damaged file */
            uint64_t at = fuzz_take(input, 2) % HG_WORDS;
            words[at] = fuzz_take(input, 8);
            now = (int64_t)words[HG_CURRENT] < 0 ? 0 : now;
            damages = 1;
            stepped = 1;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input input = {data, size};
    memset(words, 0, sizeof words);
    count = damages = stepped = 0;
    first = (int64_t)(fuzz_take(&input, 4) >> fuzz_take(&input, 1) % 32);
    words[HG_CURRENT] = words[HG_FIRST] = (uint64_t)first;
    now = highest = first;
    while (input.size > 0)
        do_one(&input);
    check_events(1);
    for (const hg_ring *ring = HG_RING; ring < HG_RING + HG_KINDS; ring++)
        for (int64_t slots = ring->step * (ring->count - 1) - 1, more = 0; more < 3 && slots + more <= HG_SLOTS; more++)
            check_events(slots + more);
    return 0;
}
