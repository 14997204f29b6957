/* matmul_avx2.c - products, 8 lanes at a time. Any thread.
 *
 * A float product adds column c in lane c mod 8, an int8 product the group g in lane g mod 16 of two
 * registers (q8.h), each lane in order, the lanes in one fixed tree at the end. How many rows and
 * outputs a tile has changes which registers hold the lanes and nothing else. */
#include <immintrin.h>
#include <string.h>

#include "ops/cpu/q8.h"

typedef unsigned char u8;
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

static const u8 *weight_row(const bw_weight *w, int row)
{
    return (const u8 *)w->data + (size_t)row * bw_dtype_row_bytes(w->type, (uint64_t)w->cols);
}

INLINE void put(float *y, __m256 lanes, bool add)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    const float sum = _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
    *y = add ? *y + sum : sum;
}

/* ---- floats ---- */

INLINE __m256i first_lanes(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* Columns c .. c + n - 1 (n <= 8) of a row of floats, widened; the other lanes are zero */
INLINE __m256 load_weights(bw_dtype type, const u8 *row, int c, int n)
{
    if (type == BW_F32)
        return n == 8 ? _mm256_loadu_ps((const float *)(const void *)(row + 4 * (size_t)c))
                      : _mm256_maskload_ps((const float *)(const void *)(row + 4 * (size_t)c), first_lanes(n));
    __m128i halves = _mm_setzero_si128();
    if (n == 8)
        halves = _mm_loadu_si128((const __m128i *)(row + 2 * (size_t)c));
    else
        memcpy(&halves, row + 2 * (size_t)c, 2 * (size_t)n);
    if (type == BW_F16)
        return _mm256_cvtph_ps(halves);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

INLINE void float_step(__m256 (*sums)[2], bw_dtype type, int n_out, int n, const u8 *w, size_t w_stride, const float *x,
                       size_t x_stride, int c, int width)
{
    __m256 values[2];
    UNROLL for (int r = 0; r < n; r++)
        values[r] = width == 8 ? _mm256_loadu_ps(x + (size_t)r * x_stride + c)
                               : _mm256_maskload_ps(x + (size_t)r * x_stride + c, first_lanes(width));
    UNROLL for (int o = 0; o < n_out; o++) {
        const __m256 weights = load_weights(type, w + (size_t)o * w_stride, c, width);
        UNROLL for (int r = 0; r < n; r++)
            sums[o][r] = _mm256_fmadd_ps(weights, values[r], sums[o][r]);
    }
}

/* n_out <= 4 weight rows by n <= 2 rows */
INLINE void float_tile(bw_dtype type, int n_out, int n, float *y, size_t y_stride, const u8 *w, size_t w_stride,
                       const float *x, int cols, bool add)
{
    __m256 sums[4][2];
    UNROLL for (int o = 0; o < n_out; o++)
        UNROLL for (int r = 0; r < n; r++)
            sums[o][r] = _mm256_setzero_ps();
    /* as in matmul_avx512.c: rows four at a time are one stream */
    const size_t tile = (size_t)n_out * w_stride;
    const char *next = (const char *)w + (8191 / tile + 1) * tile;
    const int bytes = n_out * 8 * (type == BW_F32 ? 4 : 2); /* a step reads */
    int c = 0;
    for (int at = 0; c + 8 <= cols; c += 8, at += bytes) {
        UNROLL for (int line = 0; line < bytes; line += 64)
            _mm_prefetch(next + at + line, _MM_HINT_T1);
        float_step(sums, type, n_out, n, w, w_stride, x, (size_t)cols, c, 8);
    }
    if (c < cols)
        float_step(sums, type, n_out, n, w, w_stride, x, (size_t)cols, c, cols - c);
    UNROLL for (int r = 0; r < n; r++)
        UNROLL for (int o = 0; o < n_out; o++)
            put(&y[(size_t)r * y_stride + (size_t)o], sums[o][r], add);
}

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
    for (; r + 2 <= n; r += 2)
        float_outputs(type, 2, y + (size_t)r * y_stride, y_stride, w, w_stride, n_out, x + (size_t)r * (size_t)cols, cols, add);
    if (r < n)
        float_outputs(type, 1, y + (size_t)r * y_stride, y_stride, w, w_stride, n_out, x + (size_t)r * (size_t)cols, cols, add);
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

/* Eight groups of 32 codes in plain order to dwords: dword i of all groups to out + 64 i. */
static inline void turn_groups(int8_t *out, const int8_t *code)
{
    __m256i z[8], t[8], u[8];
    UNROLL for (int i = 0; i < 8; i++)
        z[i] = _mm256_loadu_si256((const __m256i *)(code + 32 * i));
    UNROLL for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(z[i], z[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(z[i], z[i + 1]);
    }
    UNROLL for (int i = 0; i < 8; i += 4) {
        u[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]); /* dword 0 (and 4) of four groups */
        u[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        u[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    UNROLL for (int i = 0; i < 4; i++) {
        _mm256_storeu_si256((__m256i *)(out + 64 * i), _mm256_permute2x128_si256(u[i], u[i + 4], 0x20));
        _mm256_storeu_si256((__m256i *)(out + 64 * (i + 4)), _mm256_permute2x128_si256(u[i], u[i + 4], 0x31));
    }
}

/* Codes from plain order to that of q8.h */
static void turn_codes(int8_t *code)
{
    int8_t second[BW_Q8_CHUNK / 2];
    memcpy(second, code + BW_Q8_CHUNK / 2, sizeof second);
    turn_groups(code, code); /* reads all before it writes; the writes reach into the second half */
    turn_groups(code + 32, second);
}

typedef struct int8_form {
    bool sub, minimum, lift;
} int8_form;

/* Sixteen-bit sums of pairs, w q + w' q'. The instruction takes the first factor unsigned: codes of types
 * with a minimum are, others give their sign to q. It saturates at 32767, which is out of reach: codes
 * are at most 128 and q at most 127 in size, 2 * 128 * 127 = 32512. */
INLINE __m256i pair_sums(int8_form form, __m256i code, __m256i q)
{
    if (form.minimum)
        return _mm256_maddubs_epi16(code, q);
    return _mm256_maddubs_epi16(_mm256_abs_epi8(code), _mm256_sign_epi8(q, code));
}

/* Dword i .. i + 3 of 8 groups, summed by group. Codes of types with a sub-scale or a minimum are at most
 * 32 in size, so that four pair sums fit in 16 bits too: 4 * 2 * 32 * 127 = 32512. */
INLINE __m256i half_dot(int8_form form, const int8_t *code, const int8_t *q)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sums[4];
    UNROLL for (int i = 0; i < 4; i++)
        sums[i] = pair_sums(form, _mm256_loadu_si256((const __m256i *)(code + 64 * i)),
                            _mm256_loadu_si256((const __m256i *)(q + 64 * i)));
    if (form.sub || form.minimum)
        return _mm256_madd_epi16(_mm256_add_epi16(_mm256_add_epi16(sums[0], sums[1]), _mm256_add_epi16(sums[2], sums[3])), ones);
    UNROLL for (int i = 0; i < 4; i++)
        sums[i] = _mm256_madd_epi16(sums[i], ones);
    return _mm256_add_epi32(_mm256_add_epi32(sums[0], sums[1]), _mm256_add_epi32(sums[2], sums[3]));
}

INLINE __m256i load_ints(const int32_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

/* Groups 8 h .. 8 h + 7 of a chunk */
INLINE __m256 int8_step(int8_form form, __m256 sum, const bw_q8_chunk *w, const bw_q8_rows *x, size_t at, int h)
{
    const size_t group = at * BW_Q8_LANES + 8 * (size_t)h;
    const int8_t *code = w->code + 32 * h, *q = x->q + at * BW_Q8_CHUNK + 32 * h;
    const __m256 step = _mm256_loadu_ps(x->scale + group);
    __m256i a = half_dot(form, code, q), b = half_dot(form, code + 256, q + 256);
    if (form.sub) {
        a = _mm256_mullo_epi32(a, load_ints(w->sub[0] + 8 * h));
        b = _mm256_mullo_epi32(b, load_ints(w->sub[1] + 8 * h));
    }
    const __m256 scale = _mm256_mul_ps(_mm256_loadu_ps(w->scale + 8 * h), step);
    sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_add_epi32(a, b)), scale, sum);
    if (!form.minimum)
        return sum;
    __m256i lifted = load_ints(x->sum + group);
    if (form.lift) {
        const __m256i half = load_ints(x->half + group);
        lifted = _mm256_add_epi32(_mm256_mullo_epi32(half, load_ints(w->lift[0] + 8 * h)),
                                  _mm256_mullo_epi32(_mm256_sub_epi32(lifted, half), load_ints(w->lift[1] + 8 * h)));
    }
    const __m256 minimum = _mm256_mul_ps(_mm256_loadu_ps(w->minimum + 8 * h), step);
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(lifted), minimum, sum);
}

INLINE void int8_tile(int8_form form, int n, float *y, size_t y_stride, const bw_q8_chunk *w, int n_chunks,
                      const bw_q8_rows *x, size_t row, bool add)
{
    __m256 low[4], high[4];
    UNROLL for (int r = 0; r < n; r++)
        low[r] = high[r] = _mm256_setzero_ps();
    for (int i = 0; i < n_chunks; i++, w++)
        UNROLL for (int r = 0; r < n; r++) {
            const size_t at = (row + (size_t)r) * (size_t)n_chunks + (size_t)i;
            low[r] = int8_step(form, low[r], w, x, at, 0);
            high[r] = int8_step(form, high[r], w, x, at, 1);
        }
    UNROLL for (int r = 0; r < n; r++)
        put(&y[(size_t)r * y_stride], _mm256_add_ps(low[r], high[r]), add);
}

INLINE void int8_block(int8_form form, float *y, size_t y_stride, const bw_q8_chunk *w, int n_out, int n_chunks,
                       const bw_q8_rows *x, int n, bool add)
{
    int r = 0;
    for (; r + 4 <= n; r += 4)
        for (int o = 0; o < n_out; o++)
            int8_tile(form, 4, y + (size_t)r * y_stride + o, y_stride, w + (size_t)o * (size_t)n_chunks, n_chunks, x, (size_t)r, add);
    for (; r < n; r++)
        for (int o = 0; o < n_out; o++)
            int8_tile(form, 1, y + (size_t)r * y_stride + o, y_stride, w + (size_t)o * (size_t)n_chunks, n_chunks, x, (size_t)r, add);
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

void bw_cpu_fill_avx2_matmul(bw_cpu_kernels *k)
{
    k->matmul_float = matmul_float;
    k->matmul_int8 = matmul_int8;
    k->matmul_scratch_bytes = matmul_scratch_bytes;
}
