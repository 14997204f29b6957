/* http_route.c - which route a request is for, and whether it may: keys, methods, body types, CORS,
 * a server that loads or drains. What is refused here never reaches a handler. */
#include "server/http_parts.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <openssl/crypto.h>

/* One trailing slash does not count. */
static bool same_path(const char *path, const char *pattern)
{
    size_t n = strlen(pattern);
    return strncmp(path, pattern, n) == 0 && (path[n] == '\0' || (path[n] == '/' && path[n + 1] == '\0'));
}

static bool matches(const bw_route *r, const char *path, const char **rest)
{
    *rest = NULL;
    if (!(r->flags & BW_ROUTE_PREFIX))
        return same_path(path, r->path);
    size_t n = strlen(r->path);
    if (strncmp(path, r->path, n) != 0 || path[n] == '\0')
        return false;
    *rest = path + n;
    return true;
}

static unsigned allowed(const bw_route *r)
{
    return r->methods | (r->methods & BW_GET ? BW_HEAD : 0);
}

/* The route of path and method; *methods: all that the path knows (0: an unknown path). */
static const bw_route *find(const bw_http *h, const char *path, bw_method method, const char **rest, unsigned *methods)
{
    *methods = 0;
    for (int i = 0; i < h->n_routes; i++) {
        if (!matches(&h->routes[i], path, rest))
            continue;
        *methods |= allowed(&h->routes[i]);
        if (allowed(&h->routes[i]) & method)
            return &h->routes[i];
    }
    return NULL;
}

static void fail_method(bw_exchange *x, unsigned methods)
{
    static const struct {
        bw_method method;
        const char *name;
    } names[] = { { BW_GET, "GET" }, { BW_HEAD, "HEAD" }, { BW_POST, "POST" }, { BW_DELETE, "DELETE" }, { BW_OPTIONS, "OPTIONS" } };
    char allow[64] = "", message[192];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (methods & names[i].method)
            snprintf(allow + strlen(allow), sizeof allow - strlen(allow), "%s%s", *allow ? ", " : "", names[i].name);
    bw_exchange_add_header(x, "Allow", allow);
    snprintf(message, sizeof message, "this path does not know the method; it allows %s", allow);
    bw_exchange_fail(x, 405, NULL, "method_not_allowed", NULL, 0, message);
}

/* ---- keys ---- */

/* Same time whatever differs, but for the length. */
static bool same_key(const char *a, const char *b)
{
    size_t n = strlen(a);
    return n == strlen(b) && CRYPTO_memcmp(a, b, n) == 0;
}

static bool has_key(const bw_http *h, const char *given)
{
    bool found = false;
    for (int i = 0; given && i < h->options.n_keys; i++)
        found |= same_key(given, h->options.keys[i]);
    return found;
}

static bool knows_key(const bw_exchange *x)
{
    const char *bearer = bw_exchange_header(x, "Authorization");
    if (bearer && strncasecmp(bearer, "Bearer ", 7) == 0)
        bearer += 7 + strspn(bearer + 7, " ");
    else
        bearer = NULL;
    return has_key(x->http, bearer) | has_key(x->http, bw_exchange_header(x, "x-api-key"));
}

/* ---- types ---- */

/* application/json, with or without parameters; absent: curl users. */
static bool is_json(const char *type)
{
    static const char json[] = "application/json";
    if (!type)
        return true;
    type += strspn(type, " \t");
    if (strncasecmp(type, json, sizeof json - 1) != 0)
        return false;
    type += sizeof json - 1;
    return type[strspn(type, " \t")] == '\0' || type[strspn(type, " \t")] == ';';
}

static void fail_not_ready(bw_exchange *x)
{
    const bw_http *h = x->http;
    char message[400];
    switch (h->ready) {
    case BW_LOADING:
        snprintf(message, sizeof message, "the model is loading: %d %% done", (int)(h->progress * 100));
        bw_exchange_fail(x, 503, NULL, "loading", NULL, 5, message);
        break;
    case BW_DRAINING:
        bw_exchange_fail(x, 503, NULL, "draining", NULL, 10, "the server is shutting down and takes no new requests");
        break;
    default:
        snprintf(message, sizeof message, "the engine has stopped: %s", h->message);
        bw_exchange_fail(x, 503, NULL, "engine_failed", NULL, 10, message);
    }
}

static void set_cors(bw_exchange *x)
{
    const bw_http *h = x->http;
    const char *origin = bw_exchange_header(x, "Origin");
    if (h->options.n_origins == 0)
        return;
    bw_exchange_add_header(x, "Vary", "Origin");
    for (int i = 0; origin && i < h->options.n_origins; i++)
        if (strcmp(origin, h->options.origins[i]) == 0) {
            bw_exchange_add_header(x, "Access-Control-Allow-Origin", origin);
            bw_exchange_add_header(x, "Access-Control-Expose-Headers", "X-Request-Id, request-id, Retry-After");
        }
}

bool bw_http_admit(bw_exchange *x)
{
    unsigned methods = 0;
    set_cors(x);
    x->route = find(x->http, x->path, x->method, &x->rest, &methods);
    if (!x->route && methods)
        fail_method(x, methods);
    else if (!x->route && x->method == BW_HEAD && strcmp(x->path, "/") == 0)
        bw_exchange_reply(x, 200, "text/plain; charset=utf-8", "", 0);
    else if (!x->route)
        bw_exchange_fail(x, 404, NULL, "not_found", NULL, 0, "nothing is served at this path");
    else if ((x->route->flags & BW_ROUTE_KEY) && x->http->options.n_keys && !knows_key(x))
        bw_exchange_fail(x, 401, NULL, "invalid_api_key", NULL, 0,
                         "no API key, or not one of this server's: send Authorization: Bearer KEY or x-api-key: KEY");
    else if ((x->route->flags & BW_ROUTE_JSON) && x->n_body && !is_json(bw_exchange_header(x, "Content-Type")))
        bw_exchange_fail(x, 415, NULL, "unsupported_media_type", NULL, 0, "the body must be application/json");
    else if ((x->route->flags & BW_ROUTE_READY) && x->http->ready != BW_READY)
        fail_not_ready(x);
    else
        return true;
    return false;
}
