/* tokenizer.c - encoding, decoding and questions about tokens; see tokenizer.h. Making a tokenizer is
 * in token_source.c and tokenizer_json.c. */
#include "text/tokenizer.h"

#include <string.h>

#include "base/mem.h"
#include "text/token_source.h"
#include "text/unicode.h"

void bw_tokenizer_destroy(bw_tokenizer *t)
{
    if (!t)
        return;
    bw_vocab_fini(&t->vocab);
    bw_merges_fini(&t->merges);
    bw_pattern_destroy(t->pattern);
    bw_mem_free(t);
}

/* ---- encoding ---- */

/* One call's state. The text is all parts, made well-formed; ids grow as needed. */
typedef struct encoding {
    const bw_tokenizer *t;
    bw_splitter splitter;
    bw_bpe_work work;
    char *text;
    size_t n;
    size_t *ends; /* [n_parts]: where each part ends in text */
    int32_t *ids;
    size_t n_ids, room;
} encoding;

static bw_status reserve(encoding *e, size_t more, bw_error *err)
{
    if (more <= e->room - e->n_ids)
        return BW_OK;
    size_t room = e->room + e->room / 2 + more + 64;
    int32_t *ids = bw_mem_realloc(e->ids, room * sizeof *ids, BW_MEM_TEXT);
    if (!ids)
        return bw_fail_memory(err, "encoding text", room * sizeof *ids);
    e->ids = ids;
    e->room = room;
    return BW_OK;
}

/* All parts one after the other, malformed bytes replaced. */
static bw_status join(encoding *e, const bw_text_part *parts, size_t n_parts, bw_error *err)
{
    size_t room = 1;
    for (size_t i = 0; i < n_parts; i++) {
        if (parts[i].n_bytes > BW_MAX_TEXT_BYTES - room)
            return bw_fail(err, BW_E_LIMIT, "encoding text: more than %d bytes: encode it in smaller pieces", BW_MAX_TEXT_BYTES);
        room += parts[i].n_bytes;
    }
    bool good = true;
    for (size_t i = 0; i < n_parts && good; i++)
        good = bw_utf8_valid_prefix(parts[i].text, parts[i].n_bytes) == parts[i].n_bytes;
    room *= good ? 1 : 3;
    e->text = bw_mem_alloc(room, BW_MEM_TEXT);
    e->ends = bw_mem_zalloc(n_parts + 1, sizeof *e->ends, BW_MEM_TEXT);
    if (!e->text || !e->ends)
        return bw_fail_memory(err, "encoding text", room);
    for (size_t i = 0; i < n_parts; i++) {
        e->n += bw_utf8_replace(e->text + e->n, parts[i].text, parts[i].n_bytes);
        e->ends[i] = e->n;
    }
    return BW_OK;
}

/* Steps 3 to 5: text without added tokens. */
static bw_status encode_ordinary(encoding *e, const char *text, size_t n, bw_error *err)
{
    char *block = NULL;
    bw_status st = e->t->nfc ? bw_nfc(&text, &n, &block, text, n, err) : BW_OK;
    if (st)
        return st;
    bw_splitter_begin(&e->splitter, text, n);
    const char *piece;
    size_t length, made;
    while (!(st = bw_splitter_next(&e->splitter, &piece, &length, err)) && length) {
        if ((st = reserve(e, length, err)) ||
            (st = bw_bpe_apply(&e->t->merges, e->t->vocab.byte_ids, piece, length, &e->work, e->ids + e->n_ids, &made, err)))
            break;
        e->n_ids += made;
    }
    bw_mem_free(block);
    return st;
}

/* Step 2, and the rest for what lies between. */
static bw_status encode_all(encoding *e, const bw_text_part *parts, size_t n_parts, bw_error *err)
{
    const bw_vocab *v = &e->t->vocab;
    bw_status st;
    size_t from = 0, at = 0, part = 0;
    size_t special_end = 0, plain_end = 0; /* how far a match that begins here may reach */
    for (bool entered = true; at < e->n;) {
        for (; at >= e->ends[part]; entered = true)
            part++;
        if (entered) {
            special_end = plain_end = at;
            for (size_t k = part; k < n_parts && parts[k].match == BW_MATCH_ALL; k++)
                special_end = e->ends[k];
            for (size_t k = part; k < n_parts && parts[k].match != BW_MATCH_NONE; k++)
                plain_end = e->ends[k];
            entered = false;
        }
        size_t length;
        int32_t id = -1;
        if (plain_end == at)
            at = e->ends[part] - 1; /* nothing is matched in this part */
        else if (v->begins[(unsigned char)e->text[at]])
            id = bw_vocab_match_added(v, e->text + at, special_end > at ? special_end - at : 0, plain_end - at, &length);
        if (id < 0) {
            at++;
            continue;
        }
        if ((st = encode_ordinary(e, e->text + from, at - from, err)) || (st = reserve(e, 1, err)))
            return st;
        e->ids[e->n_ids++] = id;
        from = at += length;
    }
    return encode_ordinary(e, e->text + from, e->n - from, err);
}

bw_status bw_tokenizer_encode_parts(const bw_tokenizer *t, const bw_text_part *parts, size_t n_parts, int32_t **ids,
                                    int *n_ids, bw_error *err)
{
    *ids = NULL;
    *n_ids = 0;
    encoding e = { .t = t };
    bw_status st;
    if (!(st = bw_splitter_init(&e.splitter, t->pattern, err)) && !(st = join(&e, parts, n_parts, err)) &&
        !(st = reserve(&e, 1, err)))
        st = encode_all(&e, parts, n_parts, err);
    bw_splitter_fini(&e.splitter);
    bw_bpe_work_fini(&e.work);
    bw_mem_free(e.text);
    bw_mem_free(e.ends);
    if (st) {
        bw_mem_free(e.ids);
        return st;
    }
    *ids = e.ids;
    *n_ids = (int)e.n_ids; /* at most a token a byte: below 3 * BW_MAX_TEXT_BYTES */
    return BW_OK;
}

bw_status bw_tokenizer_encode(const bw_tokenizer *t, const char *text, size_t n_bytes, bw_match match, int32_t **ids,
                              int *n_ids, bw_error *err)
{
    bw_text_part part = { text, n_bytes, match };
    return bw_tokenizer_encode_parts(t, &part, 1, ids, n_ids, err);
}

/* ---- decoding ---- */

bw_status bw_tokenizer_decode(const bw_tokenizer *t, const int32_t *ids, size_t n_ids, bool skip_special, char **text,
                              size_t *n_bytes, bw_error *err)
{
    *text = NULL;
    *n_bytes = 0;
    size_t total = 0, n;
    for (size_t i = 0; i < n_ids; i++) {
        if (!bw_tokenizer_bytes(t, ids[i], &n))
            return bw_fail(err, BW_E_ARGUMENT, "id %d (number %zu of %zu) is no token: expected ids below %d that are tokens",
                           ids[i], i + 1, n_ids, bw_tokenizer_n_ids(t));
        if (n > SIZE_MAX / 8 - total)
            return bw_fail_memory(err, "decoding tokens", SIZE_MAX);
        total += n;
    }
    char *bytes = bw_mem_alloc(total, BW_MEM_TEXT), *out = bytes ? bw_mem_alloc(3 * total + 1, BW_MEM_TEXT) : NULL;
    if (!out) {
        bw_mem_free(bytes);
        return bw_fail_memory(err, "decoding tokens", 4 * total + 1);
    }
    size_t used = 0;
    for (size_t i = 0; i < n_ids; i++) {
        if (skip_special && bw_tokenizer_is_special(t, ids[i]))
            continue;
        const char *token = bw_tokenizer_bytes(t, ids[i], &n);
        memcpy(bytes + used, token, n);
        used += n;
    }
    *n_bytes = bw_utf8_replace(out, bytes, used);
    out[*n_bytes] = '\0';
    *text = out;
    bw_mem_free(bytes);
    return BW_OK;
}

/* ---- tokens ---- */

int bw_tokenizer_n_ids(const bw_tokenizer *t)
{
    return t->vocab.n_rows;
}

int bw_tokenizer_n_tokens(const bw_tokenizer *t)
{
    return t->vocab.n_tokens;
}

int bw_tokenizer_n_added(const bw_tokenizer *t)
{
    return t->n_added;
}

bool bw_tokenizer_is_token(const bw_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->vocab.n_rows && t->vocab.rows[id].kind != BW_TOKEN_NONE;
}

bool bw_tokenizer_is_special(const bw_tokenizer *t, int32_t id)
{
    return bw_tokenizer_is_token(t, id) && t->vocab.rows[id].kind == BW_TOKEN_SPECIAL;
}

const char *bw_tokenizer_bytes(const bw_tokenizer *t, int32_t id, size_t *n_bytes)
{
    *n_bytes = 0;
    if (!bw_tokenizer_is_token(t, id))
        return NULL;
    *n_bytes = t->vocab.rows[id].n;
    return t->vocab.bytes + t->vocab.rows[id].offset;
}

size_t bw_tokenizer_longest(const bw_tokenizer *t)
{
    return t->vocab.longest;
}

int32_t bw_tokenizer_find(const bw_tokenizer *t, const char *text, size_t n_bytes)
{
    size_t length = 0;
    int32_t id = n_bytes ? bw_vocab_match_added(&t->vocab, text, n_bytes, n_bytes, &length) : -1;
    return id >= 0 && length == n_bytes ? id : bw_vocab_find_base(&t->vocab, text, n_bytes);
}
