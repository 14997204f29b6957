/* api_fields.h - the members that chat completions and completions have in common. No state; any thread. */
#ifndef BW_SERVER_API_FIELDS_H
#define BW_SERVER_API_FIELDS_H

#include "server/api_json.h"

/* 404 model_not_found unless `model` is absent, empty or one of ours. */
bool bw_api_check_model(const bw_api_context *context, const bw_api_object *body);

/* 400 for what this version does not do and must not seem to do. */
bool bw_api_refuse_unsupported(const bw_api_object *body);

/* All common members but sampling, max_tokens and logprobs; *out has the dialect's defaults already. */
bool bw_api_read_common(bw_api_request *out, const bw_api_context *context, const bw_api_object *body);

/* Sampling on top of the defaults for this kind of prompt; draws a seed where none is given. */
bool bw_api_read_sampling(bw_api_request *out, const bw_api_context *context, const bw_api_object *body);

/* min_tokens against the limit asked for (before it was clamped); < 0: none was. */
bool bw_api_check_min_tokens(const bw_api_request *request, int64_t max_tokens, const bw_api_object *body);

/* Logs members that are neither common nor among `own`. */
void bw_api_log_unknown_fields(const bw_api_object *body, const char *where, const char *const *own, size_t n_own);

#endif
