/* Maglev's table as Envoy fills it: in turns, each host claims the next free slot of its permutation. */
#ifndef HEADGATE_MAGLEV_H
#define HEADGATE_MAGLEV_H

#include <stddef.h>
#include <stdint.h>

#define HG_FREE UINT32_MAX

typedef struct {
    uint64_t at, skip;
    double weight, target;
} hg_host;

static void hg_maglev(hg_host *hosts, size_t count, double heaviest, uint32_t *table, uint64_t size)
{
    uint64_t filled = 0;
    for (uint64_t i = 0; i < size; i++)
        table[i] = HG_FREE;
    for (double turn = 1; filled < size; turn++)
        for (size_t i = 0; i < count && filled < size; i++) {
            hg_host *host = &hosts[i];
            if (turn * host->weight < host->target)
                continue;
            host->target += heaviest;
            while (table[host->at] != HG_FREE)
                host->at = (host->at + host->skip) % size;
            table[host->at] = (uint32_t)i;
            host->at = (host->at + host->skip) % size;
            filled++;
        }
}

#endif
