/* Tool calls in an answer, however it is cut. */
#include "lib/check.h"

#include <stdlib.h>

#include "base/mem.h"
#include "text/bytes.h"
#include "text/pyjson.h"
#include "text/reasoning.h"
#include "text/toolcall.h"

static const char tools[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"type\": \"object\", \"properties\": {"
    "\"s\": {\"type\": \"string\"}, \"i\": {\"type\": \"integer\"}, \"n\": {\"type\": \"number\"}, "
    "\"b\": {\"type\": \"boolean\"}, \"o\": {\"type\": \"object\"}, \"a\": {\"type\": \"array\"}, "
    "\"sn\": {\"type\": [\"string\", \"null\"]}, \"in\": {\"type\": \"integer\", \"nullable\": true}, "
    "\"x\": {\"anyOf\": [{\"type\": \"integer\"}, {\"type\": \"array\"}, {\"type\": \"null\"}]}, \"any\": {}}}}}, "
    "{\"name\": \"g\"}]";

/* One line per event, text joined: T:text S:name A:key=value E:complete */
typedef struct record {
    bw_bytes log;
    bool in_text;
} record;

static void on_event(void *arg, const bw_toolcall_event *event)
{
    record *r = arg;
    if (event->kind != BW_TOOLCALL_TEXT || !r->in_text) {
        bw_bytes_add_str(&r->log, r->log.n ? "|" : "");
        bw_bytes_add_char(&r->log, "TSAE"[event->kind]);
        bw_bytes_add_char(&r->log, ':');
    }
    r->in_text = event->kind == BW_TOOLCALL_TEXT;
    bw_bytes_add(&r->log, event->text, event->n_bytes);
    if (event->kind == BW_TOOLCALL_ARGUMENT) {
        bw_bytes_add_char(&r->log, '=');
        bw_bytes_add(&r->log, event->value, event->value_bytes);
    }
    if (event->kind == BW_TOOLCALL_END)
        bw_bytes_add_str(&r->log, event->complete ? "1" : "0");
}

static bw_bytes parse(const char *text, size_t n, const bool *cuts)
{
    record r = { 0 };
    bw_toolcall *toolcall;
    bw_error err;
    check_ok(bw_toolcall_create(&toolcall, tools, strlen(tools), on_event, &r, &err), err);
    for (size_t from = 0, i = 1; i <= n; i++)
        if (i == n || (cuts && cuts[i])) {
            check_ok(bw_toolcall_push(toolcall, text + from, i - from, &err), err);
            from = i;
        }
    check_ok(bw_toolcall_finish(toolcall, &err), err);
    bw_toolcall_destroy(toolcall);
    bw_bytes_add_str(&r.log, "");
    return r.log;
}

static void check_cuts(const char *text, size_t n, const bw_bytes *whole, int n_random)
{
    bool *cuts = calloc(n + 1, sizeof *cuts);
    check(cuts != NULL);
    for (int round = 0; round < (int)n + n_random; round++) {
        for (size_t i = 0; i < n; i++) /* one cut everywhere, all cuts, random cuts */
            cuts[i] = round < (int)n ? (int)i == round : round == (int)n || rnd_int(0, round % 9) == 0;
        bw_bytes got = parse(text, n, cuts);
        check_that(got.n == whole->n && memcmp(got.data, whole->data, got.n) == 0, "%s in round %d: got\n%s\nwant\n%s",
                   text, round, got.data, whole->data);
        bw_bytes_fini(&got);
    }
    free(cuts);
}

static void check_events(const char *text, const char *want)
{
    bw_bytes whole = parse(text, strlen(text), NULL);
    if (want)
        check_str(whole.data, want);
    check_cuts(text, strlen(text), &whole, 30);
    bw_bytes_fini(&whole);
}

#define OPEN "<tool_call>\n<function=f>\n"
#define CLOSE "</function>\n</tool_call>"
#define PARAMETER(key, value) "<parameter=" key ">\n" value "\n</parameter>\n"

TEST(calls_come_out_with_their_arguments)
{
    check_events(OPEN PARAMETER("s", "Rome") PARAMETER("i", "3") CLOSE, "S:f|A:s=\"Rome\"|A:i=3|E:1");
    check_events(OPEN CLOSE, "S:f|E:1");
    check_events("Let me look.\n\n" OPEN PARAMETER("s", "a") CLOSE "\n<tool_call>\n<function=other>\n" CLOSE,
                 "T:Let me look.|S:f|A:s=\"a\"|E:1|S:other|E:1");
    check_events(OPEN PARAMETER("b", "true") PARAMETER("s", "x") CLOSE "\nDone.", "S:f|A:b=true|A:s=\"x\"|E:1|T:Done.");
    check_events("<tool_call><function=f><parameter=s>x</parameter></function></tool_call>", "S:f|A:s=\"x\"|E:1");
}

TEST(text_without_calls_passes_unchanged)
{
    check_events("plain\n\n", "T:plain\n\n");
    check_events("", "");
    check_events("a < b, <tool_call>, <tool_call>\n{\"name\": \"f\"}\n</tool_call>",
                 "T:a < b, <tool_call>, <tool_call>\n{\"name\": \"f\"}\n</tool_call>");
    check_events("cut off <tool_call>\n<function=na", "T:cut off <tool_call>\n<function=na");
    check_events("<tool_call><function=>x", "T:<tool_call><function=>x");
    check_events("<tool_call><function=a\nb>", "T:<tool_call><function=a\nb>");
    check_events("</function></parameter><parameter=x>", "T:</function></parameter><parameter=x>");
}

TEST(one_line_end_at_each_end_of_a_value_is_syntax)
{
    check_events(OPEN PARAMETER("s", "") CLOSE, "S:f|A:s=\"\"|E:1");
    check_events(OPEN "<parameter=s>\n</parameter>\n" CLOSE, "S:f|A:s=\"\"|E:1");
    check_events(OPEN PARAMETER("s", "\n  a \n\n b\n") CLOSE, "S:f|A:s=\"\\n  a \\n\\n b\\n\"|E:1");
}

TEST(values_are_typed_by_the_schema)
{
    static const char *const cases[][3] = {
        { "s", "5", "\"5\"" }, { "s", "null", "\"null\"" }, { "s", "q\"\\\xc3\xa8", "\"q\\\"\\\\\xc3\xa8\"" },
        { "unknown", "5", "\"5\"" }, { "any", "{}", "\"{}\"" },
        { "i", "5", "5" }, { "i", " -07 ", "-7" }, { "i", "+5", "5" }, { "i", "-0", "0" }, { "i", "5.0", "5" },
        { "i", "1e3", "1000" }, { "i", "5.5", "\"5.5\"" }, { "i", "five", "\"five\"" }, { "i", "null", "null" },
        { "i", "123456789012345678901234567890", "123456789012345678901234567890" }, { "i", "", "\"\"" },
        { "n", "2.50", "2.5" }, { "n", "3.0", "3" }, { "n", "-0.0", "0" }, { "n", ".5", "0.5" }, { "n", "1e400", "\"1e400\"" },
        { "n", "1e22", "10000000000000000000000" }, { "n", "nan", "\"nan\"" }, { "n", "1.", "1" }, { "n", ".", "\".\"" },
        { "b", "True", "true" }, { "b", "FALSE", "false" }, { "b", "yes", "\"yes\"" }, { "b", "None", "null" },
        { "o", "{\"a\":[1,2.0]}", "{\"a\": [1, 2.0]}" }, { "o", "[1]", "\"[1]\"" }, { "o", "{'a': 1}", "\"{'a': 1}\"" },
        { "a", " [ ]\n", "[]" }, { "a", "[1", "\"[1\"" },
        { "sn", "null", "null" }, { "sn", "None", "null" }, { "sn", "5", "\"5\"" }, { "in", "None", "null" },
        { "x", "7", "7" }, { "x", "[7]", "[7]" }, { "x", "null", "null" }, { "x", "{}", "\"{}\"" },
    };
    for (size_t i = 0; i < BW_COUNT(cases); i++) {
        char text[300], want[200];
        snprintf(text, sizeof text, OPEN "<parameter=%s>\n%s\n</parameter>\n" CLOSE, cases[i][0], cases[i][1]);
        snprintf(want, sizeof want, "S:f|A:%s=%s|E:1", cases[i][0], cases[i][2]);
        bw_bytes got = parse(text, strlen(text), NULL);
        check_str(got.data, want);
        bw_bytes_fini(&got);
    }
}

TEST(a_missing_opening_tag_is_forgiven_for_known_tools)
{
    check_events("<function=f>\n" PARAMETER("s", "a") CLOSE, "S:f|A:s=\"a\"|E:1");
    check_events("ok\n<function=g>\n</function>", "T:ok|S:g|E:1");
    check_events("write <function=unknown> to call", "T:write <function=unknown> to call");
}

TEST(a_missing_end_of_a_parameter_is_forgiven)
{
    check_events(OPEN "<parameter=s>\nRome\n<parameter=i>\n3\n</parameter>\n" CLOSE, "S:f|A:s=\"Rome\"|A:i=3|E:1");
    check_events(OPEN "<parameter=s>\nRome\n" CLOSE, "S:f|A:s=\"Rome\"|E:1");
    /* not a known name, not at the start of a line, already set: part of the value */
    check_events(OPEN PARAMETER("s", "a\n<parameter=zzz>\nb <parameter=i>\n<parameter=s>") CLOSE,
                 "S:f|A:s=\"a\\n<parameter=zzz>\\nb <parameter=i>\\n<parameter=s>\"|E:1");
}

TEST(closing_tags_inside_a_value_are_text_unless_the_call_goes_on_behind_them)
{
    check_events(OPEN PARAMETER("s", "use </parameter> and </function> so") CLOSE,
                 "S:f|A:s=\"use </parameter> and </function> so\"|E:1");
    check_events(OPEN PARAMETER("s", "</parameter>\n</function>\nx") PARAMETER("i", "1") CLOSE,
                 "S:f|A:s=\"</parameter>\\n</function>\\nx\"|A:i=1|E:1");
}

TEST(an_answer_that_ends_inside_a_call_loses_nothing)
{
    check_events(OPEN, "S:f|E:0");
    check_events(OPEN "<parameter=s", "S:f|T:<parameter=s|E:0");
    check_events(OPEN "<parameter=s>", "S:f|A:s=\"\"|E:0");
    check_events(OPEN "<parameter=s>\nhal", "S:f|A:s=\"hal\"|E:0");
    check_events(OPEN "<parameter=s>\nhalf\n</param", "S:f|A:s=\"half\\n</param\"|E:0");
    check_events(OPEN "<parameter=s>\nall\n</parameter>\n", "S:f|A:s=\"all\"|E:0");
    check_events(OPEN "<parameter=s>\nall\n</parameter>\n</function>", "S:f|A:s=\"all\"|E:1");
    check_events(OPEN "<parameter=s>\na\n</parameter>\n</function>\nThen prose.", "S:f|A:s=\"a\"|E:1|T:Then prose.");
    check_events(OPEN "<parameter=s>\na\n</function>\nThen prose.", "S:f|A:s=\"a\"|E:1|T:Then prose.");
    check_events(OPEN "<parameter=s>\na\n</tool_call>", "S:f|A:s=\"a\"|E:1");
}

TEST(text_between_the_tags_of_a_call_is_not_lost)
{
    check_events(OPEN "what now?\n" PARAMETER("s", "a") CLOSE, "S:f|T:what now?\n|A:s=\"a\"|E:1");
    check_events(OPEN "<b> <c>\n" CLOSE, "S:f|T:<b> <c>\n|E:1");
    check_events(OPEN "<tool_call>\n<function=g>\n" CLOSE, "S:f|E:1|S:g|E:1");
    check_events(OPEN PARAMETER("s", "a") "</tool_call>", "S:f|A:s=\"a\"|E:1");
}

TEST(random_answers_give_the_same_events_however_cut)
{
    static const char *const pieces[] = { "<tool_call>", "</tool_call>", "<function=f>", "<function=q>", "</function>",
                                          "<parameter=s>", "<parameter=i>", "<parameter=zz>", "</parameter>", "\n", "\n",
                                          "\n\n", " ", "x", "12", "<", "</", "<function=", "parameter", "=", ">", "text",
                                          "\xc3\xa8", "\xff" };
    for (int i = 0; i < 400; i++) {
        char text[600] = "";
        for (int k = rnd_int(1, 22); k > 0; k--)
            strcat(text, pieces[rnd_int(0, (int)BW_COUNT(pieces) - 1)]);
        check_events(text, NULL);
    }
}

TEST(every_word_of_a_random_answer_comes_out_once)
{
    static const char *const pieces[] = { "<tool_call>", "</tool_call>", "<function=f>", "<function=", ">", "</function>",
                                          "<parameter=s>", "<parameter=i>", "<parameter=", "</parameter>", "\n", "\n", " ",
                                          "<", "</", "=" };
    for (int i = 0; i < 5000; i++) {
        char text[900] = "", word[16];
        int n_words = 0;
        for (int k = rnd_int(1, 40); k > 0; k--) {
            snprintf(word, sizeof word, "w%dw", n_words);
            bool is_word = rnd_int(0, 3) == 0;
            n_words += is_word;
            strcat(text, is_word ? word : pieces[rnd_int(0, (int)BW_COUNT(pieces) - 1)]);
        }
        bw_bytes got = parse(text, strlen(text), NULL);
        for (int w = 0; w < n_words; w++) {
            snprintf(word, sizeof word, "w%dw", w);
            const char *first = strstr(got.data, word);
            check_that(first && !strstr(first + 1, word), "%s in\n%s\ncame out as\n%s", word, text, got.data);
        }
        bw_bytes_fini(&got);
    }
}

/* ---- what the format renders, the parsers read ----------------------------------------------- */

static void pass_on(void *arg, bw_reply_part part, const char *text, size_t n)
{
    bw_bytes *content = arg;
    if (part == BW_REPLY_CONTENT)
        bw_bytes_add(content, text, n);
}

/* Splits an assistant turn that begins inside or after a think block. */
static bw_bytes content_of(const char *turn, size_t n)
{
    bw_bytes content = { 0 };
    bw_reasoning *reasoning;
    bw_error err;
    bool thinking = n > 8 && strncmp(turn, "<think>\n", 8) == 0;
    check_ok(bw_reasoning_create(&reasoning, thinking, pass_on, &content, &err), err);
    check_ok(bw_reasoning_push(reasoning, turn, n, &err), err);
    bw_reasoning_finish(reasoning);
    bw_reasoning_destroy(reasoning);
    bw_bytes_add_str(&content, "");
    return content;
}

/* The events that the calls of a request's assistant message must give, all arguments as text. */
static void expect_calls(bw_bytes *want, const bw_json *message)
{
    const bw_json *calls = bw_json_get(message, "tool_calls");
    for (const bw_json *call = calls ? calls->first : NULL; call; call = call->next) {
        const bw_json *function = bw_json_get(call, "function"), *name = bw_json_get(function, "name");
        bw_bytes_add_str(want, want->n ? "|S:" : "S:");
        bw_bytes_add(want, name->text, name->n_bytes);
        for (const bw_json *v = bw_json_get(function, "arguments")->first; v; v = v->next) {
            bw_bytes value = { 0 };
            if (v->kind == BW_JSON_STRING)
                bw_bytes_add(&value, v->text, v->n_bytes);
            else
                bw_json_print(&value, v);
            bw_bytes_add_str(want, "|A:");
            bw_bytes_add(want, v->key, v->key_bytes);
            bw_bytes_add_char(want, '=');
            bw_json_print_string(want, value.data ? value.data : "", value.n);
            bw_bytes_fini(&value);
        }
        bw_bytes_add_str(want, "|E:1");
    }
}

TEST(calls_of_recorded_conversations_are_read_back_however_cut)
{
    size_t n;
    char *file = read_file(repo_path("tests/golden/chats.jsonl"), &n), *line = file, *end;
    int n_calls = 0, n_cut = 0;
    for (; (end = strchr(line, '\n')); line = end + 1) {
        bw_pyjson *document;
        const bw_json *root;
        bw_error err;
        check_ok(bw_pyjson_parse(&document, &root, line, (size_t)(end - line), "golden line", &err), err);
        const bw_json *text = bw_json_get(root, "text");
        const char *at = text ? text->text : "";
        const bw_json *m = bw_json_get(bw_json_get(root, "request"), "messages")->first;
        for (; m && text; m = m->next) {
            if (!bw_json_is(bw_json_get(m, "role"), "assistant"))
                continue;
            at = strstr(at, "<|im_start|>assistant\n") + strlen("<|im_start|>assistant\n");
            const char *stop = strstr(at, "<|im_end|>\n");
            bw_bytes content = content_of(at, (size_t)(stop - at)), want = { 0 };
            bw_bytes got = parse(content.data, content.n, NULL);
            expect_calls(&want, m);
            const char *calls = strstr(got.data, "S:");
            if (want.n) {
                check_str(calls, want.data);
                n_calls++;
            }
            if (content.n < 400 && n_cut < 60) {
                check_cuts(content.data, content.n, &got, 10);
                n_cut++;
            }
            bw_bytes_fini(&want);
            bw_bytes_fini(&got);
            bw_bytes_fini(&content);
        }
        bw_pyjson_free(document);
    }
    free(file);
    check_int(n_calls > 100 && n_cut == 60, 1);
}

/* ---- bad input ------------------------------------------------------------------------------- */

TEST(tools_that_are_no_array_are_refused)
{
    bw_toolcall *toolcall;
    bw_error err;
    check_error(bw_toolcall_create(&toolcall, "{}", 2, on_event, NULL, &err), BW_E_ARGUMENT, err, "tools: found an object");
    check(toolcall == NULL);
    check_error(bw_toolcall_create(&toolcall, "[", 1, on_event, NULL, &err), BW_E_FORMAT, err, "tools: not JSON");
}

TEST(tools_of_odd_shapes_are_no_schema)
{
    static const char *const odd[] = { "", "[]", "[1, null, {}]", "[{\"name\": 1}]",
                                       "[{\"function\": []}, {\"name\": \"f\", \"parameters\": []}]",
                                       "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"i\": 3}}}]",
                                       "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"i\": {\"type\": {}}}}}]" };
    static const char text[] = OPEN PARAMETER("i", "5") CLOSE;
    for (size_t i = 0; i < BW_COUNT(odd); i++) {
        record r = { 0 };
        bw_toolcall *toolcall;
        bw_error err;
        check_ok(bw_toolcall_create(&toolcall, odd[i], strlen(odd[i]), on_event, &r, &err), err);
        check_ok(bw_toolcall_push(toolcall, text, strlen(text), &err), err);
        check_ok(bw_toolcall_finish(toolcall, &err), err);
        check_str(r.log.data, "S:f|A:i=\"5\"|E:1");
        bw_toolcall_destroy(toolcall);
        bw_bytes_fini(&r.log);
    }
}

static void drop_event(void *arg, const bw_toolcall_event *event)
{
    (void)event;
    ++*(int *)arg;
}

TEST(memory_running_out_is_reported_and_leaks_nothing)
{
    static const char text[] = "hello\n" OPEN PARAMETER("s", "a") PARAMETER("o", "{\"a\": 1}") CLOSE;
    uint64_t before = bw_mem_used(BW_MEM_TEXT);
    bool failed = true;
    for (long n = 1; failed; n++) {
        int n_events = 0;
        bw_toolcall *toolcall;
        bw_mem_fail_at(n);
        bw_status st = bw_toolcall_create(&toolcall, tools, strlen(tools), drop_event, &n_events, NULL);
        if (!st)
            st = bw_toolcall_push(toolcall, text, strlen(text), NULL);
        if (!st)
            st = bw_toolcall_finish(toolcall, NULL);
        failed = bw_mem_fail_at(0);
        check_int(st, failed ? BW_E_MEMORY : BW_OK);
        check_int(failed || n_events == 5, 1);
        bw_toolcall_destroy(toolcall);
        check_int(bw_mem_used(BW_MEM_TEXT), before);
    }
}

TESTS_MAIN(ENTRY(calls_come_out_with_their_arguments), ENTRY(text_without_calls_passes_unchanged),
           ENTRY(one_line_end_at_each_end_of_a_value_is_syntax), ENTRY(values_are_typed_by_the_schema),
           ENTRY(a_missing_opening_tag_is_forgiven_for_known_tools), ENTRY(a_missing_end_of_a_parameter_is_forgiven),
           ENTRY(closing_tags_inside_a_value_are_text_unless_the_call_goes_on_behind_them),
           ENTRY(an_answer_that_ends_inside_a_call_loses_nothing), ENTRY(text_between_the_tags_of_a_call_is_not_lost),
           ENTRY(random_answers_give_the_same_events_however_cut), ENTRY(every_word_of_a_random_answer_comes_out_once),
           ENTRY(calls_of_recorded_conversations_are_read_back_however_cut), ENTRY(tools_that_are_no_array_are_refused),
           ENTRY(tools_of_odd_shapes_are_no_schema), ENTRY(memory_running_out_is_reported_and_leaks_nothing))
