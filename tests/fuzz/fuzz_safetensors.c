/* A safetensors file: what opens is unique by name, lies inside the block and has a place or none.
 *
 * Seeds: files of the three float types, scalars and empty tensors, escapes in names, metadata,
 * integers, and one whole little model's header, written with the safetensors package or by hand. */
#include <stdlib.h>
#include <string.h>

#include "format/checkpoint_parts.h"
#include "format/roles.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    bw_checkpoint *c;
    bw_error err = { 0 };
    if (bw_checkpoint_from_memory(&c, BW_CONTAINER_HF, "fuzz.safetensors", data, n, &err)) {
        if (c || !err.message[0] || strchr(err.message, '\n'))
            abort();
        return 0;
    }
    uint64_t total = 0;
    for (int i = 0; i < bw_checkpoint_n_tensors(c); i++) {
        const bw_tensor *t = bw_checkpoint_tensor_at(c, i);
        if (bw_checkpoint_tensor(c, t->name) != t || t->bytes > n || (t->bytes && (t->data < data || t->data > data + (n - t->bytes))))
            abort();
        const bw_place place = bw_role_of(BW_CONTAINER_HF, t->name);
        if ((unsigned)place.role >= BW_ROLE_COUNT || place.layer < 0 || place.expert < -1 || !place.part)
            abort();
        total += t->bytes;
    }
    if (total > n)
        abort();
    bw_checkpoint_close(c);
    return 0;
}
