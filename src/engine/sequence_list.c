/* sequence_list.c - sorted arrays of pointers: a binary search and a memmove. */
#include "engine/sequence_list.h"

#include <assert.h>
#include <string.h>

static bool goes_before(const bw_sequence_list *list, const bw_sequence *a, const bw_sequence *b)
{
    return list->by_priority && a->priority != b->priority ? a->priority < b->priority : a->id < b->id;
}

/* How many go before s. */
static int place_of(const bw_sequence_list *list, const bw_sequence *s)
{
    int low = 0, high = list->n;
    while (low < high) {
        const int middle = low + (high - low) / 2;
        if (goes_before(list, list->items[middle], s))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void bw_sequence_list_add(bw_sequence_list *list, bw_sequence *s)
{
    bw_sequence **at = list->items + place_of(list, s), **end = list->items + list->n;
    memmove(at + 1, at, (size_t)(end - at) * sizeof(*at));
    *at = s;
    list->n++;
}

void bw_sequence_list_remove(bw_sequence_list *list, const bw_sequence *s)
{
    bw_sequence **at = list->items + place_of(list, s), **end = list->items + list->n;
    assert(at < end && *at == s);
    memmove(at, at + 1, (size_t)(end - at - 1) * sizeof(*at));
    list->n--;
}
