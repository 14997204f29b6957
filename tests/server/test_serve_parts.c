/* What a server decides before it serves: how memory is shared out, whom it tells. */
#include "lib/check.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/mem.h"
#include "server/memory_choice.h"
#include "server/notify.h"
#include "server/serve.h"

#define GIB ((uint64_t)1 << 30)
#define MIB ((uint64_t)1 << 20)

static bw_memory_wish wish_of(uint64_t available)
{
    return (bw_memory_wish){ .available = available, .weights = 16 * GIB, .scratch = GIB, .context_bytes = 2 * GIB,
                             .sequence_bytes = 160 * MIB, .checkpoint_bytes = 150 * MIB, .max_seqs = 32 };
}

TEST(with_plenty_of_memory_every_sequence_gets_a_full_context)
{
    const bw_memory_wish wish = wish_of(512 * GIB);
    const bw_memory_choice c = bw_memory_choose(&wish);
    check_int(c.max_seqs, 32);
    check_int(c.kv_memory, 64 * GIB);
    check_int(c.cache_memory, 512 * 150 * MIB);
    check_int(c.headroom, 4 * GIB);
}

TEST(what_is_chosen_fits_beside_weights_scratch_and_headroom)
{
    for (uint64_t available = 20 * GIB; available < 300 * GIB; available += 177 * MIB) {
        const bw_memory_wish wish = wish_of(available);
        const bw_memory_choice c = bw_memory_choose(&wish);
        check(c.kv_memory >= wish.context_bytes && c.kv_memory <= (uint64_t)c.max_seqs * wish.context_bytes);
        check(c.max_seqs >= 1 && c.max_seqs <= 32);
        check_that(c.cache_memory == 0 || c.cache_memory >= wish.checkpoint_bytes, "%llu bytes for checkpoints are too little "
                   "for one", (unsigned long long)c.cache_memory);
        const uint64_t taken = c.kv_memory + c.cache_memory + (uint64_t)c.max_seqs * wish.sequence_bytes + wish.scratch;
        if (available > 24 * GIB) /* else even the least does not fit, which the engine says */
            check_that(taken + wish.weights + c.headroom <= available, "of %llu MiB %llu are taken",
                       (unsigned long long)(available / MIB), (unsigned long long)(taken / MIB));
    }
}

TEST(where_memory_is_short_there_are_fewer_sequences_but_one_full_context)
{
    const bw_memory_wish wish = wish_of(24 * GIB);
    const bw_memory_choice c = bw_memory_choose(&wish);
    check(c.max_seqs < 32 && c.max_seqs > 1);
    check(c.kv_memory >= wish.context_bytes);
    const bw_memory_wish none = wish_of(8 * GIB);
    check_int(bw_memory_choose(&none).max_seqs, 1);
    check_int(bw_memory_choose(&none).kv_memory, none.context_bytes);
    check_int(bw_memory_choose(&none).cache_memory, 0);
}

TEST(what_was_given_is_not_changed)
{
    bw_memory_wish wish = wish_of(40 * GIB);
    wish.seqs_given = wish.kv_given = wish.cache_given = true;
    wish.kv_memory = 3 * GIB;
    wish.cache_memory = 0;
    bw_memory_choice c = bw_memory_choose(&wish);
    check_int(c.max_seqs, 32);
    check_int(c.kv_memory, 3 * GIB);
    check_int(c.cache_memory, 0);
    wish.kv_given = false;
    wish.cache_memory = 5 * GIB;
    c = bw_memory_choose(&wish);
    check_int(c.cache_memory, 5 * GIB);
    check(c.kv_memory + c.cache_memory + 32 * wish.sequence_bytes + wish.scratch + wish.weights + c.headroom <= wish.available);
}

TEST(a_pool_that_was_given_larger_than_all_contexts_is_cut)
{
    bw_memory_wish wish = wish_of(200 * GIB);
    wish.kv_given = true;
    wish.kv_memory = 1000 * GIB;
    check_int(bw_memory_choose(&wish).kv_memory, 64 * GIB);
    check_int(bw_memory_choose(&wish).max_seqs, 32);
}

TEST(where_nothing_says_what_is_free_everything_is_given)
{
    const bw_memory_wish wish = wish_of(0);
    const bw_memory_choice c = bw_memory_choose(&wish);
    check_int(c.max_seqs, 32);
    check(c.kv_memory > wish.context_bytes && c.cache_memory > 0);
}

/* ---- the service manager --------------------------------------------------------------------- */

static int listen_at(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    const int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    check(fd >= 0 && bind(fd, (const struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

TEST(the_service_manager_gets_the_datagram)
{
    char path[100], text[100] = "";
    snprintf(path, sizeof path, "%s/notify", temp_dir());
    const int fd = listen_at(path);
    setenv("NOTIFY_SOCKET", path, 1);
    check(bw_notify("READY=1\nSTATUS=serving"));
    check_int(recv(fd, text, sizeof text - 1, MSG_DONTWAIT), 22);
    check_str(text, "READY=1\nSTATUS=serving");
    close(fd);
    check(!bw_notify("READY=1")); /* nobody is there any more */
    unsetenv("NOTIFY_SOCKET");
}

TEST(without_a_service_manager_nothing_is_sent)
{
    unsetenv("NOTIFY_SOCKET");
    check(!bw_notify("READY=1"));
    setenv("NOTIFY_SOCKET", "relative", 1);
    check(!bw_notify("READY=1"));
    char longer[300];
    memset(longer, '/', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    setenv("NOTIFY_SOCKET", longer, 1);
    check(!bw_notify("READY=1"));
    unsetenv("NOTIFY_SOCKET");
}

TEST(the_watchdog_is_due_twice_in_its_time)
{
    unsetenv("WATCHDOG_USEC");
    check(bw_notify_watchdog_s() <= 0);
    setenv("NOTIFY_SOCKET", "/nowhere", 1);
    setenv("WATCHDOG_USEC", "3000000", 1);
    check(bw_notify_watchdog_s() > 1.49 && bw_notify_watchdog_s() < 1.51);
    setenv("WATCHDOG_PID", "1", 1); /* somebody else's */
    check(bw_notify_watchdog_s() <= 0);
    unsetenv("WATCHDOG_PID");
    unsetenv("WATCHDOG_USEC");
    unsetenv("NOTIFY_SOCKET");
}

/* ---- refusals -------------------------------------------------------------------------------- */

TEST(without_keys_only_this_machine_is_listened_to)
{
    bw_serve_options o = bw_serve_defaults();
    bw_error err;
    o.model_path = "models/none";
    o.http.host = "0.0.0.0";
    o.http.port = 0;
    check_error(bw_serve(&o, &err), BW_E_ARGUMENT, err, "0.0.0.0", "--api-key-file", "--insecure");
    o.http.host = "127.example.invalid"; /* a name, whatever it resolves to */
    check_error(bw_serve(&o, &err), BW_E_ARGUMENT, err, "127.example.invalid", "--api-key-file");
    o.http.host = "::";
    check_error(bw_serve(&o, &err), BW_E_ARGUMENT, err, "--api-key-file");
    static const char *const keys[] = { "secret" };
    o.http.host = "127.0.0.1";
    check_error(bw_serve(&o, &err), BW_E_IO, err, "models/none"); /* it listened, and then there was no model */
    o.http.host = "0.0.0.0";
    o.http.keys = keys;
    o.http.n_keys = 1;
    check_error(bw_serve(&o, &err), BW_E_IO, err, "models/none");
}

TEST(model_ids_that_are_no_text_are_refused)
{
    static const char *const ids[][2] = { { "good", "b\xff" }, { "good", "" }, { "good", "a\nb" }, { "good", "a\x7f" } };
    bw_serve_options o = bw_serve_defaults();
    bw_error err;
    o.model_path = "models/none";
    o.http.port = 0;
    o.n_model_ids = 2;
    for (size_t i = 0; i < BW_COUNT(ids); i++) {
        o.model_ids = ids[i];
        check_error(bw_serve(&o, &err), BW_E_ARGUMENT, err, "model id 2 of 2");
    }
    static const char *const good[] = { "Qwen/Qwen3.5 \"a\"", "\xc3\xa9" };
    o.model_ids = good;
    check_error(bw_serve(&o, &err), BW_E_IO, err, "models/none");
}

/* ---- a whole life ---------------------------------------------------------------------------- */

/* Somebody reads the receipt, and stops the server as soon as it is there. */
typedef struct starter {
    int n_lines;
    bool self_test;
} starter;

static void read_receipt(void *arg, const char *line)
{
    starter *s = arg;
    s->n_lines++;
    s->self_test |= strstr(line, "self-test  not run") != NULL;
    if (strstr(line, "self-test"))
        raise(SIGTERM);
}

static bw_serve_options lamb_options(starter *s)
{
    bw_serve_options o = bw_serve_defaults();
    o.model_path = repo_path("models/lamb");
    o.model.n_threads = 1;
    o.http.port = 0;
    o.engine.context = 256;
    o.engine.max_seqs = 2;
    o.kv_given = o.cache_given = true;
    o.engine.kv_memory = 8 << 20;
    o.engine.cache_memory = 8 << 20;
    o.no_self_test = true;
    o.print = read_receipt;
    o.print_arg = s;
    return o;
}

TEST(a_server_tells_its_manager_when_it_is_ready_and_when_it_stops)
{
    char path[100], said[2000] = "";
    bw_error err;
    starter s = { 0 };
    snprintf(path, sizeof path, "%s/manager", temp_dir());
    const int fd = listen_at(path);
    const bw_serve_options o = lamb_options(&s);
    setenv("NOTIFY_SOCKET", path, 1);
    check_ok(bw_serve(&o, &err), err);
    unsetenv("NOTIFY_SOCKET");
    for (size_t n = 0; n < sizeof said - 1;) {
        const ssize_t got = recv(fd, said + n, sizeof said - 2 - n, MSG_DONTWAIT);
        if (got < 0)
            break;
        n += (size_t)got;
        said[n++] = ';';
    }
    close(fd);
    const char *loading = strstr(said, "STATUS=loading"), *ready = strstr(said, "READY=1\nSTATUS=serving on http://127.0.0.1:");
    const char *stopping = strstr(said, "STOPPING=1");
    check_that(loading && ready && stopping && loading < ready && ready < stopping, "it said: %s", said);
    check(s.n_lines >= 9 && s.self_test);
}

/* Of the thousands of allocations of a start, those at a growing distance: what fails says so, what
 * does not serves and ends. */
TEST(a_start_survives_failed_allocations)
{
    int n_failed = 0, n_served = 0;
    for (long n = 1; n < 100000; n += 1 + n / 4) {
        bw_error err = { 0 };
        starter s = { 0 };
        const bw_serve_options o = lamb_options(&s);
        bw_mem_fail_at(n);
        const bw_status st = bw_serve(&o, &err);
        const bool failed = bw_mem_fail_at(0);
        check_that(st == BW_OK || (failed && st == BW_E_MEMORY), "allocation %ld: %s: %s", n, bw_status_name(st), err.message);
        n_failed += st != BW_OK;
        n_served += st == BW_OK;
        if (!failed)
            break;
    }
    check(n_failed > 10 && n_served >= 1);
}

TESTS_MAIN(ENTRY(with_plenty_of_memory_every_sequence_gets_a_full_context),
           ENTRY(what_is_chosen_fits_beside_weights_scratch_and_headroom),
           ENTRY(where_memory_is_short_there_are_fewer_sequences_but_one_full_context), ENTRY(what_was_given_is_not_changed),
           ENTRY(a_pool_that_was_given_larger_than_all_contexts_is_cut),
           ENTRY(where_nothing_says_what_is_free_everything_is_given), ENTRY(the_service_manager_gets_the_datagram),
           ENTRY(without_a_service_manager_nothing_is_sent), ENTRY(the_watchdog_is_due_twice_in_its_time),
           ENTRY(model_ids_that_are_no_text_are_refused), ENTRY(without_keys_only_this_machine_is_listened_to),
           ENTRY(a_server_tells_its_manager_when_it_is_ready_and_when_it_stops), ENTRY(a_start_survives_failed_allocations))
