/* test_pack.c - packed matrices hold the file's bits: taken out again they are the same, and read by the
 * formulas of pack.h they are the same values. */
#include <stdlib.h>

#include "lib/ops_check.h"
#include "ops/cpu/pack.h"

static const bw_dtype types[] = { BW_Q8_0, BW_Q4_0, BW_Q4_1, BW_Q5_0, BW_Q5_1, BW_IQ4_NL,
                                  BW_Q2_K, BW_Q3_K, BW_Q4_K, BW_Q5_K, BW_Q6_K, BW_IQ4_XS };
enum { N_TYPES = sizeof types / sizeof *types };

static const int widths[] = { 32, 64, 96, 160, 256, 512, 768, 1056, 1280, 4096 };

/* The next type and a width that it can have; false after the last. */
static bool next_case(size_t *at, bw_dtype *type, int *cols)
{
    enum { N_WIDTHS = sizeof widths / sizeof *widths };
    for (; *at < N_TYPES * N_WIDTHS; (*at)++) {
        *type = types[*at / N_WIDTHS];
        *cols = widths[*at % N_WIDTHS];
        if (*cols % bw_dtype_get(*type)->elements == 0)
            return (*at)++, true;
    }
    return false;
}

/* A panel with `rows` of a matrix in it, the other lanes empty. */
static unsigned char *packed_panel(const bw_weight *w, int rows)
{
    const size_t bytes = bw_pack_panel_bytes(w->type, w->cols), row_bytes = bw_dtype_row_bytes(w->type, (uint64_t)w->cols);
    unsigned char *panel = guarded_bytes(bytes);
    memset(panel, 0, bytes);
    for (int r = 0; r < rows; r++)
        bw_pack_row_in(panel, w->type, w->cols, r, (const unsigned char *)w->data + (size_t)r * row_bytes);
    return panel;
}

/* ---- the formulas of pack.h, bit by bit ---- */

static int u16_at(const unsigned char *p)
{
    return p[0] | p[1] << 8;
}

static uint32_t u32_at(const unsigned char *p)
{
    return (uint32_t)u16_at(p) | (uint32_t)u16_at(p + 2) << 16;
}

/* Byte 4 r + c of piece k of a group, from its planes. */
static int code_at(const unsigned char *group, bw_pack_form form, int lane, int col)
{
    const int k = col / 4, byte = 4 * lane + col % 4;
    const unsigned char *high = group + 64 * form.low_bits;
    int code = form.low_bits == 8   ? group[64 * k + byte]
               : form.low_bits == 4 ? group[64 * (k / 2) + byte] >> (4 * (k % 2)) & 15
                                    : group[64 * (k / 4) + byte] >> (2 * (k % 4)) & 3;
    if (form.high_bits == 2)
        code |= (high[64 * (k / 4) + byte] >> (2 * (k % 4)) & 3) << form.low_bits;
    if (form.high_bits == 1)
        code |= (high[byte] >> k & 1) << form.low_bits;
    return code;
}

static float half_at(const unsigned char *p)
{
    return bw_f16_to_f32((uint16_t)u16_at(p));
}

/* The scale and what is added, of half `half` of group g of a brick. */
static void scale_of(const unsigned char *head, bw_pack_form form, int lane, int g, int half, float *scale, float *plus)
{
    const unsigned char *sub = head + 64;
    const int h = 2 * g + half;
    *plus = 0;
    switch (form.head) {
    case BW_HEAD_D_M: *plus = half_at(head + 64 + 32 * g + 2 * lane); /* falls through */
    case BW_HEAD_D: *scale = half_at(head + 32 * g + 2 * lane); return;
    case BW_HEAD_K_MIN: {
        const uint32_t low = u32_at(sub + 4 * lane), lift = u32_at(sub + 64 + 4 * lane), high = u32_at(sub + 128 + 4 * lane);
        *scale = half_at(head + 2 * lane) * (float)((low >> 4 * g & 15) | (high >> 2 * g & 3) << 4);
        *plus = -half_at(head + 32 + 2 * lane) * (float)((lift >> 4 * g & 15) | (high >> (16 + 2 * g) & 3) << 4);
        return;
    }
    case BW_HEAD_K_HALF_MIN:
        *scale = half_at(head + 2 * lane) * (float)(sub[16 * h + lane] & 15);
        *plus = -half_at(head + 32 + 2 * lane) * (float)(sub[16 * h + lane] >> 4);
        return;
    case BW_HEAD_K_HALF: *scale = half_at(head + 2 * lane) * (float)(int8_t)sub[16 * h + lane]; return;
    case BW_HEAD_K: *scale = half_at(head + 2 * lane) * (float)(int8_t)sub[16 * g + lane]; return;
    }
}

static float value_at(const unsigned char *panel, bw_dtype type, int lane, int col)
{
    const bw_pack_form form = bw_pack_form_of(type);
    const int width = 32 * bw_pack_brick_groups(form), g = col % width / 32;
    const unsigned char *brick = panel + (size_t)(col / width) * bw_pack_brick_bytes(form);
    const int code = code_at(brick + bw_pack_head_bytes(form) + (size_t)g * bw_pack_group_bytes(form), form, lane, col % 32);
    float scale, plus;
    scale_of(brick, form, lane, g, col % 32 / 16, &scale, &plus);
    return scale * (float)(form.table ? bw_iq4_levels[code] : code - form.offset) + plus;
}

/* ---- tests ---- */

TEST(a_row_taken_out_of_any_lane_is_the_row_put_in)
{
    bw_dtype type;
    int cols;
    for (size_t at = 0; next_case(&at, &type, &cols);) {
        const bw_weight w = random_weight(type, BW_PANEL_ROWS, cols, true);
        const size_t row_bytes = bw_dtype_row_bytes(type, (uint64_t)cols);
        const unsigned char *panel = packed_panel(&w, BW_PANEL_ROWS);
        unsigned char *back = guarded_bytes(row_bytes);
        for (int r = 0; r < BW_PANEL_ROWS; r++) {
            memset(back, 0x5A, row_bytes);
            bw_pack_row_out(back, type, cols, r, panel);
            check_that(memcmp(back, (const unsigned char *)w.data + (size_t)r * row_bytes, row_bytes) == 0,
                       "%s, %d columns, lane %d: other bytes came out", bw_dtype_get(type)->name, cols, r);
        }
        check_guards();
    }
}

TEST(every_bit_of_a_block_survives)
{
    for (int t = 0; t < N_TYPES; t++) {
        const int elements = bw_dtype_get(types[t])->elements, bytes = bw_dtype_get(types[t])->bytes;
        for (int bit = 0; bit < 8 * bytes; bit++) {
            unsigned char *row = guarded_bytes((size_t)bytes), *back = guarded_bytes((size_t)bytes);
            memset(row, 0, (size_t)bytes);
            row[bit / 8] = (unsigned char)(1 << bit % 8);
            const bw_weight w = { .type = types[t], .rows = 1, .cols = elements, .data = row };
            bw_pack_row_out(back, types[t], elements, 0, packed_panel(&w, 1));
            check_that(memcmp(row, back, (size_t)bytes) == 0, "%s: bit %d of the block", bw_dtype_get(types[t])->name, bit);
            check_guards();
        }
    }
}

TEST(a_panel_read_by_its_description_has_the_files_values)
{
    bw_dtype type;
    int cols;
    for (size_t at = 0; next_case(&at, &type, &cols);) {
        const bw_weight w = random_weight(type, BW_PANEL_ROWS, cols, true);
        const unsigned char *panel = packed_panel(&w, BW_PANEL_ROWS);
        float *want = guarded_floats((size_t)cols);
        for (int r = 0; r < BW_PANEL_ROWS; r++) {
            weight_values(want, &w, r);
            for (int c = 0; c < cols; c++)
                check_that(value_at(panel, type, r, c) == want[c], "%s, %d columns, row %d column %d: %.9g, want %.9g",
                           bw_dtype_get(type)->name, cols, r, c, value_at(panel, type, r, c), want[c]);
        }
        check_guards();
    }
}

TEST(empty_lanes_and_groups_past_the_last_stay_zero)
{
    bw_dtype type;
    int cols;
    for (size_t at = 0; next_case(&at, &type, &cols);) {
        const bw_weight w = random_weight(type, BW_PANEL_ROWS, cols, true);
        const bw_pack_form form = bw_pack_form_of(type);
        const int rows = rnd_int(1, BW_PANEL_ROWS - 1), n_groups = cols / 32, brick_groups = bw_pack_brick_groups(form);
        const unsigned char *panel = packed_panel(&w, rows);
        for (int r = rows; r < BW_PANEL_ROWS; r++)
            for (int c = 0; c < bw_pack_bricks(form, cols) * brick_groups * 32; c++) {
                const int g = c / 32 % brick_groups;
                const unsigned char *brick = panel + (size_t)(c / 32 / brick_groups) * bw_pack_brick_bytes(form);
                float scale, plus;
                scale_of(brick, form, r, g, c % 32 / 16, &scale, &plus);
                check(scale == 0 && plus == 0);
                check_int(code_at(brick + bw_pack_head_bytes(form) + (size_t)g * bw_pack_group_bytes(form), form, r, c % 32), 0);
            }
        for (int g = n_groups; g < bw_pack_bricks(form, cols) * brick_groups; g++) { /* of blocks of 32 only */
            const unsigned char *brick = panel + (size_t)(g / 2) * bw_pack_brick_bytes(form);
            const unsigned char *group = brick + bw_pack_head_bytes(form) + bw_pack_group_bytes(form);
            for (size_t i = 0; i < bw_pack_group_bytes(form); i++)
                check_int(group[i], 0);
            for (int i = 32; i < 64; i++)
                check(brick[i] == 0 && (form.head == BW_HEAD_D || brick[64 + i] == 0));
        }
        check_guards();
    }
}

TESTS_MAIN(ENTRY(a_row_taken_out_of_any_lane_is_the_row_put_in), ENTRY(every_bit_of_a_block_survives),
           ENTRY(a_panel_read_by_its_description_has_the_files_values),
           ENTRY(empty_lanes_and_groups_past_the_last_stay_zero))
