/* model_facts.h - what a server tells about an open model beside bw_model_info: how many weights, how
 * they are stored, the chat template that came with it.
 *
 * Counted from the headers of the files; reads no weights. Any thread. */
#ifndef BW_ENGINE_MODEL_FACTS_H
#define BW_ENGINE_MODEL_FACTS_H

#include "bellwether.h"

typedef struct bw_model_facts {
    uint64_t n_params;         /* elements of all tensors that are weights, pictures' and drafts' included */
    char quantization[32];     /* the type that holds most bytes, as its file calls it: "Q4_K" */
    const char *chat_template; /* as it came; NULL: none. The model's */
    size_t n_chat_template;
    const char *chat_format;   /* which known format it is, or which is assumed and why; NULL: no tokenizer */
} bw_model_facts;

void bw_model_get_facts(const bw_model *model, bw_model_facts *facts);

#endif
