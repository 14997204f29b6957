/* fuzz_tokenizer.c - any bytes as a tokenizer.json and, after a line "%%%", a text: the file is taken
 * or refused with a message; a tokenizer that was taken decodes what it encodes, whole or in pieces. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool good)
{
    if (!good)
        abort();
}

/* The pieces of a detokenizer are the text of the whole. */
static void check_pieces(const bw_tokenizer *t, const int32_t *ids, int n_ids, const char *whole, size_t n_whole)
{
    bw_error err;
    bw_detokenizer *d;
    const char *text;
    size_t n, used = 0;
    must(bw_detokenizer_create(&d, t, false, &err) == BW_OK);
    for (int i = 0; i <= n_ids; i++) {
        if (i < n_ids)
            must(bw_detokenizer_push(d, ids[i], &text, &n, &err) == BW_OK);
        else
            bw_detokenizer_finish(d, &text, &n);
        must(n <= n_whole - used && memcmp(whole + used, text, n) == 0 && bw_utf8_valid_prefix(text, n) == n);
        used += n;
    }
    must(used == n_whole);
    bw_detokenizer_destroy(d);
}

static void use(const bw_tokenizer *t, const char *text, size_t n)
{
    for (int match = BW_MATCH_ALL; match <= BW_MATCH_NONE; match++) {
        bw_error err;
        int32_t *ids, *again;
        int n_ids, n_again;
        char *back, *last;
        size_t n_back, n_last;
        bw_status st = bw_tokenizer_encode(t, text, n, (bw_match)match, &ids, &n_ids, &err);
        must(st == BW_OK || st == BW_E_LIMIT); /* the pattern may be one that never ends */
        if (st)
            continue;
        must(bw_tokenizer_decode(t, ids, (size_t)n_ids, false, &back, &n_back, &err) == BW_OK);
        check_pieces(t, ids, n_ids, back, n_back);
        if (bw_tokenizer_encode(t, back, n_back, (bw_match)match, &again, &n_again, &err) == BW_OK) {
            must(bw_tokenizer_decode(t, again, (size_t)n_again, false, &last, &n_last, &err) == BW_OK);
            must(match != BW_MATCH_NONE || (n_last == n_back && memcmp(last, back, n_back) == 0));
            bw_mem_free(again);
            bw_mem_free(last);
        }
        bw_mem_free(ids);
        bw_mem_free(back);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char mark[] = "\n%%%\n";
    const char *json = (const char *)data, *text = json + n;
    size_t n_json = n;
    for (size_t i = 0; i + 5 <= n; i++)
        if (memcmp(json + i, mark, 5) == 0) {
            n_json = i;
            text = json + i + 5;
            break;
        }
    bw_error err = { 0 };
    bw_tokenizer *t;
    /* once alone, once with itself as the configuration */
    for (int both = 0; both < 2; both++) {
        bw_status st = bw_tokenizer_from_json(&t, "t", json, n_json, "c", both ? json : NULL, n_json, &err);
        must(st == BW_OK ? t != NULL : t == NULL && err.message[0] && !strchr(err.message, '\n'));
        if (st == BW_OK)
            use(t, text, n - (size_t)(text - json));
        bw_tokenizer_destroy(t);
    }
    uint64_t used = bw_mem_used(BW_MEM_TEXT);
    must(used == 0);
    return 0;
}
