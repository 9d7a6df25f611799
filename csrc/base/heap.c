/* heap.c - the 4-ary heap of deadlines.
 *
 * Owns:   the array of entries.
 * Thread: whichever holds the heap.
 *
 * Four children a node halve the height of a binary heap, and the four keys that
 * a step compares share one or two cache lines. */
#include "base/heap.h"
#include <stdlib.h>

enum { HEAP_ARITY = 4, HEAP_FIRST_CAPACITY = 32, HEAP_SHRINK_ABOVE = 1024 };

/* Without a branch: which of two keys is smaller nobody can foretell. */
#ifdef __SIZEOF_INT128__

__extension__ typedef unsigned __int128 FlHeapBits;
__extension__ typedef __int128 FlHeapRank;

/* Key and number as one integer, whose sign is the key's. */
static inline FlHeapRank
heap_rank(const FlHeapEntry *entry)
{
    return (FlHeapRank)((FlHeapBits)(uint64_t)entry->key << 64 | entry->seq);
}

static inline bool
heap_before(const FlHeapEntry *a, const FlHeapEntry *b)
{
    return heap_rank(a) < heap_rank(b);
}

#else

static inline bool
heap_before(const FlHeapEntry *a, const FlHeapEntry *b)
{
    return (a->key < b->key) | ((a->key == b->key) & (a->seq < b->seq));
}

#endif

static void
heap_sift_up(FlHeapEntry *entries, size_t at, FlHeapEntry entry)
{
    while (at > 0) {
        size_t parent = (at - 1) / HEAP_ARITY;
        if (!heap_before(&entry, &entries[parent])) break;
        entries[at] = entries[parent];
        at = parent;
    }
    entries[at] = entry;
}

static void
heap_sift_down(FlHeapEntry *entries, size_t length, size_t at, FlHeapEntry entry)
{
    for (;;) {
        size_t first = at * HEAP_ARITY + 1;
        size_t least = first;
        if (first + HEAP_ARITY <= length) {
            const FlHeapEntry *child = entries + first;
            size_t one = heap_before(child + 1, child);
            size_t two = 2 + (size_t)heap_before(child + 3, child + 2);
            least += heap_before(child + two, child + one) ? two : one;
        }
        else {
            if (first >= length) break;
            for (size_t child = first + 1; child < length; child++) {
                least = heap_before(&entries[child], &entries[least]) ? child : least;
            }
        }
        if (!heap_before(&entries[least], &entry)) break;
        entries[at] = entries[least];
        at = least;
    }
    entries[at] = entry;
}

bool
fl_heap_push(FlHeap *heap, int64_t key, void *item)
{
    if (heap->length == heap->capacity) {
        size_t bigger = heap->capacity == 0 ? HEAP_FIRST_CAPACITY : heap->capacity * 2;
        if (bigger > SIZE_MAX / sizeof(FlHeapEntry)) return false;
        FlHeapEntry *entries = realloc(heap->entries, bigger * sizeof(FlHeapEntry));
        if (entries == NULL) return false;
        heap->entries = entries;
        heap->capacity = bigger;
    }
    FlHeapEntry entry = {.key = key, .seq = heap->next_seq++, .item = item};
    heap_sift_up(heap->entries, heap->length++, entry);
    return true;
}

/* Gives back most of an array of which little is in use. */
static void
heap_shrink(FlHeap *heap)
{
    size_t smaller = heap->capacity / 4;
    FlHeapEntry *entries = realloc(heap->entries, smaller * sizeof(FlHeapEntry));
    if (entries == NULL) return;
    heap->entries = entries;
    heap->capacity = smaller;
}

static inline bool
heap_is_roomy(const FlHeap *heap)
{
    return heap->length < heap->capacity / 8 && heap->capacity > HEAP_SHRINK_ABOVE;
}

void *
fl_heap_pop(FlHeap *heap)
{
    void *item = heap->entries[0].item;
    FlHeapEntry last = heap->entries[--heap->length];
    if (heap->length > 0) {
        heap_sift_down(heap->entries, heap->length, 0, last);
    }
    if (heap_is_roomy(heap)) {
        heap_shrink(heap);
    }
    return item;
}

int64_t
fl_heap_second(const FlHeap *heap)
{
    int64_t second = INT64_MAX;
    for (size_t at = 1; at <= HEAP_ARITY && at < heap->length; at++) {
        if (heap->entries[at].key < second) {
            second = heap->entries[at].key;
        }
    }
    return second;
}

bool
fl_heap_take_last(FlHeap *heap, void *item)
{
    if (heap->length == 0 || heap->entries[heap->length - 1].item != item) return false;
    heap->length--;
    return true;
}

void **
fl_heap_filter(FlHeap *heap, bool (*keep)(void *), size_t *count)
{
    FlHeapEntry *entries = heap->entries;
    size_t length = heap->length;
    size_t refused = 0;
    for (size_t i = 0; i < length; i++) {
        refused += !keep(entries[i].item);
    }
    if (refused == 0) return NULL;
    void **taken = malloc(refused * sizeof(void *));
    if (taken == NULL) return NULL; /* they stay until the next pass */

    size_t kept = 0;
    size_t out = 0;
    for (size_t i = 0; i < length; i++) {
        /* What another thread cancels meanwhile is for the next pass. */
        if (out == refused || keep(entries[i].item)) {
            entries[kept++] = entries[i];
        }
        else {
            taken[out++] = entries[i].item;
        }
    }
    heap->length = kept;
    for (size_t at = kept / HEAP_ARITY + 1; at-- > 0;) {
        if (at < kept) {
            heap_sift_down(entries, kept, at, entries[at]);
        }
    }
    if (heap_is_roomy(heap)) {
        heap_shrink(heap);
    }
    *count = out;
    return taken;
}

void
fl_heap_free(FlHeap *heap)
{
    free(heap->entries);
    *heap = (FlHeap){0};
}
