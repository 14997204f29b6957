/* cpuid.c - processor features through the compiler's own detection, which checks XGETBV too. */
#define _GNU_SOURCE
#include "base/cpuid.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

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

bool bw_cpu_has_avx512_vnni(void)
{
    return false;
}

const char *bw_cpu_name(void)
{
    return "unknown";
}
#endif

int bw_cpu_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}
