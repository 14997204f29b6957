/* http_strict.c - the machine of http_strict.h: lines, fields, lengths, chunks. RFC 9112, its strict side.
 *
 * Every rule here closes a way in which a proxy in front and we could disagree where a request ends. */
#include "server/http_strict.h"

#include <string.h>
#include <strings.h>

enum { REQUEST_LINE, FIELDS, PLAIN_BODY, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILERS, COMPLETE, REFUSED };

/* Longest chunk line, and all extensions of a body together: nobody uses them. */
enum { MAX_CHUNK_LINE = 256, MAX_EXTENSIONS = 16384, MAX_METHOD = 32, MAX_EMPTY_LINES = 4 };

bw_strict_limits bw_strict_default_limits(void)
{
    return (bw_strict_limits){ .line = 8192, .headers = 65536, .fields = 100, .body = (uint64_t)64 << 20 };
}

void bw_strict_init(bw_strict *s, bw_strict_limits limits)
{
    *s = (bw_strict){ .limits = limits, .state = REQUEST_LINE };
}

void bw_strict_fini(bw_strict *s)
{
    bw_bytes_fini(&s->line);
    bw_bytes_fini(&s->start);
    bw_bytes_fini(&s->fields);
}

void bw_strict_reset(bw_strict *s)
{
    bw_strict_fini(s);
    bw_strict_init(s, s->limits);
}

static bool refuse(bw_strict *s, int status, const char *code, const char *message)
{
    s->state = REFUSED;
    s->status = status;
    s->code = code;
    s->message = message;
    return false;
}

static bool bad(bw_strict *s, const char *message)
{
    return refuse(s, 400, "bad_request", message);
}

static bool no_memory(bw_strict *s)
{
    return refuse(s, 503, "out_of_memory", "the server is out of memory");
}

/* ---- characters ---- */

static bool is_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

static size_t token_length(const char *text)
{
    size_t n = 0;
    while (is_token_char(text[n]))
        n++;
    return n;
}

/* Bytes of a line that are neither its end nor forbidden in it. */
static size_t plain_length(const char *bytes, size_t n)
{
    size_t i = 0;
    while (i < n && ((unsigned char)bytes[i] >= ' ' || bytes[i] == '\t') && bytes[i] != 0x7F)
        i++;
    return i;
}

/* ---- the request line ---- */

/* "http://host/path" to "/path"; NULL: not a form we serve. */
static const char *path_of(const char *method, char *target)
{
    if (target[0] == '/')
        return target;
    if (strcmp(target, "*") == 0 && strcmp(method, "OPTIONS") == 0)
        return target;
    size_t n = strncasecmp(target, "http://", 7) == 0 ? 7 : strncasecmp(target, "https://", 8) == 0 ? 8 : 0;
    if (n == 0 || target[n] == '/' || target[n] == '?' || target[n] == '\0')
        return NULL;
    char *path = target + n + strcspn(target + n, "/?");
    if (*path == '/')
        return path;
    if (*path == '?') { /* an empty path before a query: the byte before it is the host's last */
        *--path = '/';
        return path;
    }
    return "/";
}

static bool take_version(bw_strict *s, const char *version)
{
    if (strncmp(version, "HTTP/", 5) != 0 || strlen(version) != 8 || version[5] < '0' || version[5] > '9' ||
        version[6] != '.' || version[7] < '0' || version[7] > '9')
        return bad(s, "the request line is not METHOD SP TARGET SP HTTP/1.1");
    if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0)
        return refuse(s, 505, "http_version", "this server speaks HTTP/1.1 and HTTP/1.0");
    s->minor = version[7] - '0';
    s->keep_alive = s->minor == 1;
    return true;
}

static bool take_request_line(bw_strict *s)
{
    bw_bytes line = s->line;
    s->line = (bw_bytes){ 0 };
    bw_bytes_fini(&s->start);
    s->start = line; /* method and target are pointers into it */
    char *method = line.data, *target = strchr(method, ' '), *version = target ? strchr(target + 1, ' ') : NULL;
    const size_t n_method = token_length(method);
    if (n_method == 0 || n_method > MAX_METHOD || method[n_method] != ' ' || !version)
        return bad(s, "the request line is not METHOD SP TARGET SP HTTP/1.1");
    *target++ = *version++ = '\0';
    if (!take_version(s, version))
        return false;
    for (const char *c = target; *c; c++)
        if (*c <= ' ' || *c > '~' || *c == '#')
            return bad(s, "the request target holds a character that must be escaped with %");
    s->method = method;
    s->target = path_of(method, target);
    return s->target || bad(s, "the request target must be a path that begins with /");
}

/* ---- fields ---- */

/* Digits only: no sign, no space, no list. */
static bool take_length(bw_strict *s, const char *value)
{
    uint64_t n = 0;
    const size_t digits = strspn(value, "0123456789");
    if (digits == 0 || value[digits])
        return bad(s, "Content-Length is not a plain number");
    for (size_t i = 0; i < digits; i++)
        n = n > UINT64_MAX / 10 - 1 ? UINT64_MAX / 10 : n * 10 + (uint64_t)(value[i] - '0');
    if (s->has_length && n != s->length)
        return bad(s, "two Content-Length fields differ");
    s->has_length = true;
    s->length = n;
    return true;
}

static bool take_coding(bw_strict *s, const char *value)
{
    if (s->has_coding)
        return bad(s, "Transfer-Encoding is given twice");
    s->has_coding = true;
    if (s->minor == 0)
        return bad(s, "Transfer-Encoding in an HTTP/1.0 request");
    if (strcasecmp(value, "chunked") != 0)
        return refuse(s, 501, "transfer_encoding", "the only Transfer-Encoding served is chunked");
    s->chunked = true;
    return true;
}

static bool take_host(bw_strict *s, const char *value)
{
    if (s->n_hosts++)
        return bad(s, "Host is given twice");
    for (const char *c = value; *c; c++)
        if (*c <= ' ' || *c > '~' || strchr(",/\\@?#\"<>", *c))
            return bad(s, "Host is not a host name");
    return true;
}

/* "close", "keep-alive" among other names. */
static bool take_connection(bw_strict *s, const char *value)
{
    while (*value) {
        value += strspn(value, ", \t");
        size_t n = strcspn(value, ", \t");
        if (n == 5 && strncasecmp(value, "close", 5) == 0)
            s->close = true; /* wins over whatever else is said */
        else if (n == 10 && strncasecmp(value, "keep-alive", 10) == 0)
            s->keep_alive = true;
        value += n;
    }
    return true;
}

static bool take_expect(bw_strict *s, const char *value)
{
    if (strcasecmp(value, "100-continue") != 0)
        return refuse(s, 417, "expectation", "the only expectation served is 100-continue");
    s->expect_continue = s->minor == 1;
    return true;
}

static bool keep_field(bw_strict *s, const char *name, const char *value)
{
    bw_bytes_add(&s->fields, name, strlen(name) + 1);
    bw_bytes_add(&s->fields, value, strlen(value) + 1);
    s->n_fields++;
    return !s->fields.failed || no_memory(s);
}

/* Fields that decide about framing and the connection. */
static const struct {
    const char *name;
    bool (*take)(bw_strict *s, const char *value);
} own_fields[] = {
    { "Content-Length", take_length }, { "Transfer-Encoding", take_coding }, { "Host", take_host },
    { "Connection", take_connection }, { "Expect", take_expect },
};

/* One line of fields or trailers, cut into name and value. */
static bool split_field(bw_strict *s, char **name, char **value)
{
    char *line = s->line.data;
    if (line[0] == ' ' || line[0] == '\t')
        return bad(s, "a header is folded over two lines");
    const size_t n = token_length(line);
    if (n == 0 || line[n] != ':')
        return bad(s, "a header is not NAME: VALUE without white space around the name");
    line[n] = '\0';
    *name = line;
    *value = line + n + 1 + strspn(line + n + 1, " \t");
    char *end = line + s->line.n;
    while (end > *value && (end[-1] == ' ' || end[-1] == '\t'))
        *--end = '\0';
    return ++s->n_lines <= s->limits.fields ||
           refuse(s, 431, "too_many_headers", "the request has more header fields than this server takes");
}

static bool take_field(bw_strict *s)
{
    char *name, *value;
    if (!split_field(s, &name, &value))
        return false;
    for (size_t i = 0; i < sizeof own_fields / sizeof own_fields[0]; i++)
        if (strcasecmp(name, own_fields[i].name) == 0 && !own_fields[i].take(s, value))
            return false;
    return keep_field(s, name, value);
}

/* The empty line: what is the body? */
static bool end_head(bw_strict *s)
{
    if (s->minor == 1 && s->n_hosts == 0)
        return bad(s, "an HTTP/1.1 request without Host");
    if (s->has_length && s->has_coding)
        return bad(s, "both Content-Length and Transfer-Encoding");
    if (s->length > s->limits.body)
        return refuse(s, 413, "body_too_large", "the body is larger than this server takes (--max-body)");
    s->keep_alive &= !s->close;
    s->left = s->length;
    s->state = s->chunked ? CHUNK_SIZE : s->left ? PLAIN_BODY : COMPLETE;
    return true;
}

const char *bw_strict_field(const char *fields, int n_fields, const char *name)
{
    for (int i = 0; i < n_fields; i++) {
        const char *value = fields + strlen(fields) + 1;
        if (strcasecmp(fields, name) == 0)
            return value;
        fields = value + strlen(value) + 1;
    }
    return NULL;
}

/* ---- chunks ---- */

int bw_strict_hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20; /* lower case */
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* SIZE or SIZE;extensions */
static bool take_chunk_line(bw_strict *s)
{
    const char *line = s->line.data;
    uint64_t n = 0;
    int digits = 0;
    for (; bw_strict_hex(line[digits]) >= 0; digits++) {
        if (digits == 15)
            return bad(s, "a chunk's size has too many digits");
        n = n << 4 | (uint64_t)bw_strict_hex(line[digits]);
    }
    if (digits == 0 || (line[digits] && line[digits] != ';'))
        return bad(s, "a chunk's size is not a plain hexadecimal number");
    s->n_extensions += s->line.n - (size_t)digits;
    if (s->n_extensions > MAX_EXTENSIONS)
        return bad(s, "too many chunk extensions");
    if (n > s->limits.body - s->n_body)
        return refuse(s, 413, "body_too_large", "the body is larger than this server takes (--max-body)");
    s->left = n;
    s->state = n ? CHUNK_DATA : TRAILERS;
    if (n == 0) {
        s->n_section = 0;
        s->n_lines = 0;
    }
    return true;
}

/* ---- lines ---- */

static bool line_fits(bw_strict *s, size_t more)
{
    const size_t n = s->line.n + more;
    switch (s->state) {
    case REQUEST_LINE:
        return n <= s->limits.line || refuse(s, 414, "uri_too_long", "the request line is longer than this server takes");
    case CHUNK_SIZE:
        return n <= MAX_CHUNK_LINE || bad(s, "a chunk's size line is too long");
    case CHUNK_END:
        return n == 0 || bad(s, "a chunk is longer than its size");
    default:
        return s->n_section + n + 2 <= s->limits.headers ||
               refuse(s, 431, "headers_too_large", "the header fields are larger than this server takes");
    }
}

/* Acts on the complete line. *event: MORE, HEAD or DONE. */
static bool take_line(bw_strict *s, bw_strict_event *event)
{
    const bool empty = s->line.n == 0;
    switch (s->state) {
    case REQUEST_LINE:
        if (empty) /* after the body of an old client */
            return ++s->n_empty <= MAX_EMPTY_LINES || bad(s, "empty lines instead of a request");
        if (!take_request_line(s))
            return false;
        s->state = FIELDS;
        return true;
    case FIELDS:
        if (empty) {
            *event = BW_STRICT_HEAD;
            return end_head(s);
        }
        break;
    case TRAILERS:
        if (empty) {
            s->state = COMPLETE;
            return true;
        }
        break;
    case CHUNK_SIZE:
        return take_chunk_line(s);
    default: /* CHUNK_END */
        s->state = CHUNK_SIZE;
        return true;
    }
    s->n_section += s->line.n + 2;
    char *name, *value;
    return s->state == FIELDS ? take_field(s) : split_field(s, &name, &value);
}

/* Up to the end of a line. */
static size_t feed_line(bw_strict *s, const char *bytes, size_t n, bw_strict_event *event)
{
    size_t used = 0;
    if (!s->cr) {
        used = plain_length(bytes, n);
        if (used && !line_fits(s, used))
            return 0;
        bw_bytes_add(&s->line, bytes, used);
        if (s->line.failed) {
            no_memory(s);
            return 0;
        }
        if (used)
            s->started = true;
        if (used == n)
            return used;
        if (bytes[used] != '\r') {
            bad(s, bytes[used] == '\n' ? "a line ends with LF alone" : "a control character in the head");
            return used;
        }
        used++;
        s->cr = true;
        if (used == n)
            return used;
    }
    if (bytes[used] != '\n') {
        bad(s, "CR alone");
        return used;
    }
    s->cr = false;
    bw_bytes_add(&s->line, "", 0); /* NUL-terminated also when empty */
    if (s->line.failed)
        no_memory(s);
    else if (take_line(s, event))
        s->line.n = 0;
    return used + 1;
}

static size_t feed_body(bw_strict *s, size_t n, bw_strict_event *event)
{
    const size_t used = n < s->left ? n : (size_t)s->left;
    s->left -= used;
    s->n_body += used;
    if (s->left == 0)
        s->state = s->state == PLAIN_BODY ? COMPLETE : CHUNK_END;
    *event = BW_STRICT_BODY;
    return used;
}

size_t bw_strict_feed(bw_strict *s, const char *bytes, size_t n, bw_strict_event *event)
{
    size_t used = 0;
    *event = BW_STRICT_MORE;
    while (used < n && *event == BW_STRICT_MORE && s->state < COMPLETE) {
        if (s->state == PLAIN_BODY || s->state == CHUNK_DATA) {
            if (!used)
                return feed_body(s, n, event);
            *event = BW_STRICT_FRAMING;
            return used;
        }
        used += feed_line(s, bytes + used, n - used, event);
    }
    if (s->state == REFUSED)
        *event = BW_STRICT_REFUSED;
    else if (s->state == COMPLETE && *event == BW_STRICT_MORE)
        *event = BW_STRICT_DONE;
    return used;
}
