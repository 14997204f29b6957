/* Pages and slots: handed out once, counted, given back; slots start from nothing. */
#include "lib/check.h"

#include <stdlib.h>

#include "cache/pages.h"
#include "cache/slots.h"

static bw_backend *cpu(void)
{
    bw_backend *be;
    bw_error err;
    check_ok(bw_cpu_backend_create(&be, 1, "ref", &err), err);
    return be;
}

static const bw_attn_shape attn = { .n_heads = 4, .n_kv_heads = 2, .head_dim = 24 };
static const bw_gdn_shape gdn = { .n_k_heads = 2, .n_v_heads = 4, .d_k = 8, .d_v = 20, .conv_width = 4, .conv_dim = 112 };

TEST(pages_are_conserved_under_random_use)
{
    enum { N = 37 };
    bw_backend *be = cpu();
    bw_pages *pages;
    bw_error err;
    check_ok(bw_pages_create(&pages, be, BW_CODEC_F16, &attn, 3, N, &err), err);
    int references[N] = { 0 }, held = 0;
    for (int i = 0; i < 20000; i++) {
        int page = rnd_int(0, N - 1);
        switch (rnd_int(0, 2)) {
        case 0:
            page = bw_pages_take(pages);
            if (held == N) {
                check_int(page, -1);
            } else {
                check(page >= 0 && page < N && references[page] == 0);
                references[page] = 1;
                held++;
            }
            break;
        case 1:
            if (references[page] > 0 && references[page] < 5) {
                bw_pages_share(pages, page);
                references[page]++;
            }
            break;
        case 2:
            if (references[page] > 0) {
                bw_pages_release(pages, page);
                held -= --references[page] == 0;
            }
        }
        check_int(bw_pages_free(pages), N - held);
        check_int(bw_pages_holders(pages, page < 0 ? 0 : page), references[page < 0 ? 0 : page]);
    }
    bw_pages_destroy(pages);
    be->ops->destroy(be);
}

/* Every layer's keys and values of the page, and nothing beside them. */
TEST(a_copied_page_has_all_rows_of_all_layers)
{
    enum { N = 5, LAYERS = 3 };
    bw_backend *be = cpu();
    bw_pages *pages;
    bw_error err;
    check_ok(bw_pages_create(&pages, be, BW_CODEC_F16, &attn, LAYERS, N, &err), err);
    const size_t bytes = (size_t)bw_kv_layer_page_bytes(BW_CODEC_F16, &attn) / 2;
    for (int i = 0; i < N; i++)
        check_int(bw_pages_take(pages), i);
    for (int l = 0; l < LAYERS; l++)
        for (size_t i = 0; i < N * bytes; i++) {
            ((unsigned char *)bw_pages_layers(pages)[l].k)[i] = (unsigned char)(i / bytes * 40 + i % 37 + (size_t)l);
            ((unsigned char *)bw_pages_layers(pages)[l].v)[i] = (unsigned char)(i / bytes * 41 + i % 31 + (size_t)l);
        }
    bw_pages_copy(pages, 3, 1);
    for (int l = 0; l < LAYERS; l++)
        for (size_t i = 0; i < N * bytes; i++) {
            const size_t page = i / bytes == 3 ? 1 : i / bytes, at = page * bytes + i % bytes;
            check_int(((unsigned char *)bw_pages_layers(pages)[l].k)[i], (unsigned char)(page * 40 + at % 37 + (size_t)l));
            check_int(((unsigned char *)bw_pages_layers(pages)[l].v)[i], (unsigned char)(page * 41 + at % 31 + (size_t)l));
        }
    bw_pages_destroy(pages);
    be->ops->destroy(be);
}

TEST(a_page_costs_what_the_plan_says)
{
    check_int(bw_pages_page_bytes(BW_CODEC_F16, &attn, 3), 3 * 2 * 2 * 64 * 24 * 2);
    check_int(bw_pages_page_bytes(BW_CODEC_F32, &attn, 3), 3 * 2 * 2 * 64 * 24 * 4);
    bw_backend *be = cpu();
    const uint64_t before = bw_mem_used(BW_MEM_KV), state = bw_mem_used(BW_MEM_STATE);
    bw_pages *pages;
    bw_slots *slots;
    bw_error err;
    check_ok(bw_pages_create(&pages, be, BW_CODEC_F16, &attn, 3, 10, &err), err);
    check_int(bw_mem_used(BW_MEM_KV) - before, 10 * bw_pages_page_bytes(BW_CODEC_F16, &attn, 3));
    check_ok(bw_slots_create(&slots, be, &gdn, 5, 3, 8, &err), err);
    check_int(bw_mem_used(BW_MEM_STATE) - state, bw_slots_bytes(&gdn, 5, 3, 8));
    bw_pages_destroy(pages);
    bw_slots_destroy(slots);
    check_int(bw_mem_used(BW_MEM_KV), before);
    check_int(bw_mem_used(BW_MEM_STATE), state);
    be->ops->destroy(be);
}

TEST(a_slot_starts_from_nothing_and_restores_what_was_saved)
{
    bw_backend *be = cpu();
    bw_slots *slots;
    bw_error err;
    check_ok(bw_slots_create(&slots, be, &gdn, 3, 2, 4, &err), err);
    const size_t bytes = bw_slots_state_bytes(slots);
    float *saved = malloc(bytes), *again = malloc(bytes), *nothing = calloc(1, bytes);
    const int a = bw_slots_take(slots), b = bw_slots_take(slots);
    check(a != b && a >= 0 && b >= 0);
    check_int(bw_slots_take(slots), -1);
    for (size_t i = 0; i < bytes / sizeof(float); i++)
        saved[i] = rnd_float();
    bw_slots_restore(slots, a, saved);
    bw_slots_save(slots, b, again);
    check(memcmp(again, nothing, bytes) == 0); /* the other slot was not touched */
    bw_slots_save(slots, a, again);
    check(memcmp(again, saved, bytes) == 0);
    bw_slots_release(slots, a);
    check_int(bw_slots_take(slots), a);
    bw_slots_save(slots, a, again);
    check(memcmp(again, nothing, bytes) == 0);
    bw_slots_destroy(slots);
    be->ops->destroy(be);
    free(saved), free(again), free(nothing);
}

TEST(no_memory_for_pages_or_slots_is_one_message)
{
    bw_backend *be = cpu();
    bw_pages *pages;
    bw_slots *slots;
    bw_error err;
    bool failed = true;
    for (int n = 1; failed; n++) {
        bw_mem_fail_at(n);
        bw_status st = bw_pages_create(&pages, be, BW_CODEC_F16, &attn, 3, 10, &err);
        failed = bw_mem_fail_at(0);
        check((st == BW_OK) != failed && (st == BW_OK) == (pages != NULL));
        check(!failed || strstr(err.message, "KV pages"));
        bw_pages_destroy(pages);
    }
    failed = true;
    for (int n = 1; failed; n++) {
        bw_mem_fail_at(n);
        bw_status st = bw_slots_create(&slots, be, &gdn, 3, 2, 4, &err);
        failed = bw_mem_fail_at(0);
        check((st == BW_OK) != failed && (st == BW_OK) == (slots != NULL));
        check(!failed || strstr(err.message, "recurrent slots"));
        bw_slots_destroy(slots);
    }
    be->ops->destroy(be);
}

TESTS_MAIN(ENTRY(pages_are_conserved_under_random_use), ENTRY(a_copied_page_has_all_rows_of_all_layers),
           ENTRY(a_page_costs_what_the_plan_says),
           ENTRY(a_slot_starts_from_nothing_and_restores_what_was_saved), ENTRY(no_memory_for_pages_or_slots_is_one_message))
