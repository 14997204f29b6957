/* cpu_fixture.h - a CPU backend made by hand, and memory that notices stray writes. */
#ifndef BW_TESTS_CPU_FIXTURE_H
#define BW_TESTS_CPU_FIXTURE_H

#include "lib/check.h"
#include "ops/cpu/cpu.h"

/* Levels that run here, weakest ("ref") first, NULL-terminated. */
const char *const *fixture_levels(void);

/* Kernels up to `level`, a pool, scratch for the attention, gdn and sample operations up to the
 * limits and filled with NaN bits. Fails the test when something cannot be had. */
bw_cpu *fixture_create(const char *level, int n_threads, const bw_op_limits *limits);
void fixture_destroy(bw_cpu *cpu);

/* Memory of the running test, released by fixture_release(). floats: every value NaN, and a guard
 * on both sides that check_guards() looks at. */
float *fixture_floats(size_t n);
float *fixture_random(size_t n, float scale); /* the same, normal values */
int32_t *fixture_ints(size_t n);              /* zero */
void check_guards(void);
void fixture_release(void);

#endif
