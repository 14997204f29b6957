/* stop_strings.h - watches text for stop strings, as it comes.
 *
 * A stop string is met when its last byte comes; of several that end there the longest counts. So
 * the text before it does not depend on how the text was cut into pieces. Text that may still become
 * a stop string is held back, never more than the longest of them. One thread at a time. */
#ifndef BW_TEXT_STOP_STRINGS_H
#define BW_TEXT_STOP_STRINGS_H

#include "base/status.h"

enum { BW_MAX_STOPS = 256, BW_MAX_STOP_BYTES = 4096 };

typedef struct bw_stop_strings bw_stop_strings;

/* Copies the stops. BW_E_ARGUMENT: an empty stop string, or beyond the limits. */
bw_status bw_stop_strings_create(bw_stop_strings **out, const char *const *stops, int n_stops, bw_error *err);
void bw_stop_strings_destroy(bw_stop_strings *strings); /* takes NULL */

/* Takes new text and gives what is certain of all so far, less what was given before: valid until the
 * next call. end: nothing comes after it for now, so all that was held is given, and text that comes
 * later is another. After a stop string was met the text ends before it and nothing more is taken. */
bw_status bw_stop_strings_take(bw_stop_strings *strings, const char *fresh, size_t n_fresh, bool end, const char **text,
                               size_t *n_bytes, bw_error *err);
int bw_stop_strings_met(const bw_stop_strings *strings); /* index of the one that was met, or -1 */

#endif
