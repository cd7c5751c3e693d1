/* Sequentially consistent operations on one 64-bit word, and relaxed loads and stores beside it. */
#ifndef HEADGATE_ATOMICS_H
#define HEADGATE_ATOMICS_H

#include <stdint.h>

#ifdef _MSC_VER
#include <intrin.h>

static inline uint64_t hg_load(volatile uint64_t *word)
{
    return (uint64_t)_InterlockedOr64((volatile int64_t *)word, 0);
}

static inline void hg_store(volatile uint64_t *word, uint64_t value)
{
    _InterlockedExchange64((volatile int64_t *)word, (int64_t)value);
}

static inline uint64_t hg_swap(volatile uint64_t *word, uint64_t value)
{
    return (uint64_t)_InterlockedExchange64((volatile int64_t *)word, (int64_t)value);
}

static inline int hg_cas(volatile uint64_t *word, uint64_t old, uint64_t value)
{
    return (uint64_t)_InterlockedCompareExchange64((volatile int64_t *)word, (int64_t)value, (int64_t)old) == old;
}

static inline uint64_t hg_add(volatile uint64_t *word, uint64_t value)
{
    return (uint64_t)_InterlockedExchangeAdd64((volatile int64_t *)word, (int64_t)value);
}

static inline uint64_t hg_peek(volatile uint64_t *field) { return *field; }
static inline void hg_poke(volatile uint64_t *field, uint64_t value) { *field = value; }
#else
static inline uint64_t hg_load(uint64_t *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }
static inline void hg_store(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_SEQ_CST); }
static inline uint64_t hg_swap(uint64_t *word, uint64_t value) { return __atomic_exchange_n(word, value, __ATOMIC_SEQ_CST); }

static inline int hg_cas(uint64_t *word, uint64_t old, uint64_t value)
{
    return __atomic_compare_exchange_n(word, &old, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static inline uint64_t hg_add(uint64_t *word, uint64_t value) { return __atomic_fetch_add(word, value, __ATOMIC_SEQ_CST); }

static inline uint64_t hg_peek(uint64_t *field) { return __atomic_load_n(field, __ATOMIC_RELAXED); }
static inline void hg_poke(uint64_t *field, uint64_t value) { __atomic_store_n(field, value, __ATOMIC_RELAXED); }
#endif

#endif
