/* self_test.h - a short prompt run twice through the engine before the first request: does drafting
 * draft, does the cache hit, and do a cached and a cold run say the same?
 *
 * Fast ways that are quietly not taken look like a slow machine; this says at start what is not
 * engaged. Threads: the one that takes the engine thread's posts, while nobody else does. */
#ifndef BW_SERVER_SELF_TEST_H
#define BW_SERVER_SELF_TEST_H

#include "engine/engine_thread.h"

struct json_object;

typedef enum bw_engaged {
    BW_ENGAGED_YES,
    BW_ENGAGED_OFF, /* not asked for, or not possible here: the note says which */
    BW_ENGAGED_NO   /* should be, and is not */
} bw_engaged;

typedef struct bw_finding {
    bw_engaged engaged;
    char note[256]; /* one line, never empty */
} bw_finding;

typedef struct bw_self_test {
    bool ran;
    double seconds;
    int prompt_tokens, generated_tokens;
    bw_finding drafts, cache, agreement;
} bw_self_test;

typedef struct bw_self_test_setup {
    const bw_model *model;
    bw_engine_thread *thread;
    int wake_fd;      /* an eventfd that the thread writes to when posts are out */
    bool drafts;      /* were asked for */
    bool cache;       /* there is one */
    int context;
} bw_self_test_setup;

/* About a second, on a slow machine as long as its prefill takes. What is not engaged is no failure;
 * an engine that cannot answer is: err then has its message. */
bw_status bw_self_test_run(bw_self_test *out, const bw_self_test_setup *setup, bw_error *err);
/* Fills *out for a test that was switched off. */
void bw_self_test_skip(bw_self_test *out);
bool bw_self_test_passed(const bw_self_test *test); /* ran, and nothing is BW_ENGAGED_NO */

/* The object of /props; the caller puts it. NULL: out of memory. */
struct json_object *bw_self_test_json(const bw_self_test *test);

#endif
