/* map.h - a whole file, mapped read-only, or memory in its place. Pages are read when they are touched. */
#ifndef BW_BASE_MAP_H
#define BW_BASE_MAP_H

#include <stdint.h>

#include "base/status.h"

typedef struct bw_map {
    const unsigned char *data; /* NULL when the file is empty or nothing is open */
    uint64_t bytes;
} bw_map;

/* Maps `path`. An empty file opens with data NULL and bytes 0.
 * BW_E_IO: it cannot be opened, is not a regular file, or cannot be mapped; err names it. */
bw_status bw_map_open(bw_map *map, const char *path, bw_error *err);
void bw_map_close(bw_map *map); /* takes a zeroed one */

/* Zeroed memory of the system in place of a file, to be written through *data; pages are taken when they are
 * touched. BW_E_MEMORY: there is none; what: for the message. */
bw_status bw_map_create(bw_map *map, unsigned char **data, uint64_t bytes, const char *what, bw_error *err);

/* The whole pages inside data [bytes], which lies in the map, may go: those of a file are read again when they are
 * touched, those of memory are zeros then. Only advice; does nothing for a range outside. Any thread. */
void bw_map_forget(const bw_map *map, const void *data, uint64_t bytes);

#endif
