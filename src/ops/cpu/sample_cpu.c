/* sample_cpu.c - from logits to a token, and to log-probabilities.
 *
 * The token at position p is a function of (sampler, p, the row of logits, the tokens before p): a
 * forced one, or the largest of logit / temperature + Gumbel noise among the candidates that the
 * filters leave. The noise of id i is
 *     key = mix(mix(seed + G) + G (p + 1)),  x = mix(key + G (i + 1)),  G = 0x9E3779B97F4A7C15
 *     u = (floor(x / 2^12) + 1/2) / 2^52,    noise = -ln(-ln u)
 * with mix the finaliser of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
 * Generators, 2014) and everything after x in f64. Filters only take ids away, so drafts and
 * verification of a position see the same noise whatever their logits are.
 *
 * A row is one unit of work; its thread's scratch holds the adjusted row and the candidates.
 * Nothing is sorted but what is reported: candidates are selected. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops/cpu/cpu.h"

enum {
    HEAP_MAX = 1024, /* up to this many the k largest are kept in a heap, in one pass over the row */
    NOISE_BLOCK = 64 /* ids whose largest logit decides whether their noise is worth computing */
};

typedef struct candidate {
    float x;
    int32_t id;
} candidate;

typedef struct row_scratch {
    float *x;         /* [vocab] the adjusted row */
    uint32_t *counts; /* [vocab] shares memory with: */
    candidate *list;  /* [vocab] */
    /* Which token a place of the row is: itself below n_first, then those of the list, ascending. */
    int n_first, n_listed;
    const int32_t *listed; /* [n_listed] */
} row_scratch;

static int32_t token_at(const row_scratch *scratch, int32_t place)
{
    return place < scratch->n_first ? place : scratch->listed[place - scratch->n_first];
}

/* Its place in the row, or -1. */
static int32_t place_of(const row_scratch *scratch, int32_t token)
{
    if (token < scratch->n_first)
        return token; /* negative: none */
    int low = 0, high = scratch->n_listed;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (scratch->listed[middle] < token)
            low = middle + 1;
        else
            high = middle;
    }
    return low < scratch->n_listed && scratch->listed[low] == token ? scratch->n_first + low : -1;
}

static size_t round_up(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

bw_cpu_needs bw_cpu_sample_needs(const bw_cpu_kernels *k, const bw_op_limits *limits)
{
    (void)k;
    const size_t vocab = (size_t)limits->vocab;
    return (bw_cpu_needs){ .per_thread = round_up(vocab * sizeof(float)) + vocab * sizeof(candidate) };
}

static row_scratch scratch_of(const bw_cpu *cpu, int thread, int vocab)
{
    unsigned char *base = bw_cpu_thread_scratch(cpu, thread), *list = base + round_up((size_t)vocab * sizeof(float));
    assert(round_up((size_t)vocab * sizeof(float)) + (size_t)vocab * sizeof(candidate) <= cpu->per_thread_bytes);
    return (row_scratch){ .x = (float *)base, .counts = (uint32_t *)list, .list = (candidate *)list,
                          .n_first = vocab };
}

/* ---- adjusting the row ----------------------------------------------------------------------- */

/* Rows that need no change are read where they lie: the row is copied by the first that writes. */
static float *writable(const float *x, int n, row_scratch scratch)
{
    if (x != scratch.x)
        memcpy(scratch.x, x, (size_t)n * sizeof *x);
    return scratch.x;
}

static const float *biased(const bw_sequences *seqs, int32_t slot, const float *x, int n, row_scratch scratch)
{
    const int n_biases = seqs->samplers[slot].n_biases;
    if (n_biases == 0)
        return x;
    assert(seqs->biases && n_biases <= BW_MAX_LOGIT_BIAS);
    const bw_logit_bias *biases = seqs->biases + (size_t)slot * BW_MAX_LOGIT_BIAS;
    float *out = writable(x, n, scratch);
    for (int i = 0; i < n_biases; i++) {
        const int32_t place = place_of(&scratch, biases[i].token);
        if (place >= 0 && place < n)
            out[place] += biases[i].bias;
    }
    return out;
}

/* Each token of the timeline counts once in bit 0, and 2 for every time it was generated; three walks
 * instead of clearing [vocab]. */
static const float *penalised(const bw_sampler *s, const float *x, int n, const int32_t *tokens, int n_tokens,
                              row_scratch scratch)
{
    if ((s->repetition_penalty == 1 && s->presence_penalty == 0 && s->frequency_penalty == 0) || n_tokens == 0)
        return x;
    float *out = writable(x, n, scratch);
    for (int i = 0; i < n_tokens; i++) {
        const int32_t place = place_of(&scratch, tokens[i]);
        if (place >= 0 && place < n)
            scratch.counts[place] = 0;
    }
    for (int i = 0; i < n_tokens; i++) {
        const int32_t place = place_of(&scratch, tokens[i]);
        if (place >= 0 && place < n)
            scratch.counts[place] = (scratch.counts[place] | 1) + (i >= s->n_prompt ? 2 : 0);
    }
    for (int i = 0; i < n_tokens; i++) {
        const int32_t place = place_of(&scratch, tokens[i]);
        if (place < 0 || place >= n || scratch.counts[place] == 0)
            continue;
        float *v = &out[place];
        const uint32_t generated = scratch.counts[place] >> 1;
        *v = *v > 0 ? *v / s->repetition_penalty : *v * s->repetition_penalty;
        if (generated > 0)
            *v -= s->presence_penalty + s->frequency_penalty * (float)generated;
        scratch.counts[place] = 0;
    }
    return out;
}

static const float *without(const int32_t *ids, int n_ids, const float *x, int n, row_scratch scratch)
{
    if (n_ids == 0)
        return x;
    float *out = writable(x, n, scratch);
    for (int i = 0; i < n_ids; i++) {
        const int32_t place = place_of(&scratch, ids[i]);
        if (place >= 0 && place < n)
            out[place] = -INFINITY;
    }
    return out;
}

/* x * 0 is 0 for every finite number and NaN for all else. */
static bool all_finite(const float *x, int n)
{
    float sums[4] = { 0 };
    int i = 0;
    for (; i + 4 <= n; i += 4)
        for (int j = 0; j < 4; j++)
            sums[j] += x[i + j] * 0;
    for (; i < n; i++)
        sums[0] += x[i] * 0;
    return sums[0] + sums[1] + sums[2] + sums[3] == 0;
}

/* ---- candidates ------------------------------------------------------------------------------ */

/* The order of candidates: larger first, ties to the lower id. */
static bool before(candidate a, candidate b)
{
    return a.x > b.x || (a.x == b.x && a.id < b.id);
}

static void swap(candidate *a, candidate *b)
{
    candidate t = *a;
    *a = *b;
    *b = t;
}

/* heap[0] comes last in the order. */
static void sift_down(candidate *heap, int n, int at)
{
    for (int child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && before(heap[child], heap[child + 1]))
            child++;
        if (!before(heap[at], heap[child]))
            return;
        swap(&heap[at], &heap[child]);
    }
}

/* The k first of the row, in no order; fewer when the row has fewer numbers. */
static int heap_select(candidate *heap, int k, const float *x, int n)
{
    int n_heap = 0, i = 0;
    for (; i < n && n_heap < k; i++)
        if (!isnan(x[i]))
            heap[n_heap++] = (candidate){ x[i], i };
    for (int at = n_heap / 2 - 1; at >= 0; at--)
        sift_down(heap, n_heap, at);
    for (; i < n; i++) /* an equal one has the higher id: it stays out */
        if (x[i] > heap[0].x) {
            heap[0] = (candidate){ x[i], i };
            sift_down(heap, n_heap, 0);
        }
    return n_heap;
}

/* Puts some candidates, all before the others, first; the last of them at the returned count - 1. */
static int split(candidate *c, int n)
{
    swap(&c[n - 1], &c[(uint32_t)n * 2654435761u % (uint32_t)n]);
    int m = 0;
    for (int i = 0; i < n - 1; i++)
        if (before(c[i], c[n - 1]))
            swap(&c[m++], &c[i]);
    swap(&c[m], &c[n - 1]);
    return m + 1;
}

static void keep_k(candidate *c, int n, int k)
{
    for (int low = 0, high = n; high - low > 1 && k > low;) {
        int m = split(c + low, high - low);
        if (low + m > k)
            high = low + m - 1;
        else
            low += m;
    }
}

static double weight(candidate c, float max, float temperature)
{
    return exp(((double)c.x - max) / temperature);
}

static double total_weight(const candidate *c, int n, float max, float temperature)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += weight(c[i], max, temperature);
    return sum;
}

/* The smallest count of first candidates that together weigh at least `target`; puts them first.
 * Quickselect by weight: a part is only looked into when the target falls in it. */
static int keep_weight(candidate *c, int n, float max, float temperature, double target)
{
    double passed = 0;
    for (int low = 0, high = n; low < high;) {
        const int m = split(c + low, high - low);
        const double part = total_weight(c + low, m - 1, max, temperature);
        const double last = weight(c[low + m - 1], max, temperature);
        if (m > 1 && passed + part >= target) {
            high = low + m - 1;
        } else if (passed + part + last >= target) {
            return low + m;
        } else {
            passed += part + last;
            low += m;
        }
    }
    return n;
}

static int collect_from(candidate *c, const float *x, int n, float least)
{
    int kept = 0;
    for (int i = 0; i < n; i++)
        if (x[i] >= least)
            c[kept++] = (candidate){ x[i], i };
    return kept;
}

static int filter_top_k(const bw_sampler *s, candidate *c, const float *x, int n)
{
    if (s->top_k <= HEAP_MAX)
        return heap_select(c, s->top_k, x, n);
    int all = collect_from(c, x, n, -INFINITY);
    if (all <= s->top_k)
        return all;
    keep_k(c, all, s->top_k);
    return s->top_k;
}

/* Top-p of the whole row: collects what lies within a distance of the largest, and goes farther
 * only when that does not weigh enough. */
static int filter_top_p_of_row(const bw_cpu *cpu, const bw_sampler *s, candidate *c, const float *x, int n, float max)
{
    const double target = s->top_p * cpu->k.sum_exp(x, n, max, s->temperature);
    for (float reach = 4; reach < 1000; reach *= 2) {
        int kept = collect_from(c, x, n, max - reach * s->temperature);
        if (total_weight(c, kept, max, s->temperature) >= target)
            return keep_weight(c, kept, max, s->temperature, target);
    }
    return keep_weight(c, collect_from(c, x, n, -INFINITY), max, s->temperature, target);
}

static int filter(const bw_cpu *cpu, const bw_sampler *s, candidate *c, const float *x, int n, float max)
{
    if (s->top_k <= 0 || s->top_k >= n)
        return filter_top_p_of_row(cpu, s, c, x, n, max);
    int kept = filter_top_k(s, c, x, n);
    if (s->top_p >= 1)
        return kept;
    double target = s->top_p * total_weight(c, kept, max, s->temperature);
    return keep_weight(c, kept, max, s->temperature, target);
}

/* ---- noise ----------------------------------------------------------------------------------- */

#define GOLDEN 0x9E3779B97F4A7C15u

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static uint64_t noise_key(uint64_t seed, int32_t position)
{
    return mix(mix(seed + GOLDEN) + GOLDEN * ((uint64_t)position + 1));
}

/* 52 bits; u = (bits + 1/2) 2^-52 is never 0 or 1. */
static uint64_t noise_bits(uint64_t key, int32_t id)
{
    return mix(key + GOLDEN * ((uint64_t)id + 1)) >> 12;
}

static double noise_of(uint64_t bits)
{
    return -log(-log(((double)bits + 0.5) * 0x1p-52));
}

typedef struct choice {
    double score;
    int32_t id;
} choice;

static void offer(choice *best, double scaled, uint64_t bits, int32_t id)
{
    double score = scaled + noise_of(bits);
    if (score > best->score || (score == best->score && id < best->id))
        *best = (choice){ score, id };
}

static int32_t choose_among(const candidate *c, int n, float temperature, double least, uint64_t key,
                            const row_scratch *scratch)
{
    choice best = { -INFINITY, INT32_MAX };
    for (int i = 0; i < n; i++) {
        double scaled = (double)c[i].x / temperature;
        if (scaled >= least)
            offer(&best, scaled, noise_bits(key, token_at(scratch, c[i].id)), c[i].id);
    }
    return best.id;
}

/* The same over the whole row. An id beats the best so far only if -ln u < e^(scaled - best), and
 * -ln u > 1 - u: from the largest logit of a block follows a bound on u below which no id of it can
 * win, so most ids cost one hash and one comparison. */
static int32_t choose_of_row(const bw_cpu *cpu, const float *x, int n, int32_t top, float temperature, double least,
                             uint64_t key, const row_scratch *scratch)
{
    choice best = { -INFINITY, INT32_MAX };
    offer(&best, (double)x[top] / temperature, noise_bits(key, token_at(scratch, top)), top);
    for (int first = 0; first < n; first += NOISE_BLOCK) {
        const int size = n - first < NOISE_BLOCK ? n - first : NOISE_BLOCK;
        const int largest = cpu->k.argmax(x + first, size);
        if (largest < 0 || (double)x[first + largest] / temperature < least)
            continue;
        const double room = exp((double)x[first + largest] / temperature - best.score) * (1 + 1e-6) + 0x1p-48;
        const uint64_t cut = room < 1 ? (uint64_t)((1 - room) * 0x1p52) : 0;
        for (int32_t id = first; id < first + size; id++) {
            const uint64_t bits = noise_bits(key, token_at(scratch, id));
            if (bits >= cut && (double)x[id] / temperature >= least)
                offer(&best, (double)x[id] / temperature, bits, id);
        }
    }
    return best.id;
}

/* The place of the choice. */
static int32_t choose(const bw_cpu *cpu, const bw_sampler *s, const float *x, int n, int32_t position,
                      row_scratch scratch)
{
    const int top = cpu->k.argmax(x, n);
    if (top < 0)
        return 0; /* not a number anywhere */
    if (!(s->temperature > 0) || !isfinite(x[top]))
        return top;
    const uint64_t key = noise_key(s->seed, position);
    const double least = s->min_p > 0 ? (double)x[top] / s->temperature + log(s->min_p) : -INFINITY;
    if ((s->top_k <= 0 || s->top_k >= n) && s->top_p >= 1)
        return choose_of_row(cpu, x, n, top, s->temperature, least, key, &scratch);
    const int kept = filter(cpu, s, scratch.list, x, n, x[top]);
    return choose_among(scratch.list, kept, s->temperature, least, key, &scratch);
}

/* The token that position must have, or -1: it is sampled. */
static int32_t forced(const bw_sampler *s, const int32_t *tokens, int32_t position)
{
    if (position < s->force_pos || position - s->force_pos >= s->n_force)
        return -1;
    for (int32_t i = s->n_prompt; i < s->force_pos; i++)
        if (tokens[i] == s->force_unless)
            return -1;
    return s->force[position - s->force_pos];
}

/* ---- log-probabilities ----------------------------------------------------------------------- */

typedef struct log_softmax {
    float max;
    double log_sum; /* of e^(x - max) */
} log_softmax;

static log_softmax log_softmax_of(const bw_cpu *cpu, const float *x, int n)
{
    const int top = cpu->k.argmax(x, n);
    const float max = top < 0 ? -INFINITY : x[top];
    return (log_softmax){ max, isfinite(max) ? log(cpu->k.sum_exp(x, n, max, 1)) : 0 };
}

static float logprob_of(log_softmax s, float x)
{
    if (!isfinite(s.max)) /* nothing to normalise: the infinite ones share what there is */
        return x == s.max && x > 0 ? 0 : -INFINITY;
    return isnan(x) ? -INFINITY : (float)((double)x - s.max - s.log_sum);
}

static int compare(const void *a, const void *b)
{
    return before(*(const candidate *)a, *(const candidate *)b) ? -1 : 1;
}

static void report_top(bw_logprob *out, int n_out, const float *x, int n, log_softmax softmax, candidate *list)
{
    const int kept = n_out > 0 ? heap_select(list, n_out, x, n) : 0;
    qsort(list, (size_t)kept, sizeof *list, compare);
    for (int i = 0; i < n_out; i++)
        out[i] = i < kept ? (bw_logprob){ list[i].id, logprob_of(softmax, list[i].x) } : (bw_logprob){ -1, -INFINITY };
}

/* ---- operations ------------------------------------------------------------------------------ */

typedef struct sample_work {
    const bw_cpu *cpu;
    const bw_sample_args *args;
} sample_work;

static int32_t sampled(const sample_work *work, bw_row row, const float *x, int n, row_scratch scratch)
{
    const bw_sample_args *args = work->args;
    const bw_sequences *seqs = args->seqs;
    const bw_sampler *s = &seqs->samplers[row.slot];
    const int32_t position = row.pos + args->ahead, *tokens = seqs->tokens + (size_t)row.slot * (size_t)seqs->context;
    assert(position <= seqs->context);
    const int32_t token = forced(s, tokens, position);
    if (token >= 0)
        return token;
    x = biased(seqs, row.slot, x, n, scratch);
    x = penalised(s, x, n, tokens, position, scratch);
    x = without(s->banned, position < s->min_pos ? s->n_banned : 0, x, n, scratch);
    x = without(args->holes, s->any_row ? 0 : args->n_holes, x, n, scratch);
    return token_at(&scratch, choose(work->cpu, s, x, n, position, scratch));
}

static void sample_row(void *arg, int i, int thread)
{
    const sample_work *work = arg;
    const bw_sample_args *args = work->args;
    const bw_row row = args->rows[i];
    const bw_sampler *sampler = &args->seqs->samplers[row.slot];
    const bw_draft_vocab *only = args->only;
    const int width = only ? only->n_first + only->room : args->vocab;
    const int n = only ? only->n_first + only->n_ids[row.slot] : sampler->any_row ? args->vocab : args->n_tokens;
    const float *x = args->logits + (size_t)i * (size_t)width;
    row_scratch scratch = scratch_of(work->cpu, thread, width);
    if (only) {
        scratch.n_first = only->n_first;
        scratch.n_listed = only->n_ids[row.slot];
        scratch.listed = only->ids + (size_t)row.slot * (size_t)only->room;
    }

    if (args->damaged)
        args->damaged[i] = !all_finite(x, args->vocab);
    args->tokens[i] = sampled(work, row, x, n, scratch);
    if (sampler->n_logprobs < 0 || (!args->logprobs && !args->top))
        return;
    log_softmax softmax = log_softmax_of(work->cpu, x, n);
    if (args->logprobs)
        args->logprobs[i] = logprob_of(softmax, x[args->tokens[i]]);
    if (args->top) {
        int n_top = sampler->n_logprobs < args->max_top ? sampler->n_logprobs : args->max_top;
        report_top(args->top + (size_t)i * (size_t)args->max_top, n_top, x, n, softmax, scratch.list);
    }
}

void bw_cpu_sample(bw_backend *be, const bw_sample_args *args)
{
    bw_cpu *cpu = bw_cpu_of(be);
    assert(args->n_tokens >= 1 && args->n_tokens <= args->vocab);
    assert(!args->only || (!args->damaged && !args->logprobs && !args->top &&
                           args->only->n_first + args->only->room <= args->vocab));
    sample_work work = { .cpu = cpu, .args = args };
    bw_cpu_for(cpu, args->n_rows, (double)args->n_rows * args->n_tokens, sample_row, &work);
}

typedef struct score_work {
    const bw_cpu *cpu;
    const bw_score_args *args;
} score_work;

static void score_row(void *arg, int i, int thread)
{
    const score_work *work = arg;
    const bw_score_args *args = work->args;
    const bw_row row = args->rows[i];
    const float *x = args->logits + (size_t)i * (size_t)args->vocab;
    assert(row.pos + 1 < args->seqs->context);
    const int32_t token = args->seqs->tokens[(size_t)row.slot * (size_t)args->seqs->context + row.pos + 1];
    const bool is_token = token >= 0 && token < args->vocab;
    const log_softmax softmax = log_softmax_of(work->cpu, x, args->vocab);
    args->out[i] = is_token ? logprob_of(softmax, x[token]) : -INFINITY;
    const int asked = args->seqs->samplers[row.slot].n_logprobs, n_top = asked < args->max_top ? asked : args->max_top;
    if (args->top && n_top > 0)
        report_top(args->top + (size_t)i * (size_t)args->max_top, n_top, x, args->n_tokens, softmax,
                   scratch_of(work->cpu, thread, args->vocab).list);
}

void bw_cpu_score(bw_backend *be, const bw_score_args *args)
{
    bw_cpu *cpu = bw_cpu_of(be);
    assert(args->n_tokens >= 1 && args->n_tokens <= args->vocab);
    score_work work = { cpu, args };
    bw_cpu_for(cpu, args->n_rows, 8.0 * args->n_rows * args->vocab, score_row, &work); /* an exponential each */
}
