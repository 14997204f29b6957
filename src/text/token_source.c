/* token_source.c - see token_source.h. */
#include "text/token_source.h"

#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "text/unicode.h"

enum {
    MAX_TOKENS = 1 << 24,
    QUOTE = 100
};

bool bw_merge_split(struct bw_merge_entry *out, bw_chars text)
{
    const char *space = text.n ? memchr(text.data, ' ', text.n) : NULL;
    if (!space || memchr(space + 1, ' ', text.n - (size_t)(space + 1 - text.data)))
        return false;
    out->left = (bw_chars){ text.data, (size_t)(space - text.data) };
    out->right = (bw_chars){ space + 1, text.n - out->left.n - 1 };
    return out->left.n && out->right.n;
}

/* The largest id plus one, and the bytes of all texts. */
static bw_status measure(const bw_token_source *s, int32_t *n_rows, size_t *room, bw_error *err)
{
    if (s->n_tokens > MAX_TOKENS || s->n_merges > MAX_TOKENS)
        return bw_fail(err, BW_E_LIMIT, "%s: %zu tokens and %zu merges: expected at most %d of each", s->name, s->n_tokens,
                       s->n_merges, MAX_TOKENS);
    *room = 0;
    int64_t most = -1;
    for (size_t i = 0; i < s->n_tokens; i++) {
        const bw_token_entry *t = &s->tokens[i];
        char quoted[QUOTE];
        size_t limit = t->kind >= BW_TOKEN_PLAIN ? BW_MAX_ADDED_BYTES : BW_MAX_TOKEN_BYTES;
        if (t->id < 0 || t->id >= (int64_t)s->n_tokens + BW_MAX_HOLES)
            return bw_fail(err, BW_E_FORMAT, "%s: %s: token %s has id %" PRId64 ": expected 0 to %zu with %zu tokens", s->name,
                           s->tokens_field, bw_text_quote(quoted, sizeof quoted, t->text.data, t->text.n), t->id,
                           s->n_tokens + BW_MAX_HOLES - 1, s->n_tokens);
        if (t->kind == BW_TOKEN_NONE)
            continue;
        if (t->text.n == 0 || t->text.n > limit)
            return bw_fail(err, BW_E_FORMAT, "%s: %s: the token with id %" PRId64 " has %zu bytes: expected 1 to %zu", s->name,
                           s->tokens_field, t->id, t->text.n, limit);
        *room += t->text.n; /* at most 2^24 * 2^16 */
        if (t->id > most)
            most = t->id;
    }
    if (most < 0 || *room > UINT32_MAX)
        return bw_fail(err, BW_E_FORMAT, "%s: %s has %zu tokens of %zu bytes: expected at least 256 tokens, below 4 GiB",
                       s->name, s->tokens_field, s->n_tokens, *room);
    *n_rows = (int32_t)most + 1;
    return BW_OK;
}

static bw_status put_tokens(bw_tokenizer *t, const bw_token_source *s, bw_error *err)
{
    bw_vocab *v = &t->vocab;
    for (size_t i = 0; i < s->n_tokens; i++) {
        const bw_token_entry *token = &s->tokens[i];
        if (token->kind == BW_TOKEN_NONE)
            continue;
        bw_vocab_row *taken = &v->rows[token->id];
        if (taken->kind == BW_TOKEN_BASE && token->kind >= BW_TOKEN_PLAIN && taken->n == token->text.n &&
            memcmp(v->bytes + taken->offset, token->text.data, taken->n) == 0) {
            taken->kind = (uint8_t)token->kind; /* some files list an added token in the vocabulary too */
            taken->in_alphabet = false;
            t->n_added++;
            continue;
        }
        if (taken->kind != BW_TOKEN_NONE) {
            char one[QUOTE], other[QUOTE];
            return bw_fail(err, BW_E_FORMAT, "%s: %s: tokens %s and %s both have id %" PRId64 ": expected an id of its own "
                           "for each", s->name, s->tokens_field, bw_text_quote(one, sizeof one, v->bytes + taken->offset, taken->n),
                           bw_text_quote(other, sizeof other, token->text.data, token->text.n), token->id);
        }
        bw_vocab_put(v, (int32_t)token->id, token->kind, token->text.data, token->text.n);
        t->n_added += token->kind >= BW_TOKEN_PLAIN;
    }
    bw_status st = bw_vocab_index(v, err);
    if (st)
        bw_fail_prefix(err, "%s: %s", s->name, s->tokens_field);
    return st;
}

/* The base token written so in the byte alphabet, or -1. */
static int32_t find_written(const bw_vocab *v, bw_chars text, unsigned char *scratch)
{
    size_t n;
    if (text.n > BW_MAX_TOKEN_BYTES || !bw_alphabet_decode(scratch, &n, text.data, text.n))
        return -1;
    return bw_vocab_find_base(v, (const char *)scratch, n);
}

static bw_status fail_merge(const bw_token_source *s, size_t i, bw_error *err, const char *what)
{
    char left[QUOTE], right[QUOTE];
    bw_text_quote(left, sizeof left, s->merges[i].left.data, s->merges[i].left.n);
    bw_text_quote(right, sizeof right, s->merges[i].right.data, s->merges[i].right.n);
    return bw_fail(err, BW_E_FORMAT, "%s: %s[%zu] merges %s and %s: %s", s->name, s->merges_field, i, left, right, what);
}

static bw_status put_merge(bw_tokenizer *t, const bw_token_source *s, size_t i, unsigned char *scratch, bw_error *err)
{
    const struct bw_merge_entry *merge = &s->merges[i];
    int32_t a = find_written(&t->vocab, merge->left, scratch), b = find_written(&t->vocab, merge->right, scratch);
    if (a < 0 || b < 0)
        return fail_merge(s, i, err, a < 0 ? "the first is no token, expected two tokens" : "the second is no token, expected two tokens");
    const bw_vocab_row *x = &t->vocab.rows[a], *y = &t->vocab.rows[b];
    memcpy(scratch, t->vocab.bytes + x->offset, x->n);
    memcpy(scratch + x->n, t->vocab.bytes + y->offset, y->n);
    int32_t result = bw_vocab_find_base(&t->vocab, (const char *)scratch, (size_t)x->n + y->n);
    if (result < 0)
        return fail_merge(s, i, err, "expected both together to be a token too");
    if (bw_merges_put(&t->merges, a, b, (int32_t)i, result) >= 0)
        return fail_merge(s, i, err, "an earlier one does so too, expected every merge once");
    return BW_OK;
}

static bw_status put_merges(bw_tokenizer *t, const bw_token_source *s, bw_error *err)
{
    bw_status st = bw_merges_init(&t->merges, s->n_merges, err);
    if (st)
        return st;
    unsigned char *scratch = bw_mem_alloc(2 * BW_MAX_TOKEN_BYTES, BW_MEM_TEXT);
    if (!scratch)
        return bw_fail_memory(err, "the merges", 2 * BW_MAX_TOKEN_BYTES);
    for (size_t i = 0; i < s->n_merges && !st; i++)
        st = put_merge(t, s, i, scratch, err);
    bw_mem_free(scratch);
    return st;
}

bw_status bw_tokenizer_build(bw_tokenizer **out, const bw_token_source *s, bw_error *err)
{
    *out = NULL;
    int32_t n_rows = 0;
    size_t room = 0;
    bw_status st = measure(s, &n_rows, &room, err);
    if (st)
        return st;
    bw_tokenizer *t = bw_mem_zalloc(1, sizeof *t, BW_MEM_TEXT);
    if (!t)
        return bw_fail_memory(err, "the tokenizer", sizeof *t);
    t->nfc = s->nfc;
    if ((st = bw_vocab_init(&t->vocab, n_rows, room, err)) || (st = put_tokens(t, s, err)) ||
        (st = put_merges(t, s, err)))
        goto fail;
    if ((st = bw_pattern_create(&t->pattern, s->pattern.data, s->pattern.n, err))) {
        bw_fail_prefix(err, "%s", s->name);
        goto fail;
    }
    if (!bw_pattern_is_compiled(t->pattern))
        bw_log(BW_LOG_INFO, "%s: the system allows no generated code: splitting text will be slower", s->name);
    *out = t;
    return BW_OK;
fail:
    bw_tokenizer_destroy(t);
    return st;
}

/* ---- GGUF ---- */

enum { GGUF_NORMAL = 1, GGUF_CONTROL = 3, GGUF_USER_DEFINED = 4, GGUF_UNUSED = 5 };

static bw_status read_arrays(bw_token_source *s, const bw_token_arrays *a, bw_error *err)
{
    for (size_t i = 0; i < a->n_tokens; i++) {
        int32_t type = a->types ? a->types[i] : GGUF_NORMAL;
        bw_token_kind kind = BW_TOKEN_BASE;
        if (type == GGUF_CONTROL)
            kind = BW_TOKEN_SPECIAL;
        else if (type == GGUF_USER_DEFINED)
            kind = BW_TOKEN_PLAIN;
        else if (type == GGUF_UNUSED)
            kind = BW_TOKEN_NONE;
        else if (type != GGUF_NORMAL) {
            char quoted[QUOTE];
            return bw_fail(err, BW_E_UNSUPPORTED, "%s: tokenizer.ggml.token_type[%zu], of token %s, is %d: expected 1 "
                           "(normal), 3 (control), 4 (user-defined) or 5 (unused)", a->name, i,
                           bw_text_quote(quoted, sizeof quoted, a->tokens[i].data, a->tokens[i].n), type);
        }
        s->tokens[i] = (bw_token_entry){ (int64_t)i, kind, a->tokens[i] };
    }
    for (size_t i = 0; i < a->n_merges; i++)
        if (!bw_merge_split(&s->merges[i], a->merges[i])) {
            char quoted[QUOTE];
            return bw_fail(err, BW_E_FORMAT, "%s: tokenizer.ggml.merges[%zu] is %s: expected two tokens with one space "
                           "between them", a->name, i, bw_text_quote(quoted, sizeof quoted, a->merges[i].data, a->merges[i].n));
        }
    return BW_OK;
}

bw_status bw_tokenizer_from_arrays(bw_tokenizer **out, const bw_token_arrays *a, bw_error *err)
{
    *out = NULL;
    if (a->pre.n != strlen("qwen35") || memcmp(a->pre.data, "qwen35", a->pre.n) != 0) {
        char quoted[QUOTE];
        return bw_fail(err, BW_E_UNSUPPORTED, "%s: tokenizer.ggml.pre is %s: expected \"qwen35\", the only pre-tokeniser "
                       "known here", a->name, bw_text_quote(quoted, sizeof quoted, a->pre.data, a->pre.n));
    }
    if (a->n_tokens > MAX_TOKENS || a->n_merges > MAX_TOKENS)
        return bw_fail(err, BW_E_LIMIT, "%s: %zu tokens and %zu merges: expected at most %d of each", a->name, a->n_tokens,
                       a->n_merges, MAX_TOKENS);
    bw_token_source s = {
        .name = a->name,
        .tokens_field = "tokenizer.ggml.tokens",
        .merges_field = "tokenizer.ggml.merges",
        .tokens = bw_mem_zalloc(a->n_tokens, sizeof *s.tokens, BW_MEM_TEXT),
        .n_tokens = a->n_tokens,
        .merges = bw_mem_zalloc(a->n_merges, sizeof *s.merges, BW_MEM_TEXT),
        .n_merges = a->n_merges,
        .pattern = { bw_pattern_qwen35, strlen(bw_pattern_qwen35) },
        .nfc = true, /* GGUF cannot say it; the family's text is NFC */
    };
    bw_status st;
    if (!s.tokens || !s.merges)
        st = bw_fail_memory(err, "the vocabulary", a->n_tokens * sizeof *s.tokens + a->n_merges * sizeof *s.merges);
    else if (!(st = read_arrays(&s, a, err)))
        st = bw_tokenizer_build(out, &s, err);
    bw_mem_free(s.tokens);
    bw_mem_free(s.merges);
    return st;
}
