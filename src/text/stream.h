/* stream.h - tokens to text as they come, watching for stop strings: the bw_stream of bellwether.h,
 * which declares what is done with one. Here is how one is made without a model.
 * When a stop string is met: stop_strings.h. One thread at a time. */
#ifndef BW_TEXT_STREAM_H
#define BW_TEXT_STREAM_H

#include "text/stop_strings.h"
#include "text/tokenizer.h"

/* Borrows the tokenizer, copies the stops. BW_E_ARGUMENT: an empty stop string, or beyond the limits. */
bw_status bw_stream_create_from(bw_stream **out, const bw_tokenizer *tokenizer, const char *const *stops, int n_stops,
                                bool skip_special, bw_error *err);

#endif
