/* bellwether.h - run models of the Qwen3.5, 3.6 and 3.8 family, drafting with their own MTP head.
 *
 * The only installed header. It includes nothing of the project, so every part may include it.
 *
 *     bw_model *model;  bw_engine *engine;  bw_error err;  bw_seq_id id;  bw_event event;
 *     bw_model_open(&model, "models/lamb", NULL, &err);
 *     bw_engine_create(&engine, model, NULL, &err);
 *     bw_request request = bw_request_defaults(model);          // then prompt, n_prompt, ...
 *     bw_engine_submit(engine, &request, &id, &err);
 *     while (!bw_engine_idle(engine)) {
 *         bw_engine_step(engine, &err);
 *         while (bw_engine_event(engine, &event))  ...           // tokens, at last the finish
 *     }
 *     bw_engine_destroy(engine);  bw_model_close(model);           // and check every bw_status
 *
 * Threads: a bw_model may be shared by threads once it is open; a bw_engine, a bw_stream and a
 * bw_reply belong to one thread at a time. Nothing here prints, exits or aborts.
 * Errors: every function that can fail returns a bw_status and, where err is not NULL, fills it
 * with one message that names what, where, found, expected and what to do. Outputs are then NULL
 * or unchanged. */
#ifndef BELLWETHER_H
#define BELLWETHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- status ---------------------------------------------------------------------------------- */

typedef enum bw_status {
    BW_OK = 0,
    BW_E_ARGUMENT,    /* the caller asked for something impossible: mend the request */
    BW_E_IO,          /* the system refused: a file, a thread */
    BW_E_FORMAT,      /* a file or text is malformed or incomplete */
    BW_E_UNSUPPORTED, /* well-formed, but not something this library runs */
    BW_E_MEMORY,      /* not enough memory; the message names the bytes */
    BW_E_LIMIT,       /* larger than a limit that was set: context, rows, sequences */
    BW_E_BUSY,        /* no room now; later there may be */
    BW_E_INTERNAL     /* our own mistake: please report the message */
} bw_status;

typedef struct bw_error {
    bw_status status;
    char message[1024]; /* UTF-8, one line, no newline at its end */
} bw_error;

const char *bw_status_name(bw_status status);
const char *bw_version(void); /* "0.1.0" */

typedef enum bw_log_level { BW_LOG_INFO, BW_LOG_WARNING } bw_log_level;
typedef void (*bw_log_fn)(void *arg, bw_log_level level, const char *line);
/* Where warnings and facts go; NULL (the start value) drops them. Set before other calls. */
void bw_log_to(bw_log_fn fn, void *arg);

/* ---- model ----------------------------------------------------------------------------------- */

typedef struct bw_model bw_model;

typedef enum bw_activations {
    BW_ACTIVATIONS_AUTO, /* int8 for quantised weights, f32 for all others */
    BW_ACTIVATIONS_INT8, /* rounded to int8 in groups of 32 before a quantised matrix */
    BW_ACTIVATIONS_F32   /* quantised weights are widened and multiplied in float */
} bw_activations;

typedef struct bw_model_options {
    int n_threads;          /* 0: one per processor this process may use */
    bool pin;               /* threads but the caller's stay on a processor each; for one engine in the process */
    const char *cpu_level;  /* "ref", "avx2", "avxvnni", "avx512", "neon"; NULL: $BW_CPU, else the best here */
    bw_activations activations;
    bool ignore_mtp;        /* open although the MTP tensors are broken; then no drafts */
    bool no_read_ahead;     /* weights that are not packed are read when they are used */
    bool plan_only;         /* weights are neither read nor packed: bw_engine_plan works, bw_engine_create does not */
    /* Called on the calling thread, done from 0 to 1, while the weights are read and packed. May be NULL. */
    void (*progress)(void *arg, double done);
    void *progress_arg;
} bw_model_options;

/* Opens a Hugging Face folder or a GGUF file (any part of a split one). options NULL: defaults.
 * Maps the weights and reads them once. Quantised matrices are copied without loss into the order that the
 * processor's kernels read ("packed"; all but the embedding, and none at level ref or with f32 activations);
 * the rest is read too, so that the first step does not wait for the disk (where it is more than the
 * memory that the copies leave: not, and the log says so). *out keeps the files mapped.
 * BW_E_MEMORY: the packed weights do not fit the free memory. BW_E_IO also where a file becomes shorter, or its disk
 * fails, while it is read. */
bw_status bw_model_open(bw_model **out, const char *path, const bw_model_options *options, bw_error *err);
void bw_model_close(bw_model *model); /* takes NULL; engines made from it must be gone */

typedef struct bw_model_info {
    const char *path, *architecture;
    int n_layers, hidden, vocab, max_context; /* vocab: columns of the logits */
    bool has_mtp;         /* drafts are possible */
    const char *mtp_note; /* one line: why not, or "" */
    bool has_text;        /* a tokenizer came with it */
    const char *text_note;
    int n_tokens;         /* every token's id is below this; ids that are no tokens are never sampled */
    uint64_t weight_bytes;  /* in the files */
    double load_s;
    double load_wait_s;     /* of load_s: waiting for the disk */
    uint64_t load_bytes;    /* of weights that were read in it; 0: they are read when they are used */
    uint64_t packed_bytes;  /* weights copied into the order of cpu_level's kernels; 0: none */
    double pack_s;          /* of load_s: copying those */
    int n_threads;
    const char *cpu_level, *cpu_name;
    bool int8_activations;    /* in use for at least one matrix */
    const char *multiply_note; /* which types go which way: "q4_k q6_k: integer dots; ..." */
} bw_model_info;

/* Valid until the model closes. */
const bw_model_info *bw_model_get_info(const bw_model *model);

/* ---- text ------------------------------------------------------------------------------------ */

/* All of these: BW_E_UNSUPPORTED when the model came without a tokenizer. Arrays returned through
 * `ids` and `text` are the caller's, freed with bw_free. */
void bw_free(void *block);

/* Text to ids. Malformed UTF-8 is replaced by U+FFFD. special: the added tokens written in the
 * text are matched, as the `tokenizers` library does; otherwise only ordinary tokens come out. */
bw_status bw_encode(const bw_model *model, const char *text, size_t n_bytes, bool special,
                    int32_t **ids, int *n_ids, bw_error *err);

/* Ids to text (bytes as the tokens have them, malformed ones as U+FFFD); NUL-terminated.
 * skip_special: tokens flagged special give nothing. BW_E_ARGUMENT: an id that is no token. */
bw_status bw_decode(const bw_model *model, const int32_t *ids, int n_ids, bool skip_special,
                    char **text, size_t *n_bytes, bw_error *err);

/* A conversation to the prompt of the model's chat format. request_json is an object {"messages":
 * [...], "tools": [...], "add_generation_prompt": true, "enable_thinking": true,
 * "preserve_thinking": false, "add_vision_id": false} (docs/chat-format.md). No special token is
 * matched inside a message body: text cannot end its own turn. */
bw_status bw_chat_encode(const bw_model *model, const char *request_json, int32_t **ids, int *n_ids,
                         bw_error *err);

/* Tokens to text as they come, never splitting a character, and watching for stop strings. */
typedef struct bw_stream bw_stream;

/* stops: n_stops strings, copied. skip_special as in bw_decode. */
bw_status bw_stream_create(bw_stream **out, const bw_model *model, const char *const *stops, int n_stops,
                           bool skip_special, bw_error *err);
/* Text that is now certain: what token adds, less a tail that may still become a character or a
 * stop string. *text is NUL-terminated and valid until the next call. *stopped: a stop string was
 * met; the text ends before it and the stream is over. */
bw_status bw_stream_push(bw_stream *stream, int32_t token, const char **text, size_t *n_bytes,
                         bool *stopped, bw_error *err);
/* The end: what was held back. */
bw_status bw_stream_finish(bw_stream *stream, const char **text, size_t *n_bytes, bw_error *err);
void bw_stream_destroy(bw_stream *stream);

/* Answer text to reasoning and content, in pieces, however the text was cut. */
typedef enum bw_reply_part { BW_REPLY_REASONING, BW_REPLY_CONTENT } bw_reply_part;
typedef struct bw_reply bw_reply;
typedef void (*bw_reply_fn)(void *arg, bw_reply_part part, const char *text, size_t n_bytes);

/* thinking: the prompt ended inside an open think block. */
bw_status bw_reply_create(bw_reply **out, bool thinking, bw_reply_fn fn, void *arg, bw_error *err);
bw_status bw_reply_push(bw_reply *reply, const char *text, size_t n_bytes, bw_error *err);
bw_status bw_reply_finish(bw_reply *reply, bw_error *err);
void bw_reply_destroy(bw_reply *reply);

/* ---- sampling -------------------------------------------------------------------------------- */

/* The token at position p is a function of (seed, p, logits at p) and, with penalties, the tokens
 * before p: drafts, batching and chunking change nothing. Order: biases, repetition, presence and frequency
 * penalties (presence and frequency over generated tokens, repetition over the prompt too),
 * temperature, top-k, top-p, min-p. */
typedef struct bw_sampling {
    float temperature;        /* 0 .. 100; 0: greedy, ties to the lower id */
    int top_k;                /* <= 0: off */
    float top_p;              /* (0, 1]; 1: off */
    float min_p;              /* [0, 1]; 0: off */
    float presence_penalty, frequency_penalty; /* -2 .. 2 */
    float repetition_penalty; /* (0, 100]; 1: off */
    uint64_t seed;
} bw_sampling;

/* The checkpoint's own defaults; thinking false gives those of docs/sampling.md for a chat without
 * thinking. Seed 0. */
bw_sampling bw_sampling_defaults_of(const bw_model *model, bool chat, bool thinking);

/* ---- engine ---------------------------------------------------------------------------------- */

typedef struct bw_engine bw_engine;

typedef enum bw_kv_type { BW_KV_F16, BW_KV_F32 } bw_kv_type;

enum {
    BW_MAX_DRAFTS = 8,
    BW_MAX_LOGPROBS = 20,
    BW_MAX_LOGIT_BIAS = 1024, /* entries of one request */
    BW_MAX_FORCED = 16,       /* tokens of bw_request.think_end */
    BW_DRAFT_AUTO = -1,
    BW_DRAFT_OFF = 0
};

typedef struct bw_engine_options {
    int context;    /* tokens of one sequence, prompt and answer; 0: the model's, at most 32,768 */
    int max_seqs;   /* sequences at a time; 0: 1 */
    int max_rows;   /* rows (tokens) of one step; 0: chunk, or 512; at most context, at least max_seqs * 9 + 64 */
    int chunk;      /* prefill is cut at multiples of this position; 0: only by max_rows */
    bw_kv_type kv;
    bool no_drafts; /* plan without the MTP head's cache; requests may then not draft */

    int max_waiting;       /* requests that may wait beside the max_seqs that run; 0: none */
    uint64_t kv_memory;    /* bytes of the page pool, at least one full context; 0: max_seqs full contexts */
    uint64_t cache_memory; /* bytes of host memory for the prefix cache's checkpoints; 0: no prefix cache */
    double decode_gap_s;   /* ceiling of a step's time while sequences decode; 0: none but the default rule
                              (docs/serving.md): twice a decode step, or that step and one page of prefill */
    int draft_vocab;       /* drafts are chosen from the tokens with ids below this (of a byte-pair vocabulary the most
                              frequent of English and code), and from 512 others: marks of the chat format and stop
                              tokens, at most 64, and the latest of the sequence's own text; 0: 65,536 where the
                              head's matrix is less than a tenth of the bytes of weights that a step of one token
                              reads, else 32,768. At least the vocabulary: from all. Never changes an answer, but
                              how much of it is drafted right and what a draft costs */
    int min_prefill;       /* rows of prefill a step gets whatever the gap; 0: one page, 64 */
} bw_engine_options;

bw_engine_options bw_engine_defaults(void);

typedef struct bw_memory_plan {
    uint64_t weights;  /* copies, and what stays in the mapped files */
    uint64_t packed;   /* of these, copies in the order of the kernels: memory of our own, taken when the model opens */
    uint64_t kv;       /* the page pool, the MTP head's pages included */
    uint64_t state;    /* recurrent slots with their pending rows */
    uint64_t scratch;  /* activations, logits, tables */
    uint64_t cache;    /* the prefix cache in host memory: saved states, and the tables to find them */
    uint64_t total;
    int64_t kv_tokens; /* that the pool holds, for all sequences and the prefix cache */
    uint64_t checkpoint_bytes; /* one saved state */
    uint64_t kv_bytes_per_token, state_bytes_per_sequence;
    int context, max_seqs, max_rows;
    int draft_vocab; /* as resolved */
} bw_memory_plan;

/* What bw_engine_create would take, from sizes alone. BW_E_LIMIT: context above the model's. */
bw_status bw_engine_plan(const bw_model *model, const bw_engine_options *options, bw_memory_plan *plan,
                         bw_error *err);

/* Takes all memory of the plan; after this no step allocates. options NULL: defaults.
 * BW_E_MEMORY names planned and available bytes and what would fit. */
bw_status bw_engine_create(bw_engine **out, bw_model *model, const bw_engine_options *options, bw_error *err);
void bw_engine_destroy(bw_engine *engine); /* takes NULL; ends its sequences */
const bw_memory_plan *bw_engine_get_plan(const bw_engine *engine);

typedef struct bw_request {
    const int32_t *prompt; /* [n_prompt], n_prompt >= 1; copied */
    int n_prompt;
    int max_tokens;        /* generated at most; < 0: as many as the context holds */
    bw_sampling sampling;
    const int32_t *stop_tokens; /* [n_stop_tokens], copied; the stop token itself is delivered */
    int n_stop_tokens;
    int draft;             /* BW_DRAFT_AUTO, BW_DRAFT_OFF, or a fixed number up to BW_MAX_DRAFTS */
    int n_logprobs;        /* per generated token: -1 none, else that many alternatives (0 .. 20) */
    void *user;            /* comes back in every event */

    /* What is added to raw logits before penalties; ids inside the vocabulary, each at most once; copied. */
    const struct bw_logit_bias *logit_bias;
    int n_logit_bias;
    int min_tokens;        /* no stop token is sampled before so many were generated; > 0: at most 16 of them */
    /* Thinking budget: where think_budget >= 0 tokens were generated and think_end_token is not among
     * them, the tokens think_end [n_think_end <= BW_MAX_FORCED], copied, come next instead of sampled ones. */
    int think_budget;      /* < 0: none, the default */
    int32_t think_end_token;
    const int32_t *think_end;
    int n_think_end;
    bool loop_guard;       /* end with BW_FINISH_LOOP when the answer repeats itself (docs/serving.md), not before min_tokens */

    /* Prefix cache. marks [n_marks]: ascending prompt positions (1 .. n_prompt - 1) at which another
     * request may part from this prompt, such as the end of the system text: a checkpoint is kept
     * there. Copied. Requests with different salts share nothing. */
    const int *marks;
    int n_marks;
    uint64_t cache_salt;
    bool no_cache;         /* neither read nor written */
    int priority;          /* lower first among those that wait; 0 */

    /* For evaluation; all NULL or 0 otherwise. Filled before the finish event.
     * prompt_logits [n_prompt, vocab]: raw head outputs of every prompt row.
     * prompt_logprobs [n_prompt]: natural log-probability of prompt[i] given those before, from the
     * softmax over all of vocab; [0] = 0.
     * prompt_top [n_prompt, n_logprobs], n_logprobs > 0: the most probable tokens in the place of prompt[i], as
     * prompt_logprobs has it; row 0 is left alone.
     * draft_logits [n_draft_logits, vocab]: raw MTP outputs of the chain after the prompt and its
     * first generated token, row j = draft j + 1 (n_draft_logits <= BW_MAX_DRAFTS). The chain
     * follows the drafts as they are sampled, greedy at temperature 0; raw outputs are followed as
     * they are, so a request with draft_logits may also choose rows that are no tokens. */
    float *prompt_logits;
    float *prompt_logprobs;
    struct bw_logprob *prompt_top;
    int n_draft_logits;
    float *draft_logits;
    /* For tests: called before a verify, may replace drafts [n] by others; the answer must not
     * change. NULL otherwise. */
    void (*force_drafts)(void *arg, int64_t position, int32_t *drafts, int n);
    void *force_arg;
} bw_request;

typedef struct bw_logit_bias {
    int32_t token;
    float bias;
} bw_logit_bias;

/* No prompt, max_tokens -1, the checkpoint's sampling and stop tokens (borrowed from the model),
 * drafts auto, no logprobs. */
bw_request bw_request_defaults(const bw_model *model);

typedef uint64_t bw_seq_id; /* never 0, never reused */

/* Queues a sequence; it starts with the next step that has room for it.
 * BW_E_ARGUMENT: empty prompt, an id outside the vocabulary, a sampling value out of range, drafts
 * asked of a model without a head. BW_E_LIMIT: prompt and one token do not fit the context.
 * BW_E_BUSY: max_seqs + max_waiting sequences are live. */
bw_status bw_engine_submit(bw_engine *engine, const bw_request *request, bw_seq_id *id, bw_error *err);
/* The checks of bw_engine_submit that depend on the request alone. Any thread, also while another
 * steps the engine. */
bw_status bw_engine_check(const bw_engine *engine, const bw_request *request, bw_error *err);
/* Ends a sequence between steps; no event follows. False: it is not live. */
bool bw_engine_cancel(bw_engine *engine, bw_seq_id id);
/* A paused sequence keeps its place and computes nothing. False: it is not live. */
bool bw_engine_pause(bw_engine *engine, bw_seq_id id, bool paused);

/* Computes one step for as many live sequences as there is room for. With none it returns at once.
 * BW_E_FORMAT: the logits of a sequence were not numbers, so weights are damaged; it has ended with a
 * BW_FINISH_ERROR event, the others go on. */
bw_status bw_engine_step(bw_engine *engine, bw_error *err);
bool bw_engine_idle(const bw_engine *engine); /* no live sequence that is not paused */

/* Why the prefix cache did not supply more of a prompt. */
typedef enum bw_cache_miss {
    BW_MISS_NONE,          /* it supplied all that it could: all but what must be computed again */
    BW_MISS_OFF,           /* there is no cache here, or the request wanted none */
    BW_MISS_DIFFERS,       /* the text differs from everything cached from token miss_at on */
    BW_MISS_NO_CHECKPOINT, /* the text is known up to miss_at, but no checkpoint lies before it there */
    BW_MISS_EVICTED        /* it was there up to miss_at, and memory was needed for others */
} bw_cache_miss;

typedef struct bw_usage {
    int prompt_tokens, generated_tokens;
    int cached_tokens;     /* prompt tokens that the prefix cache supplied */
    bw_cache_miss miss;
    int miss_at;           /* a prompt position */
    int preemptions;       /* times it gave its memory to others and was computed again later */
    double queue_s;        /* submitted -> first step it took part in */
    double prefill_s, decode_s; /* time of the steps this sequence took part in */
    int prefill_steps, decode_steps;
    int draft_n;                /* drafts a verify had: the fixed number, or the most that auto chose */
    int64_t verifies;           /* decode steps with at least one draft */
    int64_t drafted;
    /* [j]: verifies in which drafts 1 to j + 1 were all accepted */
    int64_t accepted_by_position[BW_MAX_DRAFTS];
    bool simulated; /* a benchmark imposed acceptance, or a context that was not computed */
} bw_usage;

typedef struct bw_logprob {
    int32_t token;
    float logprob; /* natural log of the softmax of the raw logits over ids below n_tokens */
} bw_logprob;

typedef enum bw_finish {
    BW_FINISH_NONE,
    BW_FINISH_STOP,
    BW_FINISH_LENGTH,
    BW_FINISH_LOOP, /* the loop guard */
    BW_FINISH_ERROR /* it cannot go on; bw_event.error says why */
} bw_finish;

typedef struct bw_event {
    bw_seq_id id;
    void *user;
    const int32_t *tokens; /* [n_tokens] newly generated; valid until the next step */
    int n_tokens;          /* may be 0 with finish set */
    const float *logprobs; /* [n_tokens], or NULL when not asked for */
    const bw_logprob *top; /* [n_tokens, n_top], most probable first, or NULL */
    int n_top;
    bw_finish finish;      /* not NONE: the last event of this sequence */
    const bw_usage *usage; /* so far; valid until the next step */
    const char *error;     /* with BW_FINISH_ERROR; valid until the next step */
} bw_event;

/* Takes the next event of the last step. False: none left. */
bool bw_engine_event(bw_engine *engine, bw_event *event);

/* What the last step did; all 0 when it had nothing to do. */
typedef struct bw_step_info {
    double seconds;
    int rows;         /* = prefill_rows + decode_rows + draft_rows */
    int prefill_rows; /* prompt rows, and rows computed again after a preemption */
    int decode_rows;  /* sequences that decoded: one known token each */
    int draft_rows;   /* drafts that were verified */
    int n_prefill, n_decode; /* sequences */
    int n_preempted;
    bool simulated; /* of one of its sequences: bw_usage.simulated */
} bw_step_info;

const bw_step_info *bw_engine_get_step(const bw_engine *engine); /* valid until the next step */

/* Gauges now, counters since bw_engine_create. */
typedef struct bw_engine_stats {
    int running, waiting;           /* sequences; paused ones are running */
    int64_t waiting_tokens;         /* prompt tokens of those that wait */
    int pages, pages_running, pages_cached; /* all; held by running sequences; held by the cache alone */
    int page_tokens;                /* 64 */
    int slots, slots_running;
    int cache_nodes, checkpoints;   /* pages of the prefix tree, saved states */
    uint64_t checkpoint_bytes, cache_memory;
    int64_t steps, preemptions, evictions;
    int64_t prompt_tokens, cached_tokens, generated_tokens; /* prompts are counted when they start */
    int64_t verifies, drafted, accepted_by_position[BW_MAX_DRAFTS];
} bw_engine_stats;

void bw_engine_get_stats(const bw_engine *engine, bw_engine_stats *stats);

typedef enum bw_seq_state { BW_SEQ_WAITING, BW_SEQ_PREFILL, BW_SEQ_DECODE, BW_SEQ_PAUSED } bw_seq_state;

typedef struct bw_seq_info {
    bw_seq_id id;
    void *user;
    bw_seq_state state;
    int n_prefilled; /* prompt tokens computed or cached so far */
    int draft_length; /* drafts the next step verifies */
    bw_usage usage;
} bw_seq_info;

/* Live sequences, oldest first, at most `room`; returns their number. */
int bw_engine_list(const bw_engine *engine, bw_seq_info *out, int room);

#ifdef __cplusplus
}
#endif
#endif
