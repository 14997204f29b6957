/* test_place.c - matrices on a CPU backend whose kernels read packed weights: every row is there, nothing more is
 * taken than was announced, and what must stay in the file's order stays. */
#include "lib/ops_check.h"
#include "ops/cpu/pack.h"

/* A backend that packs, whatever its level does. */
static bw_backend *packing_backend(int threads)
{
    bw_backend *be;
    bw_error err;
    check_ok(bw_cpu_backend_create(&be, threads, "ref", &err), err);
    bw_cpu_of(be)->k.packs = true;
    return be;
}

static bw_place_args args_of(const bw_weight *w)
{
    return (bw_place_args){ .type = w->type, .rows = w->rows, .cols = w->cols, .host = w->data, .int8 = true };
}

static void check_packed(const bw_weight *packed, const bw_weight *file)
{
    const size_t row_bytes = bw_dtype_row_bytes(file->type, (uint64_t)file->cols);
    const size_t panel_bytes = bw_pack_panel_bytes(file->type, file->cols);
    unsigned char *row = guarded_bytes(row_bytes), *last = guarded_bytes(panel_bytes);
    check(packed->packed && packed->int8 && packed->rows == file->rows && packed->cols == file->cols);
    check_int((uintptr_t)packed->data % BW_PACK_LINE, 0);
    for (int r = 0; r < file->rows; r++) {
        bw_pack_row_out(row, file->type, file->cols, r % BW_PANEL_ROWS,
                        (const unsigned char *)packed->data + (size_t)(r / BW_PANEL_ROWS) * panel_bytes);
        check_that(memcmp(row, (const unsigned char *)file->data + (size_t)r * row_bytes, row_bytes) == 0,
                   "%s: row %d of %d by %d", bw_dtype_get(file->type)->name, r, file->rows, file->cols);
    }
    memset(last, 0, panel_bytes); /* the last panel made alone, its empty lanes zero */
    for (int r = (file->rows - 1) / BW_PANEL_ROWS * BW_PANEL_ROWS; r < file->rows; r++)
        bw_pack_row_in(last, file->type, file->cols, r % BW_PANEL_ROWS, (const unsigned char *)file->data + (size_t)r * row_bytes);
    check(memcmp(last, (const unsigned char *)packed->data + (size_t)((file->rows - 1) / BW_PANEL_ROWS) * panel_bytes,
                 panel_bytes) == 0);
}

TEST(every_row_is_packed_on_any_number_of_threads)
{
    for (int threads = 1; threads <= 5; threads += 2) {
        bw_backend *be = packing_backend(threads);
        for (bw_dtype type = BW_Q8_0; type < BW_DTYPE_COUNT; type++)
            for (int i = 0; i < 4; i++) {
                const int cols = random_cols(type, 2048), rows = i == 3 ? rnd_int(2000, 4000) : rnd_int(1, 100);
                const bw_weight file = random_weight(type, rows, cols, true);
                bw_place_args args = args_of(&file);
                bw_error err;
                bw_weight own, lent;
                const uint64_t bytes = be->ops->place_bytes(be, &args, NULL), before = bw_mem_used(BW_MEM_WEIGHTS);
                check_ok(be->ops->place(be, &own, &args, &err), err);
                check_int(bw_mem_used(BW_MEM_WEIGHTS) - before, bytes);
                check_packed(&own, &file);
                unsigned char *room = guarded_bytes(bytes + 64); /* whatever it held */
                args.room = room + (64 - (uintptr_t)room % 64) % 64;
                check_ok(be->ops->place(be, &lent, &args, &err), err);
                check(lent.data == args.room && !lent.own);
                check(memcmp(lent.data, own.data, bytes) == 0);
                be->ops->unplace(be, &lent);
                be->ops->unplace(be, &own);
                check(own.data == NULL);
                check_int(bw_mem_used(BW_MEM_WEIGHTS), before);
                check_guards();
            }
        be->ops->destroy(be);
    }
}

TEST(tables_of_rows_float_products_and_floats_stay_as_the_file_has_them)
{
    bw_backend *be = packing_backend(2);
    const bw_weight file = random_weight(BW_Q6_K, 40, 256, true), floats = random_weight(BW_BF16, 40, 256, true);
    bw_place_args rows = args_of(&file), widened = args_of(&file), plain = args_of(&floats);
    bw_place_args *const all[] = { &rows, &widened, &plain };
    rows.use = BW_FOR_ROWS;
    widened.int8 = false;
    for (size_t i = 0; i < BW_COUNT(all); i++) {
        bw_error err;
        bw_weight w;
        const char *note = NULL;
        check_int(be->ops->place_bytes(be, all[i], &note), 0);
        check_that(i == 0 ? note == NULL : note && strcmp(note, "integer dots") != 0, "case %zu: %s", i,
                   note ? note : "no note");
        check_ok(be->ops->place(be, &w, all[i], &err), err);
        check(w.data == all[i]->host && !w.packed && !w.own && !w.int8);
        be->ops->unplace(be, &w);
    }
    be->ops->destroy(be);
    check_guards();
}

TEST(a_level_without_kernels_for_packed_weights_packs_nothing)
{
    bw_cpu_kernels k = { 0 };
    const bw_weight file = random_weight(BW_Q4_0, 33, 64, true);
    const bw_place_args args = args_of(&file);
    each_level (level, k) {
        bw_backend *be;
        bw_error err;
        bw_weight w;
        check_ok(bw_cpu_backend_create(&be, 1, level, &err), err);
        check_int(be->ops->place_bytes(be, &args, NULL), k.packs ? bw_pack_bytes(BW_Q4_0, 33, 64) : 0);
        check_ok(be->ops->place(be, &w, &args, &err), err);
        check_int(w.packed, k.packs);
        check(strcmp(level, "ref") != 0 || !k.packs);
        be->ops->unplace(be, &w);
        be->ops->destroy(be);
    }
    check_guards();
}

TEST(a_copy_that_no_memory_is_had_for_is_refused)
{
    bw_backend *be = packing_backend(2);
    const bw_weight file = random_weight(BW_Q8_0, 32, 64, true);
    const bw_place_args args = args_of(&file);
    bw_error err;
    bw_weight w;
    bw_mem_fail_at(1);
    const bw_status st = be->ops->place(be, &w, &args, &err);
    check(bw_mem_fail_at(0));
    check_error(st, BW_E_MEMORY, err, "packed", "2176");
    be->ops->unplace(be, &w); /* nothing was placed */
    be->ops->destroy(be);
    check_guards();
}

TESTS_MAIN(ENTRY(every_row_is_packed_on_any_number_of_threads),
           ENTRY(tables_of_rows_float_products_and_floats_stay_as_the_file_has_them),
           ENTRY(a_level_without_kernels_for_packed_weights_packs_nothing),
           ENTRY(a_copy_that_no_memory_is_had_for_is_refused))
