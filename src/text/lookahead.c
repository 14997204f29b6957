/* lookahead.c - see lookahead.h. */
#include "text/lookahead.h"

#include <string.h>

bw_look bw_look_at(bw_view view, size_t at, const char *literal)
{
    size_t n = strlen(literal), there = view.n - at;
    if (there >= n)
        return memcmp(view.text + at, literal, n) == 0 ? BW_LOOK_YES : BW_LOOK_NO;
    if (view.final || (there && memcmp(view.text + at, literal, there) != 0))
        return BW_LOOK_NO;
    return BW_LOOK_WAIT;
}

bw_look bw_look_past_space(bw_view view, size_t *at)
{
    for (size_t n = 0;; n++, ++*at) {
        if (n > BW_LOOK_SPACE)
            return BW_LOOK_NO;
        if (*at == view.n)
            return view.final ? BW_LOOK_YES : BW_LOOK_WAIT;
        char c = view.text[*at];
        if (c != ' ' && c != '\t' && c != '\r' && c != '\n')
            return BW_LOOK_YES;
    }
}

bw_look bw_look_either(bw_look a, bw_look b)
{
    if (a == BW_LOOK_YES || b == BW_LOOK_YES)
        return BW_LOOK_YES;
    return a == BW_LOOK_WAIT || b == BW_LOOK_WAIT ? BW_LOOK_WAIT : BW_LOOK_NO;
}

void bw_look_line_ends(bw_view view, size_t at, size_t *kept, size_t *end)
{
    *end = at;
    while (*end < view.n && view.text[*end] == '\n')
        ++*end;
    *kept = *end - at > BW_LOOK_SPACE ? *end - BW_LOOK_SPACE : at;
}
