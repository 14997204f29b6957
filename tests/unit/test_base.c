/* What everyone builds on: memory, half floats, error messages. */
#include "lib/check.h"

#include <math.h>

#include "base/half.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/utf8.h"

TEST(every_f16_survives_the_way_through_f32)
{
    for (uint32_t h = 0; h < 65536; h++) {
        float x = bw_f16_to_f32((uint16_t)h);
        if (isnan(x))
            check(isnan(bw_f16_to_f32(bw_f32_to_f16(x))));
        else
            check_int(bw_f32_to_f16(x), h);
    }
}

TEST(f32_rounds_to_the_nearest_f16_ties_to_even)
{
    check_int(bw_f32_to_f16(1.0f + 0x1p-11f), 0x3C00);         /* tie: down to even */
    check_int(bw_f32_to_f16(1.0f + 3 * 0x1p-11f), 0x3C02);     /* tie: up to even */
    check_int(bw_f32_to_f16(65519.996f), 0x7BFF);
    check_int(bw_f32_to_f16(65520.0f), 0x7C00);
    check_int(bw_f32_to_f16(0x1p-25f), 0);
    check_int(bw_f32_to_f16(0x1.8p-25f), 1);
    check_int(bw_f32_to_f16(-0.0f), 0x8000);
    for (int i = 0; i < 20000; i++) {
        float x = ldexpf(rnd_float(), rnd_int(-26, 14));
        float y = bw_f16_to_f32(bw_f32_to_f16(x));
        float step = fmaxf(fabsf(x) * 0x1p-11f, 0x1p-25f);
        check_that(fabsf(x - y) <= step, "%a became %a", x, y);
    }
}

TEST(bf16_rounds_to_nearest_even)
{
    check_int(bw_f32_to_bf16(1.0f + 0x1p-8f), 0x3F80);
    check_int(bw_f32_to_bf16(1.0f + 3 * 0x1p-8f), 0x3F82);
    check(isnan(bw_bf16_to_f32(bw_f32_to_bf16(NAN))));
}

TEST(memory_is_counted_and_can_be_made_to_fail)
{
    uint64_t before = bw_mem_used(BW_MEM_KV);
    void *p = bw_mem_alloc(1000, BW_MEM_KV);
    check(((uintptr_t)p & 63) == 0);
    check_int(bw_mem_used(BW_MEM_KV) - before, 1000);
    p = bw_mem_realloc(p, 3000, BW_MEM_KV);
    check_int(bw_mem_used(BW_MEM_KV) - before, 3000);
    bw_mem_free(p);
    check_int(bw_mem_used(BW_MEM_KV), before);
    check(bw_mem_zalloc(SIZE_MAX / 2, 3, BW_MEM_MISC) == NULL);
    bw_mem_fail_at(2);
    void *first = bw_mem_alloc(8, BW_MEM_MISC);
    check(first && !bw_mem_alloc(8, BW_MEM_MISC) && !bw_mem_alloc(8, BW_MEM_MISC));
    check(bw_mem_fail_at(0));
    bw_mem_free(first);
}

TEST(a_large_block_begins_on_a_huge_page_and_is_counted_and_zero)
{
    const uint64_t before = bw_mem_used(BW_MEM_WEIGHTS);
    static const size_t sizes[] = { 0, 1000, BW_MEM_HUGE - 1, BW_MEM_HUGE, 3 * (size_t)BW_MEM_HUGE + 777 };
    for (size_t i = 0; i < BW_COUNT(sizes); i++) {
        unsigned char *p = bw_mem_alloc_large(sizes[i], BW_MEM_WEIGHTS);
        check(p && (uintptr_t)p % (sizes[i] < BW_MEM_HUGE ? 64 : BW_MEM_HUGE) == 0);
        check_int(bw_mem_used(BW_MEM_WEIGHTS) - before, sizes[i]);
        for (size_t at = 0; at < sizes[i]; at += 4096)
            check_int(p[at], 0);
        memset(p, 1, sizes[i]);
        p = bw_mem_realloc(p, sizes[i] + 10, BW_MEM_WEIGHTS);
        check(p && (sizes[i] == 0 || (p[0] == 1 && p[sizes[i] - 1] == 1)));
        bw_mem_free(p);
        check_int(bw_mem_used(BW_MEM_WEIGHTS), before);
    }
    check(bw_mem_alloc_large(SIZE_MAX - 100, BW_MEM_WEIGHTS) == NULL);
    check(bw_mem_alloc_large((size_t)1 << 62, BW_MEM_WEIGHTS) == NULL);
    bw_mem_fail_at(1);
    check(!bw_mem_alloc_large(10 * (size_t)BW_MEM_HUGE, BW_MEM_WEIGHTS));
    check(bw_mem_fail_at(0));
    check_int(bw_mem_used(BW_MEM_WEIGHTS), before);
}

TEST(messages_are_cut_on_a_character)
{
    bw_error err;
    char longer[3000];
    for (int i = 0; i < 1499; i++)
        memcpy(longer + 2 * i, "\xC3\xA9", 2);
    longer[2998] = '\0';
    check_int(bw_fail(&err, BW_E_IO, "x%s", longer), BW_E_IO);
    check_int(strlen(err.message) % 2, 1); /* one x and whole characters */
    bw_fail(&err, BW_E_IO, "inner");
    check_int(bw_fail_prefix(&err, "outer %d", 7), BW_E_IO);
    check_str(err.message, "outer 7: inner");
}

TEST(messages_are_one_line_of_utf8_whatever_a_file_holds)
{
    bw_error err;
    bw_fail(&err, BW_E_FORMAT, "%s", "a\nb\tc \xC3\xA9 \xFF \xC3 \xE2\x82");
    check_str(err.message, "a b c \xC3\xA9 ? ? ??");
}

static const struct malformed {
    const char *bytes, *shown;
} malformed[] = {
    { "\xED\xA0\x80", "???" },         /* the surrogate U+D800 */
    { "\xED\xBF\xBF", "???" },         /* U+DFFF */
    { "\xE0\x9F\xBF", "???" },         /* U+07FF in three bytes */
    { "\xF0\x8F\xBF\xBF", "????" },   /* U+FFFF in four */
    { "\xC1\xBF", "??" },               /* U+007F in two */
    { "\xF4\x90\x80\x80", "????" },   /* U+110000 */
    { "\xF5\x80\x80\x80", "????" },
};

static char last_line[200];

static void keep_line(void *arg, bw_log_level level, const char *line)
{
    (void)arg, (void)level;
    snprintf(last_line, sizeof last_line, "%s", line);
}

TEST(what_is_no_utf8_never_reaches_a_message_or_the_log)
{
    bw_error err;
    bw_log_to(keep_line, NULL);
    for (size_t i = 0; i < BW_COUNT(malformed); i++) {
        check_int(bw_utf8_valid_prefix(malformed[i].bytes, strlen(malformed[i].bytes)), 0);
        bw_fail(&err, BW_E_FORMAT, "%s", malformed[i].bytes);
        check_str(err.message, malformed[i].shown);
        bw_log(BW_LOG_WARNING, "%s", malformed[i].bytes);
        check_str(last_line, malformed[i].shown);
    }
    bw_log_to(NULL, NULL);
}

TEST(control_characters_never_reach_a_message_or_the_log)
{
    bw_error err;
    static const char bad[] = "a\x1B[2Jb\x7F" "c\xC2\x80" "d\xC2\x9B" "31me\xC2\x9F" "f";
    static const char fine[] = "\xC2\xA0\xDF\xBF\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xF0\x90\x80\x80\xF4\x8F\xBF\xBF";
    bw_log_to(keep_line, NULL);
    bw_fail(&err, BW_E_FORMAT, "%s", bad);
    check_str(err.message, "a [2Jb c d 31me f");
    bw_log(BW_LOG_WARNING, "%s", bad);
    check_str(last_line, "a [2Jb c d 31me f");
    bw_log(BW_LOG_WARNING, "%s", fine);
    check_str(last_line, fine);
    bw_log_to(NULL, NULL);
}

TESTS_MAIN(ENTRY(every_f16_survives_the_way_through_f32), ENTRY(f32_rounds_to_the_nearest_f16_ties_to_even),
           ENTRY(bf16_rounds_to_nearest_even), ENTRY(memory_is_counted_and_can_be_made_to_fail),
           ENTRY(a_large_block_begins_on_a_huge_page_and_is_counted_and_zero),
           ENTRY(messages_are_cut_on_a_character), ENTRY(messages_are_one_line_of_utf8_whatever_a_file_holds),
           ENTRY(what_is_no_utf8_never_reaches_a_message_or_the_log), ENTRY(control_characters_never_reach_a_message_or_the_log))
