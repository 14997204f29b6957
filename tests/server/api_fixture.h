/* api_fixture.h - reading request bodies in tests: models/lamb, a context of 2,048 tokens, and tables of
 * bodies with the errors they must give. */
#ifndef BW_TESTS_API_FIXTURE_H
#define BW_TESTS_API_FIXTURE_H

#include <stdlib.h>

#include "base/mem.h"
#include "lib/check.h"
#include "server/api_request.h"

#define API_HELPER static inline __attribute__((unused))

typedef bool (*api_reader)(bw_api_request *out, const bw_api_context *context, const char *body, size_t n, bw_api_error *err);

API_HELPER const bw_api_context *api_context(void)
{
    static const char *const ids[] = { "lamb", "lamb-alias" };
    static bw_api_context context = { .context = 2048, .model_ids = ids, .n_model_ids = 2, .max_n = 16, .default_stream_interval = 1 };
    if (!context.model) {
        bw_model *model;
        bw_error err;
        const bw_model_options options = { .n_threads = 1, .no_read_ahead = true };
        check_ok(bw_model_open(&model, repo_path("models/lamb"), &options, &err), err);
        context.model = model; /* until the program ends */
    }
    return &context;
}

/* Fails the test unless the body is taken. */
API_HELPER bw_api_request api_read(api_reader read, const char *body)
{
    bw_api_request request;
    bw_api_error err;
    const bool ok = read(&request, api_context(), body, strlen(body), &err);
    check_that(ok, "%s\n    is refused: %d %s, param \"%s\": %s", body, err.status, err.code ? err.code : "-", err.param, err.message);
    return request;
}

/* Fails the test unless the body is refused so; says: a part of the message. */
API_HELPER void api_refused(api_reader read, const char *body, int status, const char *code, const char *param, const char *says)
{
    bw_api_request request;
    bw_api_error err;
    const bool ok = read(&request, api_context(), body, strlen(body), &err);
    if (ok)
        bw_api_request_fini(&request);
    check_that(!ok, "%s\n    is taken", body);
    check_that(err.status == status && err.code && strcmp(err.code, code) == 0 && strcmp(err.param, param) == 0 &&
                   strstr(err.message, says) && !strchr(err.message, '\n'),
               "%s\n    gives %d %s, param \"%s\": %s\n    not %d %s, param \"%s\": ...%s...", body, err.status,
               err.code ? err.code : "-", err.param, err.message, status, code, param, says);
    check_str(err.type, status >= 500 ? "server_error" : "invalid_request_error");
    check(request.prompts == NULL && request.stops == NULL && request.bias == NULL && request.tools_json == NULL);
}

/* The text of a prompt, special tokens shown; one buffer. */
API_HELPER const char *api_prompt_text(const bw_api_prompt *prompt)
{
    static char text[65536];
    char *decoded;
    size_t n;
    bw_error err;
    check_ok(bw_decode(api_context()->model, prompt->ids, prompt->n_ids, false, &decoded, &n, &err), err);
    check(n < sizeof text);
    memcpy(text, decoded, n + 1);
    bw_free(decoded);
    return text;
}

/* Reads the body with the 1st, 2nd, 3rd ... allocation failing; every failure is a 500 that leaves nothing. */
API_HELPER void api_survives_failing_memory(api_reader read, const char *body)
{
    api_context();
    const uint64_t before = bw_mem_used(BW_MEM_TEXT);
    for (long n = 1; n < 100000; n++) {
        bw_api_request request;
        bw_api_error err;
        bw_mem_fail_at(n);
        const bool ok = read(&request, api_context(), body, strlen(body), &err);
        const bool failed = bw_mem_fail_at(0);
        if (ok)
            bw_api_request_fini(&request);
        check_int(bw_mem_used(BW_MEM_TEXT), before);
        check_that(ok == !failed, "allocation %ld: failed %d, taken %d", n, failed, ok);
        if (!failed)
            return;
        check_int(err.status, 500);
        check_str(err.type, "server_error");
    }
    fail_with("allocations never end");
}

#endif
