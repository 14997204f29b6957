/* lookahead.h - asking of a text that is still coming: does this stand here?
 *
 * For the byte machines that read answers. The answer is "not yet" only when more text could make
 * it either; so a decision never depends on how the text was cut. */
#ifndef BW_TEXT_LOOKAHEAD_H
#define BW_TEXT_LOOKAHEAD_H

#include <stdbool.h>
#include <stddef.h>

enum { BW_LOOK_SPACE = 64 }; /* white space is looked through, and line ends are held, this far */

typedef enum bw_look { BW_LOOK_NO, BW_LOOK_YES, BW_LOOK_WAIT } bw_look;

typedef struct bw_view {
    const char *text;
    size_t n;
    bool final; /* nothing comes after it */
} bw_view;

/* Whether literal stands at `at`. */
bw_look bw_look_at(bw_view view, size_t at, const char *literal);
/* Moves *at over white space (space, tab, CR, LF). WAIT: it reaches the end of what is there.
 * NO: there is more than BW_LOOK_SPACE of it. YES: *at is on a character, or at a final end. */
bw_look bw_look_past_space(bw_view view, size_t *at);
/* YES if either is, else WAIT if either is. */
bw_look bw_look_either(bw_look a, bw_look b);
/* The line ends from `at` on: *end is behind them, *kept where the last BW_LOOK_SPACE of them
 * begin; those before *kept are text whatever follows. */
void bw_look_line_ends(bw_view view, size_t at, size_t *kept, size_t *end);

#endif
