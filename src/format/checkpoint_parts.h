/* checkpoint_parts.h - what the readers of the containers fill and checkpoint.c lends out. Private
 * to src/format. */
#ifndef BW_FORMAT_CHECKPOINT_PARTS_H
#define BW_FORMAT_CHECKPOINT_PARTS_H

#include "format/checkpoint.h"

/* Names stay alive as long as their block: text is never moved once a tensor points at it. */
typedef struct bw_name_block bw_name_block;

typedef struct bw_file {
    char *path;
    bw_map map;
} bw_file;

struct bw_checkpoint {
    bw_container container;
    char *path;   /* as given */
    char *folder; /* HF: where the other files lie */
    bw_file *files;
    int n_files, files_room;
    bw_tensor *tensors; /* sorted by name once open */
    int n_tensors, tensors_room;
    bw_gguf_value *values; /* sorted by key once open */
    int n_values, values_room;
    bw_name_block *names;
};

/* Limits of ours: far above any real file, low enough that no header makes us work for long. */
enum { BW_MAX_TENSORS = 1000000, BW_MAX_VALUES = 65536, BW_MAX_NAME = 65536, BW_MAX_FILES = 10000 };

/* Opens and keeps a file; *index is its number. */
bw_status bw_parts_add_file(bw_checkpoint *c, const char *path, int *index, bw_error *err);
bw_status bw_parts_add_tensor(bw_checkpoint *c, const bw_tensor *tensor, bw_error *err);
bw_status bw_parts_add_value(bw_checkpoint *c, const bw_gguf_value *value, bw_error *err);
/* A block of `bytes` that lives as long as the checkpoint. NULL: out of memory. */
char *bw_parts_names(bw_checkpoint *c, size_t bytes);

/* BW_E_FORMAT when the bytes are one of the usual things that are saved in place of a model: a
 * git-lfs pointer, a web page, nothing. BW_OK otherwise. */
bw_status bw_check_impostor(const char *path, const unsigned char *data, uint64_t bytes, bw_error *err);
/* BW_E_FORMAT when a download of `path` is unfinished: path.aria2 and its like lie beside it. */
bw_status bw_check_unfinished(const char *path, bw_error *err);

bool bw_ends_with(const char *text, const char *end);

/* The containers. Each adds its tensors (and values) to *c, unsorted. */
bw_status bw_hf_folder_open(bw_checkpoint *c, bw_error *err);
bw_status bw_gguf_open(bw_checkpoint *c, bw_error *err);

/* One header in memory; `file` is the number its tensors get, `path` is for messages. Any bytes. */
bw_status bw_safetensors_parse(bw_checkpoint *c, const char *path, const unsigned char *data, uint64_t bytes,
                               int file, bw_error *err);
bw_status bw_gguf_parse(bw_checkpoint *c, const char *path, const unsigned char *data, uint64_t bytes, int file,
                        bw_error *err);

/* A whole checkpoint of one file in memory, which stays the caller's and must outlive it: for tests
 * and fuzzing, where a sanitizer should see the first byte read outside the block. */
bw_status bw_checkpoint_from_memory(bw_checkpoint **out, bw_container container, const char *path, const unsigned char *data,
                                    uint64_t bytes, bw_error *err);

/* The same, and the checkpoint takes the map over as its one GGUF file: it is closed with it, also on failure. */
bw_status bw_checkpoint_adopt(bw_checkpoint **out, const char *path, bw_map *map, bw_error *err);

/* A text as one JSON object, at most 64 levels deep; `path` is for messages. The caller puts *out. */
bw_status bw_json_read(const char *path, const unsigned char *data, uint64_t bytes, struct json_object **out,
                       bw_error *err);

#endif
