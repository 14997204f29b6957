/* cmocka.h - what our checks use of cmocka, for processors whose libraries are not on the machine that builds
 * (make test-arm): tests in order, each until it ends, fails or skips, and the lines that tests/run counts. */
#ifndef BW_TESTS_ARM_CMOCKA_H
#define BW_TESTS_ARM_CMOCKA_H

#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};

#define cmocka_unit_test(f) { #f, f }

/* Where the running test ends early, with 1: failed, 2: skipped. A program is several objects: one of them
 * keeps it. */
__attribute__((weak)) jmp_buf cmocka_end_of_test;

static inline __attribute__((noreturn, unused)) void cmocka_end(int how)
{
    longjmp(cmocka_end_of_test, how);
}

#define skip() cmocka_end(2)
#define _fail(file, line) cmocka_end(((void)(file), (void)(line), 1))

static inline __attribute__((unused)) int cmocka_run(const struct CMUnitTest *tests, size_t n)
{
    static const char *const results[] = { "[       OK ]", "[  FAILED  ]", "[  SKIPPED ]" };
    volatile int failed = 0;
    setvbuf(stdout, NULL, _IOLBF, 0); /* a test that crashes has said its name */
    printf("[==========] Running %zu test(s).\n", n);
    for (volatile size_t i = 0; i < n; i++) {
        printf("[ RUN      ] %s\n", tests[i].name);
        const int how = setjmp(cmocka_end_of_test);
        if (how == 0)
            tests[i].run(NULL);
        failed += how == 1;
        printf("%s %s\n", results[how], tests[i].name);
    }
    printf("[==========] %zu test(s) run.\n", n);
    return failed;
}

#define cmocka_run_group_tests(tests, before, after) cmocka_run(tests, sizeof(tests) / sizeof(tests)[0])

#endif
