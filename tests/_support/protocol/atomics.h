/* Takes the place of atomics.h when a compiled module is built for tests/interleavings.py: every access to shared
 * memory, and every reading of the clock, is a step.
 *
 * A process is run again from its beginning for each of its steps. Those it has made before get the results that are
 * recorded; the one after them is its next step, which is noted. From there on it runs to its end without
 * interruption, and that must come. So no process has to be stopped within a call, and what it writes after its next
 * step is discarded.
 *
 * A word that no process writes reads the same at any time, so reading it is no step.
 */
#ifndef HEADGATE_ATOMICS_H
#define HEADGATE_ATOMICS_H

#include <stddef.h>
#include <stdint.h>

#ifdef _MSC_VER
#define HG_EXPORT __declspec(dllexport)
#else
#define HG_EXPORT __attribute__((visibility("default")))
#endif

enum { HG_BLIND = -1, HG_WORDS = 1024, HG_RESULTS = 1024, HG_MOST_STEPS = 4096 };
enum hg_kind_of_step { HG_NONE, HG_LOAD, HG_CAS, HG_ADD, HG_CLOCK, HG_STORE };

HG_EXPORT struct {
    uint64_t *memory;
    int64_t now;
    int32_t mutant, ticking;
    uint32_t recorded, replayed, unscheduled, droppable, kind, at;
    uint64_t old, value;
    uint64_t results[HG_RESULTS];
    uint8_t written[HG_WORDS];
} hg_process;

static uint64_t hg_step(enum hg_kind_of_step kind, uint32_t at, uint64_t old, uint64_t value)
{
    int seen = kind == HG_CLOCK ? hg_process.ticking : kind != HG_LOAD || hg_process.written[at];
    uint64_t *word = hg_process.memory + at, found;
    if (seen && hg_process.replayed < hg_process.recorded) {
        hg_process.droppable = 0;
        return hg_process.results[hg_process.replayed++];
    }
    if (seen && hg_process.kind == HG_NONE) {
        hg_process.kind = kind;
        hg_process.at = at;
        hg_process.old = old;
        hg_process.value = value;
    }
    hg_process.unscheduled += hg_process.kind != HG_NONE;
    if (kind == HG_CLOCK)
        return (uint64_t)hg_process.now;
    found = *word;
    if (kind == HG_LOAD)
        return found;
    if (kind == HG_ADD)
        *word = found + value;
    else if (kind == HG_STORE)
        *word = value;
    else if (found == old || hg_process.mutant == HG_BLIND || hg_process.unscheduled > HG_MOST_STEPS)
        *word = value; /* a process that would never end is let go */
    else
        return 0;
    return 1;
}

/* A mutant may be in a loop that never ends. The process fails then, so it does not matter how it goes on. */
static inline int hg_goes_on(void) { return hg_process.unscheduled <= HG_MOST_STEPS; }

/* At the end of an iteration of a loop that keeps nothing of it: `before` is how much was replayed before the first. */
static inline void hg_iterated(uint32_t before)
{
    if (hg_process.kind == HG_NONE)
        hg_process.droppable = hg_process.replayed - before;
}

static int hg_is_shared(const uint64_t *word)
{
    uintptr_t offset = (uintptr_t)word - (uintptr_t)hg_process.memory;
    return offset / sizeof *word < HG_WORDS;
}

static uint32_t hg_index(const uint64_t *word) { return (uint32_t)(word - hg_process.memory); }

static inline uint64_t hg_load(uint64_t *word)
{
    return hg_is_shared(word) ? hg_step(HG_LOAD, hg_index(word), 0, 0) : *word;
}

static inline int hg_cas(uint64_t *word, uint64_t old, uint64_t value)
{
    return (int)hg_step(HG_CAS, hg_index(word), old, value);
}

/* For mutants. */
static inline int hg_insist(uint64_t *word, uint64_t old, uint64_t value)
{
    while (!hg_cas(word, old, value))
        ;
    return 1;
}

static inline void hg_add(uint64_t *word, uint64_t value) { hg_step(HG_ADD, hg_index(word), 0, value); }
static inline uint64_t hg_peek(uint64_t *field) { return hg_load(field); }

/* What is not shared belongs to one process. */
static inline void hg_poke(uint64_t *field, uint64_t value) { *field = value; }

static inline void hg_store(uint64_t *word, uint64_t value)
{
    if (hg_is_shared(word))
        hg_step(HG_STORE, hg_index(word), 0, value);
    else
        *word = value;
}

static inline uint64_t hg_swap(uint64_t *word, uint64_t value)
{
    uint64_t old = *word;
    *word = value;
    return old;
}

/* Steps on words that are not those of the module. */
HG_EXPORT uint64_t hg_load_word(uint32_t at) { return hg_step(HG_LOAD, at, 0, 0); }
HG_EXPORT void hg_store_word(uint32_t at, uint64_t value) { hg_step(HG_STORE, at, 0, value); }
HG_EXPORT int64_t hg_read_clock(void) { return (int64_t)hg_step(HG_CLOCK, 0, 0, 0); }

#endif
