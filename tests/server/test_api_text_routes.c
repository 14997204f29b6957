/* The small text routes: /tokenize, /detokenize, /apply-template. */
#include "api_fixture.h"
#include "text/pyjson.h"

typedef bool (*api_route)(char **answer, const bw_api_context *context, const char *body, size_t n, bw_api_error *err);

static char answer_text[65536];

static const char *ask(api_route route, const char *body)
{
    char *answer;
    bw_api_error err;
    const bool ok = route(&answer, api_context(), body, strlen(body), &err);
    check_that(ok, "%s\n    is refused: %s", body, err.message);
    bw_pyjson *document;
    const bw_json *root;
    bw_error bad;
    check_ok(bw_pyjson_parse(&document, &root, answer, strlen(answer), "the answer", &bad), bad);
    bw_pyjson_free(document);
    check(strlen(answer) < sizeof answer_text);
    strcpy(answer_text, answer);
    bw_mem_free(answer);
    return answer_text;
}

static void check_refused(api_route route, const char *body, int status, const char *code, const char *param)
{
    char *answer;
    bw_api_error err;
    check_that(!route(&answer, api_context(), body, strlen(body), &err), "%s\n    is taken", body);
    check(answer == NULL);
    check_that(err.status == status && strcmp(err.code, code) == 0 && strcmp(err.param, param) == 0, "%s\n    gives %d %s \"%s\": %s",
               body, err.status, err.code, err.param, err.message);
}

TEST(text_is_tokenised_in_the_words_of_both_servers)
{
    static const char *const bodies[] = {
        "{\"prompt\": \"hello<|im_end|>\"}",
        "{\"content\": \"hello<|im_end|>\", \"add_special\": false, \"with_pieces\": false}",
        "{\"model\": \"lamb\", \"prompt\": \"hello<|im_end|>\", \"add_special_tokens\": true, \"return_token_strs\": null}",
    };
    int32_t *ids;
    int n;
    bw_error err;
    check_ok(bw_encode(api_context()->model, "hello<|im_end|>", 15, true, &ids, &n, &err), err);
    char want[512];
    int at = snprintf(want, sizeof want, "{\"count\":%d,\"max_model_len\":2048,\"tokens\":[", n);
    for (int i = 0; i < n; i++)
        at += snprintf(want + at, sizeof want - (size_t)at, "%s%d", i ? "," : "", ids[i]);
    strcpy(want + at, "]}");
    for (size_t i = 0; i < BW_COUNT(bodies); i++)
        check_str(ask(bw_api_tokenize, bodies[i]), want);
    bw_free(ids);
    check(!strstr(ask(bw_api_tokenize, "{\"content\": \"hello<|im_end|>\", \"parse_special\": false}"), "8194"));
    check_str(ask(bw_api_tokenize, "{\"prompt\": \"\"}"), "{\"count\":0,\"max_model_len\":2048,\"tokens\":[]}");
}

TEST(tokens_are_shown_as_pieces_and_as_the_vocabulary_has_them)
{
    const char *answer = ask(bw_api_tokenize, "{\"prompt\": \" \\n<|im_end|>\", \"with_pieces\": true, \"return_token_strs\": true}");
    check_that(strstr(answer, "{\"id\":8194,\"piece\":\"<|im_end|>\"}"), "%s", answer);
    check_that(strstr(answer, "\xc4\xa0\xc4\x8a") || strstr(answer, "\"\xc4\xa0\",\"\xc4\x8a\""), "%s", answer); /* U+0120 U+010A */
    check_that(strstr(answer, "\"<|im_end|>\"]}"), "%s", answer);
    /* a rare character is several tokens, none of them text by itself */
    answer = ask(bw_api_tokenize, "{\"prompt\": \"\\ud83e\\udd8f\", \"with_pieces\": true}");
    check_that(strstr(answer, "\"piece\":[240") || strstr(answer, "\"piece\":\"\xf0\x9f\xa6\x8f\""), "%s", answer);
}

TEST(messages_are_tokenised_as_chat_completions_do)
{
    const char *body = "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"chat_template_kwargs\": {\"enable_thinking\": false}, "
                       "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]}";
    bw_api_request r = api_read(bw_api_read_chat, body);
    char want[64];
    snprintf(want, sizeof want, "{\"count\":%d,", r.prompts->n_ids);
    check(strncmp(ask(bw_api_tokenize, body), want, strlen(want)) == 0);
    bw_api_request_fini(&r);
    check_refused(bw_api_tokenize, "{\"messages\": [{\"role\": \"user\", \"content\": 1}]}", 400, "invalid_type", "messages[0].content");
}

TEST(tokens_become_text_again)
{
    check_str(ask(bw_api_detokenize, "{\"tokens\": [8193, 8194, 8216]}"),
              "{\"prompt\":\"<|im_start|><|im_end|><think>\",\"content\":\"<|im_start|><|im_end|><think>\"}");
    check_str(ask(bw_api_detokenize, "{\"tokens\": []}"), "{\"prompt\":\"\",\"content\":\"\"}");
    check_refused(bw_api_detokenize, "{}", 400, "invalid_type", "tokens");
    check_refused(bw_api_detokenize, "{\"tokens\": \"a\"}", 400, "invalid_type", "tokens");
    check_refused(bw_api_detokenize, "{\"tokens\": [1, \"a\"]}", 400, "invalid_type", "tokens[1]");
    check_refused(bw_api_detokenize, "{\"tokens\": [-1]}", 400, "invalid_value", "tokens[0]");
    check_refused(bw_api_detokenize, "{\"tokens\": [1, 4294967297]}", 400, "invalid_value", "tokens[1]");
    check_refused(bw_api_detokenize, "{\"tokens\": [100000]}", 400, "invalid_value", "tokens[0]");
}

TEST(a_conversation_is_shown_as_its_prompt)
{
    check_str(ask(bw_api_apply_template, "{\"messages\": [{\"role\": \"user\", \"content\": \"a\\\"b\\u0001\"}]}"),
              "{\"prompt\":\"<|im_start|>user\\na\\\"b\\u0001<|im_end|>\\n<|im_start|>assistant\\n<think>\\n\"}");
    check_str(ask(bw_api_apply_template, "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"add_generation_prompt\": false}"),
              "{\"prompt\":\"<|im_start|>user\\na<|im_end|>\\n\"}");
    check_refused(bw_api_apply_template, "{}", 400, "invalid_value", "messages");
}

TEST(bodies_are_refused_with_status_code_and_param)
{
    check_refused(bw_api_tokenize, "{}", 400, "invalid_value", "prompt");
    check_refused(bw_api_tokenize, "{\"prompt\": 1}", 400, "invalid_type", "prompt");
    check_refused(bw_api_tokenize, "{\"content\": []}", 400, "invalid_type", "content");
    check_refused(bw_api_tokenize, "{\"prompt\": \"x\", \"with_pieces\": 1}", 400, "invalid_type", "with_pieces");
    check_refused(bw_api_tokenize, "{\"prompt\": \"x\", \"return_token_strs\": 1}", 400, "invalid_type", "return_token_strs");
    check_refused(bw_api_tokenize, "{\"prompt\": \"x\", \"add_special\": 1}", 400, "invalid_type", "add_special");
    check_refused(bw_api_tokenize, "{\"prompt\": \"x\", \"add_special_tokens\": 1}", 400, "invalid_type", "add_special_tokens");
    check_refused(bw_api_tokenize, "{\"prompt\": \"x\", \"parse_special\": 1}", 400, "invalid_type", "parse_special");
    check_refused(bw_api_tokenize, "{\"prompt\": \"x\", \"model\": \"y\"}", 404, "model_not_found", "model");
    check_refused(bw_api_tokenize, "", 400, "invalid_json", "");
    check_refused(bw_api_detokenize, "[1]", 400, "invalid_json", "");
    check_refused(bw_api_apply_template, "nope", 400, "invalid_json", "");
}

static void check_survives(api_route route, const char *body)
{
    api_context();
    const uint64_t before = bw_mem_used(BW_MEM_TEXT);
    for (long n = 1; n < 100000; n++) {
        char *answer;
        bw_api_error err;
        bw_mem_fail_at(n);
        const bool ok = route(&answer, api_context(), body, strlen(body), &err);
        const bool failed = bw_mem_fail_at(0);
        bw_mem_free(answer);
        check_int(bw_mem_used(BW_MEM_TEXT), before);
        check_that(ok == !failed, "allocation %ld: failed %d, taken %d", n, failed, ok);
        if (!failed)
            return;
        check_int(err.status, 500);
    }
    fail_with("allocations never end");
}

TEST(answering_survives_every_allocation_failing)
{
    check_survives(bw_api_tokenize, "{\"prompt\": \"one two three four five six seven\", \"with_pieces\": true, \"return_token_strs\": true}");
    check_survives(bw_api_tokenize, "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}");
    check_survives(bw_api_detokenize, "{\"tokens\": [1, 2, 3]}");
    check_survives(bw_api_apply_template, "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}");
}

TESTS_MAIN(ENTRY(text_is_tokenised_in_the_words_of_both_servers), ENTRY(tokens_are_shown_as_pieces_and_as_the_vocabulary_has_them),
           ENTRY(messages_are_tokenised_as_chat_completions_do), ENTRY(tokens_become_text_again),
           ENTRY(a_conversation_is_shown_as_its_prompt), ENTRY(bodies_are_refused_with_status_code_and_param),
           ENTRY(answering_survives_every_allocation_failing))
