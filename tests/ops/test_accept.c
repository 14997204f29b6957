/* Acceptance and the chain of drafts: what a step leaves in the timeline and the tables. */
#include "lib/cpu_fixture.h"

enum { SLOTS = 4, CONTEXT = 64 };

typedef struct machine {
    bw_cpu *cpu;
    bw_sequences seqs;
} machine;

static machine start(void)
{
    bw_op_limits limits = { .max_rows = 64, .max_spans = SLOTS, .vocab = 1 };
    machine m = { .cpu = fixture_create("ref", 1, &limits) };
    m.seqs = (bw_sequences){ .n_slots = SLOTS, .context = CONTEXT, .tokens = fixture_ints(SLOTS * CONTEXT), .accepted = fixture_ints(SLOTS) };
    for (int i = 0; i < SLOTS * CONTEXT; i++)
        m.seqs.tokens[i] = 1000 + i;
    return m;
}

/* Random spans: prompt chunks that want nothing, ends of prompts, verify runs with every number of
 * right drafts; some with the logits of rows that are final anyway. */
TEST(the_longest_matching_prefix_is_accepted)
{
    for (int round = 0; round < 500; round++) {
        machine m = start();
        bw_span spans[SLOTS];
        int32_t sampled[SLOTS * 16], n_accepted[SLOTS], draft_spans[SLOTS], draft_index[SLOTS], before[SLOTS * CONTEXT];
        int want[SLOTS], n_rows = 0, n_logits = 0, n_draft_spans = 0;
        bw_row draft_rows[SLOTS];
        const int n = rnd_int(1, SLOTS), first_slot = rnd_int(0, SLOTS - 1);
        for (int i = 0; i < n; i++) {
            bw_span *s = &spans[i];
            const int n_drafts = rnd_int(0, 8), n_final = rnd_int(1, 5);
            *s = (bw_span){ .slot = (first_slot + i) % SLOTS, .first_row = n_rows, .n_rows = n_final + n_drafts, .n_final = n_final,
                            .first_pos = rnd_int(0, CONTEXT - 15), .first_logit = n_logits, .sample = rnd_int(0, 3) > 0 };
            s->n_logits = s->sample ? n_drafts + 1 + (rnd_int(0, 1) ? 0 : rnd_int(0, n_final - 1)) : 0;
            const int extra = s->sample ? s->n_logits - n_drafts - 1 : 0;
            const int32_t *next = m.seqs.tokens + s->slot * CONTEXT + s->first_pos + n_final; /* after the last final row */
            want[i] = s->sample ? rnd_int(0, n_drafts) : 0;
            for (int j = 0; j < s->n_logits; j++) {
                const int draft = j - extra;
                sampled[n_logits + j] = draft < 0 ? 5 : draft == want[i] ? 7 : rnd_int(0, 2) && draft > want[i] ? 9 : next[draft];
                if (draft == n_drafts && rnd_int(0, 1)) /* what stands behind the drafts is old, not a draft */
                    sampled[n_logits + j] = next[draft];
            }
            m.seqs.accepted[s->slot] = 99;
            n_rows += s->n_rows;
            n_logits += s->n_logits;
            if (s->sample)
                draft_spans[n_draft_spans++] = i;
        }
        memcpy(before, m.seqs.tokens, sizeof before);
        bw_accept_args args = { .seqs = &m.seqs, .spans = spans, .n_spans = n, .sampled = sampled, .n_accepted = n_accepted,
                                .draft_spans = draft_spans, .n_draft_spans = n_draft_spans, .draft_index = draft_index,
                                .draft_rows = draft_rows };
        bw_cpu_accept(&m.cpu->base, &args);
        for (int i = 0; i < n; i++) {
            const bw_span *s = &spans[i];
            check_int(n_accepted[i], want[i]);
            check_int(m.seqs.accepted[s->slot], want[i]);
            if (s->sample)
                before[s->slot * CONTEXT + s->first_pos + s->n_final + want[i]] = sampled[s->first_logit + s->n_logits - 1 - (s->n_rows - s->n_final) + want[i]];
        }
        for (int i = 0; i < SLOTS * CONTEXT; i++) /* one token of each sampled span, nothing else */
            check_int(m.seqs.tokens[i], before[i]);
        for (int i = 0; i < n_draft_spans; i++) {
            const bw_span *s = &spans[draft_spans[i]];
            const int row = s->n_final - 1 + want[draft_spans[i]];
            check_int(draft_index[i], s->first_row + row);
            check_int(draft_rows[i].slot, s->slot);
            check_int(draft_rows[i].pos, s->first_pos + row);
        }
        check_guards();
        fixture_destroy(m.cpu);
        fixture_release();
    }
}

/* A measurement says how many drafts count: whatever was sampled, so many are accepted, the timeline keeps them and
 * what was sampled says them. Spans with a negative number, and spans that want nothing, are as always. */
TEST(imposed_drafts_count_as_sampled)
{
    for (int round = 0; round < 500; round++) {
        machine m = start();
        bw_span spans[SLOTS];
        int32_t sampled[SLOTS * 16], drawn[SLOTS * 16], n_accepted[SLOTS], imposed[SLOTS], draft_spans[SLOTS], draft_index[SLOTS];
        int32_t before[SLOTS * CONTEXT];
        int n_rows = 0, n_logits = 0, n_draft_spans = 0, nth = 0;
        bw_row draft_rows[SLOTS];
        const int n = rnd_int(1, SLOTS), first_slot = rnd_int(0, SLOTS - 1);
        for (int i = 0; i < n; i++) {
            const int n_drafts = rnd_int(0, 8), n_final = rnd_int(1, 3);
            spans[i] = (bw_span){ .slot = (first_slot + i) % SLOTS, .first_row = n_rows, .n_rows = n_final + n_drafts, .n_final = n_final,
                                  .first_pos = rnd_int(0, CONTEXT - 15), .first_logit = n_logits, .sample = rnd_int(0, 4) > 0 };
            spans[i].n_logits = spans[i].sample ? n_drafts + 1 + rnd_int(0, n_final - 1) : 0;
            imposed[i] = rnd_int(-1, 9);
            if (spans[i].sample)
                draft_spans[n_draft_spans++] = i;
            n_rows += spans[i].n_rows;
            n_logits += spans[i].n_logits;
        }
        for (int i = 0; i < n_logits; i++)
            sampled[i] = rnd_int(1, 900); /* no token of the timeline: compared, nothing is accepted */
        memcpy(drawn, sampled, sizeof drawn);
        memcpy(before, m.seqs.tokens, sizeof before);
        bw_accept_args args = { .seqs = &m.seqs, .spans = spans, .n_spans = n, .sampled = sampled, .imposed = imposed,
                                .n_accepted = n_accepted, .draft_spans = draft_spans, .n_draft_spans = n_draft_spans, .draft_index = draft_index,
                                .draft_rows = draft_rows };
        bw_cpu_accept(&m.cpu->base, &args);
        for (int i = 0; i < n; i++) {
            const bw_span *s = &spans[i];
            const int n_drafts = s->n_rows - s->n_final;
            const int want = !s->sample || imposed[i] < 0 ? 0 : imposed[i] < n_drafts ? imposed[i] : n_drafts;
            check_int(n_accepted[i], want);
            check_int(m.seqs.accepted[s->slot], want);
            if (!s->sample)
                continue;
            check_int(draft_index[nth], s->first_row + s->n_final - 1 + want);
            check_int(draft_rows[nth++].pos, s->first_pos + s->n_final - 1 + want);
            int32_t *at = before + s->slot * CONTEXT + s->first_pos + s->n_final; /* after the last final row */
            const int first = s->first_logit + s->n_logits - 1 - n_drafts;
            for (int j = 0; j < want; j++)
                drawn[first + j] = at[j];
            at[want] = drawn[first + want];
        }
        check(memcmp(m.seqs.tokens, before, sizeof before) == 0);
        check(memcmp(sampled, drawn, (size_t)n_logits * sizeof *sampled) == 0);
        check_guards();
        fixture_destroy(m.cpu);
        fixture_release();
    }
}

TEST(drafts_are_chained_behind_the_token_they_follow)
{
    machine m = start();
    bw_row rows[] = { { 2, 10 }, { 0, 0 } };
    bw_cpu_push_drafts(&m.cpu->base, &m.seqs, rows, (int32_t[]){ 5, 6 }, 2);
    bw_cpu_push_drafts(&m.cpu->base, &m.seqs, rows, (int32_t[]){ 7, 8 }, 2);
    check_int(m.seqs.tokens[2 * CONTEXT + 11], 1000 + 2 * CONTEXT + 11);
    check_int(m.seqs.tokens[2 * CONTEXT + 12], 5);
    check_int(m.seqs.tokens[2 * CONTEXT + 13], 7);
    check_int(m.seqs.tokens[2], 6);
    check_int(m.seqs.tokens[3], 8);
    check_int(rows[0].pos, 12);
    check_int(rows[1].pos, 2);
    check_guards();
    fixture_destroy(m.cpu);
    fixture_release();
}

TESTS_MAIN(ENTRY(the_longest_matching_prefix_is_accepted), ENTRY(imposed_drafts_count_as_sampled),
           ENTRY(drafts_are_chained_behind_the_token_they_follow))
