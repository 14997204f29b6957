/* text_source.c - see text_source.h. */
#include "engine/text_source.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <json-c/json.h>

#include "base/log.h"
#include "base/mem.h"

struct bw_text_source {
    bw_tokenizer *tokenizer;
    bw_chat_format chat;
    const char *chat_note;
    char *template; /* NULL: none came with it */
    size_t n_template;
};

enum { MAX_PATH = 4096 };

/* Takes over the tokenizer, also when it fails. n_template 0: no template. */
static bw_status make(bw_text_source **out, bw_tokenizer *tokenizer, const char *template, size_t n_template, bw_error *err)
{
    bw_text_source *s = bw_mem_zalloc(1, sizeof *s, BW_MEM_TEXT);
    if (!s) {
        bw_tokenizer_destroy(tokenizer);
        return bw_fail_memory(err, "the tokenizer", sizeof *s);
    }
    s->tokenizer = tokenizer;
    if (n_template && !(s->template = bw_mem_dup(template, n_template))) {
        bw_text_source_close(s);
        return bw_fail_memory(err, "the chat template", n_template);
    }
    s->n_template = n_template;
    s->chat = bw_chat_recognise(n_template ? template : NULL, n_template);
    s->chat_note = s->chat.known ? bw_chat_variant_name(s->chat.variant)
                   : n_template  ? "3.6 assumed: the chat template is not one that is known"
                                 : "3.6 assumed: there is no chat template";
    *out = s;
    return BW_OK;
}

/* ---- a folder, a tokenizer.json ---- */

/* A link that leads nowhere is there, too: opening it fails and says so. */
static bool exists(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0;
}

/* Maps folder/name if it is there; *path [MAX_PATH] gets its name. *text is its bytes, NULL if it is not there. */
static bw_status map_member(bw_map *map, const char **text, char *path, const char *folder, const char *name, bw_error *err)
{
    *map = (bw_map){ 0 };
    *text = NULL;
    const size_t n = strlen(folder);
    if (snprintf(path, MAX_PATH, "%s%s%s", folder, n && folder[n - 1] == '/' ? "" : "/", name) >= MAX_PATH)
        return bw_fail(err, BW_E_ARGUMENT, "%.100s...: the path is longer than %d bytes", folder, MAX_PATH);
    if (!exists(path))
        return BW_OK;
    bw_status st = bw_map_open(map, path, err);
    if (!st)
        *text = map->data ? (const char *)map->data : "";
    return st;
}

/* Where several templates stand in a list of {"name", "template"}, the one named default. */
static struct json_object *default_template(struct json_object *list)
{
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *entry = json_object_array_get_idx(list, i), *name, *template;
        if (json_object_is_type(entry, json_type_object) && json_object_object_get_ex(entry, "name", &name) &&
            json_object_is_type(name, json_type_string) && strcmp(json_object_get_string(name), "default") == 0)
            return json_object_object_get_ex(entry, "template", &template) ? template : NULL;
    }
    return NULL;
}

/* The template inside a tokenizer_config.json: its bytes live as long as *root, which the caller
 * puts. *odd: something else than a template stands there. */
static const char *config_template(struct json_object **root, const bw_map *config, size_t *n, bool *odd)
{
    *root = NULL;
    struct json_object *value = NULL;
    struct json_tokener *parser = config->bytes && config->bytes < (1 << 28) ? json_tokener_new() : NULL;
    if (parser) {
        *root = json_tokener_parse_ex(parser, (const char *)config->data, (int)config->bytes);
        json_tokener_free(parser);
    }
    *odd = json_object_object_get_ex(*root, "chat_template", &value) && value;
    if (json_object_is_type(value, json_type_array))
        value = default_template(value);
    if (!json_object_is_type(value, json_type_string))
        return NULL;
    *odd = false;
    *n = (size_t)json_object_get_string_len(value);
    return json_object_get_string(value);
}

static bw_status open_folder(bw_text_source **out, const char *folder, bw_error *err)
{
    char json_path[MAX_PATH], config_path[MAX_PATH], template_path[MAX_PATH];
    bw_map json = { 0 }, config = { 0 }, template = { 0 };
    const char *json_text, *config_text, *text;
    struct json_object *root = NULL;
    bw_tokenizer *tokenizer;
    bw_status st;
    if ((st = map_member(&json, &json_text, json_path, folder, "tokenizer.json", err)) ||
        (st = map_member(&config, &config_text, config_path, folder, "tokenizer_config.json", err)) ||
        (st = map_member(&template, &text, template_path, folder, "chat_template.jinja", err)))
        goto done;
    if (!json_text) {
        st = bw_fail(err, BW_E_UNSUPPORTED, "%s: no tokenizer: expected a tokenizer.json in the folder", folder);
        goto done;
    }
    if ((st = bw_tokenizer_from_json(&tokenizer, json_path, json_text, json.bytes, config_path, config_text, config.bytes, err)))
        goto done;
    size_t n = template.bytes;
    bool odd = false;
    if (!text && !(text = config_template(&root, &config, &n, &odd)))
        n = 0;
    if (!(st = make(out, tokenizer, text, n, err)) && odd)
        (*out)->chat_note = "3.6 assumed: chat_template in tokenizer_config.json is neither a text nor a list with one named default";
done:
    json_object_put(root);
    bw_map_close(&json);
    bw_map_close(&config);
    bw_map_close(&template);
    return st;
}

static bw_status open_json(bw_text_source **out, const char *path, const bw_map *map, bw_error *err)
{
    bw_tokenizer *tokenizer;
    bw_status st = bw_tokenizer_from_json(&tokenizer, path, map->data ? (const char *)map->data : "", map->bytes, NULL, NULL, 0, err);
    return st ? st : make(out, tokenizer, NULL, 0, err);
}

/* ---- GGUF ---- */

static bw_slice string_value(const bw_checkpoint *c, const char *key)
{
    bw_slice text = { 0 };
    if (!bw_gguf_string(bw_checkpoint_value(c, key), &text))
        text = (bw_slice){ 0 };
    return text;
}

/* The array of strings under a key, as the tokenizer wants it. */
static bw_status read_strings(const bw_checkpoint *c, const char *key, bw_chars **out, size_t *n, bw_error *err)
{
    bw_slice *slices;
    bw_status st = bw_checkpoint_strings(c, key, &slices, n, err);
    if (st)
        return st;
    *out = bw_mem_zalloc(*n, sizeof **out, BW_MEM_TEXT);
    if (!*out)
        st = bw_fail_memory(err, key, *n * sizeof **out);
    for (size_t i = 0; i < *n && !st; i++)
        (*out)[i] = (bw_chars){ slices[i].text, slices[i].n };
    bw_mem_free(slices);
    return st;
}

static bw_status open_gguf(bw_text_source **out, const bw_checkpoint *c, bw_error *err)
{
    const char *path = bw_checkpoint_path(c);
    const bw_slice model = string_value(c, "tokenizer.ggml.model"), pre = string_value(c, "tokenizer.ggml.pre");
    const bw_slice template = string_value(c, "tokenizer.chat_template");
    if (!bw_checkpoint_value(c, "tokenizer.ggml.tokens"))
        return bw_fail(err, BW_E_UNSUPPORTED, "%s: no tokenizer: expected tokenizer.ggml.tokens in its metadata", path);
    if (model.n != 4 || memcmp(model.text, "gpt2", 4) != 0)
        return bw_fail(err, BW_E_UNSUPPORTED, "%s: tokenizer.ggml.model is \"%.*s\": expected \"gpt2\", byte-level BPE", path,
                       model.n < 40 ? (int)model.n : 40, model.n ? model.text : "");
    bw_chars *tokens = NULL, *merges = NULL;
    int32_t *types = NULL;
    size_t n_tokens = 0, n_merges = 0, n_types = 0;
    bw_tokenizer *tokenizer;
    bw_status st;
    if ((st = read_strings(c, "tokenizer.ggml.tokens", &tokens, &n_tokens, err)) ||
        (st = read_strings(c, "tokenizer.ggml.merges", &merges, &n_merges, err)))
        goto done;
    if (bw_checkpoint_value(c, "tokenizer.ggml.token_type") &&
        (st = bw_checkpoint_ints(c, "tokenizer.ggml.token_type", &types, &n_types, err)))
        goto done;
    if (types && n_types != n_tokens) {
        st = bw_fail(err, BW_E_FORMAT, "%s: tokenizer.ggml.token_type has %zu elements, tokenizer.ggml.tokens %zu: expected as many",
                     path, n_types, n_tokens);
        goto done;
    }
    const bw_token_arrays arrays = { .name = path, .tokens = tokens, .n_tokens = n_tokens, .types = types,
                                     .merges = merges, .n_merges = n_merges, .pre = { pre.text, pre.n } };
    if (!(st = bw_tokenizer_from_arrays(&tokenizer, &arrays, err)))
        st = make(out, tokenizer, template.text, template.n, err);
done:
    bw_mem_free(tokens);
    bw_mem_free(merges);
    bw_mem_free(types);
    return st;
}

/* ---- opening ---- */

bw_status bw_text_source_open(bw_text_source **out, const char *path, bw_error *err)
{
    *out = NULL;
    struct stat info;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode))
        return open_folder(out, path, err);
    bw_map map;
    bw_status st = bw_map_open(&map, path, err);
    if (st)
        return st;
    const bool gguf = map.bytes >= 4 && memcmp(map.data, "GGUF", 4) == 0;
    if (!gguf)
        st = open_json(out, path, &map, err);
    bw_map_close(&map);
    if (!gguf)
        return st;
    bw_checkpoint *checkpoint;
    if ((st = bw_checkpoint_open(&checkpoint, path, err)))
        return st;
    st = open_gguf(out, checkpoint, err);
    bw_checkpoint_close(checkpoint);
    return st;
}

bw_status bw_text_source_open_checkpoint(bw_text_source **out, const bw_checkpoint *c, char *note, size_t note_bytes,
                                         bw_error *err)
{
    *out = NULL;
    note[0] = '\0';
    bw_error why = { 0 };
    bw_status st = bw_checkpoint_container(c) == BW_CONTAINER_GGUF ? open_gguf(out, c, &why)
                                                                   : open_folder(out, bw_checkpoint_path(c), &why);
    if (st == BW_E_MEMORY)
        return bw_fail(err, st, "%s", why.message);
    if (st)
        snprintf(note, note_bytes, "%s", why.message);
    else if (!(*out)->chat.known)
        bw_log(BW_LOG_WARNING, "%s: chat format %s", bw_checkpoint_path(c), (*out)->chat_note);
    return BW_OK;
}

void bw_text_source_close(bw_text_source *s)
{
    if (!s)
        return;
    bw_tokenizer_destroy(s->tokenizer);
    bw_mem_free(s->template);
    bw_mem_free(s);
}

/* ---- what is in it ---- */

const bw_tokenizer *bw_text_source_tokenizer(const bw_text_source *s)
{
    return s->tokenizer;
}

int bw_text_source_n_tokens(const bw_text_source *s)
{
    return bw_tokenizer_n_ids(s->tokenizer);
}

bw_chat_variant bw_text_source_chat(const bw_text_source *s)
{
    return s->chat.variant;
}

bool bw_text_source_chat_known(const bw_text_source *s)
{
    return s->chat.known;
}

const char *bw_text_source_chat_note(const bw_text_source *s)
{
    return s->chat_note;
}

const char *bw_text_source_template(const bw_text_source *s, size_t *n)
{
    *n = s->n_template;
    return s->template;
}

bw_status bw_text_source_chat_encode(const bw_text_source *s, const char *request, size_t n_bytes, int32_t **ids, int *n_ids,
                                     bw_error *err)
{
    *ids = NULL;
    *n_ids = 0;
    bw_chat_prompt prompt;
    bw_status st = bw_chat_render(&prompt, s->chat.variant, request, n_bytes, err);
    if (st)
        return st;
    bw_text_part *parts = bw_mem_zalloc(prompt.n_segments, sizeof *parts, BW_MEM_TEXT);
    if (!parts)
        st = bw_fail_memory(err, "the prompt", prompt.n_segments * sizeof *parts);
    for (size_t i = 0; i < prompt.n_segments && !st; i++) {
        const bw_chat_segment *segment = &prompt.segments[i];
        parts[i] = (bw_text_part){ segment->text, segment->n_bytes, segment->is_markup ? BW_MATCH_ALL : BW_MATCH_PLAIN };
    }
    if (!st)
        st = bw_tokenizer_encode_parts(s->tokenizer, parts, prompt.n_segments, ids, n_ids, err);
    bw_mem_free(parts);
    bw_chat_prompt_fini(&prompt);
    return st;
}

void bw_text_source_complete_stops(const bw_text_source *source, bw_config *config)
{
    static const char *const names[] = { "<|im_end|>", "<|endoftext|>" };
    bw_sampling_defaults *d = &config->sampling;
    for (size_t i = 0; i < BW_COUNT(names); i++) {
        const int id = bw_tokenizer_find(bw_text_source_tokenizer(source), names[i], strlen(names[i]));
        bool known = id < 0 || id >= config->vocab || d->n_eos == BW_MAX_EOS;
        for (int k = 0; k < d->n_eos; k++)
            known |= d->eos[k] == id;
        if (!known)
            d->eos[d->n_eos++] = id;
    }
}
