/* The table of a rate limiter: fixed size, one word a key, changed by compare-and-swap alone.
 *
 * A key has two lines of eight cells, in any of which it may lie. A cell is a tag of 24 bits beside the time
 * (40 bits, in units, modulo 2**40) at which its key owes nothing any more; from then on the cell is dead, and
 * free. `gap` is that time less now. 0 is a cell that was never used, tag 0 one that nobody finds again.
 *
 * A new key takes the cell whose time is earliest, whether that is past or not, in two steps. First it is begun: its
 * tag, without the lowest bit, is written beside the time that stands there, and such a tag is no key's. Then, if the
 * key stands nowhere else, the whole word is written. Two processes that insert one key at once may have begun two
 * cells; but whoever begins later sees the earlier one's, and keeps the first of the two and withdraws the other. A
 * cell that somebody began who was killed is as free as it was.
 *
 * The times must not come round. `control[HG_SWEPT]` is the mark, the time up to which lines have been swept: a line
 * is swept once in every circle of 2**36 units (`headgate.limit._tables.stride_of`), that is, times more than HG_LONG_PAST
 * past are set to that. The clock may be HG_BACK behind the mark before all lines are set anew, and HG_SILENCE ahead
 * of it. So a time that was written HG_LONG_PAST before a clock HG_BACK behind the mark is seen again, at the latest,
 * when the line comes to be due a circle later and nobody has asked for a whole silence:
 *
 *     past   HG_BACK + HG_LONG_PAST + circle + HG_SILENCE = 2**37 + 2**37 + 2**36 + 5 * 2**35 < 2**39
 *     ahead  the largest ceiling + HG_BACK + a stride     = 2**37 + 2**37 + 2**32             < 2**39
 *
 * HG_SILENCE is longer than the largest ceiling (HG_MOST_DEBT), so nothing is owed any more after it.
 */
#ifndef HEADGATE_CELLS_H
#define HEADGATE_CELLS_H

#include <stdint.h>
#include "atomics.h"
#include "mulshift.h"

#define HG_CELLS 8
#define HG_TIME_BITS 40
#define HG_TIME_MASK ((UINT64_C(1) << HG_TIME_BITS) - 1)
#define HG_WHOLE (UINT64_C(1) << HG_TIME_BITS)
#define HG_MOST_DEBT (INT64_C(1) << 37)
#define HG_LONG_PAST (INT64_C(1) << 37)
#define HG_BACK (INT64_C(1) << 37)
#define HG_SILENCE (INT64_C(5) << 35)

enum { HG_SWEPT, HG_EVICTIONS, HG_TURNS, HG_CONTROL = HG_CELLS };

typedef struct {
    uint64_t multiplier;
    int64_t burst;
    unsigned bits, shift;
} hg_scale;

typedef struct {
    uint64_t *control, *cells;
    uint64_t lines;
    unsigned stride; /* a line is swept every 2**stride units */
    hg_scale scale;
    int64_t epoch, ceiling;
} hg_tier;

typedef struct {
    uint64_t tag;
    uint32_t first, second;
} hg_place;

enum hg_kind { HG_OWN, HG_FREE, HG_OTHERS };

typedef struct {
    uint64_t *cell, word;
    int64_t gap;
    enum hg_kind kind;
} hg_found;

enum hg_verdict { HG_DENIED, HG_ALLOWED, HG_FULL, HG_AHEAD };

typedef struct {
    uint64_t oldest, newest;
} hg_span;

typedef struct {
    enum hg_verdict verdict;
    hg_scale scale;
    uint64_t now, seen;
    int64_t elapsed, cost, debt, missing;
    int taken;
    uint64_t moment; /* of logs only: now, the entries that were seen, and for how long any of them counts */
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

/* Whether a cell is that of a key, or begun to be. */
static inline int hg_is_of(const hg_place *at, uint64_t word) { return (word | HG_WHOLE) >> HG_TIME_BITS == at->tag; }

/* The cell of a key, or else the one that a new key takes: the first that was begun for it, or the earliest. */
static hg_found hg_survey(const hg_tier *t, const hg_place *at, uint64_t now)
{
    hg_found found = {0, 0, INT64_MAX, HG_OTHERS};
    uint32_t lines[2] = {at->first, at->second};
    int begun = 0;
    for (int i = 0; i < 2 * HG_CELLS; i++) {
        uint64_t *cell = hg_line(t, lines[i / HG_CELLS]) + i % HG_CELLS, word = hg_load(cell);
        int64_t gap = word == 0 ? INT64_MIN : hg_gap(word, now);
        int mine = hg_is_of(at, word);
        if (mine && word & HG_WHOLE)
            return (hg_found){cell, word, gap, HG_OWN};
        if (!begun && (mine || gap < found.gap))
            found = (hg_found){cell, word, gap, gap > 0 ? HG_OTHERS : HG_FREE};
        begun |= mine;
    }
    return found;
}

static inline hg_found hg_find(const hg_tier *t, const hg_place *at, uint64_t now)
{
    uint64_t *line = hg_line(t, at->first);
    for (int i = 0; i < HG_CELLS; i++) {
        uint64_t word = hg_load(line + i);
        if (word >> HG_TIME_BITS == at->tag)
            return (hg_found){line + i, word, hg_gap(word, now), HG_OWN};
    }
    return hg_survey(t, at, now);
}

/* Free a cell that was begun. As its time moves on, a later beginning is another word. */
static inline int hg_withdraw(uint64_t *cell, uint64_t begun) { return hg_cas(cell, begun, hg_cell(0, begun + 1)); }

/* Whether a key stands in no cell but `own`, nor is begun in an earlier one; later ones are withdrawn. */
static int hg_alone(const hg_tier *t, const hg_place *at, const uint64_t *own)
{
    uint32_t lines[2] = {at->first, at->second};
    int later = 0;
    for (int i = 0; i < 2 * HG_CELLS; i++) {
        uint64_t *cell = hg_line(t, lines[i / HG_CELLS]) + i % HG_CELLS, word = hg_load(cell);
        later |= cell == own;
        if (cell != own && hg_is_of(at, word) && (word & HG_WHOLE || !later || !hg_withdraw(cell, word)))
            return 0;
    }
    return 1;
}

/* Write the first word of a new key into the cell that was found for it. */
static int hg_insert(const hg_tier *t, const hg_place *at, const hg_found *found, uint64_t now, uint64_t word)
{
    int64_t gap = found->gap < -HG_LONG_PAST ? -HG_LONG_PAST : found->gap;
    uint64_t begun = hg_cell(at->tag, now + (uint64_t)gap) & ~HG_WHOLE;
    if (!hg_cas(found->cell, found->word, begun))
        return 0;
    if (hg_alone(t, at, found->cell))
        return hg_cas(found->cell, begun, word);
    hg_withdraw(found->cell, begun);
    return 0;
}

/* Write the next word of a key; false if others came between. */
static inline int hg_write(const hg_tier *t, const hg_place *at, const hg_found *found, uint64_t now, uint64_t word)
{
    return found->kind == HG_OWN ? hg_cas(found->cell, found->word, word) : hg_insert(t, at, found, now, word);
}

/* Whether the mark is so far ahead that the clock has stepped back, or was read long ago. */
static inline int hg_behind(hg_tier *t, uint64_t now) { return (int64_t)(hg_load(&t->control[HG_SWEPT]) - now) >= HG_BACK; }

/* Whether the clock seems to have stepped back: the time of the cell is too far ahead, or the mark is. */
static inline int hg_ahead(hg_tier *t, const hg_found *found, uint64_t now)
{
    return found->gap > t->ceiling || hg_behind(t, now);
}

/* What a request of charge->cost meets. With `take`, HG_AHEAD if the clock seems to have stepped back. As others may
 * have written since the clock was read, whoever hears this reads the clock once more; what he has `seen` stood there
 * before that. */
static inline hg_found hg_look(hg_tier *t, const hg_place *at, int evict, int take, hg_charge *charge)
{
    hg_found found = hg_find(t, at, charge->now);
    if (take && hg_ahead(t, &found, charge->now)) {
        charge->verdict = HG_AHEAD;
        charge->seen = found.word;
        return found;
    }
    charge->debt = found.kind == HG_OWN && found.gap > 0 ? hg_least(found.gap, t->ceiling) : 0;
    charge->missing = charge->debt + charge->cost - t->scale.burst;
    charge->verdict = charge->missing > 0 && charge->cost > 0 ? HG_DENIED : HG_ALLOWED;
    if (found.kind == HG_OTHERS && !evict && charge->cost > 0) {
        charge->verdict = HG_FULL;
        charge->debt = t->scale.burst;
        charge->missing = hg_least(found.gap, t->ceiling);
    }
    return found;
}

/* Decide, and write what an allowed request owes. Who takes the cell of another takes over his debt as well. */
static void hg_take(hg_tier *t, const hg_place *at, int evict, hg_charge *charge)
{
    for (;;) {
        hg_found found = hg_look(t, at, evict, 1, charge);
        if (charge->verdict != HG_ALLOWED || charge->cost == 0)
            return;
        int64_t owed = charge->debt + charge->cost;
        if (found.kind == HG_OTHERS && found.gap > owed)
            owed = found.gap;
        uint64_t word = hg_cell(at->tag, charge->now + (uint64_t)owed);
        if (hg_write(t, at, &found, charge->now, word)) {
            if (found.kind == HG_OTHERS)
                hg_add(&t->control[HG_EVICTIONS], 1);
            charge->taken = 1;
            return;
        }
    }
}

/* Cut a time that was seen, and is too far ahead of a clock that was read later. */
static void hg_mend(hg_tier *t, const hg_place *at, uint64_t seen, uint64_t now)
{
    hg_found found = hg_find(t, at, now);
    if (found.word == seen && found.gap > t->ceiling)
        hg_cas(found.cell, seen, hg_cell(seen >> HG_TIME_BITS, now + (uint64_t)t->ceiling));
}

static inline int hg_lower(const hg_found *found, int64_t back)
{
    uint64_t time = found->word - (uint64_t)hg_least(back, found->gap);
    return hg_cas(found->cell, found->word, hg_cell(found->word >> HG_TIME_BITS, time));
}

/* Give back at most `back` of what a key owes. False if the clock must be read again, as it is far behind: a time must
 * not be lowered to one long past. */
static int hg_give(hg_tier *t, const hg_place *at, uint64_t now, int64_t back)
{
    for (;;) {
        hg_found found = hg_find(t, at, now);
        if (hg_behind(t, now))
            return 0;
        if (found.kind != HG_OWN || found.gap <= 0 || back <= 0 || hg_lower(&found, hg_least(back, t->ceiling)))
            return 1;
    }
}

/* Give back what was taken, as another tier denies it, but for what has come since: others may have been charged when
 * that was over. The clock must be read after the word, so a word that was not `seen` at the call before is only seen.
 */
static void hg_undo(hg_tier *t, const hg_place *at, uint64_t now, hg_charge *charge)
{
    hg_found found = hg_find(t, at, now);
    int64_t back = charge->cost - (int64_t)(now - charge->now);
    int same = t->scale.multiplier == charge->scale.multiplier && t->scale.bits == charge->scale.bits;
    if (!same || found.kind != HG_OWN || found.gap <= 0 || back <= 0)
        charge->taken = 0;
    else if (found.word == charge->seen)
        charge->taken = !hg_lower(&found, back);
    charge->seen = found.word;
}

/* Set the times of a line to `now + gap`: those long past, or all of them. Whoever has swept meanwhile has moved the
 * mark from `swept`, and new times may stand in the line: they are let be. */
static void hg_restamp(hg_tier *t, uint64_t *line, uint64_t swept, uint64_t now, int64_t gap, int all)
{
    for (int i = 0; i < HG_CELLS; i++) {
        uint64_t word = hg_load(line + i);
        if (word != 0 && (all || hg_gap(word, now) < -HG_LONG_PAST) && hg_load(&t->control[HG_SWEPT]) == swept)
            hg_cas(line + i, word, hg_cell(word >> HG_TIME_BITS, now + (uint64_t)gap));
    }
}

/* Who finds that others were faster looks again, as they may have swept up to an earlier time. */
static int hg_sweep_lines(hg_tier *t, uint64_t now, int certain)
{
    for (;;) {
        uint64_t swept = hg_load(&t->control[HG_SWEPT]);
        int64_t lag = (int64_t)(now - swept);
        if (lag < 0 && lag > -HG_BACK)
            return 1;
        if (lag < 0 && !certain)
            return 0;
        int all = lag < 0 || lag >= HG_SILENCE;
        int64_t gap = lag < 0 ? t->ceiling : -HG_LONG_PAST;
        if (lag < 0)
            hg_add(&t->control[HG_TURNS], 1);
        uint64_t due = (uint64_t)lag >> t->stride, line = (swept >> t->stride) % t->lines;
        for (uint64_t left = all || due > t->lines ? t->lines : due; left > 0; left--) {
            hg_restamp(t, t->cells + line * HG_CELLS, swept, now, gap, all);
            line = line + 1 == t->lines ? 0 : line + 1;
        }
        if (hg_cas(&t->control[HG_SWEPT], swept, all ? now : swept + (due << t->stride)))
            return 1;
    }
}

/* Sweep the lines that are due. False if the clock is far behind and the caller is not certain that it was read just
 * now; otherwise every key owes a whole burst from now on. */
static inline int hg_sweep(hg_tier *t, uint64_t now, int certain)
{
    return (now - hg_load(&t->control[HG_SWEPT])) >> t->stride == 0 || hg_sweep_lines(t, now, certain);
}

/* Carry the debts of all cells over to other units. */
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
    t->control[HG_SWEPT] = now;
    t->scale = scale;
    t->ceiling = largest;
}

#endif
