/* The tokenizer on small vocabularies made here: matching of added tokens, cutting, decoding in
 * pieces, stop strings, and everything a tokenizer.json must not be. */
#include "lib/check.h"

#include <stdlib.h>

#include "base/mem.h"
#include "base/pool.h"
#include "text/bpe.h"
#include "text/bytes.h"
#include "text/detokenizer.h"
#include "text/pyjson.h"
#include "text/stream.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

/* ---- a small tokenizer.json ---- */

#define PATTERN "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" \
                "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* Ids 0 to 255 are the bytes in the order of the alphabet (33.. first); then these, in rank order. */
static const char *const merges[][2] = { { "h", "e" },   { "l", "l" },   { "he", "ll" }, { "hell", "o" },
                                         { "\xC4\xA0", "hello" }, { "a", "a" },   { "aa", "aa" },  { "\xC4\x8A", "\xC4\x8A" } };
enum { N_MERGES = BW_COUNT(merges), HELLO = 259, SPACE_HELLO = 260, AA = 261, AAAA = 262, TWO_LINES = 263,
       END = 264, THINK = 265, THINKING = 266, END2 = 267 };

static void add_rune_key(bw_bytes *out, unsigned rune, int id)
{
    bw_bytes text = { 0 };
    char number[24];
    bw_bytes_add_rune(&text, rune);
    bw_json_print_string(out, text.data, text.n);
    snprintf(number, sizeof number, ": %d, ", id);
    bw_bytes_add_str(out, number);
    bw_bytes_fini(&text);
}

/* The 256 single bytes as members of model.vocab. */
static void add_alphabet(bw_bytes *out)
{
    int id = 0;
    for (unsigned c = 33; c < 256; c++)
        if (c <= 126 || (c >= 161 && c != 173))
            add_rune_key(out, c, id++);
    for (unsigned c = 0; c < 68; c++)
        add_rune_key(out, 0x100 + c, id++);
    check_int(id, 256);
}

static const char head[] =
    "{\"added_tokens\": [{\"id\": 264, \"content\": \"<|end|>\", \"special\": true},"
    " {\"id\": 265, \"content\": \"<think>\", \"special\": false}, {\"id\": 266, \"content\": \"<think>ing\", \"special\": false}],"
    " \"normalizer\": {\"type\": \"NFC\"}, \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": ["
    "{\"type\": \"Split\", \"pattern\": {\"Regex\": ";
static const char middle[] =
    "}, \"behavior\": \"Isolated\", \"invert\": false}, {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}]},"
    " \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"ignore_merges\": false, \"vocab\": {";
static const char config_text[] = "{\"added_tokens_decoder\": {\"264\": {\"content\": \"<|end|>\", \"special\": true},"
                                  " \"267\": {\"content\": \"<|end2|>\", \"special\": true}}}";

static char *small_json(void)
{
    bw_bytes out = { 0 };
    bw_bytes_add_str(&out, head);
    bw_json_print_string(&out, PATTERN, strlen(PATTERN));
    bw_bytes_add_str(&out, middle);
    add_alphabet(&out);
    char item[200];
    for (size_t i = 0; i < N_MERGES; i++) {
        snprintf(item, sizeof item, "%s\"%s%s\": %zu", i ? ", " : "", merges[i][0], merges[i][1], 256 + i);
        bw_bytes_add_str(&out, item);
    }
    bw_bytes_add_str(&out, "}, \"merges\": [");
    for (size_t i = 0; i < N_MERGES; i++) { /* both spellings */
        snprintf(item, sizeof item, i % 2 ? "%s\"%s %s\"" : "%s[\"%s\", \"%s\"]", i ? ", " : "", merges[i][0], merges[i][1]);
        bw_bytes_add_str(&out, item);
    }
    bw_bytes_add_str(&out, "]}}");
    check(!out.failed);
    return out.data;
}

static bw_status open_text(bw_tokenizer **out, const char *json, const char *config, bw_error *err)
{
    /* in blocks of exactly their size, so that a sanitizer sees any read behind them */
    size_t n = strlen(json), n_config = config ? strlen(config) : 0;
    char *block = malloc(n ? n : 1), *config_block = malloc(n_config ? n_config : 1);
    memcpy(block, json, n);
    memcpy(config_block, config ? config : "", n_config);
    bw_status st = bw_tokenizer_from_json(out, "t.json", block, n, "c.json", config ? config_block : NULL, n_config, err);
    free(block);
    free(config_block);
    return st;
}

static bw_tokenizer *small(void)
{
    bw_error err;
    bw_tokenizer *t;
    char *json = small_json();
    check_ok(open_text(&t, json, config_text, &err), err);
    bw_mem_free(json);
    return t;
}

/* ids as "1 2 3", in a ring of buffers */
static const char *encode_n(const bw_tokenizer *t, const char *text, size_t n, bw_match match)
{
    static char ring[4][4096];
    static int turn;
    char *out = ring[turn++ % 4];
    bw_error err;
    int32_t *ids;
    int n_ids, used = 0;
    out[0] = '\0';
    check_ok(bw_tokenizer_encode(t, text, n, match, &ids, &n_ids, &err), err);
    for (int i = 0; i < n_ids && used < 4000; i++)
        used += snprintf(out + used, 4096 - (size_t)used, "%s%d", i ? " " : "", ids[i]);
    bw_mem_free(ids);
    return out;
}

static const char *encode(const bw_tokenizer *t, const char *text, bw_match match)
{
    return encode_n(t, text, strlen(text), match);
}

/* ---- encoding ---- */

TEST(merges_go_by_rank_inside_pieces_only)
{
    bw_tokenizer *t = small();
    check_str(encode(t, "", BW_MATCH_ALL), "");
    check_str(encode(t, "hello", BW_MATCH_ALL), "259");
    check_str(encode(t, "hello hello", BW_MATCH_ALL), "259 260");
    check_str(encode(t, "aaaaaaa", BW_MATCH_ALL), "262 261 64");
    check_str(encode(t, "a\n\nb", BW_MATCH_ALL), "64 263 65");
    check_str(encode(t, "a1a", BW_MATCH_ALL), "64 16 64");
    check_str(encode_n(t, "\0", 1, BW_MATCH_ALL), "188");
    check_int(bw_tokenizer_n_tokens(t), 268);
    check_int(bw_tokenizer_n_ids(t), 268);
    check_int(bw_tokenizer_n_added(t), 4);
    bw_tokenizer_destroy(t);
}

TEST(the_longest_added_token_is_matched_by_its_exact_bytes)
{
    bw_tokenizer *t = small();
    check_str(encode(t, "<think>a<think>ing<think>in", BW_MATCH_ALL), "265 64 266 265 72 77");
    check_str(encode(t, "a<|end|>a", BW_MATCH_ALL), "64 264 64");
    check_str(encode(t, "aa<|end|>aa<|end2|>", BW_MATCH_ALL), "261 264 261 267");
    check(strstr(encode(t, "<|END|>", BW_MATCH_ALL), "264") == NULL);
    check_int(bw_tokenizer_find(t, "<|end|>", 7), END);
    check_int(bw_tokenizer_find(t, "<think>", 7), THINK);
    check_int(bw_tokenizer_find(t, " hello", 6), SPACE_HELLO);
    check_int(bw_tokenizer_find(t, "hell", 4), 258);
    check_int(bw_tokenizer_find(t, "hel", 3), -1);
    check_int(bw_tokenizer_find(t, "", 0), -1);
    check(bw_tokenizer_is_special(t, END) && !bw_tokenizer_is_special(t, THINK) && !bw_tokenizer_is_special(t, HELLO));
    check(!bw_tokenizer_is_token(t, -1) && !bw_tokenizer_is_token(t, 268) && bw_tokenizer_is_token(t, END2));
    bw_tokenizer_destroy(t);
}

TEST(a_message_body_cannot_end_its_turn_but_may_think)
{
    bw_tokenizer *t = small();
    check_str(encode(t, "<|end|>", BW_MATCH_PLAIN), "27 91 68 77 67 91 29");
    check_str(encode(t, "<think>ing<|end|>", BW_MATCH_PLAIN), "266 27 91 68 77 67 91 29");
    check_str(encode(t, "<think>", BW_MATCH_NONE), "27 83 71 72 77 74 29");
    bw_tokenizer_destroy(t);
}

static const char *encode_parts(const bw_tokenizer *t, const bw_text_part *parts, size_t n)
{
    static char out[400];
    bw_error err;
    int32_t *ids;
    int n_ids, used = 0;
    out[0] = '\0';
    check_ok(bw_tokenizer_encode_parts(t, parts, n, &ids, &n_ids, &err), err);
    for (int i = 0; i < n_ids; i++)
        used += snprintf(out + used, sizeof out - (size_t)used, "%s%d", i ? " " : "", ids[i]);
    bw_mem_free(ids);
    return out;
}

#define PART(text, match) { text, strlen(text), match }

TEST(parts_are_one_text_in_which_special_tokens_keep_to_the_markup)
{
    bw_tokenizer *t = small();
    const bw_text_part merged[] = { PART("<|end|>he", BW_MATCH_ALL), PART("llo\n", BW_MATCH_PLAIN), PART("\n<|end|>", BW_MATCH_ALL) };
    check_str(encode_parts(t, merged, 3), "264 259 263 264"); /* hello and the two line ends run across */
    const bw_text_part forged[] = { PART("<|end|>", BW_MATCH_ALL), PART("<|end|>", BW_MATCH_PLAIN), PART("<|end|>", BW_MATCH_ALL) };
    check_str(encode_parts(t, forged, 3), "264 27 91 68 77 67 91 29 264");
    const bw_text_part completed[] = { PART("<|en", BW_MATCH_PLAIN), PART("d|>", BW_MATCH_ALL), PART("<|e", BW_MATCH_ALL),
                                       PART("nd|>", BW_MATCH_PLAIN) };
    check(strstr(encode_parts(t, completed, 4), "264") == NULL);
    const bw_text_part whole[] = { PART("<|en", BW_MATCH_ALL), PART("", BW_MATCH_PLAIN), PART("d|>", BW_MATCH_ALL) };
    check(strstr(encode_parts(t, whole, 1), "264") == NULL);
    const bw_text_part joined[] = { PART("<|en", BW_MATCH_ALL), PART("d|>", BW_MATCH_ALL), PART("<think>", BW_MATCH_NONE),
                                    PART("<think>", BW_MATCH_PLAIN) };
    check_str(encode_parts(t, joined, 4), "264 27 83 71 72 77 74 29 265");
    check_str(encode_parts(t, NULL, 0), "");
    bw_tokenizer_destroy(t);
}

TEST(a_megabyte_of_anything_is_encoded_in_a_moment)
{
    enum { N = 1 << 20 };
    static const char *const units[] = { "a", " ", "\n", "\xCC\x81\xCC\x96", "<", "\xFF", "<think", "1", "hello ", " \xC2\xA0" };
    bw_tokenizer *t = small();
    char *text = malloc(N);
    for (size_t u = 0; u < BW_COUNT(units); u++) {
        size_t n_unit = strlen(units[u]), n = N / n_unit * n_unit;
        for (size_t i = 0; i < n; i++)
            text[i] = units[u][i % n_unit];
        bw_error err;
        int32_t *ids;
        int n_ids;
        check_ok(bw_tokenizer_encode(t, text, n, BW_MATCH_ALL, &ids, &n_ids, &err), err);
        check(n_ids > 0);
        if (u == 0)
            check_int(n_ids, N / 4);
        bw_mem_free(ids);
    }
    free(text);
    bw_tokenizer_destroy(t);
}

typedef struct shared {
    const bw_tokenizer *t;
    _Atomic int n_wrong;
} shared;

static void encode_unit(void *arg, int unit, int thread)
{
    shared *all = arg;
    bw_error err;
    int32_t *ids;
    int n_ids;
    (void)thread;
    const char *text = unit % 2 ? "hello hello<|end|>" : "aaaa\n\ne\xCC\x81";
    bool good = !bw_tokenizer_encode(all->t, text, strlen(text), BW_MATCH_ALL, &ids, &n_ids, &err) &&
                n_ids == (unit % 2 ? 3 : 4) && ids[0] == (unit % 2 ? HELLO : AAAA);
    all->n_wrong += !good;
    bw_mem_free(ids);
}

TEST(threads_share_a_tokenizer)
{
    bw_error err;
    bw_pool *pool;
    shared all = { .t = small() };
    check_ok(bw_pool_create(&pool, 3, &err), err);
    bw_pool_for(pool, 500, encode_unit, &all);
    check_int(all.n_wrong, 0);
    bw_pool_destroy(pool);
    bw_tokenizer_destroy((bw_tokenizer *)(uintptr_t)all.t);
}

/* Naive: the pair of lowest rank anywhere, leftmost, again and again. */
static size_t merge_naively(const bw_merges *m, int32_t *ids, size_t n)
{
    for (;;) {
        size_t at = n;
        const bw_merge *best = NULL;
        for (size_t i = 0; i + 1 < n; i++)
            for (uint64_t k = 0; k <= m->mask; k++) {
                const bw_merge *slot = &m->slots[k];
                if (slot->pair == ((uint64_t)(uint32_t)ids[i] << 32 | (uint32_t)ids[i + 1]) && (!best || slot->rank < best->rank)) {
                    best = slot;
                    at = i;
                }
            }
        if (!best)
            return n;
        ids[at] = best->result;
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
    }
}

TEST(short_and_long_pieces_merge_as_the_definition_says)
{
    bw_error err;
    int32_t byte_ids[256];
    for (int i = 0; i < 256; i++)
        byte_ids[i] = i;
    for (int round = 0; round < 60; round++) {
        bw_merges m = { 0 };
        bw_bpe_work work = { 0 };
        int n_tokens = 256, n_merges = rnd_int(1, 14);
        check_ok(bw_merges_init(&m, (size_t)n_merges, &err), err);
        for (int rank = 0; rank < n_merges; rank++) {
            int a = rnd_int(0, 1) && n_tokens > 256 ? rnd_int(256, n_tokens - 1) : rnd_int('a', 'c');
            int b = rnd_int(0, 1) && n_tokens > 256 ? rnd_int(256, n_tokens - 1) : rnd_int('a', 'c');
            n_tokens += bw_merges_put(&m, a, b, rank, n_tokens) < 0;
        }
        for (int k = 0; k < 20; k++) {
            char text[160];
            int32_t got[160], want[160];
            size_t n = (size_t)rnd_int(0, k % 2 ? 160 : 50), n_got;
            for (size_t i = 0; i < n; i++)
                want[i] = text[i] = (char)rnd_int('a', 'c');
            size_t n_want = merge_naively(&m, want, n);
            check_ok(bw_bpe_apply(&m, byte_ids, text, n, &work, got, &n_got, &err), err);
            check_that(n_got == n_want && memcmp(got, want, n_got * sizeof *got) == 0, "round %d: %.*s", round, (int)n, text);
        }
        bw_bpe_work_fini(&work);
        bw_merges_fini(&m);
    }
}

TEST(nfc_orders_marks_and_composes_across_long_runs)
{
    static const struct pair {
        const char *from, *to;
    } pairs[] = {
        { "e\u0301", "\u00E9" },           { "\u212B", "\u00C5" },         { "e\u0316\u0301", "\u00E9\u0316" },
        { "e\u0301\u0316", "\u00E9\u0316" }, { "\u1100\u1161\u11A8", "\uAC01" }, { "\u0958", "\u0915\u093C" },
        { "a\u0315\u0300\u05AE\u0300b", "\u00E0\u05AE\u0300\u0315" "b" }, { "\uFB01", "\uFB01" }, { "\u0344", "\u0308\u0301" },
    };
    bw_error err;
    for (size_t i = 0; i < BW_COUNT(pairs); i++) {
        const char *out;
        char *block;
        size_t n;
        check_ok(bw_nfc(&out, &n, &block, pairs[i].from, strlen(pairs[i].from), &err), err);
        check_that(n == strlen(pairs[i].to) && memcmp(out, pairs[i].to, n) == 0, "pair %zu", i);
        bw_mem_free(block);
    }
}

/* ---- decoding ---- */

TEST(decoding_any_cut_of_any_tokens_gives_the_same_text)
{
    bw_tokenizer *t = small();
    bw_error err;
    for (int round = 0; round < 2000; round++) {
        int32_t ids[12];
        int n_ids = rnd_int(0, 12);
        for (int i = 0; i < n_ids; i++) /* bytes above 127 most of the time: torn characters */
            ids[i] = rnd_int(0, 3) ? rnd_int(94, 187) : rnd_int(0, 267);
        for (int skip = 0; skip < 2; skip++) {
            char *want;
            size_t n_want, n;
            const char *text;
            check_ok(bw_tokenizer_decode(t, ids, (size_t)n_ids, skip, &want, &n_want, &err), err);
            check_int(bw_utf8_valid_prefix(want, n_want), n_want);
            bw_detokenizer *d;
            bw_bytes got = { 0 };
            check_ok(bw_detokenizer_create(&d, t, skip, &err), err);
            for (int i = 0; i < n_ids; i++) {
                check_ok(bw_detokenizer_push(d, ids[i], &text, &n, &err), err);
                check_int(bw_utf8_valid_prefix(text, n), n); /* never half a character */
                bw_bytes_add(&got, text, n);
            }
            bw_detokenizer_finish(d, &text, &n);
            bw_bytes_add(&got, text, n);
            check_str(got.data, want);
            bw_bytes_fini(&got);
            bw_detokenizer_destroy(d);
            bw_mem_free(want);
        }
    }
    bw_tokenizer_destroy(t);
}

TEST(decoding_skips_special_tokens_only_and_refuses_what_is_no_token)
{
    bw_tokenizer *t = small();
    bw_error err;
    char *text;
    size_t n;
    const int32_t ids[] = { HELLO, END, THINK, SPACE_HELLO };
    check_ok(bw_tokenizer_decode(t, ids, 4, false, &text, &n, &err), err);
    check_str(text, "hello<|end|><think> hello");
    bw_mem_free(text);
    check_ok(bw_tokenizer_decode(t, ids, 4, true, &text, &n, &err), err);
    check_str(text, "hello<think> hello");
    bw_mem_free(text);
    const int32_t bad[] = { HELLO, 268 }, negative[] = { -1 };
    check_error(bw_tokenizer_decode(t, bad, 2, false, &text, &n, &err), BW_E_ARGUMENT, err, "268", "number 2 of 2");
    check_error(bw_tokenizer_decode(t, negative, 1, false, &text, &n, &err), BW_E_ARGUMENT, err, "-1");
    bw_tokenizer_destroy(t);
}

TEST(any_text_survives_encoding_and_decoding_up_to_nfc)
{
    bw_tokenizer *t = small();
    bw_error err;
    for (int round = 0; round < 3000; round++) {
        char raw[64], clean[200], *back;
        size_t n = (size_t)rnd_int(0, 64), n_clean, n_back, n_nfc;
        for (size_t i = 0; i < n; i++)
            raw[i] = (char)(rnd_int(0, 2) ? "ahelo <|endthink>\n\xCC\x81\xC3\xA9"[rnd_int(0, 20)] : rnd_int(0, 255));
        n_clean = bw_utf8_replace(clean, raw, n);
        const char *nfc;
        char *block;
        check_ok(bw_nfc(&nfc, &n_nfc, &block, clean, n_clean, &err), err);
        int32_t *ids;
        int n_ids;
        check_ok(bw_tokenizer_encode(t, raw, n, BW_MATCH_NONE, &ids, &n_ids, &err), err);
        check_ok(bw_tokenizer_decode(t, ids, (size_t)n_ids, false, &back, &n_back, &err), err);
        check(n_back == n_nfc && memcmp(back, nfc, n_nfc) == 0);
        bw_mem_free(ids);
        bw_mem_free(back);
        bw_mem_free(block);
    }
    bw_tokenizer_destroy(t);
}

/* ---- streams ---- */

/* Pushes the bytes of text one token each, or as it is encoded; what came out. */
static const char *stream_text(const bw_tokenizer *t, const char *text, const char *const *stops, int n_stops, bool bytewise)
{
    static char out[4000];
    bw_error err;
    bw_stream *s;
    const char *piece;
    size_t n, used = 0;
    bool stopped = false;
    int32_t *ids;
    int n_ids;
    check_ok(bw_stream_create_from(&s, t, stops, n_stops, false, &err), err);
    check_ok(bw_tokenizer_encode(t, text, strlen(text), BW_MATCH_ALL, &ids, &n_ids, &err), err);
    int n_pushes = bytewise ? (int)strlen(text) : n_ids;
    for (int i = 0; i < n_pushes && !stopped; i++) {
        int32_t id = bytewise ? bw_tokenizer_find(t, text + i, 1) : ids[i];
        check_ok(bw_stream_push(s, id, &piece, &n, &stopped, &err), err);
        check_int(strlen(piece), n);
        memcpy(out + used, piece, n);
        used += n;
    }
    check_ok(bw_stream_finish(s, &piece, &n, &err), err);
    memcpy(out + used, piece, n);
    out[used + n] = '\0';
    bw_stream_destroy(s);
    bw_mem_free(ids);
    return out;
}

TEST(text_ends_before_the_first_stop_string_however_it_was_cut)
{
    static const char *const stops[] = { "lo h", "END", "EN", "abcd", "bc" };
    static const struct stop_case {
        const char *text, *want;
    } cases[] = {
        { "hello hello", "hel" },   { "hello", "hello" },     { "hello ", "hello " }, { "xxEND", "xx" }, { "E", "E" },
        { "xabcd", "xa" },          { "xab", "xab" },         { "EEN", "E" },         { "", "" },        { "lo lo lo h", "lo lo " },
        { "h\xC3\xA9llo", "h\xC3\xA9llo" }, { "aaaabc", "aaaa" },
    };
    bw_tokenizer *t = small();
    for (size_t i = 0; i < BW_COUNT(cases); i++) {
        check_str(stream_text(t, cases[i].text, stops, 5, true), cases[i].want);
        check_str(stream_text(t, cases[i].text, stops, 5, false), cases[i].want);
        check_str(stream_text(t, cases[i].text, NULL, 0, false), cases[i].text);
    }
    bw_tokenizer_destroy(t);
}

TEST(a_stream_holds_back_no_more_than_it_must)
{
    static const char *const stops[] = { "hello!" };
    bw_tokenizer *t = small();
    bw_error err;
    bw_stream *s;
    const char *text;
    size_t n;
    bool stopped;
    check_ok(bw_stream_create_from(&s, t, stops, 1, false, &err), err);
    check_ok(bw_stream_push(s, HELLO, &text, &n, &stopped, &err), err);
    check_str(text, "");
    check_ok(bw_stream_push(s, SPACE_HELLO, &text, &n, &stopped, &err), err);
    check_str(text, "hello ");
    check_ok(bw_stream_push(s, 0, &text, &n, &stopped, &err), err); /* "!" */
    check_str(text, "");
    check(stopped);
    check_ok(bw_stream_push(s, HELLO, &text, &n, &stopped, &err), err);
    check(stopped && n == 0);
    check_ok(bw_stream_finish(s, &text, &n, &err), err);
    check_int(n, 0);
    bw_stream_destroy(s);
    check_error(bw_stream_create_from(&s, t, (const char *const[]){ "" }, 1, false, &err), BW_E_ARGUMENT, err, "stop string 1");
    check(s == NULL);
    bw_tokenizer_destroy(t);
}

/* ---- what a tokenizer.json must not be ---- */

/* The small one with the first `from` replaced by `to`. */
static char *edited(const char *from, const char *to)
{
    char *json = small_json(), *at = strstr(json, from);
    check_that(at, "no %s in the small tokenizer", from);
    bw_bytes out = { 0 };
    bw_bytes_add(&out, json, (size_t)(at - json));
    bw_bytes_add_str(&out, to);
    bw_bytes_add_str(&out, at + strlen(from));
    bw_mem_free(json);
    return out.data;
}

TEST(what_is_wrong_with_a_tokenizer_is_said_with_file_field_and_expectation)
{
    static const struct mistake {
        const char *from, *to, *where, *what;
        bw_status status;
    } mistakes[] = {
        { "\"NFC\"", "\"NFKC\"", "normalizer", "NFKC", BW_E_UNSUPPORTED },
        { "{\"type\": \"NFC\"}", "7", "normalizer", "a whole number", BW_E_UNSUPPORTED },
        { "\"Sequence\"", "\"Whitespace\"", "pre_tokenizer", "Whitespace", BW_E_UNSUPPORTED },
        { "\"Split\"", "\"Digits\"", "pretokenizers[0]", "Digits", BW_E_UNSUPPORTED },
        { "\"Isolated\"", "\"Removed\"", "pretokenizers[0].behavior", "Isolated", BW_E_UNSUPPORTED },
        { "\"invert\": false", "\"invert\": true", "pretokenizers[0].invert", "true", BW_E_UNSUPPORTED },
        { "\"use_regex\": false", "\"use_regex\": true", "pretokenizers[1].use_regex", "true", BW_E_UNSUPPORTED },
        { "\"add_prefix_space\": false", "\"add_prefix_space\": true", "add_prefix_space", "off", BW_E_UNSUPPORTED },
        { "{\"Regex\": ", "{\"String\": ", "pattern", "Regex", BW_E_UNSUPPORTED },
        { "(?i:", "(?i", "split pattern", "group", BW_E_UNSUPPORTED },
        { "\\\\p{N}|", "\\\\w|", "split pattern", "\\w", BW_E_UNSUPPORTED },
        { "(?!\\\\S)", "(?!\\\\S", "split pattern", "compile", BW_E_FORMAT },
        { "\"decoder\": {\"type\": \"ByteLevel\"}", "\"decoder\": null", "decoder", "null", BW_E_UNSUPPORTED },
        { "\"BPE\"", "\"WordPiece\"", "model", "WordPiece", BW_E_UNSUPPORTED },
        { "\"ignore_merges\": false", "\"ignore_merges\": true", "model.ignore_merges", "true", BW_E_UNSUPPORTED },
        { "\"ignore_merges\": false", "\"byte_fallback\": true", "model.byte_fallback", "true", BW_E_UNSUPPORTED },
        { "\"ignore_merges\": false", "\"dropout\": 0.1", "model.dropout", "fraction", BW_E_UNSUPPORTED },
        { "\"ignore_merges\": false", "\"unk_token\": \"<unk>\"", "model.unk_token", "a string", BW_E_UNSUPPORTED },
        { "\"vocab\": {", "\"vocab\": [], \"x\": {", "model.vocab", "an array", BW_E_FORMAT },
        { "\"merges\": [", "\"merges\": {}, \"x\": [", "model.merges", "an object", BW_E_FORMAT },
        { "\"merges\": [", "\"merges\": [7, ", "model.merges[0]", "a whole number", BW_E_FORMAT },
        { "\"merges\": [", "\"merges\": [\"a b c\", ", "model.merges[0]", "two tokens", BW_E_FORMAT },
        { "\"merges\": [", "\"merges\": [[\"h\"], ", "model.merges[0]", "two tokens", BW_E_FORMAT },
        { "\"merges\": [", "\"merges\": [\"h e\", ", "model.merges[1]", "once", BW_E_FORMAT },
        { "\"merges\": [", "\"merges\": [\"hx e\", ", "model.merges[0]", "\"hx\" and \"e\": the first is no token", BW_E_FORMAT },
        { "\"merges\": [", "\"merges\": [\"h x\", ", "model.merges[0]", "together", BW_E_FORMAT },
        { "\"merges\": [", "\"merges\": [[\"\\u4e2d\", \"h\"], ", "model.merges[0]", "the first is no token", BW_E_FORMAT },
        { "\"hello\": 259", "\"hello\": 258", "vocab", "id 258", BW_E_FORMAT },
        { "\"hello\": 259", "\"hello\": -1", "vocab", "no token has id 259", BW_E_FORMAT },
        { "\"hello\": 259", "\"hello\": 4000000000", "vocab", "259", BW_E_FORMAT },
        { "\"hello\": 259", "\"hello\": 99999999999999999999", "vocab", "259", BW_E_FORMAT },
        { "\"hello\": 259", "\"hello\": \"x\"", "model.vocab.hello", "a string", BW_E_FORMAT },
        { "\"hello\": 259", "\"hello\": 2.5", "model.vocab.hello", "a fraction", BW_E_FORMAT },
        { "\"hello\": 259", "\"hell\": 259", "vocab", "id 258", BW_E_FORMAT },
        { "\"a\": 64", "\"ab\": 64", "vocab", "the byte 0x61", BW_E_FORMAT },
        { "\"id\": 264", "\"id\": 100000", "added tokens", "100000", BW_E_FORMAT },
        { "\"id\": 264", "\"id\": 3", "added tokens", "both have id 3", BW_E_FORMAT },
        { "\"id\": 264", "\"id\": \"264\"", "added_tokens[0].id", "a string", BW_E_FORMAT },
        { "\"content\": \"<|end|>\"", "\"content\": \"\"", "added tokens", "0 bytes", BW_E_FORMAT },
        { "\"content\": \"<|end|>\"", "\"content\": \"<think>\"", "added tokens", "both", BW_E_FORMAT },
        { "\"content\": \"<|end|>\"", "\"content\": 1", "added_tokens[0].content", "a whole number", BW_E_FORMAT },
        { "\"special\": true", "\"special\": 1", "added_tokens[0].special", "true or false", BW_E_FORMAT },
        { "\"special\": true", "\"lstrip\": true", "added_tokens[0].lstrip", "off", BW_E_UNSUPPORTED },
        { "\"special\": true", "\"single_word\": true", "added_tokens[0].single_word", "off", BW_E_UNSUPPORTED },
        { "\"added_tokens\": [", "\"added_tokens\": [[], ", "added_tokens[0]", "an array", BW_E_FORMAT },
        { "\"added_tokens\": [", "\"added_tokens\": 1, \"x\": [", "added_tokens", "a whole number", BW_E_FORMAT },
        { "\"model\"", "\"modell\"", "model", "null", BW_E_FORMAT },
        { "\"model\": {", "\"model\" {", "not JSON", "byte", BW_E_FORMAT },
        { "{\"added", "[\"added", "t.json", "", BW_E_FORMAT },
        { "]}}", "]}} x", "not JSON", "unexpected", BW_E_FORMAT },
        { "]}}", "]}", "too early", "byte", BW_E_FORMAT },
        { "<think>ing", "\xFF", "not JSON", "utf-8", BW_E_FORMAT },
    };
    for (size_t i = 0; i < BW_COUNT(mistakes); i++) {
        bw_error err = { 0 };
        bw_tokenizer *t = NULL;
        char *json = edited(mistakes[i].from, mistakes[i].to);
        bw_status st = open_text(&t, json, NULL, &err);
        check_that(st == mistakes[i].status && !t && strstr(err.message, "t.json") && strstr(err.message, mistakes[i].where) &&
                       strstr(err.message, mistakes[i].what),
                   "%s -> %s: status %s, %s", mistakes[i].from, mistakes[i].to, bw_status_name(st), err.message);
        bw_mem_free(json);
    }
}

TEST(what_contradicts_itself_between_the_two_files_is_refused)
{
    bw_error err;
    bw_tokenizer *t;
    char *json = small_json();
    static const char other[] = "{\"added_tokens_decoder\": {\"264\": {\"content\": \"<|stop|>\", \"special\": true}}}";
    check_error(open_text(&t, json, other, &err), BW_E_FORMAT, err, "c.json", "264", "<|stop|>", "<|end|>", "t.json");
    check_error(open_text(&t, json, "{\"added_tokens_decoder\": []}", &err), BW_E_FORMAT, err, "c.json", "added_tokens_decoder", "an array");
    check_error(open_text(&t, json, "{\"added_tokens_decoder\": {\"x\": {}}}", &err), BW_E_FORMAT, err, "c.json", "token id");
    check_error(open_text(&t, json, "{\"added_tokens_decoder\": {\"300\": 1}}", &err), BW_E_FORMAT, err, "c.json", "a whole number");
    check_error(open_text(&t, json, "", &err), BW_E_FORMAT, err, "c.json", "too early");
    check_error(open_text(&t, "", NULL, &err), BW_E_FORMAT, err, "t.json", "too early");
    check_error(bw_tokenizer_from_json(&t, "t.json", "{}\0x", 4, NULL, NULL, 0, &err), BW_E_FORMAT, err, "t.json", "follows", "byte 2");
    check_error(open_text(&t, "[5]", NULL, &err), BW_E_FORMAT, err, "t.json", "an object");
    bw_mem_free(json);
}

TEST(a_token_of_the_vocabulary_may_be_an_added_one_too)
{
    bw_error err;
    bw_tokenizer *t;
    char *json = edited("\"\xC4\x8A\xC4\x8A\": 263}", "\"\xC4\x8A\xC4\x8A\": 263, \"<b>\": 267}");
    check_ok(open_text(&t, json, "{\"added_tokens_decoder\": {\"267\": {\"content\": \"<b>\", \"special\": true}, "
                                 "\"268\": {\"content\": \"<c>\"}}}", &err), err);
    check_str(encode(t, "<b>a<c>", BW_MATCH_ALL), "267 64 268");
    check_str(encode(t, "<b>", BW_MATCH_PLAIN), "27 65 29");
    check(bw_tokenizer_is_special(t, 267));
    bw_tokenizer_destroy(t);
    bw_mem_free(json);
}

TEST(depth_without_end_is_refused)
{
    enum { N = 1 << 20 };
    char *deep = malloc(N + 1);
    memset(deep, '[', N);
    deep[N] = '\0';
    bw_error err;
    bw_tokenizer *t;
    check_error(open_text(&t, deep, NULL, &err), BW_E_FORMAT, err, "t.json", "deeper than 32");
    free(deep);
}

TEST(every_cut_of_a_tokenizer_is_refused)
{
    char *json = small_json();
    size_t n = strlen(json);
    for (size_t i = 0; i < n; i += 1 + i / 100) {
        bw_error err;
        bw_tokenizer *t;
        check(bw_tokenizer_from_json(&t, "t.json", json, i, NULL, NULL, 0, &err) == BW_E_FORMAT && !t);
    }
    bw_mem_free(json);
}

TEST(gguf_arrays_are_checked_too)
{
    static const bw_chars pad = { "[PAD]", 5 };
    bw_chars tokens[258], merge_texts[1] = { { "a b", 3 } };
    int32_t types[258];
    char texts[256][4];
    for (int i = 0; i < 256; i++) {
        bool plain = (i >= 33 && i <= 126) || (i >= 161 && i != 173);
        int k = i <= 32 ? i : i <= 160 ? i - 94 : 67;
        int rune = plain ? i : 0x100 + k;
        int n = rune < 0x80 ? 1 : 2;
        texts[i][0] = (char)(n == 1 ? rune : 0xC0 | rune >> 6);
        texts[i][1] = (char)(0x80 | (rune & 0x3F));
        tokens[i] = (bw_chars){ texts[i], (size_t)n };
        types[i] = 1;
    }
    tokens[256] = (bw_chars){ "ab", 2 };
    tokens[257] = pad;
    types[256] = 1;
    types[257] = 5;
    bw_token_arrays a = { "g.gguf", tokens, 258, types, merge_texts, 1, { "qwen35", 6 } };
    bw_error err;
    bw_tokenizer *t;
    check_ok(bw_tokenizer_from_arrays(&t, &a, &err), err);
    check_str(encode(t, "ab[PAD]", BW_MATCH_ALL), "256 91 80 65 68 93");
    check(!bw_tokenizer_is_token(t, 257));
    check_int(bw_tokenizer_n_ids(t), 257);
    bw_tokenizer_destroy(t);
    types[257] = 3;
    check_ok(bw_tokenizer_from_arrays(&t, &a, &err), err);
    check_str(encode(t, "ab[PAD]", BW_MATCH_ALL), "256 257");
    bw_tokenizer_destroy(t);
    types[257] = 6;
    check_error(bw_tokenizer_from_arrays(&t, &a, &err), BW_E_UNSUPPORTED, err, "g.gguf", "token_type[257]", "6");
    types[257] = 1;
    tokens[257] = tokens[256];
    check_error(bw_tokenizer_from_arrays(&t, &a, &err), BW_E_FORMAT, err, "g.gguf", "256 and 257");
    tokens[257] = (bw_chars){ "", 0 };
    check_error(bw_tokenizer_from_arrays(&t, &a, &err), BW_E_FORMAT, err, "g.gguf", "0 bytes");
    types[257] = 5;
    merge_texts[0] = (bw_chars){ "ab", 2 };
    check_error(bw_tokenizer_from_arrays(&t, &a, &err), BW_E_FORMAT, err, "g.gguf", "merges[0]", "one space");
    a.pre = (bw_chars){ "llama-bpe", 9 };
    check_error(bw_tokenizer_from_arrays(&t, &a, &err), BW_E_UNSUPPORTED, err, "g.gguf", "llama-bpe", "qwen35");
    a.pre = (bw_chars){ "qwen35", 6 };
    a.n_tokens = a.n_merges = 0;
    check_error(bw_tokenizer_from_arrays(&t, &a, &err), BW_E_FORMAT, err, "g.gguf", "0 tokens");
}

/* ---- no memory ---- */

static bw_status open_and_use(const char *json, bw_error *err)
{
    bw_tokenizer *t;
    bw_status st = open_text(&t, json, config_text, err);
    if (st)
        return st;
    int32_t *ids;
    int n_ids;
    static const char text[] = "hello <|end|> e\xCC\x81 \xFF aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    if (!(st = bw_tokenizer_encode(t, text, strlen(text), BW_MATCH_ALL, &ids, &n_ids, err))) {
        char *back;
        size_t n;
        bw_stream *s;
        if (!(st = bw_tokenizer_decode(t, ids, (size_t)n_ids, false, &back, &n, err)))
            bw_mem_free(back);
        if (!st && !(st = bw_stream_create_from(&s, t, (const char *const[]){ "xyz" }, 1, false, err))) {
            const char *piece;
            bool stopped;
            for (int i = 0; i < n_ids && !st; i++)
                st = bw_stream_push(s, ids[i], &piece, &n, &stopped, err);
            bw_stream_destroy(s);
        }
        bw_mem_free(ids);
    }
    bw_tokenizer_destroy(t);
    return st;
}

TEST(every_allocation_may_fail_and_nothing_leaks)
{
    char *json = small_json();
    uint64_t before = bw_mem_used(BW_MEM_TEXT);
    bool failed = true;
    for (long n = 1; failed; n++) {
        bw_error err = { 0 };
        bw_mem_fail_at(n);
        bw_status st = open_and_use(json, &err);
        failed = bw_mem_fail_at(0);
        check_that(failed ? st == BW_E_MEMORY || st == BW_OK : st == BW_OK, "allocation %ld: %s", n, err.message);
        check_int(bw_mem_used(BW_MEM_TEXT), before);
        check(n < 1000);
    }
    bw_mem_free(json);
}

TESTS_MAIN(ENTRY(merges_go_by_rank_inside_pieces_only), ENTRY(the_longest_added_token_is_matched_by_its_exact_bytes),
           ENTRY(a_message_body_cannot_end_its_turn_but_may_think),
           ENTRY(parts_are_one_text_in_which_special_tokens_keep_to_the_markup),
           ENTRY(a_megabyte_of_anything_is_encoded_in_a_moment), ENTRY(short_and_long_pieces_merge_as_the_definition_says),
           ENTRY(threads_share_a_tokenizer), ENTRY(nfc_orders_marks_and_composes_across_long_runs),
           ENTRY(decoding_any_cut_of_any_tokens_gives_the_same_text),
           ENTRY(decoding_skips_special_tokens_only_and_refuses_what_is_no_token),
           ENTRY(any_text_survives_encoding_and_decoding_up_to_nfc),
           ENTRY(text_ends_before_the_first_stop_string_however_it_was_cut), ENTRY(a_stream_holds_back_no_more_than_it_must),
           ENTRY(what_is_wrong_with_a_tokenizer_is_said_with_file_field_and_expectation),
           ENTRY(what_contradicts_itself_between_the_two_files_is_refused), ENTRY(a_token_of_the_vocabulary_may_be_an_added_one_too),
           ENTRY(depth_without_end_is_refused),
           ENTRY(every_cut_of_a_tokenizer_is_refused), ENTRY(gguf_arrays_are_checked_too),
           ENTRY(every_allocation_may_fail_and_nothing_leaks))
