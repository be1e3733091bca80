/* What one-time nonces need of the operating system: pages of their own, randomness, the process's number. */
#ifndef HLCONN_ONESHOT_H
#define HLCONN_ONESHOT_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define HL_WIPED_ON_FORK 1 /* a child process finds zeroes in the pages */
#define HL_NOT_DUMPED 2    /* a core dump leaves the pages out */
#define HL_LOCKED 4        /* the pages are never written to swap */

/* hl_pages_map: zeroed pages shared with nothing else, with those of the `guards` that can be had; NULL: no pages.
 * hl_pages_lock: HL_LOCKED or 0. A child does not inherit it. hl_random: 0, or -1 when the system gives none. */

#if defined(_WIN32)

#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <bcrypt.h>
#pragma comment(lib, "bcrypt")

static void *hl_pages_map(size_t size, int *guards) {
    *guards = 0;
    return VirtualAlloc(NULL, size, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
}
static int hl_pages_lock(void *pages, size_t size) { return VirtualLock(pages, size) ? HL_LOCKED : 0; }
static void hl_pages_unmap(void *pages, size_t size) {
    (void)size;
    VirtualFree(pages, 0, MEM_RELEASE);
}
static int hl_random(void *out, size_t size) {
    return BCryptGenRandom(NULL, (PUCHAR)out, (ULONG)size, BCRYPT_USE_SYSTEM_PREFERRED_RNG) == 0 ? 0 : -1;
}
static int64_t hl_process(void) { return (int64_t)GetCurrentProcessId(); }

#else

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/syscall.h>
/* The headers of manylinux2014 are older than these. */
#if !defined(MADV_DONTDUMP)
#define MADV_DONTDUMP 16
#endif
#if !defined(MADV_WIPEONFORK)
#define MADV_WIPEONFORK 18
#endif
#if !defined(SYS_getrandom) && defined(__x86_64__)
#define SYS_getrandom 318
#elif !defined(SYS_getrandom) && defined(__aarch64__)
#define SYS_getrandom 278
#endif
#elif defined(__APPLE__)
#include <sys/random.h>
#endif

#if !defined(MAP_ANONYMOUS)
#define MAP_ANONYMOUS MAP_ANON
#endif

static void *hl_pages_map(size_t size, int *guards) {
    void *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int wanted = *guards;
    *guards = 0;
    if (pages == MAP_FAILED) return NULL;
#if defined(__linux__)
    if (wanted & HL_WIPED_ON_FORK && madvise(pages, size, MADV_WIPEONFORK) == 0) *guards |= HL_WIPED_ON_FORK;
    if (wanted & HL_NOT_DUMPED && madvise(pages, size, MADV_DONTDUMP) == 0) *guards |= HL_NOT_DUMPED;
#else
    (void)wanted;
#endif
    return pages;
}
static int hl_pages_lock(void *pages, size_t size) { return mlock(pages, size) == 0 ? HL_LOCKED : 0; }
static void hl_pages_unmap(void *pages, size_t size) { munmap(pages, size); }

static int hl_random(void *out, size_t size) {
#if defined(SYS_getrandom)
    long got;
    do got = syscall(SYS_getrandom, out, size, 0);
    while (got < 0 && errno == EINTR);
    return got == (long)size ? 0 : -1; /* up to 256 bytes come at once or not at all */
#elif defined(__APPLE__) || defined(__OpenBSD__) || defined(__FreeBSD__)
    return getentropy(out, size);
#else
    (void)out, (void)size;
    return -1;
#endif
}
static int64_t hl_process(void) { return (int64_t)getpid(); }

#endif

/* Wall clock, ns: a part of the hedge, right or wrong. */
static int64_t hl_wall_ns(void) {
    struct timespec t = {0, 0};
    timespec_get(&t, TIME_UTC);
    return (int64_t)((uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec);
}

#endif
