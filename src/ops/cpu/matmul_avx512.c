/* matmul_avx512.c - products, 16 lanes at a time, integer dots by VNNI. Any thread.
 *
 * A float product adds column c in lane c mod 16, an int8 product the group g in lane g mod 16 (q8.h),
 * each lane in order, the lanes in one fixed tree at the end. How many rows and outputs a tile has
 * changes which registers hold the lanes and nothing else. */
#include <immintrin.h>

#include "ops/cpu/q8.h"

typedef unsigned char u8;
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

static const u8 *weight_row(const bw_weight *w, int row)
{
    return (const u8 *)w->data + (size_t)row * bw_dtype_row_bytes(w->type, (uint64_t)w->cols);
}

INLINE void put(float *y, __m512 lanes, bool add)
{
    const float sum = _mm512_reduce_add_ps(lanes);
    *y = add ? *y + sum : sum;
}

/* ---- floats ---- */

/* Columns c .. c + 15 of a row of floats, widened; those outside `lanes` are zero */
INLINE __m512 load_weights(bw_dtype type, const u8 *row, int c, __mmask16 lanes)
{
    if (type == BW_F32)
        return _mm512_maskz_loadu_ps(lanes, row + 4 * (size_t)c);
    const __m256i halves = _mm256_maskz_loadu_epi16(lanes, row + 2 * (size_t)c);
    if (type == BW_F16)
        return _mm512_cvtph_ps(halves);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

INLINE void float_step(__m512 (*sums)[4], bw_dtype type, int n_out, int n, const u8 *w, size_t w_stride, const float *x,
                       size_t x_stride, int c, __mmask16 lanes)
{
    __m512 weights[4];
    UNROLL for (int o = 0; o < n_out; o++)
        weights[o] = load_weights(type, w + (size_t)o * w_stride, c, lanes);
    UNROLL for (int r = 0; r < n; r++) {
        const __m512 values = _mm512_maskz_loadu_ps(lanes, x + (size_t)r * x_stride + c);
        UNROLL for (int o = 0; o < n_out; o++)
            sums[o][r] = _mm512_fmadd_ps(weights[o], values, sums[o][r]);
    }
}

/* n_out <= 4 weight rows by n <= 4 rows */
INLINE void float_tile(bw_dtype type, int n_out, int n, float *y, size_t y_stride, const u8 *w, size_t w_stride,
                       const float *x, int cols, bool add)
{
    __m512 sums[4][4];
    UNROLL for (int o = 0; o < n_out; o++)
        UNROLL for (int r = 0; r < n; r++)
            sums[o][r] = _mm512_setzero_ps();
    /* The processor does not see that short rows four at a time are one stream: ask for the next tiles in
     * order, at least 8 KiB on. lamb takes 1.84 s without and 0.83 s with it (docs/performance.md). */
    const size_t tile = (size_t)n_out * w_stride;
    const char *next = (const char *)w + (8191 / tile + 1) * tile;
    const int size = type == BW_F32 ? 4 : 2;
    int c = 0;
    for (; c + 16 <= cols; c += 16) {
        UNROLL for (int line = 0; line < n_out * size * 16 / 64; line++)
            _mm_prefetch(next + n_out * size * c + 64 * line, _MM_HINT_T1);
        float_step(sums, type, n_out, n, w, w_stride, x, (size_t)cols, c, 0xFFFF);
    }
    if (c < cols)
        float_step(sums, type, n_out, n, w, w_stride, x, (size_t)cols, c, (__mmask16)((1u << (cols - c)) - 1));
    UNROLL for (int r = 0; r < n; r++)
        UNROLL for (int o = 0; o < n_out; o++)
            put(&y[(size_t)r * y_stride + (size_t)o], sums[o][r], add);
}

/* Any number of weight rows by n <= 4 rows */
INLINE void float_outputs(bw_dtype type, int n, float *y, size_t y_stride, const u8 *w, size_t w_stride, int n_out,
                          const float *x, int cols, bool add)
{
    int o = 0;
    for (; o + 4 <= n_out; o += 4)
        float_tile(type, 4, n, y + o, y_stride, w + (size_t)o * w_stride, w_stride, x, cols, add);
    for (; o < n_out; o++)
        float_tile(type, 1, n, y + o, y_stride, w + (size_t)o * w_stride, w_stride, x, cols, add);
}

INLINE void float_block(bw_dtype type, float *y, size_t y_stride, const u8 *w, size_t w_stride, int n_out, const float *x,
                        int n, int cols, bool add)
{
    int r = 0;
    for (; r + 4 <= n; r += 4)
        float_outputs(type, 4, y + (size_t)r * y_stride, y_stride, w, w_stride, n_out, x + (size_t)r * (size_t)cols, cols, add);
    y += (size_t)r * y_stride;
    x += (size_t)r * (size_t)cols;
    switch (n - r) {
    case 1: float_outputs(type, 1, y, y_stride, w, w_stride, n_out, x, cols, add); break;
    case 2: float_outputs(type, 2, y, y_stride, w, w_stride, n_out, x, cols, add); break;
    case 3: float_outputs(type, 3, y, y_stride, w, w_stride, n_out, x, cols, add); break;
    default: break;
    }
}

enum { WIDENED_ROWS = 8 };

static void matmul_float(float *y, size_t y_stride, const bw_weight *w, int first, int n_out, const float *x, int n,
                         bool add, void *scratch)
{
    const u8 *rows = weight_row(w, first);
    const size_t stride = bw_dtype_row_bytes(w->type, (uint64_t)w->cols), cols = (size_t)w->cols;
    switch (w->type) {
    case BW_F32: float_block(BW_F32, y, y_stride, rows, stride, n_out, x, n, w->cols, add); return;
    case BW_F16: float_block(BW_F16, y, y_stride, rows, stride, n_out, x, n, w->cols, add); return;
    case BW_BF16: float_block(BW_BF16, y, y_stride, rows, stride, n_out, x, n, w->cols, add); return;
    default: break;
    }
    for (int o = 0; o < n_out; o += WIDENED_ROWS) {
        const int some = n_out - o < WIDENED_ROWS ? n_out - o : WIDENED_ROWS;
        for (int i = 0; i < some; i++)
            bw_q8_widen_row_avx2((float *)scratch + (size_t)i * cols, w->type, rows + (size_t)(o + i) * stride, w->cols);
        float_block(BW_F32, y + o, y_stride, scratch, cols * sizeof(float), some, x, n, w->cols, add);
    }
}

/* ---- int8 ---- */

/* Codes from plain order to that of q8.h: a 16 by 8 matrix of dwords, turned. */
static void turn_codes(int8_t *code)
{
    __m512i z[8], t[8], u[8];
    UNROLL for (int i = 0; i < 8; i++) { /* groups i and i + 4 side by side; i + 8 and i + 12 in the second four */
        const int8_t *group = code + 32 * (i < 4 ? i : i + 4);
        z[i] = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)group)),
                                  _mm256_loadu_si256((const __m256i *)(group + 4 * 32)), 1);
    }
    UNROLL for (int i = 0; i < 8; i += 2) {
        t[i] = _mm512_unpacklo_epi32(z[i], z[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(z[i], z[i + 1]);
    }
    UNROLL for (int i = 0; i < 8; i += 4) {
        u[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]); /* dword 0 (and 4) of four groups */
        u[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        u[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    UNROLL for (int i = 0; i < 4; i++) {
        _mm512_storeu_si512(code + 64 * i, _mm512_shuffle_i32x4(u[i], u[i + 4], 0x88));
        _mm512_storeu_si512(code + 64 * (i + 4), _mm512_shuffle_i32x4(u[i], u[i + 4], 0xDD));
    }
}

typedef struct int8_form {
    bool sub, minimum, lift;
} int8_form;

/* The dot instruction takes the first factor unsigned. Codes of types with a minimum are; others get
 * 128 added, which adds 128 times the sum of q. */
INLINE void int8_tile(int8_form form, int n, float *y, size_t y_stride, const bw_q8_chunk *w, int n_chunks,
                      const bw_q8_rows *x, size_t row, bool add)
{
    __m512 sums[8];
    UNROLL for (int r = 0; r < n; r++)
        sums[r] = _mm512_setzero_ps();
    for (int i = 0; i < n_chunks; i++, w++) {
        __m512i codes[8];
        const __m512 scale = _mm512_loadu_ps(w->scale), minimum = _mm512_loadu_ps(w->minimum);
        UNROLL for (int k = 0; k < 8; k++) {
            codes[k] = _mm512_loadu_si512(w->code + 64 * k);
            if (!form.minimum)
                codes[k] = _mm512_xor_si512(codes[k], _mm512_set1_epi8((char)0x80));
        }
        UNROLL for (int r = 0; r < n; r++) {
            const size_t at = (row + (size_t)r) * (size_t)n_chunks + (size_t)i;
            const int8_t *q = x->q + at * BW_Q8_CHUNK;
            __m512i a = _mm512_setzero_si512(), b = _mm512_setzero_si512();
            UNROLL for (int k = 0; k < 4; k++) {
                a = _mm512_dpbusd_epi32(a, codes[k], _mm512_loadu_si512(q + 64 * k));
                b = _mm512_dpbusd_epi32(b, codes[k + 4], _mm512_loadu_si512(q + 64 * (k + 4)));
            }
            const __m512i sum = _mm512_loadu_si512(x->sum + at * BW_Q8_LANES);
            const __m512i half = form.sub ? _mm512_loadu_si512(x->half + at * BW_Q8_LANES) : sum;
            const __m512i rest = _mm512_sub_epi32(sum, half);
            if (form.sub) {
                if (!form.minimum) {
                    a = _mm512_sub_epi32(a, _mm512_slli_epi32(half, 7));
                    b = _mm512_sub_epi32(b, _mm512_slli_epi32(rest, 7));
                }
                a = _mm512_mullo_epi32(a, _mm512_loadu_si512(w->sub[0]));
                b = _mm512_mullo_epi32(b, _mm512_loadu_si512(w->sub[1]));
            }
            __m512i dot = _mm512_add_epi32(a, b);
            if (!form.sub && !form.minimum)
                dot = _mm512_sub_epi32(dot, _mm512_slli_epi32(sum, 7));
            const __m512 step = _mm512_loadu_ps(x->scale + at * BW_Q8_LANES);
            sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(scale, step), sums[r]);
            if (form.minimum) {
                __m512i lifted = sum;
                if (form.lift)
                    lifted = _mm512_add_epi32(_mm512_mullo_epi32(half, _mm512_loadu_si512(w->lift[0])),
                                              _mm512_mullo_epi32(rest, _mm512_loadu_si512(w->lift[1])));
                sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(lifted), _mm512_mul_ps(minimum, step), sums[r]);
            }
        }
    }
    UNROLL for (int r = 0; r < n; r++)
        put(&y[(size_t)r * y_stride], sums[r], add);
}

/* One to eight rows by the unpacked weight rows of a tile */
INLINE void int8_outputs(int8_form form, int n, float *y, size_t y_stride, const bw_q8_chunk *w, int n_out, int n_chunks,
                         const bw_q8_rows *x, int row, bool add)
{
    for (int o = 0; o < n_out; o++)
        int8_tile(form, n, y + (size_t)row * y_stride + o, y_stride, w + (size_t)o * (size_t)n_chunks, n_chunks, x,
                  (size_t)row, add);
}

INLINE void int8_block(int8_form form, float *y, size_t y_stride, const bw_q8_chunk *w, int n_out, int n_chunks,
                       const bw_q8_rows *x, int n, bool add)
{
    int r = 0;
    for (; r + 8 <= n; r += 8)
        int8_outputs(form, 8, y, y_stride, w, n_out, n_chunks, x, r, add);
    if (n - r >= 4) {
        int8_outputs(form, 4, y, y_stride, w, n_out, n_chunks, x, r, add);
        r += 4;
    }
    if (n - r >= 2) {
        int8_outputs(form, 2, y, y_stride, w, n_out, n_chunks, x, r, add);
        r += 2;
    }
    if (n - r >= 1)
        int8_outputs(form, 1, y, y_stride, w, n_out, n_chunks, x, r, add);
}

static void unpack_row(bw_q8_chunk *out, bw_q8_unpack_fn unpack, const u8 *row, size_t chunk_bytes, int cols)
{
    bw_q8_unpack_row(out, unpack, row, chunk_bytes, cols);
    for (int i = 0; i < bw_q8_chunks(cols); i++)
        turn_codes(out[i].code);
}

enum { UNPACKED_ROWS = 8 }; /* so many meet the rows of the batch while those are in the cache */

static void matmul_int8(float *y, size_t y_stride, const bw_weight *w, int first, int n_out, const bw_q8_rows *x, int n,
                        bool add, void *scratch)
{
    bw_q8_chunk *chunks = scratch;
    const int n_chunks = bw_q8_chunks(w->cols), tile = n <= 8 ? 1 : UNPACKED_ROWS;
    const bw_q8_unpack_fn unpack = bw_q8_unpack_avx2[w->type];
    const size_t stride = bw_dtype_row_bytes(w->type, (uint64_t)w->cols);
    const size_t chunk_bytes = bw_dtype_row_bytes(w->type, BW_Q8_CHUNK);
    const u8 *rows = weight_row(w, first);
    for (int o = 0; o < n_out; o += tile, y += tile) {
        const int some = n_out - o < tile ? n_out - o : tile;
        for (int i = 0; i < some; i++)
            unpack_row(chunks + (size_t)i * (size_t)n_chunks, unpack, rows + (size_t)(o + i) * stride, chunk_bytes, w->cols);
        if (bw_q8_has_lift(w->type))
            int8_block((int8_form){ true, true, true }, y, y_stride, chunks, some, n_chunks, x, n, add);
        else if (bw_q8_has_sub(w->type))
            int8_block((int8_form){ true, false, false }, y, y_stride, chunks, some, n_chunks, x, n, add);
        else if (bw_q8_has_minimum(w->type))
            int8_block((int8_form){ false, true, false }, y, y_stride, chunks, some, n_chunks, x, n, add);
        else
            int8_block((int8_form){ false, false, false }, y, y_stride, chunks, some, n_chunks, x, n, add);
    }
}

static size_t matmul_scratch_bytes(int max_cols)
{
    const size_t floats = WIDENED_ROWS * (size_t)max_cols * sizeof(float);
    const size_t chunks = UNPACKED_ROWS * (size_t)bw_q8_chunks(max_cols) * sizeof(bw_q8_chunk);
    return floats > chunks ? floats : chunks;
}

void bw_cpu_fill_avx512_matmul(bw_cpu_kernels *k)
{
    k->matmul_float = matmul_float;
    k->matmul_int8 = matmul_int8;
    k->matmul_scratch_bytes = matmul_scratch_bytes;
}
