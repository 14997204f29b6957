/* shapes.c - finds the text of a shape, inside the program or in a file. */
#include "format/shapes.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/map.h"
#include "base/mem.h"

/* Of "2b.json", "2b". */
static size_t stem(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? (size_t)(dot - name) : strlen(name);
}

static const bw_shape_file *find(const char *name)
{
    for (int i = 0; i < bw_shape_n_files; i++) {
        const size_t n = stem(bw_shape_files[i].name);
        if (strlen(name) == n && memcmp(name, bw_shape_files[i].name, n) == 0)
            return &bw_shape_files[i];
    }
    return NULL;
}

static bw_status unknown(const char *name, bw_error *err)
{
    char known[200] = "";
    for (int i = 0; i < bw_shape_n_files; i++) {
        const size_t at = strlen(known);
        snprintf(known + at, sizeof known - at, "%s%.*s", i ? ", " : "", (int)stem(bw_shape_files[i].name), bw_shape_files[i].name);
    }
    return bw_fail(err, BW_E_ARGUMENT, "shape %.300s: there is no such shape and no such file: expected one of %s, or the path of "
                   "a config.json", name, known);
}

static bw_status copy(char **text, size_t *n, const void *data, size_t bytes, bw_error *err)
{
    *text = bw_mem_alloc(bytes + 1, BW_MEM_MISC);
    if (!*text)
        return bw_fail_memory(err, "shape", bytes + 1);
    if (bytes)
        memcpy(*text, data, bytes);
    (*text)[bytes] = '\0';
    *n = bytes;
    return BW_OK;
}

bw_status bw_shape_load(const char *name, char **text, size_t *n, bw_error *err)
{
    const bw_shape_file *known = find(name);
    struct stat info;
    bw_map map;
    *text = NULL;
    if (known)
        return copy(text, n, known->data, known->n, err);
    if (stat(name, &info) != 0)
        return unknown(name, err);
    bw_status st = bw_map_open(&map, name, err);
    if (!st && map.bytes > 16 << 20)
        st = bw_fail(err, BW_E_FORMAT, "%s: %llu bytes are no config.json", name, (unsigned long long)map.bytes);
    if (!st)
        st = copy(text, n, map.data, (size_t)map.bytes, err);
    bw_map_close(&map);
    return st;
}
