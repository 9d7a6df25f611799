/* ring.c - growth of the pointer ring; the rest is inline in the header.
 *
 * Owns:   the array.
 * Thread: whichever holds the ring. */
#include "base/ring.h"
#include <stdlib.h>
#include <string.h>

enum { RING_FIRST_CAPACITY = 64 };

bool
fl_ring_grow(FlRing *ring)
{
    size_t capacity = ring->items == NULL ? 0 : ring->mask + 1;
    size_t bigger = capacity == 0 ? RING_FIRST_CAPACITY : capacity * 2;
    if (bigger > SIZE_MAX / sizeof(void *)) return false;
    void **items = malloc(bigger * sizeof(void *));
    if (items == NULL) return false;

    size_t length = fl_ring_len(ring);
    for (size_t i = 0; i < length; i++) {
        items[i] = fl_ring_at(ring, i);
    }
    free(ring->items);
    ring->items = items;
    ring->mask = bigger - 1;
    ring->head = 0;
    ring->tail = length;
    return true;
}

void
fl_ring_free(FlRing *ring)
{
    free(ring->items);
    *ring = (FlRing){0};
}
