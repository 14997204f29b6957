/* generation.h - requests of the OpenAI dialect from admission to the last byte of their answers.
 *
 * A generation is one exchange and its n choices, each a ticket of the engine thread. Posts become
 * text, text becomes reasoning, content and tool calls, these become chunks of an event stream or one
 * answer. Owns the generation until the exchange is over or the client has gone (its tickets are then
 * cancelled at once). A reader that is too slow (1 MiB behind) pauses its own sequences, nobody else.
 * Threads: the loop's thread; bodies are read on workers. */
#ifndef BW_SERVER_GENERATION_H
#define BW_SERVER_GENERATION_H

#include "server/server.h"

bw_status bw_generations_create(bw_generations **out, bw_server *server, bw_error *err);
void bw_generations_destroy(bw_generations *generations); /* takes NULL; ends what is left with an error */

/* Handlers of POST /v1/chat/completions and POST /v1/completions; arg is the bw_server. */
void bw_handle_chat(void *server, bw_exchange *exchange);
void bw_handle_completion(void *server, bw_exchange *exchange);

/* Posts of the engine thread, in order; takes them. Every stream's events of one call leave in one send. */
void bw_generations_take_posts(bw_generations *generations, bw_post *posts);
/* Ends every stream with an error event, every other answer with 503: the drain timeout has passed, or the
 * engine has failed. */
void bw_generations_fail_all(bw_generations *generations, const char *code, const char *message);
int bw_generations_live(const bw_generations *generations); /* exchanges */

#endif
