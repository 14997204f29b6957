/* The probes of every level read and count what they say; how fast is nobody's business here. */
#include "lib/check.h"

#include <stdlib.h>

#include "ops/cpu/cpu.h"

TEST(a_read_probe_sees_every_byte)
{
    enum { N = 8192 };
    unsigned char *data = aligned_alloc(64, N);
    check(data != NULL);
    for (const char *const *level = bw_cpu_levels_here(); *level; level++) {
        bw_cpu_kernels k;
        check(bw_cpu_kernels_init(&k, *level) != NULL);
        memset(data, 0, N);
        check(k.probe_read(data, N) == 0);
        for (int i = 0; i < 300; i++) {
            const int at = rnd_int(0, N - 1);
            data[at] = 1;
            check_that(k.probe_read(data, N) != 0, "%s: byte %d is not read", *level, at);
            data[at] = 0;
        }
    }
    free(data);
}

TEST(a_multiplying_probe_counts_its_rounds)
{
    for (const char *const *level = bw_cpu_levels_here(); *level; level++) {
        bw_cpu_kernels k;
        int32_t int8_sink = 0;
        float f32_sink = 0;
        check(bw_cpu_kernels_init(&k, *level) != NULL);
        const uint64_t int8_round = k.probe_int8(1, &int8_sink), f32_round = k.probe_f32(1, &f32_sink);
        check_that(int8_round >= 8 && f32_round >= 8, "%s", *level);
        check(k.probe_int8(1000, &int8_sink) == 1000 * int8_round && k.probe_f32(1000, &f32_sink) == 1000 * f32_round);
        /* 3 x 5 is what every product of it adds */
        check_that(int8_sink > 0 && (uint64_t)int8_sink == 15 * 1000 * int8_round, "%s: %d", *level, int8_sink);
        check(f32_sink > 0);
        check(k.probe_int8(0, &int8_sink) == 0 && int8_sink == 0 && k.probe_f32(0, &f32_sink) == 0);
    }
}

TESTS_MAIN(ENTRY(a_read_probe_sees_every_byte), ENTRY(a_multiplying_probe_counts_its_rounds))
