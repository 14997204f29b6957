/* model_text.h - the text side of an open model, for what stands on it inside the library. */
#ifndef BW_ENGINE_MODEL_TEXT_H
#define BW_ENGINE_MODEL_TEXT_H

#include "engine/text_source.h"

/* NULL: the model came without a tokenizer; bw_model_info.text_note says why. The model's. */
const bw_text_source *bw_model_text(const bw_model *model);

#endif
