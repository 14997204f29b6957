/* ops_check.h - what tests of CPU operations share: random rows and packed weights, outputs between
 * guards, every level of this machine. */
#ifndef BW_TESTS_OPS_CHECK_H
#define BW_TESTS_OPS_CHECK_H

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "base/dequant.h"
#include "base/half.h"
#include "lib/check.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/pack.h"

#define OPS_HELPER static inline __attribute__((unused))

/* for (level name in turn) with its kernels in k */
#define each_level(level, k)                                                                          \
    for (const char *const *level##_at_ = bw_cpu_levels_here(), *level;                               \
         (level = *level##_at_) && level_kernels(&(k), level); level##_at_++)

OPS_HELPER bool level_kernels(bw_cpu_kernels *k, const char *level)
{
    const char *reached = bw_cpu_kernels_init(k, level);
    check_that(reached && strcmp(reached, level) == 0, "level %s is not reached", level);
    return true;
}

/* ---- blocks of exactly the size asked for, with guards; all are checked and freed together ---- */

enum { GUARD_BYTES = 256, MAX_GUARDED = 64 };
static struct { unsigned char *block; size_t bytes; } guarded[MAX_GUARDED];
static int n_guarded;

OPS_HELPER void *guarded_bytes(size_t bytes)
{
    check_that(n_guarded < MAX_GUARDED, "more than %d guarded blocks", MAX_GUARDED);
    unsigned char *block = aligned_alloc(64, (bytes + 2 * GUARD_BYTES + 63) / 64 * 64);
    check(block);
    memset(block, 0xA5, GUARD_BYTES);
    memset(block + GUARD_BYTES, 0xFF, bytes); /* floats: NaN until they are written */
    memset(block + GUARD_BYTES + bytes, 0xA5, GUARD_BYTES);
    guarded[n_guarded].block = block;
    guarded[n_guarded++].bytes = bytes;
    return block + GUARD_BYTES;
}

OPS_HELPER float *guarded_floats(size_t n)
{
    return guarded_bytes(n * sizeof(float));
}

OPS_HELPER void check_guards(void)
{
    for (int i = 0; i < n_guarded; i++) {
        const unsigned char *block = guarded[i].block;
        for (size_t k = 0; k < GUARD_BYTES; k++)
            check_that(block[k] == 0xA5 && block[GUARD_BYTES + guarded[i].bytes + k] == 0xA5,
                       "block %d (%zu bytes): written outside", i, guarded[i].bytes);
        free(guarded[i].block);
    }
    n_guarded = 0;
}

/* ---- random values ---- */

/* Rows of many kinds: ordinary, tiny, huge, equal, with outliers, mixed magnitudes, zero. */
OPS_HELPER void random_rows(float *x, int n, int d)
{
    for (int r = 0; r < n; r++) {
        const int kind = rnd_int(0, 7);
        const float equal = rnd_float();
        for (int c = 0; c < d; c++) {
            float v = rnd_float();
            switch (kind) {
            case 0: v *= 1e-12f; break;
            case 1: v *= 1e9f; break;
            case 2: v = equal; break;
            case 3: v *= rnd_int(0, 30) ? 1.0f : 1000.0f; break;
            case 4: v *= ldexpf(1, rnd_int(-20, 20)); break;
            case 5: v *= rnd_int(0, 40) ? 1.0f : 0.0f; break;
            default: break;
            }
            x[(size_t)r * (size_t)d + (size_t)c] = v;
        }
        if (kind == 5 && rnd_int(0, 3) == 0)
            memset(x + (size_t)r * (size_t)d, 0, (size_t)d * sizeof *x);
    }
}

OPS_HELPER float *random_floats(size_t n, float scale)
{
    float *x = guarded_floats(n);
    for (size_t i = 0; i < n; i++)
        x[i] = scale * rnd_float();
    return x;
}

OPS_HELPER void put_half(unsigned char *p, float v)
{
    const uint16_t h = bw_f32_to_f16(v);
    p[0] = (unsigned char)h;
    p[1] = (unsigned char)(h >> 8);
}

/* Where the half-precision scales of a block are; -1: no second one. */
OPS_HELPER void scale_places(bw_dtype type, int *first, int *second)
{
    *first = type == BW_Q2_K ? 80 : type == BW_Q3_K ? 108 : type == BW_Q6_K ? 208 : 0;
    *second = type == BW_Q2_K ? 82 : type == BW_Q4_1 || type == BW_Q5_1 || type == BW_Q4_K || type == BW_Q5_K ? 2 : -1;
}

/* A matrix of random blocks, values around 1 / sqrt(cols), at an address without alignment. */
OPS_HELPER bw_weight random_weight(bw_dtype type, int rows, int cols, bool int8)
{
    const bw_dtype_info *info = bw_dtype_get(type);
    const size_t bytes = (size_t)bw_dtype_row_bytes(type, (uint64_t)cols) * (size_t)rows;
    unsigned char *data = guarded_bytes(bytes);
    const float size = 1 / sqrtf((float)cols);
    for (size_t i = 0; i < bytes; i++)
        data[i] = (unsigned char)rnd_u64();
    for (size_t at = 0; at < bytes; at += (size_t)info->bytes) {
        if (bw_dtype_is_float(type)) {
            const uint32_t bits = bw_f32_bits(size * rnd_float());
            const uint16_t half = bw_f32_to_f16(bw_f32_from_bits(bits)), brain = (uint16_t)(bits >> 16);
            memcpy(data + at, type == BW_F32 ? (const void *)&bits : type == BW_F16 ? (const void *)&half : &brain,
                   (size_t)info->bytes);
            continue;
        }
        int first, second;
        scale_places(type, &first, &second);
        put_half(data + at + first, size / 60 * rnd_float());
        if (second >= 0)
            put_half(data + at + second, size / 60 * rnd_float());
    }
    return (bw_weight){ .type = type, .int8 = int8, .rows = rows, .cols = cols, .data = data };
}

/* Row of a weight, widened. */
OPS_HELPER void weight_values(float *out, const bw_weight *w, int row)
{
    bw_dequantize_row(w->type, (const unsigned char *)w->data + (size_t)row * bw_dtype_row_bytes(w->type, (uint64_t)w->cols),
                      out, (size_t)w->cols);
}

/* A width a row of this type can have: any number of blocks, up to about `most`. */
OPS_HELPER int random_cols(bw_dtype type, int most)
{
    const int block = bw_dtype_get(type)->elements;
    return block * rnd_int(1, most / block > 1 ? most / block : 1);
}

/* |got - want| <= tolerance */
#define check_near(got, want, tolerance, ...) check_near_at(__FILE__, __LINE__, got, want, tolerance, __VA_ARGS__)
OPS_HELPER void check_near_at(const char *file, int line, double got, double want, double tolerance, const char *format, ...)
    __attribute__((format(printf, 6, 7)));
OPS_HELPER void check_near_at(const char *file, int line, double got, double want, double tolerance, const char *format, ...)
{
    if (fabs(got - want) <= tolerance)
        return;
    char where[256];
    va_list args;
    va_start(args, format);
    vsnprintf(where, sizeof where, format, args);
    va_end(args);
    check_fail_at(file, line, "%s: got %.9g, want %.9g, off by %.3g, allowed %.3g", where, got, want, fabs(got - want),
                  tolerance);
}

/* w as kernels that pack want it; the others get it as it is. */
OPS_HELPER bw_weight packed_for(const bw_cpu_kernels *k, const bw_weight *w)
{
    bw_weight packed = *w;
    if (!k->packs || !w->int8)
        return packed;
    const size_t bytes = bw_pack_bytes(w->type, w->rows, w->cols), panel_bytes = bw_pack_panel_bytes(w->type, w->cols);
    const size_t row_bytes = bw_dtype_row_bytes(w->type, (uint64_t)w->cols);
    unsigned char *data = guarded_bytes(bytes);
    memset(data, 0, bytes);
    for (int r = 0; r < w->rows; r++)
        bw_pack_row_in(data + (size_t)(r / BW_PANEL_ROWS) * panel_bytes, w->type, w->cols, r % BW_PANEL_ROWS,
                       (const unsigned char *)w->data + (size_t)r * row_bytes);
    packed.packed = true;
    packed.data = data;
    return packed;
}

#endif
