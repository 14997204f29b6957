/* map.h - a whole file, mapped read-only. Pages are read when they are touched. */
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

/* Asks the system to read the whole file ahead. Only advice. */
void bw_map_will_need(const bw_map *map);

#endif
