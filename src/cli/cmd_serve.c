/* cmd_serve.c - `bellwether serve`: reads the command line, starts the server, prints what it has to
 * say. Everything on stderr; stdout stays empty. Main thread; log lines may come from others. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bellwether.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/setup.h"
#include "cli/terminal.h"
#include "server/serve.h"

enum { MAX_KEYS = 4096, MAX_KEY = 1024 };

/* Bytes, as people write them. */
typedef struct size_option {
    bool given;
    uint64_t bytes;
} size_option;

typedef struct serve_options {
    bw_setup setup;
    const char *model, *host, *key_file;
    int port, max_seqs, max_waiting, min_prefill, draft;
    int sampling_defaults, late_system, reasoning_field, stream_interval, max_n, max_connections;
    size_option kv_memory, cache_memory, max_body;
    bool no_cache, insecure, no_self_test, no_web, log_requests, metrics_legacy;
    float decode_gap_ms, sse_ping_s, request_timeout_s, drain_timeout_s; /* NAN: not given */
    float header_timeout_s, body_timeout_s, idle_timeout_s, write_timeout_s;
    bw_list_option keys, ids, origins;
} serve_options;

/* "2GiB", "500MB", "1.5G", "1073741824": GiB is 2^30, GB 10^9, a bare letter the power of two. */
static bool read_size(void *target, const char *text)
{
    static const struct {
        const char *name;
        double bytes;
    } units[] = { { "", 1 }, { "B", 1 }, { "K", 0x1p10 }, { "M", 0x1p20 }, { "G", 0x1p30 }, { "T", 0x1p40 },
                  { "KiB", 0x1p10 }, { "MiB", 0x1p20 }, { "GiB", 0x1p30 }, { "TiB", 0x1p40 },
                  { "KB", 1e3 }, { "MB", 1e6 }, { "GB", 1e9 }, { "TB", 1e12 } };
    size_option *size = target;
    char *end;
    if (text[0] < '0' || text[0] > '9' || text[0] == 0 || (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')))
        return false;
    const double number = strtod(text, &end);
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (strcmp(end, units[i].name) == 0 && number * units[i].bytes < 0x1p60) {
            *size = (size_option){ true, (uint64_t)(number * units[i].bytes) };
            return true;
        }
    return false;
}

static const char size_expected[] = "a size such as 2GiB, 500MB or 1073741824";

static bw_args_result read_options(serve_options *o, int argc, char **argv)
{
    *o = (serve_options){ .setup = BW_SETUP_DEFAULTS, .host = "127.0.0.1", .port = 8080, .max_n = 16, .stream_interval = 1,
                          .decode_gap_ms = NAN, .sse_ping_s = NAN, .request_timeout_s = NAN, .drain_timeout_s = NAN,
                          .header_timeout_s = NAN, .body_timeout_s = NAN, .idle_timeout_s = NAN, .write_timeout_s = NAN };
    const bw_option options[] = {
        { BW_OPTION_GROUP, .name = "Address" },
        { BW_OPTION_TEXT, "--host", "ADDRESS", &o->host, .expected = "an address to listen on",
          .help = "default 127.0.0.1; one that other machines can\nreach wants keys, or --insecure" },
        { BW_OPTION_INT, "--port", "N", &o->port, .help = "default 8080; 0: any free one, which is said", .low = 0,
          .high = 65535 },
        { BW_OPTION_LIST, "--api-key", "KEY", &o->keys, .help = "requests must bring it; may be repeated (visible in\nthe list of processes: better a file)" },
        { BW_OPTION_TEXT, "--api-key-file", "FILE", &o->key_file, .expected = "a file name",
          .help = "one key a line; empty lines and # ... are left out" },
        { BW_OPTION_SET, .name = "--insecure", .target = &o->insecure,
          .help = "listen on any address without keys" },
        { BW_OPTION_LIST, "--cors-origin", "ORIGIN", &o->origins,
          .help = "pages from there may call, such as\nhttp://localhost:3000; may be repeated" },

        { BW_OPTION_GROUP, .name = "What is served" },
        { BW_OPTION_LIST, "--model-id", "NAME", &o->ids,
          .help = "the model's name in the API, repeated: more names\nfor it; default: the last part of the path" },
        { BW_OPTION_CHOICE, .name = "--sampling-defaults", .value = "checkpoint|openai", .target = &o->sampling_defaults,
          .choices = "checkpoint|openai",
          .help = "what a request that says nothing is sampled with;\ndefault checkpoint; openai: 1, 1, no top-k" },
        { BW_OPTION_CHOICE, .name = "--late-system", .value = "join|error", .target = &o->late_system, .choices = "join|error",
          .help = "a system message later in a chat is joined to the\nfirst (default) or refused" },
        { BW_OPTION_CHOICE, .name = "--reasoning-field", .value = "both|content|short|inline", .target = &o->reasoning_field,
          .choices = "both|content|short|inline",
          .help = "thinking comes as reasoning_content and reasoning\n(default), one of them, or inside the answer" },
        { BW_OPTION_INT, "--stream-interval", "N", &o->stream_interval, .help = "tokens per event of a stream; default 1",
          .low = 1, .high = 1024 },
        { BW_OPTION_INT, "--max-n", "N", &o->max_n, .help = "choices of one request at most; default 16", .low = 1,
          .high = 1024 },
        { BW_OPTION_SET, .name = "--no-web", .target = &o->no_web, .help = "no page at /" },

        { BW_OPTION_GROUP, .name = "Memory and queue" },
        { BW_OPTION_INT, "--max-seqs", "N", &o->max_seqs,
          .help = "sequences at a time; default 32, or what the free\nmemory holds, which is said", .low = 1, .high = 1024 },
        { BW_OPTION_INT, "--max-waiting", "N", &o->max_waiting,
          .help = "requests that may wait, 429 for more; default\n4 times --max-seqs, at least 64", .low = 1, .high = 65536 },
        { BW_OPTION_CUSTOM, "--kv-memory", "SIZE", &o->kv_memory, .read = read_size, .expected = size_expected,
          .help = "keys and values of all sequences together, at\nleast one full context; default from free memory" },
        { BW_OPTION_CUSTOM, "--cache-memory", "SIZE", &o->cache_memory, .read = read_size, .expected = size_expected,
          .help = "checkpoints of the prefix cache; 0: no cache;\ndefault from free memory" },
        { BW_OPTION_SET, .name = "--no-cache", .target = &o->no_cache, .help = "no prefix cache: every prompt is computed" },

        BW_SETUP_OPTIONS(o->setup, "room for prompt and answer of a sequence; default:\nthe model's, at most 32768"),
        { BW_OPTION_CHOICE, .name = "--draft", .value = "auto|off", .target = &o->draft, .choices = "auto|off",
          .help = "whether the MTP head drafts; changes the speed,\nnever the text; default auto" },
        { BW_OPTION_NUMBER, "--decode-gap", "MS", &o->decode_gap_ms,
          .help = "a step takes no longer than this while answers\nstream; default: twice a decode step, or that and\n64 tokens of prompt",
          .low = 0, .high = 3.6e6, .open = BW_OPEN_LOW },
        { BW_OPTION_INT, "--min-prefill", "N", &o->min_prefill,
          .help = "tokens of prompt a step takes whatever the gap;\ndefault 64", .low = 1, .high = 65536 },

        { BW_OPTION_GROUP, .name = "Limits" },
        { BW_OPTION_NUMBER, "--request-timeout", "S", &o->request_timeout_s,
          .help = "a request that takes longer is ended with 504;\ndefault 0: never", .low = 0, .high = 1e6 },
        { BW_OPTION_NUMBER, "--drain-timeout", "S", &o->drain_timeout_s,
          .help = "how long answers may still run after SIGTERM;\ndefault 30", .low = 0, .high = 1e6 },
        { BW_OPTION_NUMBER, "--sse-ping", "S", &o->sse_ping_s,
          .help = "a comment on a stream that is silent for so long;\n0: never; default 30", .low = 0, .high = 1e6 },
        { BW_OPTION_NUMBER, "--header-timeout", "S", &o->header_timeout_s,
          .help = "for the head of a request to come; default 10", .low = 0, .high = 1e6, .open = BW_OPEN_LOW },
        { BW_OPTION_NUMBER, "--body-timeout", "S", &o->body_timeout_s,
          .help = "a body may stall for so long; default 30", .low = 0, .high = 1e6, .open = BW_OPEN_LOW },
        { BW_OPTION_NUMBER, "--idle-timeout", "S", &o->idle_timeout_s,
          .help = "a connection may idle for so long, longer than in\nthe pool of a proxy in front; default 75", .low = 0,
          .high = 1e6, .open = BW_OPEN_LOW },
        { BW_OPTION_NUMBER, "--write-timeout", "S", &o->write_timeout_s,
          .help = "a client may take nothing of its answer for so\nlong; default 60", .low = 0, .high = 1e6,
          .open = BW_OPEN_LOW },
        { BW_OPTION_INT, "--max-connections", "N", &o->max_connections, .help = "default 4096", .low = 1, .high = 1000000 },
        { BW_OPTION_CUSTOM, "--max-body", "SIZE", &o->max_body, .read = read_size, .expected = size_expected,
          .help = "of a request; default 64MiB" },

        { BW_OPTION_GROUP, .name = "Looking on" },
        { BW_OPTION_SET, .name = "--log-requests", .target = &o->log_requests,
          .help = "a line per request on stderr, never its text" },
        { BW_OPTION_SET, .name = "--metrics-legacy", .target = &o->metrics_legacy,
          .help = "older names of some metrics, too" },
        { BW_OPTION_SET, .name = "--no-self-test", .target = &o->no_self_test,
          .help = "serve without having tried drafts and cache" },
    };
    static const char about[] =
        "Serves MODEL, a Hugging Face folder or a .gguf file, to programs that speak the OpenAI\n"
        "API, under /v1, and to people at /. Listens at once and answers 503 until the model is\n"
        "loaded. SIGTERM or Ctrl-C ends it when what runs is done, a second one at once.\n";
    const bw_command command = { "serve", "MODEL", 1, 1, about, options, sizeof options / sizeof options[0],
                                 "bellwether serve models/lamb --port 8080" };
    const char *positionals[1];
    bw_args_result result = bw_args_read(&command, argc, argv, positionals);
    o->model = positionals[0];
    return result;
}

/* As browsers send it, to be compared byte by byte: scheme, host, port if any, nothing behind; `null` is that of a file. */
static bool is_origin(const char *text)
{
    if (strcmp(text, "null") == 0)
        return true;
    const char *host = strstr(text, "://");
    if (!host || host == text || !host[3])
        return false;
    for (const char *c = text; *c; c++)
        if (*c <= ' ' || *c > '~' || (*c >= 'A' && *c <= 'Z'))
            return false;
    return !strpbrk(host + 3, "/?#@*");
}

static int check_options(const serve_options *o)
{
    for (int i = 0; i < o->origins.n; i++)
        if (!is_origin(o->origins.items[i]))
            return bw_args_fail("serve", "--cors-origin: given \"%s\", expected an origin as browsers send it, such as "
                                "http://localhost:3000, in small letters, with nothing behind the port", o->origins.items[i]);
    if (o->kv_memory.given && o->kv_memory.bytes == 0)
        return bw_args_fail("serve", "--kv-memory: given \"0\", expected the room of at least one full context");
    if (o->max_body.given && o->max_body.bytes == 0)
        return bw_args_fail("serve", "--max-body: given \"0\", expected at least 1: requests have a body");
    if (o->no_cache && o->cache_memory.given)
        return bw_args_fail("serve", "--no-cache and --cache-memory are both given, expected one of them");
    if (o->host[0] == '\0')
        return bw_args_fail("serve", "--host: given \"\", expected an address to listen on, such as 127.0.0.1");
    return 0;
}

/* ---- keys ------------------------------------------------------------------------------------ */

typedef struct key_list {
    const char *items[MAX_KEYS];
    int n;
    char *text; /* of the file */
} key_list;

static bool is_key(const char *text)
{
    for (const char *c = text; *c; c++)
        if (*c < 0x21 || *c > 0x7E)
            return false;
    return text[0] != '\0' && strlen(text) <= MAX_KEY;
}

static bool add_key(key_list *keys, const char *text, const char *from, int number)
{
    if (!is_key(text)) {
        bw_terminal_fail("%s %d: not a key, expected 1 to %d visible ASCII characters", from, number, MAX_KEY);
        return false;
    }
    if (keys->n == MAX_KEYS) {
        bw_terminal_fail("%s %d: more than %d keys", from, number, MAX_KEYS);
        return false;
    }
    keys->items[keys->n++] = text;
    return true;
}

/* White space around a line is no part of it, nor is what follows a # at its start. */
static char *trimmed(char *line)
{
    line += strspn(line, " \t\r");
    size_t n = strlen(line);
    while (n && strchr(" \t\r", line[n - 1]))
        line[--n] = '\0';
    return line;
}

static bool add_lines(key_list *keys, const char *path, char *text)
{
    char from[4200];
    int number = 1;
    snprintf(from, sizeof from, "%s, line", path);
    for (char *line = text, *next; line; line = next, number++) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        const char *key = trimmed(line);
        if (key[0] && key[0] != '#' && !add_key(keys, key, from, number))
            return false;
    }
    return true;
}

/* The whole file, NUL-terminated; NULL after a message. */
static char *read_key_file(const char *path)
{
    enum { MOST = 1 << 22 };
    FILE *file = fopen(path, "r");
    char *text = file ? malloc(MOST + 1) : NULL;
    if (!file)
        bw_terminal_fail("--api-key-file %s: cannot open: %s", path, strerror(errno));
    else if (!text)
        bw_terminal_fail("--api-key-file %s: out of memory", path);
    if (text) {
        const size_t n = fread(text, 1, MOST + 1, file);
        const bool failed = ferror(file);
        const int why = errno;
        if (failed || n > MOST || memchr(text, 0, n)) {
            bw_terminal_fail("--api-key-file %s: %s", path,
                             failed ? strerror(why) : n > MOST ? "larger than 4 MiB, expected one key a line" :
                             "has a NUL byte in it, expected one key a line");
            free(text);
            text = NULL;
        } else {
            text[n] = '\0';
        }
    }
    if (file)
        fclose(file);
    return text;
}

/* False after a message. A file without a key is a mistake: it would switch the check off. */
static bool collect_keys(key_list *keys, const serve_options *o)
{
    for (int i = 0; i < o->keys.n; i++)
        if (!add_key(keys, o->keys.items[i], "--api-key, number", i + 1))
            return false;
    if (!o->key_file)
        return true;
    const int before = keys->n;
    if (!(keys->text = read_key_file(o->key_file)) || !add_lines(keys, o->key_file, keys->text))
        return false;
    if (keys->n == before) {
        bw_terminal_fail("--api-key-file %s: no key in it, expected one a line", o->key_file);
        return false;
    }
    return true;
}

/* ---- the command ----------------------------------------------------------------------------- */

static void print_line(void *arg, const char *line)
{
    (void)arg;
    fprintf(stderr, "%s\n", line);
}

/* Several threads have something to say; a line is one call of stdio and stays whole. */
static void log_line(void *arg, bw_log_level level, const char *line)
{
    (void)arg;
    fprintf(stderr, "bellwether: %s: %s\n", level == BW_LOG_WARNING ? "warning" : "note", line);
}

static void set_if_given(double *to, float given)
{
    if (!isnan(given))
        *to = (double)given;
}

static bw_serve_options serve_options_of(const serve_options *o, const key_list *keys)
{
    static const bw_activations activations[] = { BW_ACTIVATIONS_AUTO, BW_ACTIVATIONS_INT8, BW_ACTIVATIONS_F32 };
    bw_serve_options s = bw_serve_defaults();
    s.model_path = o->model;
    s.model.n_threads = o->setup.threads;
    s.model.pin = o->setup.pin;
    s.model.activations = activations[o->setup.activations + 1];
    s.model.ignore_mtp = o->draft == 1;
    s.engine.context = o->setup.context;
    s.engine.kv = o->setup.kv == 1 ? BW_KV_F32 : BW_KV_F16;
    s.engine.chunk = o->setup.chunk;
    s.engine.no_drafts = o->draft == 1;
    s.engine.draft_vocab = o->setup.draft_vocab;
    s.engine.max_seqs = o->max_seqs;
    s.engine.kv_memory = o->kv_memory.bytes;
    s.engine.cache_memory = o->cache_memory.bytes;
    s.engine.decode_gap_s = isnan(o->decode_gap_ms) ? 0 : (double)o->decode_gap_ms * 1e-3;
    s.engine.min_prefill = o->min_prefill;
    s.kv_given = o->kv_memory.given;
    s.cache_given = o->cache_memory.given || o->no_cache;
    s.max_waiting = o->max_waiting;
    s.http.host = o->host;
    s.http.port = o->port;
    s.http.keys = keys->items;
    s.http.n_keys = keys->n;
    s.http.origins = o->origins.items;
    s.http.n_origins = o->origins.n;
    if (o->max_connections)
        s.http.max_connections = o->max_connections;
    if (o->max_body.given)
        s.http.max_body = (size_t)o->max_body.bytes;
    set_if_given(&s.http.ping_s, o->sse_ping_s);
    set_if_given(&s.http.header_timeout_s, o->header_timeout_s);
    set_if_given(&s.http.body_timeout_s, o->body_timeout_s);
    set_if_given(&s.http.idle_timeout_s, o->idle_timeout_s);
    set_if_given(&s.http.write_timeout_s, o->write_timeout_s);
    s.insecure = o->insecure;
    s.model_ids = o->ids.items;
    s.n_model_ids = o->ids.n;
    s.max_n = o->max_n;
    s.openai_sampling = o->sampling_defaults == 1;
    s.late_system = o->late_system == 1 ? BW_LATE_SYSTEM_ERROR : BW_LATE_SYSTEM_JOIN;
    s.reasoning_field = (bw_reasoning_field)o->reasoning_field;
    s.stream_interval = o->stream_interval;
    s.request_timeout_s = isnan(o->request_timeout_s) ? 0 : (double)o->request_timeout_s;
    set_if_given(&s.drain_timeout_s, o->drain_timeout_s);
    s.metrics_legacy = o->metrics_legacy;
    s.no_self_test = o->no_self_test;
    s.no_web = o->no_web;
    s.log_requests = o->log_requests;
    s.print = print_line;
    return s;
}

_Static_assert(BW_REASONING_BOTH == 0 && BW_REASONING_CONTENT == 1 && BW_REASONING_SHORT == 2 && BW_REASONING_INLINE == 3,
               "the order of --reasoning-field's words");

int bw_cmd_serve(int argc, char **argv)
{
    serve_options options;
    static key_list keys; /* too large for the stack */
    const bw_args_result result = read_options(&options, argc, argv);
    if (result != BW_ARGS_RUN)
        return result == BW_ARGS_DONE ? 0 : 2;
    const int wrong = check_options(&options);
    if (wrong)
        return wrong;
    int status = 1;
    if (collect_keys(&keys, &options)) {
        const bw_serve_options serve = serve_options_of(&options, &keys);
        bw_error err = { 0 };
        setvbuf(stderr, NULL, _IOLBF, 0);
        bw_log_to(log_line, NULL);
        status = bw_serve(&serve, &err) == BW_OK ? 0 : bw_terminal_fail("%s", err.message);
        if (bw_serve_still_loading())
            _exit(status);
    }
    free(keys.text);
    return status;
}
