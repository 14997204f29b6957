/* The web page over a plain socket: every file, its type, its ETag, its policy; and that no file of it
 * names another host. Server and client share one thread. */
#include <ctype.h>
#include <event2/event.h>
#include <openssl/evp.h>
#include <stdlib.h>

#include "lib/check.h"
#include "lib/socket_client.h"
#include "server/http.h"
#include "server/web.h"

static struct event_base *base;
static bw_http *http;

static void pump(void)
{
    event_base_loop(base, EVLOOP_NONBLOCK);
}

/* A server that still loads and wants a key: the page must come nevertheless. */
static client start(void)
{
    static const char *const keys[] = { "secret" };
    bw_error err;
    bw_http_options o = bw_http_defaults();
    o.port = 0;
    o.keys = keys;
    o.n_keys = 1;
    base = event_base_new();
    check_ok(bw_http_create(&http, base, bw_web_routes, bw_web_n_routes, &o, &err), err);
    socket_pump = pump;
    return client_open(bw_http_port(http));
}

static void stop(client *c)
{
    client_close(c);
    bw_http_destroy(http);
    event_base_free(base);
    socket_pump = NULL;
}

static response get(client *c, const char *method, const char *path, const char *more)
{
    char request[1024];
    snprintf(request, sizeof request, "%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n", method, path, more);
    client_send(c, request);
    return client_response(c, strcmp(method, "HEAD") == 0, 5);
}

static void check_is_file(const response *r, const char *name)
{
    const bw_web_file *file = bw_web_find(name);
    check_that(file != NULL, "there is no %s", name);
    check_that(r->status == 200, "%s: status %d", name, r->status);
    check_that(r->n_body == file->n && memcmp(r->body, file->data, file->n) == 0, "%s: other bytes", name);
    check_str(response_header(r, "Content-Type"), bw_web_content_type(name));
    check_str(response_header(r, "ETag"), file->etag);
}

TEST(every_file_is_served_as_it_is)
{
    client c = start();
    check(bw_web_n_files > 10);
    for (int i = 0; i < bw_web_n_files; i++) {
        char path[300];
        snprintf(path, sizeof path, "/web/%s", bw_web_files[i].name);
        response r = get(&c, "GET", path, "");
        check_is_file(&r, bw_web_files[i].name);
        response_free(&r);
        snprintf(path, sizeof path, "src/server/web/%s", bw_web_files[i].name);
        size_t n;
        char *on_disk = read_file(repo_path(path), &n);
        check_that(n == bw_web_files[i].n && memcmp(on_disk, bw_web_files[i].data, n) == 0, "%s is not the embedded one", path);
        free(on_disk);
    }
    stop(&c);
}

TEST(the_page_needs_no_key_and_no_model)
{
    client c = start();
    bw_http_set_ready(http, BW_LOADING, 0.5, NULL);
    response r = get(&c, "GET", "/", "");
    check_is_file(&r, "index.html");
    response_free(&r);
    r = get(&c, "HEAD", "/", "");
    check_int(r.status, 200);
    check_int(r.n_body, 0);
    response_free(&r);
    stop(&c);
}

TEST(types_are_what_a_browser_insists_on)
{
    check_str(bw_web_content_type("index.html"), "text/html; charset=utf-8");
    check_str(bw_web_content_type("app.js"), "text/javascript; charset=utf-8");
    check_str(bw_web_content_type("vendor/uPlot.min.css"), "text/css; charset=utf-8");
    check_str(bw_web_content_type("icon.svg"), "image/svg+xml");
    check_str(bw_web_content_type("no_ending"), "application/octet-stream");
    for (int i = 0; i < bw_web_n_files; i++)
        check_that(strcmp(bw_web_content_type(bw_web_files[i].name), "application/octet-stream") != 0,
                   "%s has no type", bw_web_files[i].name);
}

TEST(a_known_etag_is_answered_304)
{
    client c = start();
    char header[300];
    const char *etag = bw_web_find("app.js")->etag;
    snprintf(header, sizeof header, "If-None-Match: \"old\", W/%s\r\n", etag);
    response r = get(&c, "GET", "/web/app.js", header);
    check_int(r.status, 304);
    check_int(r.n_body, 0);
    check_str(response_header(&r, "ETag"), etag);
    check_str(response_header(&r, "Cache-Control"), "no-cache");
    response_free(&r);
    r = get(&c, "GET", "/web/app.js", "If-None-Match: \"old\"\r\n");
    check_is_file(&r, "app.js");
    response_free(&r);
    stop(&c);
}

TEST(if_none_match_is_read_as_a_list)
{
    const char *e = "\"abc\"";
    const char *const same[] = { "\"abc\"", "W/\"abc\"", "*", "\"x\", \"abc\"", "\"x\",W/\"abc\" ,\"y\"", " \t\"abc\"" };
    const char *const other[] = { "", "\"ab\"", "\"abcd\"", "abc", "W/", "W/\"x\"", ", ,", "\"abc", "W/ \"abcd\"" };
    for (size_t i = 0; i < BW_COUNT(same); i++)
        check_that(bw_web_unchanged(same[i], e), "%s should match", same[i]);
    for (size_t i = 0; i < BW_COUNT(other); i++)
        check_that(!bw_web_unchanged(other[i], e), "%s should not match", other[i]);
    check(!bw_web_unchanged(NULL, e));
}

TEST(an_etag_is_the_content)
{
    for (int i = 0; i < bw_web_n_files; i++) {
        unsigned char hash[EVP_MAX_MD_SIZE];
        unsigned n;
        char want[40] = "\"";
        check(EVP_Digest(bw_web_files[i].data, bw_web_files[i].n, hash, &n, EVP_sha256(), NULL) == 1);
        for (int j = 0; j < 16; j++)
            snprintf(want + strlen(want), 4, "%02x", hash[j]);
        strcat(want, "\"");
        check_str(bw_web_files[i].etag, want);
    }
}

TEST(the_policy_lets_nothing_in_from_outside)
{
    client c = start();
    for (int i = 0; i < bw_web_n_files; i++) {
        char path[300];
        snprintf(path, sizeof path, "/web/%s", bw_web_files[i].name);
        response r = get(&c, "GET", path, "");
        const char *policy = response_header(&r, "Content-Security-Policy");
        check(policy && strstr(policy, "default-src 'self'") == policy && strstr(policy, "frame-ancestors 'none'"));
        check(strstr(policy, "require-trusted-types-for 'script'") != NULL);
        check(!strstr(policy, "unsafe") && !strstr(policy, "http") && !strstr(policy, "*"));
        check_str(response_header(&r, "X-Content-Type-Options"), "nosniff");
        response_free(&r);
    }
    stop(&c);
}

TEST(what_is_not_there_is_404)
{
    client c = start();
    const char *const paths[] = { "/web/nothing.js", "/web/vendor/", "/web/../web.c", "/web/%2e%2e/web.c", "/web/vendor/README.md" };
    for (size_t i = 0; i < BW_COUNT(paths); i++) {
        response r = get(&c, "GET", paths[i], "");
        check_that(r.status == 404, "%s: status %d", paths[i], r.status);
        response_free(&r);
    }
    response r = get(&c, "POST", "/", "Content-Length: 0\r\n");
    check_int(r.status, 405);
    check_str(response_header(&r, "Allow"), "GET, HEAD");
    response_free(&r);
    stop(&c);
}

/* Names of formats and of the authors' pages, which nobody fetches. */
static bool is_harmless(const char *address)
{
    static const char *const known[] = { "http://www.w3.org/", "https://github.com/markedjs/marked", "https://github.com/leeoniya/uPlot",
                                         "https://github.com/cure53/DOMPurify", "https://github.com/babel/babel/blob/" };
    for (size_t i = 0; i < BW_COUNT(known); i++)
        if (strncmp(address, known[i], strlen(known[i])) == 0)
            return true;
    return !isalnum((unsigned char)*(strstr(address, "//") + 2)); /* marked prints the bare "http://" before www. */
}

static bool is_text(const char *name)
{
    return strstr(name, "LICENSE.txt") != NULL;
}

TEST(no_file_names_another_host)
{
    for (int i = 0; i < bw_web_n_files; i++) {
        const bw_web_file *f = &bw_web_files[i];
        const char *text = (const char *)f->data; /* a 0 behind it */
        check_int(strlen(text), f->n);
        if (is_text(f->name))
            continue;
        for (const char *p = text; (p = strstr(p, "://")); p += 3) {
            const char *address = p;
            while (address > text && isalpha((unsigned char)address[-1]))
                address--;
            check_that(strncmp(address, "http", 4) != 0 || is_harmless(address), "%s names %.60s", f->name, address);
        }
        if (strstr(f->name, ".css"))
            check_that(!strstr(text, "@import") && !strstr(text, "url("), "%s loads a file", f->name);
    }
}

/* Inline scripts and styles would need a weaker policy, so the page has none. */
TEST(the_page_has_nothing_inline)
{
    const char *page = (const char *)bw_web_find("index.html")->data;
    for (const char *p = page; (p = strstr(p, "<script")); p++) {
        const char *end = strchr(p, '>');
        check(end && strstr(p, "src=") && strstr(p, "src=") < end);
        check(strncmp(end, "></script>", 10) == 0);
    }
    check(!strstr(page, "<style") && !strstr(page, "style=") && !strstr(page, "onclick"));
}

/* Every file that index.html or a module names is there. */
TEST(what_the_page_loads_is_there)
{
    int n = 0;
    const char *page = (const char *)bw_web_find("index.html")->data;
    for (const char *p = page; (p = strstr(p, "\"web/")); p++, n++) {
        char name[100];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(p + 5, "\""), p + 5);
        check_that(bw_web_find(name) != NULL, "index.html names %s", name);
    }
    for (int i = 0; i < bw_web_n_files; i++) {
        if (strncmp(bw_web_files[i].name, "vendor/", 7) == 0)
            continue;
        for (const char *p = (const char *)bw_web_files[i].data; (p = strstr(p, " from './")); p++, n++) {
            char name[100];
            snprintf(name, sizeof name, "%.*s", (int)strcspn(p + 9, "'"), p + 9);
            check_that(bw_web_find(name) != NULL, "%s imports %s", bw_web_files[i].name, name);
        }
    }
    check(n > 10);
}

TEST(vendored_files_are_those_the_readme_names)
{
    size_t n;
    int n_named = 0;
    char *readme = read_file(repo_path("src/server/web/vendor/README.md"), &n);
    for (int i = 0; i < bw_web_n_files; i++) {
        const bw_web_file *f = &bw_web_files[i];
        if (strncmp(f->name, "vendor/", 7) != 0 || is_text(f->name))
            continue;
        char row[120], start_of_hash[40];
        snprintf(row, sizeof row, "| `%s` |", f->name + 7);
        snprintf(start_of_hash, sizeof start_of_hash, "`%.32s", f->etag + 1);
        const char *line = strstr(readme, row);
        check_that(line != NULL, "the README does not name %s", f->name);
        const char *hash = strstr(line, start_of_hash);
        check_that(hash && hash < strchr(line, '\n'), "%s has another SHA-256 than the README says", f->name);
        n_named++;
    }
    check_int(n_named, 4);
    free(readme);
}

TESTS_MAIN(ENTRY(every_file_is_served_as_it_is), ENTRY(the_page_needs_no_key_and_no_model),
           ENTRY(types_are_what_a_browser_insists_on), ENTRY(a_known_etag_is_answered_304),
           ENTRY(if_none_match_is_read_as_a_list), ENTRY(an_etag_is_the_content),
           ENTRY(the_policy_lets_nothing_in_from_outside), ENTRY(what_is_not_there_is_404), ENTRY(no_file_names_another_host),
           ENTRY(the_page_has_nothing_inline), ENTRY(what_the_page_loads_is_there),
           ENTRY(vendored_files_are_those_the_readme_names))
