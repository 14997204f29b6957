/* The loop guard: what it finds and when, and what it leaves alone. */
#include "engine/loop_guard.h"

#include <glob.h>
#include <stdlib.h>

#include "lib/check.h"

static bw_loop_guard guard;

/* The place of the token with which the loop was found, or -1. */
static int find(const int32_t *tokens, int n)
{
    bw_loop_guard_init(&guard);
    for (int i = 0; i < n; i++)
        if (bw_loop_guard_push(&guard, tokens[i]))
            return i;
    return -1;
}

/* The definition of the header, word by word. */
static int find_plainly(const int32_t *tokens, int n)
{
    for (int i = 0; i < n; i++)
        for (int p = 1; p <= 512; p++) {
            int matches = 0;
            while (i - matches - p >= 0 && tokens[i - matches] == tokens[i - matches - p])
                matches++;
            if (matches >= 3 * p && matches >= 256)
                return i;
        }
    return -1;
}

static int needed(int period)
{
    return 3 * period > 256 ? 3 * period : 256;
}

TEST(every_period_is_found_after_four_times_and_256_tokens)
{
    enum { BEFORE = 700 };
    static int32_t tokens[BEFORE + 5 * 513];
    for (int period = 1; period <= 513; period += period < 20 || period > 500 ? 1 : 13) {
        for (int i = 0; i < BEFORE + period; i++) /* no two alike */
            tokens[i] = i;
        for (int i = BEFORE + period; i < BEFORE + 5 * 513; i++)
            tokens[i] = tokens[i - period];
        check_int(find(tokens, BEFORE + 5 * 513), period <= 512 ? BEFORE + period + needed(period) - 1 : -1);
    }
}

TEST(a_repeat_that_breaks_off_begins_again)
{
    static int32_t tokens[2000];
    for (int i = 0; i < 2000; i++)
        tokens[i] = i % 50;
    tokens[300] = 77; /* 250 tokens repeated before it; 350 does not equal it either */
    check_int(find(tokens, 2000), 350 + 256);
    check(bw_loop_guard_push(&guard, tokens[(350 + 257) % 50])); /* while it lasts */
    check(!bw_loop_guard_push(&guard, 99));
}

TEST(it_finds_what_the_definition_says)
{
    static int32_t tokens[3000];
    for (int round = 0; round < (sanitized() ? 20 : 60); round++) {
        const int alphabet = (int[]){ 1, 2, 3, 100, 100000 }[rnd_int(0, 4)];
        int n = 0;
        while (n < 3000) { /* new tokens, then some that were there before, from a distance */
            for (int i = rnd_int(0, 40); i > 0 && n < 3000; i--)
                tokens[n++] = rnd_int(0, alphabet - 1);
            const int distance = n > 0 ? rnd_int(1, n < 520 ? n : 520) : 0;
            for (int i = rnd_int(0, 5) * distance + rnd_int(0, 300); i > 0 && distance > 0 && n < 3000; i--, n++)
                tokens[n] = tokens[n - distance];
        }
        check_int(find(tokens, n), find_plainly(tokens, n));
    }
}

/* ---- what is no loop: bytes as tokens, which repeat more than the tokens of a vocabulary do ---- */

static void check_left_alone(const char *what, const char *text, size_t n)
{
    bw_loop_guard_init(&guard);
    for (size_t i = 0; i < n; i++)
        check_that(!bw_loop_guard_push(&guard, (unsigned char)text[i]), "%s: a loop at byte %zu: ...%.60s", what, i,
                   text + (i > 59 ? i - 59 : 0));
}

TEST(prose_and_code_are_left_alone)
{
    static const char *const patterns[] = { "*.md", "docs/*.md", "src/*/*.[ch]", "src/ops/cpu/*.c", "tests/*/*.c", "include/*.h" };
    int n_files = 0;
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        glob_t found;
        if (glob(repo_path(patterns[i]), 0, NULL, &found) != 0)
            continue;
        for (size_t j = 0; j < found.gl_pathc; j++, n_files++) {
            size_t n;
            char *text = read_file(found.gl_pathv[j], &n);
            check_left_alone(found.gl_pathv[j], text, n);
            free(text);
        }
        globfree(&found);
    }
    check(n_files > 100);
}

enum { LINES = 3000, ROOM = LINES * 100 };

/* Many lines of one form that differ in a number. */
static void check_lines(const char *what, const char *format, int first, int step)
{
    char *text = malloc(ROOM);
    int n = 0;
    check(text != NULL);
    for (int i = 0; i < LINES; i++)
        n += snprintf(text + n, (size_t)(ROOM - n), format, first + i * step);
    check(n < ROOM - 100);
    check_left_alone(what, text, (size_t)n);
    free(text);
}

TEST(counting_and_lines_that_differ_in_a_number_are_left_alone)
{
    check_lines("counting", "%d\n", 1, 1);
    check_lines("counting with commas", "%d, ", 1000, 1);
    check_lines("counting by tens", "%d ", 10, 10);
    check_lines("counting down", "%d\n", 100000, -7);
    check_lines("code", "    check_int(table[%d], 0);\n", 0, 1);
    check_lines("rows", "| %05d | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 |\n", 0, 3);
}

TEST(rulers_blank_lines_and_small_arrays_of_zeros_are_left_alone)
{
    char text[4000];
    int n = 0;
    for (int ruler = 0; ruler < 10; ruler++) {
        for (int i = 0; i < 100; i++)
            text[n++] = "-=*#_ \n.~+"[ruler];
        n += sprintf(text + n, "\nSection %d\n", ruler);
    }
    for (int i = 0; i < 64; i++) /* 8 x 8 */
        n += sprintf(text + n, "%s0,%s", i % 8 ? "" : "{", i % 8 == 7 ? "},\n" : " ");
    check_left_alone("rulers", text, (size_t)n);
    bw_loop_guard_init(&guard);
    bool found = false;
    for (int i = 0; i < 257; i++) { /* but one that never ends is cut */
        check(!found);
        found = bw_loop_guard_push(&guard, '-');
    }
    check(found);
}

TESTS_MAIN(ENTRY(every_period_is_found_after_four_times_and_256_tokens), ENTRY(a_repeat_that_breaks_off_begins_again),
           ENTRY(it_finds_what_the_definition_says), ENTRY(prose_and_code_are_left_alone),
           ENTRY(counting_and_lines_that_differ_in_a_number_are_left_alone),
           ENTRY(rulers_blank_lines_and_small_arrays_of_zeros_are_left_alone))
