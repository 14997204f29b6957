/* model_files.h - makes model files for tests: headers with any mistake in them, and edited copies
 * of golden checkpoints. */
#ifndef BW_TESTS_MODEL_FILES_H
#define BW_TESTS_MODEL_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- bytes --------------------------------------------------------------------------------------- */

typedef struct bytes {
    unsigned char *data;
    size_t n, room;
} bytes;

void bytes_add(bytes *b, const void *data, size_t n);
void bytes_zero(bytes *b, size_t n);
void bytes_u32(bytes *b, uint32_t x);
void bytes_u64(bytes *b, uint64_t x);
void bytes_string(bytes *b, const char *text); /* u64 length and text, as GGUF has it */
void bytes_free(bytes *b);
void bytes_write(const bytes *b, const char *path);
void text_write(const char *text, const char *path);

/* A safetensors file: the header's length, the header, n_data zero bytes. */
bytes safetensors_of(const char *header, size_t n_data);

/* ---- whole models -------------------------------------------------------------------------------- */

typedef struct file_tensor {
    char name[200], dtype[16];
    int n_dims;
    uint64_t shape[8];
    unsigned char *data;
    size_t bytes;
    int shard;
    bool dropped;
} file_tensor;

typedef struct file_value { /* of GGUF metadata */
    char key[100];
    bytes body; /* type and value as they stand in a file */
    bool dropped;
} file_value;

typedef struct file_model {
    file_tensor *tensors;
    int n, room;
    char *config;     /* text of config.json; NULL: from GGUF */
    char *generation; /* text of generation_config.json, or NULL */
    file_value *values;
    int n_values;
} file_model;

void model_read(file_model *m, const char *path); /* a folder or a GGUF file */
file_tensor *model_find(file_model *m, const char *name); /* fails the test when it is missing */
file_tensor *model_add(file_model *m, const file_tensor *like, const char *name); /* a copy of another; moves the array */
file_value *model_value(file_model *m, const char *key); /* fails the test when it is missing */
/* Writes config, weights and, with more than one shard, the index. Returns dir. */
const char *model_write(const file_model *m, const char *dir, int n_shards);
/* The same as one GGUF file at path. Returns path. */
const char *model_write_gguf(const file_model *m, const char *path);
void model_free(file_model *m);

/* A fresh folder below temp_dir(); static ring of 8. */
const char *fresh_dir(void);

/* Replaces the first `from` in text (malloced, freed) by `to`; fails the test when it is missing. */
char *replace(char *text, const char *from, const char *to);

#endif
