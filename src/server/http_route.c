/* http_route.c - which route a request is for, and whether it may: keys, methods, body types, CORS,
 * a server that loads or drains. What is refused here never reaches a handler. */
#include "server/http_parts.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <openssl/crypto.h>

#include "base/status.h"
#include "base/utf8.h"

/* One trailing slash does not count. */
static void drop_slash(char *path)
{
    const size_t n = strlen(path);
    if (n > 1 && path[n - 1] == '/')
        path[n - 1] = '\0';
}

static bool matches(const bw_route *r, const char *path, const char **rest)
{
    *rest = NULL;
    if (!(r->flags & BW_ROUTE_PREFIX))
        return strcmp(path, r->path) == 0;
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

void bw_exchange_refuse(bw_exchange *x, int status, const char *code, int retry_after_s, const char *format, ...)
{
    va_list args;
    x->refusal = (bw_refusal){ .status = status, .code = code, .retry_after_s = retry_after_s };
    va_start(args, format);
    vsnprintf(x->refusal.message, sizeof x->refusal.message, format, args);
    va_end(args);
    bw_utf8_one_line(x->refusal.message); /* it may quote the client */
}

static void list_methods(unsigned methods, char out[64])
{
    static const struct {
        bw_method method;
        const char *name;
    } names[] = { { BW_GET, "GET" }, { BW_HEAD, "HEAD" }, { BW_POST, "POST" }, { BW_DELETE, "DELETE" },
                  { BW_OPTIONS, "OPTIONS" } };
    out[0] = '\0';
    for (size_t i = 0; i < BW_COUNT(names); i++)
        if (methods & names[i].method)
            snprintf(out + strlen(out), 64 - strlen(out), "%s%s", *out ? ", " : "", names[i].name);
}

static void refuse_method(bw_exchange *x, unsigned methods)
{
    char allow[64];
    list_methods(methods, allow);
    bw_exchange_add_header(x, "Allow", allow);
    bw_exchange_refuse(x, 405, "method_not_allowed", 0, "%s does not know this method; it allows %s", x->path, allow);
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

/* "identity", or no coding. */
static bool is_plain(const char *coding)
{
    return !coding || !*coding || strcasecmp(coding, "identity") == 0;
}

static void refuse_unready(bw_exchange *x)
{
    const bw_http *h = x->http;
    switch (h->ready) {
    case BW_LOADING:
        bw_exchange_refuse(x, 503, "loading", 5, "the model is loading: %d %% done", (int)(h->progress * 100));
        break;
    case BW_DRAINING:
        bw_exchange_refuse(x, 503, "draining", 10, "the server is shutting down and takes no new requests");
        break;
    default:
        bw_exchange_refuse(x, 503, "engine_failed", 10, "the engine has stopped%s%s", h->message[0] ? ": " : "",
                           h->message);
    }
}

/* ---- CORS ---- */

static bool is_origin_allowed(const bw_exchange *x)
{
    const bw_http *h = x->http;
    const char *origin = bw_exchange_header(x, "Origin");
    for (int i = 0; origin && i < h->options.n_origins; i++)
        if (strcmp(origin, h->options.origins[i]) == 0)
            return true;
    return false;
}

/* The origin itself, never `*`; other origins get nothing, and the browser refuses for us. */
static void allow_origin(bw_exchange *x)
{
    if (x->http->options.n_origins == 0)
        return;
    bw_exchange_add_header(x, "Vary", "Origin");
    if (!is_origin_allowed(x))
        return;
    bw_exchange_add_header(x, "Access-Control-Allow-Origin", bw_exchange_header(x, "Origin"));
    bw_exchange_add_header(x, "Access-Control-Expose-Headers", "X-Request-Id, request-id, Retry-After");
}

static bool is_preflight(const bw_exchange *x)
{
    return x->method == BW_OPTIONS && x->http->options.n_origins && bw_exchange_header(x, "Origin") &&
           bw_exchange_header(x, "Access-Control-Request-Method");
}

static void answer_preflight(bw_exchange *x, unsigned methods)
{
    char allow[64];
    const char *wanted = bw_exchange_header(x, "Access-Control-Request-Headers");
    if (!is_origin_allowed(x)) {
        bw_exchange_refuse(x, 403, "origin_not_allowed", 0, "this origin is not one the server was told to allow");
        return;
    }
    list_methods(methods, allow);
    bw_exchange_add_header(x, "Access-Control-Allow-Methods", allow);
    if (wanted)
        bw_exchange_add_header(x, "Access-Control-Allow-Headers", wanted);
    bw_exchange_add_header(x, "Access-Control-Max-Age", "600");
    bw_exchange_refuse(x, 204, NULL, 0, "%s", "");
}

/* ---- admission ---- */

static void refuse_key(bw_exchange *x)
{
    bw_exchange_add_header(x, "WWW-Authenticate", "Bearer");
    bw_exchange_refuse(x, 401, "invalid_api_key", 0,
                       "no API key, or none of this server's: send Authorization: Bearer KEY or x-api-key: KEY");
}

/* curl -d says that its body is a form, and whoever wrote it did not mean that. */
static void refuse_type(bw_exchange *x)
{
    bw_exchange_refuse(x, 415, "unsupported_media_type", 0,
                       "the body's Content-Type is \"%.80s\", expected application/json (curl: -H 'Content-Type: application/json')",
                       bw_exchange_header(x, "Content-Type"));
}

static void admit_to_route(bw_exchange *x)
{
    const unsigned flags = x->route->flags;
    const char *coding = bw_exchange_header(x, "Content-Encoding");
    if ((flags & BW_ROUTE_KEY) && x->http->options.n_keys && !knows_key(x))
        refuse_key(x);
    else if ((flags & BW_ROUTE_JSON) && !is_json(bw_exchange_header(x, "Content-Type")))
        refuse_type(x);
    else if (!is_plain(coding))
        bw_exchange_refuse(x, 415, "unsupported_encoding", 0, "the body's Content-Encoding is \"%.80s\", expected none: send it uncompressed",
                           coding);
    else if ((flags & BW_ROUTE_READY) && x->http->ready != BW_READY)
        refuse_unready(x);
}

/* The usual mistake: a client's base URL without /v1, or with two of them. */
static bool belongs_under_v1(bw_exchange *x)
{
    static const char *const ends[] = { "/chat/completions", "/completions", "/models" };
    const size_t n = strlen(x->path);
    for (size_t i = 0; i < BW_COUNT(ends); i++)
        if (n >= strlen(ends[i]) && strcmp(x->path + n - strlen(ends[i]), ends[i]) == 0)
            return true;
    return false;
}

void bw_http_admit(bw_exchange *x)
{
    unsigned methods = 0;
    allow_origin(x);
    if (x->refusal.status)
        return;
    drop_slash(x->path);
    x->route = find(x->http, x->path, x->method, &x->rest, &methods);
    if (is_preflight(x) && methods)
        answer_preflight(x, methods);
    else if (x->route)
        admit_to_route(x);
    else if (methods)
        refuse_method(x, methods);
    else if (x->method == BW_HEAD && strcmp(x->path, "/") == 0)
        bw_exchange_refuse(x, 200, NULL, 0, "%s", "");
    else
        bw_exchange_refuse(x, 404, "not_found", 0, "nothing is served at %s%s", x->path, belongs_under_v1(x) ?
                           ": the API is under /v1, with which a client's base URL ends" : "");
}
