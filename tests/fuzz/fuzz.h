/* Shared by the fuzzers: an input that is read piece by piece, and a check that aborts. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) \
    ((condition) ? (void)0 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition), abort()))

typedef struct {
    const uint8_t *data;
    size_t size;
} fuzz_input;

/* Reads a number of so many bytes; bytes past the end are 0. */
static inline uint64_t fuzz_take(fuzz_input *input, unsigned bytes)
{
    uint64_t number = 0;
    for (; bytes > 0; bytes--) {
        number <<= 8;
        if (input->size > 0) {
            number |= *input->data++;
            input->size--;
        }
    }
    return number;
}

static inline void *fuzz_allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    CHECK(memory != NULL);
    return memory;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
