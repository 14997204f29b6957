/* draft_list.c - a sorted list with a ring of what came in. */
#include "engine/draft_list.h"

#include <string.h>

/* Where id stands, or would stand. */
static int find(const bw_draft_list *list, int32_t id)
{
    int low = 0, high = list->n;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (list->ids[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool in_range(const bw_draft_list *list, int32_t id)
{
    return id >= list->n_first && id < list->n_tokens;
}

static bool listed(const bw_draft_list *list, int32_t id)
{
    const int at = find(list, id);
    return at < list->n && list->ids[at] == id;
}

static void insert(bw_draft_list *list, int32_t id)
{
    const int at = find(list, id);
    memmove(list->ids + at + 1, list->ids + at, (size_t)(list->n - at) * sizeof *list->ids);
    list->ids[at] = id;
    list->n++;
}

static void take_out(bw_draft_list *list, int32_t id)
{
    const int at = find(list, id);
    list->n--;
    memmove(list->ids + at, list->ids + at + 1, (size_t)(list->n - at) * sizeof *list->ids);
}

static int next_place(const bw_draft_list *list, int at)
{
    return at + 1 < BW_DRAFT_LIST ? at + 1 : list->n_fixed;
}

/* A listed one that came again is the youngest: those after it move up. A fixed one stays. */
static void come_again(bw_draft_list *list, int32_t id)
{
    int at = 0;
    while (list->order[at] != id)
        at++;
    if (at < list->n_fixed)
        return;
    for (int next = next_place(list, at); next != list->oldest; at = next, next = next_place(list, next))
        list->order[at] = list->order[next];
    list->order[at] = id;
}

static void come_first(bw_draft_list *list, int32_t id)
{
    if (list->n == BW_DRAFT_LIST)
        take_out(list, list->order[list->oldest]);
    list->order[list->oldest] = id;
    list->oldest = next_place(list, list->oldest);
    insert(list, id);
    list->changed = true;
}

void bw_draft_list_init(bw_draft_list *list, int n_first, int n_tokens)
{
    *list = (bw_draft_list){ .n_first = n_first, .n_tokens = n_tokens, .changed = true };
}

void bw_draft_list_fix(bw_draft_list *list, const int32_t *tokens, int n)
{
    for (int i = 0; i < n && list->n < BW_DRAFT_LIST_FIXED; i++)
        if (in_range(list, tokens[i]) && !listed(list, tokens[i])) {
            list->order[list->n] = tokens[i];
            insert(list, tokens[i]);
        }
    list->n_fixed = list->n;
    list->oldest = list->n;
    list->changed = true;
}

void bw_draft_list_read(bw_draft_list *list, const int32_t *tokens, int n)
{
    for (; list->n_read < n; list->n_read++) {
        const int32_t id = tokens[list->n_read];
        if (!in_range(list, id))
            continue;
        if (listed(list, id))
            come_again(list, id);
        else
            come_first(list, id);
    }
}
