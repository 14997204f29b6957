/* A GGUF file, all the way: container, metadata, sizes, weights.
 *
 * Seeds: tools/synth files of the smallest shapes there can be, dense and mixture of experts, and
 * headers alone. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "format/checkpoint_parts.h"
#include "model/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must_be_told(const bw_error *err)
{
    if (!err->message[0] || strchr(err->message, '\n'))
        abort();
}

static void read_values(const bw_checkpoint *c)
{
    for (int i = 0; i < bw_checkpoint_n_values(c); i++) {
        const bw_gguf_value *v = bw_checkpoint_value_at(c, i);
        bw_error err;
        bw_slice *slices;
        int32_t *ints;
        int64_t whole;
        double number;
        size_t count;
        if (v->count) {
            bw_gguf_int(v, v->count - 1, &whole);
            bw_gguf_float(v, v->count - 1, &number);
        }
        if (!bw_checkpoint_strings(c, v->key, &slices, &count, &err))
            bw_mem_free(slices);
        if (!bw_checkpoint_ints(c, v->key, &ints, &count, &err))
            bw_mem_free(ints);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    bw_checkpoint *c;
    bw_config *config = malloc(sizeof *config);
    bw_weights w;
    bw_error err = { 0 };
    if (bw_checkpoint_from_memory(&c, BW_CONTAINER_GGUF, "fuzz.gguf", data, n, &err)) {
        must_be_told(&err);
        free(config);
        return 0;
    }
    for (int i = 0; i < bw_checkpoint_n_tensors(c); i++) {
        const bw_tensor *t = bw_checkpoint_tensor_at(c, i);
        if (bw_checkpoint_tensor(c, t->name) != t || t->bytes > n || (t->bytes && (t->data < data || t->data > data + (n - t->bytes))))
            abort();
    }
    read_values(c);
    if (bw_config_read(config, c, &err))
        must_be_told(&err);
    else if (bw_weights_resolve(&w, config, c, n % 2, &err))
        must_be_told(&err);
    else
        bw_weights_release(&w);
    bw_checkpoint_close(c);
    free(config);
    return 0;
}
