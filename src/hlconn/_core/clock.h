/* CLOCK_MONOTONIC in ns, the same clock as Python's time.monotonic_ns(). */
#ifndef HLCONN_CLOCK_H
#define HLCONN_CLOCK_H

#include <stdint.h>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
static int64_t hl_monotonic_ns(void) {
    LARGE_INTEGER ticks, frequency;
    QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&ticks);
    return (ticks.QuadPart / frequency.QuadPart) * 1000000000LL +
           (ticks.QuadPart % frequency.QuadPart) * 1000000000LL / frequency.QuadPart;
}
#elif defined(__APPLE__)
#include <time.h>
static int64_t hl_monotonic_ns(void) { return (int64_t)clock_gettime_nsec_np(CLOCK_UPTIME_RAW); }
#else
#include <time.h>
static int64_t hl_monotonic_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000LL + t.tv_nsec;
}
#endif

#endif
