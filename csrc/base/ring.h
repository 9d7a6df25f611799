/* ring.h - a queue of pointers in a power-of-two ring.
 *
 * Promises: push and pop in O(1), amortised over growth. It owns its array and
 * nothing that the pointers lead to. One thread at a time. */
#ifndef FL_RING_H
#define FL_RING_H
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    void **items;
    size_t mask; /* capacity - 1, or 0 while items is NULL */
    size_t head; /* index of the oldest; free-running, masked on use */
    size_t tail; /* index behind the newest; tail - head == length */
} FlRing;

/* Makes room for one more; false where memory is out. */
bool fl_ring_grow(FlRing *ring);

/* Frees the array. The pointers that are still in it are the caller's to release. */
void fl_ring_free(FlRing *ring);

static inline size_t
fl_ring_len(const FlRing *ring)
{
    return ring->tail - ring->head;
}

/* False, with the ring as it was, where memory is out. */
static inline bool
fl_ring_push(FlRing *ring, void *item)
{
    if (ring->items == NULL || ring->tail - ring->head > ring->mask) {
        if (!fl_ring_grow(ring)) return false;
    }
    ring->items[ring->tail++ & ring->mask] = item;
    return true;
}

/* NULL where the ring is empty. */
static inline void *
fl_ring_pop(FlRing *ring)
{
    if (ring->head == ring->tail) return NULL;
    return ring->items[ring->head++ & ring->mask];
}

/* The i-th oldest, i < length. */
static inline void *
fl_ring_at(const FlRing *ring, size_t i)
{
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): there is an i-th */
    return ring->items[(ring->head + i) & ring->mask];
}

/* Puts item in the place of the i-th oldest, i < length. */
static inline void
fl_ring_set(FlRing *ring, size_t i, void *item)
{
    ring->items[(ring->head + i) & ring->mask] = item;
}

#endif
