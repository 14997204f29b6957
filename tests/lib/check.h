/* check.h - our checks, on cmocka: every test file is one program.
 *
 *     TEST(rejected_rows_never_reach_the_state) { ... check(a == b); ... }
 *     TESTS_MAIN(ENTRY(rejected_rows_never_reach_the_state), ENTRY(another))
 *
 * A failed check ends its test, names file, line and values, and the program exits non-zero.
 * Random tests draw from rnd_*: the seed is printed on failure, BW_TEST_SEED=n repeats a run. */
#ifndef BW_TESTS_CHECK_H
#define BW_TESTS_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/status.h"

#define TEST(name) static void name(void **state_unused_ __attribute__((unused)))

/* Fails with a printf message. */
#define fail_with(...) check_fail_at(__FILE__, __LINE__, __VA_ARGS__)
#define check(condition)                                                                          \
    do {                                                                                          \
        if (!(condition))                                                                         \
            fail_with("not true: %s", #condition);                                                \
    } while (0)
#define check_that(condition, ...)                                                                \
    do {                                                                                          \
        if (!(condition))                                                                         \
            fail_with(__VA_ARGS__);                                                               \
    } while (0)
#define check_int(got, want) check_int_at(__FILE__, __LINE__, #got, (long long)(got), (long long)(want))
#define check_str(got, want) check_str_at(__FILE__, __LINE__, #got, got, want)
/* A call returned BW_OK; otherwise prints err.message. */
#define check_ok(call, err) check_ok_at(__FILE__, __LINE__, #call, call, &(err))
/* A call failed with `status` and its message contains every one of the given strings. */
#define check_error(call, status, err, ...)                                                       \
    check_error_at(__FILE__, __LINE__, #call, call, status, &(err), (const char *const[]){ __VA_ARGS__, NULL })
/* Counts a skip and says why; returns from the test. */
#define skip_because(...)                                                                         \
    do {                                                                                          \
        printf("[  NOTE    ] skipped: " __VA_ARGS__);                                             \
        printf("\n");                                                                             \
        skip();                                                                                   \
    } while (0)

void check_fail_at(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4), noreturn));
void check_int_at(const char *file, int line, const char *what, long long got, long long want);
void check_str_at(const char *file, int line, const char *what, const char *got, const char *want);
void check_ok_at(const char *file, int line, const char *what, bw_status st, const bw_error *err);
void check_error_at(const char *file, int line, const char *what, bw_status st, bw_status want,
                    const bw_error *err, const char *const *parts);

/* max |a - b| / max |b|; infinity when anything is not finite. */
double max_error(const float *a, const float *b, size_t n);
bool same_bits(const float *a, const float *b, size_t n);

/* Random, repeatable; seeded from BW_TEST_SEED or 1. */
uint64_t rnd_u64(void);
int rnd_int(int low, int high); /* both inclusive */
float rnd_float(void);          /* standard normal */

/* Built with a sanitizer: several times slower, so random tests may try less. */
bool sanitized(void);

/* How often a random test tries: n times, or a BW_TEST_TRIES-th of that where programs run slowly (make test-arm). */
int tries(int n);

/* The repository's root (BW_ROOT, or the working directory), so that tests find tests/golden. */
const char *repo_path(const char *relative); /* static ring of 8 buffers */
/* A file's bytes, NUL-terminated, the caller frees; fails the test when it cannot be read. */
char *read_file(const char *path, size_t *n);
/* A fresh empty directory under $TMPDIR; removed at exit. */
const char *temp_dir(void);

#define ENTRY(name) cmocka_unit_test(name)
/* Lists the tests by hand: TESTS_MAIN(ENTRY(a), ENTRY(b)) */
#define TESTS_MAIN(...)                                                                           \
    int main(void)                                                                                \
    {                                                                                             \
        const struct CMUnitTest tests[] = { __VA_ARGS__ };                                        \
        return check_run(#__VA_ARGS__, cmocka_run_group_tests(tests, NULL, NULL));                \
    }
int check_run(const char *names, int failed);

#endif
