/* Tokens of one choice to reasoning, content and tool calls (src/server/answer_text.h). */
#include "lib/check.h"

#include <json-c/json.h>
#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/text_source.h"
#include "server/answer_text.h"

static bw_text_source *source;

static const bw_tokenizer *tokenizer(void)
{
    bw_error err;
    if (!source)
        check_ok(bw_text_source_open(&source, repo_path("models/lamb"), &err), err);
    return bw_text_source_tokenizer(source);
}

static int encode(const char *text, int32_t **ids)
{
    bw_error err;
    int n;
    check_ok(bw_tokenizer_encode(tokenizer(), text, strlen(text), BW_MATCH_ALL, ids, &n, &err), err);
    return n;
}

static bw_answer_text *make(bw_answer_options options)
{
    bw_answer_text *a;
    bw_error err;
    options.tokenizer = tokenizer();
    check_ok(bw_answer_text_create(&a, &options, &err), err);
    return a;
}

static void push(bw_answer_text *a, int32_t token, bool ends)
{
    bw_error err;
    check_ok(bw_answer_text_push(a, &(bw_answer_input){ .token = token, .logprob = -1, .ends = ends }, &err), err);
}

/* Pushes the text's tokens, until the answer is over; returns how many. */
static int say(bw_answer_text *a, const char *text)
{
    int32_t *ids;
    int n = encode(text, &ids), i = 0;
    for (; i < n && !bw_answer_text_over(a); i++)
        push(a, ids[i], false);
    bw_mem_free(ids);
    return i;
}

static void finish(bw_answer_text *a)
{
    bw_error err;
    check_ok(bw_answer_text_finish(a, &err), err);
}

/* The pieces as text: r{...} c{...} 0:name a{...}. Static. */
static const char *show(const bw_answer_text *a)
{
    static char out[8192];
    const bw_answer_view v = bw_answer_text_view(a);
    size_t at = 0;
    out[0] = '\0';
    for (int i = 0; i < v.n_pieces; i++) {
        const bw_piece *p = &v.pieces[i];
        const char *text = v.text + p->at;
        const char *space = i ? " " : "";
        if (p->kind == BW_PIECE_CALL)
            at += (size_t)snprintf(out + at, sizeof out - at, "%s%d:%.*s", space, p->call, (int)p->n, text);
        else
            at += (size_t)snprintf(out + at, sizeof out - at, "%s%c{%.*s}", space,
                                   p->kind == BW_PIECE_REASONING ? 'r' : p->kind == BW_PIECE_CONTENT ? 'c' : 'a', (int)p->n, text);
        check(at < sizeof out);
    }
    return out;
}

static const char tools[] = "[{\"type\":\"function\",\"function\":{\"name\":\"weather\",\"parameters\":{\"type\":\"object\","
                            "\"properties\":{\"place\":{\"type\":\"string\"},\"days\":{\"type\":\"integer\"}}}}},"
                            "{\"type\":\"function\",\"function\":{\"name\":\"clock\"}}]";

static const bw_answer_options plain = { 0 };
static const bw_answer_options chat = { .chat = true };
static const bw_answer_options thinking = { .chat = true, .thinking = true };
static const bw_answer_options with_tools = { .chat = true, .tools = tools, .n_tools = sizeof tools - 1 };

TEST(text_without_chat_is_content_as_it_is)
{
    bw_answer_text *a = make(plain);
    say(a, "The </think> sheep");
    finish(a);
    check_str(show(a), "c{The </think> sheep}");
    check_int(bw_answer_text_reasoning(a), 0);
    bw_answer_text_destroy(a);
}

TEST(reasoning_and_content_part_at_the_tag)
{
    bw_answer_text *a = make(thinking);
    const int n = say(a, "Let me see.\n</think>\n\nYes.");
    push(a, bw_tokenizer_find(tokenizer(), "<|im_end|>", 10), true);
    finish(a);
    check_str(show(a), "r{Let me see.} c{Yes.}");
    check_int(bw_answer_text_tokens(a), n + 1);
    bw_answer_text_destroy(a);
}

TEST(reasoning_tokens_are_those_up_to_the_tag)
{
    int32_t *ids;
    const int n = encode("Let me see.\n</think>", &ids);
    bw_mem_free(ids);
    bw_answer_text *a = make(thinking);
    say(a, "Let me see.\n</think>\n\nYes, a longer answer.");
    finish(a);
    check_int(bw_answer_text_reasoning(a), n);
    bw_answer_text_destroy(a);
}

TEST(an_answer_cut_while_thinking_is_all_reasoning)
{
    bw_answer_text *a = make(thinking);
    const int n = say(a, "Let me see and");
    finish(a);
    check_str(show(a), "r{Let me see and}");
    check_int(bw_answer_text_reasoning(a), n);
    bw_answer_text_destroy(a);
}

TEST(reasoning_that_is_not_wanted_is_counted_all_the_same)
{
    bw_answer_options o = thinking;
    o.drop_reasoning = true;
    bw_answer_text *a = make(o);
    say(a, "Let me see.\n</think>\n\nYes.");
    finish(a);
    check_str(show(a), "c{Yes.}");
    check(bw_answer_text_reasoning(a) > 3);
    bw_answer_text_destroy(a);
}

TEST(inline_reasoning_stands_in_the_content_between_tags)
{
    bw_answer_options o = thinking;
    o.inline_reasoning = true;
    bw_answer_text *a = make(o);
    say(a, "Let me see.\n</think>\n\nYes.");
    finish(a);
    check_str(show(a), "c{<think>\nLet me see.\n</think>\n\nYes.}");
    bw_answer_text_destroy(a);
}

TEST(stop_strings_count_in_what_is_visible_alone)
{
    static const char *const stops[] = { "sheep", "END" };
    bw_answer_options o = thinking;
    o.stops = stops;
    o.n_stops = 2;
    bw_answer_text *a = make(o);
    say(a, "A sheep, END.\n</think>\n\nTwo END three");
    check_int(bw_answer_text_over(a), BW_ANSWER_STOPPED);
    check_int(bw_answer_text_stop(a), 1);
    finish(a);
    check_str(show(a), "r{A sheep, END.} c{Two }");
    bw_answer_text_destroy(a);
}

TEST(a_stop_string_is_included_when_asked_for)
{
    static const char *const stops[] = { "END" };
    bw_answer_options o = chat;
    o.stops = stops;
    o.n_stops = 1;
    o.include_stop = true;
    bw_answer_text *a = make(o);
    say(a, "Two END three");
    finish(a);
    check_str(show(a), "c{Two END}");
    bw_answer_text_destroy(a);
}

TEST(what_could_have_been_a_stop_string_comes_at_the_end)
{
    static const char *const stops[] = { "three." };
    bw_answer_options o = chat;
    o.stops = stops;
    o.n_stops = 1;
    bw_answer_text *a = make(o);
    say(a, "Two three");
    check_str(show(a), "c{Two }");
    finish(a);
    check_str(show(a), "c{Two three}");
    check_int(bw_answer_text_stop(a), -1);
    bw_answer_text_destroy(a);
}

TEST(calls_follow_content_and_their_arguments_are_json)
{
    bw_answer_text *a = make(with_tools);
    say(a, "I look.\n\n<tool_call>\n<function=weather>\n<parameter=place>\nUlm \"old\"\n</parameter>\n<parameter=days>\n3\n"
           "</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=clock>\n</function>\n</tool_call>");
    finish(a);
    check_str(show(a), "c{I look.} 0:weather a{{\"place\": \"Ulm \\\"old\\\"\", \"days\": 3}} 1:clock a{{}}");
    check_int(bw_answer_text_calls(a), 2);
    const bw_answer_view v = bw_answer_text_view(a);
    check(strncmp(v.pieces[1].id, "call_", 5) == 0);
    check_int(strlen(v.pieces[1].id), 29);
    check(strcmp(v.pieces[1].id, v.pieces[3].id) != 0);
    bw_answer_text_destroy(a);
}

TEST(an_answer_cut_anywhere_in_a_call_has_whole_json)
{
    const char *text = "<tool_call>\n<function=weather>\n<parameter=place>\nUlm \"old\" {[\n</parameter>\n<parameter=days>\n3\n"
                       "</parameter>\n</function>\n</tool_call>";
    int32_t *ids;
    const int n = encode(text, &ids);
    int called = 0;
    for (int cut = 0; cut <= n; cut++) {
        bw_answer_text *a = make(with_tools);
        for (int i = 0; i < cut; i++)
            push(a, ids[i], false);
        finish(a);
        const bw_answer_view v = bw_answer_text_view(a);
        char arguments[512] = "";
        for (int i = 0; i < v.n_pieces; i++)
            if (v.pieces[i].kind == BW_PIECE_ARGUMENTS)
                strncat(arguments, v.text + v.pieces[i].at, v.pieces[i].n);
        if (bw_answer_text_calls(a)) {
            struct json_object *parsed = json_tokener_parse(arguments);
            check_that(json_object_is_type(parsed, json_type_object), "cut after %d tokens: %s", cut, arguments);
            json_object_put(parsed);
            called++;
        }
        bw_answer_text_destroy(a);
    }
    check(called > 10);
    bw_mem_free(ids);
}

TEST(one_call_ends_the_answer)
{
    bw_answer_options o = with_tools;
    o.one_call = true;
    bw_answer_text *a = make(o);
    say(a, "<tool_call>\n<function=clock>\n</function>\n</tool_call>\n<tool_call>\n<function=clock>\n</function>\n</tool_call>");
    check_int(bw_answer_text_over(a), BW_ANSWER_CALLED);
    finish(a);
    check_str(show(a), "0:clock a{{}}");
    bw_answer_text_destroy(a);
}

TEST(stop_strings_are_not_looked_for_inside_calls)
{
    static const char *const stops[] = { "place" };
    bw_answer_options o = with_tools;
    o.stops = stops;
    o.n_stops = 1;
    bw_answer_text *a = make(o);
    say(a, "pla<tool_call>\n<function=weather>\n<parameter=place>\nthe place\n</parameter>\n</function>\n</tool_call>");
    finish(a);
    check_str(show(a), "c{pla} 0:weather a{{\"place\": \"the place\"}}");
    check_int(bw_answer_text_over(a), BW_ANSWER_OPEN);
    bw_answer_text_destroy(a);
}

TEST(an_end_token_is_counted_and_not_shown)
{
    int32_t word = bw_tokenizer_find(tokenizer(), "the", 3);
    check(word >= 0);
    for (int included = 0; included < 2; included++) {
        bw_answer_options o = chat;
        o.include_stop = included;
        bw_answer_text *a = make(o);
        push(a, word, false);
        push(a, word, true);
        finish(a);
        check_str(show(a), included ? "c{thethe}" : "c{the}");
        check_int(bw_answer_text_tokens(a), 2);
        bw_answer_text_destroy(a);
    }
}

TEST(clearing_between_tokens_loses_and_repeats_nothing)
{
    const char *text = "Grüße, 世界 🐑! Let me see.\n</think>\n\nÄpfel 🍏 und 日本.";
    bw_answer_text *a = make(thinking);
    int32_t *ids;
    const int n = encode(text, &ids);
    char reasoning[256] = "", content[256] = "";
    for (int i = 0; i <= n; i++) {
        if (i < n)
            push(a, ids[i], false);
        else
            finish(a);
        const bw_answer_view v = bw_answer_text_view(a);
        for (int k = 0; k < v.n_pieces; k++)
            strncat(v.pieces[k].kind == BW_PIECE_REASONING ? reasoning : content, v.text + v.pieces[k].at, v.pieces[k].n);
        bw_answer_text_clear(a);
    }
    check_str(reasoning, "Grüße, 世界 🐑! Let me see.");
    check_str(content, "Äpfel 🍏 und 日本.");
    bw_mem_free(ids);
    bw_answer_text_destroy(a);
}

TEST(tokens_wait_with_their_bytes)
{
    bw_answer_options o = plain;
    o.keep_tokens = true;
    bw_answer_text *a = make(o);
    int32_t *ids;
    const int n = encode("🐑", &ids);
    check(n > 1); /* the first gives no character by itself */
    push(a, ids[0], false);
    bw_answer_view v = bw_answer_text_view(a);
    check_int(v.n_pieces, 0);
    check_int(v.n_tokens, 1);
    for (int i = 1; i < n; i++)
        push(a, ids[i], false);
    v = bw_answer_text_view(a);
    check_int(v.n_pieces, 1);
    check_int(v.n_tokens, n);
    check_int(v.tokens[0].token, ids[0]);
    bw_mem_free(ids);
    bw_answer_text_destroy(a);
}

TEST(bytes_that_never_became_a_character_are_replaced)
{
    bw_answer_text *a = make(plain);
    int32_t *ids;
    const int n = encode("🐑", &ids);
    check(n > 1);
    push(a, ids[0], false);
    finish(a);
    check_str(show(a), "c{\xEF\xBF\xBD}");
    bw_mem_free(ids);
    bw_answer_text_destroy(a);
}

TEST(an_echo_stands_before_the_answer_with_its_scores)
{
    bw_answer_options o = plain;
    bw_error err;
    o.keep_tokens = true;
    bw_answer_text *a = make(o);
    int32_t *ids;
    const int n = encode("Ä sheep", &ids);
    float scores[16] = { 0, -0.5f, -0.25f };
    check(n >= 2 && n <= 16);
    check_ok(bw_answer_text_echo(a, ids, n, scores, NULL, &err), err);
    push(a, ids[n - 1], false);
    finish(a);
    const bw_answer_view v = bw_answer_text_view(a);
    check_int(v.n_tokens, n + 1);
    check(isnan(v.tokens[0].logprob));
    check(v.tokens[1].logprob == -0.5f);
    check(v.tokens[0].echo && !v.tokens[n].echo);
    check_int(v.tokens[0].at, 0);
    check_int(v.tokens[n].at, 7); /* characters, not bytes */
    check(strncmp(show(a), "c{Ä sheep", 10) == 0);
    bw_mem_free(ids);
    bw_answer_text_destroy(a);
}

TEST(making_one_survives_every_failing_allocation)
{
    static const char *const stops[] = { "END" };
    bw_answer_options o = with_tools;
    bw_error err;
    bool failed = true;
    o.tokenizer = tokenizer();
    o.stops = stops;
    o.n_stops = 1;
    o.keep_tokens = true;
    o.n_top = 2;
    int32_t *ids;
    const int n = encode("Two <tool_call>\n<function=clock>\n</function>\n</tool_call> three", &ids);
    for (long at = 1; failed; at++) {
        bw_answer_text *a;
        bw_mem_fail_at(at);
        bw_status st = bw_answer_text_create(&a, &o, &err);
        for (int i = 0; i < n && !st; i++)
            st = bw_answer_text_push(a, &(bw_answer_input){ .token = ids[i], .top = (bw_logprob[2]){ { 1, 0 }, { 2, 0 } } }, &err);
        if (!st)
            st = bw_answer_text_finish(a, &err);
        failed = bw_mem_fail_at(0);
        check_int(st, failed ? BW_E_MEMORY : BW_OK);
        bw_answer_text_destroy(a);
    }
    bw_mem_free(ids);
}

/* The cost of a token does not grow with the answer. */
TEST(a_long_answer_costs_per_token_what_a_short_one_does)
{
    int32_t *ids;
    const int n = encode("The sheep went up the hill and looked at the village below, which was quiet. ", &ids);
    double ns[2];
    for (int size = 0; size < 2; size++) {
        bw_answer_options o = with_tools;
        o.keep_tokens = true;
        bw_answer_text *a = make(o);
        const int total = size ? 200000 : 2000;
        const uint64_t start = bw_clock_ns();
        for (int i = 0; i < total; i++)
            push(a, ids[i % n], false);
        ns[size] = (double)(bw_clock_ns() - start) / total;
        bw_answer_text_destroy(a);
    }
    printf("[  NOTE    ] %.0f ns a token of a short answer, %.0f of one of 200,000\n", ns[0], ns[1]);
    check_that(ns[1] < 20 * ns[0] + 2000, "%.0f ns a token, %.0f in a short answer", ns[1], ns[0]);
    bw_mem_free(ids);
}

TESTS_MAIN(ENTRY(text_without_chat_is_content_as_it_is), ENTRY(reasoning_and_content_part_at_the_tag),
           ENTRY(reasoning_tokens_are_those_up_to_the_tag), ENTRY(an_answer_cut_while_thinking_is_all_reasoning),
           ENTRY(reasoning_that_is_not_wanted_is_counted_all_the_same),
           ENTRY(inline_reasoning_stands_in_the_content_between_tags), ENTRY(stop_strings_count_in_what_is_visible_alone),
           ENTRY(a_stop_string_is_included_when_asked_for), ENTRY(what_could_have_been_a_stop_string_comes_at_the_end),
           ENTRY(calls_follow_content_and_their_arguments_are_json), ENTRY(an_answer_cut_anywhere_in_a_call_has_whole_json),
           ENTRY(one_call_ends_the_answer), ENTRY(stop_strings_are_not_looked_for_inside_calls),
           ENTRY(an_end_token_is_counted_and_not_shown), ENTRY(clearing_between_tokens_loses_and_repeats_nothing),
           ENTRY(tokens_wait_with_their_bytes), ENTRY(bytes_that_never_became_a_character_are_replaced),
           ENTRY(an_echo_stands_before_the_answer_with_its_scores), ENTRY(making_one_survives_every_failing_allocation),
           ENTRY(a_long_answer_costs_per_token_what_a_short_one_does))
