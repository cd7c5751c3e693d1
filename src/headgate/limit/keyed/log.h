/* The logs of a strict limiter: for each cell of a table the times of the last requests of its key, one per token, as
 * many as the largest limit.
 *
 *   cell  | tag | time at which the newest entry leaves the longest window |    the head of a log, as in cells.h
 *   log   | time | time | ... |                                               in no order; 0 was never used
 *
 * A time, or stamp, is the nanoseconds since the epoch with the sign bit inverted, so that stamps compare as unsigned
 * words. A slot is free when its entry is as old as the longest window.
 *
 * A request that every window allows claims as many free slots as it costs, each by one compare-and-swap, and then
 * advances the head, which commits it. Every commit advances the head, so a request that counted the entries before
 * another commit fails at the head, releases its claims and counts again: each of those that commit has counted the
 * entries of all before it. Claims that are not committed count too, so at worst two requests deny each other, and a
 * process that is killed loses what it was about to take.
 */
#ifndef HEADGATE_LOG_H
#define HEADGATE_LOG_H

#include "cells.h"

#define HG_WINDOWS 8

typedef struct {
    int64_t limit;
    uint64_t period; /* ns */
} hg_window;

typedef struct {
    uint64_t *times;
    uint64_t length, longest;
    int count;
    hg_window windows[HG_WINDOWS];
} hg_log;

typedef struct {
    uint64_t *slot, old;
} hg_claim;

static inline uint64_t hg_stamp(int64_t elapsed) { return (uint64_t)elapsed ^ UINT64_C(1) << 63; }

static inline int64_t hg_elapsed(uint64_t stamp) { return (int64_t)(stamp ^ UINT64_C(1) << 63); }

static inline uint64_t *hg_times(const hg_tier *t, const hg_log *log, const uint64_t *cell)
{
    return log->times + (uint64_t)(cell - t->cells) * log->length;
}

static hg_span hg_span_of(const hg_log *log, uint64_t *times)
{
    hg_span span = {UINT64_MAX, 0};
    for (uint64_t i = 0; i < log->length; i++) {
        uint64_t time = hg_load(times + i);
        span.oldest = time < span.oldest ? time : span.oldest;
        span.newest = time > span.newest ? time : span.newest;
    }
    return span;
}

/* How many times are later than `bound`. */
static int64_t hg_count_after(const hg_log *log, uint64_t *times, uint64_t bound)
{
    int64_t count = 0;
    for (uint64_t i = 0; i < log->length; i++)
        count += hg_load(times + i) > bound;
    return count;
}

/* The time that `later` others are later than, at least `low`; none is later than `high`. */
static uint64_t hg_ranked(const hg_log *log, uint64_t *times, int64_t later, uint64_t low, uint64_t high)
{
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (hg_count_after(log, times, middle) <= later)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Replace at most `count` of the times in [low, end) by `value`; how many were replaced. */
static int64_t hg_replace(const hg_log *log, uint64_t *times, uint64_t low, uint64_t end, uint64_t value, int64_t count,
                          hg_claim *claims)
{
    int64_t done = 0;
    for (uint64_t i = 0; i < log->length && done < count; i++) {
        uint64_t old = hg_load(times + i);
        if (old < low || old >= end || !hg_cas(times + i, old, value))
            continue;
        if (claims)
            claims[done] = (hg_claim){times + i, old};
        done++;
    }
    return done;
}

/* Decide a request for one window. */
static void hg_measure(const hg_log *log, uint64_t *times, const hg_window *window, uint64_t newest, hg_charge *charge)
{
    uint64_t bound = charge->stamp - window->period, last = newest < charge->stamp ? newest : charge->stamp;
    uint64_t first = last;
    charge->debt = 0;
    for (uint64_t i = 0; i < log->length; i++) {
        uint64_t time = hg_load(times + i);
        charge->debt += time > bound;
        first = time > bound && time < first ? time : first;
    }
    int64_t excess = charge->cost ? charge->debt + charge->cost - window->limit : 0;
    charge->verdict = excess > 0 ? HG_DENIED : HG_ALLOWED;
    charge->rest = charge->debt ? (int64_t)(last - bound) : 0;
    charge->missing = excess > 0 ? (int64_t)window->period : 0;
    if (excess == 1 && charge->debt)
        charge->missing = (int64_t)(first - bound);
    else if (excess > 1 && excess <= charge->debt)
        charge->missing = (int64_t)(hg_ranked(log, times, charge->debt - excess, first, last) - bound);
}

/* Decide a request for all windows; HG_STALE if the rate must be loaded first, and with `take`, HG_AHEAD if the clock
 * seems to have stepped back. */
static hg_found hg_log_decide(hg_tier *t, const hg_log *log, const hg_hashed *key, int evict, int take,
                              hg_charge *charges)
{
    hg_found found = hg_look(t, key, charges->now);
    uint64_t *times = hg_times(t, log, found.cell);
    if (found.kind == HG_SWITCHED) {
        charges->verdict = HG_STALE;
        return found;
    }
    charges->span = hg_span_of(log, times);
    if (take && (hg_ahead(t, &found, charges->now) || charges->span.newest > charges->stamp)) {
        charges->verdict = HG_AHEAD;
        charges->seen = found.word;
        return found;
    }
    for (int i = 0; i < log->count; i++) {
        hg_charge *charge = charges + i;
        charge->scale = (hg_scale){1, log->windows[i].limit, 0, 0}; /* so many nanoseconds are as many units */
        charge->elapsed = 0;
        if (found.kind != HG_VICTIM) {
            hg_measure(log, times, &log->windows[i], charges->span.newest, charge);
        } else if (evict || charge->cost == 0) {
            charge->verdict = HG_ALLOWED;
            charge->debt = charge->rest = charge->missing = 0;
        } else {
            charge->verdict = HG_FULL;
            charge->scale = t->scale;
            charge->elapsed = hg_elapsed(charge->stamp);
            charge->debt = t->scale.burst;
            charge->rest = charge->missing = hg_least(found.gap, t->ceiling);
        }
    }
    return found;
}

/* Claim the slots of the oldest entries, as many as the request costs, if all of them are at most `latest`; how many
 * were claimed. */
static int64_t hg_claim_slots(const hg_log *log, uint64_t *times, uint64_t latest, const hg_charge *charge,
                              hg_claim *claims)
{
    uint64_t last = charge->span.oldest;
    int64_t count = 0;
    if (charge->cost > 1)
        last = hg_ranked(log, times, (int64_t)log->length - charge->cost, last, charge->stamp);
    if (last > latest)
        return 0;
    if (charge->cost > 1)
        count = hg_replace(log, times, 0, last, charge->stamp, charge->cost, claims);
    return count + hg_replace(log, times, last, last + 1, charge->stamp, charge->cost - count, claims + count);
}

static void hg_unclaim(const hg_claim *claims, int64_t count, uint64_t stamp)
{
    while (count-- > 0)
        hg_cas(claims[count].slot, stamp, claims[count].old);
}

/* The head of a log whose newest entry is from now: later than it was, and not before that entry stops counting. */
static uint64_t hg_head(const hg_tier *t, const hg_log *log, const hg_hashed *key, const hg_found *found,
                        const hg_charge *charge)
{
    int64_t last = hg_elapsed(charge->stamp) + (int64_t)log->longest - 1;
    int64_t owed = (int64_t)(hg_units_at(last, t->scale.multiplier, t->scale.shift) + 1 - charge->now);
    if (found->gap >= owed)
        owed = found->gap + 1;
    return hg_cell(hg_tag(t, key), charge->now + (uint64_t)owed);
}

static enum hg_verdict hg_log_verdict(const hg_log *log, const hg_charge *charges)
{
    for (int i = 0; i < log->count; i++) {
        if (charges[i].verdict != HG_ALLOWED)
            return charges[i].verdict;
    }
    return HG_ALLOWED;
}

/* Decide, and log an allowed request. A key that evicts another takes over its log, except for the oldest entries,
 * whose slots its own request takes. */
static enum hg_verdict hg_log_take(hg_tier *t, const hg_log *log, const hg_hashed *key, int evict, hg_charge *charges,
                                   hg_claim *claims)
{
    uint64_t stamp = charges->stamp;
    for (;;) {
        hg_found found = hg_log_decide(t, log, key, evict, 1, charges);
        enum hg_verdict verdict = hg_log_verdict(log, charges);
        if (verdict != HG_ALLOWED || charges->cost == 0)
            return verdict;
        uint64_t latest = found.kind == HG_VICTIM ? stamp : stamp - log->longest;
        int64_t claimed = hg_claim_slots(log, hg_times(t, log, found.cell), latest, charges, claims);
        uint64_t head = hg_head(t, log, key, &found, charges);
        if (claimed < charges->cost || !hg_write(t, key, &found, charges->now, head)) {
            hg_unclaim(claims, claimed, stamp);
            continue;
        }
        if (found.kind == HG_VICTIM)
            hg_add(&t->control[HG_EVICTIONS], 1);
        for (int i = 0; i < log->count; i++)
            charges[i].rest = (int64_t)log->windows[i].period;
        return HG_ALLOWED;
    }
}

/* Clamp what was `seen` in the log of a key, and is ahead of a clock that was read later. */
static void hg_log_clamp(hg_tier *t, const hg_log *log, const hg_hashed *key, const hg_charge *seen, uint64_t now,
                         int64_t elapsed)
{
    hg_clamp(t, key, seen->seen, now);
    hg_found found = hg_look(t, key, now);
    if (found.kind == HG_SWITCHED)
        return;
    uint64_t *times = hg_times(t, log, found.cell), stamp = hg_stamp(elapsed);
    for (uint64_t i = 0; i < log->length; i++) {
        uint64_t time = hg_load(times + i);
        if (time > stamp && time <= seen->span.newest)
            hg_cas(times + i, time, stamp);
    }
}

/* Drop the oldest entries of a key that still count, at most `back` of them, and all before them. False if the rate must
 * be loaded first. */
static int hg_log_refund(hg_tier *t, const hg_log *log, const hg_hashed *key, uint64_t now, int64_t elapsed,
                          int64_t back)
{
    hg_found found = hg_look(t, key, now);
    if (found.kind != HG_OWN)
        return found.kind != HG_SWITCHED;
    uint64_t *times = hg_times(t, log, found.cell), bound = hg_stamp(elapsed) - log->longest;
    int64_t owed = hg_count_after(log, times, bound);
    back = hg_least(back, owed);
    if (back <= 0)
        return 1;
    uint64_t last = hg_ranked(log, times, owed - back, bound, hg_span_of(log, times).newest);
    hg_replace(log, times, 1, bound + 1, 0, (int64_t)log->length, NULL);
    back -= hg_replace(log, times, bound + 1, last, 0, back, NULL);
    hg_replace(log, times, last, last + 1, 0, back, NULL);
    return 1;
}

/* Copy the newest entries of a log, as many as fit. */
static void hg_log_copy(const hg_log *from, uint64_t *old, const hg_log *to, uint64_t *times)
{
    uint64_t size = from->length < to->length ? from->length : to->length, kept = 0;
    uint64_t bound = hg_ranked(from, old, (int64_t)size, 0, hg_span_of(from, old).newest);
    for (uint64_t i = 0; i < from->length; i++) {
        if (old[i] > bound)
            times[kept++] = old[i];
    }
    while (kept < size)
        times[kept++] = bound;
}

/* The newest entry of all logs. */
static uint64_t hg_newest(const hg_tier *t, const hg_log *log)
{
    uint64_t newest = 0;
    for (uint64_t i = 0; i < t->lines * HG_CELLS; i++) {
        uint64_t time = hg_span_of(log, hg_times(t, log, t->cells + i)).newest;
        newest = time > newest ? time : newest;
    }
    return newest;
}

/* Clamp the entries of a log that were `seen` before the clock was read and are ahead of it: it has stepped back. */
static void hg_log_clamp_all(const hg_log *log, uint64_t *times, uint64_t stamp, uint64_t seen)
{
    for (uint64_t i = 0; i < log->length; i++)
        times[i] = times[i] > stamp && times[i] <= seen ? stamp : times[i];
}

/* Copy the logs of all keys to an empty table of as many lines and other windows. No entry that was written before the
 * clock was read is later than `seen`. */
static void hg_log_carry(const hg_tier *from, const hg_log *old, hg_tier *to, const hg_log *log, int64_t now_ns,
                         uint64_t seen)
{
    uint64_t stamp = hg_stamp(now_ns - from->epoch), bound = stamp - log->longest;
    hg_charge charge = {.now = hg_units_at(now_ns - from->epoch, to->scale.multiplier, to->scale.shift)};
    *to->mark = charge.now;
    to->control[HG_EVICTIONS] = from->control[HG_EVICTIONS];
    to->control[HG_REWINDS] = from->control[HG_REWINDS];
    for (uint64_t i = 0; i < from->lines * HG_CELLS; i++) {
        hg_hashed key = {.tag = from->cells[i] >> HG_TIME_BITS};
        hg_found found = {to->cells + i, 0, INT64_MIN, HG_FREE};
        hg_log_clamp_all(old, hg_times(from, old, from->cells + i), stamp, seen);
        uint64_t newest = hg_span_of(old, hg_times(from, old, from->cells + i)).newest;
        if (key.tag & 1 && newest > bound) {
            charge.stamp = newest > stamp ? newest : stamp;
            hg_log_copy(old, hg_times(from, old, from->cells + i), log, hg_times(to, log, found.cell));
            *found.cell = hg_head(to, log, &key, &found, &charge);
        }
    }
}

#endif
