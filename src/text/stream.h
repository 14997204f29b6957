/* stream.h - tokens to text as they come, watching for stop strings: the bw_stream of bellwether.h,
 * which declares what is done with one. Here is how one is made without a model.
 *
 * A stop string is met when its last byte comes; of several that end there the longest counts. So
 * the text before it does not depend on how tokens cut the text. One thread at a time. */
#ifndef BW_TEXT_STREAM_H
#define BW_TEXT_STREAM_H

#include "text/tokenizer.h"

enum { BW_MAX_STOPS = 256, BW_MAX_STOP_BYTES = 4096 };

/* Borrows the tokenizer, copies the stops. BW_E_ARGUMENT: an empty stop string, or beyond the limits. */
bw_status bw_stream_create_from(bw_stream **out, const bw_tokenizer *tokenizer, const char *const *stops, int n_stops,
                                bool skip_special, bw_error *err);

#endif
