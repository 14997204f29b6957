/* socket_client.h - a plain socket that talks HTTP byte by byte, for tests of the server.
 *
 * Nothing is hidden: what is sent is sent as given, what came is kept as it came. While it waits it
 * calls `socket_pump`, so that a server in the same thread gets its turns; NULL: the server runs
 * elsewhere. */
#ifndef BW_TESTS_SOCKET_CLIENT_H
#define BW_TESTS_SOCKET_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

typedef struct client {
    int fd;
    char *data;    /* received and not yet consumed, NUL-terminated */
    size_t n, room;
    int n_reads;   /* recv calls that brought something */
    bool ended;    /* FIN seen */
    bool reset;    /* RST seen */
} client;

typedef struct response {
    int status;
    char head[8192];  /* status line and headers, as sent */
    char *body;       /* decoded, NUL-terminated */
    size_t n_body;
    bool chunked;
    int n_chunks;
    bool to_end;      /* neither length nor chunks: up to the end of the connection */
} response;

extern void (*socket_pump)(void);

client client_open(int port); /* fails the test when refused */
void client_close(client *c);
void client_reset(client *c);      /* RST */
void client_half_close(client *c); /* FIN, still reading */
void client_send(client *c, const char *text);
void client_send_bytes(client *c, const void *bytes, size_t n);
/* Sends what fits now without waiting; bytes taken. */
size_t client_try_send(client *c, const void *bytes, size_t n);
/* Receives for at most `seconds`, until `text` is there / the other side has closed. */
bool client_wait(client *c, const char *text, double seconds);
bool client_wait_end(client *c, double seconds);
void client_idle(client *c, double seconds); /* receives for that long */
/* One whole response, taken out of data; fails the test when none comes. head_only: to a HEAD. */
response client_response(client *c, bool head_only, double seconds);
void response_free(response *r);
/* A header's value (static buffer), NULL when absent. */
const char *response_header(const response *r, const char *name);
/* Sends and takes one response. */
response client_ask(client *c, const char *request);

double seconds_now(void);

#endif
