/* The table of Maglev hashing as Envoy fills it: in turns, each node claims the next free slot of its permutation. */
#ifndef HEADGATE_MAGLEV_H
#define HEADGATE_MAGLEV_H

#include <stddef.h>
#include <stdint.h>

#define HG_FREE UINT32_MAX

typedef struct {
    uint64_t next, skip; /* slots */
    double weight, target;
} hg_maglev_node;

static void hg_maglev(hg_maglev_node *nodes, size_t count, double heaviest, uint32_t *table, uint64_t size)
{
    uint64_t filled = 0;
    for (uint64_t i = 0; i < size; i++)
        table[i] = HG_FREE;
    for (double turn = 1; filled < size; turn++)
        for (size_t i = 0; i < count && filled < size; i++) {
            hg_maglev_node *node = &nodes[i];
            if (turn * node->weight < node->target)
                continue;
            node->target += heaviest;
            while (table[node->next] != HG_FREE)
                node->next = (node->next + node->skip) % size;
            table[node->next] = (uint32_t)i;
            node->next = (node->next + node->skip) % size;
            filled++;
        }
}

#endif
