/* checkpoint.c - opens a checkpoint whatever its container, keeps what the containers found and
 * lends it out. Decides which container it is and that names are unique; never looks inside one. */
#include "format/checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "format/checkpoint_parts.h"

struct bw_name_block {
    bw_name_block *next;
    char text[];
};

/* ---- parts --------------------------------------------------------------------------------------- */

/* Makes room for one more element; doubles. */
static bool grow(void *array_of_elements, int n, int *room, size_t size)
{
    void **array = array_of_elements;
    if (n < *room)
        return true;
    int more = *room ? *room * 2 : 64;
    void *grown = bw_mem_realloc(*array, (size_t)more * size, BW_MEM_MISC);
    if (!grown)
        return false;
    *array = grown;
    *room = more;
    return true;
}

/* Takes the map over. */
static bw_status add_map(bw_checkpoint *c, const char *path, bw_map *map, int *index, bw_error *err)
{
    bw_status st = BW_OK;
    char *kept = bw_mem_strdup(path);
    if (c->n_files == BW_MAX_FILES)
        st = bw_fail(err, BW_E_LIMIT, "%s: more than %d weight files", c->path, BW_MAX_FILES);
    else if (!kept || !grow(&c->files, c->n_files, &c->files_room, sizeof *c->files))
        st = bw_fail_memory(err, path, sizeof *c->files);
    if (st) {
        bw_mem_free(kept);
        bw_map_close(map);
        return st;
    }
    c->files[c->n_files] = (bw_file){ .path = kept, .map = *map };
    *map = (bw_map){ 0 };
    *index = c->n_files++;
    return BW_OK;
}

bw_status bw_parts_add_file(bw_checkpoint *c, const char *path, int *index, bw_error *err)
{
    bw_map map;
    const bw_status st = bw_map_open(&map, path, err);
    return st ? st : add_map(c, path, &map, index, err);
}

bw_status bw_parts_add_tensor(bw_checkpoint *c, const bw_tensor *tensor, bw_error *err)
{
    if (c->n_tensors == BW_MAX_TENSORS)
        return bw_fail(err, BW_E_LIMIT, "%s: more than %d tensors; no model of this family has so many", c->path, BW_MAX_TENSORS);
    if (!grow(&c->tensors, c->n_tensors, &c->tensors_room, sizeof *c->tensors))
        return bw_fail_memory(err, c->path, (size_t)c->tensors_room * 2 * sizeof *c->tensors);
    c->tensors[c->n_tensors++] = *tensor;
    return BW_OK;
}

bw_status bw_parts_add_value(bw_checkpoint *c, const bw_gguf_value *value, bw_error *err)
{
    if (c->n_values == BW_MAX_VALUES)
        return bw_fail(err, BW_E_LIMIT, "%s: more than %d metadata keys", c->path, BW_MAX_VALUES);
    if (!grow(&c->values, c->n_values, &c->values_room, sizeof *c->values))
        return bw_fail_memory(err, c->path, (size_t)c->values_room * 2 * sizeof *c->values);
    c->values[c->n_values++] = *value;
    return BW_OK;
}

char *bw_parts_names(bw_checkpoint *c, size_t bytes)
{
    bw_name_block *block = bw_mem_alloc(sizeof *block + bytes, BW_MEM_MISC);
    if (!block)
        return NULL;
    block->next = c->names;
    c->names = block;
    return block->text;
}

static bool starts_with(const unsigned char *data, uint64_t bytes, const char *text)
{
    size_t n = strlen(text);
    return bytes >= n && memcmp(data, text, n) == 0;
}

bw_status bw_check_impostor(const char *path, const unsigned char *data, uint64_t bytes, bw_error *err)
{
    static const char *const pages[] = { "<!DOCTYPE", "<!doctype", "<html", "<HTML", "<?xml", "{\"error\"",
                                         "Entry not found", "Access to model", "Invalid username" };
    if (bytes == 0)
        return bw_fail(err, BW_E_FORMAT, "%s: the file is empty: download it again", path);
    if (starts_with(data, bytes, "version https://git-lfs"))
        return bw_fail(err, BW_E_FORMAT, "%s: this is a git-lfs pointer of %" PRIu64 " bytes, not the file itself: run `git lfs pull` in its folder",
                       path, bytes);
    for (size_t i = 0; i < BW_COUNT(pages); i++)
        if (starts_with(data, bytes, pages[i])) {
            int n = 0; /* the first line, as far as it can be shown */
            while (n < 100 && (uint64_t)n < bytes && data[n] >= 0x20 && data[n] < 0x7F)
                n++;
            return bw_fail(err, BW_E_FORMAT, "%s: an error page was saved instead of the file (\"%.*s\"): download it again",
                           path, n, (const char *)data);
        }
    return BW_OK;
}

bw_status bw_check_unfinished(const char *path, bw_error *err)
{
    static const char *const suffixes[] = { ".aria2", ".incomplete", ".part", ".crdownload" };
    for (size_t i = 0; i < BW_COUNT(suffixes); i++) {
        char beside[4096];
        if (snprintf(beside, sizeof beside, "%s%s", path, suffixes[i]) < (int)sizeof beside && access(beside, F_OK) == 0)
            return bw_fail(err, BW_E_FORMAT, "%s: the download is unfinished, %s lies beside it: let it finish, or remove both and download again",
                           path, suffixes[i]);
    }
    return BW_OK;
}

const char *bw_shape_text(char *text, size_t size, const uint64_t *shape, int n_dims)
{
    size_t at = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < n_dims && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%" PRIu64, i ? ", " : "", shape[i]);
    if (at < size)
        snprintf(text + at, size - at, "]");
    return text;
}

/* ---- opening ------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const bw_tensor *)a)->name, ((const bw_tensor *)b)->name);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const bw_gguf_value *)a)->key, ((const bw_gguf_value *)b)->key);
}

static const char *file_name(const bw_checkpoint *c, int file)
{
    return file < c->n_files ? c->files[file].path : c->path;
}

/* Sorts, so that lookups are quick and a name that stands twice has its twin beside it. */
static bw_status finish(bw_checkpoint *c, bw_error *err)
{
    if (c->n_tensors)
        qsort(c->tensors, (size_t)c->n_tensors, sizeof *c->tensors, by_name);
    if (c->n_values)
        qsort(c->values, (size_t)c->n_values, sizeof *c->values, by_key);
    for (int i = 1; i < c->n_tensors; i++) {
        const bw_tensor *a = &c->tensors[i - 1], *b = &c->tensors[i];
        if (strcmp(a->name, b->name) != 0)
            continue;
        if (a->file == b->file)
            return bw_fail(err, BW_E_FORMAT, "%s: tensor %s stands in the header twice: two readers would see two models",
                           file_name(c, a->file), a->name);
        return bw_fail(err, BW_E_FORMAT, "tensor %s is in %s and in %s: remove the file that does not belong to the model",
                       a->name, file_name(c, a->file), file_name(c, b->file));
    }
    for (int i = 1; i < c->n_values; i++)
        if (strcmp(c->values[i - 1].key, c->values[i].key) == 0)
            return bw_fail(err, BW_E_FORMAT, "%s: the metadata key %s stands there twice", c->path, c->values[i].key);
    return BW_OK;
}

bool bw_ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Which container, by what is there: a folder, or a file that begins as GGUF does. */
static bw_status open_container(bw_checkpoint *c, bw_error *err)
{
    struct stat info;
    if (stat(c->path, &info) != 0)
        return bw_fail(err, BW_E_IO, "%s: cannot open: %s; a Hugging Face folder or a GGUF file is expected", c->path, strerror(errno));
    if (S_ISDIR(info.st_mode)) {
        c->container = BW_CONTAINER_HF;
        c->folder = bw_mem_strdup(c->path);
        return c->folder ? bw_hf_folder_open(c, err) : bw_fail_memory(err, c->path, strlen(c->path) + 1);
    }
    if (bw_ends_with(c->path, ".safetensors") || bw_ends_with(c->path, ".json"))
        return bw_fail(err, BW_E_ARGUMENT, "%s: give the folder that holds the model instead of one of its files", c->path);
    c->container = BW_CONTAINER_GGUF;
    return bw_gguf_open(c, err);
}

static bw_status create(bw_checkpoint **out, const char *path, bw_error *err)
{
    bw_checkpoint *c = *out = bw_mem_zalloc(1, sizeof *c, BW_MEM_MISC);
    if (!c || !(c->path = bw_mem_strdup(path)))
        return bw_fail_memory(err, path, sizeof *c);
    return BW_OK;
}

/* Hands over a whole checkpoint, or none. */
static bw_status hand_over(bw_checkpoint **out, bw_checkpoint *c, bw_status st)
{
    if (st)
        bw_checkpoint_close(c);
    *out = st ? NULL : c;
    return st;
}

bw_status bw_checkpoint_open(bw_checkpoint **out, const char *path, bw_error *err)
{
    bw_checkpoint *c;
    bw_status st = create(&c, path, err);
    if (!st && !(st = open_container(c, err)))
        st = finish(c, err);
    return hand_over(out, c, st);
}

bw_status bw_checkpoint_from_memory(bw_checkpoint **out, bw_container container, const char *path, const unsigned char *data,
                                    uint64_t bytes, bw_error *err)
{
    bw_checkpoint *c;
    bw_status st = create(&c, path, err);
    if (!st) {
        c->container = container;
        st = (container == BW_CONTAINER_HF ? bw_safetensors_parse : bw_gguf_parse)(c, path, data, bytes, 0, err);
    }
    if (!st)
        st = finish(c, err);
    return hand_over(out, c, st);
}

bw_status bw_checkpoint_adopt(bw_checkpoint **out, const char *path, bw_map *map, bw_error *err)
{
    bw_checkpoint *c;
    int file = 0;
    bw_status st = create(&c, path, err);
    if (st)
        bw_map_close(map);
    else if (!(st = add_map(c, path, map, &file, err))) {
        c->container = BW_CONTAINER_GGUF;
        st = bw_gguf_parse(c, path, c->files[file].map.data, c->files[file].map.bytes, file, err);
    }
    if (!st)
        st = finish(c, err);
    return hand_over(out, c, st);
}

void bw_checkpoint_close(bw_checkpoint *c)
{
    if (!c)
        return;
    for (int i = 0; i < c->n_files; i++) {
        bw_map_close(&c->files[i].map);
        bw_mem_free(c->files[i].path);
    }
    for (bw_name_block *block = c->names, *next; block; block = next) {
        next = block->next;
        bw_mem_free(block);
    }
    bw_mem_free(c->files);
    bw_mem_free(c->tensors);
    bw_mem_free(c->values);
    bw_mem_free(c->folder);
    bw_mem_free(c->path);
    bw_mem_free(c);
}

/* ---- lending ------------------------------------------------------------------------------------- */

bw_container bw_checkpoint_container(const bw_checkpoint *c)
{
    return c->container;
}

const char *bw_checkpoint_path(const bw_checkpoint *c)
{
    return c->path;
}

int bw_checkpoint_n_files(const bw_checkpoint *c)
{
    return c->n_files;
}

const bw_map *bw_checkpoint_file_map(const bw_checkpoint *c, int file)
{
    return &c->files[file].map;
}

const char *bw_checkpoint_file_path(const bw_checkpoint *c, int file)
{
    return c->files[file].path;
}

uint64_t bw_checkpoint_bytes(const bw_checkpoint *c)
{
    uint64_t bytes = 0;
    for (int i = 0; i < c->n_files; i++)
        bytes += c->files[i].map.bytes;
    return bytes;
}

void bw_checkpoint_forget(const bw_checkpoint *c, const void *data, uint64_t bytes)
{
    for (int i = 0; i < c->n_files; i++)
        bw_map_forget(&c->files[i].map, data, bytes);
}

int bw_checkpoint_n_tensors(const bw_checkpoint *c)
{
    return c->n_tensors;
}

const bw_tensor *bw_checkpoint_tensor_at(const bw_checkpoint *c, int i)
{
    return &c->tensors[i];
}

const bw_tensor *bw_checkpoint_tensor(const bw_checkpoint *c, const char *name)
{
    const bw_tensor wanted = { .name = name };
    return c->n_tensors ? bsearch(&wanted, c->tensors, (size_t)c->n_tensors, sizeof wanted, by_name) : NULL;
}

int bw_checkpoint_n_values(const bw_checkpoint *c)
{
    return c->n_values;
}

const bw_gguf_value *bw_checkpoint_value_at(const bw_checkpoint *c, int i)
{
    return &c->values[i];
}

const bw_gguf_value *bw_checkpoint_value(const bw_checkpoint *c, const char *key)
{
    const bw_gguf_value wanted = { .key = key };
    return c->n_values ? bsearch(&wanted, c->values, (size_t)c->n_values, sizeof wanted, by_key) : NULL;
}

bw_status bw_checkpoint_file(const bw_checkpoint *c, const char *name, bw_map *map, bool *found, bw_error *err)
{
    char path[4096];
    *map = (bw_map){ 0 };
    *found = false;
    if (!c->folder)
        return BW_OK;
    if (snprintf(path, sizeof path, "%s/%s", c->folder, name) >= (int)sizeof path)
        return bw_fail(err, BW_E_ARGUMENT, "%s/%s: the path is too long", c->folder, name);
    struct stat info;
    if (lstat(path, &info) != 0 && errno == ENOENT) /* a link that leads nowhere is there: opening it fails */
        return BW_OK;
    bw_status st = bw_map_open(map, path, err);
    if (!st && (st = bw_check_impostor(path, map->data, map->bytes, err)))
        bw_map_close(map);
    *found = !st;
    return st;
}

bw_status bw_checkpoint_json(const bw_checkpoint *c, const char *name, struct json_object **out, bw_error *err)
{
    bw_map map;
    bool found;
    *out = NULL;
    bw_status st = bw_checkpoint_file(c, name, &map, &found, err);
    if (st || !found)
        return st;
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", c->folder, name);
    st = bw_json_read(path, map.data, map.bytes, out, err);
    bw_map_close(&map);
    return st;
}
