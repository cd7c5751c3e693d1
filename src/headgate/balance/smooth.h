/* nginx's smooth weighted round robin as a kinetic tournament tree. A server's current weight is a line over
 * the steps: it rises by the weight at every step, and falls by the total weight when the server is picked. A
 * node holds the server with the greatest current weight below it, and the first step at which that may change.
 * The children of node i are 2i and 2i + 1; node count + j is server j. */
#ifndef HEADGATE_SMOOTH_H
#define HEADGATE_SMOOTH_H

#include <stdint.h>
#include <stdlib.h>

typedef struct {
    double weight;
    double current; /* at the step `updated` */
    int64_t updated;
} hg_smooth_server;

typedef struct {
    int64_t expiry;
    int64_t winner;
} hg_smooth_node;

typedef struct {
    hg_smooth_server *servers;
    hg_smooth_node *nodes;
    int64_t count;
    int64_t step;
    double total;
} hg_smooth;

/* nginx's current_weight of a server. */
static double hg_smooth_current(const hg_smooth *all, int64_t at)
{
    const hg_smooth_server *server = &all->servers[at];
    return server->current + (double)(all->step - server->updated) * server->weight;
}

/* Subtracts from the current weight of a server; hg_smooth_update_path is the caller's. */
static void hg_smooth_subtract(hg_smooth *all, int64_t at, double amount)
{
    all->servers[at].current = hg_smooth_current(all, at) - amount;
    all->servers[at].updated = all->step;
}

/* Compares the winners of both children, and finds the step at which the loser overtakes. */
static void hg_smooth_update_node(hg_smooth *all, int64_t node)
{
    int64_t left = 2 * node, right = left + 1, count = all->count, expiry = INT64_MAX, winner, loser, swap;
    double lead, gain;
    winner = left < count ? all->nodes[left].winner : left - count;
    loser = right < count ? all->nodes[right].winner : right - count;
    lead = hg_smooth_current(all, winner) - hg_smooth_current(all, loser);
    if (lead < 0.0 || (lead == 0.0 && loser < winner)) {
        swap = winner;
        winner = loser;
        loser = swap;
        lead = -lead;
    }
    if (left < count)
        expiry = all->nodes[left].expiry;
    if (right < count && all->nodes[right].expiry < expiry)
        expiry = all->nodes[right].expiry;
    gain = all->servers[loser].weight - all->servers[winner].weight;
    if (gain > 0.0 && lead < gain * 4611686018427387904.0) {
        int64_t steps = (int64_t)(lead / gain);
        if (all->step + (steps ? steps : 1) < expiry)
            expiry = all->step + (steps ? steps : 1);
    }
    all->nodes[node].winner = winner;
    all->nodes[node].expiry = expiry;
}

static void hg_smooth_build(hg_smooth *all)
{
    for (int64_t node = all->count - 1; node > 0; node--)
        hg_smooth_update_node(all, node);
}

/* Updates the nodes from `node` down whose winner may have changed by now. */
static void hg_smooth_refresh_node(hg_smooth *all, int64_t node)
{
    if (node < all->count && all->nodes[node].expiry <= all->step) {
        hg_smooth_refresh_node(all, 2 * node);
        hg_smooth_refresh_node(all, 2 * node + 1);
        hg_smooth_update_node(all, node);
    }
}

/* Updates the nodes from a server, whose current weight has changed, to the root. */
static void hg_smooth_update_path(hg_smooth *all, int64_t at)
{
    for (int64_t node = (at + all->count) / 2; node; node /= 2)
        hg_smooth_update_node(all, node);
}

/* Goes to the next step, and updates the tree for it. */
static void hg_smooth_advance(hg_smooth *all)
{
    all->step++;
    hg_smooth_refresh_node(all, 1);
}

/* Whether a server has a greater current weight than another one, or the same and comes first. */
static int hg_smooth_is_ahead(const hg_smooth *all, int64_t at, int64_t other)
{
    double current = hg_smooth_current(all, at), compared = hg_smooth_current(all, other);
    return current > compared || (current == compared && at < other);
}

/* Makes a step; returns the server that it picks. count must not be 0. */
static int64_t hg_smooth_next(hg_smooth *all)
{
    int64_t best;
    hg_smooth_advance(all);
    best = all->count > 1 ? all->nodes[1].winner : 0;
    hg_smooth_subtract(all, best, all->total);
    hg_smooth_update_path(all, best);
    return best;
}

static void hg_smooth_free(hg_smooth *all)
{
    free(all->servers);
    free(all->nodes);
    all->servers = NULL;
    all->nodes = NULL;
    all->count = 0;
}

/* Allocates `count` servers, all zero; returns 0, or -1 and leaves `all` as it was. */
static int hg_smooth_init(hg_smooth *all, int64_t count)
{
    hg_smooth_server *servers = calloc((size_t)count + 1, sizeof(hg_smooth_server));
    hg_smooth_node *nodes = calloc((size_t)count + 1, sizeof(hg_smooth_node));
    if (servers == NULL || nodes == NULL) {
        free(servers);
        free(nodes);
        return -1;
    }
    hg_smooth_free(all);
    all->servers = servers;
    all->nodes = nodes;
    all->count = count;
    all->step = 0;
    all->total = 0.0;
    return 0;
}

#endif
