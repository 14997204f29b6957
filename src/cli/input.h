/* input.h - what a command reads: a text, a list of token ids, from a file or from standard input.
 *
 * Failures are printed here, naming the source. Main thread only. */
#ifndef BW_CLI_INPUT_H
#define BW_CLI_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that grow; always NUL-terminated once something was added. Zeroed is empty. */
typedef struct bw_buffer {
    char *data;
    size_t n, room;
} bw_buffer;

/* False: out of memory, and nothing changed. */
bool bw_buffer_add(bw_buffer *bytes, const char *data, size_t n);
void bw_buffer_free(bw_buffer *bytes); /* leaves it empty */

/* Reads all of `path` ("-": standard input), at most 1 GiB. False after a message; *out is then
 * empty. */
bool bw_input_read(bw_buffer *out, const char *path);

/* Reads a JSON array of token ids, at least one, each 0 to 2^31 - 1; whether an id is in the
 * vocabulary is the engine's to say. *ids is the caller's (free). False after a message. */
bool bw_input_read_ids(int32_t **ids, int *n_ids, const char *path);

#endif
