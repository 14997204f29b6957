/* cpuid.h - what this processor can run, and what the machine is. Any thread. */
#ifndef BW_BASE_CPUID_H
#define BW_BASE_CPUID_H

#include <stdbool.h>

bool bw_cpu_is_any(void); /* true: the level every processor runs */
/* AVX2, FMA and F16C, with their registers saved by the operating system. */
bool bw_cpu_has_avx2_fma(void);
/* AVX-512 F, BW, DQ, VL and VNNI, on top of the above. */
bool bw_cpu_has_avx512_vnni(void);

int bw_cpu_count(void);        /* processors this process may run on, at least 1 */
const char *bw_cpu_name(void); /* as the processor calls itself; static storage */

#endif
