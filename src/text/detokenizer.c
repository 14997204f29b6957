/* detokenizer.c - see detokenizer.h. */
#include "text/detokenizer.h"

#include <string.h>

#include "base/mem.h"
#include "text/unicode.h"

struct bw_detokenizer {
    const bw_tokenizer *tokenizer;
    bool skip_special;
    size_t n_held; /* unfinished character at the start of bytes: 0 to 3 */
    char *bytes;   /* [3 + longest token] */
    char *text;    /* [3 * that + 1] */
};

bw_status bw_detokenizer_create(bw_detokenizer **out, const bw_tokenizer *tokenizer, bool skip_special, bw_error *err)
{
    *out = NULL;
    size_t room = bw_tokenizer_longest(tokenizer) + 3;
    bw_detokenizer *d = bw_mem_zalloc(1, sizeof *d + 4 * room + 1, BW_MEM_TEXT);
    if (!d)
        return bw_fail_memory(err, "decoding tokens", sizeof *d + 4 * room + 1);
    d->tokenizer = tokenizer;
    d->skip_special = skip_special;
    d->bytes = (char *)(d + 1);
    d->text = d->bytes + room;
    *out = d;
    return BW_OK;
}

void bw_detokenizer_destroy(bw_detokenizer *d)
{
    bw_mem_free(d);
}

/* How many bytes at the end are the start of a character: 0 to 3. */
static size_t unfinished(const char *bytes, size_t n)
{
    for (size_t k = n < 3 ? n : 3; k > 0; k--) {
        const unsigned char *tail = (const unsigned char *)bytes + n - k;
        if (tail[0] >= 0xC0 && bw_utf8_next(tail, k) == 0)
            return k;
    }
    return 0;
}

bw_status bw_detokenizer_push(bw_detokenizer *d, int32_t id, const char **text, size_t *n_bytes, bw_error *err)
{
    size_t n;
    const char *token = bw_tokenizer_bytes(d->tokenizer, id, &n);
    if (!token)
        return bw_fail(err, BW_E_ARGUMENT, "id %d is no token: expected ids below %d that are tokens", id,
                       bw_tokenizer_n_ids(d->tokenizer));
    if (d->skip_special && bw_tokenizer_is_special(d->tokenizer, id))
        n = 0;
    memcpy(d->bytes + d->n_held, token, n);
    n += d->n_held;
    d->n_held = unfinished(d->bytes, n);
    n -= d->n_held;
    *n_bytes = bw_utf8_replace(d->text, d->bytes, n);
    d->text[*n_bytes] = '\0';
    *text = d->text;
    memmove(d->bytes, d->bytes + n, d->n_held);
    return BW_OK;
}

void bw_detokenizer_finish(bw_detokenizer *d, const char **text, size_t *n_bytes)
{
    *n_bytes = bw_utf8_replace(d->text, d->bytes, d->n_held);
    d->text[*n_bytes] = '\0';
    *text = d->text;
    d->n_held = 0;
}
