/* Reasoning and content of an answer, however it is cut. */
#include "lib/check.h"

#include "base/mem.h"
#include "text/bytes.h"
#include "text/reasoning.h"

/* What came, as R(...)C(...), neighbours of one kind joined. */
typedef struct record {
    bw_bytes log;
    char last;
} record;

static void on_part(void *arg, bw_reply_part part, const char *text, size_t n)
{
    record *r = arg;
    char kind = part == BW_REPLY_REASONING ? 'R' : 'C';
    check(n > 0);
    if (r->last != kind) {
        bw_bytes_add_str(&r->log, r->last ? ")" : "");
        bw_bytes_add_char(&r->log, kind);
        bw_bytes_add_char(&r->log, '(');
    }
    r->last = kind;
    bw_bytes_add(&r->log, text, n);
}

/* cuts[i]: a push ends before byte i. NULL: one push. */
static bw_bytes split(bool thinking, const char *text, size_t n, const bool *cuts)
{
    record r = { 0 };
    bw_reasoning *reasoning;
    bw_error err;
    check_ok(bw_reasoning_create(&reasoning, thinking, on_part, &r, &err), err);
    for (size_t from = 0, i = 1; i <= n; i++)
        if (i == n || (cuts && cuts[i])) {
            check_ok(bw_reasoning_push(reasoning, text + from, i - from, &err), err);
            from = i;
        }
    bw_reasoning_finish(reasoning);
    bw_reasoning_destroy(reasoning);
    bw_bytes_add_str(&r.log, r.last ? ")" : "");
    return r.log;
}

static void check_split(bool thinking, const char *text, size_t n, const char *want)
{
    bool cuts[1200];
    check(n < BW_COUNT(cuts));
    bw_bytes whole = split(thinking, text, n, NULL);
    if (want)
        check_str(whole.data, want);
    for (int round = 0; round < (int)n + 30; round++) {
        for (size_t i = 0; i < n; i++) /* one cut everywhere, all cuts, random cuts */
            cuts[i] = round < (int)n ? (int)i == round : round == (int)n || rnd_int(0, round % 9) == 0;
        bw_bytes got = split(thinking, text, n, cuts);
        check_that(got.n == whole.n && memcmp(got.data, whole.data, got.n) == 0, "%s in round %d: got\n%s\nwant\n%s", text,
                   round, got.data, whole.data);
        bw_bytes_fini(&got);
    }
    bw_bytes_fini(&whole);
}

static void check_text(bool thinking, const char *text, const char *want)
{
    check_split(thinking, text, strlen(text), want);
}

TEST(reasoning_ends_at_its_closing_tag)
{
    check_text(true, "I think.\n</think>\n\nAnswer.", "R(I think.)C(Answer.)");
    check_text(true, "a\nb</think>c\n", "R(a\nb)C(c\n)");
    check_text(true, "\n</think>\n\nAnswer", "C(Answer)");
    check_text(true, "</think>Answer", "C(Answer)");
    check_text(true, "a</think>b</think>c<think>d", "R(a)C(b</think>c<think>d)");
    check_text(true, "  a \n</think>\n \nb", "R(  a )C( \nb)");
}

TEST(without_a_closing_tag_all_is_reasoning)
{
    check_text(true, "cut short", "R(cut short)");
    check_text(true, "cut short\n\n", "R(cut short\n\n)");
    check_text(true, "cut </thi", "R(cut </thi)");
    check_text(true, "", "");
}

TEST(a_tool_call_ends_reasoning_only_with_a_function_in_it)
{
    check_text(true, "go\n<tool_call>\n<function=f>\n</function>\n</tool_call>",
               "R(go)C(<tool_call>\n<function=f>\n</function>\n</tool_call>)");
    check_text(true, "go <tool_call><function=f>", "R(go )C(<tool_call><function=f>)");
    check_text(true, "I could write <tool_call> here.\n</think>\n\nno", "R(I could write <tool_call> here.)C(no)");
    check_text(true, "x<tool_call>\n<func", "R(x<tool_call>\n<func)");
    check_text(true, "x<tool_call>\n", "R(x<tool_call>\n)");
    check_text(true, "<tool_call><tool_call><function=f>", "R(<tool_call>)C(<tool_call><function=f>)");
    check_text(true, "<tool_call></think>c", "R(<tool_call>)C(c)");
}

TEST(a_stray_opening_tag_is_removed)
{
    check_text(true, "<think>\na</think>b", "R(a)C(b)");
    check_text(true, "\n <think>a</think>b", "R(a)C(b)");
    check_text(true, "a<think>b</think>c", "R(a<think>b)C(c)");
    check_text(false, "<think>\n\nAnswer", "C(Answer)");
    check_text(false, "\n<think>Answer", "C(Answer)");
}

TEST(without_thinking_all_is_content)
{
    check_text(false, "\n\n a </think> b <tool_call>\n<function=f>", "C(\n\n a </think> b <tool_call>\n<function=f>)");
    check_text(false, "<thin", "C(<thin)");
    check_text(false, " \n ", "C( \n )");
}

TEST(bytes_that_are_no_text_pass_through)
{
    static const char text[] = "a\0\xff</think\0>b\0\n</think>\0c";
    check_split(true, text, sizeof text - 1, NULL);
    bw_bytes got = split(true, text, sizeof text - 1, NULL);
    static const char want[] = "R(a\0\xff</think\0>b\0)C(\0c)";
    check(got.n == sizeof want - 1 && memcmp(got.data, want, got.n) == 0);
    bw_bytes_fini(&got);
}

TEST(only_so_much_white_space_is_held_back)
{
    char text[400];
    memset(text, '\n', sizeof text);
    text[0] = 'a';
    memcpy(text + 200, "</think>b", 10);
    check_split(true, text, 209, NULL);
    bw_bytes got = split(true, text, 209, NULL);
    check_int(got.n, strlen("R(a") + (199 - 64) + strlen(")C(b)")); /* the line ends beyond 64 stay */
    bw_bytes_fini(&got);
    memset(text, ' ', sizeof text);
    memcpy(text, "<tool_call>", 11);
    memcpy(text + 300, "<function=f>", 13);
    check_split(true, text, 312, NULL);
    got = split(true, text, 312, NULL);
    check(strncmp(got.data, "R(<tool_call>", 13) == 0 && !strstr(got.data, "C("));
    bw_bytes_fini(&got);
}

TEST(any_cut_of_random_text_gives_the_same_parts)
{
    static const char *const pieces[] = { "<think>", "</think>", "<tool_call>", "<function", "=f>", "\n", "\n\n", " ", "a",
                                          "<", "</", "think>", "<tool_", "call>", "text", "\xc3\xa8" };
    for (int i = 0; i < 300; i++) {
        char text[200] = "";
        for (int k = rnd_int(0, 12); k > 0; k--)
            strcat(text, pieces[rnd_int(0, (int)BW_COUNT(pieces) - 1)]);
        check_split(rnd_int(0, 3) > 0, text, strlen(text), NULL);
    }
}

static void count_bytes(void *arg, bw_reply_part part, const char *text, size_t n)
{
    (void)part, (void)text;
    *(size_t *)arg += n;
}

TEST(memory_running_out_is_reported_and_leaks_nothing)
{
    uint64_t before = bw_mem_used(BW_MEM_TEXT);
    bool failed = true;
    for (long n = 1; failed; n++) {
        size_t n_bytes = 0;
        bw_reasoning *reasoning;
        bw_mem_fail_at(n);
        bw_status st = bw_reasoning_create(&reasoning, true, count_bytes, &n_bytes, NULL);
        if (!st)
            st = bw_reasoning_push(reasoning, "a\n</thi", 7, NULL);
        failed = bw_mem_fail_at(0);
        check_int(st, failed ? BW_E_MEMORY : BW_OK);
        check_int(n_bytes, failed ? 0 : 1);
        bw_reasoning_destroy(reasoning);
        check_int(bw_mem_used(BW_MEM_TEXT), before);
    }
}

TESTS_MAIN(ENTRY(reasoning_ends_at_its_closing_tag), ENTRY(without_a_closing_tag_all_is_reasoning),
           ENTRY(a_tool_call_ends_reasoning_only_with_a_function_in_it), ENTRY(a_stray_opening_tag_is_removed),
           ENTRY(without_thinking_all_is_content), ENTRY(bytes_that_are_no_text_pass_through),
           ENTRY(only_so_much_white_space_is_held_back), ENTRY(any_cut_of_random_text_gives_the_same_parts),
           ENTRY(memory_running_out_is_reported_and_leaks_nothing))
