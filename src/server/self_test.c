/* self_test.c - see self_test.h. */
#include "server/self_test.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/status.h"

enum {
    PAGE = 64,             /* what the cache keeps whole: the checkpoint stands at the end of the first */
    PROMPT = PAGE + 16,
    MOST_TOKENS = 32,
    ENOUGH_TOKENS = 6,     /* where a second has gone by */
    N_TOP = 5
};

/* What one run of the prompt gave. */
typedef struct answer {
    int32_t tokens[MOST_TOKENS];
    float logprobs[MOST_TOKENS];
    bw_logprob top[MOST_TOKENS][N_TOP];
    int n;
    bool over;
    bw_usage usage;
    char error[512];
} answer;

static void keep(answer *a, const bw_post *post)
{
    for (int i = 0; i < post->n_tokens && a->n < MOST_TOKENS; i++, a->n++) {
        a->tokens[a->n] = post->tokens[i];
        if (post->logprobs)
            a->logprobs[a->n] = post->logprobs[i];
        if (post->top && post->n_top == N_TOP)
            memcpy(a->top[a->n], post->top + (size_t)i * N_TOP, sizeof a->top[a->n]);
    }
    a->usage = post->usage;
    a->over = post->finish != BW_FINISH_NONE;
    if (post->finish == BW_FINISH_ERROR)
        snprintf(a->error, sizeof a->error, "%s", post->error[0] ? post->error : "no reason given");
}

/* Takes what the engine has put out; posts of other tickets and records of steps are dropped. */
static void take(answer *a, bw_engine_thread *thread, bw_ticket ticket)
{
    bw_post *posts;
    bw_step_record *steps;
    bw_engine_thread_take(thread, &posts, &steps);
    for (bw_post *next; posts; posts = next) {
        next = posts->next;
        if (posts->ticket == ticket)
            keep(a, posts);
        bw_post_free(posts);
    }
    for (bw_step_record *next; steps; steps = next) {
        next = steps->next;
        bw_step_record_free(steps);
    }
}

static void wait_for_posts(int wake_fd)
{
    uint64_t count;
    struct pollfd wait = { .fd = wake_fd, .events = POLLIN };
    if (poll(&wait, 1, 1000) > 0 && read(wake_fd, &count, sizeof count) < 0 && errno != EAGAIN)
        return; /* whoever reads first: the posts are taken all the same */
}

/* Runs the request to its end, or until a second has gone by and enough tokens are there. */
static bw_status run_once(answer *a, const bw_self_test_setup *setup, const bw_request *request, bw_error *err)
{
    bw_ticket ticket;
    uint64_t first_ns = 0;
    *a = (answer){ 0 };
    bw_status st = bw_engine_thread_submit(setup->thread, request, 1, &ticket, err);
    while (!st && !a->over) {
        wait_for_posts(setup->wake_fd);
        take(a, setup->thread, ticket);
        if (a->n && !first_ns)
            first_ns = bw_clock_ns();
        if (!a->over && a->n >= ENOUGH_TOKENS && bw_clock_ns() - first_ns > 1000000000u) {
            bw_engine_thread_cancel(setup->thread, ticket);
            break;
        }
    }
    if (!st && a->error[0])
        st = bw_fail(err, BW_E_INTERNAL, "self-test: the engine cannot answer: %s", a->error);
    return st;
}

/* PROMPT tokens of ordinary text, or of ids where the model has no tokenizer. */
static bw_status make_prompt(int32_t prompt[PROMPT], const bw_model *model, bw_error *err)
{
    static const char text[] =
        "The tower clock of the small town had stopped at ten past four, and for a week nobody noticed. Then the "
        "baker was late, the school was early, and the ferry left without its captain. \"Somebody,\" said the mayor, "
        "\"must climb up there and look.\" So the clockmaker's daughter took a lamp, a rope and a piece of bread, and "
        "went up the two hundred steps. What she found between the wheels was a nest, ";
    const int n_tokens = bw_model_get_info(model)->n_tokens;
    int32_t *ids = NULL;
    int n = 0;
    if (bw_model_get_info(model)->has_text) {
        bw_status st = bw_encode(model, text, sizeof text - 1, false, &ids, &n, err);
        if (st)
            return st;
    }
    for (int i = 0; i < PROMPT; i++)
        prompt[i] = n ? ids[i % n] : (int32_t)((unsigned)i * 37u % (unsigned)(n_tokens > 0 ? n_tokens : 1));
    bw_free(ids);
    return BW_OK;
}

/* ---- what the runs say ----------------------------------------------------------------------- */

static void find_drafts(bw_finding *f, const bw_self_test_setup *setup, const bw_usage *usage)
{
    const bw_model_info *info = bw_model_get_info(setup->model);
    if (!setup->drafts || !info->has_mtp) {
        f->engaged = BW_ENGAGED_OFF;
        snprintf(f->note, sizeof f->note, "%s", setup->drafts ? info->mtp_note : "off, as asked");
        return;
    }
    f->engaged = usage->verifies > 0 ? BW_ENGAGED_YES : BW_ENGAGED_NO;
    if (usage->verifies > 0)
        snprintf(f->note, sizeof f->note, "%lld verifies, in %lld of them the first draft was accepted",
                 (long long)usage->verifies, (long long)usage->accepted_by_position[0]);
    else
        snprintf(f->note, sizeof f->note, "the model has an MTP head, and not one draft was verified in %d tokens",
                 usage->generated_tokens);
}

static const char *miss_text(bw_cache_miss miss)
{
    switch (miss) {
    case BW_MISS_OFF: return "it says that it is off";
    case BW_MISS_DIFFERS: return "it says that the text differs";
    case BW_MISS_NO_CHECKPOINT: return "it says that there is no checkpoint";
    case BW_MISS_EVICTED: return "it says that the prompt was evicted";
    case BW_MISS_NONE: break;
    }
    return "it does not say why";
}

static void find_cache(bw_finding *f, const bw_self_test_setup *setup, const bw_usage *again)
{
    f->engaged = !setup->cache ? BW_ENGAGED_OFF : again->cached_tokens > 0 ? BW_ENGAGED_YES : BW_ENGAGED_NO;
    if (!setup->cache)
        snprintf(f->note, sizeof f->note, "off: no memory for checkpoints");
    else if (again->cached_tokens > 0)
        snprintf(f->note, sizeof f->note, "%d of %d prompt tokens supplied to the second run", again->cached_tokens, PROMPT);
    else
        snprintf(f->note, sizeof f->note, "the same prompt came twice and nothing was supplied: %s (token %d)",
                 miss_text(again->miss), again->miss_at);
}

static bool same_row(const answer *a, const answer *b, int i)
{
    return a->tokens[i] == b->tokens[i] && memcmp(&a->logprobs[i], &b->logprobs[i], sizeof a->logprobs[i]) == 0 &&
           memcmp(a->top[i], b->top[i], sizeof a->top[i]) == 0;
}

static void find_agreement(bw_finding *f, const answer *cold, const answer *again)
{
    const int n = cold->n < again->n ? cold->n : again->n;
    int i = 0;
    while (i < n && same_row(cold, again, i))
        i++;
    f->engaged = n > 0 && i == n ? BW_ENGAGED_YES : BW_ENGAGED_NO;
    if (f->engaged == BW_ENGAGED_YES)
        snprintf(f->note, sizeof f->note, "%d tokens and their log-probabilities are the same bits in both runs", n);
    else
        snprintf(f->note, sizeof f->note, "the two runs part at token %d of %d: the same request would not get the "
                 "same answer; please report this", i + 1, n);
}

bw_status bw_self_test_run(bw_self_test *out, const bw_self_test_setup *setup, bw_error *err)
{
    int32_t prompt[PROMPT];
    const int mark = PAGE;
    const uint64_t start = bw_clock_ns();
    *out = (bw_self_test){ 0 };
    if (setup->context < PROMPT + ENOUGH_TOKENS) {
        bw_self_test_skip(out);
        return BW_OK;
    }
    answer *runs = bw_mem_zalloc(2, sizeof *runs, BW_MEM_MISC);
    if (!runs)
        return bw_fail_memory(err, "self-test", 2 * sizeof *runs);
    bw_request request = bw_request_defaults(setup->model);
    request.prompt = prompt;
    request.n_prompt = PROMPT;
    request.max_tokens = setup->context - PROMPT < MOST_TOKENS ? setup->context - PROMPT : MOST_TOKENS;
    request.sampling = (bw_sampling){ .top_p = 1, .repetition_penalty = 1 };
    request.stop_tokens = NULL;
    request.n_stop_tokens = 0;
    request.draft = setup->drafts && bw_model_get_info(setup->model)->has_mtp ? BW_DRAFT_AUTO : BW_DRAFT_OFF;
    request.n_logprobs = N_TOP;
    request.marks = &mark;
    request.n_marks = 1;
    request.cache_salt = start | 1; /* its pages are found by nobody else */
    bw_status st;
    if ((st = make_prompt(prompt, setup->model, err)) || (st = run_once(&runs[0], setup, &request, err)))
        goto done;
    request.max_tokens = runs[0].n;
    if ((st = run_once(&runs[1], setup, &request, err)))
        goto done;
    out->ran = true;
    out->prompt_tokens = PROMPT;
    out->generated_tokens = runs[0].n;
    find_drafts(&out->drafts, setup, &runs[0].usage);
    find_cache(&out->cache, setup, &runs[1].usage);
    find_agreement(&out->agreement, &runs[0], &runs[1]);
    out->seconds = (double)(bw_clock_ns() - start) * 1e-9;
done:
    bw_mem_free(runs);
    return st;
}

void bw_self_test_skip(bw_self_test *out)
{
    *out = (bw_self_test){ 0 };
    bw_finding *all[] = { &out->drafts, &out->cache, &out->agreement };
    for (size_t i = 0; i < BW_COUNT(all); i++) {
        all[i]->engaged = BW_ENGAGED_OFF;
        snprintf(all[i]->note, sizeof all[i]->note, "not tested");
    }
}

bool bw_self_test_passed(const bw_self_test *t)
{
    return t->ran && t->drafts.engaged != BW_ENGAGED_NO && t->cache.engaged != BW_ENGAGED_NO &&
           t->agreement.engaged != BW_ENGAGED_NO;
}

static struct json_object *finding_json(const bw_finding *f)
{
    static const char *const names[] = { [BW_ENGAGED_YES] = "yes", [BW_ENGAGED_OFF] = "off", [BW_ENGAGED_NO] = "no" };
    struct json_object *out = json_object_new_object();
    json_object_object_add(out, "engaged", json_object_new_string(names[f->engaged]));
    json_object_object_add(out, "note", json_object_new_string(f->note));
    return out;
}

struct json_object *bw_self_test_json(const bw_self_test *t)
{
    struct json_object *out = json_object_new_object();
    json_object_object_add(out, "ran", json_object_new_boolean(t->ran));
    json_object_object_add(out, "passed", json_object_new_boolean(bw_self_test_passed(t)));
    json_object_object_add(out, "seconds", json_object_new_double(t->seconds));
    json_object_object_add(out, "prompt_tokens", json_object_new_int(t->prompt_tokens));
    json_object_object_add(out, "generated_tokens", json_object_new_int(t->generated_tokens));
    json_object_object_add(out, "drafts", finding_json(&t->drafts));
    json_object_object_add(out, "cache", finding_json(&t->cache));
    json_object_object_add(out, "agreement", finding_json(&t->agreement));
    return out;
}
