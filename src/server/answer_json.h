/* answer_json.h - answers of the OpenAI dialect as bytes: events of a stream, or one object.
 *
 * Appends to a buffer whose own flag says when memory ended. JSON is on one line, valid UTF-8, without
 * raw control characters. Events are `data: <JSON>\n\n`, every one whole. Knows no HTTP and no engine.
 * Form: sections 3 to 5 of the contract, docs/server.md. Any thread, one at a time per buffer. */
#ifndef BW_SERVER_ANSWER_JSON_H
#define BW_SERVER_ANSWER_JSON_H

#include "server/answer_text.h"
#include "server/api_request.h"
#include "text/bytes.h"

/* What never changes within an answer; borrowed. */
typedef struct bw_answer_format {
    bw_api_kind kind;
    bw_reasoning_field reasoning;
    const bw_tokenizer *tokenizer;
    bool logprobs;      /* views have tokens to show */
    bool tokens_as_ids; /* "token_id:123" instead of its text */
    bool return_ids;
    const char *id, *model, *fingerprint;
    int64_t created;    /* seconds since 1970 */
} bw_answer_format;

/* Counts and times of an answer; start with zero and add its choices. */
typedef struct bw_answer_figures {
    int64_t prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens;
    int64_t verifies, drafted, accepted, accepted_by_position[BW_MAX_DRAFTS];
    int n_positions;
    double queue_s, prompt_s, predicted_s; /* of choices that ran together: the longest */
    bw_cache_miss miss;                    /* of the first prompt */
    int miss_at;
    uint64_t seed;
} bw_answer_figures;

/* completion, reasoning: tokens that were delivered. first: of its prompt; choices share the prompt,
 * so its counts are taken from the first alone. */
void bw_answer_figures_add(bw_answer_figures *figures, const bw_usage *usage, int completion, int reasoning, bool first);

/* How a choice ended. */
typedef struct bw_answer_finish {
    const char *reason;      /* "stop", "length", "tool_calls" */
    const char *stop_string; /* met, or "loop"; NULL: none */
    int32_t stop_token;      /* of stop_token_ids; -1: none */
} bw_answer_finish;

/* ---- events ---- */

/* The first chunk of a chat's choice. prompt [n_prompt] with return_ids, else NULL. */
void bw_answer_json_role(bw_bytes *out, const bw_answer_format *format, int index, const int32_t *prompt, int n_prompt,
                         const bw_answer_figures *usage);
/* A chunk for each piece of view; the tokens are with the first. usage NULL: no such key. */
void bw_answer_json_chunks(bw_bytes *out, const bw_answer_format *format, int index, const bw_answer_view *view,
                           const bw_answer_figures *usage);
/* The last chunk of a choice, with the tokens of view that are left. Completions: and with its text.
 * usage, timings NULL: no such key. */
void bw_answer_json_finish(bw_bytes *out, const bw_answer_format *format, int index, const bw_answer_view *view,
                           const bw_answer_finish *finish, const bw_answer_figures *usage,
                           const bw_answer_figures *timings);
void bw_answer_json_usage(bw_bytes *out, const bw_answer_format *format, const bw_answer_figures *figures);
void bw_answer_json_error(bw_bytes *out, const char *type, const char *code, const char *message);
void bw_answer_json_done(bw_bytes *out); /* data: [DONE] */

/* ---- one object ---- */

typedef struct bw_answer_choice {
    bw_answer_view view; /* all of it */
    bw_answer_finish finish;
    const int32_t *prompt; /* [n_prompt], with return_ids */
    int n_prompt;
} bw_answer_choice;

void bw_answer_json_whole(bw_bytes *out, const bw_answer_format *format, const bw_answer_choice *choices, int n_choices,
                          const bw_answer_figures *figures);

#endif
