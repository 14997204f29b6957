/* web.h - the web page: its files, compiled into the program, and the routes that serve them.
 *
 * The files of src/server/web/ become bw_web_files[] when the library is built (tools/embed). Nothing
 * is read at run time and no other host is named. The page is static and needs no key; it asks its
 * user for one when the API does. Threads: immutable data; the handlers run on the loop's thread. */
#ifndef BW_SERVER_WEB_H
#define BW_SERVER_WEB_H

#include "server/http.h"

typedef struct bw_web_file {
    const char *name;          /* below src/server/web: "index.html", "vendor/marked.esm.js" */
    const char *etag;          /* with its quotes; changes with the content */
    const unsigned char *data; /* [n], and a 0 behind it */
    size_t n;
} bw_web_file;

extern const bw_web_file bw_web_files[]; /* [bw_web_n_files] */
extern const int bw_web_n_files;

/* GET / is index.html, GET /web/NAME every file. */
extern const bw_route bw_web_routes[]; /* [bw_web_n_routes] */
extern const int bw_web_n_routes;

const bw_web_file *bw_web_find(const char *name); /* NULL: no such file */
const char *bw_web_content_type(const char *name);
/* An If-None-Match header names this ETag. header may be NULL. */
bool bw_web_unchanged(const char *header, const char *etag);

#endif
