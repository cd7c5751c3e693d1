/* wheel.h against a linear search for the earliest timer; of equal times, the one added first. */
#include "fuzz.h"
#include "wheel.h"

enum { SLOTS = 40 };

static hg_wheel wheel;
static hg_timer timers[SLOTS];
static int64_t dues[SLOTS];
static uint64_t turns[SLOTS], turn;

static uint32_t next_due(int64_t now)
{
    uint32_t best = 0;
    for (uint32_t slot = 1; slot < SLOTS; slot++)
        if (dues[slot] != HG_NEVER && dues[slot] <= now
            && (best == 0 || dues[slot] < dues[best] || (dues[slot] == dues[best] && turns[slot] < turns[best])))
            best = slot;
    return best;
}

/* A time at a random scale from `now`, or any time. */
static int64_t some_time(fuzz_input *input, int64_t now)
{
    unsigned scale = (unsigned)fuzz_take(input, 1);
    uint64_t step = fuzz_take(input, 1);
    int64_t time = (int64_t)((uint64_t)now + (step << scale % 64));
    if (scale >= 224)
        time = (int64_t)fuzz_take(input, 8);
    else if (scale >= 192)
        time = (int64_t)((uint64_t)now - (step << scale % 64));
    return time == HG_NEVER ? HG_NEVER - 1 : time;
}

static void removed(uint32_t slot)
{
    hg_wheel_remove(&wheel, timers, slot);
    dues[slot] = HG_NEVER;
    CHECK(timers[slot].due == HG_NEVER);
}

/* Every timer is in its bucket, and once; the bits mark the buckets that have timers. */
static void check(void)
{
    uint32_t seen = 0, live = 0;
    for (unsigned bucket = 0; bucket < HG_LEVELS * 64; bucket++) {
        uint32_t slot = wheel.first[bucket], last = slot == 0 ? 0 : timers[slot].prev;
        CHECK((slot != 0) == (int)(wheel.full[bucket / 64] >> bucket % 64 & 1));
        for (; slot != 0; slot = timers[slot].next) {
            CHECK(timers[slot].due == dues[slot] && hg_rank(dues[slot]) >= wheel.base);
            CHECK(hg_bucket(&wheel, hg_rank(dues[slot])) == bucket);
            CHECK(timers[slot].next == 0 ? last == slot : timers[timers[slot].next].prev == slot);
            CHECK(++seen < SLOTS);
        }
    }
    for (uint32_t slot = 1; slot < SLOTS; slot++)
        live += dues[slot] != HG_NEVER;
    CHECK(seen == live);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input input = {data, size};
    int64_t now = (int64_t)fuzz_take(&input, 8);
    hg_wheel_clear(&wheel);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        dues[slot] = timers[slot].due = HG_NEVER;
    while (input.size > 0) {
        unsigned step = (unsigned)fuzz_take(&input, 1);
        uint32_t slot = 1 + step / 4 % (SLOTS - 1), due;
        switch (step % 4) {
        case 0:
        case 1:
            if (dues[slot] != HG_NEVER)
                removed(slot);
            dues[slot] = some_time(&input, now);
            turns[slot] = ++turn;
            hg_wheel_add(&wheel, timers, slot, dues[slot]);
            break;
        case 2:
            if (dues[slot] != HG_NEVER)
                removed(slot);
            break;
        default:
            now = some_time(&input, now);
            for (unsigned left = step / 64 + 1; left > 0; left--) {
                due = hg_wheel_due(&wheel, timers, now);
                CHECK(due == next_due(now));
                if (due != 0)
                    removed(due);
            }
        }
        check();
    }
    return 0;
}
