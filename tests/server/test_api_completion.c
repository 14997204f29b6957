/* Bodies of completions: prompts as text and ids, what is asked about them, fill in the middle. */
#include "api_fixture.h"

static bw_api_request read_body(const char *body)
{
    return api_read(bw_api_read_completion, body);
}

TEST(a_prompt_is_text_ids_or_several_of_either)
{
    static const struct {
        const char *prompt;
        int n_prompts, n_ids[3];
    } cases[] = {
        { "\"hello\"", 1, { 0 } },        { "[\"hello\", \"world and more\"]", 2, { 0 } }, { "[\"hello\"]", 1, { 0 } },
        { "[1, 2, 3.0]", 1, { 3 } },      { "[[1, 2], [3], [4, 5, 6]]", 3, { 2, 1, 3 } },   { "[[8217]]", 1, { 1 } },
    };
    for (size_t i = 0; i < BW_COUNT(cases); i++) {
        char body[256];
        snprintf(body, sizeof body, "{\"prompt\": %s}", cases[i].prompt);
        bw_api_request r = read_body(body);
        check_int(r.n_prompts, cases[i].n_prompts);
        for (int k = 0; k < r.n_prompts; k++)
            check_that(cases[i].n_ids[k] ? r.prompts[k].n_ids == cases[i].n_ids[k] : r.prompts[k].n_ids > 0, "%s", body);
        bw_api_request_fini(&r);
    }
    bw_api_request r = read_body("{\"prompt\": [[5, 6], [7]]}");
    check(r.prompts[0].ids[0] == 5 && r.prompts[0].ids[1] == 6 && r.prompts[1].ids[0] == 7);
    bw_api_request_fini(&r);
}

TEST(special_tokens_are_matched_in_the_text_of_a_prompt)
{
    const char *text = "<|im_start|>user\nhello<|im_end|>\n";
    bw_api_request r = read_body("{\"prompt\": \"<|im_start|>user\\nhello<|im_end|>\\n\"}");
    int32_t *ids;
    int n;
    bw_error err;
    check_ok(bw_encode(api_context()->model, text, strlen(text), true, &ids, &n, &err), err);
    check(r.prompts->n_ids == n && memcmp(r.prompts->ids, ids, (size_t)n * sizeof *ids) == 0 && ids[0] == 8193);
    check_int(r.n_marks, 0);
    bw_free(ids);
    bw_api_request_fini(&r);
}

TEST(members_have_the_defaults_of_completions)
{
    static const char *const bodies[] = {
        "{\"prompt\": \"x\"}",
        "{\"prompt\": \"x\", \"model\": null, \"max_tokens\": null, \"echo\": null, \"logprobs\": null, \"best_of\": null, \"suffix\": null, "
        "\"n\": null, \"stop\": null, \"seed\": null, \"stream\": null, \"loop_guard\": null}",
        "{\"prompt\": \"x\", \"suffix\": \"\", \"best_of\": 1, \"user\": \"u\"}",
    };
    const bw_sampling d = bw_sampling_defaults_of(api_context()->model, false, false);
    for (size_t i = 0; i < BW_COUNT(bodies); i++) {
        bw_api_request r = read_body(bodies[i]);
        check(r.kind == BW_API_COMPLETION && r.max_tokens == 16 && !r.echo && r.n_logprobs == -1 && r.n == 1 && r.loop_guard == 0);
        check(!r.stream && r.n_stops == 0 && !r.thinking && r.draft == BW_DRAFT_AUTO && r.n_marks == 0 && r.think_budget == -1);
        check(r.sampling.temperature == d.temperature && r.sampling.top_k == d.top_k && r.sampling.top_p == d.top_p);
        bw_api_request_fini(&r);
    }
}

TEST(members_arrive)
{
    bw_api_request r = read_body("{\"model\": \"lamb\", \"prompt\": \"x\", \"max_tokens\": 5, \"echo\": true, \"logprobs\": 0, \"n\": 4, "
                                 "\"best_of\": 4, \"stream\": true, \"stream_options\": {\"include_usage\": true}, \"stop\": \"\\n\", "
                                 "\"loop_guard\": true, \"ignore_eos\": true, \"min_tokens\": 5, \"temperature\": 0, \"seed\": 7}");
    check(r.max_tokens == 5 && r.echo && r.n_logprobs == 0 && r.n == 4 && r.stream && r.include_usage && !r.continuous_usage);
    check(r.n_stops == 1 && r.loop_guard == 1 && r.ignore_eos && r.min_tokens == 5 && r.sampling.temperature == 0 && r.sampling.seed == 7);
    bw_api_request_fini(&r);
    r = read_body("{\"prompt\": \"x\", \"n\": 4, \"best_of\": 1, \"logprobs\": 20, \"max_tokens\": 100000}");
    check(r.n == 4 && r.n_logprobs == 20 && r.max_tokens == 2048 - r.prompts->n_ids);
    bw_api_request_fini(&r);
    r = read_body("{\"prompt\": [[1], [1, 2, 3]], \"max_tokens\": 100000}"); /* the engine clamps the longer one's */
    check_int(r.max_tokens, 2047);
    bw_api_request_fini(&r);
    r = read_body("{\"prompt\": \"x\", \"max_tokens\": 0, \"echo\": true, \"logprobs\": 1}");
    check(r.max_tokens == 0 && r.echo);
    bw_api_request_fini(&r);
}

TEST(the_middle_is_asked_for_with_the_models_own_markers)
{
    bw_api_request r = read_body("{\"prompt\": [\"def f(\", \"x\"], \"suffix\": \"): pass\"}");
    check_str(api_prompt_text(&r.prompts[0]), "<|fim_prefix|>def f(<|fim_suffix|>): pass<|fim_middle|>");
    check(r.prompts[0].ids[0] == 8208 && r.prompts[0].ids[r.prompts[0].n_ids - 1] == 8209);
    check_str(api_prompt_text(&r.prompts[1]), "<|fim_prefix|>x<|fim_suffix|>): pass<|fim_middle|>");
    bw_api_request_fini(&r);
}

TEST(bodies_are_refused_with_status_code_and_param)
{
    static const struct {
        const char *body;
        int status;
        const char *code, *param, *says;
    } cases[] = {
        { "{}", 400, "invalid_type", "prompt", "found nothing" },
        { "{\"prompt\": null}", 400, "invalid_type", "prompt", "found nothing" },
        { "{\"prompt\": 5}", 400, "invalid_type", "prompt", "found a number" },
        { "{\"prompt\": {}}", 400, "invalid_type", "prompt", "found an object" },
        { "{\"prompt\": \"\"}", 400, "invalid_value", "prompt", "empty" },
        { "{\"prompt\": []}", 400, "invalid_value", "prompt", "empty" },
        { "{\"prompt\": [\"a\", \"\"]}", 400, "invalid_value", "prompt[1]", "empty" },
        { "{\"prompt\": [[1], []]}", 400, "invalid_value", "prompt[1]", "empty" },
        { "{\"prompt\": [\"a\", 1]}", 400, "invalid_type", "prompt[1]", "a string" },
        { "{\"prompt\": [[1], \"a\"]}", 400, "invalid_type", "prompt[1]", "an array" },
        { "{\"prompt\": [1, \"a\"]}", 400, "invalid_type", "prompt[1]", "a token id" },
        { "{\"prompt\": [true]}", 400, "invalid_type", "prompt[0]", "a token id" },
        { "{\"prompt\": [[1, null]]}", 400, "invalid_type", "prompt[0][1]", "a token id" },
        { "{\"prompt\": [[1], [-1]]}", 400, "invalid_value", "prompt[1][0]", "no token" },
        { "{\"prompt\": [999999]}", 400, "invalid_value", "prompt[0]", "found 999999" },
        { "{\"prompt\": [1.5]}", 400, "invalid_value", "prompt[0]", "no token" },
        { "{\"prompt\": [99999999999999999999999]}", 400, "invalid_value", "prompt[0]", "a longer number" },
        { "{\"prompt\": \"x\", \"max_tokens\": 0}", 400, "invalid_value", "max_tokens", "echo" },
        { "{\"prompt\": \"x\", \"max_tokens\": -1}", 400, "invalid_value", "max_tokens", "at least 0" },
        { "{\"prompt\": \"x\", \"max_tokens\": \"1\"}", 400, "invalid_type", "max_tokens", "an integer" },
        { "{\"prompt\": \"x\", \"echo\": 1}", 400, "invalid_type", "echo", "true or false" },
        { "{\"prompt\": \"x\", \"logprobs\": 21}", 400, "invalid_value", "logprobs", "from 0 to 20" },
        { "{\"prompt\": \"x\", \"logprobs\": true}", 400, "invalid_type", "logprobs", "an integer" },
        { "{\"prompt\": \"x\", \"best_of\": 2}", 400, "unsupported_parameter", "best_of", "not ranked" },
        { "{\"prompt\": \"x\", \"best_of\": 0}", 400, "invalid_value", "best_of", "at least 1" },
        { "{\"prompt\": \"x\", \"best_of\": \"1\"}", 400, "invalid_type", "best_of", "an integer" },
        { "{\"prompt\": \"x\", \"suffix\": 1}", 400, "invalid_type", "suffix", "a string" },
        { "{\"prompt\": \"x\", \"suffix\": \"y\", \"echo\": true}", 400, "invalid_value", "suffix", "echo" },
        { "{\"prompt\": \"x\", \"min_tokens\": 9, \"max_tokens\": 8}", 400, "invalid_value", "min_tokens", "more than the 8" },
        { "{\"prompt\": \"x\", \"temperature\": 3}", 400, "invalid_value", "temperature", "at most 2" },
        { "{\"prompt\": \"x\", \"response_format\": {\"type\": \"json_object\"}}", 400, "unsupported_parameter", "response_format", "" },
        { "{\"prompt\": \"x\", \"guided_regex\": \"a\"}", 400, "unsupported_parameter", "guided_regex", "" },
        { "{\"prompt\": \"x\", \"model\": \"other\"}", 404, "model_not_found", "model", "\"other\"" },
        { "{\"prompt\": \"x\"", 400, "invalid_json", "", "byte 14" },
        { "[\"x\"]", 400, "invalid_json", "", "an array" },
    };
    for (size_t i = 0; i < BW_COUNT(cases); i++)
        api_refused(bw_api_read_completion, cases[i].body, cases[i].status, cases[i].code, cases[i].param, cases[i].says);
}

/* {"prompt": [1, 1, ... n of them], rest}; the caller frees. */
static char *ids_body(int n, const char *rest)
{
    char *body = malloc((size_t)n * 2 + 200), *p = body;
    check(body);
    p += sprintf(p, "{\"prompt\": [1");
    for (int i = 1; i < n; i++)
        p += sprintf(p, ",1");
    sprintf(p, "]%s}", rest);
    return body;
}

TEST(a_prompt_and_one_token_must_fit_the_context)
{
    static const struct {
        int n;
        const char *rest;
        int max_tokens; /* -1: refused */
    } cases[] = { { 2047, "", 1 }, { 2048, "", -1 }, { 2048, ", \"max_tokens\": 0, \"echo\": true", 0 },
                  { 2049, ", \"max_tokens\": 0, \"echo\": true", -1 }, { 200000, "", -1 }, { 2040, ", \"suffix\": \"a b c d e f g h i\"", -1 } };
    for (size_t i = 0; i < BW_COUNT(cases); i++) {
        char *body = ids_body(cases[i].n, cases[i].rest);
        if (cases[i].max_tokens < 0) {
            api_refused(bw_api_read_completion, body, 400, "context_length_exceeded", "prompt",
                        "This model's maximum context length is 2048 tokens. ");
        } else {
            bw_api_request r = read_body(body);
            check_int(r.max_tokens, cases[i].max_tokens);
            bw_api_request_fini(&r);
        }
        free(body);
    }
}

TEST(a_model_without_a_tokenizer_takes_ids_alone)
{
    bw_model *model;
    bw_error err;
    const bw_model_options options = { .n_threads = 1, .no_read_ahead = true };
    check_ok(bw_model_open(&model, repo_path("tests/golden/dense-r2"), &options, &err), err);
    check(!bw_model_get_info(model)->has_text);
    bw_api_context context = *api_context();
    context.model = model;
    static const struct {
        api_reader read;
        const char *body, *param; /* NULL: taken */
    } cases[] = {
        { bw_api_read_completion, "{\"prompt\": [1, 2, 3]}", NULL },
        { bw_api_read_completion, "{\"prompt\": \"x\"}", "prompt" },
        { bw_api_read_completion, "{\"prompt\": [[1], [2]], \"suffix\": \"x\"}", "suffix" },
        { bw_api_read_chat, "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}", "messages" },
    };
    for (size_t i = 0; i < BW_COUNT(cases); i++) {
        bw_api_request r;
        bw_api_error found;
        const bool ok = cases[i].read(&r, &context, cases[i].body, strlen(cases[i].body), &found);
        check_that(ok == !cases[i].param, "%s", cases[i].body);
        if (!ok) {
            check_str(found.code, "unsupported_parameter");
            check_str(found.param, cases[i].param);
        }
        bw_api_request_fini(&r);
    }
    char *answer;
    bw_api_error found;
    check(!bw_api_tokenize(&answer, &context, "{\"prompt\": \"x\"}", 15, &found));
    check(!bw_api_detokenize(&answer, &context, "{\"tokens\": [1]}", 15, &found));
    check_str(found.param, "tokens");
    bw_model_close(model);
}

TEST(too_many_prompts_are_refused)
{
    char *body = malloc(20000), *p = body;
    check(body);
    p += sprintf(p, "{\"prompt\": [[1]");
    for (int i = 1; i < 2049; i++)
        p += sprintf(p, ",[1]");
    sprintf(p, "]}");
    api_refused(bw_api_read_completion, body, 400, "invalid_value", "prompt", "at most 2048");
    free(body);
}

TEST(reading_survives_every_allocation_failing)
{
    api_survives_failing_memory(bw_api_read_completion, "{\"prompt\": [\"a\", \"b\"], \"suffix\": \"c\", \"stop\": \"x\", "
                                                        "\"logit_bias\": {\"3\": 1}, \"stop_token_ids\": [3]}");
    api_survives_failing_memory(bw_api_read_completion, "{\"prompt\": [[1, 2], [3]]}");
}

TESTS_MAIN(ENTRY(a_prompt_is_text_ids_or_several_of_either), ENTRY(special_tokens_are_matched_in_the_text_of_a_prompt),
           ENTRY(members_have_the_defaults_of_completions), ENTRY(members_arrive),
           ENTRY(the_middle_is_asked_for_with_the_models_own_markers), ENTRY(bodies_are_refused_with_status_code_and_param),
           ENTRY(a_prompt_and_one_token_must_fit_the_context), ENTRY(a_model_without_a_tokenizer_takes_ids_alone), ENTRY(too_many_prompts_are_refused),
           ENTRY(reading_survives_every_allocation_failing))
