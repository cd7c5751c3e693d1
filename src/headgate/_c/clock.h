/* The monotonic clock in nanoseconds, without Python. */
#ifndef HEADGATE_CLOCK_H
#define HEADGATE_CLOCK_H

#include <stdint.h>

#ifdef _WIN32
#include <windows.h>

static inline int64_t hg_monotonic_ns(void)
{
    static int64_t frequency;
    LARGE_INTEGER now;
    if (frequency == 0) {
        LARGE_INTEGER value;
        QueryPerformanceFrequency(&value);
        frequency = value.QuadPart;
    }
    QueryPerformanceCounter(&now);
    return now.QuadPart / frequency * 1000000000 + now.QuadPart % frequency * 1000000000 / frequency;
}
#else
#include <time.h>

static inline int64_t hg_monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}
#endif

#endif
