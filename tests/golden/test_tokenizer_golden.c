/* The tokenizer against the `tokenizers` library, recorded in tests/golden/tokenizer by
 * tools/golden/make_tokenizer.py, over the vocabulary of models/lamb; and the vectors of
 * docs/model.md 10.1, which need the family's own vocabulary. */
#include "lib/check.h"

#include <stdlib.h>

#include <json-c/json.h>

#include "base/mem.h"
#include "text/detokenizer.h"
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

TESTS_MAIN(ENTRY(ten_thousand_strings_have_the_ids_of_the_library), ENTRY(the_same_vocabulary_as_gguf_arrays_gives_the_same_ids),
           ENTRY(malformed_bytes_become_what_python_replaces_them_with))
