/* small_routes.h - handlers of what is answered at once: how the server is, what it serves, and the
 * text routes, which run on the workers. The argument of each is the bw_server. Loop's thread. */
#ifndef BW_SERVER_SMALL_ROUTES_H
#define BW_SERVER_SMALL_ROUTES_H

#include "server/server.h"

void bw_handle_health(void *server, bw_exchange *exchange);
void bw_handle_ping(void *server, bw_exchange *exchange);
void bw_handle_version(void *server, bw_exchange *exchange);
void bw_handle_metrics(void *server, bw_exchange *exchange);
void bw_handle_models(void *server, bw_exchange *exchange); /* also of one: /v1/models/{id} */
void bw_handle_props(void *server, bw_exchange *exchange);
void bw_handle_slots(void *server, bw_exchange *exchange);
void bw_handle_load(void *server, bw_exchange *exchange);
void bw_handle_tokenize(void *server, bw_exchange *exchange);
void bw_handle_detokenize(void *server, bw_exchange *exchange);
void bw_handle_apply_template(void *server, bw_exchange *exchange);
void bw_handle_no_page(void *server, bw_exchange *exchange);     /* / of a server without its page */
void bw_handle_not_served(void *server, bw_exchange *exchange);  /* embeddings and the like: 404 that says so */

#endif
