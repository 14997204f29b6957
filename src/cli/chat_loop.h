/* chat_loop.h - a conversation on the terminal, with line editing and history.
 *
 * Keeps the messages as JSON and renders all of them again for every answer, so that the format
 * alone decides what the model sees of earlier thinking. Ctrl-C ends an answer, Ctrl-D the chat.
 * Prompts, echo and help go to stderr, answers to stdout. Main thread only. */
#ifndef BW_CLI_CHAT_LOOP_H
#define BW_CLI_CHAT_LOOP_H

#include "bellwether.h"
#include "cli/receipt.h"

struct json_object;

typedef struct bw_chat_loop_settings {
    bw_model *model;
    bw_engine *engine;
    const bw_request *request; /* all but the prompt */
    const char *system;        /* or NULL */
    bool think;
    const char *const *stops;
    int n_stops;
} bw_chat_loop_settings;

/* Talks until the user leaves; adds every answer to *receipt. Returns the exit status. */
int bw_chat_loop_run(const bw_chat_loop_settings *settings, bw_receipt *receipt);

/* {"role": role, "content": text}; the caller owns it. */
struct json_object *bw_chat_loop_message(const char *role, const char *text, size_t n_bytes);

/* The messages, and the opening of an answer if asked for, as token ids of the caller (bw_free). */
bw_status bw_chat_loop_prompt(const bw_model *model, struct json_object *messages, bool think, bool open_answer,
                              int32_t **ids, int *n_ids, bw_error *err);

#endif
