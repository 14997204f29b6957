/* sampling.c - which sampling settings hold when nobody asks for others: docs/sampling.md. */
#include <math.h>

#include "engine/model_open.h"

static float known(float value, float otherwise)
{
    return isnan(value) ? otherwise : value;
}

bw_sampling bw_sampling_defaults_of(const bw_model *model, bool chat, bool thinking)
{
    /* The model card's row for answers without thinking; checkpoints only carry the other one. */
    if (chat && !thinking)
        return (bw_sampling){ .temperature = 0.7f, .top_k = 20, .top_p = 0.8f, .presence_penalty = 1.5f,
                              .repetition_penalty = 1 };
    const bw_sampling_defaults *d = &model->config.sampling;
    return (bw_sampling){ .temperature = known(d->temperature, 1), .top_k = d->top_k > 0 ? d->top_k : 0,
                          .top_p = known(d->top_p, 1), .min_p = known(d->min_p, 0),
                          .presence_penalty = known(d->presence_penalty, 0),
                          .frequency_penalty = known(d->frequency_penalty, 0),
                          .repetition_penalty = known(d->repetition_penalty, 1) };
}
