/* sketch.h against counters of one byte each. */
#include "fuzz.h"
#include "sketch.h"

enum { ROWS = 4, COUNTERS = 32, WORDS = 512 };

static hg_sketch sketch;
static uint8_t counters[WORDS / 8][ROWS][COUNTERS];
static uint64_t words, additions;

static uint8_t *counter(int64_t hash, int row)
{
    uint64_t mixed = hg_splitmix64((uint64_t)hash);
    return &counters[(uint32_t)mixed % (words / 8)][row][(mixed >> (32 + 5 * row)) % COUNTERS];
}

static unsigned frequency(int64_t hash)
{
    unsigned least = 15;
    for (int row = 0; row < ROWS && words > 0; row++)
        least = *counter(hash, row) < least ? *counter(hash, row) : least;
    return words > 0 ? least : 0;
}

static void ensure(uint64_t entries)
{
    if (words == 0)
        words = 8;
    for (; words < entries; words *= 2)
        memcpy(counters[words / 8], counters, words / 8 * sizeof counters[0]);
}

static void add(int64_t hash)
{
    int added = 0;
    for (int row = 0; row < ROWS && words > 0; row++)
        if (*counter(hash, row) < 15) {
            ++*counter(hash, row);
            added = 1;
        }
    additions += (uint64_t)added;
    if (additions < 10 * words || words == 0)
        return;
    additions /= 2;
    for (size_t i = 0; i < sizeof counters; i++)
        ((uint8_t *)counters)[i] /= 2;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input input = {data, size};
    hg_sketch_clear(&sketch);
    memset(counters, 0, sizeof counters);
    words = additions = 0;
    while (input.size > 0) {
        unsigned step = (unsigned)fuzz_take(&input, 1);
        int64_t hash = (int64_t)fuzz_take(&input, 1);
        if (step < 8) {
            hg_sketch_ensure(&sketch, (uint64_t)hash * 2);
            ensure((uint64_t)hash * 2);
        } else if (step < 16) {
            hash = (int64_t)fuzz_take(&input, 8);
        }
        for (unsigned times = step % 32; times > 0; times--) {
            hg_sketch_add(&sketch, hash);
            add(hash);
            CHECK(hg_sketch_frequency(&sketch, hash) == frequency(hash));
        }
        for (int64_t other = 0; other < 16; other++)
            CHECK(hg_sketch_frequency(&sketch, other) == frequency(other));
        CHECK(sketch.size == words && sketch.additions == additions);
    }
    hg_sketch_clear(&sketch);
    return 0;
}
