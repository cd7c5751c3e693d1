/* rejections.h against the log of all rejections with linear search. */
#include "fuzz.h"
#include "rejections.h"

enum { MOST = 1024 };

typedef struct {
    int64_t hash;
    uint64_t cell, sum;
} record;

static hg_rejections rejections;
static record records[MOST];
static uint32_t count;

/* The last rejection of a cell replaces those before. */
static int has(int64_t hash, uint64_t span)
{
    uint64_t cell = hg_splitmix64((uint64_t)hash) % (rejections.size + (rejections.size == 0));
    for (uint32_t i = count; i > 0; i--)
        if (records[i - 1].cell == cell)
            return records[i - 1].hash == hash && rejections.sum - records[i - 1].sum < span;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input input = {data, size};
    uint64_t sum = 0;
    hg_rejections_clear(&rejections);
    count = 0;
    while (input.size > 0 && count < MOST) {
        int64_t hash = (int64_t)fuzz_take(&input, 1), weight = 1 + (int64_t)fuzz_take(&input, 1) % 16;
        uint64_t entries = fuzz_take(&input, 1) * 4, before = rejections.size;
        hg_rejections_add(&rejections, hash, weight, entries);
        sum += (uint64_t)weight;
        CHECK(rejections.size >= 8 && rejections.size >= entries / 8 && (rejections.size & (rejections.size - 1)) == 0);
        CHECK(rejections.size >= before && rejections.sum == sum);
        if (rejections.size != before)
            count = 0;
        records[count].hash = hash;
        records[count].cell = hg_splitmix64((uint64_t)hash) % rejections.size;
        records[count++].sum = sum;
        for (int64_t other = 0; other < 32; other++)
            for (uint64_t span = 0; span < 64; span += 1 + span)
                CHECK(hg_rejections_has(&rejections, hash + other - 16, span) == has(hash + other - 16, span));
    }
    hg_rejections_clear(&rejections);
    return 0;
}
