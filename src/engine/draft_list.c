/* draft_list.c - a sorted list; the sequence's own tokens say in which order its entries came. */
#include "engine/draft_list.h"

#include <assert.h>
#include <string.h>

static bool in_range(const bw_draft_list *list, int32_t id)
{
    return id >= list->n_first && id < list->n_tokens;
}

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

static bool stands_at(const bw_draft_list *list, int at, int32_t id)
{
    return at < list->n && list->ids[at] == id;
}

static void move(bw_draft_list *list, int to, int from, int n)
{
    memmove(list->ids + to, list->ids + from, (size_t)n * sizeof *list->ids);
    memmove(list->last + to, list->last + from, (size_t)n * sizeof *list->last);
}

/* Where the one stands that has to leave next; the search goes on behind it. Each place of the sequence is passed
 * once: its token is listed, and if it came again since then, it is not the oldest. */
static int find_oldest(bw_draft_list *list, const int32_t *tokens)
{
    for (;;) {
        assert(list->oldest < list->n_read);
        const int place = list->oldest++;
        const int32_t id = tokens[place];
        if (!in_range(list, id))
            continue;
        const int at = find(list, id);
        assert(stands_at(list, at, id));
        if (list->last[at] == place)
            return at;
    }
}

/* id, which is to stand at `at`, comes in; when the list is full, for the oldest. */
static void come_in(bw_draft_list *list, int at, int32_t id, const int32_t *tokens)
{
    if (list->n < BW_DRAFT_LIST) {
        move(list, at + 1, at, list->n++ - at);
    } else {
        const int leaves = find_oldest(list, tokens);
        if (leaves < at)
            move(list, leaves, leaves + 1, --at - leaves);
        else
            move(list, at + 1, at, leaves - at);
    }
    list->ids[at] = id;
    list->last[at] = list->n_read;
    list->changed = true;
}

void bw_draft_list_init(bw_draft_list *list, int n_first, int n_tokens)
{
    *list = (bw_draft_list){ .n_first = n_first, .n_tokens = n_tokens, .changed = true };
}

void bw_draft_list_fix(bw_draft_list *list, const int32_t *tokens, int n)
{
    for (int i = 0; i < n && list->n < BW_DRAFT_LIST_FIXED; i++) {
        const int at = find(list, tokens[i]);
        if (!in_range(list, tokens[i]) || stands_at(list, at, tokens[i]))
            continue;
        come_in(list, at, tokens[i], NULL);
        list->last[at] = INT32_MAX;
    }
    list->changed = true;
}

void bw_draft_list_read(bw_draft_list *list, const int32_t *tokens, int n)
{
    for (; list->n_read < n; list->n_read++) {
        const int32_t id = tokens[list->n_read];
        if (!in_range(list, id))
            continue;
        const int at = find(list, id);
        if (!stands_at(list, at, id))
            come_in(list, at, id, tokens);
        else if (list->last[at] != INT32_MAX)
            list->last[at] = list->n_read;
    }
}
