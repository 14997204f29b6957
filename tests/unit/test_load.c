/* Weights on their way from the disk: read ahead within a window, placed in the order of their files, let go where
 * they were copied; a file that cannot be read is an answer and no signal. */
#define _GNU_SOURCE
#include "lib/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/readahead.h"
#include "engine/weight_source.h"
#include "lib/model_files.h"
#include "lib/tiny_model.h"

enum { MIB = 1 << 20 };

static const char *file_of(uint64_t n_bytes)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/weights", fresh_dir());
    const int fd = open(path, O_WRONLY | O_CREAT, 0600);
    check(fd >= 0 && ftruncate(fd, (off_t)n_bytes) == 0);
    close(fd);
    return path;
}

/* Older systems cannot say that a page cannot be read; there touching it is a signal, as it was. */
static bool system_tells(void)
{
    void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const bool tells = madvise(page, 4096, 22 /* MADV_POPULATE_READ */) == 0;
    munmap(page, 4096);
    return tells;
}

/* KiB of the mapping that are mapped now. */
static long resident_kib(const bw_map *map)
{
    char line[512], address[32];
    long kib = -1;
    bool inside = false;
    snprintf(address, sizeof address, "%lx-", (unsigned long)(uintptr_t)map->data);
    FILE *f = fopen("/proc/self/smaps", "r");
    while (f && kib < 0 && fgets(line, sizeof line, f)) {
        inside |= strncmp(line, address, strlen(address)) == 0;
        if (inside && strncmp(line, "Rss:", 4) == 0)
            kib = strtol(line + 4, NULL, 10);
    }
    if (f)
        fclose(f);
    return kib;
}

static void sleep_ms(int ms)
{
    nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L }, NULL);
}

/* ---- reading ahead ---- */

TEST(every_range_comes_whatever_its_size_and_the_window)
{
    bw_error err;
    bw_map map;
    check_ok(bw_map_open(&map, file_of(40 * MIB + 123), &err), err);
    for (int round = 0; round < 20; round++) {
        bw_range ranges[50], failed;
        const size_t n = (size_t)rnd_int(0, 50);
        uint64_t at = 0;
        for (size_t i = 0; i < n; i++) {
            const uint64_t left = map.bytes - at, some = (uint64_t)rnd_int(0, rnd_int(0, 9) ? 100000 : 20 * MIB);
            ranges[i] = (bw_range){ map.data + at, some < left ? some : left };
            at += ranges[i].bytes;
        }
        bw_readahead *ra;
        check_ok(bw_readahead_create(&ra, ranges, n, (uint64_t)rnd_int(0, 8 * MIB), &err), err);
        for (size_t i = 0; i < n; i++) {
            if (rnd_int(0, 3))
                check(bw_readahead_wait(ra, i, &failed));
            if (rnd_int(0, 3))
                bw_readahead_done(ra, i);
        }
        bw_readahead_destroy(ra);
    }
    bw_map_close(&map);
}

TEST(no_more_than_the_window_is_mapped_ahead)
{
    bw_error err;
    bw_map map;
    bw_range ranges[64], failed;
    check_ok(bw_map_open(&map, file_of(64 * MIB), &err), err);
    for (int i = 0; i < 64; i++)
        ranges[i] = (bw_range){ map.data + (size_t)i * MIB, MIB };
    bw_readahead *ra;
    check_ok(bw_readahead_create(&ra, ranges, 64, 8 * MIB, &err), err);
    for (int i = 0; i < 64; i += 9) {
        check(bw_readahead_wait(ra, (size_t)i, &failed));
        sleep_ms(20);
        const long mapped = resident_kib(&map), most = (i + 8 + 1) * 1024L;
        check_that(mapped >= (i + 1) * 1024L && mapped <= most, "%ld KiB are mapped at range %d, at most %ld wanted", mapped, i, most);
        bw_readahead_done(ra, (size_t)i);
    }
    bw_readahead_destroy(ra);
    bw_map_close(&map);
}

TEST(a_file_that_shrinks_is_an_answer_and_no_signal)
{
    if (!system_tells())
        skip_because("this system has no MADV_POPULATE_READ");
    bw_error err;
    bw_map map;
    const char *path = file_of(32 * MIB);
    check_ok(bw_map_open(&map, path, &err), err);
    const bw_range ranges[] = { { map.data, MIB }, { map.data + 20 * MIB, MIB }, { map.data + 21 * MIB, MIB } };
    bw_range failed = { 0 };
    check_int(truncate(path, 10 * MIB), 0);
    bw_readahead *ra;
    check_ok(bw_readahead_create(&ra, ranges, 3, 256 * MIB, &err), err);
    check(bw_readahead_wait(ra, 0, &failed));
    check(!bw_readahead_wait(ra, 1, &failed));
    check(failed.data == map.data + 20 * MIB && failed.bytes == MIB);
    check(!bw_readahead_wait(ra, 2, &failed));
    bw_readahead_destroy(ra);
    bw_map_close(&map);
}

TEST(reading_ahead_survives_the_failure_of_any_allocation)
{
    bw_error err;
    bw_readahead *ra;
    const bw_range none = { "", 0 };
    for (long n = 1;; n++) {
        bw_mem_fail_at(n);
        const bw_status st = bw_readahead_create(&ra, &none, 1, 0, &err);
        if (!bw_mem_fail_at(0)) {
            check_ok(st, err);
            break;
        }
        check_error(st, BW_E_MEMORY, err, "reading ahead");
        check(ra == NULL);
    }
    bw_readahead_destroy(ra);
    bw_readahead_destroy(NULL);
}

/* ---- placing ---- */

typedef struct fixture {
    bw_checkpoint *checkpoint;
    bw_config config;
    bw_weights weights;
    bw_backend *backend;
    bw_weight_source disk;
    uint64_t available; /* as bw_weight_source has them */
    bool only_copied;
    double last_progress;
    bool fell;
} fixture;

static int copy_every; /* the backend copies about every n-th matrix; 0: none */
static uintptr_t last_placed;

/* What a backend that repacks does, but in the old order. */
static uint64_t place_bytes(const bw_backend *be, const bw_place_args *args, const char **note)
{
    (void)be;
    if (note)
        *note = "tried";
    if (args->use == BW_FOR_ROWS || copy_every == 0 || (uintptr_t)args->host / 64 % (uintptr_t)copy_every != 0)
        return 0;
    return ((uint64_t)args->rows * bw_dtype_row_bytes(args->type, (uint64_t)args->cols) + 63) / 64 * 64;
}

static bw_status place(bw_backend *be, bw_weight *out, const bw_place_args *args, bw_error *err)
{
    (void)err;
    check_that((uintptr_t)args->host >= last_placed, "a matrix is placed after one that lies behind it");
    last_placed = (uintptr_t)args->host;
    *out = (bw_weight){ .type = args->type, .rows = args->rows, .cols = args->cols, .data = args->host };
    if (place_bytes(be, args, NULL)) {
        memcpy(args->room, args->host, (size_t)args->rows * bw_dtype_row_bytes(args->type, (uint64_t)args->cols));
        out->data = args->room;
        out->packed = true;
    }
    return BW_OK;
}

static void open_fixture(fixture *f, const char *path)
{
    static bw_ops ops;
    bw_error err;
    *f = (fixture){ 0 };
    check_ok(bw_checkpoint_open(&f->checkpoint, path, &err), err);
    check_ok(bw_config_read(&f->config, f->checkpoint, &err), err);
    check_ok(bw_weights_resolve(&f->weights, &f->config, f->checkpoint, false, &err), err);
    check_ok(bw_cpu_backend_create(&f->backend, 1, "ref", &err), err);
    ops = *f->backend->ops;
    ops.place = place;
    ops.place_bytes = place_bytes;
    f->backend->ops = &ops;
    last_placed = 0;
}

static void close_fixture(fixture *f)
{
    f->backend->ops->destroy(f->backend);
    bw_weights_release(&f->weights);
    bw_checkpoint_close(f->checkpoint);
}

static void note_progress(void *arg, double done)
{
    fixture *f = arg;
    f->fell |= done < f->last_progress || done > 1;
    f->last_progress = done;
}

static bw_status load(fixture *f, bool read_ahead, bw_net **net, bw_error *err)
{
    f->disk = (bw_weight_source){ .checkpoint = f->checkpoint, .available = f->available,
                                  .only_copied = f->only_copied };
    const bw_net_source source = bw_weight_source_of(&f->disk);
    const bw_net_options options = { .int8 = true, .source = read_ahead ? &source : NULL, .checkpoint = f->checkpoint,
                                     .progress = note_progress, .progress_arg = f };
    const bw_status st = bw_net_create(net, &f->config, &f->weights, f->backend, &options, err);
    bw_weight_source_end(&f->disk);
    return st;
}

static void same_weight(const bw_weight *a, const bw_matrix *b)
{
    if (!b->data)
        return;
    check_int(a->rows, b->rows);
    check(memcmp(a->data, b->data, (size_t)b->rows * bw_dtype_row_bytes(b->type, (uint64_t)b->cols)) == 0);
}

static void same_as_file(const bw_net *net, const bw_weights *w)
{
    same_weight(&net->embed, &w->embed);
    same_weight(&net->head, &w->head);
    for (int i = 0; i < net->config->n_layers; i++) {
        same_weight(&net->layers[i].attn.o, &w->layers[i].attention.o);
        same_weight(&net->layers[i].gdn.qkv, &w->layers[i].gdn.qkv);
        same_weight(&net->layers[i].ffn.down, &w->layers[i].ffn.down);
        for (int e = 0; net->layers[i].moe.experts && e < net->config->n_experts; e++)
            same_weight(&net->layers[i].moe.experts[e].up, &w->layers[i].moe.experts[e].up);
    }
}

TEST(weights_arrive_whole_and_are_placed_in_the_order_of_their_files)
{
    for (int round = 0; round < 24; round++) {
        tiny_shape shape = tiny_random_shape();
        shape.tied = round % 3 == 0;
        fixture f;
        bw_net *net;
        bw_error err;
        open_fixture(&f, tiny_model(&shape));
        copy_every = round % 4;
        const bool read_ahead = round % 5 != 0;
        check_ok(load(&f, read_ahead, &net, &err), err);
        same_as_file(net, &f.weights);
        check(!f.fell && f.last_progress == 1);
        check(read_ahead ? f.disk.bytes > 0 && f.disk.bytes <= bw_checkpoint_bytes(f.checkpoint) : f.disk.bytes == 0);
        bw_net_destroy(net);
        close_fixture(&f);
    }
}

static int n_warnings;

static void count_warnings(void *arg, bw_log_level level, const char *line)
{
    (void)arg;
    n_warnings += level == BW_LOG_WARNING && strstr(line, "again and again") != NULL;
}

/* A load with so much free memory; returns the bytes of the file that were read for it. */
static uint64_t bytes_read(fixture *f, uint64_t available, bool only_copied, bw_net **net)
{
    bw_error err;
    f->available = available;
    f->only_copied = only_copied;
    f->last_progress = 0;
    last_placed = 0;
    n_warnings = 0;
    check_ok(load(f, true, net, &err), err);
    same_as_file(*net, &f->weights);
    check(!f->fell && f->last_progress == 1);
    return f->disk.bytes;
}

TEST(what_is_copied_is_always_read_and_the_rest_where_the_copies_leave_memory)
{
    bw_log_to(count_warnings, NULL);
    for (int round = 0; round < 16; round++) {
        tiny_shape shape = tiny_random_shape();
        shape.tied = round % 2 == 0;
        fixture f;
        bw_net *net;
        open_fixture(&f, tiny_model(&shape));
        copy_every = round / 2 % 4;
        const uint64_t all = bytes_read(&f, 0, false, &net), copies = net->packed_bytes, kept = all - net->packed_from;
        uint64_t read_for_copies = net->packed_from;
        const bw_matrix *e = &f.weights.embed;
        if (f.weights.head.data == e->data && net->head.packed)
            read_for_copies += (uint64_t)e->rows * bw_dtype_row_bytes(e->type, (uint64_t)e->cols);
        bw_net_destroy(net);
        check(kept > 0);
        check_int(bytes_read(&f, copies + kept, false, &net), all);
        check_int(n_warnings, 0);
        bw_net_destroy(net);
        check_int(bytes_read(&f, copies + kept - 1, false, &net), read_for_copies);
        check_int(n_warnings, 1);
        bw_net_destroy(net);
        check_int(bytes_read(&f, 0, true, &net), read_for_copies);
        check_int(n_warnings, 0);
        bw_net_destroy(net);
        close_fixture(&f);
    }
    bw_log_to(NULL, NULL);
}

TEST(what_was_copied_leaves_the_memory_of_its_file)
{
    long mapped[3];
    for (copy_every = 0; copy_every < 3; copy_every++) {
        fixture f;
        bw_net *net;
        bw_error err;
        open_fixture(&f, repo_path("models/lamb"));
        check_ok(load(&f, true, &net, &err), err);
        mapped[copy_every] = resident_kib(bw_checkpoint_file_map(f.checkpoint, 0));
        bw_net_destroy(net);
        close_fixture(&f);
    }
    check_that(mapped[0] > 26000 && mapped[1] < mapped[0] / 2 && mapped[2] < mapped[0], "%ld KiB are mapped where nothing is copied, %ld "
               "where all is, %ld where every second matrix is", mapped[0], mapped[1], mapped[2]);
}

static const char *weights_file(const fixture *f)
{
    return bw_checkpoint_file_path(f->checkpoint, 0);
}

TEST(a_checkpoint_that_shrinks_while_it_loads_is_named)
{
    if (!system_tells())
        skip_because("this system has no MADV_POPULATE_READ");
    tiny_shape shape = tiny_random_shape();
    fixture f;
    bw_net *net;
    bw_error err;
    open_fixture(&f, tiny_model(&shape));
    copy_every = 1;
    check_int(truncate(weights_file(&f), 4096), 0);
    for (int only_copied = 0; only_copied < 2; only_copied++) {
        f.only_copied = only_copied != 0;
        last_placed = 0;
        check_error(load(&f, true, &net, &err), BW_E_IO, err, weights_file(&f), "shorter", "4096");
        check(net == NULL);
    }
    close_fixture(&f);
}

TEST(loading_survives_the_failure_of_any_allocation)
{
    tiny_shape shape = tiny_random_shape();
    fixture f;
    bw_net *net;
    bw_error err;
    open_fixture(&f, tiny_model(&shape));
    copy_every = 2;
    const uint64_t before = bw_mem_used(BW_MEM_WEIGHTS), misc = bw_mem_used(BW_MEM_MISC);
    for (long n = 1;; n++) {
        last_placed = 0;
        f.last_progress = 0;
        bw_mem_fail_at(n);
        const bw_status st = load(&f, true, &net, &err);
        if (!bw_mem_fail_at(0)) {
            check_ok(st, err);
            break;
        }
        check_int(st, BW_E_MEMORY);
        check(net == NULL);
        check_int(bw_mem_used(BW_MEM_WEIGHTS), before);
        check_int(bw_mem_used(BW_MEM_MISC), misc);
    }
    same_as_file(net, &f.weights);
    bw_net_destroy(net);
    close_fixture(&f);
}

TESTS_MAIN(ENTRY(every_range_comes_whatever_its_size_and_the_window), ENTRY(no_more_than_the_window_is_mapped_ahead),
           ENTRY(a_file_that_shrinks_is_an_answer_and_no_signal), ENTRY(reading_ahead_survives_the_failure_of_any_allocation),
           ENTRY(weights_arrive_whole_and_are_placed_in_the_order_of_their_files), ENTRY(what_was_copied_leaves_the_memory_of_its_file),
           ENTRY(what_is_copied_is_always_read_and_the_rest_where_the_copies_leave_memory),
           ENTRY(a_checkpoint_that_shrinks_while_it_loads_is_named),
           ENTRY(loading_survives_the_failure_of_any_allocation))
