/* The arrays of a ring: sorted points with the owner of each, and an index by their top bits.
 *
 *   buckets   [0 | 2 | 3 | 6 | ...]          buckets[q] = first i with points[i].at >> shift >= q
 *              |   |   \____\___
 *   points    [p0  p1  p2  p3  p4  p5 ... | sentinel]    at 2^64-1, with the owner of the first
 *              o0  o1  o2  o3  o4  o5 ... | o0            point: a scan needs no bound
 */
#ifndef HEADGATE_RING_H
#define HEADGATE_RING_H

#include <stdint.h>
#include <string.h>

#define HG_SCAN 16
#define HG_REMOVED UINT32_MAX

typedef struct {
    uint64_t at;
    uint32_t owner;
} hg_point;

/* Stable radix sort by position, in eight passes of a byte each; a pass over equal bytes is skipped.
 * Returns the one of the two arrays that has the result. */
static hg_point *hg_sort_points(hg_point *from, hg_point *to, size_t count)
{
    for (int bits = 0; bits < 64 && count > 1; bits += 8) {
        size_t start[256] = {0}, sum = 0;
        for (size_t i = 0; i < count; i++)
            start[from[i].at >> bits & 255]++;
        if (start[from[0].at >> bits & 255] == count)
            continue;
        for (int byte = 0; byte < 256; byte++) {
            size_t size = start[byte];
            start[byte] = sum;
            sum += size;
        }
        for (size_t i = 0; i < count; i++)
            to[start[from[i].at >> bits & 255]++] = from[i];
        hg_point *swap = from;
        from = to;
        to = swap;
    }
    return from;
}

static inline int hg_before(hg_point a, hg_point b)
{
    return a.at < b.at || (a.at == b.at && a.owner < b.owner);
}

/* Merges `old`, with its owners mapped by `ranks` (HG_REMOVED drops a point), and the sorted `added`
 * into `out`. Equal points are sorted by owner. Returns the number of points. */
static size_t hg_merge_points(const hg_point *old, size_t old_count, const uint32_t *ranks,
                              const hg_point *added, size_t added_count, hg_point *out)
{
    const hg_point *end = added + added_count;
    hg_point *start = out;
    for (size_t i = 0; i < old_count; i++) {
        hg_point point = {old[i].at, ranks[old[i].owner]};
        if (point.owner == HG_REMOVED)
            continue;
        while (added < end && hg_before(*added, point))
            *out++ = *added++;
        *out++ = point;
    }
    while (added < end)
        *out++ = *added++;
    return (size_t)(out - start);
}

/* The number of bits of the index for `count` points: about one point per bucket. */
static int hg_bits(size_t count)
{
    int bits = 1;
    while (bits < 30 && (size_t)1 << bits < count)
        bits++;
    return bits;
}

/* Two passes without a branch that could be mispredicted: the first point of each bucket that has one,
 * then the gaps, filled from the next bucket. */
static void hg_index(const hg_point *points, size_t count, uint32_t *buckets, int bits)
{
    size_t last = (size_t)1 << bits;
    uint32_t next = (uint32_t)count;
    memset(buckets, 0xFF, last * sizeof(uint32_t));
    for (size_t i = count; i-- > 0;)
        buckets[points[i].at >> (64 - bits)] = (uint32_t)i;
    buckets[last] = next;
    for (size_t bucket = last; bucket-- > 0;) {
        next = buckets[bucket] < next ? buckets[bucket] : next;
        buckets[bucket] = next;
    }
}

static const hg_point *hg_bisect(const hg_point *low, const hg_point *high, uint64_t hash)
{
    while (low < high) {
        const hg_point *middle = low + (high - low) / 2;
        if (middle->at < hash)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The first point at or after `hash`, which may be the sentinel. A bucket with many points, as skewed
 * hashes cause, is searched by bisection. */
static inline const hg_point *hg_find(const hg_point *points, const uint32_t *buckets, int shift, uint64_t hash)
{
    const uint32_t *bucket = buckets + (hash >> shift);
    const hg_point *point = points + bucket[0], *stop = point + HG_SCAN;
    while (point->at < hash)
        if (++point == stop)
            return hg_bisect(point, points + bucket[1], hash);
    return point;
}

/* Whether `before` is no farther from `hash` than `after`, for hashes of 32 bits in the upper half;
 * the lower half of a point is all ones. */
static inline int hg_before_is_nearer(const hg_point *before, const hg_point *after, uint64_t hash)
{
    hash |= UINT32_MAX;
    return hash - before->at <= after->at - hash;
}

/* For each point the last hash for which it is the nearest, as a sorted array of points; that of the last
 * point may wrap around and is then the first. */
static void hg_midpoints(const hg_point *points, size_t count, hg_point *out)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t gap = points[i + 1 < count ? i + 1 : 0].at - points[i].at;
        out[i].at = points[i].at + (gap >> 33 << 32);
        out[i].owner = points[i].owner;
    }
    if (count && out[count - 1].at < points[count - 1].at) {
        hg_point last = out[count - 1];
        memmove(out + 1, out, (count - 1) * sizeof(hg_point));
        out[0] = last;
    }
}

#endif
