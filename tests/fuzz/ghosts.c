/* ghosts.h against an array with linear search. */
#include "fuzz.h"
#include "ghosts.h"

enum { MOST = 64 };

typedef struct {
    int64_t hash, weight;
} ghost;

static hg_ghosts ghosts;
static ghost queue[MOST + 1];
static uint32_t count;

static uint64_t weight_of_all(void)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += (uint64_t)queue[i].weight;
    return sum;
}

static uint32_t place_of(int64_t hash)
{
    uint32_t i = 0;
    while (i < count && queue[i].hash != hash)
        i++;
    return i;
}

static void removed(uint32_t i)
{
    count--;
    memmove(queue + i, queue + i + 1, (count - i) * sizeof *queue);
}

static void trim(uint64_t most)
{
    while (weight_of_all() > most)
        removed(0);
}

static void add(ghost one, uint64_t most)
{
    uint32_t i = place_of(one.hash);
    if (i < count)
        removed(i);
    if ((uint64_t)one.weight > most) {
        trim(0);
        return;
    }
    trim(most - (uint64_t)one.weight);
    queue[count++] = one;
}

static void check(int weighted)
{
    uint64_t probes = 0;
    uint32_t slot = 0, prev = 0;
    CHECK(ghosts.count == count && ghosts.weight == weight_of_all() && count <= ghosts.capacity);
    if (ghosts.slab == NULL)
        return;
    for (uint32_t i = 0; i < count; i++, prev = slot) {
        uint32_t at = hg_ghost_home(&ghosts, queue[i].hash);
        slot = ghosts.slab[prev].next;
        CHECK(slot != 0 && ghosts.slab[slot].prev == prev && ghosts.slab[slot].hash == queue[i].hash);
        CHECK(hg_ghost_find(&ghosts, queue[i].hash) == slot);
        CHECK(!weighted || ghosts.weights[slot] == queue[i].weight);
        for (probes++; ghosts.table[at] != slot; probes++)
            at = (at + 1) % ghosts.cells;
    }
    CHECK(ghosts.slab[prev].next == 0 && ghosts.slab[0].prev == prev);
    CHECK(hg_ghosts_probes(&ghosts) == probes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char seed[16] = "headgate's fuzz";
    fuzz_input input = {data, size};
    int weighted = (int)fuzz_take(&input, 1) % 2;
    hg_seed_secrets(seed);
    hg_secrets.drawn = 0;
    hg_ghosts_clear(&ghosts);
    count = 0;
    while (input.size > 0) {
        unsigned step = (unsigned)fuzz_take(&input, 1);
        ghost one = {(int64_t)fuzz_take(&input, 1), 1};
        uint64_t most = fuzz_take(&input, 1) % (MOST + 1);
        if (step >= 128)
            one.hash = (int64_t)fuzz_take(&input, 8);
        switch (step % 8) {
        case 0:
            CHECK((hg_ghost_find(&ghosts, one.hash) != 0) == (place_of(one.hash) < count));
            break;
        case 1:
            if (count > 0) {
                uint32_t i = (uint32_t)one.hash % count;
                hg_ghost_remove(&ghosts, hg_ghost_find(&ghosts, queue[i].hash));
                removed(i);
            }
            break;
        case 2:
            hg_ghosts_trim(&ghosts, most);
            trim(most);
            break;
        default:
            if (weighted)
                one.weight = 1 + (int64_t)fuzz_take(&input, 1) % 16;
            hg_ghosts_add(&ghosts, one.hash, one.weight, most, weighted);
            add(one, most);
        }
        check(weighted);
    }
    hg_ghosts_clear(&ghosts);
    return 0;
}
