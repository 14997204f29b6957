/* checkpoint.h - one read-only view of a model on disk: named, typed, shaped, mapped tensors and
 * the facts stored beside them, from a Hugging Face folder or from GGUF files.
 *
 * Everything a header claims is checked against the file before it can be seen here: a tensor's
 * bytes lie inside its file and are as many as type and shape need. Names are unique. Nothing is
 * interpreted: what a name means is roles.h, whether the model is whole is model/weights.h.
 * Immutable once open; any thread may read it. */
#ifndef BW_FORMAT_CHECKPOINT_H
#define BW_FORMAT_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/map.h"
#include "base/status.h"

typedef struct bw_checkpoint bw_checkpoint;
struct json_object;

typedef enum bw_container { BW_CONTAINER_HF, BW_CONTAINER_GGUF } bw_container;

enum { BW_MAX_DIMS = 8 };

typedef struct bw_tensor {
    const char *name;
    const char *type_name; /* as its file calls it: "BF16", "Q4_K", "I32" */
    bool readable;         /* the type is one that weights are computed with; `type` is it */
    bw_dtype type;
    int n_dims;                   /* 0 .. BW_MAX_DIMS */
    uint64_t shape[BW_MAX_DIMS];  /* last dimension contiguous: [out, in], in both containers */
    const unsigned char *data;    /* no alignment promised; NULL if bytes is 0 */
    uint64_t bytes;
    int file;                     /* which file it lies in */
} bw_tensor;

/* Opens a folder, or a GGUF file (any part of a split one), and checks its structure.
 * BW_E_IO: it cannot be read. BW_E_FORMAT: it is malformed, incomplete or no model at all; err
 * names file and tensor, what was found and expected. BW_E_UNSUPPORTED: another format or a tensor
 * type whose size is unknown. On failure *out is NULL. */
bw_status bw_checkpoint_open(bw_checkpoint **out, const char *path, bw_error *err);
void bw_checkpoint_close(bw_checkpoint *checkpoint); /* takes NULL */

bw_container bw_checkpoint_container(const bw_checkpoint *checkpoint);
const char *bw_checkpoint_path(const bw_checkpoint *checkpoint); /* as it was given */

/* Weight files, in order; bytes of all of them. */
int bw_checkpoint_n_files(const bw_checkpoint *checkpoint);
const bw_map *bw_checkpoint_file_map(const bw_checkpoint *checkpoint, int file);
const char *bw_checkpoint_file_path(const bw_checkpoint *checkpoint, int file);
uint64_t bw_checkpoint_bytes(const bw_checkpoint *checkpoint);

/* These bytes of a tensor were taken elsewhere: the whole pages inside the range may go. Only advice. Those of a
 * file are read again when they are touched; those of a synthetic checkpoint (synthetic.h) are gone for good
 * and read as zeros. Any thread. */
void bw_checkpoint_forget(const bw_checkpoint *checkpoint, const void *data, uint64_t bytes);

/* Tensors, sorted by name. */
int bw_checkpoint_n_tensors(const bw_checkpoint *checkpoint);
const bw_tensor *bw_checkpoint_tensor_at(const bw_checkpoint *checkpoint, int i);
const bw_tensor *bw_checkpoint_tensor(const bw_checkpoint *checkpoint, const char *name); /* or NULL */

/* "[5120, 17408]" for messages. */
const char *bw_shape_text(char *text, size_t size, const uint64_t *shape, int n_dims);

/* ---- a folder's other files ---------------------------------------------------------------------- */

/* Parses the folder's file `name`; *out NULL when there is none (or the container is GGUF). The
 * caller puts *out. BW_E_FORMAT: it is not one JSON object. */
bw_status bw_checkpoint_json(const bw_checkpoint *checkpoint, const char *name, struct json_object **out,
                             bw_error *err);
/* Maps it; *found says whether it exists. The caller closes the map. */
bw_status bw_checkpoint_file(const bw_checkpoint *checkpoint, const char *name, bw_map *map, bool *found,
                             bw_error *err);

/* ---- GGUF metadata ------------------------------------------------------------------------------- */

typedef enum bw_gguf_type {
    BW_GGUF_U8, BW_GGUF_I8, BW_GGUF_U16, BW_GGUF_I16, BW_GGUF_U32, BW_GGUF_I32, BW_GGUF_F32,
    BW_GGUF_BOOL, BW_GGUF_STRING, BW_GGUF_ARRAY, BW_GGUF_U64, BW_GGUF_I64, BW_GGUF_F64,
    BW_GGUF_TYPE_COUNT
} bw_gguf_type;

typedef struct bw_gguf_value {
    const char *key;
    bw_gguf_type type;           /* of the value; of the elements if array */
    bool array;
    uint64_t count;              /* elements; 1 if no array */
    const unsigned char *data;   /* borrowed, unaligned, checked to lie in the file */
    uint64_t bytes;
} bw_gguf_value;

typedef struct bw_slice { /* borrowed bytes, no terminator */
    const char *text;
    size_t n;
} bw_slice;

const char *bw_gguf_type_name(bw_gguf_type type);
int bw_checkpoint_n_values(const bw_checkpoint *checkpoint);
const bw_gguf_value *bw_checkpoint_value_at(const bw_checkpoint *checkpoint, int i); /* by key */
/* NULL when the key is missing, and for every key of a folder. */
const bw_gguf_value *bw_checkpoint_value(const bw_checkpoint *checkpoint, const char *key);

/* Element i (< count) of a value, or false if it is of another kind: integers of any width and
 * sign that fit, floats of either width (and integers), truth values, strings. value may be NULL. */
bool bw_gguf_int(const bw_gguf_value *value, uint64_t i, int64_t *out);
bool bw_gguf_float(const bw_gguf_value *value, uint64_t i, double *out);
bool bw_gguf_bool(const bw_gguf_value *value, uint64_t i, bool *out);
bool bw_gguf_string(const bw_gguf_value *value, bw_slice *out); /* no array */
/* Index of the first element equal to text, -1 if there is none. */
int64_t bw_gguf_find_string(const bw_gguf_value *value, const char *text);

/* Whole arrays, for a tokenizer: strings stay in the file, the array is the caller's (bw_mem_free).
 * BW_E_FORMAT: the key is missing or of another kind. */
bw_status bw_checkpoint_strings(const bw_checkpoint *checkpoint, const char *key, bw_slice **out, size_t *n,
                                bw_error *err);
bw_status bw_checkpoint_ints(const bw_checkpoint *checkpoint, const char *key, int32_t **out, size_t *n,
                             bw_error *err);

#endif
