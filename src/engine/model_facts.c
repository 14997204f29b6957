/* model_facts.c - see model_facts.h. */
#include "engine/model_facts.h"

#include <stdio.h>
#include <string.h>

#include "engine/model_open.h"

enum { MOST_TYPES = 32 };

static uint64_t elements(const bw_tensor *tensor)
{
    uint64_t n = 1;
    for (int i = 0; i < tensor->n_dims; i++)
        n *= tensor->shape[i];
    return n;
}

void bw_model_get_facts(const bw_model *model, bw_model_facts *facts)
{
    struct {
        const char *name;
        uint64_t bytes;
    } types[MOST_TYPES] = { { "none", 0 } };
    int n_types = 0, most = 0;
    *facts = (bw_model_facts){ 0 };
    for (int i = 0; i < bw_checkpoint_n_tensors(model->checkpoint); i++) {
        const bw_tensor *tensor = bw_checkpoint_tensor_at(model->checkpoint, i);
        int k = 0;
        if (!tensor->readable)
            continue;
        facts->n_params += elements(tensor);
        while (k < n_types && strcmp(types[k].name, tensor->type_name) != 0)
            k++;
        if (k == MOST_TYPES)
            continue;
        if (k == n_types)
            types[n_types++].name = tensor->type_name;
        types[k].bytes += tensor->bytes;
        if (types[k].bytes > types[most].bytes)
            most = k;
    }
    snprintf(facts->quantization, sizeof facts->quantization, "%s", types[most].name);
    if (model->text) {
        facts->chat_template = bw_text_source_template(model->text, &facts->n_chat_template);
        facts->chat_format = bw_text_source_chat_note(model->text);
    }
}
