/* Fields of an object that one thread reads without the lock while another writes them under it: relaxed loads and
 * stores, which cost what plain ones do. Memory that processes share has atomics.h. */
#ifndef HEADGATE_FIELDS_H
#define HEADGATE_FIELDS_H

#include <stdint.h>
#include <string.h>

#ifdef _MSC_VER
static inline uint64_t hg_get(volatile uint64_t *field) { return *field; }
static inline void hg_set(volatile uint64_t *field, uint64_t value) { *field = value; }
#else
static inline uint64_t hg_get(uint64_t *field) { return __atomic_load_n(field, __ATOMIC_RELAXED); }
static inline void hg_set(uint64_t *field, uint64_t value) { __atomic_store_n(field, value, __ATOMIC_RELAXED); }
#endif

static inline int64_t hg_get_time(int64_t *field) { return (int64_t)hg_get((uint64_t *)field); }
static inline void hg_set_time(int64_t *field, int64_t value) { hg_set((uint64_t *)field, (uint64_t)value); }

static inline double hg_get_double(double *field)
{
    uint64_t bits = hg_get((uint64_t *)(void *)field);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline void hg_set_double(double *field, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    hg_set((uint64_t *)(void *)field, bits);
}

#endif
