/* heap.h - a 4-ary min-heap of deadlines.
 *
 * Promises: the smallest key first, equal keys in the order of their push. Keys
 * stand in the array, so that comparing does not follow pointers. It owns its
 * array and nothing that the items lead to. One thread at a time. */
#ifndef FL_HEAP_H
#define FL_HEAP_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int64_t key;
    uint64_t seq; /* breaks ties */
    void *item;
} FlHeapEntry;

typedef struct {
    FlHeapEntry *entries;
    size_t length;
    size_t capacity;
    uint64_t next_seq;
} FlHeap;

/* False, with the heap as it was, where memory is out. */
bool fl_heap_push(FlHeap *heap, int64_t key, void *item);

/* Removes and returns the item of the first entry; the heap is not empty. */
void *fl_heap_pop(FlHeap *heap);

/* The key of the second entry, or INT64_MAX. */
int64_t fl_heap_second(const FlHeap *heap);

/* Takes item out if it happens to stand last in the array, where removal is free:
 * so does one that was just pushed with a late deadline. */
bool fl_heap_take_last(FlHeap *heap, void *item);

/* Takes out every entry whose item keep() refuses, which may become more meanwhile.
 * Returns these items, *count of them, for the caller to free() the array; NULL where
 * there are none, or no memory to take them out. */
void **fl_heap_filter(FlHeap *heap, bool (*keep)(void *), size_t *count);

void fl_heap_free(FlHeap *heap);

#endif
