/* machine.h - what this machine could do at most: read bandwidth, int8 and f32 multiply-adds a second.
 *
 * Measured by the kernels' own probes (bw_cpu_kernels) at the level and with as many threads as the model
 * runs on, again and again between the tests, because a machine that is shared is not the same all the
 * time. The limits are the best that was ever seen: what a row can be measured against. The caller's
 * thread and a pool of its own, asleep between probes. */
#ifndef BW_BENCH_MACHINE_H
#define BW_BENCH_MACHINE_H

#include "base/status.h"

typedef struct bw_machine bw_machine;

typedef struct bw_machine_limit {
    double best, median; /* a second, of all repetitions */
} bw_machine_limit;

typedef struct bw_machine_limits {
    bw_machine_limit read_bytes, int8_macs, f32_macs;
    int n_probes; /* repetitions of each */
    uint64_t buffer_bytes; /* that the read probe goes over: at least 8 times the last cache */
} bw_machine_limits;

/* BW_E_MEMORY: no room for the buffer. */
bw_status bw_machine_create(bw_machine **out, const char *level, int n_threads, bw_error *err);
void bw_machine_destroy(bw_machine *machine); /* takes NULL */
/* One repetition of every probe: some 50 ms. */
void bw_machine_probe(bw_machine *machine);
/* After at least one probe. */
bw_machine_limits bw_machine_get(const bw_machine *machine);

#endif
