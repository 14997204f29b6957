/* replay.c - runs a fuzz target without a fuzzer: its corpus, and mutations of it.
 *
 *     fuzz_gguf tests/fuzz/corpus/gguf            prints `ok NAME` or dies
 *
 * Rules for a target, tests/fuzz/fuzz_NAME.c: one parser; defines LLVMFuzzerTestOneInput(data, n)
 * returning 0; accepts any bytes; frees everything; checks what it can beyond not crashing (two
 * cuts of a stream give the same events). Seeds and findings lie in tests/fuzz/corpus/NAME/, each
 * under 64 KiB. `make fuzz` explores with libFuzzer; `make test` replays with gcc's sanitizers.
 *
 * Every input stands in a block of exactly its size, so that one byte too far is seen. Mutations
 * come from a fixed generator: a failure repeats, and the bytes that failed are in the file that
 * BW_FUZZ_LAST names (unset: nowhere). */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MAX_INPUT = 1 << 20, CUTS = 24, FLIPS = 48 };

static uint64_t state;
static long n_runs;

static uint64_t next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void die(const char *what, const char *path)
{
    printf("not ok %s: %s\n", path, what);
    exit(1);
}

static void run_bytes(const uint8_t *data, size_t n)
{
    uint8_t *exact = malloc(n ? n : 1);
    if (!exact)
        die("no memory", "replay");
    if (n)
        memcpy(exact, data, n);
    const char *last = getenv("BW_FUZZ_LAST");
    if (last) {
        FILE *f = fopen(last, "wb");
        if (!f || fwrite(exact, 1, n, f) != n || fclose(f) != 0)
            die("cannot be written", last);
    }
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    n_runs++;
}

/* The input, some of its beginnings, and copies with a few bytes changed. */
static void run_around(const uint8_t *data, size_t n)
{
    run_bytes(data, n);
    for (int i = 0; i < CUTS && n; i++)
        run_bytes(data, n <= CUTS ? (size_t)i % n : next_random() % n);
    uint8_t *copy = malloc(n ? n : 1);
    if (!copy)
        die("no memory", "replay");
    for (int i = 0; i < FLIPS && n; i++) {
        static const uint8_t telling[] = { 0x00, 0x7F, 0x80, 0xFF, '"', '{', '<', '\\' };
        memcpy(copy, data, n);
        for (int changes = 1 + (int)(next_random() % 4); changes > 0; changes--) {
            uint64_t r = next_random();
            size_t at = (r >> 8) % (i % 2 && n > 64 ? 64 : n); /* every other time near the start: headers */
            copy[at] = r & 1 ? telling[(r >> 1) % sizeof telling] : copy[at] ^ (uint8_t)(1u << (r >> 1) % 8);
        }
        run_bytes(copy, n);
    }
    free(copy);
}

static void run_file(const char *path)
{
    static uint8_t data[MAX_INPUT];
    FILE *f = fopen(path, "rb");
    if (!f)
        die("cannot be opened", path);
    size_t n = fread(data, 1, sizeof data, f);
    if (ferror(f) || fclose(f) != 0)
        die("cannot be read", path);
    state = 0x9E3779B97F4A7C15u ^ n; /* each file's mutations are its own, whatever ran before */
    run_around(data, n);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void run_path(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0)
        die("does not exist", path);
    if (!S_ISDIR(st.st_mode)) {
        run_file(path);
        return;
    }
    DIR *dir = opendir(path);
    if (!dir)
        die("cannot be listed", path);
    char **names = NULL;
    size_t n = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.')
            continue;
        size_t bytes = strlen(path) + strlen(e->d_name) + 2;
        char **more = realloc(names, (n + 1) * sizeof *names), *full = malloc(bytes);
        if (!more || !full)
            die("no memory", path);
        names = more;
        snprintf(full, bytes, "%s/%s", path, e->d_name);
        names[n++] = full;
    }
    closedir(dir);
    if (n == 0)
        die("the corpus is empty", path);
    qsort(names, n, sizeof *names, by_name);
    for (size_t i = 0; i < n; i++) {
        run_file(names[i]);
        free(names[i]);
    }
    free(names);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    const char *slash = strrchr(argv[0], '/'), *program = slash ? slash + 1 : argv[0];
    if (argc < 2) { /* fuzz_NAME: its own corpus, from the repository's root */
        char corpus[512];
        if (strncmp(program, "fuzz_", 5) != 0)
            die("wants corpus files or folders", program);
        snprintf(corpus, sizeof corpus, "tests/fuzz/corpus/%s", program + 5);
        run_path(corpus);
    }
    for (int i = 1; i < argc; i++)
        run_path(argv[i]);
    printf("ok %s survives its corpus, %ld inputs\n", program, n_runs);
    return 0;
}
