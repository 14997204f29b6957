/* hf_folder.c - finds the weight files of a Hugging Face folder: the index's shards, the single
 * model.safetensors, or whatever model-*.safetensors there are, and takes each tensor once. */
#include "format/checkpoint_parts.h"

#include <dirent.h>
#include <errno.h>
#include <json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

static const char INDEX[] = "model.safetensors.index.json", SINGLE[] = "model.safetensors";

/* ---- the listing --------------------------------------------------------------------------------- */

typedef struct listing {
    char **names; /* every *.safetensors of the folder, sorted */
    int n, room;
    bool gguf, pickle, hub_cache, unfinished;
} listing;

static void listing_free(listing *l)
{
    for (int i = 0; i < l->n; i++)
        bw_mem_free(l->names[i]);
    bw_mem_free(l->names);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bw_status list_one(listing *l, const char *folder, const char *name, bw_error *err)
{
    l->gguf |= bw_ends_with(name, ".gguf");
    l->pickle |= bw_ends_with(name, ".bin") || bw_ends_with(name, ".pt") || bw_ends_with(name, ".pth");
    l->unfinished |= bw_ends_with(name, ".aria2") || bw_ends_with(name, ".incomplete") || bw_ends_with(name, ".part") ||
                     bw_ends_with(name, ".crdownload");
    l->hub_cache |= strcmp(name, "snapshots") == 0;
    if (!bw_ends_with(name, ".safetensors"))
        return BW_OK;
    if (l->n == BW_MAX_FILES)
        return bw_fail(err, BW_E_LIMIT, "%s: more than %d safetensors files", folder, BW_MAX_FILES);
    if (l->n == l->room) {
        int more = l->room ? l->room * 2 : 32;
        char **grown = bw_mem_realloc(l->names, (size_t)more * sizeof *grown, BW_MEM_MISC);
        if (!grown)
            return bw_fail_memory(err, folder, (size_t)more * sizeof *grown);
        l->names = grown;
        l->room = more;
    }
    if (!(l->names[l->n] = bw_mem_strdup(name)))
        return bw_fail_memory(err, folder, strlen(name) + 1);
    l->n++;
    return BW_OK;
}

static bw_status list_folder(listing *l, const char *folder, bw_error *err)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return bw_fail(err, BW_E_IO, "%s: cannot list: %s", folder, strerror(errno));
    bw_status st = BW_OK;
    for (struct dirent *entry; !st && (entry = readdir(dir));)
        st = list_one(l, folder, entry->d_name, err);
    closedir(dir);
    if (!st && l->n)
        qsort(l->names, (size_t)l->n, sizeof *l->names, by_text);
    return st;
}

static bool listed(const listing *l, const char *name)
{
    return l->n && bsearch(&name, l->names, (size_t)l->n, sizeof *l->names, by_text);
}

static bw_status no_model(const bw_checkpoint *c, const listing *l, bw_error *err)
{
    const char *hint = l->unfinished  ? "a download into it is unfinished: let it finish"
                       : l->gguf        ? "it holds .gguf files: give the path of one of them"
                       : l->hub_cache ? "it is a hub cache: give the folder of one of its snapshots"
                       : l->pickle    ? "it holds PyTorch .bin files, which are not read: convert them to safetensors"
                                      : "a folder with config.json and model.safetensors is expected";
    return bw_fail(err, BW_E_FORMAT, "%s: no model here, no model*.safetensors: %s", c->path, hint);
}

/* ---- reading shards ------------------------------------------------------------------------------ */

static bw_status open_shard(bw_checkpoint *c, const char *name, bw_error *err)
{
    char path[4096];
    int file;
    if (snprintf(path, sizeof path, "%s/%s", c->folder, name) >= (int)sizeof path)
        return bw_fail(err, BW_E_ARGUMENT, "%s/%s: the path is too long", c->folder, name);
    bw_status st = bw_check_unfinished(path, err);
    if (st || (st = bw_parts_add_file(c, path, &file, err)))
        return st;
    const bw_map *map = &c->files[file].map;
    return bw_safetensors_parse(c, path, map->data, map->bytes, file, err);
}

/* Drops the tensors from number `first` on that the index does not place in this file. */
static void keep_indexed(bw_checkpoint *c, int first, json_object *map, const char *name)
{
    int kept = first, dropped = 0;
    for (int i = first; i < c->n_tensors; i++) {
        json_object *file;
        if (json_object_object_get_ex(map, c->tensors[i].name, &file) && strcmp(json_object_get_string(file), name) == 0) {
            c->tensors[kept++] = c->tensors[i];
            continue;
        }
        if (++dropped <= 5)
            bw_log(BW_LOG_WARNING, "%s/%s: tensor %s is not placed in this file by the index and is not used", c->folder, name,
                   c->tensors[i].name);
    }
    if (dropped > 5)
        bw_log(BW_LOG_WARNING, "%s/%s: and %d more tensors like that", c->folder, name, dropped - 5);
    c->n_tensors = kept;
}

/* A plain file name: an index must not lead outside its folder. */
static bool plain_name(json_object *value)
{
    const char *name = json_object_get_string(value);
    return json_object_is_type(value, json_type_string) && name[0] && strlen(name) == (size_t)json_object_get_string_len(value) &&
           !strchr(name, '/') && !strchr(name, '\\') && strcmp(name, "..") != 0 && strcmp(name, ".") != 0;
}

/* The files the index names, each once, missing ones told all together. */
static bw_status index_files(const bw_checkpoint *c, const listing *l, json_object *map, listing *files, bw_error *err)
{
    char missing[400] = "";
    int n_missing = 0;
    json_object *seen = json_object_new_object();
    bw_status st = seen ? BW_OK : bw_fail_memory(err, c->path, 64);
    json_object_object_foreach(map, tensor, value)
    {
        if (st)
            break;
        if (!plain_name(value)) {
            st = bw_fail(err, BW_E_FORMAT, "%s/%s: tensor %.200s is placed in \"%.100s\", which is no plain file name", c->folder, INDEX,
                         tensor, json_object_get_string(value));
            break;
        }
        const char *name = json_object_get_string(value);
        if (json_object_object_get_ex(seen, name, NULL))
            continue;
        if (json_object_object_add(seen, name, NULL) != 0) {
            st = bw_fail_memory(err, c->path, strlen(name));
        } else if (!listed(l, name)) {
            size_t at = strlen(missing);
            if (n_missing++ < 5)
                snprintf(missing + at, sizeof missing - at, "%s%.70s", at ? ", " : "", name);
        } else {
            st = list_one(files, c->folder, name, err);
        }
    }
    json_object_put(seen);
    if (!st && n_missing)
        st = bw_fail(err, BW_E_FORMAT, "%s: %d of the files that %s names are missing: %s%s: download them", c->path, n_missing, INDEX,
                     missing, n_missing > 5 ? ", ..." : "");
    return st;
}

/* Every name of the index must have been met. */
static bw_status check_all_found(const bw_checkpoint *c, json_object *map, bw_error *err)
{
    int wanted = json_object_object_length(map);
    if (c->n_tensors >= wanted) /* duplicates are the caller's error */
        return BW_OK;
    json_object *have = json_object_new_object();
    bw_status st = BW_OK;
    for (int i = 0; have && i < c->n_tensors; i++)
        json_object_object_add(have, c->tensors[i].name, NULL);
    json_object_object_foreach(map, tensor, value)
    {
        if (!have || json_object_object_get_ex(have, tensor, NULL))
            continue;
        st = bw_fail(err, BW_E_FORMAT, "%s/%s: tensor %.300s is missing in this file, where the index places it (%d such tensors): "
                     "index and shards are of different revisions, download both again", c->folder, json_object_get_string(value),
                     tensor, wanted - c->n_tensors);
        break;
    }
    json_object_put(have);
    return st || have ? st : bw_fail_memory(err, c->path, 64);
}

static void warn_left_over(const bw_checkpoint *c, const listing *l, const listing *used)
{
    for (int i = 0; i < l->n; i++)
        if (!listed(used, l->names[i]))
            bw_log(BW_LOG_WARNING, "%s/%s is not named by %s and is not read: left over from another download?", c->folder,
                   l->names[i], INDEX);
}

static bw_status open_indexed(bw_checkpoint *c, const listing *l, json_object *index, bw_error *err)
{
    json_object *map;
    listing files = { 0 };
    if (!json_object_object_get_ex(index, "weight_map", &map) || !json_object_is_type(map, json_type_object))
        return bw_fail(err, BW_E_FORMAT, "%s/%s: has no object weight_map: download it again", c->folder, INDEX);
    bw_status st = index_files(c, l, map, &files, err);
    if (!st && files.n)
        qsort(files.names, (size_t)files.n, sizeof *files.names, by_text);
    for (int i = 0; !st && i < files.n; i++) {
        int first = c->n_tensors;
        if (!(st = open_shard(c, files.names[i], err)))
            keep_indexed(c, first, map, files.names[i]);
    }
    if (!st)
        st = check_all_found(c, map, err);
    if (!st)
        warn_left_over(c, l, &files);
    listing_free(&files);
    return st;
}

/* Without an index names decide: the single file and what quantisers put beside it
 * (model_extra_tensors, model_mtp), or else all shards. */
static bool belongs(const char *name, bool single)
{
    return single ? strcmp(name, SINGLE) == 0 || strncmp(name, "model_", 6) == 0 : strncmp(name, "model", 5) == 0;
}

static bw_status open_listed(bw_checkpoint *c, const listing *l, bw_error *err)
{
    json_object *index = NULL;
    bw_status st = bw_checkpoint_json(c, INDEX, &index, err);
    if (st)
        return st;
    if (index) {
        st = open_indexed(c, l, index, err);
        json_object_put(index);
        return st;
    }
    if (!l->n)
        return no_model(c, l, err);
    bool single = listed(l, SINGLE);
    int opened = 0;
    for (int i = 0; !st && i < l->n; i++) {
        const char *name = l->names[i];
        if (!belongs(name, single)) {
            bw_log(BW_LOG_WARNING, "%s/%s is not part of the model by its name and is not read", c->folder, name);
            continue;
        }
        st = open_shard(c, name, err);
        opened++;
    }
    return st || opened ? st : no_model(c, l, err);
}

bw_status bw_hf_folder_open(bw_checkpoint *c, bw_error *err)
{
    listing l = { 0 };
    bw_status st = list_folder(&l, c->folder, err);
    if (!st)
        st = open_listed(c, &l, err);
    listing_free(&l);
    return st;
}
