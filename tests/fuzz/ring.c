/* ring.h against insertion sort and linear search. */
#include "fuzz.h"
#include "ring.h"

enum { MOST = 96, OWNERS = 8 };

/* Positions of which some are equal, some share a bucket, and some differ in a single byte. */
static uint64_t some_position(fuzz_input *input, unsigned kind)
{
    uint64_t at = fuzz_take(input, 1);
    switch (kind % 4) {
    case 0:
        return at << 56;
    case 1:
        return at << kind / 32 * 8;
    case 2:
        return at << 32 | UINT32_MAX;
    default:
        return at << 56 | fuzz_take(input, 7);
    }
}

static size_t read_points(fuzz_input *input, hg_point *points, size_t most)
{
    size_t count = fuzz_take(input, 1) % (most + 1);
    for (size_t i = 0; i < count; i++) {
        unsigned kind = (unsigned)fuzz_take(input, 1);
        points[i].at = some_position(input, kind);
        points[i].owner = kind / 4 % OWNERS;
    }
    return count;
}

/* Sorts by position, stably; with `owners`, equal positions are sorted by owner. */
static void sort(hg_point *points, size_t count, int owners)
{
    for (size_t i = 1; i < count; i++)
        for (size_t j = i; j > 0; j--) {
            hg_point one = points[j - 1], other = points[j];
            if (one.at < other.at || (one.at == other.at && (!owners || one.owner <= other.owner)))
                break;
            points[j - 1] = other;
            points[j] = one;
        }
}

static void check_equal(const hg_point *points, const hg_point *wanted, size_t count)
{
    for (size_t i = 0; i < count; i++)
        CHECK(points[i].at == wanted[i].at && points[i].owner == wanted[i].owner);
}

static size_t find(const hg_point *points, size_t count, uint64_t hash)
{
    size_t i = 0;
    while (i < count && points[i].at < hash)
        i++;
    return i;
}

/* `points` have space for the sentinel. */
static void check_searches(hg_point *points, size_t count)
{
    int bits = hg_bits(count);
    uint32_t *buckets = fuzz_allocate(((size_t)1 << bits) + 1, sizeof *buckets);
    points[count].at = UINT64_MAX;
    points[count].owner = count > 0 ? points[0].owner : 0;
    hg_index(points, count, buckets, bits);
    for (size_t i = 0; i <= count; i++)
        for (int step = -1; step <= 1; step++) {
            uint64_t hash = points[i].at + (uint64_t)(int64_t)step;
            size_t found = (size_t)(hg_find(points, buckets, 64 - bits, hash) - points);
            CHECK(found == find(points, count, hash));
        }
    free(buckets);
}

/* The first midpoint at or after a hash belongs to the nearest point; of two equally near, to the one before. */
static void check_nearest(const hg_point *points, const hg_point *middles, size_t count, uint64_t hash)
{
    size_t after = find(points, count, hash);
    hg_point next = points[after % count], before = points[(after + count - 1) % count];
    int is_before = hash - before.at <= next.at - hash;
    CHECK(hg_before_is_nearer(&before, &next, hash) == is_before);
    CHECK(middles[find(middles, count, hash) % count].owner == (is_before ? before.owner : next.owner));
}

/* Positions of 32 bits, of which two differ. */
static void check_midpoints(hg_point *points, size_t count)
{
    hg_point middles[MOST];
    for (size_t i = 0; i < count; i++)
        points[i].at |= UINT32_MAX;
    sort(points, count, 1);
    if (count == 0 || points[0].at == points[count - 1].at)
        return;
    hg_midpoints(points, count, middles);
    for (size_t i = 1; i < count; i++)
        CHECK(middles[i - 1].at <= middles[i].at);
    for (size_t i = 0; i < count; i++)
        for (int step = -1; step <= 1; step++) {
            check_nearest(points, middles, count, points[i].at + ((uint64_t)(int64_t)step << 32));
            check_nearest(points, middles, count, middles[i].at + ((uint64_t)(int64_t)step << 32));
        }
}

/* Removes some owners and renumbers the others in their order. */
static void read_ranks(fuzz_input *input, uint32_t *ranks)
{
    uint64_t kept = fuzz_take(input, 1);
    uint32_t rank = 0;
    for (uint32_t owner = 0; owner < OWNERS; owner++) {
        rank += (uint32_t)fuzz_take(input, 1) % 2;
        ranks[owner] = kept >> owner & 1 ? rank++ : HG_REMOVED;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input input = {data, size};
    hg_point old[MOST], fresh[MOST], spare[MOST], wanted[2 * MOST + 1], merged[2 * MOST + 1];
    uint32_t ranks[OWNERS];
    size_t old_count = read_points(&input, old, MOST), fresh_count = read_points(&input, fresh, MOST), count = 0;
    read_ranks(&input, ranks);

    memcpy(wanted, fresh, sizeof fresh);
    memcpy(merged, fresh, sizeof fresh);
    sort(wanted, fresh_count, 0);
    check_equal(hg_sort_points(merged, spare, fresh_count), wanted, fresh_count);

    sort(old, old_count, 1);
    sort(fresh, fresh_count, 1);
    for (size_t i = 0; i < old_count; i++)
        if (ranks[old[i].owner] != HG_REMOVED) {
            wanted[count] = old[i];
            wanted[count++].owner = ranks[old[i].owner];
        }
    memcpy(wanted + count, fresh, fresh_count * sizeof *fresh);
    count += fresh_count;
    sort(wanted, count, 1);
    CHECK(hg_merge_points(old, old_count, ranks, fresh, fresh_count, merged) == count);
    check_equal(merged, wanted, count);

    check_searches(merged, count);
    check_midpoints(old, old_count);
    return 0;
}
