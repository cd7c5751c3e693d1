/* nginx's smooth weighted round robin as a kinetic tournament: a server stands at a line over the steps that
 * have been made, rising by its weight; a match knows who is ahead, and the first step at which that or a
 * match below it changes. Match i is that of nodes 2i and 2i + 1; node count + j is seat j. */
#ifndef HEADGATE_SMOOTH_H
#define HEADGATE_SMOOTH_H

#include <stdint.h>
#include <stdlib.h>

typedef struct {
    double weight;
    double stand; /* at the step `seen` */
    int64_t seen;
} hg_seat;

typedef struct {
    int64_t until;
    int64_t winner;
} hg_match;

typedef struct {
    hg_seat *seats;
    hg_match *matches;
    int64_t count;
    int64_t step;
    double total;
} hg_smooth;

static double hg_stand(const hg_smooth *all, int64_t at)
{
    const hg_seat *seat = &all->seats[at];
    return seat->stand + (double)(all->step - seat->seen) * seat->weight;
}

static void hg_pay(hg_smooth *all, int64_t at, double price)
{
    all->seats[at].stand = hg_stand(all, at) - price;
    all->seats[at].seen = all->step;
}

static void hg_play(hg_smooth *all, int64_t node)
{
    int64_t left = 2 * node, right = left + 1, count = all->count, until = INT64_MAX, ahead, other, swap;
    double lead, gain;
    ahead = left < count ? all->matches[left].winner : left - count;
    other = right < count ? all->matches[right].winner : right - count;
    lead = hg_stand(all, ahead) - hg_stand(all, other);
    if (lead < 0.0 || (lead == 0.0 && other < ahead)) {
        swap = ahead;
        ahead = other;
        other = swap;
        lead = -lead;
    }
    if (left < count)
        until = all->matches[left].until;
    if (right < count && all->matches[right].until < until)
        until = all->matches[right].until;
    gain = all->seats[other].weight - all->seats[ahead].weight;
    if (gain > 0.0 && lead < gain * 4611686018427387904.0) {
        int64_t steps = (int64_t)(lead / gain);
        if (all->step + (steps ? steps : 1) < until)
            until = all->step + (steps ? steps : 1);
    }
    all->matches[node].winner = ahead;
    all->matches[node].until = until;
}

static void hg_play_all(hg_smooth *all)
{
    for (int64_t node = all->count - 1; node > 0; node--)
        hg_play(all, node);
}

static void hg_replay(hg_smooth *all, int64_t node)
{
    if (node < all->count && all->matches[node].until <= all->step) {
        hg_replay(all, 2 * node);
        hg_replay(all, 2 * node + 1);
        hg_play(all, node);
    }
}

/* A seat has changed: its matches, up to the last. */
static void hg_climb(hg_smooth *all, int64_t at)
{
    for (int64_t node = (at + all->count) / 2; node; node /= 2)
        hg_play(all, node);
}

/* Goes to the next step, at which all matches hold. */
static void hg_advance(hg_smooth *all)
{
    all->step++;
    hg_replay(all, 1);
}

/* Whether a seat is ahead of another one. */
static int hg_beats(const hg_smooth *all, int64_t at, int64_t other)
{
    double stand = hg_stand(all, at), against = hg_stand(all, other);
    return stand > against || (stand == against && at < other);
}

/* The seat that the next step goes to; count must not be 0. */
static int64_t hg_smooth_next(hg_smooth *all)
{
    int64_t best;
    hg_advance(all);
    best = all->count > 1 ? all->matches[1].winner : 0;
    hg_pay(all, best, all->total);
    hg_climb(all, best);
    return best;
}

static void hg_smooth_free(hg_smooth *all)
{
    free(all->seats);
    free(all->matches);
    all->seats = NULL;
    all->matches = NULL;
    all->count = 0;
}

/* Room for `count` seats, all at 0; answers 0, or -1 with `all` untouched. */
static int hg_smooth_begin(hg_smooth *all, int64_t count)
{
    hg_seat *seats = calloc((size_t)count + 1, sizeof(hg_seat));
    hg_match *matches = calloc((size_t)count + 1, sizeof(hg_match));
    if (seats == NULL || matches == NULL) {
        free(seats);
        free(matches);
        return -1;
    }
    hg_smooth_free(all);
    all->seats = seats;
    all->matches = matches;
    all->count = count;
    all->step = 0;
    all->total = 0.0;
    return 0;
}

#endif
