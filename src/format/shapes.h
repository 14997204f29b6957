/* shapes.h - the model shapes that travel inside the program: config.jsons that hold nothing but sizes,
 * for weights drawn at random (synthetic.h).
 *
 * The files of bench/shapes/ become bw_shape_files[] when the library is built (tools/embed). Threads:
 * immutable data. */
#ifndef BW_FORMAT_SHAPES_H
#define BW_FORMAT_SHAPES_H

#include "base/status.h"

typedef struct bw_shape_file {
    const char *name;          /* below bench/shapes: "2b.json" */
    const char *etag;          /* changes with the content; in quotes */
    const unsigned char *data; /* [n], and a 0 behind it */
    size_t n;
} bw_shape_file;

extern const bw_shape_file bw_shape_files[]; /* [bw_shape_n_files] */
extern const int bw_shape_n_files;

/* The text of a shape: of one that travels inside by its name ("2b"), else of the config.json at the path
 * `name`. *text [*n] is followed by a 0 and the caller's (bw_mem_free).
 * BW_E_ARGUMENT: no such shape and no such file; err lists the shapes. */
bw_status bw_shape_load(const char *name, char **text, size_t *n, bw_error *err);

#endif
