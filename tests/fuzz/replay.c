/* Runs a fuzzer without libFuzzer: replay COUNT FILE... feeds it COUNT random inputs, then the files. */
#include "fuzz.h"

enum { MOST = 4096 };

static uint64_t state = 1;

static uint64_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

int main(int argc, char **argv)
{
    static uint8_t data[MOST];
    for (long count = argc > 1 ? atol(argv[1]) : 0; count > 0; count--) {
        size_t size = (size_t)(draw() % 1024);
        for (size_t i = 0; i < size; i++)
            data[i] = (uint8_t)(draw() >> 32);
        LLVMFuzzerTestOneInput(data, size);
    }
    for (int i = 2; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        CHECK(file != NULL);
        LLVMFuzzerTestOneInput(data, fread(data, 1, MOST, file));
        fclose(file);
    }
    return 0;
}
