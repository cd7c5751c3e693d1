/* smooth.h against nginx's loop over all servers, with weights whose sums are exact in doubles. */
#include "fuzz.h"
#include "smooth.h"

enum { MOST = 24 };

static int64_t weights[MOST], currents[MOST], total, count;

static int64_t next(void)
{
    int64_t best = 0;
    for (int64_t i = 0; i < count; i++) {
        currents[i] += weights[i];
        if (currents[i] > currents[best])
            best = i;
    }
    currents[best] -= total;
    return best;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input input = {data, size};
    hg_smooth smooth;
    memset(&smooth, 0, sizeof smooth);
    while (input.size > 0) {
        unsigned scale = (unsigned)fuzz_take(&input, 1) % 20;
        count = 1 + (int64_t)fuzz_take(&input, 1) % MOST;
        CHECK(hg_smooth_init(&smooth, count) == 0);
        total = 0;
        for (int64_t i = 0; i < count; i++) {
            weights[i] = 1 + (int64_t)(fuzz_take(&input, 1) << (i % 3 == 0 ? scale : 0));
            currents[i] = 0;
            total += weights[i];
            smooth.servers[i].weight = (double)weights[i];
        }
        smooth.total = (double)total;
        hg_smooth_build(&smooth);
        for (uint64_t steps = fuzz_take(&input, 2) % 600; steps > 0; steps--)
            CHECK(hg_smooth_next(&smooth) == next());
        for (int64_t i = 0; i < count; i++)
            CHECK(hg_smooth_current(&smooth, i) == (double)currents[i]);
    }
    hg_smooth_free(&smooth);
    return 0;
}
