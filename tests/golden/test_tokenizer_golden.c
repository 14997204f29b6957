/* The tokenizer against the `tokenizers` library, recorded in tests/golden/tokenizer by
 * tools/golden/make_tokenizer.py, over the vocabulary of models/lamb; and the vectors of
 * docs/tokenizer.md, which need the family's own vocabulary. */
#include "lib/check.h"

#include <stdlib.h>

#include <json-c/json.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "text/tokenizer.h"

static bw_tokenizer *open_json(const char *path, const char *config_path)
{
    bw_error err;
    bw_tokenizer *t;
    size_t n, n_config = 0;
    char *json = read_file(path, &n), *config = config_path ? read_file(config_path, &n_config) : NULL;
    check_ok(bw_tokenizer_from_json(&t, path, json, n, config_path, config, n_config, &err), err);
    free(json);
    free(config);
    return t;
}

static bw_tokenizer *lamb(void)
{
    return open_json(repo_path("models/lamb/tokenizer.json"), repo_path("models/lamb/tokenizer_config.json"));
}

/* The same vocabulary as a GGUF file would list it. */
static bw_tokenizer *lamb_arrays(void)
{
    enum { ROWS = 8256, BASE = 8192 };
    static const char *const holes = "[PAD]";
    char *json = read_file(repo_path("models/lamb/tokenizer.json"), NULL);
    char *config = read_file(repo_path("models/lamb/tokenizer_config.json"), NULL);
    struct json_object *root = json_tokener_parse(json), *more = json_tokener_parse(config);
    struct json_object *model = json_object_object_get(root, "model"), *merges = json_object_object_get(model, "merges");
    bw_chars *tokens = calloc(ROWS, sizeof *tokens);
    int32_t *types = calloc(ROWS, sizeof *types);
    for (int i = 0; i < ROWS; i++) {
        tokens[i] = (bw_chars){ holes, strlen(holes) };
        types[i] = 5;
    }
    json_object_object_foreach(json_object_object_get(model, "vocab"), text, id)
    {
        tokens[json_object_get_int(id)] = (bw_chars){ text, strlen(text) };
        types[json_object_get_int(id)] = 1;
    }
    json_object_object_foreach(json_object_object_get(more, "added_tokens_decoder"), key, token)
    {
        const char *content = json_object_get_string(json_object_object_get(token, "content"));
        tokens[atoi(key)] = (bw_chars){ content, strlen(content) };
        types[atoi(key)] = json_object_get_boolean(json_object_object_get(token, "special")) ? 3 : 4;
    }
    size_t n = json_object_array_length(merges);
    bw_chars *pairs = calloc(n, sizeof *pairs);
    for (size_t i = 0; i < n; i++) {
        struct json_object *pair = json_object_array_get_idx(merges, i);
        char joined[2000];
        snprintf(joined, sizeof joined, "%s %s", json_object_get_string(json_object_array_get_idx(pair, 0)),
                 json_object_get_string(json_object_array_get_idx(pair, 1)));
        pairs[i] = (bw_chars){ strdup(joined), strlen(joined) };
    }
    bw_token_arrays arrays = { "lamb.gguf", tokens, ROWS, types, pairs, n, { "qwen35", 6 } };
    bw_error err;
    bw_tokenizer *t;
    check_ok(bw_tokenizer_from_arrays(&t, &arrays, &err), err);
    for (size_t i = 0; i < n; i++)
        free((void *)(uintptr_t)pairs[i].data);
    free(pairs);
    free(tokens);
    free(types);
    json_object_put(root);
    json_object_put(more);
    free(json);
    free(config);
    return t;
}

/* ---- reading the recorded files ---- */

/* The next line that is not a comment, NUL-terminated in place; NULL at the end. */
static char *next_line(char **at)
{
    while (**at) {
        char *line = *at, *end = strchr(line, '\n');
        check(end);
        *end = '\0';
        *at = end + 1;
        if (line[0] != '#')
            return line;
    }
    return NULL;
}

static int read_ids(const char *text, int32_t *ids, int most)
{
    int n = 0;
    for (char *end;; text = end) {
        long id = strtol(text, &end, 10);
        if (end == text)
            return n;
        check(n < most);
        ids[n++] = (int32_t)id;
    }
}

static int nibble(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

static size_t unescape(char *text)
{
    size_t n = 0;
    for (const char *s = text; *s; s++) {
        if (*s == '\\') {
            check(s[1] == 'x');
            text[n++] = (char)(nibble(s[2]) * 16 + nibble(s[3]));
            s += 3;
        } else {
            text[n++] = *s;
        }
    }
    return n;
}

static size_t unhex(char *hex)
{
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++)
        hex[i] = (char)(nibble(hex[2 * i]) * 16 + nibble(hex[2 * i + 1]));
    hex[n] = '\0';
    return n;
}

static int encode(const bw_tokenizer *t, const char *text, size_t n, int32_t **ids)
{
    bw_error err;
    int n_ids;
    check_ok(bw_tokenizer_encode(t, text, n, BW_MATCH_ALL, ids, &n_ids, &err), err);
    return n_ids;
}

static bool same_ids(const int32_t *a, int n_a, const int32_t *b, int n_b)
{
    return n_a == n_b && memcmp(a, b, (size_t)n_a * sizeof *a) == 0;
}

/* ---- strings ---- */

enum { MAX_IDS = 20000 };

static void check_strings(bw_tokenizer *t)
{
    static int32_t want[MAX_IDS];
    char *file = read_file(repo_path("tests/golden/tokenizer/strings.txt"), NULL), *at = file, *line;
    int count = 0;
    for (; (line = next_line(&at)); count++) {
        char *text = strchr(line, '\t');
        check(text);
        *text++ = '\0';
        int n_want = read_ids(line, want, MAX_IDS), n_got;
        size_t n = unescape(text), n_back, n_again;
        int32_t *got, *again;
        n_got = encode(t, text, n, &got);
        check_that(same_ids(got, n_got, want, n_want), "string %d, %s: %d ids, the library has %d", count + 1, text, n_got, n_want);
        /* decoding gives the text in NFC; encoding that gives the ids again */
        bw_error err;
        char *back, *last;
        check_ok(bw_tokenizer_decode(t, got, (size_t)n_got, false, &back, &n_back, &err), err);
        int n_ids = encode(t, back, n_back, &again);
        check_ok(bw_tokenizer_decode(t, again, (size_t)n_ids, false, &last, &n_again, &err), err);
        check(n_again == n_back && memcmp(last, back, n_back) == 0);
        bw_mem_free(got);
        bw_mem_free(back);
        bw_mem_free(again);
        bw_mem_free(last);
    }
    check_int(count, 10000);
    free(file);
    bw_tokenizer_destroy(t);
}

TEST(ten_thousand_strings_have_the_ids_of_the_library)
{
    check_strings(lamb());
}

TEST(the_same_vocabulary_as_gguf_arrays_gives_the_same_ids)
{
    check_strings(lamb_arrays());
}

TEST(malformed_bytes_become_what_python_replaces_them_with)
{
    bw_tokenizer *t = lamb();
    char *file = read_file(repo_path("tests/golden/tokenizer/replace.txt"), NULL), *at = file, *line;
    int count = 0;
    for (; (line = next_line(&at)); count++) {
        char *clean = strchr(line, '\t');
        check(clean);
        *clean++ = '\0';
        size_t n = unhex(line), n_clean = unhex(clean);
        int32_t *got, *want;
        int n_got = encode(t, line, n, &got), n_want = encode(t, clean, n_clean, &want);
        check_that(same_ids(got, n_got, want, n_want), "case %d", count + 1);
        bw_mem_free(got);
        bw_mem_free(want);
    }
    check_int(count, 500);
    free(file);
    bw_tokenizer_destroy(t);
}

/* ---- every code point ---- */

enum { N_POINTS = 0x110000, N_SURROUNDINGS = 4 };
static const char *const before[N_SURROUNDINGS] = { "", "e", "a\u0315", "" };
static const char *const after[N_SURROUNDINGS] = { "'s", "\u0316", "", "\u0338" };

static char *differs; /* [N_SURROUNDINGS][N_POINTS]: listed in differences.txt */

static size_t put_point(char *out, unsigned c)
{
    return (size_t)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)out);
}

static size_t surround(char *out, int k, unsigned c)
{
    size_t n = strlen(before[k]);
    memcpy(out, before[k], n);
    n += put_point(out + n, c);
    memcpy(out + n, after[k], strlen(after[k]));
    return n + strlen(after[k]);
}

/* Two lists of ids, after the two bars of a line. */
static void check_line(const bw_tokenizer *t, const char *line, const char *text, size_t n)
{
    int32_t library[64], here[64], *got;
    const char *bar = strchr(line, '|'), *other = bar ? strchr(bar + 1, '|') : NULL;
    check(other);
    int n_library = read_ids(bar + 1, library, 64), n_here = read_ids(other + 1, here, 64), n_got = encode(t, text, n, &got);
    check_that(same_ids(got, n_got, library, n_library) || same_ids(got, n_got, here, n_here),
               "%s: neither the library's ids nor the recorded ones", line);
    bw_mem_free(got);
}

static size_t join_ids(const bw_tokenizer *t, int32_t *ids, const char *const *texts)
{
    size_t n = 0;
    for (; *texts; texts++) {
        int32_t *some;
        int n_some = encode(t, *texts, strlen(*texts), &some);
        memcpy(ids + n, some, (size_t)n_some * sizeof *ids);
        n += (size_t)n_some;
        bw_mem_free(some);
    }
    return n;
}

/* c is a letter before 's, or a symbol that takes the apostrophe with it. */
static void check_range_point(const bw_tokenizer *t, unsigned c)
{
    char text[32], point[8] = "";
    put_point(point, c);
    int32_t letter[16], symbol[16], *got;
    size_t n_letter = join_ids(t, letter, (const char *[]){ point, "'s", NULL });
    size_t n_symbol = join_ids(t, symbol, (const char *[]){ point, "'", "s", NULL });
    int n_got = encode(t, text, surround(text, 0, c), &got);
    check_that(same_ids(got, n_got, letter, (int)n_letter) || same_ids(got, n_got, symbol, (int)n_symbol),
               "U+%04X 's: neither as after a letter nor as after a symbol", c);
    check(n_letter < n_symbol);
    bw_mem_free(got);
}

static void check_differences(const bw_tokenizer *t, int *n_lines)
{
    char *file = read_file(repo_path("tests/golden/tokenizer/differences.txt"), NULL), *at = file, *line;
    differs = calloc(N_SURROUNDINGS, N_POINTS);
    for (; (line = next_line(&at)); ++*n_lines) {
        unsigned first, last;
        int k;
        char text[64], *hex = line + 5, *bar = strchr(line, '|');
        if (sscanf(line, "range %X %X", &first, &last) == 2) {
            for (unsigned c = first; c <= last; c++) {
                check_range_point(t, c);
                differs[c] = 1;
            }
        } else if (sscanf(line, "ids %d %X", &k, &first) == 2 && k > 0 && k < N_SURROUNDINGS && first < N_POINTS) {
            check_line(t, line, text, surround(text, k, first));
            differs[(size_t)k * N_POINTS + first] = 1;
        } else {
            check(strncmp(line, "text ", 5) == 0 && bar && bar - hex < 60);
            snprintf(text, sizeof text, "%.*s", (int)(bar - hex - 1), hex);
            check_line(t, line, text, unhex(text));
        }
    }
    free(file);
}

/* The tables these files were recorded with; other ones know other code points. */
static bool recorded_tables(void)
{
    char version[64] = "";
    pcre2_config(PCRE2_CONFIG_UNICODE_VERSION, version);
    return strcmp(version, "14.0.0") == 0 && strcmp(utf8proc_unicode_version(), "15.0.0") == 0;
}

static uint64_t checksum_block(const bw_tokenizer *t, unsigned block, int k)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (unsigned c = block * 4096; c < (block + 1) * 4096; c++) {
        char text[32];
        int32_t *ids;
        if ((c >= 0xD800 && c < 0xE000) || differs[(size_t)k * N_POINTS + c])
            continue;
        int n = encode(t, text, surround(text, k, c), &ids);
        for (int i = 0; i <= n; i++)
            h = (h ^ (i < n ? (uint32_t)ids[i] : 0xFFFFFFFFu)) * 0x100000001B3u;
        bw_mem_free(ids);
    }
    return h;
}

TEST(every_code_point_has_the_ids_of_the_library_but_for_the_listed_ones)
{
    if (!recorded_tables())
        skip_because("recorded with the Unicode tables of PCRE2 10.42 and utf8proc 2.8, here are others");
    bw_tokenizer *t = lamb();
    int n_lines = 0, n_blocks = 0, k;
    check_differences(t, &n_lines);
    check_that(n_lines > 300, "%d lines in differences.txt", n_lines);
    char *file = read_file(repo_path("tests/golden/tokenizer/points.txt"), NULL), *at = file, *line;
    for (; (line = next_line(&at)); n_blocks++) {
        unsigned block;
        unsigned long long want;
        check(sscanf(line, "%x %d %llx", &block, &k, &want) == 3 && block < 0x110 && k >= 0 && k < N_SURROUNDINGS);
        check_that(checksum_block(t, block, k) == want, "U+%03X000 to U+%03XFFF, surrounding %d: other ids than recorded", block,
                   block, k);
    }
    check_int(n_blocks, 0x110 * N_SURROUNDINGS);
    free(file);
    free(differs);
    bw_tokenizer_destroy(t);
}

/* ---- the family's own vocabulary ---- */

TEST(the_family_vocabulary_gives_the_vectors_of_its_description)
{
    static const struct vector {
        const char *text, *ids;
    } vectors[] = {
        { "Hello, world!", "9419 11 1814 0" },
        { "Caff\u00e8 gi\u00e0, perch\u00e9 l'AI \u00e8 utile.", "34 2562 4311 69028 11 58902 324 6 15015 11094 175523 13" },
        { "\u4e2d\u6587\u6d4b\u8bd5\uff1a\u3053\u3093\u306b\u3061\u306f\u3002", "99986 99449 4960 85951 1710" },
        { "  one\t two\n\nthree  \n", "220 799 197 1330 271 26952 2228" },
        { "I'm 1234, we're coding.", "40 2688 220 16 17 18 19 11 567 2224 10505 13" },
        { "def f(x: int) -> str:\n    return f\"{x=}\"\n",
          "727 281 2007 25 514 8 1411 592 25 198 262 460 281 13724 87 28 9571 198" },
        { "\U0001F469\u200D\U0001F4BB caf\u00e9 e\u0301", "9008 239 102 373 235 88995 119 50203 3825" },
        { "\u0301!I", "52033 87383" },
        { "<|fim_prefix|>left<|fim_suffix|>right<|fim_middle|>", "248060 2282 248062 1246 248061" },
        { "<think>penso</think>", "248068 2664 684 248069" },
        { "<tool_call>get_weather</tool_call>", "248058 447 67017 248059" },
        { "<|im_start|>user\nQuanto fa 17 * 23?<|im_end|>\n<|im_start|>assistant\n<think>\n",
          "248045 846 198 2114 13168 2148 220 16 22 348 220 17 18 30 248046 198 248045 74455 198 248068 198" },
        { "<|im_start|>user\nRispondi solo: s\u00ec<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
          "248045 846 198 49 158648 13138 25 187179 248046 198 248045 74455 198 248068 271 248069 271" },
        { "<|im_start|>system\nSei un assistente conciso.<|im_end|>\n<|im_start|>user\nSaluta in italiano.<|im_end|>\n"
          "<|im_start|>assistant\n<think>\n",
          "248045 8678 198 1460 72 632 7543 6603 3413 14970 13 248046 198 248045 846 198 16737 15527 303 57786 13 248046 198 "
          "248045 74455 198 248068 198" },
    };
    const char *path = getenv("BW_QWEN_TOKENIZER");
    if (!path || !*path)
        skip_because("BW_QWEN_TOKENIZER does not name the tokenizer.json of a Qwen3.5 or 3.6 checkpoint");
    bw_tokenizer *t = open_json(path, NULL);
    for (size_t i = 0; i < BW_COUNT(vectors); i++) {
        int32_t want[64], *got;
        int n_want = read_ids(vectors[i].ids, want, 64), n_got = encode(t, vectors[i].text, strlen(vectors[i].text), &got);
        check_that(same_ids(got, n_got, want, n_want), "%s: other ids than %s", vectors[i].text, vectors[i].ids);
        bw_mem_free(got);
    }
    bw_tokenizer_destroy(t);
}

TESTS_MAIN(ENTRY(ten_thousand_strings_have_the_ids_of_the_library), ENTRY(the_same_vocabulary_as_gguf_arrays_gives_the_same_ids),
           ENTRY(malformed_bytes_become_what_python_replaces_them_with),
           ENTRY(every_code_point_has_the_ids_of_the_library_but_for_the_listed_ones),
           ENTRY(the_family_vocabulary_gives_the_vectors_of_its_description))
