/* cpuid.h - what this processor can run, and what the machine is. Any thread. */
#ifndef BW_BASE_CPUID_H
#define BW_BASE_CPUID_H

#include <stdbool.h>

bool bw_cpu_is_any(void); /* true: the level every processor runs */
/* AVX2, FMA and F16C, with their registers saved by the operating system. */
bool bw_cpu_has_avx2_fma(void);
/* AVX-VNNI, on top of the above: dot products of bytes without AVX-512. */
bool bw_cpu_has_avx_vnni(void);
/* AVX-512 F, BW, DQ, VL and VNNI, on top of AVX2, FMA and F16C. */
bool bw_cpu_has_avx512_vnni(void);
/* ARMv8.2's dot products of bytes (and NEON, which every 64-bit ARM has). */
bool bw_cpu_has_neon_dot(void);

/* Processors this process may use, at least 1: those of its affinity mask, and no more than its control groups
 * give it the time of, rounded up. */
int bw_cpu_count(void);
/* The latter alone, 0 without a limit: `groups` lists the process's groups as /proc/self/cgroup does, version 1 or
 * 2, mounted at `mount`. */
int bw_cpu_quota(const char *groups, const char *mount);
const char *bw_cpu_name(void); /* as the processor calls itself; static storage */

#endif
