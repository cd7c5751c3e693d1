/* The table of a rate limiter: fixed size, one word per key, changed by compare-and-swap alone.
 *
 * A key may be in any of sixteen cells, in two lines of eight. A cell is a tag of 24 bits beside the time (40 bits, in
 * units, modulo 2**40) at which its key owes nothing any more, the theoretical arrival time of GCRA; from then on the
 * cell is free. `gap` is that time minus now. 0 is a cell that was never used, and no key has the tag 0. The two lowest
 * bits of a tag say whether it is committed, and of which generation; 22 are those of a hash.
 *
 * A new key takes the cell with the earliest time, whether that is past or not, in two steps. First it is pending: the
 * tag without its lowest bit, which no key has, is written beside the time found there. Then, if the key is in no other
 * cell, the whole word is committed. Two processes that insert one key at once may have two pending cells; but
 * the later one sees the other's, keeps the first of the two cells and withdraws the second. A cell left pending by a
 * process that was killed is as free as before.
 *
 * Times must not wrap. `control[HG_SWEPT]` is the mark, the time up to which lines have been swept: a line is swept
 * once per cycle of 2**36 units (`headgate.limit._tables.stride_of`): times more than HG_LONG_PAST in the past are set
 * to that. The clock may be HG_BACK behind the mark before all lines are reset, and HG_IDLE ahead of it. So a time
 * written HG_LONG_PAST before a clock HG_BACK behind the mark is read again, at the latest, when the line is due a
 * cycle later and no request has come for HG_IDLE:
 *
 *     past   HG_BACK + HG_LONG_PAST + cycle + HG_IDLE = 2**37 + 2**37 + 2**36 + 5 * 2**35 < 2**39
 *     ahead  the largest ceiling + HG_BACK + a stride = 2**37 + 2**37 + 2**32             < 2**39
 *
 * HG_IDLE is longer than the largest ceiling (HG_MOST_DEBT), so nothing is owed any more after it.
 *
 * Where processes share the table, one of them may switch the rate, and with it the units of all times. A rate is a
 * generation, counted by a word; what belongs to it is in the half of the control words, and of the header, that has
 * the parity of that count, as has a bit of each cell. A process that has loaded another generation converts the cells
 * of both lines of a key before it decides (`hg_settle_line`); the process that switched converts all cells then
 * (`hg_settle_lines`), dead, pending and unused ones too. All conversions are as of one time, so it does not matter
 * which process makes one: a reading of the clock by whichever process first loads the new rate, and so by none that
 * decides at the old one (`hg_since`). From then on no swap succeeds that expects a word of the generation before. Only
 * when all cells are converted, as the word behind the count says, may the next switch reuse the other half.
 *
 * A process looks at the count after it has read the cells, so it knows whose words they are, whatever has happened
 * since it loaded the rate. If the rate is switched once more before its own swap, that fails or still counts under the
 * old rate. If it is switched twice, a word has the same bit again but not the same value: the times of each generation
 * are counted from another epoch (`headgate.limit._switching.epoch_of`), and in a strict table, which keeps its epoch,
 * heads and dead cells differ by the generation.
 */
#ifndef HEADGATE_CELLS_H
#define HEADGATE_CELLS_H

#include <stddef.h>
#include <stdint.h>
#include "atomics.h"
#include "mulshift.h"

#define HG_CELLS 8
#define HG_TIME_BITS 40
#define HG_TIME_MASK ((UINT64_C(1) << HG_TIME_BITS) - 1)
#define HG_COMMITTED (UINT64_C(1) << HG_TIME_BITS)
#define HG_NEVER_TWICE 0xffff
#define HG_UNSET (UINT64_C(1) << 63)
#define HG_MOST_DEBT (INT64_C(1) << 37)
#define HG_PAST (UINT64_C(1) << 36)
#define HG_LONG_PAST (INT64_C(1) << 37)
#define HG_BACK (INT64_C(1) << 37)
#define HG_IDLE (INT64_C(5) << 35)

enum { HG_SWEPT, HG_EVICTIONS, HG_REWINDS, HG_OTHER_SWEPT, HG_SINCE, HG_CEILING = 6, HG_CONTROL = 8 };
enum { HG_GENERATION, HG_SETTLED };

typedef struct {
    uint64_t multiplier;
    int64_t burst;
    unsigned bits, shift;
} hg_scale;

/* The units of the generation before, while cells may still have them, and the switch in both. */
typedef struct {
    unsigned bits;
    uint64_t since_before, since;
} hg_before;

/* A log of times for each cell of a strict limiter. */
typedef struct {
    uint64_t *times;
    uint64_t length, longest; /* ns */
} hg_entries;

typedef struct {
    uint64_t *control, *cells, *mark;
    uint64_t lines;
    unsigned stride; /* a line is swept every 2**stride units */
    hg_scale scale;
    int64_t epoch, ceiling;
    uint64_t *switches; /* NULL unless processes share the table */
    uint64_t generation, parity;
    int unsettled;
    hg_before before;
    hg_entries entries;
} hg_tier;

typedef struct {
    uint64_t tag;
    uint32_t first, second;
} hg_hashed;

enum hg_kind { HG_OWN, HG_FREE, HG_VICTIM, HG_SWITCHED };

typedef struct {
    uint64_t *cell, word;
    int64_t gap;
    enum hg_kind kind;
} hg_found;

enum hg_verdict { HG_DENIED, HG_ALLOWED, HG_FULL, HG_AHEAD, HG_STALE };

typedef struct {
    uint64_t oldest, newest;
} hg_span;

typedef struct {
    enum hg_verdict verdict;
    hg_scale scale;
    uint64_t now, seen;
    int64_t elapsed, cost, debt, missing;
    int taken;
    uint64_t stamp; /* of logs only: now, the entries that were read, and for how long any of them counts */
    hg_span span;
    int64_t rest;
} hg_charge;

static inline int64_t hg_gap(uint64_t word, uint64_t now)
{
    return (int64_t)((word - now) << (64 - HG_TIME_BITS)) >> (64 - HG_TIME_BITS);
}

static inline uint64_t hg_cell(uint64_t tag, uint64_t time) { return tag << HG_TIME_BITS | (time & HG_TIME_MASK); }

static inline int64_t hg_least(int64_t a, int64_t b) { return a < b ? a : b; }

static inline uint64_t *hg_line(const hg_tier *t, uint32_t hash)
{
    return t->cells + ((uint64_t)hash * t->lines >> 32) * HG_CELLS;
}

/* The tag of a key in the generation that is loaded. */
static inline uint64_t hg_tag(const hg_tier *t, const hg_hashed *key) { return key->tag | t->parity; }

/* Whether a word is that of a key, committed or pending. */
static inline int hg_is_of(uint64_t tag, uint64_t word) { return (word | HG_COMMITTED) >> HG_TIME_BITS == tag; }

/* The cell of a key, or else the one that a new key takes: the first one pending for it, or the earliest. */
static hg_found hg_search(const hg_tier *t, const hg_hashed *key, uint64_t now)
{
    hg_found found = {0, 0, INT64_MAX, HG_VICTIM};
    uint32_t lines[2] = {key->first, key->second};
    uint64_t tag = hg_tag(t, key);
    int pending = 0;
    for (int i = 0; i < 2 * HG_CELLS; i++) {
        uint64_t *cell = hg_line(t, lines[i / HG_CELLS]) + i % HG_CELLS, word = hg_load(cell);
        int64_t gap = word == 0 ? INT64_MIN : hg_gap(word, now);
        int own = hg_is_of(tag, word);
        if (own && word & HG_COMMITTED)
            return (hg_found){cell, word, gap, HG_OWN};
        if (!pending && (own || gap < found.gap))
            found = (hg_found){cell, word, gap, gap > 0 ? HG_VICTIM : HG_FREE};
        pending |= own;
    }
    return found;
}

static inline hg_found hg_find(const hg_tier *t, const hg_hashed *key, uint64_t now)
{
    uint64_t *line = hg_line(t, key->first), tag = hg_tag(t, key);
    for (int i = 0; i < HG_CELLS; i++) {
        uint64_t word = hg_load(line + i);
        if (word >> HG_TIME_BITS == tag)
            return (hg_found){line + i, word, hg_gap(word, now), HG_OWN};
    }
    return hg_search(t, key, now);
}

/* Whether the rate has been switched since it was loaded. */
static inline int hg_is_stale(const hg_tier *t)
{
    return t->switches != NULL && hg_load(t->switches + HG_GENERATION) != t->generation;
}

static inline int hg_is_current(const hg_tier *t, uint64_t word) { return (word >> HG_TIME_BITS & 2) == t->parity; }

/* The latest entry of a log. */
static uint64_t hg_newest_of(const hg_entries *log, const uint64_t *cell, const uint64_t *cells)
{
    uint64_t *times = log->times + (uint64_t)(cell - cells) * log->length, newest = 0;
    for (uint64_t i = 0; i < log->length; i++) {
        uint64_t time = hg_load(times + i);
        newest = time > newest ? time : newest;
    }
    return newest;
}

/* What a key owed when the rate was switched, in the units of this one; in a strict table, the time until its newest
 * entry leaves the longest window. */
static int64_t hg_kept(const hg_tier *t, const uint64_t *cell, uint64_t word)
{
    int64_t owed = word == 0 ? 0 : hg_gap(word, t->before.since_before);
    if (t->entries.times == NULL)
        return owed <= 0 ? 0 : hg_rescaled(owed, t->before.bits, t->scale.bits, HG_MOST_DEBT);
    uint64_t newest = hg_newest_of(&t->entries, cell, t->cells);
    if (newest == 0)
        return 0;
    int64_t last = (int64_t)(newest ^ UINT64_C(1) << 63) + (int64_t)t->entries.longest - 1;
    owed = (int64_t)(hg_units_at(last, t->scale.multiplier, t->scale.shift) + 1 - t->before.since);
    return owed <= 0 ? 0 : hg_least(owed, HG_MOST_DEBT) + (int64_t)(t->generation & HG_NEVER_TWICE);
}

/* A word of the generation before in this one. What is owed no more, or never was, ends long before the switch, so that
 * a clock that steps back finds no debt there; a log decides by its entries, which that may bring back. */
static uint64_t hg_converted(const hg_tier *t, const uint64_t *cell, uint64_t word, uint64_t now)
{
    int64_t owed = hg_kept(t, cell, word);
    uint64_t time = t->before.since + (uint64_t)owed;
    if (owed == 0)
        time -= t->entries.times == NULL ? HG_PAST : t->generation & HG_NEVER_TWICE;
    if ((int64_t)(now - time) > HG_LONG_PAST)
        time = now - HG_LONG_PAST;
    return hg_cell(word >> HG_TIME_BITS ^ 2, time);
}

/* Convert the cells of a line; false if the rate has been switched again. */
static int hg_settle_line(const hg_tier *t, uint64_t *line, uint64_t now)
{
    for (int i = 0; i < HG_CELLS; i++) {
        for (;;) {
            uint64_t word = hg_load(line + i);
            if (hg_is_current(t, word))
                break;
            if (hg_is_stale(t))
                return 0;
            if (hg_cas(line + i, word, hg_converted(t, line + i, word, now)))
                break;
        }
    }
    return 1;
}

/* Convert the cells of some lines; false if the rate has been switched again. */
static int hg_settle_lines(const hg_tier *t, uint64_t first, uint64_t end, uint64_t now)
{
    for (uint64_t line = first; line < end; line++) {
        if (!hg_settle_line(t, t->cells + line * HG_CELLS, now))
            return 0;
    }
    return 1;
}

/* Whether the cells of a key that were read are of the rate that is loaded, and that is in force; they are read again
 * if they had to be converted. */
static int hg_is_in_force(hg_tier *t, const hg_hashed *key, uint64_t now, hg_found *found)
{
    if (t->unsettled) {
        t->unsettled = hg_load(t->switches + HG_SETTLED) != t->generation;
        if (t->unsettled && !hg_settle_line(t, hg_line(t, key->first), now))
            return 0;
        if (t->unsettled && !hg_settle_line(t, hg_line(t, key->second), now))
            return 0;
        *found = hg_find(t, key, now);
    }
    return hg_load(t->switches + HG_GENERATION) == t->generation;
}

/* The cell of a key, or the one that it takes; HG_SWITCHED if the rate must be loaded first. */
static inline hg_found hg_look(hg_tier *t, const hg_hashed *key, uint64_t now)
{
    hg_found found = hg_find(t, key, now);
    if (t->switches != NULL && !hg_is_in_force(t, key, now, &found))
        found.kind = HG_SWITCHED;
    return found;
}

/* Free a pending cell. Its time changes, so that the word of a later insertion differs. */
static inline int hg_withdraw(const hg_tier *t, uint64_t *cell, uint64_t pending)
{
    return hg_cas(cell, pending, hg_cell(t->parity, pending + 1));
}

/* Whether a key is in no cell but `own`, nor pending in an earlier one; later ones are withdrawn. Others may have
 * inserted the key in a cell that was then converted, so nothing is known if the rate has been switched. */
static int hg_is_unique(const hg_tier *t, const hg_hashed *key, const uint64_t *own)
{
    uint32_t lines[2] = {key->first, key->second};
    uint64_t tag = hg_tag(t, key);
    int later = 0;
    for (int i = 0; i < 2 * HG_CELLS; i++) {
        uint64_t *cell = hg_line(t, lines[i / HG_CELLS]) + i % HG_CELLS, word = hg_load(cell);
        later |= cell == own;
        if (cell != own && hg_is_of(tag, word) && (word & HG_COMMITTED || !later || !hg_withdraw(t, cell, word)))
            return 0;
    }
    return !hg_is_stale(t);
}

/* Write the first word of a new key into the cell that was found for it. */
static int hg_insert(const hg_tier *t, const hg_hashed *key, const hg_found *found, uint64_t now, uint64_t word)
{
    int64_t gap = found->gap < -HG_LONG_PAST ? -HG_LONG_PAST : found->gap;
    uint64_t pending = hg_cell(hg_tag(t, key), now + (uint64_t)gap) & ~HG_COMMITTED;
    if (!hg_cas(found->cell, found->word, pending))
        return 0;
    if (hg_is_unique(t, key, found->cell))
        return hg_cas(found->cell, pending, word);
    hg_withdraw(t, found->cell, pending);
    return 0;
}

/* Write the next word of a key; false if the cell has changed meanwhile. */
static inline int hg_write(const hg_tier *t, const hg_hashed *key, const hg_found *found, uint64_t now, uint64_t word)
{
    return found->kind == HG_OWN ? hg_cas(found->cell, found->word, word) : hg_insert(t, key, found, now, word);
}

/* Whether the mark is so far ahead that the clock has stepped back, or was read long ago. */
static inline int hg_behind(hg_tier *t, uint64_t now)
{
    return (int64_t)(hg_load(t->mark) - now) >= HG_BACK;
}

/* Whether the clock seems to have stepped back: the time of the cell is too far ahead, or the mark is. */
static inline int hg_ahead(hg_tier *t, const hg_found *found, uint64_t now)
{
    return found->gap > t->ceiling || hg_behind(t, now);
}

/* Decide a request of charge->cost without taking it. HG_STALE if the rate must be loaded first. With `take`, HG_AHEAD if
 * the clock seems to have stepped back: as others may have written since the clock was read, the caller reads it once
 * more, after the word that was `seen`. */
static inline hg_found hg_decide(hg_tier *t, const hg_hashed *key, int evict, int take, hg_charge *charge)
{
    hg_found found = hg_look(t, key, charge->now);
    if (found.kind == HG_SWITCHED) {
        charge->verdict = HG_STALE;
        return found;
    }
    if (take && hg_ahead(t, &found, charge->now)) {
        charge->verdict = HG_AHEAD;
        charge->seen = found.word;
        return found;
    }
    charge->debt = found.kind == HG_OWN && found.gap > 0 ? hg_least(found.gap, t->ceiling) : 0;
    charge->missing = charge->debt + charge->cost - t->scale.burst;
    charge->verdict = charge->missing > 0 && charge->cost > 0 ? HG_DENIED : HG_ALLOWED;
    if (found.kind == HG_VICTIM && !evict && charge->cost > 0) {
        charge->verdict = HG_FULL;
        charge->debt = t->scale.burst;
        charge->missing = hg_least(found.gap, t->ceiling);
    }
    return found;
}

/* Decide, and write what an allowed request owes. A key that evicts another takes over its debt as well. */
static void hg_take(hg_tier *t, const hg_hashed *key, int evict, hg_charge *charge)
{
    for (;;) {
        hg_found found = hg_decide(t, key, evict, 1, charge);
        if (charge->verdict != HG_ALLOWED || charge->cost == 0)
            return;
        int64_t owed = charge->debt + charge->cost;
        if (found.kind == HG_VICTIM && found.gap > owed)
            owed = found.gap;
        uint64_t word = hg_cell(hg_tag(t, key), charge->now + (uint64_t)owed);
        if (hg_write(t, key, &found, charge->now, word)) {
            if (found.kind == HG_VICTIM)
                hg_add(&t->control[HG_EVICTIONS], 1);
            charge->taken = 1;
            return;
        }
    }
}

/* Clamp a time that was `seen`, and is too far ahead of a clock that was read later. */
static void hg_clamp(hg_tier *t, const hg_hashed *key, uint64_t seen, uint64_t now)
{
    hg_found found = hg_look(t, key, now);
    if (found.kind != HG_SWITCHED && found.word == seen && found.gap > t->ceiling)
        hg_cas(found.cell, seen, hg_cell(seen >> HG_TIME_BITS, now + (uint64_t)t->ceiling));
}

static inline int hg_lower(const hg_found *found, int64_t back)
{
    uint64_t time = found->word - (uint64_t)hg_least(back, found->gap);
    return hg_cas(found->cell, found->word, hg_cell(found->word >> HG_TIME_BITS, time));
}

/* Refund at most `back` of what a key owes. False if the rate must be loaded first, or the clock must be read again, as
 * it is far behind: a time must not be lowered to one in the distant past. */
static int hg_refund(hg_tier *t, const hg_hashed *key, uint64_t now, int64_t back)
{
    for (;;) {
        hg_found found = hg_look(t, key, now);
        if (found.kind == HG_SWITCHED || hg_behind(t, now))
            return 0;
        if (found.kind != HG_OWN || found.gap <= 0 || back <= 0 || hg_lower(&found, hg_least(back, t->ceiling)))
            return 1;
    }
}

/* The units in which a charge was made in those of the table now, rounded down. */
static int64_t hg_in_these(const hg_tier *t, const hg_charge *charge, int64_t units)
{
    unsigned from = charge->scale.bits, to = t->scale.bits;
    return to < from ? units >> (from - to) : hg_rescaled(units, from, to, HG_MOST_DEBT);
}

/* What of a charge, made at the time `then`, may be refunded: all but what was refilled since, at whichever rate is
 * higher. */
static int64_t hg_unfilled(const hg_tier *t, const hg_charge *charge, int64_t now_ns, int64_t then)
{
    hg_scale scale = t->scale, old = charge->scale;
    uint64_t now = hg_units_at(now_ns - t->epoch, scale.multiplier, scale.shift);
    if (old.multiplier == scale.multiplier && old.bits == scale.bits && charge->elapsed == then - t->epoch)
        return charge->cost - (int64_t)(now - charge->now);
    int64_t elapsed = now_ns > then ? now_ns - then : 0, cost = hg_in_these(t, charge, charge->cost);
    int64_t before = hg_in_these(t, charge, (int64_t)hg_units_at(elapsed, old.multiplier, old.shift));
    int64_t refilled = (int64_t)hg_units_at(elapsed, scale.multiplier, scale.shift);
    return cost - (before > refilled ? before : refilled) - (elapsed > 0);
}

/* Undo a charge that was made at the time `then`, as another tier denies the request, except for what has been refilled
 * since, which may have been charged to others. The clock must be read after the word, so a word that was not `seen` by
 * the call before is only noted; nothing is done until the rate in force is loaded. */
static void hg_undo(hg_tier *t, const hg_hashed *key, int64_t now_ns, int64_t then, hg_charge *charge)
{
    hg_found found = hg_look(t, key, hg_units_at(now_ns - t->epoch, t->scale.multiplier, t->scale.shift));
    int64_t back = hg_unfilled(t, charge, now_ns, then);
    if (found.kind == HG_SWITCHED)
        return;
    if (found.kind != HG_OWN || found.gap <= 0 || back <= 0)
        charge->taken = 0;
    else if (found.word == charge->seen)
        charge->taken = !hg_lower(&found, back);
    charge->seen = found.word;
}

/* Set the times of a line to `now + gap`: those in the distant past, or all. If the mark is no longer at `swept`,
 * others have swept meanwhile, and new times in the line are left as they are, as are those of another generation. */
static void hg_restamp(hg_tier *t, uint64_t *line, uint64_t swept, uint64_t now, int64_t gap, int all)
{
    for (int i = 0; i < HG_CELLS; i++) {
        uint64_t word = hg_load(line + i);
        if (word == 0 || !hg_is_current(t, word))
            continue;
        if ((all || hg_gap(word, now) < -HG_LONG_PAST) && hg_load(t->mark) == swept)
            hg_cas(line + i, word, hg_cell(word >> HG_TIME_BITS, now + (uint64_t)gap));
    }
}

/* If others were faster, look again, as they may have swept up to an earlier time. Nothing is swept at a rate that is
 * not in force; the decision that follows notices that too. */
static int hg_sweep_lines(hg_tier *t, uint64_t now, int certain)
{
    for (;;) {
        uint64_t swept = hg_load(t->mark);
        int64_t lag = (int64_t)(now - swept);
        if (hg_is_stale(t))
            return 1;
        if (lag < 0 && lag > -HG_BACK)
            return 1;
        if (lag < 0 && !certain)
            return 0;
        int all = lag < 0 || lag >= HG_IDLE;
        int64_t gap = lag < 0 ? t->ceiling : -HG_LONG_PAST;
        if (lag < 0)
            hg_add(&t->control[HG_REWINDS], 1);
        uint64_t due = (uint64_t)lag >> t->stride, line = (swept >> t->stride) % t->lines;
        for (uint64_t left = all || due > t->lines ? t->lines : due; left > 0; left--) {
            hg_restamp(t, t->cells + line * HG_CELLS, swept, now, gap, all);
            line = line + 1 == t->lines ? 0 : line + 1;
        }
        if (hg_cas(t->mark, swept, all ? now : swept + (due << t->stride)))
            return 1;
    }
}

/* Sweep the lines that are due. False if the clock is far behind and the caller is not `certain` that it was read just
 * now; if it is, every key owes a whole burst from now on. */
static inline int hg_sweep(hg_tier *t, uint64_t now, int certain)
{
    return (now - hg_load(t->mark)) >> t->stride == 0 || hg_sweep_lines(t, now, certain);
}

/* Convert the debts of all cells to other units. */
static void hg_rescale(hg_tier *t, hg_scale scale, int64_t now_ns)
{
    uint64_t before = hg_units_at(now_ns - t->epoch, t->scale.multiplier, t->scale.shift);
    uint64_t now = hg_units_at(now_ns - t->epoch, scale.multiplier, scale.shift);
    int64_t largest = scale.burst;
    for (uint64_t i = 0; i < t->lines * HG_CELLS; i++) {
        uint64_t word = t->cells[i];
        int64_t owed = word == 0 ? 0 : hg_least(hg_gap(word, before), t->ceiling);
        t->cells[i] = 0;
        if (owed <= 0)
            continue;
        owed = hg_rescaled(owed, t->scale.bits, scale.bits, HG_MOST_DEBT);
        largest = owed > largest ? owed : largest;
        t->cells[i] = hg_cell(word >> HG_TIME_BITS, now + (uint64_t)owed);
    }
    *t->mark = now;
    t->scale = scale;
    t->ceiling = largest;
}

/* The words of a tier that belong to the next generation, before the switch to that. */
static void hg_prepare(const hg_tier *t, int64_t ceiling)
{
    uint64_t other = (t->generation + 1) & 1;
    hg_store(&t->control[other ? HG_OTHER_SWEPT : HG_SWEPT], HG_UNSET);
    hg_store(&t->control[HG_SINCE + other], HG_UNSET);
    hg_store(&t->control[HG_CEILING + other], (uint64_t)ceiling);
}

/* The time since which a rate that has been loaded is in force, which is now if no process has set it. */
static int64_t hg_since(const hg_tier *t, int64_t now_ns)
{
    uint64_t *since = &t->control[HG_SINCE + (t->generation & 1)];
    hg_cas(since, HG_UNSET, (uint64_t)now_ns);
    return (int64_t)hg_load(since);
}

/* The largest debt of the next generation: that of this one, which has become smaller if it is above the burst. */
static int64_t hg_next_ceiling(const hg_tier *t, const hg_scale *scale, uint64_t now)
{
    uint64_t since = hg_units_at((int64_t)hg_load(&t->control[HG_SINCE + (t->generation & 1)]) - t->epoch,
                                 t->scale.multiplier, t->scale.shift);
    int64_t paid = (int64_t)(now - since), left = paid > 0 ? t->ceiling - paid : t->ceiling;
    int64_t kept = hg_rescaled(left > t->scale.burst ? left : t->scale.burst, t->scale.bits, scale->bits, HG_MOST_DEBT);
    return kept > scale->burst ? kept : scale->burst;
}

#endif
