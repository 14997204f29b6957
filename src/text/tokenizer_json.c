/* tokenizer_json.c - reads tokenizer.json and the added tokens of tokenizer_config.json.
 *
 * Accepts one kind: BPE over bytes, NFC or no normaliser, a Split by pattern then ByteLevel. Every
 * setting that would change an id and is not that kind is refused by its name; settings that cannot
 * (padding, truncation, offsets) are passed over. Holds the parsed tree only while reading. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "base/mem.h"
#include "text/token_source.h"
#include "text/unicode.h"

enum {
    MAX_DEPTH = 32,
    MAX_JSON = 1 << 28,
    PATH = 160 /* of the field in a message; longer ones are cut */
};

/* Where we are: the file's name and the path of the field, for messages. */
typedef struct place {
    const char *file;
    char path[PATH];
} place;

static const char *type_name(struct json_object *value)
{
    switch (json_object_get_type(value)) {
    case json_type_null: return "null";
    case json_type_boolean: return json_object_get_boolean(value) ? "true" : "false";
    case json_type_double: return "a fraction";
    case json_type_int: return "a whole number";
    case json_type_object: return "an object";
    case json_type_array: return "an array";
    case json_type_string: return "a string";
    }
    return "something else";
}

static bw_status wrong(const place *at, struct json_object *value, const char *expected, bw_error *err)
{
    return bw_fail(err, BW_E_FORMAT, "%s: %s is %s: expected %s", at->file, at->path, type_name(value), expected);
}

/* A place one level down. */
static place below(const place *at, const char *key)
{
    place p = { .file = at->file };
    char quoted[80];
    bool plain = *key && strspn(key, "abcdefghijklmnopqrstuvwxyz_") == strlen(key);
    snprintf(p.path, sizeof p.path, "%s%s%s%s", at->path, at->path[0] ? "." : "", plain ? key : "",
             plain ? "" : bw_text_quote(quoted, sizeof quoted, key, strlen(key)));
    return p;
}

static place item(const place *at, size_t i)
{
    place p = { .file = at->file };
    snprintf(p.path, sizeof p.path, "%s[%zu]", at->path, i);
    return p;
}

static bw_chars chars_of(struct json_object *string)
{
    return (bw_chars){ json_object_get_string(string), (size_t)json_object_get_string_len(string) };
}

static bool is_string(struct json_object *value, const char *text)
{
    return json_object_is_type(value, json_type_string) && strcmp(json_object_get_string(value), text) == 0;
}

static struct json_object *get(struct json_object *object, const char *key)
{
    struct json_object *value = NULL;
    return json_object_object_get_ex(object, key, &value) ? value : NULL;
}

/* A member that must be an object / array. */
static bw_status need(struct json_object **out, struct json_object *object, const char *key, enum json_type type,
                      const place *at, bw_error *err)
{
    *out = get(object, key);
    if (json_object_is_type(*out, type))
        return BW_OK;
    place p = below(at, key);
    return wrong(&p, *out, type == json_type_object ? "an object" : "an array", err);
}

/* ---- parsing ---- */

static bool begins_an_object(const char *json, size_t n)
{
    size_t i = 0;
    while (i < n && json[i] && strchr(" \t\r\n", json[i]))
        i++;
    return i < n && json[i] == '{';
}

static bw_status parse(struct json_object **out, const char *file, const char *json, size_t n, bw_error *err)
{
    *out = NULL;
    if (n > MAX_JSON)
        return bw_fail(err, BW_E_LIMIT, "%s: %zu bytes: expected at most %d", file, n, MAX_JSON);
    struct json_tokener *parser = json_tokener_new_ex(MAX_DEPTH);
    if (!parser)
        return bw_fail_memory(err, file, n);
    json_tokener_set_flags(parser, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    struct json_object *tree = json_tokener_parse_ex(parser, json, (int)n);
    enum json_tokener_error why = json_tokener_get_error(parser);
    size_t at = json_tokener_get_parse_end(parser);
    json_tokener_free(parser);
    bw_status st = BW_OK;
    if (why == json_tokener_error_depth)
        st = bw_fail(err, BW_E_FORMAT, "%s: nested deeper than %d levels at byte %zu: expected a tokenizer", file, MAX_DEPTH, at);
    else if (why == json_tokener_continue)
        st = bw_fail(err, BW_E_FORMAT, "%s: the JSON ends too early, at byte %zu: the file is incomplete, check its sha256",
                     file, n);
    else if (why != json_tokener_success)
        st = bw_fail(err, BW_E_FORMAT, "%s: not JSON at byte %zu of %zu: %s", file, at, n, json_tokener_error_desc(why));
    else if (!json_object_is_type(tree, json_type_object) && begins_an_object(json, n))
        st = bw_fail_memory(err, file, n); /* json-c reports success when it could not get memory for the tree */
    else if (!json_object_is_type(tree, json_type_object))
        st = bw_fail(err, BW_E_FORMAT, "%s: the JSON is %s: expected an object", file, type_name(tree));
    else
        for (; at < n && !st; at++)
            if (!strchr(" \t\r\n", json[at]) || !json[at])
                st = bw_fail(err, BW_E_FORMAT, "%s: something follows the JSON object at byte %zu of %zu", file, at, n);
    if (st)
        json_object_put(tree);
    else
        *out = tree;
    return st;
}

/* ---- the kind of tokenizer ---- */

typedef enum allowed { ALLOW_NULL = 1, ALLOW_FALSE = 2, ALLOW_EMPTY = 4, ALLOW_ZERO = 8 } allowed;

/* A setting that must be off: null or absent, false, "", 0, as `how` allows. */
static bw_status must_be_off(struct json_object *object, const char *key, unsigned how, const place *at, bw_error *err)
{
    struct json_object *value = get(object, key);
    if (!value && (how & ALLOW_NULL))
        return BW_OK;
    if ((how & ALLOW_FALSE) && json_object_is_type(value, json_type_boolean) && !json_object_get_boolean(value))
        return BW_OK;
    if ((how & ALLOW_EMPTY) && is_string(value, ""))
        return BW_OK;
    if ((how & ALLOW_ZERO) && (json_object_is_type(value, json_type_double) || json_object_is_type(value, json_type_int)) &&
        json_object_get_double(value) == 0)
        return BW_OK;
    place p = below(at, key);
    return bw_fail(err, BW_E_UNSUPPORTED, "%s: %s is %s: expected it to be off, as in this model family", at->file, p.path,
                   type_name(value));
}

/* `value` is an object whose "type" is `type`. */
static bw_status must_be_type(struct json_object *value, const char *type, const place *at, bw_error *err)
{
    struct json_object *found = get(value, "type");
    if (is_string(found, type))
        return BW_OK;
    char quoted[80] = "";
    if (json_object_is_type(found, json_type_string))
        bw_text_quote(quoted, sizeof quoted, json_object_get_string(found), (size_t)json_object_get_string_len(found));
    return bw_fail(err, BW_E_UNSUPPORTED, "%s: %s is %s%s: expected %s, the byte-level BPE of this model family is the only "
                   "kind known here", at->file, at->path, quoted[0] ? "of type " : "", quoted[0] ? quoted : type_name(value), type);
}

static bw_status read_normalizer(bw_token_source *s, struct json_object *root, const place *top, bw_error *err)
{
    place at = below(top, "normalizer");
    struct json_object *normalizer = get(root, "normalizer");
    s->nfc = normalizer != NULL;
    return normalizer ? must_be_type(normalizer, "NFC", &at, err) : BW_OK;
}

static bw_status read_split(bw_token_source *s, struct json_object *split, const place *at, bw_error *err)
{
    bw_status st;
    struct json_object *pattern;
    if ((st = must_be_type(split, "Split", at, err)) || (st = must_be_off(split, "invert", ALLOW_NULL | ALLOW_FALSE, at, err)) ||
        (st = need(&pattern, split, "pattern", json_type_object, at, err)))
        return st;
    place p = below(at, "pattern");
    struct json_object *regex = get(pattern, "Regex"), *behavior = get(split, "behavior");
    if (!json_object_is_type(regex, json_type_string))
        return bw_fail(err, BW_E_UNSUPPORTED, "%s: %s: expected {\"Regex\": a string}", at->file, p.path);
    if (!is_string(behavior, "Isolated"))
        return bw_fail(err, BW_E_UNSUPPORTED, "%s: %s.behavior is %s: expected \"Isolated\"", at->file, at->path,
                       json_object_is_type(behavior, json_type_string) ? "another string" : type_name(behavior));
    s->pattern = chars_of(regex);
    return BW_OK;
}

static bw_status read_pre_tokenizer(bw_token_source *s, struct json_object *root, const place *top, bw_error *err)
{
    bw_status st;
    struct json_object *sequence = get(root, "pre_tokenizer"), *list;
    place at = below(top, "pre_tokenizer");
    if ((st = must_be_type(sequence, "Sequence", &at, err)) ||
        (st = need(&list, sequence, "pretokenizers", json_type_array, &at, err)))
        return st;
    place in = below(&at, "pretokenizers"), first = item(&in, 0), second = item(&in, 1);
    if (json_object_array_length(list) != 2)
        return bw_fail(err, BW_E_UNSUPPORTED, "%s: %s has %zu members: expected two, Split and ByteLevel", in.file, in.path,
                       (size_t)json_object_array_length(list));
    struct json_object *split = json_object_array_get_idx(list, 0), *bytes = json_object_array_get_idx(list, 1);
    if ((st = read_split(s, split, &first, err)) || (st = must_be_type(bytes, "ByteLevel", &second, err)) ||
        (st = must_be_off(bytes, "add_prefix_space", ALLOW_FALSE, &second, err)))
        return st;
    return must_be_off(bytes, "use_regex", ALLOW_FALSE, &second, err);
}

static bw_status check_rest(struct json_object *root, struct json_object *model, const place *top, bw_error *err)
{
    place at = below(top, "model"), post = below(top, "post_processor"), decoder = below(top, "decoder");
    bw_status st;
    if ((get(model, "type") && (st = must_be_type(model, "BPE", &at, err))) ||
        (st = must_be_off(model, "dropout", ALLOW_NULL | ALLOW_ZERO, &at, err)) ||
        (st = must_be_off(model, "unk_token", ALLOW_NULL, &at, err)) ||
        (st = must_be_off(model, "continuing_subword_prefix", ALLOW_NULL | ALLOW_EMPTY, &at, err)) ||
        (st = must_be_off(model, "end_of_word_suffix", ALLOW_NULL | ALLOW_EMPTY, &at, err)) ||
        (st = must_be_off(model, "byte_fallback", ALLOW_NULL | ALLOW_FALSE, &at, err)) ||
        (st = must_be_off(model, "ignore_merges", ALLOW_NULL | ALLOW_FALSE, &at, err)))
        return st;
    if (get(root, "post_processor") && (st = must_be_type(get(root, "post_processor"), "ByteLevel", &post, err)))
        return st;
    return must_be_type(get(root, "decoder"), "ByteLevel", &decoder, err);
}

/* ---- tokens and merges ---- */

static bw_status read_vocab(bw_token_source *s, struct json_object *vocab, const place *at, bw_error *err)
{
    struct json_object_iterator it = json_object_iter_begin(vocab), end = json_object_iter_end(vocab);
    for (; !json_object_iter_equal(&it, &end); json_object_iter_next(&it)) {
        const char *text = json_object_iter_peek_name(&it);
        struct json_object *id = json_object_iter_peek_value(&it);
        if (!json_object_is_type(id, json_type_int)) {
            place p = below(at, text);
            return wrong(&p, id, "a whole number, the token's id", err);
        }
        s->tokens[s->n_tokens++] = (bw_token_entry){ json_object_get_int64(id), BW_TOKEN_BASE, { text, strlen(text) } };
    }
    return BW_OK;
}

static bw_status read_merge(struct bw_merge_entry *out, struct json_object *merge, const place *list, size_t i, bw_error *err)
{
    if (json_object_is_type(merge, json_type_string)) {
        if (bw_merge_split(out, chars_of(merge)))
            return BW_OK;
    } else if (json_object_is_type(merge, json_type_array) && json_object_array_length(merge) == 2) {
        struct json_object *left = json_object_array_get_idx(merge, 0), *right = json_object_array_get_idx(merge, 1);
        if (json_object_is_type(left, json_type_string) && json_object_is_type(right, json_type_string)) {
            *out = (struct bw_merge_entry){ chars_of(left), chars_of(right) };
            return BW_OK;
        }
    }
    place at = item(list, i);
    return wrong(&at, merge, "\"left right\" or [\"left\", \"right\"], two tokens", err);
}

static bw_status read_merges(bw_token_source *s, struct json_object *merges, const place *at, bw_error *err)
{
    s->n_merges = json_object_array_length(merges);
    s->merges = bw_mem_zalloc(s->n_merges, sizeof *s->merges, BW_MEM_TEXT);
    if (!s->merges)
        return bw_fail_memory(err, at->file, s->n_merges * sizeof *s->merges);
    bw_status st = BW_OK;
    for (size_t i = 0; i < s->n_merges && !st; i++)
        st = read_merge(&s->merges[i], json_object_array_get_idx(merges, i), at, i, err);
    return st;
}

/* One added token; `id` was read from where its container has it. "normalized" is passed over: it asks
 * for a match after NFC, which differs only where a combining mark follows the token. */
static bw_status read_added(bw_token_source *s, struct json_object *token, int64_t id, const place *at, bw_error *err)
{
    bw_status st;
    struct json_object *content = get(token, "content"), *special = get(token, "special");
    place p = below(at, "content"), q = below(at, "special");
    if (!json_object_is_type(content, json_type_string))
        return wrong(&p, content, "a string", err);
    if (special && !json_object_is_type(special, json_type_boolean))
        return wrong(&q, special, "true or false", err);
    if ((st = must_be_off(token, "single_word", ALLOW_NULL | ALLOW_FALSE, at, err)) ||
        (st = must_be_off(token, "lstrip", ALLOW_NULL | ALLOW_FALSE, at, err)) ||
        (st = must_be_off(token, "rstrip", ALLOW_NULL | ALLOW_FALSE, at, err)))
        return st;
    s->tokens[s->n_tokens++] =
        (bw_token_entry){ id, json_object_get_boolean(special) ? BW_TOKEN_SPECIAL : BW_TOKEN_PLAIN, chars_of(content) };
    return BW_OK;
}

static bw_status read_added_tokens(bw_token_source *s, struct json_object *list, const place *at, bw_error *err)
{
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        place p = item(at, i), q = below(&p, "id");
        struct json_object *token = json_object_array_get_idx(list, i), *id = get(token, "id");
        if (!json_object_is_type(token, json_type_object))
            return wrong(&p, token, "an object", err);
        if (!json_object_is_type(id, json_type_int))
            return wrong(&q, id, "a whole number", err);
        bw_status st = read_added(s, token, json_object_get_int64(id), &p, err);
        if (st)
            return st;
    }
    return BW_OK;
}

/* added_tokens_decoder of tokenizer_config.json: {"248070": {"content": ...}, ...}. Those that
 * tokenizer.json has must be the same there. */
static bw_status read_decoder_tokens(bw_token_source *s, struct json_object *tokens, const size_t *by_id, size_t n_by_id,
                                     const place *at, bw_error *err)
{
    struct json_object_iterator it = json_object_iter_begin(tokens), end = json_object_iter_end(tokens);
    for (; !json_object_iter_equal(&it, &end); json_object_iter_next(&it)) {
        const char *key = json_object_iter_peek_name(&it);
        struct json_object *token = json_object_iter_peek_value(&it);
        place p = below(at, key);
        if (!*key || strlen(key) > 9 || strspn(key, "0123456789") != strlen(key))
            return bw_fail(err, BW_E_FORMAT, "%s: %s: expected a token id as key", p.file, p.path);
        if (!json_object_is_type(token, json_type_object))
            return wrong(&p, token, "an object", err);
        size_t id = (size_t)atol(key), index = id < n_by_id ? by_id[id] : 0;
        const bw_token_entry *known = index ? &s->tokens[index - 1] : NULL;
        bw_status st = read_added(s, token, (int64_t)id, &p, err);
        if (st)
            return st;
        if (!known)
            continue;
        bw_chars text = s->tokens[s->n_tokens - 1].text;
        char one[80], other[80];
        if (text.n != known->text.n || memcmp(text.data, known->text.data, text.n) != 0)
            return bw_fail(err, BW_E_FORMAT, "%s: %s is %s, but %s has %s under that id: expected the same token in both", p.file,
                           p.path, bw_text_quote(one, sizeof one, text.data, text.n), s->name,
                           bw_text_quote(other, sizeof other, known->text.data, known->text.n));
        if (known->kind != BW_TOKEN_BASE) /* one that is only in the vocabulary there becomes an added one */
            s->n_tokens--;
    }
    return BW_OK;
}

/* ---- together ---- */

static bw_status read_config_tokens(bw_token_source *s, struct json_object *tokens, const place *at, bw_error *err)
{
    size_t n = s->n_tokens + BW_MAX_HOLES; /* larger ids are refused later */
    size_t *by_id = bw_mem_zalloc(n, sizeof *by_id, BW_MEM_TEXT); /* index + 1 */
    if (!by_id)
        return bw_fail_memory(err, at->file, n * sizeof *by_id);
    for (size_t i = 0; i < s->n_tokens; i++)
        if (s->tokens[i].id >= 0 && s->tokens[i].id < (int64_t)n)
            by_id[s->tokens[i].id] = i + 1;
    bw_status st = read_decoder_tokens(s, tokens, by_id, n, at, err);
    bw_mem_free(by_id);
    return st;
}

/* JSON keeps the last of two equal keys: the id of the first is then missing. (Two keys with one id
 * are found, and named, where the tokens are put together.) */
static bw_status check_dense(const bw_token_source *s, size_t n_base, const char *file, bw_error *err)
{
    bw_status st = BW_OK;
    char *seen = bw_mem_zalloc(s->n_tokens, 1, BW_MEM_TEXT);
    if (!seen)
        return bw_fail_memory(err, file, s->n_tokens);
    int64_t most = -1;
    bool twice = false;
    for (size_t i = 0; i < s->n_tokens; i++) {
        int64_t id = s->tokens[i].id;
        if (id >= 0 && id < (int64_t)s->n_tokens) {
            twice = twice || (i < n_base && seen[id]);
            seen[id] = 1;
        }
        if (i < n_base && id > most)
            most = id;
    }
    for (int64_t id = 0; id <= most && !st && !twice; id++)
        if (id >= (int64_t)s->n_tokens || !seen[id])
            st = bw_fail(err, BW_E_FORMAT, "%s: model.vocab: no token has id %lld, and ids go up to %lld: a token is missing, "
                         "or one stands there twice", file, (long long)id, (long long)most);
    bw_mem_free(seen);
    return st;
}

static size_t members(struct json_object *value)
{
    return json_object_is_type(value, json_type_object)  ? (size_t)json_object_object_length(value)
           : json_object_is_type(value, json_type_array) ? (size_t)json_object_array_length(value)
                                                          : 0;
}

static bw_status read_all(bw_token_source *s, struct json_object *root, struct json_object *config, const char *config_name,
                          bw_error *err)
{
    bw_status st;
    place top = { .file = s->name }, config_top = { .file = config_name };
    struct json_object *model, *vocab, *merges, *added = get(root, "added_tokens");
    struct json_object *more = config ? get(config, "added_tokens_decoder") : NULL;
    place in_model = below(&top, "model"), in_added = below(&top, "added_tokens");
    place in_vocab = below(&in_model, "vocab"), in_merges = below(&in_model, "merges");
    place in_more = below(&config_top, "added_tokens_decoder");
    if ((st = need(&model, root, "model", json_type_object, &top, err)) ||
        (st = check_rest(root, model, &top, err)) || (st = read_normalizer(s, root, &top, err)) ||
        (st = read_pre_tokenizer(s, root, &top, err)) ||
        (st = need(&vocab, model, "vocab", json_type_object, &in_model, err)) ||
        (st = need(&merges, model, "merges", json_type_array, &in_model, err)))
        return st;
    if (added && !json_object_is_type(added, json_type_array))
        return wrong(&in_added, added, "an array", err);
    if (more && !json_object_is_type(more, json_type_object))
        return wrong(&in_more, more, "an object", err);
    size_t room = members(vocab) + members(added) + members(more) + 1;
    s->tokens = bw_mem_zalloc(room, sizeof *s->tokens, BW_MEM_TEXT);
    if (!s->tokens)
        return bw_fail_memory(err, s->name, room * sizeof *s->tokens);
    if ((st = read_vocab(s, vocab, &in_vocab, err)))
        return st;
    size_t n_base = s->n_tokens;
    if ((added && (st = read_added_tokens(s, added, &in_added, err))) ||
        (more && (st = read_config_tokens(s, more, &in_more, err))))
        return st;
    if ((st = check_dense(s, n_base, s->name, err)))
        return st;
    return read_merges(s, merges, &in_merges, err);
}

bw_status bw_tokenizer_from_json(bw_tokenizer **out, const char *json_name, const char *json, size_t json_bytes,
                                 const char *config_name, const char *config, size_t config_bytes, bw_error *err)
{
    *out = NULL;
    bw_token_source s = { .name = json_name, .tokens_field = "vocab and added tokens", .merges_field = "model.merges" };
    struct json_object *root = NULL, *config_root = NULL;
    bw_status st = parse(&root, json_name, json, json_bytes, err);
    if (!st && config)
        st = parse(&config_root, config_name, config, config_bytes, err);
    if (!st && !(st = read_all(&s, root, config_root, config_name, err)))
        st = bw_tokenizer_build(out, &s, err);
    bw_mem_free(s.tokens);
    bw_mem_free(s.merges);
    json_object_put(root);
    json_object_put(config_root);
    return st;
}
