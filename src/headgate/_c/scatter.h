/* The home of a hash in a table, such that keys that collide cannot be chosen without the table's secret.
 *
 * hg_scatter multiplies hash + a by hash ^ b and folds the halves of the product. Callers choose their hashes
 * freely - that of an int is the int - so a fixed function of the hash can be inverted, and hashes that share a
 * home be listed. Nor is it enough to multiply by one secret word: that is linear, evenly spaced hashes stay evenly
 * spaced whatever the word is, and for one word in some hundred they share one run of a table with linear
 * probing. Here both factors depend on the hash and on a secret, and one adds where the other xors: the product is
 * quadratic in the hash, and differences of hashes do not determine those of homes.
 *
 * hg_home is the 32 bits of which a table takes a home. The low bits of the folded product are not enough: where hashes
 * are spaced by a power of two they are still nearly linear, and one table in some hundred clusters. A second product, by
 * the odd constant of Fibonacci hashing, brings all lower bits into bits 32 to 63, the quadratic ones among them; the
 * lengths of the runs are then those of random homes.
 *
 * Keys with one and the same hash still share their home, as in a dict.
 *
 * Secrets are drawn with SipHash from 128 bits of the operating system, one for each array of cells that is made.
 */
#ifndef HEADGATE_SCATTER_H
#define HEADGATE_SCATTER_H

#include <stdint.h>
#include <string.h>
#include "atomics.h"
#include "mulshift.h"
#include "siphash.h"

typedef struct {
    uint64_t a, b;
} hg_secret;

static struct {
    uint64_t key[2], drawn;
} hg_secrets;

static inline uint64_t hg_scatter(uint64_t hash, const hg_secret *secret)
{
    uint64_t x = hash + secret->a, y = hash ^ secret->b;
#if defined(__SIZEOF_INT128__)
    unsigned __int128 product = (unsigned __int128)x * y;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
#else
    return x * y ^ hg_mulshift(x, y, 64);
#endif
}

static inline uint32_t hg_home(uint64_t hash, const hg_secret *secret)
{
    return (uint32_t)(hg_scatter(hash, secret) * UINT64_C(0x9E3779B97F4A7C15) >> 32);
}

/* Seed this module's secrets with 16 unpredictable bytes. */
static inline void hg_seed_secrets(const char *seed)
{
    memcpy(hg_secrets.key, seed, sizeof hg_secrets.key);
}

static inline uint64_t hg_draw_word(void)
{
    uint64_t turn = hg_add(&hg_secrets.drawn, 1);
    return hg_siphash13(hg_secrets.key, (const unsigned char *)&turn, sizeof turn);
}

/* A secret that no other table of the process has. */
static inline hg_secret hg_draw_secret(void)
{
    hg_secret secret;
    secret.a = hg_draw_word();
    secret.b = hg_draw_word();
    return secret;
}

#endif
