/* cpuid.c - processor features through the compiler's own detection, which checks XGETBV too, and how many
 * processors there are for us. */
#define _GNU_SOURCE
#include "base/cpuid.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool bw_cpu_is_any(void)
{
    return true;
}

#if defined(__x86_64__)
#include <cpuid.h>

bool bw_cpu_has_avx2_fma(void)
{
    unsigned a, b, c, d;
    bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && f16c;
}

bool bw_cpu_has_avx_vnni(void)
{
    unsigned last, a, b, c, d; /* of leaf 7: its last subleaf; features */
    return bw_cpu_has_avx2_fma() && __get_cpuid_count(7, 0, &last, &b, &c, &d) && last >= 1 &&
           __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}

bool bw_cpu_has_neon_dot(void)
{
    return false;
}

bool bw_cpu_has_avx512_vnni(void)
{
    return bw_cpu_has_avx2_fma() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

static char name[49] = "x86-64";

static void read_name(void)
{
    unsigned words[12], a, b, c, d;
    if (!__get_cpuid(0x80000000u, &a, &b, &c, &d) || a < 0x80000004u)
        return;
    for (unsigned i = 0; i < 3; i++)
        __get_cpuid(0x80000002u + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2], &words[4 * i + 3]);
    memcpy(name, words, 48);
    for (size_t n = strlen(name); n > 0 && name[n - 1] == ' '; n--)
        name[n - 1] = '\0';
}

const char *bw_cpu_name(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_name);
    return name;
}
#else
bool bw_cpu_has_avx2_fma(void)
{
    return false;
}

bool bw_cpu_has_avx_vnni(void)
{
    return false;
}

bool bw_cpu_has_avx512_vnni(void)
{
    return false;
}

#if defined(__aarch64__)
#include <sys/auxv.h>

/* Bits of AT_HWCAP, from the kernel's elf_hwcaps.rst. */
enum { HAS_CPUID = 1 << 11, HAS_ASIMDDP = 1 << 20 };

bool bw_cpu_has_neon_dot(void)
{
    return getauxval(AT_HWCAP) & HAS_ASIMDDP;
}

static char name[49] = "aarch64";

/* An ARM processor has numbers for a name: who made it, which design, which revision. */
static void read_name(void)
{
    uint64_t id;
    if (!(getauxval(AT_HWCAP) & HAS_CPUID))
        return;
    __asm__("mrs %0, MIDR_EL1" : "=r"(id));
    snprintf(name, sizeof name, "aarch64 implementer 0x%02x part 0x%03x r%up%u", (unsigned)(id >> 24 & 0xFF),
             (unsigned)(id >> 4 & 0xFFF), (unsigned)(id >> 20 & 15), (unsigned)(id & 15));
}

const char *bw_cpu_name(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_name);
    return name;
}
#else
bool bw_cpu_has_neon_dot(void)
{
    return false;
}

const char *bw_cpu_name(void)
{
    return "unknown";
}
#endif
#endif

/* ---- processors ---- */

/* The file's text, at most size - 1 bytes; false where there is none. */
static bool read_text(const char *folder, const char *file, char *text, size_t size)
{
    char path[4096 + 64];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    text[fread(text, 1, size - 1, f)] = '\0';
    fclose(f);
    return true;
}

/* Processors that one group gives the time of; 0 without a limit. */
static double group_quota(const char *folder)
{
    char text[64], period_text[64];
    double quota = 0, period = 0;
    if (read_text(folder, "cpu.max", text, sizeof text)) /* version 2: "max 100000", "150000 100000" */
        return sscanf(text, "%lf %lf", &quota, &period) == 2 && quota > 0 && period > 0 ? quota / period : 0;
    if (!read_text(folder, "cpu.cfs_quota_us", text, sizeof text) ||
        !read_text(folder, "cpu.cfs_period_us", period_text, sizeof period_text))
        return 0;
    quota = atof(text); /* version 1: -1 without a limit */
    period = atof(period_text);
    return quota > 0 && period > 0 ? quota / period : 0;
}

/* The least of a group and those above it, up to `mount`; a folder that cannot be seen from in here sets none. */
static double least_quota(const char *mount, const char *group)
{
    char folder[4096];
    double least = 0;
    if (snprintf(folder, sizeof folder, "%s%s", mount, group) >= (int)sizeof folder)
        return 0;
    for (size_t n = strlen(folder); n >= strlen(mount);) {
        const double quota = group_quota(folder);
        if (quota > 0 && (least == 0 || quota < least))
            least = quota;
        while (n > 0 && folder[--n] != '/')
            continue;
        folder[n] = '\0';
    }
    return least;
}

/* "4:cpu,cpuacct:/a/b" has the controller cpu; so has every line of version 2, "0::/a/b". */
static bool controls_cpu(const char *controllers)
{
    if (!controllers[0])
        return true;
    for (const char *at = controllers; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, "cpu", 3) == 0 && (at[3] == ',' || !at[3]))
            return true;
    return false;
}

int bw_cpu_quota(const char *groups, const char *mount)
{
    char line[4096], folder[4096];
    double least = 0;
    FILE *f = fopen(groups, "r");
    while (f && fgets(line, sizeof line, f)) {
        char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = '\0';
        controllers++;
        group[strcspn(group, "\n")] = '\0';
        if (!controls_cpu(controllers))
            continue;
        if (snprintf(folder, sizeof folder, "%s%s%s", mount, controllers[0] ? "/" : "", controllers) >= (int)sizeof folder)
            continue;
        const double quota = least_quota(folder, strcmp(group, "/") == 0 ? "" : group);
        if (quota > 0 && (least == 0 || quota < least))
            least = quota;
    }
    if (f)
        fclose(f);
    return (int)ceil(least < 1e6 ? least : 1e6);
}

int bw_cpu_count(void)
{
    cpu_set_t set;
    long n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : sysconf(_SC_NPROCESSORS_ONLN);
    const int quota = bw_cpu_quota("/proc/self/cgroup", "/sys/fs/cgroup");
    if (quota > 0 && quota < n)
        n = quota;
    return n > 1 ? (int)n : 1;
}
