/* shape_words.c - tokens by id out of a model folder's files. */
#include "format/shape_words.h"

#include <json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "format/checkpoint_parts.h"

typedef struct reader {
    const char *folder;
    bw_shape_words *words;
    int rows;
    bw_error *err;
} reader;

static json_object *field(json_object *object, const char *key)
{
    json_object *value = NULL;
    json_object_object_get_ex(object, key, &value);
    return value;
}

static bw_status say_id(reader *r, int64_t id, const char *text, unsigned char type)
{
    bw_shape_words *w = r->words;
    if (id < 0 || id >= r->rows)
        return bw_fail(r->err, BW_E_FORMAT, "%s: token %.60s has id %lld; the shape has %d rows", r->folder, text, (long long)id, r->rows);
    w->texts[id] = text;
    w->types[id] = type;
    w->n = id >= w->n ? (int)id + 1 : w->n;
    return BW_OK;
}

static bw_status say_added(reader *r, int64_t id, json_object *token)
{
    json_object *content = field(token, "content");
    if (!json_object_is_type(content, json_type_string))
        return bw_fail(r->err, BW_E_FORMAT, "%s: added token %lld has no content", r->folder, (long long)id);
    const bool special = json_object_get_boolean(field(token, "special"));
    return say_id(r, id, json_object_get_string(content), special ? BW_WORD_CONTROL : BW_WORD_USER_DEFINED);
}

static bw_status say_base(reader *r, json_object *tokens)
{
    json_object_object_foreach(tokens, text, id)
    {
        const bw_status st = say_id(r, json_object_is_type(id, json_type_int) ? json_object_get_int64(id) : -1, text, BW_WORD_NORMAL);
        if (st)
            return st;
    }
    return BW_OK;
}

/* tokenizer.json lists them. */
static bw_status say_listed(reader *r, json_object *tokens)
{
    bw_status st = BW_OK;
    const size_t n = json_object_is_type(tokens, json_type_array) ? json_object_array_length(tokens) : 0;
    for (size_t i = 0; !st && i < n; i++) {
        json_object *token = json_object_array_get_idx(tokens, i), *id = field(token, "id");
        st = say_added(r, json_object_is_type(id, json_type_int) ? json_object_get_int64(id) : -1, token);
    }
    return st;
}

/* tokenizer_config.json has them by number. */
static bw_status say_numbered(reader *r, json_object *tokens)
{
    if (!json_object_is_type(tokens, json_type_object))
        return BW_OK;
    json_object_object_foreach(tokens, number_text, token)
    {
        const bw_status st = say_added(r, strtoll(number_text, NULL, 10), token);
        if (st)
            return st;
    }
    return BW_OK;
}

static bw_status read_json(reader *r, const char *name, json_object **out)
{
    char path[1024];
    bw_map map;
    snprintf(path, sizeof path, "%s/%s", r->folder, name);
    bw_status st = bw_map_open(&map, path, r->err);
    if (st)
        return st;
    st = bw_json_read(path, map.data, map.bytes, out, r->err);
    bw_map_close(&map);
    return st;
}

static bw_status read_template(reader *r)
{
    char path[1024];
    bw_map map;
    snprintf(path, sizeof path, "%s/chat_template.jinja", r->folder);
    const bw_status st = bw_map_open(&map, path, r->err);
    if (st)
        return st;
    r->words->chat_template = bw_mem_dup(map.data ? (const char *)map.data : "", (size_t)map.bytes);
    bw_map_close(&map);
    return r->words->chat_template ? BW_OK : bw_fail_memory(r->err, path, (size_t)map.bytes + 1);
}

/* A merge is one text with a space in it, or a pair. */
static bool are_merges(json_object *list)
{
    if (!json_object_is_type(list, json_type_array))
        return false;
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        json_object *one = json_object_array_get_idx(list, i);
        const bool pair = json_object_is_type(one, json_type_array) && json_object_array_length(one) == 2 &&
                          json_object_is_type(json_object_array_get_idx(one, 0), json_type_string) &&
                          json_object_is_type(json_object_array_get_idx(one, 1), json_type_string);
        if (!pair && !json_object_is_type(one, json_type_string))
            return false;
    }
    return true;
}

static bw_status say_all(reader *r)
{
    bw_shape_words *w = r->words;
    json_object *model = field(w->tokenizer, "model"), *base = field(model, "vocab"), *end = field(w->settings, "eos_token");
    bw_status st;
    w->merges = field(model, "merges");
    if (!json_object_is_type(base, json_type_object) || !are_merges(w->merges))
        return bw_fail(r->err, BW_E_FORMAT, "%s/tokenizer.json: no byte-level BPE vocabulary", r->folder);
    if ((st = say_base(r, base)) || (st = say_listed(r, field(w->tokenizer, "added_tokens"))) ||
        (st = say_numbered(r, field(w->settings, "added_tokens_decoder"))))
        return st;
    for (int i = 0; json_object_is_type(end, json_type_string) && i < w->n; i++)
        if (w->texts[i] && strcmp(w->texts[i], json_object_get_string(end)) == 0)
            w->end_of_turn = i;
    return BW_OK;
}

bw_status bw_shape_words_init(bw_shape_words *w, const char *folder, int rows, bw_error *err)
{
    reader r = { folder, w, rows, err };
    bw_status st;
    *w = (bw_shape_words){ 0 };
    w->texts = bw_mem_zalloc((size_t)rows, sizeof *w->texts, BW_MEM_MISC);
    w->types = bw_mem_zalloc((size_t)rows, 1, BW_MEM_MISC);
    if (!w->texts || !w->types)
        st = bw_fail_memory(err, "tokens", (size_t)rows * (sizeof *w->texts + 1));
    else if (!(st = read_json(&r, "tokenizer.json", &w->tokenizer)) && !(st = read_json(&r, "tokenizer_config.json", &w->settings)) &&
             !(st = read_template(&r)))
        st = say_all(&r);
    if (st)
        bw_shape_words_fini(w);
    return st;
}

void bw_shape_words_fini(bw_shape_words *w)
{
    json_object_put(w->tokenizer);
    json_object_put(w->settings);
    bw_mem_free(w->texts);
    bw_mem_free(w->types);
    bw_mem_free(w->chat_template);
    *w = (bw_shape_words){ 0 };
}
