/* dtype.c - the table of types. */
#include "base/dtype.h"

#include <assert.h>

static const bw_dtype_info types[BW_DTYPE_COUNT] = {
    [BW_F32] = { "f32", 1, 4 },       [BW_F16] = { "f16", 1, 2 },       [BW_BF16] = { "bf16", 1, 2 },
    [BW_Q8_0] = { "q8_0", 32, 34 },   [BW_Q4_0] = { "q4_0", 32, 18 },   [BW_Q4_1] = { "q4_1", 32, 20 },
    [BW_Q5_0] = { "q5_0", 32, 22 },   [BW_Q5_1] = { "q5_1", 32, 24 },   [BW_IQ4_NL] = { "iq4_nl", 32, 18 },
    [BW_Q2_K] = { "q2_k", 256, 84 },  [BW_Q3_K] = { "q3_k", 256, 110 }, [BW_Q4_K] = { "q4_k", 256, 144 },
    [BW_Q5_K] = { "q5_k", 256, 176 }, [BW_Q6_K] = { "q6_k", 256, 210 }, [BW_IQ4_XS] = { "iq4_xs", 256, 136 },
};

const bw_dtype_info *bw_dtype_get(bw_dtype type)
{
    assert((unsigned)type < BW_DTYPE_COUNT);
    return &types[type];
}

uint64_t bw_dtype_row_bytes(bw_dtype type, uint64_t n)
{
    const bw_dtype_info *info = bw_dtype_get(type);
    assert(n % (uint64_t)info->elements == 0);
    return n / (uint64_t)info->elements * (uint64_t)info->bytes;
}
