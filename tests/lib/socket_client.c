/* socket_client.c - see socket_client.h. */
#include "lib/socket_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "lib/check.h"

void (*socket_pump)(void);

double seconds_now(void)
{
    return (double)bw_clock_ns() * 1e-9;
}

client client_open(int port)
{
    client c = { .fd = socket(AF_INET, SOCK_STREAM, 0) };
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((unsigned short)port) };
    int on = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    check_that(c.fd >= 0, "no socket: %s", strerror(errno));
    check_that(connect(c.fd, (struct sockaddr *)&to, sizeof to) == 0, "connect to port %d: %s", port, strerror(errno));
    setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(c.fd, F_SETFL, O_NONBLOCK);
    c.data = calloc(1, 1);
    return c;
}

void client_close(client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    free(c->data);
    *c = (client){ .fd = -1 };
}

void client_reset(client *c)
{
    struct linger now = { 1, 0 };
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    client_close(c);
}

void client_half_close(client *c)
{
    shutdown(c->fd, SHUT_WR);
}

static void pause_for(client *c, short what)
{
    struct pollfd p = { .fd = c->fd, .events = what };
    if (socket_pump)
        socket_pump();
    poll(&p, 1, 1);
}

size_t client_try_send(client *c, const void *bytes, size_t n)
{
    ssize_t sent = send(c->fd, bytes, n, MSG_NOSIGNAL);
    return sent > 0 ? (size_t)sent : 0;
}

void client_send_bytes(client *c, const void *bytes, size_t n)
{
    double end = seconds_now() + 20;
    for (size_t at = 0; at < n;) {
        ssize_t sent = send(c->fd, (const char *)bytes + at, n - at, MSG_NOSIGNAL);
        if (sent > 0)
            at += (size_t)sent;
        else if (errno != EAGAIN && errno != EINTR)
            return; /* the server has closed: what it said is read afterwards */
        else
            pause_for(c, POLLOUT);
        check_that(seconds_now() < end, "%zu of %zu bytes sent, then the server took no more", at, n);
    }
}

void client_send(client *c, const char *text)
{
    client_send_bytes(c, text, strlen(text));
}

/* Takes what is there; false: nothing more will come. */
static bool receive(client *c)
{
    char piece[65536];
    while (!c->ended && !c->reset) {
        ssize_t n = recv(c->fd, piece, sizeof piece, 0);
        if (n > 0) {
            if (c->n + (size_t)n + 1 > c->room) {
                c->room = 2 * (c->n + (size_t)n + 1);
                c->data = realloc(c->data, c->room);
                check(c->data != NULL);
            }
            memcpy(c->data + c->n, piece, (size_t)n);
            c->n += (size_t)n;
            c->data[c->n] = '\0';
            c->n_reads++;
        } else if (n == 0) {
            c->ended = true;
        } else if (errno == EAGAIN || errno == EINTR) {
            return true;
        } else {
            c->reset = true;
        }
    }
    return false;
}

static const char *find_bytes(const client *c, const char *text)
{
    size_t m = strlen(text);
    for (size_t i = 0; i + m <= c->n; i++)
        if (memcmp(c->data + i, text, m) == 0)
            return c->data + i;
    return NULL;
}

bool client_wait(client *c, const char *text, double seconds)
{
    for (double end = seconds_now() + seconds;;) {
        bool more = receive(c);
        if (find_bytes(c, text))
            return true;
        if (!more || seconds_now() > end)
            return false;
        pause_for(c, POLLIN);
    }
}

bool client_wait_end(client *c, double seconds)
{
    for (double end = seconds_now() + seconds; receive(c);) {
        if (seconds_now() > end)
            return false;
        pause_for(c, POLLIN);
    }
    return true;
}

void client_idle(client *c, double seconds)
{
    for (double end = seconds_now() + seconds; seconds_now() < end;) {
        receive(c);
        pause_for(c, POLLIN);
    }
}

static void consume(client *c, size_t n)
{
    memmove(c->data, c->data + n, c->n - n + 1);
    c->n -= n;
}

const char *response_header(const response *r, const char *name)
{
    static char value[1024];
    size_t n = strlen(name);
    for (const char *line = r->head; (line = strstr(line, "\r\n")) != NULL;) {
        line += 2;
        if (strncasecmp(line, name, n) == 0 && line[n] == ':') {
            const char *from = line + n + 1 + strspn(line + n + 1, " ");
            snprintf(value, sizeof value, "%.*s", (int)strcspn(from, "\r"), from);
            return value;
        }
    }
    return NULL;
}

/* Waits for n bytes in data. */
static void need(client *c, size_t n, double end, const char *what)
{
    while (c->n < n) {
        bool more = receive(c);
        if (c->n >= n)
            return;
        check_that(more && seconds_now() < end, "%s: %zu of %zu bytes came, then %s; data: %.300s", what, c->n, n,
                   more ? "nothing" : "the end", c->data);
        pause_for(c, POLLIN);
    }
}

static void read_chunks(client *c, response *r, double end)
{
    for (;;) {
        check_that(client_wait(c, "\r\n", end - seconds_now()), "no chunk: %.300s", c->data);
        char *after;
        size_t n = strtoul(c->data, &after, 16);
        check_that(after != c->data && after[0] == '\r' && after[1] == '\n', "chunk begins with %.40s", c->data);
        size_t head = (size_t)(after - c->data) + 2;
        need(c, head + n + 2, end, "chunk");
        check_that(memcmp(c->data + head + n, "\r\n", 2) == 0, "a chunk of %zu bytes does not end with CRLF", n);
        r->body = realloc(r->body, r->n_body + n + 1);
        memcpy(r->body + r->n_body, c->data + head, n);
        r->n_body += n;
        r->body[r->n_body] = '\0';
        consume(c, head + n + 2);
        if (n == 0)
            return;
        r->n_chunks++;
    }
}

response client_response(client *c, bool head_only, double seconds)
{
    response r = { 0 };
    double end = seconds_now() + seconds;
    check_that(client_wait(c, "\r\n\r\n", seconds), "no response%s%s, got: %.300s", c->ended ? ", closed" : "",
               c->reset ? ", reset" : "", c->data);
    size_t n = (size_t)(find_bytes(c, "\r\n\r\n") - c->data) + 4;
    check_that(n < sizeof r.head, "a head of %zu bytes", n);
    memcpy(r.head, c->data, n);
    check_that(sscanf(r.head, "HTTP/1.%*d %d ", &r.status) == 1, "status line: %.100s", r.head);
    consume(c, n);
    const char *length = response_header(&r, "Content-Length");
    const size_t n_body = length ? strtoul(length, NULL, 10) : 0;
    const char *coding = response_header(&r, "Transfer-Encoding");
    r.chunked = coding && strcmp(coding, "chunked") == 0;
    r.body = calloc(1, 1);
    if (head_only || r.status < 200 || r.status == 204)
        return r;
    if (r.chunked) {
        read_chunks(c, &r, end);
        return r;
    }
    if (!length) {
        r.to_end = true;
        check_that(client_wait_end(c, end - seconds_now()), "a body without length does not end");
    }
    r.n_body = length ? n_body : c->n;
    need(c, r.n_body, end, "body");
    r.body = realloc(r.body, r.n_body + 1);
    memcpy(r.body, c->data, r.n_body);
    r.body[r.n_body] = '\0';
    consume(c, r.n_body);
    return r;
}

void response_free(response *r)
{
    free(r->body);
    r->body = NULL;
}

response client_ask(client *c, const char *request)
{
    client_send(c, request);
    return client_response(c, strncmp(request, "HEAD", 4) == 0, 10);
}
