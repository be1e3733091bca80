/* Zeroes that the compiler may not leave out. */
#ifndef HLCONN_WIPE_H
#define HLCONN_WIPE_H

#include <stddef.h>

static void hl_wipe(void *memory, size_t size) {
    volatile unsigned char *p = (volatile unsigned char *)memory;
    while (size--) *p++ = 0;
}

#endif
