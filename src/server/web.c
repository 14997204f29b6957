/* web.c - serves the files of the web page (web.h). Loop's thread. */
#include "server/web.h"

#include <string.h>

#include "base/status.h"

/* Nothing from elsewhere, nothing inline: text of a model that slips past the page's own cleaning can
 * neither run a script nor fetch an address. data: and blob: are for images within the page. Text becomes
 * elements through DOMPurify alone (trusted types, where the browser has them). */
static const char policy[] =
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types dompurify";

const bw_web_file *bw_web_find(const char *name)
{
    for (int i = 0; i < bw_web_n_files; i++)
        if (strcmp(bw_web_files[i].name, name) == 0)
            return &bw_web_files[i];
    return NULL;
}

const char *bw_web_content_type(const char *name)
{
    static const struct {
        const char *ending, *type;
    } types[] = {
        { ".html", "text/html; charset=utf-8" }, { ".css", "text/css; charset=utf-8" },
        { ".js", "text/javascript; charset=utf-8" }, { ".svg", "image/svg+xml" },
        { ".txt", "text/plain; charset=utf-8" },
    };
    const char *ending = strrchr(name, '.');
    for (size_t i = 0; ending && i < BW_COUNT(types); i++)
        if (strcmp(ending, types[i].ending) == 0)
            return types[i].type;
    return "application/octet-stream";
}

/* `*`, or a list of tags between commas, each perhaps marked weak by W/. Ours hold no comma. */
bool bw_web_unchanged(const char *header, const char *etag)
{
    while (header && *header) {
        header += strspn(header, " \t,");
        size_t n = strcspn(header, " \t,");
        const char *tag = strncmp(header, "W/", 2) == 0 ? header + 2 : header;
        size_t n_tag = n - (size_t)(tag - header);
        if ((n_tag == 1 && *tag == '*') || (n_tag == strlen(etag) && memcmp(tag, etag, n_tag) == 0))
            return true;
        header += n;
    }
    return false;
}

static void reply_file(bw_exchange *x, const char *name)
{
    const bw_web_file *file = bw_web_find(name);
    if (!file) {
        bw_exchange_fail(x, 404, NULL, "not_found", NULL, 0, "the web page has no such file");
        return;
    }
    bool unchanged = bw_web_unchanged(bw_exchange_header(x, "If-None-Match"), file->etag);
    bw_exchange_add_header(x, "ETag", file->etag);
    bw_exchange_add_header(x, "Cache-Control", "no-cache"); /* kept, but asked for each time: a new server, a new page */
    bw_exchange_add_header(x, "Content-Security-Policy", policy);
    bw_exchange_add_header(x, "X-Content-Type-Options", "nosniff");
    bw_exchange_add_header(x, "Referrer-Policy", "no-referrer");
    bw_exchange_reply(x, unchanged ? 304 : 200, bw_web_content_type(name), file->data, unchanged ? 0 : file->n);
}

static void handle_page(void *server, bw_exchange *x)
{
    (void)server;
    reply_file(x, "index.html");
}

static void handle_file(void *server, bw_exchange *x)
{
    (void)server;
    reply_file(x, bw_exchange_rest(x));
}

const bw_route bw_web_routes[] = {
    { BW_GET, "/", 0, "web", handle_page },
    { BW_GET, "/web/", BW_ROUTE_PREFIX, "web", handle_file },
};
const int bw_web_n_routes = BW_COUNT(bw_web_routes);
