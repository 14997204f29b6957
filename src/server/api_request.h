/* api_request.h - what a body of the OpenAI dialect asks for, checked, rendered and tokenised.
 *
 * Reading knows the model's text side and the server's limits, never the engine: it runs on any
 * thread. A known field of the wrong type or range is an error with its path; null is absent; unknown
 * fields are ignored and reported once per name through bw_log. */
#ifndef BW_SERVER_API_REQUEST_H
#define BW_SERVER_API_REQUEST_H

#include "bellwether.h"

/* The error object of OpenAI, and its status. */
typedef struct bw_api_error {
    int status;        /* 400, 404, 429 ... */
    const char *type;  /* static: "invalid_request_error" */
    const char *code;  /* static, or NULL: "context_length_exceeded" */
    char param[256];   /* "messages[3].content[0].image_url"; "": none */
    int retry_after_s; /* 0: no header */
    char message[1024];
} bw_api_error;

typedef enum bw_late_system { BW_LATE_SYSTEM_JOIN, BW_LATE_SYSTEM_ERROR } bw_late_system;
typedef enum bw_reasoning_field { BW_REASONING_BOTH, BW_REASONING_CONTENT, BW_REASONING_SHORT, BW_REASONING_INLINE } bw_reasoning_field;

/* What reading needs to know of the server; immutable while it serves. */
typedef struct bw_api_context {
    const bw_model *model;
    int context;                 /* tokens of a sequence in this engine */
    const char *const *model_ids; /* [n_model_ids] served id first, then aliases */
    int n_model_ids;
    int max_n;                   /* 16 */
    bool openai_sampling;        /* --sampling-defaults openai: 1, 1, off, 0 */
    bw_late_system late_system;
    int default_stream_interval; /* 1 */
} bw_api_context;

typedef struct bw_api_prompt {
    int32_t *ids;
    int n_ids;
} bw_api_prompt;

typedef enum bw_api_kind { BW_API_CHAT, BW_API_COMPLETION } bw_api_kind;

typedef struct bw_api_request {
    bw_api_kind kind;
    bool stream, include_usage, continuous_usage;
    int stream_interval;    /* tokens per event, at least 1 */
    bw_api_prompt *prompts; /* [n_prompts]; chat: one */
    int n_prompts;
    int n;                  /* choices of each prompt */
    int max_tokens;         /* -1: what the context holds; already clamped to it otherwise */
    bw_sampling sampling;   /* seed is set, drawn at random where the request named none; choice i of a prompt
                               uses seed + i */
    bool ignore_eos;
    int min_tokens;
    char **stops;           /* [n_stops] */
    int n_stops;
    bool include_stop;      /* include_stop_str_in_output */
    int32_t *stop_tokens;   /* [n_stop_tokens] stop_token_ids of the request, beside the model's own */
    int n_stop_tokens;
    bw_logit_bias *bias;
    int n_bias;
    int n_logprobs;         /* -1 none, 0 .. 20 alternatives */
    bool echo;              /* completions */
    bool return_token_ids, tokens_as_ids;
    int draft;              /* our own field "draft": BW_DRAFT_AUTO unless given: 0 .. 8 */
    int loop_guard;         /* 1 on, 0 off: chat's default is on, completions' off; field "loop_guard" */

    uint64_t cache_salt;
    bool no_cache;
    int priority;
    int marks[3];           /* prompt positions worth a checkpoint, for prompts[0] */
    int n_marks;

    /* chat */
    bool thinking;          /* the prompt ends inside an open think block */
    bool include_reasoning;
    int think_budget;       /* -1: none */
    char *tools_json;       /* the request's tools as JSON where calls are to be parsed, else NULL */
    size_t n_tools_json;
    bool one_call;          /* parallel_tool_calls: false */
} bw_api_request;

/* Each fills *out, which the caller releases with bw_api_request_fini, or *err and returns false. */
bool bw_api_read_chat(bw_api_request *out, const bw_api_context *context, const char *body, size_t n_body,
                      bw_api_error *err);
bool bw_api_read_completion(bw_api_request *out, const bw_api_context *context, const char *body, size_t n_body,
                            bw_api_error *err);
void bw_api_request_fini(bw_api_request *request); /* takes a zeroed one */

/* The small text routes: the whole JSON answer (bw_mem), or false and *err.
 * /tokenize, /detokenize, /apply-template of the contract's section 10. */
bool bw_api_tokenize(char **answer, const bw_api_context *context, const char *body, size_t n_body, bw_api_error *err);
bool bw_api_detokenize(char **answer, const bw_api_context *context, const char *body, size_t n_body, bw_api_error *err);
bool bw_api_apply_template(char **answer, const bw_api_context *context, const char *body, size_t n_body,
                           bw_api_error *err);

#endif
