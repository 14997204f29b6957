/* Answers of the OpenAI dialect as bytes (src/server/answer_json.h): every form once, whole. */
#include "lib/check.h"

#include <json-c/json.h>
#include <math.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/text_source.h"
#include "server/answer_json.h"

static bw_text_source *source;

static const bw_tokenizer *tokenizer(void)
{
    bw_error err;
    if (!source)
        check_ok(bw_text_source_open(&source, repo_path("models/lamb"), &err), err);
    return bw_text_source_tokenizer(source);
}

static int32_t id_of(const char *text)
{
    int32_t id = bw_tokenizer_find(tokenizer(), text, strlen(text));
    check(id >= 0);
    return id;
}

static bw_answer_format format_of(bw_api_kind kind)
{
    return (bw_answer_format){ .kind = kind, .tokenizer = tokenizer(), .id = "chatcmpl-1", .model = "lamb", .fingerprint = "f",
                               .created = 7 };
}

static bw_bytes out;

static const char *written(void)
{
    check(!out.failed);
    return out.data ? out.data : "";
}

static void fresh(void)
{
    bw_bytes_drop(&out, out.n);
}

#define HEAD "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"lamb\"," \
             "\"system_fingerprint\":\"f\",\"choices\":["
#define GOES_ON ",\"logprobs\":null,\"finish_reason\":null}]}\n\n"

static const bw_piece pieces[] = {
    { .kind = BW_PIECE_REASONING, .at = 0, .n = 2 },
    { .kind = BW_PIECE_CONTENT, .at = 2, .n = 4 },
    { .kind = BW_PIECE_CALL, .call = 0, .at = 6, .n = 4, .id = "call_x" },
    { .kind = BW_PIECE_ARGUMENTS, .call = 0, .at = 10, .n = 2 },
};

static bw_answer_view all_kinds(void)
{
    return (bw_answer_view){ .text = "Hm\"\n\x01!time{}", .pieces = pieces, .n_pieces = 4 };
}

TEST(a_role_chunk_has_the_role_and_empty_content)
{
    const bw_answer_format f = format_of(BW_API_CHAT);
    fresh();
    bw_answer_json_role(&out, &f, 1, NULL, 0, NULL);
    check_str(written(), HEAD "{\"index\":1,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}" GOES_ON);
}

TEST(every_kind_has_a_chunk_of_its_own)
{
    const bw_answer_format f = format_of(BW_API_CHAT);
    const bw_answer_view v = all_kinds();
    fresh();
    bw_answer_json_chunks(&out, &f, 0, &v, NULL);
    check_str(written(),
              HEAD "{\"index\":0,\"delta\":{\"reasoning_content\":\"Hm\",\"reasoning\":\"Hm\"}" GOES_ON
              HEAD "{\"index\":0,\"delta\":{\"content\":\"\\\"\\n\\u0001!\"}" GOES_ON
              HEAD "{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"call_x\",\"type\":\"function\","
              "\"function\":{\"name\":\"time\",\"arguments\":\"\"}}]}" GOES_ON
              HEAD "{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{}\"}}]}" GOES_ON);
}

TEST(reasoning_goes_into_the_fields_the_server_is_told)
{
    static const struct {
        bw_reasoning_field field;
        const char *delta;
    } cases[] = { { BW_REASONING_CONTENT, "{\"reasoning_content\":\"Hm\"}" }, { BW_REASONING_SHORT, "{\"reasoning\":\"Hm\"}" } };
    for (size_t i = 0; i < BW_COUNT(cases); i++) {
        bw_answer_format f = format_of(BW_API_CHAT);
        bw_answer_view v = all_kinds();
        f.reasoning = cases[i].field;
        v.n_pieces = 1;
        fresh();
        bw_answer_json_chunks(&out, &f, 0, &v, NULL);
        check(strstr(written(), cases[i].delta));
    }
}

TEST(the_last_chunk_has_an_empty_delta_and_both_reasons)
{
    static const struct {
        bw_answer_finish finish;
        const char *end;
    } cases[] = {
        { { "stop", NULL, -1 }, ",\"finish_reason\":\"stop\",\"stop_reason\":null}]}\n\n" },
        { { "stop", "E\"D", -1 }, ",\"finish_reason\":\"stop\",\"stop_reason\":\"E\\\"D\"}]}\n\n" },
        { { "stop", NULL, 12 }, ",\"finish_reason\":\"stop\",\"stop_reason\":12}]}\n\n" },
    };
    for (size_t i = 0; i < BW_COUNT(cases); i++) {
        const bw_answer_format f = format_of(BW_API_CHAT);
        const bw_answer_view none = { .text = "" };
        char want[512];
        snprintf(want, sizeof want, HEAD "{\"index\":0,\"delta\":{},\"logprobs\":null%s", cases[i].end);
        fresh();
        bw_answer_json_finish(&out, &f, 0, &none, &cases[i].finish, NULL, NULL);
        check_str(written(), want);
    }
}

static bw_answer_figures figures(void)
{
    bw_answer_figures f = { .seed = 9 };
    bw_usage u = { .prompt_tokens = 100, .cached_tokens = 64, .miss = BW_MISS_DIFFERS, .miss_at = 70, .queue_s = 0.001,
                   .prefill_s = 0.5, .decode_s = 0.25, .draft_n = 2, .verifies = 4, .drafted = 8,
                   .accepted_by_position = { 3, 1 } };
    bw_answer_figures_add(&f, &u, 10, 4, true);
    u.queue_s = 0.002;
    bw_answer_figures_add(&f, &u, 5, 0, false);
    return f;
}

TEST(usage_counts_a_prompt_once_and_every_choice)
{
    const bw_answer_format f = format_of(BW_API_CHAT);
    const bw_answer_figures g = figures();
    fresh();
    bw_answer_json_usage(&out, &f, &g);
    check_str(written(),
              HEAD "],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":15,\"total_tokens\":115,"
              "\"prompt_tokens_details\":{\"cached_tokens\":64},\"completion_tokens_details\":{\"reasoning_tokens\":4,"
              "\"accepted_prediction_tokens\":8,\"rejected_prediction_tokens\":8}},"
              "\"timings\":{\"cache_n\":64,\"prompt_n\":36,\"prompt_ms\":500.0,\"prompt_per_second\":72.0,\"predicted_n\":15,"
              "\"predicted_ms\":250.0,\"predicted_per_second\":60.0,\"draft_n\":16,\"draft_n_accepted\":8,"
              "\"draft_verifies\":8,\"queue_ms\":2.0,\"draft_accepted_per_position\":[6,2],\"seed\":9,\"cache_miss\":\"text differs at token 70\"}}\n\n");
}

TEST(usage_without_drafts_says_nothing_of_them)
{
    const bw_answer_format f = format_of(BW_API_CHAT);
    bw_answer_figures g = { 0 };
    bw_answer_figures_add(&g, &(bw_usage){ .prompt_tokens = 3 }, 1, 0, true);
    fresh();
    bw_answer_json_usage(&out, &f, &g);
    check(strstr(written(), "\"completion_tokens_details\":{\"reasoning_tokens\":0}}"));
}

TEST(a_cache_miss_is_said_in_words)
{
    static const struct {
        bw_cache_miss miss;
        int at;
        const char *text;
    } cases[] = { { BW_MISS_NONE, 5, "\"cache_miss\":null}" },
                  { BW_MISS_OFF, 5, "\"cache_miss\":\"cache off\"}" },
                  { BW_MISS_DIFFERS, 5, "\"cache_miss\":\"text differs at token 5\"}" },
                  { BW_MISS_DIFFERS, 0, "\"cache_miss\":\"text differs at token 0: nothing cached begins like it\"}" },
                  { BW_MISS_NO_CHECKPOINT, 5, "\"cache_miss\":\"no checkpoint before token 5\"}" },
                  { BW_MISS_EVICTED, 5, "\"cache_miss\":\"evicted\"}" } };
    for (size_t i = 0; i < BW_COUNT(cases); i++) {
        const bw_answer_format f = format_of(BW_API_CHAT);
        bw_answer_figures g = { 0 };
        bw_answer_figures_add(&g, &(bw_usage){ .prompt_tokens = 9, .miss = cases[i].miss, .miss_at = cases[i].at }, 1, 0, true);
        fresh();
        bw_answer_json_usage(&out, &f, &g);
        check_that(strstr(written(), cases[i].text), "%s", written());
    }
}

TEST(a_chunk_has_a_usage_key_only_when_it_reports_one)
{
    const bw_answer_format f = format_of(BW_API_CHAT);
    const bw_answer_figures g = figures();
    bw_answer_view v = all_kinds();
    v.n_pieces = 1;
    fresh();
    bw_answer_json_chunks(&out, &f, 0, &v, NULL);
    check(!strstr(written(), "usage"));
    fresh();
    bw_answer_json_chunks(&out, &f, 0, &v, &g);
    check(strstr(written(), "\"finish_reason\":null}],\"usage\":{\"prompt_tokens\":100,"));
}

TEST(an_error_is_an_event_with_all_four_keys)
{
    fresh();
    bw_answer_json_error(&out, "server_error", NULL, "line\nbreak");
    bw_answer_json_done(&out);
    check_str(written(), "data: {\"error\":{\"message\":\"line\\nbreak\",\"type\":\"server_error\",\"param\":null,\"code\":null}}\n\n"
                         "data: [DONE]\n\n");
}

/* Two tokens of which the second is no text by itself. */
static bw_answer_view scored(bw_logprob top[4], bw_answer_token tokens[2])
{
    static const bw_piece piece = { .kind = BW_PIECE_CONTENT, .at = 0, .n = 3 };
    int32_t odd = -1;
    for (int32_t id = 0; odd < 0; id++) {
        size_t n;
        const char *bytes = bw_tokenizer_bytes(tokenizer(), id, &n);
        if (bytes && n == 1 && (unsigned char)bytes[0] == 0xE4)
            odd = id;
    }
    tokens[0] = (bw_answer_token){ .token = id_of("the"), .logprob = -0.5f, .has_top = true };
    tokens[1] = (bw_answer_token){ .token = odd, .logprob = -INFINITY, .has_top = true, .at = 3 };
    top[0] = (bw_logprob){ id_of("a"), -0.25f };
    top[1] = (bw_logprob){ id_of("the"), -0.5f };
    top[2] = (bw_logprob){ id_of("a"), 0 };
    top[3] = (bw_logprob){ id_of("the"), -INFINITY };
    return (bw_answer_view){ .text = "the", .pieces = &piece, .n_pieces = 1, .tokens = tokens, .top = top, .n_tokens = 2, .n_top = 2 };
}

TEST(chat_logprobs_name_tokens_their_bytes_and_alternatives)
{
    bw_answer_format f = format_of(BW_API_CHAT);
    bw_logprob top[4];
    bw_answer_token tokens[2];
    const bw_answer_view v = scored(top, tokens);
    f.logprobs = true;
    fresh();
    bw_answer_json_chunks(&out, &f, 0, &v, NULL);
    check_str(written(),
              HEAD "{\"index\":0,\"delta\":{\"content\":\"the\"},\"logprobs\":{\"content\":["
              "{\"token\":\"the\",\"logprob\":-0.5,\"bytes\":[116,104,101],\"top_logprobs\":["
              "{\"token\":\"a\",\"logprob\":-0.25,\"bytes\":[97]},{\"token\":\"the\",\"logprob\":-0.5,\"bytes\":[116,104,101]}]},"
              "{\"token\":\"\xEF\xBF\xBD\",\"logprob\":-9999.0,\"bytes\":[228],\"top_logprobs\":["
              "{\"token\":\"a\",\"logprob\":0.0,\"bytes\":[97]},{\"token\":\"the\",\"logprob\":-9999.0,\"bytes\":[116,104,101]}]}"
              "],\"refusal\":null},\"finish_reason\":null}]}\n\n");
}

TEST(completion_logprobs_hold_the_sampled_token_among_the_alternatives)
{
    bw_answer_format f = format_of(BW_API_COMPLETION);
    bw_logprob top[4];
    bw_answer_token tokens[2];
    const bw_answer_view v = scored(top, tokens);
    f.logprobs = true;
    fresh();
    bw_answer_json_chunks(&out, &f, 0, &v, NULL);
    check_that(strstr(written(), "\"object\":\"text_completion\"") != NULL, "%s", written());
    check_that(strstr(written(),
                      "{\"index\":0,\"text\":\"the\",\"logprobs\":{\"tokens\":[\"the\",\"bytes:\\\\xe4\"],"
                      "\"token_logprobs\":[-0.5,-9999.0],\"top_logprobs\":[{\"a\":-0.25,\"the\":-0.5},"
                      "{\"a\":0.0,\"the\":-9999.0,\"bytes:\\\\xe4\":-9999.0}],\"text_offset\":[0,3]},\"finish_reason\":null}]}\n\n"),
               "%s", written());
}

TEST(tokens_can_be_shown_as_their_ids)
{
    bw_answer_format f = format_of(BW_API_COMPLETION);
    bw_logprob top[4];
    bw_answer_token tokens[2];
    const bw_answer_view v = scored(top, tokens);
    char want[64];
    f.logprobs = f.tokens_as_ids = f.return_ids = true;
    fresh();
    bw_answer_json_chunks(&out, &f, 0, &v, NULL);
    snprintf(want, sizeof want, "\"tokens\":[\"token_id:%d\",\"token_id:%d\"]", tokens[0].token, tokens[1].token);
    check_that(strstr(written(), want), "%s", written());
    snprintf(want, sizeof want, "\"token_ids\":[%d,%d]", tokens[0].token, tokens[1].token);
    check_that(strstr(written(), want), "%s", written());
}

TEST(scores_that_are_not_known_are_null)
{
    bw_answer_format f = format_of(BW_API_COMPLETION);
    bw_logprob top[4];
    bw_answer_token tokens[2];
    const bw_answer_view v = scored(top, tokens);
    tokens[0].logprob = NAN;
    tokens[1].has_top = false;
    f.logprobs = true;
    fresh();
    bw_answer_json_chunks(&out, &f, 0, &v, NULL);
    check_that(strstr(written(), "\"token_logprobs\":[null,-9999.0],\"top_logprobs\":[null,null]"), "%s", written());
}

TEST(a_whole_chat_answer_has_every_field)
{
    const bw_answer_format f = format_of(BW_API_CHAT);
    const bw_answer_figures g = { .prompt_tokens = 2, .completion_tokens = 3 };
    const bw_answer_choice choices[2] = {
        { .view = all_kinds(), .finish = { "tool_calls", NULL, -1 } },
        { .view = { .text = "" }, .finish = { "length", NULL, -1 } },
    };
    fresh();
    bw_answer_json_whole(&out, &f, choices, 2, &g);
    const char *want = "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":7,\"model\":\"lamb\","
        "\"system_fingerprint\":\"f\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"\\\"\\n\\u0001!\","
        "\"refusal\":null,\"reasoning_content\":\"Hm\",\"reasoning\":\"Hm\",\"tool_calls\":[{\"id\":\"call_x\",\"type\":\"function\","
        "\"function\":{\"name\":\"time\",\"arguments\":\"{}\"}}]},\"logprobs\":null,\"finish_reason\":\"tool_calls\","
        "\"stop_reason\":null},{\"index\":1,\"message\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null,"
        "\"reasoning_content\":null,\"reasoning\":null},\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null}],"
        "\"usage\":{\"prompt_tokens\":2,";
    check_that(strncmp(written(), want, strlen(want)) == 0, "%s", written());
    struct json_object *parsed = json_tokener_parse(written());
    check(parsed != NULL);
    json_object_put(parsed);
}

TEST(content_is_null_when_there_are_only_calls)
{
    const bw_answer_format f = format_of(BW_API_CHAT);
    const bw_answer_figures g = { 0 };
    bw_answer_choice choice = { .view = all_kinds(), .finish = { "tool_calls", NULL, -1 } };
    choice.view.pieces += 2;
    choice.view.n_pieces = 2;
    fresh();
    bw_answer_json_whole(&out, &f, &choice, 1, &g);
    check(strstr(written(), "\"content\":null,\"refusal\":null,\"reasoning_content\":null"));
}

TEST(a_whole_completion_has_its_text_and_ids)
{
    bw_answer_format f = format_of(BW_API_COMPLETION);
    const bw_answer_figures g = { 0 };
    bw_logprob top[4];
    bw_answer_token tokens[2];
    const int32_t prompt[] = { 4, 5 };
    const bw_answer_choice choice = { .view = scored(top, tokens), .finish = { "stop", NULL, -1 }, .prompt = prompt, .n_prompt = 2 };
    tokens[0].echo = true;
    f.return_ids = true;
    fresh();
    bw_answer_json_whole(&out, &f, &choice, 1, &g);
    char want[256];
    snprintf(want, sizeof want, "{\"index\":0,\"text\":\"the\",\"prompt_token_ids\":[4,5],\"logprobs\":null,\"token_ids\":[%d],"
             "\"finish_reason\":\"stop\"", tokens[1].token);
    check_that(strstr(written(), want), "%s", written());
}

TEST(memory_that_ends_is_said_and_leaves_no_half_answer_unmarked)
{
    const bw_answer_format f = format_of(BW_API_CHAT);
    const bw_answer_figures g = figures();
    const bw_answer_choice choice = { .view = all_kinds(), .finish = { "stop", NULL, -1 } };
    bool failed = true;
    for (long at = 1; failed; at++) {
        bw_bytes bytes = { 0 };
        bw_mem_fail_at(at);
        bw_answer_json_whole(&bytes, &f, &choice, 1, &g);
        failed = bw_mem_fail_at(0);
        check(bytes.failed == failed);
        bw_bytes_fini(&bytes);
    }
}

/* What a token costs on its way out; a number to look at, with a bound far above it. */
TEST(a_chunk_costs_microseconds)
{
    bw_answer_format f = format_of(BW_API_CHAT);
    bw_logprob top[4];
    bw_answer_token tokens[2];
    const bw_answer_view with = scored(top, tokens);
    for (int logprobs = 0; logprobs < 2; logprobs++) {
        const int n = 20000;
        f.logprobs = logprobs;
        fresh();
        const uint64_t start = bw_clock_ns();
        for (int i = 0; i < n; i++) {
            bw_answer_json_chunks(&out, &f, 0, &with, NULL);
            fresh();
        }
        const double us = (double)(bw_clock_ns() - start) * 1e-3 / n;
        printf("[  NOTE    ] %.2f us a chunk %s\n", us, logprobs ? "with six log-probabilities" : "without log-probabilities");
        check(us < 1000);
    }
}

TESTS_MAIN(ENTRY(a_role_chunk_has_the_role_and_empty_content), ENTRY(every_kind_has_a_chunk_of_its_own),
           ENTRY(reasoning_goes_into_the_fields_the_server_is_told), ENTRY(the_last_chunk_has_an_empty_delta_and_both_reasons),
           ENTRY(usage_counts_a_prompt_once_and_every_choice), ENTRY(usage_without_drafts_says_nothing_of_them),
           ENTRY(a_cache_miss_is_said_in_words), ENTRY(a_chunk_has_a_usage_key_only_when_it_reports_one),
           ENTRY(an_error_is_an_event_with_all_four_keys), ENTRY(chat_logprobs_name_tokens_their_bytes_and_alternatives),
           ENTRY(completion_logprobs_hold_the_sampled_token_among_the_alternatives), ENTRY(tokens_can_be_shown_as_their_ids),
           ENTRY(scores_that_are_not_known_are_null), ENTRY(a_whole_chat_answer_has_every_field),
           ENTRY(content_is_null_when_there_are_only_calls), ENTRY(a_whole_completion_has_its_text_and_ids),
           ENTRY(a_chunk_costs_microseconds), ENTRY(memory_that_ends_is_said_and_leaves_no_half_answer_unmarked))
