/* chance.h - random numbers that repeat: a counter and a mixer (splitmix64), for weights and measurements.
 * Nothing that has to be hard to guess. Tokens are drawn elsewhere (docs/sampling.md). */
#ifndef BW_BASE_CHANCE_H
#define BW_BASE_CHANCE_H

#include <math.h>
#include <stdint.h>

/* Every bit of z in every bit of the result. */
static inline uint64_t bw_chance_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* The next 64 bits of a stream; any state begins one. */
static inline uint64_t bw_chance_draw(uint64_t *state)
{
    return bw_chance_mix(*state += 0x9E3779B97F4A7C15u);
}

/* In (0, 1). */
static inline double bw_chance_uniform(uint64_t *state)
{
    return ((double)(bw_chance_draw(state) >> 11) + 0.5) * 0x1p-53;
}

/* Standard normal. */
static inline double bw_chance_normal(uint64_t *state)
{
    const double radius = sqrt(-2 * log(bw_chance_uniform(state)));
    return radius * cos(6.283185307179586 * bw_chance_uniform(state));
}

#endif
