/* Takes the place of atomics.h when the rooms are compiled for tests/interleavings.py: every access to shared memory,
 * and every reading of the clock, is a step.
 *
 * A process is run again from its beginning for each of its steps. Those that it has made already hear what they heard
 * then; the one after them is its next step, which is noted. From there on it runs alone and to its end, which must come.
 * So no process has to be stopped amid its work, and what it writes alone is thrown away.
 *
 * What nobody writes can be read at any time with the same answer, so such a reading is no step.
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

enum { HG_BLIND = -1, HG_WORDS = 1024, HG_ANSWERS = 1024, HG_PATIENCE = 4096 };
enum hg_kind_of_step { HG_NONE, HG_LOAD, HG_CAS, HG_ADD, HG_CLOCK };

HG_EXPORT struct {
    uint64_t *memory;
    int64_t now;
    int32_t mutant, ticking;
    uint32_t given, heard, alone, forgotten, kind, at;
    uint64_t old, value;
    uint64_t answers[HG_ANSWERS];
    uint8_t written[HG_WORDS];
} hg_process;

static uint64_t hg_step(enum hg_kind_of_step kind, uint32_t at, uint64_t old, uint64_t value)
{
    int seen = kind == HG_CLOCK ? hg_process.ticking : kind != HG_LOAD || hg_process.written[at];
    uint64_t *word = hg_process.memory + at, found;
    if (seen && hg_process.heard < hg_process.given) {
        hg_process.forgotten = 0;
        return hg_process.answers[hg_process.heard++];
    }
    if (seen && hg_process.kind == HG_NONE) {
        hg_process.kind = kind;
        hg_process.at = at;
        hg_process.old = old;
        hg_process.value = value;
    }
    hg_process.alone += hg_process.kind != HG_NONE;
    if (kind == HG_CLOCK)
        return (uint64_t)hg_process.now;
    found = *word;
    if (kind == HG_LOAD)
        return found;
    if (kind == HG_ADD)
        *word = found + value;
    else if (found == old || hg_process.mutant == HG_BLIND || hg_process.alone > HG_PATIENCE)
        *word = value; /* who would never end is let go */
    else
        return 0;
    return 1;
}

/* At the end of a turn of a loop that keeps nothing of it: `begun` is how much was heard before the first turn. */
static inline void hg_turn(uint32_t begun)
{
    if (hg_process.kind == HG_NONE)
        hg_process.forgotten = hg_process.heard - begun;
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

/* For a mutant. */
static inline int hg_insist(uint64_t *word, uint64_t old, uint64_t value)
{
    while (!hg_cas(word, old, value))
        ;
    return 1;
}

static inline void hg_add(uint64_t *word, uint64_t value) { hg_step(HG_ADD, hg_index(word), 0, value); }
static inline uint64_t hg_peek(uint64_t *field) { return hg_load(field); }

/* What is set and not compared is a process's own. */
static inline void hg_poke(uint64_t *field, uint64_t value) { *field = value; }
static inline void hg_store(uint64_t *word, uint64_t value) { *word = value; }

static inline uint64_t hg_swap(uint64_t *word, uint64_t value)
{
    uint64_t old = *word;
    *word = value;
    return old;
}

HG_EXPORT int64_t hg_read_clock(void) { return (int64_t)hg_step(HG_CLOCK, 0, 0, 0); }

#endif
