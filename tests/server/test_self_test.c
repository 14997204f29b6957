/* The start-up self-test, on the shipped model and on one without tokenizer and head. */
#include "lib/check.h"

#include <json-c/json.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/mem.h"
#include "server/self_test.h"

/* An engine on its thread. */
typedef struct rig {
    bw_model *model;
    bw_engine *engine;
    bw_engine_thread *thread;
    int fd;
} rig;

static void wake(void *arg)
{
    const uint64_t one = 1;
    check(write(((const rig *)arg)->fd, &one, sizeof one) > 0);
}

static void set_up(rig *r, const char *path, int context, bool no_drafts, uint64_t cache_memory)
{
    bw_error err;
    bw_engine_options options = bw_engine_defaults();
    options.context = context;
    options.max_seqs = 2;
    options.no_drafts = no_drafts;
    options.cache_memory = cache_memory;
    check_ok(bw_model_open(&r->model, repo_path(path), &(bw_model_options){ .n_threads = 2 }, &err), err);
    check_ok(bw_engine_create(&r->engine, r->model, &options, &err), err);
    r->fd = eventfd(0, 0);
    check_ok(bw_engine_thread_create(&r->thread, r->engine, wake, r, &err), err);
}

static void tear_down(rig *r)
{
    bw_engine_thread_destroy(r->thread);
    bw_engine_destroy(r->engine);
    bw_model_close(r->model);
    close(r->fd);
}

static bw_self_test_setup setup_of(const rig *r, bool drafts, bool cache)
{
    return (bw_self_test_setup){ .model = r->model, .thread = r->thread, .wake_fd = r->fd, .drafts = drafts, .cache = cache,
                                 .context = bw_engine_get_plan(r->engine)->context };
}

TEST(a_model_with_a_head_drafts_and_both_runs_are_the_same_bits)
{
    rig r;
    bw_error err;
    bw_self_test test;
    set_up(&r, "models/lamb", 256, false, 64 << 20);
    const bw_self_test_setup setup = setup_of(&r, true, false);
    check_ok(bw_self_test_run(&test, &setup, &err), err);
    check(test.ran && bw_self_test_passed(&test));
    check_int(test.drafts.engaged, BW_ENGAGED_YES);
    check_int(test.cache.engaged, BW_ENGAGED_OFF);
    check_int(test.agreement.engaged, BW_ENGAGED_YES);
    check(test.generated_tokens >= 6 && test.seconds > 0);
    struct json_object *json = bw_self_test_json(&test), *part, *word;
    check(json_object_object_get_ex(json, "drafts", &part) && json_object_object_get_ex(part, "engaged", &word));
    check_str(json_object_get_string(word), "yes");
    json_object_put(json);
    tear_down(&r);
}

TEST(drafts_that_do_not_come_are_said)
{
    rig r;
    bw_error err;
    bw_self_test test;
    set_up(&r, "tests/golden/moe-mlx", 128, true, 0); /* no head */
    const bw_self_test_setup setup = setup_of(&r, true, false);
    check_ok(bw_self_test_run(&test, &setup, &err), err);
    check_int(test.drafts.engaged, BW_ENGAGED_OFF);
    check_str(test.drafts.note, bw_model_get_info(r.model)->mtp_note);
    check(bw_self_test_passed(&test));
    tear_down(&r);
}

TEST(the_second_run_is_supplied_from_the_cache)
{
    rig r;
    bw_error err;
    bw_self_test test;
    set_up(&r, "models/lamb", 256, false, 64 << 20);
    const bw_self_test_setup setup = setup_of(&r, true, true);
    check_ok(bw_self_test_run(&test, &setup, &err), err);
    check_that(test.cache.engaged == BW_ENGAGED_YES, "%s", test.cache.note);
    check(bw_self_test_passed(&test));
    tear_down(&r);
}

TEST(a_cache_that_supplies_nothing_is_found)
{
    rig r;
    bw_error err;
    bw_self_test test;
    set_up(&r, "models/lamb", 256, false, 0);
    const bw_self_test_setup setup = setup_of(&r, true, true); /* as if there were one */
    check_ok(bw_self_test_run(&test, &setup, &err), err);
    check_int(test.cache.engaged, BW_ENGAGED_NO);
    check(test.ran && !bw_self_test_passed(&test));
    tear_down(&r);
}

TEST(a_context_too_short_for_the_test_is_served_untested)
{
    rig r;
    bw_error err;
    bw_self_test test;
    set_up(&r, "models/lamb", 80, false, 0);
    const bw_self_test_setup setup = setup_of(&r, true, false);
    check_ok(bw_self_test_run(&test, &setup, &err), err);
    check(!test.ran && !bw_self_test_passed(&test));
    check_str(test.drafts.note, "not tested");
    tear_down(&r);
}

TESTS_MAIN(ENTRY(a_model_with_a_head_drafts_and_both_runs_are_the_same_bits), ENTRY(drafts_that_do_not_come_are_said),
           ENTRY(the_second_run_is_supplied_from_the_cache), ENTRY(a_cache_that_supplies_nothing_is_found),
           ENTRY(a_context_too_short_for_the_test_is_served_untested))
