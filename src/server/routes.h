/* routes.h - the one table of what this server answers to. */
#ifndef BW_SERVER_ROUTES_H
#define BW_SERVER_ROUTES_H

#include "server/http.h"

enum { BW_MAX_ROUTES = 64 };

/* Fills out, returns how many. The argument of every handler is the bw_server. web: with the page at /. */
int bw_routes_list(bw_route out[BW_MAX_ROUTES], bool web);

#endif
