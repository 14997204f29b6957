/* check.c - see check.h. */
#define _GNU_SOURCE
#include "lib/check.h"

#include <ftw.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/half.h"

static uint64_t seed, state;

static uint64_t start_seed(void)
{
    const char *text = getenv("BW_TEST_SEED");
    return text ? strtoull(text, NULL, 0) : 1;
}

void check_fail_at(const char *file, int line, const char *format, ...)
{
    char text[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    printf("[  FAILED  ] %s:%d: %s (BW_TEST_SEED=%llu)\n", file, line, text, (unsigned long long)seed);
    fflush(stdout);
    _fail(file, line);
    abort();
}

void check_int_at(const char *file, int line, const char *what, long long got, long long want)
{
    if (got != want)
        check_fail_at(file, line, "%s is %lld, expected %lld", what, got, want);
}

void check_str_at(const char *file, int line, const char *what, const char *got, const char *want)
{
    if (!got || strcmp(got, want) != 0)
        check_fail_at(file, line, "%s is \"%s\", expected \"%s\"", what, got ? got : "(null)", want);
}

void check_ok_at(const char *file, int line, const char *what, bw_status st, const bw_error *err)
{
    if (st != BW_OK)
        check_fail_at(file, line, "%s failed: %s: %s", what, bw_status_name(st), err->message);
}

void check_error_at(const char *file, int line, const char *what, bw_status st, bw_status want,
                    const bw_error *err, const char *const *parts)
{
    if (st != want)
        check_fail_at(file, line, "%s returned %s (%s), expected %s", what, bw_status_name(st),
                      st ? err->message : "", bw_status_name(want));
    for (; *parts; parts++)
        if (!strstr(err->message, *parts))
            check_fail_at(file, line, "%s: message \"%s\" does not contain \"%s\"", what, err->message, *parts);
}

double max_error(const float *a, const float *b, size_t n)
{
    double difference = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(a[i]) || !isfinite(b[i]))
            return INFINITY;
        difference = fmax(difference, fabs((double)a[i] - (double)b[i]));
        largest = fmax(largest, fabs((double)b[i]));
    }
    return largest > 0 ? difference / largest : difference;
}

bool same_bits(const float *a, const float *b, size_t n)
{
    return memcmp(a, b, n * sizeof *a) == 0;
}

uint64_t rnd_u64(void)
{
    if (!seed) {
        seed = start_seed();
        state = seed * 0x9E3779B97F4A7C15u;
    }
    uint64_t z = (state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

int rnd_int(int low, int high)
{
    return low + (int)(rnd_u64() % (uint64_t)((int64_t)high - low + 1));
}

float rnd_float(void)
{
    double u = ((double)(rnd_u64() >> 11) + 0.5) * 0x1p-53, v = (double)(rnd_u64() >> 11) * 0x1p-53;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

bool sanitized(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#else
    return false;
#endif
}

int tries(int n)
{
    const char *text = getenv("BW_TEST_TRIES");
    const int part = text ? atoi(text) : 1;
    return part > 1 ? (n + part - 1) / part : n;
}

const char *repo_path(const char *relative)
{
    static char ring[8][4096];
    static int next;
    const char *root = getenv("BW_ROOT");
    char *out = ring[next++ % 8];
    snprintf(out, sizeof ring[0], "%s/%s", root ? root : ".", relative);
    return out;
}

char *read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_with("cannot open %s", path);
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    char *text = malloc((size_t)size + 1);
    if (!text || fread(text, 1, (size_t)size, f) != (size_t)size)
        fail_with("cannot read %s", path);
    fclose(f);
    text[size] = '\0';
    if (n)
        *n = (size_t)size;
    return text;
}

static char temp_path[4096];

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info, (void)type, (void)where;
    return remove(path);
}

static void remove_temp(void)
{
    nftw(temp_path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *temp_dir(void)
{
    if (!temp_path[0]) {
        const char *base = getenv("TMPDIR");
        snprintf(temp_path, sizeof temp_path, "%s/bellwether-test-XXXXXX", base ? base : "/tmp");
        if (!mkdtemp(temp_path))
            fail_with("cannot make %s", temp_path);
        atexit(remove_temp);
    }
    return temp_path;
}

/* Lines reach a log in order and survive a crash. */
__attribute__((constructor)) static void print_by_lines(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
}

int check_run(const char *names, int failed)
{
    (void)names;
    return failed ? 1 : 0;
}
