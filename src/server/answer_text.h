/* answer_text.h - the tokens of one choice to what a client is told: reasoning, content, tool calls.
 *
 * Tokens become text (no character is ever split), chat text is cut into reasoning and content,
 * content into text and calls, text is watched for stop strings. What comes out are pieces, in order,
 * each of one kind, beside the tokens they came from. Bytes that are not decided yet join the pieces
 * of a later token. Knows no HTTP, no JSON but that of arguments, no engine.
 *
 * Stop strings count in visible text only, not in reasoning and not in the syntax of calls.
 * Cost per token is that of its own bytes, however long the answer is. Threads: one at a time. */
#ifndef BW_SERVER_ANSWER_TEXT_H
#define BW_SERVER_ANSWER_TEXT_H

#include "bellwether.h"
#include "text/tokenizer.h"

typedef struct bw_answer_text bw_answer_text;

/* Tokenizer and stops are borrowed until the answer is destroyed. */
typedef struct bw_answer_options {
    const bw_tokenizer *tokenizer;
    bool chat;              /* look for reasoning; else all text is content */
    bool thinking;          /* the prompt ended inside an open think block */
    bool drop_reasoning;    /* it is counted and not given */
    bool inline_reasoning;  /* it is given as content, between <think> and </think> */
    const char *tools;      /* [n_tools] JSON of the request's tools; NULL: calls are not looked for */
    size_t n_tools;
    bool one_call;          /* the answer is over with its first call */
    const char *const *stops; /* [n_stops] */
    int n_stops;
    bool include_stop;      /* what stopped the answer is part of its text */
    bool keep_tokens;       /* views have tokens; without, pieces alone */
    int n_top;              /* alternatives of every token, 0 .. BW_MAX_LOGPROBS */
} bw_answer_options;

/* BW_E_ARGUMENT, BW_E_FORMAT: as stop_strings.h and toolcall.h say. */
bw_status bw_answer_text_create(bw_answer_text **out, const bw_answer_options *options, bw_error *err);
void bw_answer_text_destroy(bw_answer_text *answer); /* takes NULL */

/* A prompt that is to stand before the answer, with the log-probability of each of its tokens given
 * those before ([0] is not looked at), or NULL. top [n, n_top] or NULL: not known. Before any push. */
bw_status bw_answer_text_echo(bw_answer_text *answer, const int32_t *ids, int n, const float *logprobs,
                              const bw_logprob *top, bw_error *err);

typedef struct bw_answer_input {
    int32_t token;
    float logprob;         /* looked at with keep_tokens */
    const bw_logprob *top; /* [n_top], or NULL */
    bool ends;             /* the stop token: it counts, but is not part of the text */
} bw_answer_input;

/* Takes one token; nothing after the answer is over. */
bw_status bw_answer_text_push(bw_answer_text *answer, const bw_answer_input *input, bw_error *err);
/* No token follows: gives what was held back, closes an open call so that its arguments are JSON. */
bw_status bw_answer_text_finish(bw_answer_text *answer, bw_error *err);

typedef enum bw_answer_over {
    BW_ANSWER_OPEN,
    BW_ANSWER_STOPPED, /* by a stop string */
    BW_ANSWER_CALLED   /* by its first call, with one_call */
} bw_answer_over;

bw_answer_over bw_answer_text_over(const bw_answer_text *answer);
int bw_answer_text_stop(const bw_answer_text *answer);      /* index of the stop string that was met, or -1 */
int bw_answer_text_tokens(const bw_answer_text *answer);    /* taken, the end token included */
int bw_answer_text_reasoning(const bw_answer_text *answer); /* of these, up to the end of the reasoning */
int bw_answer_text_calls(const bw_answer_text *answer);     /* begun */

typedef enum bw_piece_kind {
    BW_PIECE_REASONING,
    BW_PIECE_CONTENT,
    BW_PIECE_CALL,     /* a call begins: its text is the function's name, whole */
    BW_PIECE_ARGUMENTS /* of the call: its pieces together are one JSON object */
} bw_piece_kind;

typedef struct bw_piece {
    bw_piece_kind kind;
    int call;      /* CALL, ARGUMENTS: counted from 0 */
    size_t at, n;  /* in the text of the view; valid UTF-8 */
    char id[32];   /* CALL: "call_" and 24 random characters */
} bw_piece;

typedef struct bw_answer_token {
    int32_t token;
    float logprob;    /* NAN: not known */
    bool has_top, echo; /* echo: of the prompt */
    size_t at;        /* characters of the text before it */
} bw_answer_token;

/* What came since the last clear; valid until the next call. Neighbouring pieces differ in kind or call. */
typedef struct bw_answer_view {
    const char *text;
    const bw_piece *pieces;
    int n_pieces;
    const bw_answer_token *tokens;
    const bw_logprob *top; /* [n_tokens, n_top] */
    int n_tokens, n_top;
} bw_answer_view;

bw_answer_view bw_answer_text_view(const bw_answer_text *answer);
void bw_answer_text_clear(bw_answer_text *answer);

/* prefix and 24 random letters and digits, such as "chatcmpl-..."; room for 24 more and a NUL. */
void bw_answer_random_id(char *out, const char *prefix);

#endif
