/* unroll.h - how kernels say that a function belongs into its caller and a loop of a constant count into its body.
 * Only files of kernels include it. */
#ifndef BW_OPS_CPU_UNROLL_H
#define BW_OPS_CPU_UNROLL_H

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16") /* loops of a constant count, 16 at most, are gone */

#endif
