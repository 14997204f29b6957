/* api_prompt.h - from the messages and tools of a body to the prompt's text and its tokens.
 *
 * Reads what decides the prompt: messages, tools, tool_choice, chat_template_kwargs, reasoning_effort,
 * add_generation_prompt, continue_final_message; shared by chat completions, /tokenize and
 * /apply-template. The format itself is text/chat.h. No state; any thread. */
#ifndef BW_SERVER_API_PROMPT_H
#define BW_SERVER_API_PROMPT_H

#include "engine/model_text.h"
#include "server/api_json.h"

/* Adds the messages as a JSON array the chat format takes: developer is system, all system text stands
 * in one first message, reasoning in reasoning_content. */
bool bw_api_read_messages(bw_bytes *out, const bw_api_object *body, bw_late_system late);

typedef struct bw_api_tools {
    const bw_json *list; /* NULL: none */
    bool parse_calls;    /* the answer's calls are to be found: there are tools and tool_choice is not none */
} bw_api_tools;

bool bw_api_read_tools(bw_api_tools *out, const bw_api_object *body);

/* Adds the conversation as the JSON text that bw_chat_render takes. *continues: continue_final_message. */
bool bw_api_write_request(bw_bytes *out, bw_api_tools *tools, bool *continues, bw_chat_variant variant, bw_late_system late,
                          const bw_api_object *body);

/* The rendered conversation; fini with bw_chat_prompt_fini. */
bool bw_api_read_prompt(bw_chat_prompt *out, bw_api_tools *tools, const bw_api_context *context, const bw_api_object *body);

/* Its tokens; no special token is matched in what the messages say. to_run: a prompt that must fit the
 * context, so that what is far too long is refused early; otherwise only counted. */
bool bw_api_encode_prompt(bw_api_prompt *out, const bw_api_context *context, const bw_chat_prompt *prompt, bool to_run,
                          bw_api_error *err);
/* A text alone; special: special tokens are matched, as other servers do for completions. */
bool bw_api_encode_text(bw_api_prompt *out, const bw_api_context *context, const char *text, size_t n_bytes, bool special,
                        bool to_run, const char *path, bw_api_error *err);

/* The model's text side; 400 where it has none. */
bool bw_api_need_text(const bw_text_source **out, const bw_api_context *context, const char *param, bw_api_error *err);

/* 400 context_length_exceeded, in the words clients look for, unless n_prompt tokens and an answer fit. */
bool bw_api_check_context(const bw_api_context *context, int n_prompt, int max_tokens, const char *param, bw_api_error *err);

#endif
