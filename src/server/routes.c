/* routes.c - see routes.h. */
#include "server/routes.h"

#include "base/status.h"
#include "server/generation.h"
#include "server/small_routes.h"
#include "server/web.h"

enum {
    CALL = BW_ROUTE_KEY | BW_ROUTE_JSON | BW_ROUTE_READY,
    LOOK = BW_ROUTE_KEY | BW_ROUTE_READY,
    BELOW = BW_ROUTE_PREFIX,
    ANY = BW_GET | BW_POST | BW_DELETE
};

static const bw_route routes[] = {
    { BW_POST, "/v1/chat/completions", CALL, "chat_completions", bw_handle_chat },
    { BW_POST, "/v1/completions", CALL, "completions", bw_handle_completion },
    { BW_GET, "/v1/models", LOOK, "models", bw_handle_models },
    { BW_GET, "/v1/models/", LOOK | BELOW, "models", bw_handle_models },

    { BW_POST, "/tokenize", CALL, "tokenize", bw_handle_tokenize },
    { BW_POST, "/detokenize", CALL, "detokenize", bw_handle_detokenize },
    { BW_POST, "/apply-template", CALL, "apply_template", bw_handle_apply_template },
    { BW_GET, "/props", LOOK, "props", bw_handle_props },
    { BW_GET, "/slots", LOOK, "slots", bw_handle_slots },
    { BW_GET, "/load", BW_ROUTE_READY, "load", bw_handle_load },

    { BW_GET, "/health", 0, "health", bw_handle_health },
    { BW_GET, "/v1/health", 0, "health", bw_handle_health },
    { BW_GET | BW_POST, "/ping", 0, "ping", bw_handle_ping },
    { BW_GET, "/version", 0, "version", bw_handle_version },
    { BW_GET, "/metrics", 0, "metrics", bw_handle_metrics },

    { ANY, "/v1/responses", 0, "not_served", bw_handle_not_served },
    { ANY, "/v1/responses/", BELOW, "not_served", bw_handle_not_served },
    { ANY, "/v1/messages", 0, "not_served", bw_handle_not_served },
    { ANY, "/v1/messages/", BELOW, "not_served", bw_handle_not_served },
    { ANY, "/v1/embeddings", 0, "not_served", bw_handle_not_served },
    { ANY, "/v1/audio/", BELOW, "not_served", bw_handle_not_served },
    { ANY, "/v1/images/", BELOW, "not_served", bw_handle_not_served },
    { ANY, "/v1/files", 0, "not_served", bw_handle_not_served },
    { ANY, "/v1/batches", 0, "not_served", bw_handle_not_served },
};

int bw_routes_list(bw_route out[BW_MAX_ROUTES], bool web)
{
    static const bw_route no_page = { BW_GET, "/", 0, "web", bw_handle_no_page };
    int n = 0;
    if (!web)
        out[n++] = no_page;
    for (int i = 0; web && i < bw_web_n_routes; i++)
        out[n++] = bw_web_routes[i];
    for (size_t i = 0; i < BW_COUNT(routes); i++)
        out[n++] = routes[i];
    return n;
}
