/* process_figures.c - see process_figures.h. Reads /proc where there is one. */
#include "server/process_figures.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* A small file of /proc as text; false: there is none. */
static bool read_small(const char *path, char *out, size_t size)
{
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    size_t n = fread(out, 1, size - 1, file);
    fclose(file);
    out[n] = '\0';
    return n > 0;
}

static int64_t count_open_files(void)
{
    DIR *folder = opendir("/proc/self/fd");
    if (!folder)
        return -1;
    int64_t n = -1; /* the folder itself is open now */
    for (struct dirent *entry; (entry = readdir(folder));)
        n += entry->d_name[0] != '.';
    closedir(folder);
    return n;
}

bw_process_figures bw_process_get_figures(void)
{
    bw_process_figures out = { .cpu_s = -1, .virtual_bytes = -1, .resident_bytes = -1, .max_files = -1 };
    struct rusage used;
    if (getrusage(RUSAGE_SELF, &used) == 0)
        out.cpu_s = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                    1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
    char text[256];
    long long pages, resident;
    long page = sysconf(_SC_PAGESIZE);
    if (page > 0 && read_small("/proc/self/statm", text, sizeof text) && sscanf(text, "%lld %lld", &pages, &resident) == 2) {
        out.virtual_bytes = (int64_t)pages * page;
        out.resident_bytes = (int64_t)resident * page;
    }
    out.open_files = count_open_files();
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        out.max_files = (int64_t)limit.rlim_cur;
    return out;
}

/* Seconds from boot to the start of this process: field 22 of its stat, in ticks. */
static double seconds_after_boot(void)
{
    char text[1024];
    long ticks = sysconf(_SC_CLK_TCK);
    if (ticks <= 0 || !read_small("/proc/self/stat", text, sizeof text))
        return -1;
    const char *at = strrchr(text, ')'); /* the name may hold anything; field 3 follows it */
    for (int field = 3; at && field <= 22; field++)
        at = strchr(at + 1, ' ');
    unsigned long long start;
    return at && sscanf(at, " %llu", &start) == 1 ? (double)start / (double)ticks : -1;
}

double bw_process_started(void)
{
    double after_boot = seconds_after_boot(), boot = -1;
    FILE *file = after_boot >= 0 ? fopen("/proc/stat", "r") : NULL;
    if (!file)
        return -1;
    char line[512];
    unsigned long long seconds;
    while (boot < 0 && fgets(line, sizeof line, file))
        if (sscanf(line, "btime %llu", &seconds) == 1)
            boot = (double)seconds;
    fclose(file);
    return boot < 0 ? -1 : boot + after_boot;
}
