/* A request body: the first byte picks the route, the rest is the body. Against models/lamb. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "server/api_request.h"
#include "text/pyjson.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void demand(bool condition)
{
    if (!condition)
        abort();
}

static const bw_api_context *context(void)
{
    static const char *const ids[] = { "lamb" };
    static bw_api_context c = { .context = 512, .model_ids = ids, .n_model_ids = 1, .max_n = 4, .default_stream_interval = 1 };
    if (!c.model) {
        bw_model *model;
        demand(bw_model_open(&model, "models/lamb", &(bw_model_options){ .n_threads = 1, .no_read_ahead = true }, NULL) == BW_OK);
        c.model = model;
    }
    return &c;
}

static void check_error(const bw_api_error *err)
{
    demand(err->status == 400 || err->status == 404);
    demand(err->type && err->code && err->message[0] && !strchr(err->message, '\n'));
    demand(bw_utf8_valid_prefix(err->message, strlen(err->message)) == strlen(err->message));
    demand(bw_utf8_valid_prefix(err->param, strlen(err->param)) == strlen(err->param));
}

static void check_request(const bw_api_request *r, const bw_api_context *c)
{
    const bw_sampling *s = &r->sampling;
    demand(r->n_prompts >= 1 && r->n >= 1 && r->n <= c->max_n && r->stream_interval >= 1);
    for (int i = 0; i < r->n_prompts; i++) {
        const bw_api_prompt *p = &r->prompts[i];
        demand(p->n_ids >= 1 && (p->n_ids < c->context || (p->n_ids == c->context && r->max_tokens == 0)));
        for (int k = 0; k < p->n_ids; k++)
            demand(p->ids[k] >= 0 && p->ids[k] < bw_model_get_info(c->model)->n_tokens);
    }
    demand(r->max_tokens >= -1 && r->max_tokens < c->context && (r->max_tokens != 0 || r->echo));
    demand(s->temperature >= 0 && s->temperature <= 2 && s->top_p > 0 && s->top_p <= 1 && s->min_p >= 0 && s->min_p <= 1);
    demand(s->repetition_penalty > 0 && s->repetition_penalty <= 100 && s->presence_penalty >= -2 && s->presence_penalty <= 2);
    for (int i = 0; i < r->n_stops; i++)
        demand(r->stops[i][0] && strlen(r->stops[i]) <= 256);
    for (int i = 0; i < r->n_marks; i++)
        demand(r->marks[i] >= 1 && r->marks[i] < r->prompts->n_ids && (i == 0 || r->marks[i] > r->marks[i - 1]));
    demand(!r->tools_json || (r->kind == BW_API_CHAT && strlen(r->tools_json) == r->n_tools_json));
    demand(r->think_budget < 0 || r->thinking);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const bw_api_context *c = context();
    bw_api_request request = { 0 };
    bw_api_error err;
    char *answer = NULL;
    bool ok;
    if (n == 0)
        return 0;
    const char *body = (const char *)data + 1;
    switch (data[0]) {
    case 'p': ok = bw_api_read_completion(&request, c, body, n - 1, &err); break;
    case 't': ok = bw_api_tokenize(&answer, c, body, n - 1, &err); break;
    case 'd': ok = bw_api_detokenize(&answer, c, body, n - 1, &err); break;
    case 'a': ok = bw_api_apply_template(&answer, c, body, n - 1, &err); break;
    default: ok = bw_api_read_chat(&request, c, body, n - 1, &err); break;
    }
    if (!ok) {
        check_error(&err);
        demand(!answer && !request.prompts && !request.stops);
    } else if (answer) {
        bw_pyjson *document;
        const bw_json *root;
        demand(bw_pyjson_parse(&document, &root, answer, strlen(answer), "the answer", NULL) == BW_OK);
        demand(root->kind == BW_JSON_OBJECT);
        bw_pyjson_free(document);
    } else {
        check_request(&request, c);
    }
    bw_mem_free(answer);
    bw_api_request_fini(&request);
    return 0;
}
