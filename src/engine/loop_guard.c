/* loop_guard.c - see loop_guard.h. */
#include "engine/loop_guard.h"

#include <string.h>

void bw_loop_guard_init(bw_loop_guard *g)
{
    memset(g, 0, sizeof *g);
    for (int i = 0; i < 2 * BW_LOOP_PERIOD; i++)
        g->tokens[i] = -1; /* equals no token */
    for (int i = 0; i < BW_LOOP_PERIOD; i++) {
        const int repeated = (BW_LOOP_REPEATS - 1) * (BW_LOOP_PERIOD - i);
        g->most[i] = (repeated > BW_LOOP_TOKENS ? repeated : BW_LOOP_TOKENS) - 1;
    }
}

/* One straight pass over all periods without a branch, which gcc -O2 makes vectors of. Negative: one of
 * the counts is more than its most. */
static int32_t count(int32_t *restrict matches, const int32_t *restrict last, const int32_t *restrict most, int32_t token)
{
    int32_t room = 0;
    for (int i = 0; i < BW_LOOP_PERIOD; i++) {
        const int32_t n = (matches[i] + 1) & -(int32_t)(last[i] == token);
        matches[i] = n;
        room |= most[i] - n;
    }
    return room;
}

bool bw_loop_guard_push(bw_loop_guard *g, int32_t token)
{
    const bool found = count(g->matches, g->tokens + g->next, g->most, token) < 0;
    g->tokens[g->next] = g->tokens[g->next + BW_LOOP_PERIOD] = token;
    g->next = (g->next + 1) % BW_LOOP_PERIOD;
    return found;
}
