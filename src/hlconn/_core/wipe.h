/* Zeroes that the compiler may not leave out. */
#ifndef HLCONN_WIPE_H
#define HLCONN_WIPE_H

#include <stddef.h>
#include <string.h>

static inline void hl_wipe(void *memory, size_t size) {
#if defined(__GNUC__)
    memset(memory, 0, size);
    __asm__ __volatile__("" : : "r"(memory) : "memory"); /* may read it: so the zeroes have to be there */
#else
    volatile unsigned char *p = (volatile unsigned char *)memory;
    while (size--) *p++ = 0;
#endif
}

#if defined(__has_attribute)
#if __has_attribute(zero_call_used_regs)
#define HL_ZERO_REGISTERS __attribute__((zero_call_used_regs("all")))
#endif
#endif
#if !defined(HL_ZERO_REGISTERS)
#define HL_ZERO_REGISTERS
#endif
#if defined(__GNUC__)
#define HL_NOINLINE __attribute__((noinline))
#elif defined(_MSC_VER)
#define HL_NOINLINE __declspec(noinline)
#else
#define HL_NOINLINE
#endif

/* The stack below the caller, and (gcc 11, clang 15) the registers: what the functions that it called have left there.
 * Registers, as whoever comes next may save them to memory: the dynamic linker does, at the first call of a function. */
HL_NOINLINE HL_ZERO_REGISTERS static void hl_wipe_stack(void) {
    unsigned char below[8192];
    hl_wipe(below, sizeof(below));
}

#endif
