/* Requests from the socket to the last byte of their answers, with a real model, engine and HTTP
 * (src/server/generation.h). Client and loop share one thread; the engine has its own. */
#include "lib/check.h"

#include <event2/event.h>
#include <json-c/json.h>
#include <math.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/mem.h"
#include "lib/runs.h"
#include "lib/socket_client.h"
#include "server/generation.h"
#include "server/loader.h"
#include "server/serve.h"

enum { CONTEXT = 2048, MAX_SEQS = 2, WAIT_S = 60 };

static bw_model *model;
static bw_server server;
static bw_serve_options options;
static bw_loaded loaded;

/* ---- a server --------------------------------------------------------------------------------- */

static void pump(void)
{
    bw_post *posts;
    bw_step_record *steps;
    event_base_loop(server.base, EVLOOP_NONBLOCK);
    bw_engine_thread_take(server.thread, &posts, &steps);
    while (steps) {
        bw_step_record *next = steps->next;
        bw_step_record_free(steps);
        steps = next;
    }
    bw_generations_take_posts(server.generations, posts);
}

static void ignore_wake(void *arg)
{
    (void)arg;
}

static const bw_route routes[] = {
    { BW_POST, "/v1/chat/completions", BW_ROUTE_JSON, "chat", bw_handle_chat },
    { BW_POST, "/v1/completions", BW_ROUTE_JSON, "completions", bw_handle_completion },
};

static void start(void)
{
    static const char *const ids[] = { "lamb" };
    bw_error err;
    bw_engine_options engine = bw_engine_defaults();
    bw_http_options http = bw_http_defaults();
    if (!model)
        check_ok(bw_model_open(&model, repo_path("models/lamb"), NULL, &err), err);
    engine.context = CONTEXT;
    engine.max_seqs = MAX_SEQS;
    engine.max_waiting = 16;
    engine.cache_memory = 64 << 20;
    server = (bw_server){ .options = &options, .base = event_base_new(), .model = model, .model_id = "lamb", .created = 1,
                          .fingerprint = "lamb-test", .loaded = &loaded };
    loaded.max_waiting = 64;
    server.api = (bw_api_context){ .model = model, .context = CONTEXT, .model_ids = ids, .n_model_ids = 1, .max_n = 16,
                                   .default_stream_interval = 1 };
    http.port = 0;
    http.arg = &server;
    check_ok(bw_http_create(&server.http, server.base, routes, (int)BW_COUNT(routes), &http, &err), err);
    bw_http_set_ready(server.http, BW_READY, 1, NULL);
    check_ok(bw_work_create(&server.work, server.base, 2, &err), err);
    check_ok(bw_engine_create(&server.engine, model, &engine, &err), err);
    check_ok(bw_engine_thread_create(&server.thread, server.engine, ignore_wake, NULL, &err), err);
    check_ok(bw_generations_create(&server.generations, &server, &err), err);
    socket_pump = pump;
}

static void stop(void)
{
    bw_generations_destroy(server.generations);
    bw_work_destroy(server.work);
    bw_http_destroy(server.http);
    bw_engine_thread_destroy(server.thread);
    bw_engine_destroy(server.engine);
    event_base_free(server.base);
    socket_pump = NULL;
    options = (bw_serve_options){ 0 };
}

static int live_requests(void)
{
    bw_seq_info infos[64];
    return bw_engine_thread_list(server.thread, infos, 64);
}

static bool wait_until(bool (*is)(void), double seconds)
{
    for (const double end = seconds_now() + seconds; !is();) {
        if (seconds_now() > end)
            return false;
        pump();
    }
    return true;
}

static bool nothing_lives(void)
{
    return live_requests() == 0 && bw_generations_live(server.generations) == 0;
}

static bool one_runs(void)
{
    bw_seq_info info;
    return bw_engine_thread_list(server.thread, &info, 1) == 1 && info.state == BW_SEQ_DECODE;
}

/* ---- a client --------------------------------------------------------------------------------- */

static void post_body(client *c, const char *path, const char *body)
{
    char head[256];
    snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", path,
             strlen(body));
    client_send(c, head);
    client_send(c, body);
}

static response ask(const char *path, const char *body)
{
    client c = client_open(bw_http_port(server.http));
    post_body(&c, path, body);
    response r = client_response(&c, false, WAIT_S);
    client_close(&c);
    return r;
}

static struct json_object *ask_json(const char *path, const char *body, int status)
{
    response r = ask(path, body);
    check_that(r.status == status, "%d %s", r.status, r.body);
    struct json_object *json = json_tokener_parse(r.body);
    check_that(json != NULL, "%s", r.body);
    response_free(&r);
    return json;
}

/* A member by a path such as "choices.0.message.content"; NULL when there is none. */
static struct json_object *at(struct json_object *json, const char *path)
{
    char name[64];
    while (json && *path) {
        const size_t n = strcspn(path, ".");
        snprintf(name, sizeof name, "%.*s", (int)n, path);
        if (json_object_is_type(json, json_type_array))
            json = json_object_array_get_idx(json, (size_t)atoi(name));
        else if (!json_object_object_get_ex(json, name, &json))
            return NULL;
        path += n + (path[n] == '.');
    }
    return json;
}

static const char *text_at(struct json_object *json, const char *path)
{
    return json_object_get_string(at(json, path));
}

static long long number_at(struct json_object *json, const char *path)
{
    check_that(json_object_is_type(at(json, path), json_type_int), "%s: %s", path, json_object_to_json_string(json));
    return json_object_get_int64(at(json, path));
}

/* The events of a stream; fails unless each is whole and the last is [DONE]. */
typedef struct events {
    struct json_object *json[8192];
    int n;
} events;

static void split_events(events *out, const char *body)
{
    out->n = 0;
    bool done = false;
    while (*body) {
        const char *end = strstr(body, "\n\n");
        check_that(end && strncmp(body, "data: ", 6) == 0 && !done, "%.200s", body);
        char *line = strndup(body + 6, (size_t)(end - body - 6));
        done = strcmp(line, "[DONE]") == 0;
        if (!done) {
            check(out->n < 8192);
            out->json[out->n] = json_tokener_parse(line);
            check_that(out->json[out->n++] != NULL, "%s", line);
        }
        free(line);
        body = end + 2;
    }
    check(done);
}

static events *ask_stream(const char *path, const char *body)
{
    static events out;
    response r = ask(path, body);
    check_that(r.status == 200, "%d %s", r.status, r.body);
    check_str(response_header(&r, "Content-Type"), "text/event-stream; charset=utf-8");
    split_events(&out, r.body);
    response_free(&r);
    return &out;
}

static void free_events(events *e)
{
    for (int i = 0; i < e->n; i++)
        json_object_put(e->json[i]);
}

/* All deltas of one choice, joined. */
static const char *joined(const events *e, int index, const char *path)
{
    static char text[65536];
    text[0] = '\0';
    for (int i = 0; i < e->n; i++)
        if (at(e->json[i], "choices.0") && number_at(e->json[i], "choices.0.index") == index && at(e->json[i], path))
            strncat(text, text_at(e->json[i], path), sizeof text - strlen(text) - 1);
    return text;
}

#define CHAT "/v1/chat/completions"
#define COMPLETION "/v1/completions"
#define STORY "\"messages\":[{\"role\":\"user\",\"content\":\"Tell me a story about a sheep.\"}],\"temperature\":0"
#define NO_THINKING ",\"chat_template_kwargs\":{\"enable_thinking\":false}"

/* ---- tests ------------------------------------------------------------------------------------ */

TEST(a_chat_is_answered_whole)
{
    start();
    struct json_object *a = ask_json(CHAT, "{" STORY NO_THINKING ",\"max_tokens\":24}", 200);
    check_str(text_at(a, "object"), "chat.completion");
    check_str(text_at(a, "model"), "lamb");
    check_str(text_at(a, "choices.0.message.role"), "assistant");
    check_str(text_at(a, "choices.0.finish_reason"), "length");
    check(strlen(text_at(a, "choices.0.message.content")) > 20);
    check_int(number_at(a, "usage.completion_tokens"), 24);
    check_int(number_at(a, "usage.total_tokens"), 24 + number_at(a, "usage.prompt_tokens"));
    check_int(number_at(a, "timings.predicted_n"), 24);
    check_int(number_at(a, "timings.cache_n") + number_at(a, "timings.prompt_n"), number_at(a, "usage.prompt_tokens"));
    check(strncmp(text_at(a, "id"), "chatcmpl-", 9) == 0);
    json_object_put(a);
    stop();
}

TEST(a_stream_says_what_the_whole_answer_says)
{
    start();
    struct json_object *a = ask_json(CHAT, "{" STORY ",\"max_tokens\":60}", 200);
    events *e = ask_stream(CHAT, "{" STORY ",\"max_tokens\":60,\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    check_str(text_at(e->json[0], "choices.0.delta.role"), "assistant");
    check_str(text_at(e->json[0], "choices.0.delta.content"), "");
    if (at(a, "choices.0.message.reasoning"))
        check_str(joined(e, 0, "choices.0.delta.reasoning"), text_at(a, "choices.0.message.reasoning"));
    check_str(joined(e, 0, "choices.0.delta.content"), text_at(a, "choices.0.message.content"));
    struct json_object *last = e->json[e->n - 2], *usage = e->json[e->n - 1];
    check_int(json_object_object_length(at(last, "choices.0.delta")), 0);
    check_str(text_at(last, "choices.0.finish_reason"), text_at(a, "choices.0.finish_reason"));
    check_int(json_object_array_length(at(usage, "choices")), 0);
    check_int(number_at(usage, "usage.completion_tokens"), number_at(a, "usage.completion_tokens"));
    check(at(usage, "timings.seed"));
    for (int i = 0; i < e->n; i++) {
        check((at(e->json[i], "usage") != NULL) == (i == e->n - 1));
        check_str(text_at(e->json[i], "id"), text_at(e->json[0], "id"));
        check_str(text_at(e->json[i], "object"), "chat.completion.chunk");
    }
    free_events(e);
    json_object_put(a);
    stop();
}

TEST(no_delta_holds_two_kinds)
{
    start();
    events *e = ask_stream(CHAT, "{" STORY ",\"max_tokens\":200,\"stream\":true}");
    for (int i = 1; i < e->n; i++) {
        struct json_object *delta = at(e->json[i], "choices.0.delta");
        check(!(at(delta, "reasoning") && at(delta, "content")));
        if (at(delta, "reasoning"))
            check_str(text_at(delta, "reasoning"), text_at(delta, "reasoning_content"));
    }
    check(at(e->json[e->n - 1], "timings.predicted_n")); /* no usage was asked for: on the last chunk */
    free_events(e);
    stop();
}

TEST(every_token_of_a_completion_is_an_event)
{
    start();
    const char *body = "{\"prompt\":\"Once upon a time\",\"max_tokens\":40,\"ignore_eos\":true,\"temperature\":0,\"stream\":true}";
    events *e = ask_stream(COMPLETION, body);
    check_int(e->n, 40);
    check_str(text_at(e->json[39], "choices.0.finish_reason"), "length");
    free_events(e);
    e = ask_stream(COMPLETION, "{\"prompt\":\"Once upon a time\",\"max_tokens\":40,\"ignore_eos\":true,\"temperature\":0,"
                               "\"stream\":true,\"stream_interval\":10}");
    check_int(e->n, 5); /* the first alone, three of ten, and the rest with the end */
    free_events(e);
    stop();
}

TEST(choices_begin_in_index_order_and_differ_by_seed)
{
    start();
    const char *two = "{\"messages\":[{\"role\":\"user\",\"content\":\"Tell me a story.\"}],\"seed\":5,\"n\":2,\"max_tokens\":30,"
                      "\"temperature\":1,\"stream\":true" NO_THINKING "}";
    const char *one = "{\"messages\":[{\"role\":\"user\",\"content\":\"Tell me a story.\"}],\"seed\":6,\"max_tokens\":30,"
                      "\"temperature\":1" NO_THINKING "}";
    events *e = ask_stream(CHAT, two);
    check_int(number_at(e->json[0], "choices.0.index"), 0);
    check_int(number_at(e->json[1], "choices.0.index"), 1);
    check_str(text_at(e->json[1], "choices.0.delta.role"), "assistant");
    char *second = strdup(joined(e, 1, "choices.0.delta.content"));
    check(strcmp(joined(e, 0, "choices.0.delta.content"), second) != 0);
    struct json_object *a = ask_json(CHAT, one, 200);
    check_str(second, text_at(a, "choices.0.message.content"));
    free(second);
    json_object_put(a);
    free_events(e);
    stop();
}

TEST(several_prompts_are_numbered_prompt_major)
{
    start();
    struct json_object *a = ask_json(COMPLETION, "{\"prompt\":[\"Once upon a time\",\"The sheep\"],\"n\":2,\"max_tokens\":8,"
                                                 "\"temperature\":0}", 200);
    check_int(json_object_array_length(at(a, "choices")), 4);
    check_str(text_at(a, "choices.0.text"), text_at(a, "choices.1.text"));
    check_str(text_at(a, "choices.2.text"), text_at(a, "choices.3.text"));
    check(strcmp(text_at(a, "choices.0.text"), text_at(a, "choices.2.text")) != 0);
    check_int(number_at(a, "choices.3.index"), 3);
    check_int(number_at(a, "usage.completion_tokens"), 32);
    json_object_put(a);
    stop();
}

TEST(a_stop_string_ends_the_answer_and_its_tokens_count)
{
    start();
    struct json_object *all = ask_json(CHAT, "{" STORY NO_THINKING ",\"max_tokens\":60}", 200);
    struct json_object *a = ask_json(CHAT, "{" STORY NO_THINKING ",\"max_tokens\":60,\"stop\":[\"zebra\",\".\"]}", 200);
    const char *text = text_at(all, "choices.0.message.content");
    check_int(strlen(text_at(a, "choices.0.message.content")), strcspn(text, "."));
    check_str(text_at(a, "choices.0.finish_reason"), "stop");
    check_str(text_at(a, "choices.0.stop_reason"), ".");
    check(number_at(a, "usage.completion_tokens") < 60);
    check(wait_until(nothing_lives, WAIT_S));
    json_object_put(a);
    a = ask_json(CHAT, "{" STORY NO_THINKING ",\"max_tokens\":60,\"stop\":\".\",\"include_stop_str_in_output\":true}", 200);
    check_int(strlen(text_at(a, "choices.0.message.content")), strcspn(text, ".") + 1);
    json_object_put(a);
    json_object_put(all);
    stop();
}

/* 100 words, four choices: the first computes them, the others begin where its last token is missing. */
TEST(choices_of_a_text_share_its_prompt)
{
    start();
    char body[1024] = "{\"prompt\":\"";
    for (int i = 0; i < 100; i++)
        strcat(body, " sheep");
    strcat(body, "\",\"n\":4,\"max_tokens\":4,\"temperature\":0}");
    struct json_object *a = ask_json(COMPLETION, body, 200);
    const double n = number_at(a, "usage.prompt_tokens");
    check(n > 64);
    bw_engine_stats stats;
    bw_engine_thread_stats(server.thread, &stats);
    check_int(stats.cached_tokens, 3 * (n - 1));
    for (int i = 1; i < 4; i++) {
        char path[32];
        snprintf(path, sizeof path, "choices.%d.text", i);
        check_str(text_at(a, path), text_at(a, "choices.0.text"));
    }
    json_object_put(a);
    stop();
}

TEST(a_stop_token_of_the_request_is_the_reason)
{
    start();
    struct json_object *a = ask_json(COMPLETION, "{\"prompt\":\"Once upon a time\",\"max_tokens\":40,\"temperature\":0,"
                                                 "\"return_token_ids\":true}", 200);
    const int stop_id = (int)number_at(a, "choices.0.token_ids.5");
    json_object_put(a);
    char body[256];
    snprintf(body, sizeof body, "{\"prompt\":\"Once upon a time\",\"max_tokens\":40,\"temperature\":0,\"stop_token_ids\":[%d]}", stop_id);
    a = ask_json(COMPLETION, body, 200);
    check_str(text_at(a, "choices.0.finish_reason"), "stop");
    check_int(number_at(a, "choices.0.stop_reason"), stop_id);
    check(number_at(a, "usage.completion_tokens") <= 6);
    json_object_put(a);
    stop();
}

TEST(chat_logprobs_are_of_every_token_streamed_or_not)
{
    start();
    struct json_object *a = ask_json(CHAT, "{" STORY ",\"max_tokens\":30,\"logprobs\":true,\"top_logprobs\":3}", 200);
    const size_t n = json_object_array_length(at(a, "choices.0.logprobs.content"));
    check_int(n, number_at(a, "usage.completion_tokens"));
    for (size_t i = 0; i < n; i++) {
        struct json_object *token = json_object_array_get_idx(at(a, "choices.0.logprobs.content"), i);
        check_int(json_object_array_length(at(token, "top_logprobs")), 3);
        check_str(text_at(token, "token"), text_at(token, "top_logprobs.0.token")); /* greedy */
        check(json_object_get_double(at(token, "logprob")) <= 0);
    }
    events *e = ask_stream(CHAT, "{" STORY ",\"max_tokens\":30,\"logprobs\":true,\"top_logprobs\":3,\"stream\":true}");
    size_t streamed = 0;
    for (int i = 0; i < e->n; i++) {
        struct json_object *list = at(e->json[i], "choices.0.logprobs.content");
        for (size_t k = 0; list && k < json_object_array_length(list); k++, streamed++)
            check_str(json_object_to_json_string(json_object_array_get_idx(list, k)),
                      json_object_to_json_string(json_object_array_get_idx(at(a, "choices.0.logprobs.content"), streamed)));
    }
    check_int(streamed, n);
    free_events(e);
    json_object_put(a);
    stop();
}

/* What an engine of our own says of the same tokens. */
static void score_prompt(const int32_t *ids, int n, float *scores)
{
    bw_engine *engine = open_engine(model, CONTEXT, 0, 1, BW_KV_F16);
    bw_request r = greedy_request(model, ids, n, 0);
    static run out;
    r.prompt_logprobs = scores;
    run_request(engine, &r, &out);
    bw_engine_destroy(engine);
}

TEST(an_echoed_prompt_has_exact_logprobs)
{
    start();
    const char *prompt = "Once upon a time there was a small sheep in the village.";
    int32_t *ids;
    int n;
    bw_error err;
    float scores[64];
    check_ok(bw_encode(model, prompt, strlen(prompt), false, &ids, &n, &err), err);
    check(n > 4 && n < 64);
    score_prompt(ids, n, scores);
    for (int max = 0; max < 2; max++) {
        char body[256];
        snprintf(body, sizeof body, "{\"prompt\":\"%s\",\"max_tokens\":%d,\"temperature\":0,\"echo\":true,\"logprobs\":0}", prompt, max);
        struct json_object *a = ask_json(COMPLETION, body, 200);
        check(strncmp(text_at(a, "choices.0.text"), prompt, strlen(prompt)) == 0);
        struct json_object *list = at(a, "choices.0.logprobs.token_logprobs");
        check_int(json_object_array_length(list), n + max);
        check(json_object_array_get_idx(list, 0) == NULL);
        for (int i = 1; i < n; i++)
            check_that((float)json_object_get_double(json_object_array_get_idx(list, (size_t)i)) == scores[i], "token %d: %s, %.9g", i,
                       json_object_to_json_string(json_object_array_get_idx(list, (size_t)i)), scores[i]);
        check_int(number_at(a, "choices.0.logprobs.text_offset.0"), 0);
        check_int(number_at(a, "usage.completion_tokens"), max);
        json_object_put(a);
    }
    bw_free(ids);
    stop();
}

/* A harness that scores asks whether a token is the most probable one: it, and the best, are always there. */
TEST(an_echoed_prompt_has_alternatives)
{
    start();
    struct json_object *a = ask_json(COMPLETION, "{\"prompt\":\"Once upon a time there was\",\"max_tokens\":0,\"temperature\":0,"
                                                 "\"echo\":true,\"logprobs\":1}", 200);
    struct json_object *tops = at(a, "choices.0.logprobs.top_logprobs"), *scores = at(a, "choices.0.logprobs.token_logprobs");
    const size_t n = json_object_array_length(tops);
    check(n > 3 && json_object_array_get_idx(tops, 0) == NULL);
    for (size_t i = 1; i < n; i++) {
        struct json_object *top = json_object_array_get_idx(tops, i);
        double best = -INFINITY, own = json_object_get_double(json_object_array_get_idx(scores, i));
        bool has_own = false;
        json_object_object_foreach(top, token, value) {
            (void)token;
            best = fmax(best, json_object_get_double(value));
            has_own = has_own || json_object_get_double(value) == own;
        }
        check_that(has_own && best >= own, "token %zu: %s", i, json_object_to_json_string(top));
        check_int(json_object_object_length(top), best == own ? 1 : 2);
    }
    json_object_put(a);
    stop();
}

static double largest(struct json_object *alternatives)
{
    double most = -INFINITY;
    check(json_object_is_type(alternatives, json_type_object));
    json_object_object_foreach(alternatives, key, value) {
        (void)key;
        most = fmax(most, json_object_get_double(value));
    }
    return most;
}

/* How evaluation harnesses ask: is this continuation what the model would have said? */
TEST(an_echoed_continuation_shows_whether_it_is_the_most_probable)
{
    start();
    struct json_object *a = ask_json(COMPLETION, "{\"prompt\":\"Once upon a time\",\"max_tokens\":20,\"temperature\":0,"
                                                 "\"return_token_ids\":true}", 200);
    struct json_object *prompt = at(a, "choices.0.prompt_token_ids"), *answer = at(a, "choices.0.token_ids");
    const size_t n_prompt = json_object_array_length(prompt), n = n_prompt + json_object_array_length(answer);
    struct json_object *ids = json_object_new_array();
    for (size_t i = 0; i < n; i++)
        json_object_array_add(ids, json_object_get(i < n_prompt ? json_object_array_get_idx(prompt, i)
                                                                : json_object_array_get_idx(answer, i - n_prompt)));
    for (int k = 0; k < 2; k++) { /* as it was said; with another token in it */
        char body[1024];
        if (k)
            json_object_array_put_idx(ids, n - 3, json_object_new_int(17));
        snprintf(body, sizeof body, "{\"prompt\":%s,\"max_tokens\":1,\"temperature\":0,\"echo\":true,\"logprobs\":1}",
                 json_object_to_json_string_ext(ids, JSON_C_TO_STRING_PLAIN));
        struct json_object *b = ask_json(COMPLETION, body, 200);
        bool greedy = true;
        for (size_t i = n_prompt; i < n; i++)
            greedy &= json_object_get_double(json_object_array_get_idx(at(b, "choices.0.logprobs.token_logprobs"), i)) ==
                      largest(json_object_array_get_idx(at(b, "choices.0.logprobs.top_logprobs"), i));
        check_int(greedy, k == 0);
        check(json_object_array_get_idx(at(b, "choices.0.logprobs.top_logprobs"), 0) == NULL);
        json_object_put(b);
    }
    json_object_put(ids);
    json_object_put(a);
    stop();
}

TEST(continuous_usage_counts_up_in_every_chunk)
{
    start();
    events *e = ask_stream(CHAT, "{" STORY ",\"max_tokens\":20,\"stream\":true,\"stream_options\":{\"include_usage\":true,"
                                 "\"continuous_usage_stats\":true}}");
    long long before = 0;
    for (int i = 0; i < e->n; i++) {
        const long long now = number_at(e->json[i], "usage.completion_tokens");
        check(now >= before && number_at(e->json[i], "usage.prompt_tokens") == number_at(e->json[0], "usage.prompt_tokens"));
        before = now;
    }
    check_int(before, 20);
    free_events(e);
    stop();
}

TEST(an_echo_streams_like_it_is_answered_whole)
{
    start();
    struct json_object *a = ask_json(COMPLETION, "{\"prompt\":\"Once upon a time\",\"max_tokens\":6,\"temperature\":0,\"echo\":true,"
                                                 "\"logprobs\":1}", 200);
    events *e = ask_stream(COMPLETION, "{\"prompt\":\"Once upon a time\",\"max_tokens\":6,\"temperature\":0,\"echo\":true,"
                                       "\"logprobs\":1,\"stream\":true}");
    check_str(joined(e, 0, "choices.0.text"), text_at(a, "choices.0.text"));
    size_t n = 0;
    for (int i = 0; i < e->n; i++)
        n += json_object_array_length(at(e->json[i], "choices.0.logprobs.tokens"));
    check_int(n, json_object_array_length(at(a, "choices.0.logprobs.tokens")));
    free_events(e);
    json_object_put(a);
    stop();
}

TEST(a_thinking_budget_closes_the_block)
{
    start();
    struct json_object *a = ask_json(CHAT, "{" STORY ",\"max_tokens\":60,\"thinking_token_budget\":4}", 200);
    const long long reasoning = number_at(a, "usage.completion_tokens_details.reasoning_tokens");
    check_that(reasoning >= 4 && reasoning <= 8, "%lld reasoning tokens", reasoning);
    check(strlen(text_at(a, "choices.0.message.content")) > 10);
    json_object_put(a);
    stop();
}

TEST(the_second_turn_of_a_chat_comes_from_the_cache)
{
    start();
    struct json_object *a = ask_json(CHAT, "{" STORY NO_THINKING ",\"max_tokens\":100}", 200);
    char *body = malloc(8192);
    check(snprintf(body, 8192, "{\"messages\":[{\"role\":\"user\",\"content\":\"Tell me a story about a sheep.\"},"
                          "{\"role\":\"assistant\",\"content\":%s},{\"role\":\"user\",\"content\":\"And then?\"}]"
                          ",\"temperature\":0,\"max_tokens\":4" NO_THINKING "}",
                   json_object_to_json_string(at(a, "choices.0.message.content"))) < 8192);
    json_object_put(a);
    a = ask_json(CHAT, body, 200);
    check_int(number_at(a, "usage.prompt_tokens_details.cached_tokens"), number_at(a, "timings.cache_n"));
    check(number_at(a, "timings.cache_n") > 0);
    check_that(at(a, "timings") && json_object_object_get_ex(at(a, "timings"), "cache_miss", NULL), "%s", json_object_to_json_string(a));
    free(body);
    json_object_put(a);
    stop();
}

TEST(a_bad_body_is_a_real_status)
{
    start();
    struct json_object *a = ask_json(CHAT, "{" STORY ",\"max_tokens\":0,\"stream\":true}", 400);
    check_str(text_at(a, "error.type"), "invalid_request_error");
    check_str(text_at(a, "error.param"), "max_tokens");
    check(wait_until(nothing_lives, 1));
    json_object_put(a);
    stop();
}

TEST(more_answers_than_ever_fit_are_refused_for_good)
{
    start();
    struct json_object *a = ask_json(COMPLETION, "{\"prompt\":[\"a\",\"b\",\"c\",\"d\",\"e\"],\"n\":16}", 400);
    check(strstr(text_at(a, "error.message"), "80 answers") && strstr(text_at(a, "error.message"), "2 at a time"));
    json_object_put(a);
    stop();
}

TEST(a_full_queue_answers_429_with_retry_after)
{
    start();
    bw_engine_thread_set_admission(server.thread, (bw_admission){ .max_requests = 1 });
    client c[3];
    for (int i = 0; i < 3; i++) {
        c[i] = client_open(bw_http_port(server.http));
        post_body(&c[i], CHAT, "{" STORY NO_THINKING ",\"max_tokens\":800,\"ignore_eos\":true,\"stream\":true}");
        check(i == 2 || client_wait(&c[i], "chat.completion.chunk", WAIT_S));
    }
    check(client_wait(&c[2], "text/event-stream", WAIT_S)); /* waits: admitted all the same */
    response r = ask(CHAT, "{" STORY ",\"stream\":true}");
    check_int(r.status, 429);
    const char *retry = response_header(&r, "Retry-After");
    check_that(retry && atoi(retry) >= 1 && atoi(retry) <= 60, "%s", r.head);
    check(strstr(r.body, "\"code\":\"queue_full\"") || strstr(r.body, "\"code\": \"queue_full\""));
    response_free(&r);
    for (int i = 0; i < 3; i++)
        client_close(&c[i]);
    check(wait_until(nothing_lives, WAIT_S));
    stop();
}

TEST(a_client_that_leaves_frees_its_sequences)
{
    start();
    for (int how = 0; how < 4; how++) {
        client c = client_open(bw_http_port(server.http));
        post_body(&c, CHAT, how & 1 ? "{" STORY NO_THINKING ",\"max_tokens\":900,\"ignore_eos\":true,\"n\":2,\"stream\":true}"
                                    : "{" STORY NO_THINKING ",\"max_tokens\":900,\"ignore_eos\":true,\"n\":2}");
        check(wait_until(one_runs, WAIT_S));
        if (how & 2)
            client_reset(&c);
        else
            client_close(&c);
        check(wait_until(nothing_lives, WAIT_S));
    }
    stop();
}

TEST(a_client_may_leave_while_its_body_is_read)
{
    start();
    for (int i = 0; i < 30; i++) {
        client c = client_open(bw_http_port(server.http));
        post_body(&c, CHAT, "{" STORY ",\"max_tokens\":900,\"ignore_eos\":true}");
        for (int k = 0; k < i % 3; k++)
            event_base_loop(server.base, EVLOOP_NONBLOCK);
        client_reset(&c);
    }
    check(wait_until(nothing_lives, WAIT_S));
    stop();
}

TEST(a_request_that_takes_too_long_ends_with_an_error)
{
    options.request_timeout_s = 0.2;
    start();
    struct json_object *a = ask_json(CHAT, "{" STORY NO_THINKING ",\"max_tokens\":1000,\"ignore_eos\":true,\"n\":4}", 504);
    check_str(text_at(a, "error.type"), "timeout");
    json_object_put(a);
    client c = client_open(bw_http_port(server.http));
    post_body(&c, CHAT, "{" STORY NO_THINKING ",\"max_tokens\":1000,\"ignore_eos\":true,\"n\":4,\"stream\":true}");
    response r = client_response(&c, false, WAIT_S);
    check_int(r.status, 200);
    events e;
    split_events(&e, r.body);
    check_str(text_at(e.json[e.n - 1], "error.type"), "timeout");
    check(client_wait_end(&c, 5)); /* a broken stream: the connection closes */
    free_events(&e);
    response_free(&r);
    client_close(&c);
    check(wait_until(nothing_lives, WAIT_S));
    stop();
}

/* The only sequence ends, as the engine would say it. */
static void post_end(bw_finish finish)
{
    bw_seq_info info;
    check_int(bw_engine_thread_list(server.thread, &info, 1), 1);
    bw_post *post = bw_mem_zalloc(1, sizeof *post, BW_MEM_MISC);
    *post = (bw_post){ .ticket = info.id, .finish = finish, .error = "layer 3: not a number" };
    bw_engine_thread_cancel(server.thread, info.id);
    bw_generations_take_posts(server.generations, post);
}

TEST(a_failing_sequence_ends_its_stream_with_an_error_event)
{
    start();
    client c = client_open(bw_http_port(server.http));
    post_body(&c, CHAT, "{" STORY NO_THINKING ",\"max_tokens\":900,\"ignore_eos\":true,\"stream\":true}");
    check(client_wait(&c, "chat.completion.chunk", WAIT_S));
    post_end(BW_FINISH_ERROR);
    response r = client_response(&c, false, WAIT_S);
    const char *end = strstr(r.body, "data: {\"error\":{");
    check(end && strstr(end, "\"type\":\"server_error\"") && strstr(end, "}}\n\ndata: [DONE]\n\n"));
    check(!strstr(r.body, "layer 3")); /* no internals, but what to look for in the log */
    check(strstr(end, response_header(&r, "X-Request-Id")));
    check(client_wait_end(&c, 5));
    response_free(&r);
    client_close(&c);

    c = client_open(bw_http_port(server.http));
    post_body(&c, CHAT, "{" STORY NO_THINKING ",\"max_tokens\":900,\"ignore_eos\":true}");
    check(wait_until(one_runs, WAIT_S));
    post_end(BW_FINISH_ERROR);
    r = client_response(&c, false, WAIT_S);
    check_int(r.status, 500);
    response_free(&r);
    client_close(&c);
    stop();
}

TEST(shutting_down_ends_everything_with_an_error)
{
    start();
    client c = client_open(bw_http_port(server.http)), d = client_open(bw_http_port(server.http));
    post_body(&c, CHAT, "{" STORY NO_THINKING ",\"max_tokens\":900,\"ignore_eos\":true,\"stream\":true}");
    check(client_wait(&c, "chat.completion.chunk", WAIT_S));
    post_body(&d, CHAT, "{" STORY NO_THINKING ",\"max_tokens\":900,\"ignore_eos\":true}");
    for (int i = 0; i < 50; i++)
        client_idle(&d, 0.001);
    bw_generations_fail_all(server.generations, "draining", "The server is shutting down.");
    check(client_wait(&c, "\"code\":\"draining\"", WAIT_S) && client_wait(&c, "data: [DONE]\n\n", 5));
    response r = client_response(&d, false, WAIT_S);
    check_int(r.status, 503);
    check(response_header(&r, "Retry-After") != NULL);
    response_free(&r);
    check_int(bw_generations_live(server.generations), 0);
    client_close(&c);
    client_close(&d);
    stop();
}

TEST(a_loop_stops_the_answer_and_says_so)
{
    start();
    client c = client_open(bw_http_port(server.http));
    post_body(&c, CHAT, "{" STORY NO_THINKING ",\"max_tokens\":900,\"ignore_eos\":true}");
    check(wait_until(one_runs, WAIT_S));
    post_end(BW_FINISH_LOOP);
    response r = client_response(&c, false, WAIT_S);
    check_int(r.status, 200);
    struct json_object *a = json_tokener_parse(r.body);
    check_str(text_at(a, "choices.0.finish_reason"), "stop");
    check_str(text_at(a, "choices.0.stop_reason"), "loop");
    json_object_put(a);
    response_free(&r);
    client_close(&c);
    stop();
}

#define TOOLS "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"description\":\"Weather by city\"," \
              "\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"},\"days\":{\"type\":\"integer\"}}," \
              "\"required\":[\"city\"]}}}]"
#define WEATHER "\"messages\":[{\"role\":\"user\",\"content\":\"What is the weather in Paris?\"}],\"temperature\":0," TOOLS

TEST(a_tool_call_streams_its_name_once_and_then_its_arguments)
{
    start();
    struct json_object *a = ask_json(CHAT, "{" WEATHER NO_THINKING ",\"max_tokens\":100}", 200);
    check_str(text_at(a, "choices.0.finish_reason"), "tool_calls");
    check_that(at(a, "choices.0.message.content") == NULL, "%s", json_object_to_json_string(a));
    check_str(text_at(a, "choices.0.message.tool_calls.0.function.name"), "get_weather");
    struct json_object *arguments = json_tokener_parse(text_at(a, "choices.0.message.tool_calls.0.function.arguments"));
    check_str(text_at(arguments, "city"), "Paris");
    json_object_put(arguments);
    events *e = ask_stream(CHAT, "{" WEATHER NO_THINKING ",\"max_tokens\":100,\"stream\":true}");
    int named = 0;
    for (int i = 0; i < e->n; i++) {
        struct json_object *call = at(e->json[i], "choices.0.delta.tool_calls.0");
        if (call && at(call, "id")) {
            named++;
            check_str(text_at(call, "function.arguments"), "");
            check_str(text_at(call, "type"), "function");
        } else if (call) {
            check(named == 1 && !at(call, "type") && !at(call, "function.name"));
        }
    }
    check_int(named, 1);
    check_str(joined(e, 0, "choices.0.delta.tool_calls.0.function.arguments"),
              text_at(a, "choices.0.message.tool_calls.0.function.arguments"));
    check_str(text_at(e->json[e->n - 1], "choices.0.finish_reason"), "tool_calls");
    free_events(e);
    json_object_put(a);
    stop();
}

TEST(a_call_cut_short_has_json_arguments_and_says_length)
{
    start();
    int calls = 0;
    for (int max = 1; max < 40; max += 3) {
        char body[1024];
        snprintf(body, sizeof body, "{" WEATHER NO_THINKING ",\"max_tokens\":%d}", max);
        struct json_object *a = ask_json(CHAT, body, 200);
        const char *text = text_at(a, "choices.0.message.tool_calls.0.function.arguments");
        if (text) {
            struct json_object *arguments = json_tokener_parse(text);
            check_that(json_object_is_type(arguments, json_type_object), "%s", text);
            json_object_put(arguments);
            calls++;
        }
        check_str(text_at(a, "choices.0.finish_reason"),
                  number_at(a, "usage.completion_tokens") == max && strcmp(text_at(a, "choices.0.finish_reason"), "length") == 0
                      ? "length" : "tool_calls");
        json_object_put(a);
    }
    check(calls > 2);
    stop();
}

static bool first_is_paused(void)
{
    bw_seq_info info;
    return bw_engine_thread_list(server.thread, &info, 1) == 1 && info.state == BW_SEQ_PAUSED;
}

/* Reads on, keeping no more than the last bytes: these are megabytes. */
static bool reads_up_to(client *c, const char *text)
{
    for (const double end = seconds_now() + WAIT_S; seconds_now() < end;) {
        client_idle(c, 0.001);
        if (strstr(c->data, text))
            return true;
        if (c->n > 4096) {
            memmove(c->data, c->data + c->n - 1024, 1025);
            c->n = 1024;
        }
    }
    return false;
}

static bool first_is_paused_or_none(void)
{
    return first_is_paused() || nothing_lives();
}

/* A name of kilobytes in every chunk, so that what the kernel takes and the megabyte fill in time. */
TEST(a_slow_reader_pauses_itself_and_nobody_else)
{
    static char name[12 << 10];
    memset(name, 'x', sizeof name - 1);
    start();
    server.model_id = name;
    client c = client_open(bw_http_port(server.http));
    const int fixed = 256 << 10; /* or the system would let it grow with what comes */
    setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &fixed, sizeof fixed);
    post_body(&c, CHAT, "{" STORY NO_THINKING ",\"max_tokens\":1000,\"ignore_eos\":true,\"stream\":true}");
    check(wait_until(one_runs, WAIT_S));
    if (!wait_until(first_is_paused_or_none, WAIT_S) || nothing_lives()) { /* the kernel's own buffers hold all of it */
        client_close(&c);
        stop();
        skip_because("the system buffered the whole answer");
    }
    struct json_object *a = ask_json(CHAT, "{" STORY NO_THINKING ",\"max_tokens\":10}", 200); /* others run */
    json_object_put(a);
    check(wait_until(first_is_paused, WAIT_S)); /* the other may be listed for a moment after its answer */
    check(reads_up_to(&c, "\"predicted_n\":1000,")); /* goes on to its end */
    check(reads_up_to(&c, "data: [DONE]\n\n"));
    client_close(&c);
    check(wait_until(nothing_lives, WAIT_S));
    stop();
}

/* A whole answer, an error or the end of the connection; never a request that stays. */
TEST(every_failing_allocation_ends_its_request_and_no_other)
{
    start();
    for (int streamed = 0; streamed < 2; streamed++) {
        bool failed = true;
        int refused = 0;
        for (long n = 1; failed; n += 1 + n / (sanitized() ? 10 : 40)) {
            client c = client_open(bw_http_port(server.http));
            pump(); /* the connection itself is there */
            bw_mem_fail_at(n);
            post_body(&c, CHAT, streamed ? "{" STORY NO_THINKING ",\"max_tokens\":3,\"logprobs\":true,\"stream\":true}"
                                         : "{" STORY NO_THINKING ",\"max_tokens\":3,\"logprobs\":true}");
            const bool told = client_wait(&c, "\r\n\r\n", WAIT_S) || c.ended || c.reset;
            if (strstr(c.data, "event-stream"))
                check(client_wait(&c, "\r\n0\r\n\r\n", WAIT_S) || c.ended || c.reset);
            failed = bw_mem_fail_at(0);
            check_that(told, "allocation %ld: %.300s", n, c.data);
            refused += strstr(c.data, "HTTP/1.1 200") == NULL;
            client_close(&c);
            check(wait_until(nothing_lives, WAIT_S));
        }
        check(refused > 10);
        struct json_object *a = ask_json(CHAT, "{" STORY NO_THINKING ",\"max_tokens\":3}", 200);
        json_object_put(a);
    }
    stop();
}

TESTS_MAIN(ENTRY(a_chat_is_answered_whole), ENTRY(a_stream_says_what_the_whole_answer_says), ENTRY(no_delta_holds_two_kinds),
           ENTRY(every_token_of_a_completion_is_an_event), ENTRY(choices_begin_in_index_order_and_differ_by_seed),
           ENTRY(several_prompts_are_numbered_prompt_major), ENTRY(a_stop_string_ends_the_answer_and_its_tokens_count),
           ENTRY(choices_of_a_text_share_its_prompt), ENTRY(a_stop_token_of_the_request_is_the_reason), ENTRY(chat_logprobs_are_of_every_token_streamed_or_not),
           ENTRY(an_echoed_prompt_has_exact_logprobs), ENTRY(an_echoed_prompt_has_alternatives),
           ENTRY(an_echoed_continuation_shows_whether_it_is_the_most_probable),
           ENTRY(continuous_usage_counts_up_in_every_chunk), ENTRY(an_echo_streams_like_it_is_answered_whole),
           ENTRY(a_thinking_budget_closes_the_block), ENTRY(the_second_turn_of_a_chat_comes_from_the_cache),
           ENTRY(a_bad_body_is_a_real_status), ENTRY(more_answers_than_ever_fit_are_refused_for_good),
           ENTRY(a_full_queue_answers_429_with_retry_after),
           ENTRY(a_client_that_leaves_frees_its_sequences), ENTRY(a_client_may_leave_while_its_body_is_read),
           ENTRY(a_request_that_takes_too_long_ends_with_an_error), ENTRY(a_failing_sequence_ends_its_stream_with_an_error_event),
           ENTRY(shutting_down_ends_everything_with_an_error), ENTRY(a_loop_stops_the_answer_and_says_so),
           ENTRY(a_tool_call_streams_its_name_once_and_then_its_arguments),
           ENTRY(a_call_cut_short_has_json_arguments_and_says_length), ENTRY(every_failing_allocation_ends_its_request_and_no_other),
           ENTRY(a_slow_reader_pauses_itself_and_nobody_else))
