/* text_api.c - the text functions of bellwether.h, on the tokenizer and chat format of a model.
 * Streams are made here and live in text/stream.c. No state; any thread. */
#include <string.h>

#include "base/mem.h"
#include "engine/model_text.h"
#include "text/reasoning.h"
#include "text/stream.h"

void bw_free(void *block)
{
    bw_mem_free(block);
}

/* The model's text side, or BW_E_UNSUPPORTED and what to do. */
static bw_status need_text(const bw_text_source **out, const bw_model *model, bw_error *err)
{
    *out = bw_model_text(model);
    if (*out)
        return BW_OK;
    const bw_model_info *info = bw_model_get_info(model);
    return bw_fail(err, BW_E_UNSUPPORTED, "%s: no tokenizer came with the model, so it takes token ids only (%s)", info->path,
                   info->text_note);
}

bw_status bw_encode(const bw_model *model, const char *text, size_t n_bytes, bool special, int32_t **ids, int *n_ids,
                    bw_error *err)
{
    const bw_text_source *source;
    *ids = NULL;
    *n_ids = 0;
    bw_status st = need_text(&source, model, err);
    return st ? st : bw_tokenizer_encode(bw_text_source_tokenizer(source), text, n_bytes, special ? BW_MATCH_ALL : BW_MATCH_NONE,
                                         ids, n_ids, err);
}

bw_status bw_decode(const bw_model *model, const int32_t *ids, int n_ids, bool skip_special, char **text, size_t *n_bytes,
                    bw_error *err)
{
    const bw_text_source *source;
    *text = NULL;
    *n_bytes = 0;
    bw_status st = need_text(&source, model, err);
    if (!st && n_ids < 0)
        st = bw_fail(err, BW_E_ARGUMENT, "decoding %d ids: expected 0 or more", n_ids);
    return st ? st : bw_tokenizer_decode(bw_text_source_tokenizer(source), ids, (size_t)n_ids, skip_special, text, n_bytes, err);
}

bw_status bw_chat_encode(const bw_model *model, const char *request_json, int32_t **ids, int *n_ids, bw_error *err)
{
    const bw_text_source *source;
    *ids = NULL;
    *n_ids = 0;
    bw_status st = need_text(&source, model, err);
    return st ? st : bw_text_source_chat_encode(source, request_json, strlen(request_json), ids, n_ids, err);
}

bw_status bw_stream_create(bw_stream **out, const bw_model *model, const char *const *stops, int n_stops, bool skip_special,
                           bw_error *err)
{
    const bw_text_source *source;
    *out = NULL;
    bw_status st = need_text(&source, model, err);
    return st ? st : bw_stream_create_from(out, bw_text_source_tokenizer(source), stops, n_stops, skip_special, err);
}

/* ---- reasoning and content: text/reasoning.h under its public name ---- */

static bw_reasoning *inner(bw_reply *reply)
{
    return (bw_reasoning *)reply;
}

bw_status bw_reply_create(bw_reply **out, bool thinking, bw_reply_fn fn, void *arg, bw_error *err)
{
    bw_reasoning *reasoning;
    bw_status st = bw_reasoning_create(&reasoning, thinking, fn, arg, err);
    *out = st ? NULL : (bw_reply *)reasoning;
    return st;
}

bw_status bw_reply_push(bw_reply *reply, const char *text, size_t n_bytes, bw_error *err)
{
    return bw_reasoning_push(inner(reply), text, n_bytes, err);
}

bw_status bw_reply_finish(bw_reply *reply, bw_error *err)
{
    (void)err; /* nothing in it can fail */
    bw_reasoning_finish(inner(reply));
    return BW_OK;
}

void bw_reply_destroy(bw_reply *reply)
{
    bw_reasoning_destroy(inner(reply));
}
