/* pretokenize.h - cuts text into the pieces that merges may not cross, by the checkpoint's pattern.
 *
 * The pattern is the one a tokenizer.json brings, written for Oniguruma; it is translated so that
 * PCRE2 sees the same classes, and refused where that is not possible. A bw_pattern is read-only:
 * any thread, each with its own bw_splitter. Part of the tokenizer. */
#ifndef BW_TEXT_PRETOKENIZE_H
#define BW_TEXT_PRETOKENIZE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

typedef struct bw_pattern bw_pattern;

/* The pattern of the family, for containers that only name it (GGUF: "qwen35"). */
extern const char bw_pattern_qwen35[];

/* BW_E_UNSUPPORTED: something in it means another thing to PCRE2; BW_E_FORMAT: not a pattern. */
bw_status bw_pattern_create(bw_pattern **out, const char *regex, size_t n, bw_error *err);
void bw_pattern_destroy(bw_pattern *pattern); /* takes NULL */
/* False where the system forbids generated code: the pattern then runs several times slower. */
bool bw_pattern_is_compiled(const bw_pattern *pattern);

typedef struct bw_splitter {
    const bw_pattern *pattern;
    void *match, *context, *stack; /* PCRE2's scratch */
    const char *text;
    size_t n, position;
    size_t start, end; /* the match after a gap, waiting its turn; start == end: none */
} bw_splitter;

bw_status bw_splitter_init(bw_splitter *splitter, const bw_pattern *pattern, bw_error *err);
void bw_splitter_fini(bw_splitter *splitter); /* takes a zeroed one */
/* Starts on well-formed UTF-8, borrowed while it is split. */
void bw_splitter_begin(bw_splitter *splitter, const char *text, size_t n);
/* The next piece; *n is 0 at the end. What no match covers is a piece too, so pieces add up to the
 * text. BW_E_LIMIT: the pattern takes absurdly many steps on this text. */
bw_status bw_splitter_next(bw_splitter *splitter, const char **piece, size_t *n, bw_error *err);

#endif
