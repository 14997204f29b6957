/* workload.c - see workload.h. */
#include "bench/workload.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "bench/crew.h"
#include "bench/statistics.h"
#include "engine/simulate.h"

enum {
    ROOM = 1024,         /* tokens a sequence goes on from its depth before it starts again */
    AUTO_ROOM = 2048,    /* auto generates AUTO_TOKENS first, and a step of it up to 9 */
    LEAST_STEPS = 4, MOST_STEPS = 32, MOST_AUTO_STEPS = 128, /* of a slice */
    AUTO_TOKENS = 200, AUTO_TOKENS_QUICK = 20, /* that auto has to learn from before it is measured */
    MAX_SETTINGS = BW_BENCH_MAX_LIST,
    VERIFY_MOST = 1 + BW_MAX_DRAFTS /* rows of one sequence */
};

/* One setting of a test. */
typedef struct setting {
    bw_crew *crew;     /* NULL: a prompt */
    bw_engine *engine; /* of a prompt */
    int rows;          /* of a prompt; of a verify */
    int depth, draft;
    bw_measure_options slice;
    bw_measured *slices;  /* [reps] */
} setting;

/* The settings that take turns, and what they run in. */
typedef struct group {
    bw_workload *w;
    bw_bench_test test;
    bw_engine *engines[2]; /* the second: auto learns alone */
    bw_crew *crews[MAX_SETTINGS];
    int n_crews;
    setting settings[MAX_SETTINGS];
    int n;
    int first;        /* the setting that the others are compared with; -1: none */
    const char *ratio_what;
    bool by_rate;     /* the ratio is of tokens a second, not of milliseconds */
} group;

/* ---- lists ----------------------------------------------------------------------------------- */

static const int *list_of(const bw_bench_list *given, const bw_bench_list *normal, const bw_bench_list *quick,
                          bool is_quick, int *n)
{
    const bw_bench_list *list = given->n ? given : is_quick ? quick : normal;
    *n = list->n;
    return list->items;
}

static const bw_bench_list normal_prompts = { { 128, 512, 2048 }, 3 }, quick_prompts = { { 64, 128 }, 2 };
static const bw_bench_list normal_depths = { { 0, 4096, 16384 }, 3 }, quick_depths = { { 0, 256 }, 2 };
static const bw_bench_list zero_depth = { { 0 }, 1 };
static const bw_bench_list normal_rows = { { 1, 2, 3, 4, 8, 16 }, 6 }, quick_rows = { { 1, 4, 16 }, 3 };
static const bw_bench_list normal_seqs = { { 1, 2, 4, 8, 16, 32 }, 6 }, quick_seqs = { { 1, 4 }, 2 };
static const bw_bench_list one_seq = { { 1 }, 1 };
static const bw_bench_list normal_drafts = { { 0, 1, 2, 3, 4, BW_DRAFT_AUTO }, 6 };
static const bw_bench_list quick_drafts = { { 0, 3, BW_DRAFT_AUTO }, 3 };

static int largest(const int *items, int n)
{
    int most = 0;
    for (int i = 0; i < n; i++)
        most = items[i] > most ? items[i] : most;
    return most;
}

/* ---- rows of the result ---------------------------------------------------------------------- */

/* The place of the next note; NULL: no more room, and the last says so. */
static char *next_note(bw_workload *w)
{
    bw_bench_result *r = w->result;
    if (r->n_notes < BW_BENCH_MAX_NOTES)
        return r->notes[r->n_notes++];
    w->n_notes_lost += w->n_notes_lost ? 1 : 2; /* the last gives its place up */
    snprintf(r->notes[BW_BENCH_MAX_NOTES - 1], sizeof r->notes[0], "%d more notes, for which there is no room",
             w->n_notes_lost);
    return NULL;
}

void bw_workload_note(bw_workload *w, const char *format, ...)
{
    const size_t room = sizeof w->result->notes[0];
    va_list args;
    char *note = next_note(w);
    int used = 0;
    if (!note)
        return;
    if (w->options->threads.n > 1)
        used = snprintf(note, room, "%d thread%s: ", w->n_threads, w->n_threads == 1 ? "" : "s");
    va_start(args, format);
    vsnprintf(note + used, room - (size_t)used, format, args);
    va_end(args);
}

/* Depths of decode: those of the default that the model has no room for are left out, and noted. */
static bw_bench_list decode_depths(bw_workload *w)
{
    const bw_bench_options *o = w->options;
    const int context = bw_model_get_info(w->model)->max_context;
    bw_bench_list out = o->depths.n ? o->depths : o->quick ? quick_depths : normal_depths;
    int n = 0;
    for (int i = 0; i < out.n; i++) {
        if (o->depths.n || out.items[i] + AUTO_ROOM + 2 <= context)
            out.items[n++] = out.items[i];
        else
            bw_workload_note(w, "decode at depth %d left out: the model was made for a context of %d, and sequences "
                             "go on from their depth", out.items[i], context);
    }
    out.n = n;
    return out;
}

static bw_bench_figure figure(double *values, int n)
{
    const bw_summary s = bw_summary_of(values, n);
    return (bw_bench_figure){ s.median, s.smallest, s.largest };
}

bw_status bw_workload_add(bw_workload *w, bw_bench_test test, double *seconds, int n, bw_bench_row **row, bw_error *err)
{
    bw_bench_result *r = w->result;
    if (r->n_rows == w->n_rows_room) {
        const int room = w->n_rows_room ? 2 * w->n_rows_room : 32;
        bw_bench_row *rows = bw_mem_realloc(r->rows, (size_t)room * sizeof *rows, BW_MEM_MISC);
        if (!rows)
            return bw_fail_memory(err, "rows of the result", (size_t)room * sizeof *rows);
        r->rows = rows;
        w->n_rows_room = room;
    }
    for (int i = 0; i < n; i++)
        seconds[i] *= 1e3;
    *row = &r->rows[r->n_rows++];
    **row = (bw_bench_row){ .test = test, .n_threads = w->n_threads, .group = w->groups_done,
                            .ms = figure(seconds, n) };
    return BW_OK;
}

static double rate_of(const setting *s, const bw_measured *slice)
{
    return (s->slice.n_accept > 0 ? slice->expected : slice->tokens) / slice->seconds;
}

static double step_seconds(const bw_measured *slice)
{
    return slice->seconds / slice->n_steps;
}

/* Repetition by repetition, of s to base; values [reps]: scratch. */
static bw_bench_figure ratio_of(const setting *s, const setting *base, bool by_rate, double *values, int reps)
{
    for (int i = 0; i < reps; i++)
        values[i] = by_rate ? rate_of(s, &s->slices[i]) / rate_of(base, &base->slices[i])
                            : step_seconds(&s->slices[i]) / step_seconds(&base->slices[i]);
    return figure(values, reps);
}

static double mean_depth(const setting *s, int reps)
{
    double n = 0, sum = 0;
    for (int i = 0; i < reps; i++) {
        n += s->slices[i].n_spans;
        sum += s->slices[i].positions;
    }
    return n > 0 ? sum / n : 0;
}

/* One row of the result from the slices of a setting. values [reps]: scratch. */
static bw_status report(const group *g, const setting *s, double *values, bw_error *err)
{
    const bw_bench_options *o = g->w->options;
    const int reps = o->reps;
    const setting *base = g->first >= 0 ? &g->settings[g->first] : NULL;
    bw_measured sum = { 0 };
    bw_bench_row *row;
    for (int i = 0; i < reps; i++) {
        values[i] = step_seconds(&s->slices[i]);
        sum.n_steps += s->slices[i].n_steps;
        sum.verifies += s->slices[i].verifies;
        sum.drafted += s->slices[i].drafted;
        sum.accepted += s->slices[i].accepted;
        bw_step_cost_add(&sum.cost, &s->slices[i].cost);
    }
    const bw_status st = bw_workload_add(g->w, g->test, values, reps, &row, err);
    if (st)
        return st;
    row->rows = s->rows;
    row->seqs = s->crew ? s->slice.n_seqs : 1;
    row->depth = s->depth;
    row->drafts = s->draft;
    row->mean_depth = mean_depth(s, reps);
    row->bytes = sum.cost.bytes / sum.n_steps;
    row->int8_macs = sum.cost.int8_macs / sum.n_steps;
    row->f32_macs = sum.cost.f32_macs / sum.n_steps;
    row->steps = (double)sum.n_steps / reps;
    if (sum.verifies > 0) {
        row->drafted = sum.drafted / sum.verifies;
        row->accepted = sum.accepted / sum.verifies;
    }
    row->simulated_depth = s->crew && s->crew->simulate_depth && s->crew->depth > 0;
    row->simulated_acceptance = s->slice.n_accept > 0 && s->draft != 0;
    for (int i = 0; i < reps; i++)
        values[i] = g->test == BW_TEST_VERIFY ? s->rows / step_seconds(&s->slices[i]) : rate_of(s, &s->slices[i]);
    row->tokens_per_s = figure(values, reps);
    if (!base)
        return BW_OK;
    row->ratio = ratio_of(s, base, g->by_rate, values, reps);
    row->ratio_what = g->ratio_what;
    return BW_OK;
}

/* Once all settings of a group of drafts have their rows: what auto is beside the others. values [reps]: scratch. */
static void compare_auto(const group *g, double *values)
{
    bw_bench_row *rows = g->w->result->rows + g->w->result->n_rows - g->n;
    const int reps = g->w->options->reps;
    int best = -1, chosen = -1;
    for (int i = 0; i < g->n; i++) {
        if (g->settings[i].draft == BW_DRAFT_AUTO)
            chosen = i;
        else if (best < 0 || rows[i].tokens_per_s.median > rows[best].tokens_per_s.median)
            best = i;
    }
    if (chosen < 0 || best < 0)
        return;
    const setting *s = &g->settings[chosen];
    rows[chosen].auto_best = ratio_of(s, &g->settings[best], true, values, reps);
    rows[chosen].best_drafts = g->settings[best].draft;
    if (g->first >= 0)
        rows[chosen].auto_off = ratio_of(s, &g->settings[g->first], true, values, reps);
}

/* Steps of several tokens leave their depth sooner. */
static void note_depths(const group *g)
{
    const bw_bench_row *rows = g->w->result->rows + g->w->result->n_rows - g->n;
    const int n_seqs = g->settings[0].slice.n_seqs;
    double least = rows[0].mean_depth, most = least;
    for (int i = 1; i < g->n; i++) {
        const double mean = rows[i].mean_depth;
        least = mean < least ? mean : least;
        most = mean > most ? mean : most;
    }
    if (most - least > BW_PAGE && most - least > 0.02 * least)
        bw_workload_note(g->w, "%s at depth %d, %d sequence%s: the mean depth of its settings goes from %.0f to %.0f",
                         bw_bench_test_names[g->test], g->settings[0].depth, n_seqs, n_seqs == 1 ? "" : "s", least,
                         most);
}

/* ---- turns ----------------------------------------------------------------------------------- */

static bw_status run_once(const group *g, setting *s, int rep, bw_error *err)
{
    bw_measured *slice = &s->slices[rep];
    if (s->crew)
        return bw_crew_run(s->crew, &s->slice, slice, err);
    return bw_prompt_run(s->engine, s->rows, (uint64_t)rep * 64 + (uint64_t)(s - g->settings), slice, err);
}

/* What a slice is to take. auto tries another length once in some hundred steps: that is to be in a slice. */
static double slice_seconds(const group *g, const setting *s)
{
    if (g->w->options->quick)
        return 0.05;
    return g->test != BW_TEST_DRAFT ? 0.35 : s->draft == BW_DRAFT_AUTO ? 2.4 : 0.8;
}

static bw_status choose_steps(const group *g, setting *s, bw_error *err)
{
    bw_measured slice;
    bw_status st;
    const int most = s->draft == BW_DRAFT_AUTO ? MOST_AUTO_STEPS : MOST_STEPS;
    if (!s->crew) /* a first prompt touches the scratch memory */
        return bw_prompt_run(s->engine, s->rows < 64 ? s->rows : 64, 1, &slice, err);
    s->slice.n_steps = 2;
    if ((st = bw_crew_run(s->crew, &s->slice, &slice, err)))
        return st;
    const double steps = slice_seconds(g, s) / (step_seconds(&slice) + 1e-9);
    s->slice.n_steps = steps < LEAST_STEPS ? LEAST_STEPS : steps > most ? most : (int)steps;
    return BW_OK;
}

static void progress(const group *g, int done, int all)
{
    const bw_bench_options *o = g->w->options;
    if (o->progress)
        o->progress(o->progress_arg, "measuring", (g->w->groups_done + (double)done / all) / g->w->n_groups);
}

static bw_status take_turns(group *g, bw_error *err)
{
    const int reps = g->w->options->reps;
    bw_status st = BW_OK;
    bw_measured *slices = bw_mem_zalloc((size_t)reps * (size_t)g->n, sizeof *slices, BW_MEM_MISC);
    double *values = bw_mem_alloc((size_t)reps * sizeof *values, BW_MEM_MISC);
    if (!slices || !values)
        st = bw_fail_memory(err, "repetitions", (size_t)reps * (size_t)g->n * sizeof *slices);
    for (int i = 0; !st && i < g->n; i++) {
        g->settings[i].slices = slices + (size_t)i * (size_t)reps;
        st = choose_steps(g, &g->settings[i], err);
    }
    for (int rep = 0; !st && rep < reps; rep++) {
        bw_machine_probe(g->w->machine);
        for (int i = 0; !st && i < g->n; i++) {
            progress(g, rep * g->n + i, reps * g->n);
            st = run_once(g, &g->settings[rep % 2 ? g->n - 1 - i : i], rep, err);
        }
    }
    for (int i = 0; !st && i < g->n; i++)
        st = report(g, &g->settings[i], values, err);
    if (!st && g->test == BW_TEST_DRAFT) {
        compare_auto(g, values);
        note_depths(g);
    }
    bw_mem_free(slices);
    bw_mem_free(values);
    return st;
}

/* ---- making a group -------------------------------------------------------------------------- */

static void end_group(group *g)
{
    for (int i = 0; i < 2; i++)
        bw_engine_destroy(g->engines[i]);
    for (int i = 0; i < g->n_crews; i++)
        bw_mem_free(g->crews[i]);
}

static uint64_t pages_of(const bw_crew *c)
{
    return (uint64_t)c->n_seqs * (uint64_t)((bw_crew_context(c) + BW_MAX_DRAFTS) / BW_PAGE + 2);
}

/* An engine for the crews [n], with room for all of them at a time, or one after the other when they are transient. */
static bw_status open_engine(group *g, bw_engine **out, bw_crew *const *crews, int n, bool no_drafts, bw_error *err)
{
    const bw_bench_options *o = g->w->options;
    bw_engine_options options = bw_engine_defaults();
    bw_memory_plan plan;
    uint64_t pages = 0;
    options.kv = o->kv;
    options.no_drafts = no_drafts;
    options.draft_vocab = o->draft_vocab;
    for (int i = 0; i < n; i++) {
        const int context = bw_crew_context(crews[i]);
        const bool apart = !crews[i]->transient;
        options.context = context > options.context ? context : options.context;
        options.max_seqs = apart ? options.max_seqs + crews[i]->n_seqs
                                 : crews[i]->n_seqs > options.max_seqs ? crews[i]->n_seqs : options.max_seqs;
        pages = apart ? pages + pages_of(crews[i]) : pages_of(crews[i]) > pages ? pages_of(crews[i]) : pages;
    }
    bw_status st = bw_engine_plan(g->w->model, &options, &plan, err);
    if (st)
        return st;
    options.kv_memory = pages * BW_PAGE * plan.kv_bytes_per_token;
    if ((st = bw_engine_create(out, g->w->model, &options, err)))
        return st;
    if (!no_drafts && g->test == BW_TEST_DRAFT) {
        g->w->result->draft_vocab = plan.draft_vocab;
        if (o->n_accept > 0)
            st = bw_simulate_accept(*out, o->accept, o->n_accept, 1, err);
    }
    for (int i = 0; i < n; i++)
        crews[i]->engine = *out;
    return st;
}

/* NULL: out of memory, and err says so. */
static bw_crew *add_crew(group *g, int n_seqs, int depth, int draft, bw_error *err)
{
    bw_crew *c = bw_mem_zalloc(1, sizeof *c, BW_MEM_MISC);
    if (!c) {
        bw_fail_memory(err, "sequences of a test", sizeof *c);
        return NULL;
    }
    *c = (bw_crew){ .n_seqs = n_seqs, .depth = depth, .draft = draft, .room = draft == BW_DRAFT_AUTO ? AUTO_ROOM : ROOM,
                    .simulate_depth = !g->w->options->real_depth, .seed = 1000 };
    assert(g->n_crews < MAX_SETTINGS);
    return g->crews[g->n_crews++] = c;
}

static setting *add_setting(group *g, bw_crew *crew, int n_seqs)
{
    setting *s = &g->settings[g->n++];
    *s = (setting){ .crew = crew, .depth = crew ? crew->depth : 0, .draft = crew ? crew->draft : 0,
                    .slice = { .n_seqs = n_seqs, .n_warm = 1 } };
    return s;
}

/* ---- the tests ------------------------------------------------------------------------------- */

static bw_status run_prefill(group *g, bw_error *err)
{
    const bw_bench_options *o = g->w->options;
    int n;
    const int *prompts = list_of(&o->prompts, &normal_prompts, &quick_prompts, o->quick, &n);
    _Static_assert(AUTO_ROOM >= 2048, "a model in which tests run has room for every prompt of the lists");
    bw_engine_options options = bw_engine_defaults();
    options.kv = o->kv;
    options.no_drafts = true;
    options.context = largest(prompts, n) + 2;
    const bw_status st = bw_engine_create(&g->engines[0], g->w->model, &options, err);
    if (st)
        return st;
    for (int i = 0; i < n; i++) {
        setting *s = add_setting(g, NULL, 1);
        s->engine = g->engines[0];
        s->rows = prompts[i];
    }
    return take_turns(g, err);
}

static bw_status run_decode(group *g, bw_error *err)
{
    const bw_bench_list depths = decode_depths(g->w);
    for (int i = 0; i < depths.n; i++) {
        bw_crew *crew = add_crew(g, 1, depths.items[i], BW_DRAFT_OFF, err);
        if (!crew)
            return BW_E_MEMORY;
        add_setting(g, crew, 1)->rows = 1;
        if (depths.items[i] == 0)
            g->first = i;
    }
    g->ratio_what = "ms at depth 0";
    const bw_status st = open_engine(g, &g->engines[0], g->crews, g->n_crews, true, err);
    return st ? st : take_turns(g, err);
}

/* n rows of as few sequences as can verify them. */
static int seqs_of_rows(int n)
{
    return (n + VERIFY_MOST - 1) / VERIFY_MOST;
}

static bw_status run_verify(group *g, int depth, bw_error *err)
{
    const bw_bench_options *o = g->w->options;
    int n;
    const int *rows = list_of(&o->rows, &normal_rows, &quick_rows, o->quick, &n);
    bw_crew *crew = add_crew(g, seqs_of_rows(largest(rows, n)), depth, BW_DRAFT_OFF, err);
    if (!crew)
        return BW_E_MEMORY;
    for (int i = 0; i < n; i++) {
        const int n_seqs = seqs_of_rows(rows[i]);
        if (rows[i] % n_seqs != 0) {
            bw_workload_note(g->w, "verify of %d rows left out: a sequence verifies at most %d, and %d sequences "
                             "cannot share them alike", rows[i], VERIFY_MOST, n_seqs);
            continue;
        }
        setting *s = add_setting(g, crew, n_seqs);
        s->rows = rows[i];
        s->draft = s->slice.n_forced = rows[i] / n_seqs - 1;
        if (rows[i] == 1)
            g->first = g->n - 1;
    }
    g->ratio_what = "ms of 1 row";
    const bw_status st = open_engine(g, &g->engines[0], g->crews, g->n_crews, false, err);
    return st || g->n == 0 ? st : take_turns(g, err);
}

static bw_status run_seqs(group *g, int depth, bw_error *err)
{
    const bw_bench_options *o = g->w->options;
    int n;
    const int *seqs = list_of(&o->seqs, &normal_seqs, &quick_seqs, o->quick, &n);
    bw_crew *crew = add_crew(g, largest(seqs, n), depth, BW_DRAFT_OFF, err);
    if (!crew)
        return BW_E_MEMORY;
    for (int i = 0; i < n; i++) {
        add_setting(g, crew, seqs[i])->rows = seqs[i];
        if (seqs[i] == 1)
            g->first = i;
    }
    g->by_rate = true;
    g->ratio_what = "tokens/s of 1 sequence";
    const bw_status st = open_engine(g, &g->engines[0], g->crews, g->n_crews, true, err);
    return st ? st : take_turns(g, err);
}

/* Every slice starts at the depth again, auto's so much before it as it learns from: all are measured at the same
 * depth, which is not less than that. Computed depths that fit beside each other are kept instead, a prefill for
 * every slice takes too long. */
static bool starts_again(const bw_bench_options *o, int depth, int n_seqs, int n_settings)
{
    return depth == 0 || !o->real_depth || n_seqs * n_settings > BW_BENCH_MAX_SEQS;
}

/* Once for all groups and numbers of threads. */
static void note_later(bw_workload *w, int warm)
{
    char *note = w->later_noted ? NULL : next_note(w);
    w->later_noted = true;
    if (note)
        snprintf(note, sizeof w->result->notes[0], "draft at depths below %d: measured from position %d on, since auto "
                 "generates %d tokens to learn from first", warm + 1, warm + 1, warm);
}

/* auto has an engine of its own: what it learns of times and acceptance it is to learn itself. The engine keeps that;
 * a sequence that starts again has its own record to make. */
static bw_status run_draft(group *g, int depth, int n_seqs, bw_error *err)
{
    const bw_bench_options *o = g->w->options;
    const bool with_mtp = bw_model_get_info(g->w->model)->has_mtp;
    int n, n_fixed = 0;
    const int *drafts = list_of(&o->drafts, &normal_drafts, &quick_drafts, o->quick, &n);
    const int warm = o->quick ? AUTO_TOKENS_QUICK : AUTO_TOKENS;
    bw_crew *alone = NULL, *fixed[MAX_SETTINGS];
    bool learns = false;
    for (int i = 0; i < n; i++)
        learns |= drafts[i] == BW_DRAFT_AUTO && with_mtp;
    const int from = learns && depth < warm + 1 ? warm + 1 : depth; /* auto begins with a prompt of one token */
    if (from != depth)
        note_later(g->w, warm);
    for (int i = 0; i < n; i++) {
        if (drafts[i] != 0 && !with_mtp)
            continue;
        bw_crew *crew = add_crew(g, n_seqs, drafts[i] == BW_DRAFT_AUTO ? depth : from, drafts[i], err);
        if (!crew)
            return BW_E_MEMORY;
        setting *s = add_setting(g, crew, n_seqs);
        s->depth = from;
        s->rows = drafts[i] == BW_DRAFT_AUTO ? 0 : n_seqs * (1 + drafts[i]);
        s->slice.n_warm = 2; /* the first has no drafts to verify yet */
        s->slice.accept = o->accept;
        s->slice.n_accept = o->n_accept;
        crew->transient = starts_again(o, depth, n_seqs, n);
        if (drafts[i] == 0)
            g->first = g->n - 1;
        if (drafts[i] == BW_DRAFT_AUTO) {
            crew->warm = warm;
            alone = crew;
        } else {
            fixed[n_fixed++] = crew;
        }
    }
    g->by_rate = true;
    g->ratio_what = "tokens/s without drafts";
    bw_status st = BW_OK;
    if (n_fixed > 0)
        st = open_engine(g, &g->engines[0], fixed, n_fixed, !with_mtp, err);
    if (!st && alone)
        st = open_engine(g, &g->engines[1], &alone, 1, false, err);
    return st || g->n == 0 ? st : take_turns(g, err);
}

static void leave_out(bw_workload *w, bw_bench_test test, int depth, int n_seqs, const bw_error *err)
{
    char which[64] = "";
    if (test == BW_TEST_DRAFT)
        snprintf(which, sizeof which, " at depth %d, %d sequence%s,", depth, n_seqs, n_seqs == 1 ? "" : "s");
    else if (test == BW_TEST_VERIFY || test == BW_TEST_SEQS)
        snprintf(which, sizeof which, " at depth %d", depth);
    bw_workload_note(w, "%s%s left out: %s", bw_bench_test_names[test], which, err->message);
    if (!w->left_out.status)
        w->left_out = *err;
}

/* One group of a test: the given depth and number of sequences, where the test has them. */
static bw_status run_group(bw_workload *w, bw_bench_test test, int depth, int n_seqs, bw_error *err)
{
    group g = { .w = w, .test = test, .first = -1 };
    const int n_rows = w->result->n_rows;
    bw_error failure = { 0 };
    bw_status st = BW_OK;
    switch (test) {
    case BW_TEST_PREFILL: st = run_prefill(&g, &failure); break;
    case BW_TEST_DECODE: st = run_decode(&g, &failure); break;
    case BW_TEST_VERIFY: st = run_verify(&g, depth, &failure); break;
    case BW_TEST_SEQS: st = run_seqs(&g, depth, &failure); break;
    case BW_TEST_DRAFT: st = run_draft(&g, depth, n_seqs, &failure); break;
    case BW_TEST_LOAD:
    case BW_TEST_COUNT: break;
    }
    end_group(&g);
    w->groups_done++;
    if (!st)
        return BW_OK;
    w->result->n_rows = n_rows; /* all of the group, or none */
    if (st != BW_E_MEMORY && st != BW_E_LIMIT)
        return bw_fail(err, st, "%s", failure.message);
    leave_out(w, test, depth, n_seqs, &failure);
    return BW_OK;
}

/* Depths and numbers of sequences that do not take turns but come one after the other: each is a group. */
static bw_bench_list depths_apart(const bw_bench_options *o, bw_bench_test test)
{
    const bool apart = test == BW_TEST_VERIFY || test == BW_TEST_SEQS || test == BW_TEST_DRAFT;
    return apart && o->depths.n ? o->depths : zero_depth;
}

static bw_bench_list seqs_apart(const bw_bench_options *o, bw_bench_test test)
{
    return o->seqs.n && test == BW_TEST_DRAFT ? o->seqs : one_seq;
}

int bw_workload_groups(const bw_bench_options *o, bw_bench_test test)
{
    return depths_apart(o, test).n * seqs_apart(o, test).n;
}

bw_status bw_workload_run(bw_workload *w, bw_bench_test test, bw_error *err)
{
    const bw_bench_list depths = depths_apart(w->options, test), seqs = seqs_apart(w->options, test);
    bw_status st = BW_OK;
    if (!bw_model_get_info(w->model)->has_mtp && (test == BW_TEST_VERIFY || test == BW_TEST_DRAFT))
        bw_workload_note(w, "%s: %s left out: %s", bw_bench_test_names[test],
                         test == BW_TEST_VERIFY ? "all" : "drafts", bw_model_get_info(w->model)->mtp_note);
    if (test == BW_TEST_VERIFY && !bw_model_get_info(w->model)->has_mtp)
        return BW_OK;
    for (int i = 0; !st && i < depths.n; i++)
        for (int j = 0; !st && j < seqs.n; j++)
            st = run_group(w, test, depths.items[i], seqs.items[j], err);
    return st;
}

/* ---- checks ---------------------------------------------------------------------------------- */

bw_status bw_workload_check(const bw_workload *w, bw_error *err)
{
    const bw_bench_options *o = w->options;
    const bw_model_info *info = bw_model_get_info(w->model);
    if (info->max_context < AUTO_ROOM + 2)
        return bw_fail(err, BW_E_LIMIT, "%s: a context of %d tokens is too short to measure in, expected at least %d",
                       info->path, info->max_context, AUTO_ROOM + 2);
    for (int i = 0; i < o->prompts.n; i++)
        if (o->prompts.items[i] > info->max_context - 2)
            return bw_fail(err, BW_E_LIMIT, "%s: a prompt of %d tokens, expected at most %d: the model was made for "
                           "a context of %d", info->path, o->prompts.items[i], info->max_context - 2,
                           info->max_context);
    for (int i = 0; i < o->depths.n; i++)
        if (o->depths.items[i] > info->max_context - AUTO_ROOM - 2)
            return bw_fail(err, BW_E_LIMIT, "%s: depth %d, expected at most %d: the model was made for a context of "
                           "%d, and sequences go on from their depth", info->path, o->depths.items[i],
                           info->max_context - AUTO_ROOM - 2, info->max_context);
    return BW_OK;
}
