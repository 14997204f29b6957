/* model_files.c - see model_files.h. */
#include "lib/model_files.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "format/checkpoint.h"
#include "lib/check.h"

/* ---- bytes --------------------------------------------------------------------------------------- */

void bytes_add(bytes *b, const void *data, size_t n)
{
    if (b->n + n > b->room) {
        b->room = 2 * (b->n + n);
        b->data = realloc(b->data, b->room);
        check(b->data != NULL);
    }
    if (n)
        memcpy(b->data + b->n, data, n);
    b->n += n;
}

void bytes_zero(bytes *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        bytes_add(b, "", 1);
}

void bytes_u32(bytes *b, uint32_t x)
{
    bytes_add(b, &x, sizeof x);
}

void bytes_u64(bytes *b, uint64_t x)
{
    bytes_add(b, &x, sizeof x);
}

void bytes_string(bytes *b, const char *text)
{
    bytes_u64(b, strlen(text));
    bytes_add(b, text, strlen(text));
}

void bytes_free(bytes *b)
{
    free(b->data);
    *b = (bytes){ 0 };
}

void bytes_write(const bytes *b, const char *path)
{
    FILE *f = fopen(path, "wb");
    check_that(f && fwrite(b->data, 1, b->n, f) == b->n && fclose(f) == 0, "cannot write %s", path);
}

void text_write(const char *text, const char *path)
{
    const bytes b = { (unsigned char *)text, strlen(text), 0 };
    bytes_write(&b, path);
}

bytes safetensors_of(const char *header, size_t n_data)
{
    bytes b = { 0 };
    bytes_u64(&b, strlen(header));
    bytes_add(&b, header, strlen(header));
    bytes_zero(&b, n_data);
    return b;
}

/* ---- whole models -------------------------------------------------------------------------------- */

static void keep_values(file_model *m, const bw_checkpoint *c)
{
    m->n_values = bw_checkpoint_n_values(c);
    m->values = calloc((size_t)m->n_values + 1, sizeof *m->values);
    for (int i = 0; i < m->n_values; i++) {
        const bw_gguf_value *v = bw_checkpoint_value_at(c, i);
        bytes *body = &m->values[i].body;
        snprintf(m->values[i].key, sizeof m->values[i].key, "%s", v->key);
        bytes_u32(body, v->array ? BW_GGUF_ARRAY : v->type);
        if (v->array) {
            bytes_u32(body, v->type);
            bytes_u64(body, v->count);
        }
        bytes_add(body, v->data, v->bytes);
    }
}

file_value *model_value(file_model *m, const char *key)
{
    for (int i = 0; i < m->n_values; i++)
        if (strcmp(m->values[i].key, key) == 0)
            return &m->values[i];
    fail_with("no key %s", key);
}

void model_read(file_model *m, const char *folder)
{
    bw_checkpoint *c;
    bw_error err;
    char path[600];
    *m = (file_model){ 0 };
    check_ok(bw_checkpoint_open(&c, folder, &err), err);
    m->n = m->room = bw_checkpoint_n_tensors(c);
    m->tensors = calloc((size_t)m->n, sizeof *m->tensors);
    for (int i = 0; i < m->n; i++) {
        const bw_tensor *t = bw_checkpoint_tensor_at(c, i);
        file_tensor *f = &m->tensors[i];
        snprintf(f->name, sizeof f->name, "%s", t->name);
        snprintf(f->dtype, sizeof f->dtype, "%s", t->type_name);
        f->n_dims = t->n_dims;
        memcpy(f->shape, t->shape, sizeof f->shape);
        f->bytes = (size_t)t->bytes;
        f->data = malloc(f->bytes + 1);
        memcpy(f->data, t->data, f->bytes);
    }
    const bool gguf = bw_checkpoint_container(c) == BW_CONTAINER_GGUF;
    keep_values(m, c);
    bw_checkpoint_close(c);
    if (gguf)
        return;
    snprintf(path, sizeof path, "%s/config.json", folder);
    m->config = read_file(path, NULL);
    snprintf(path, sizeof path, "%s/generation_config.json", folder);
    m->generation = read_file(path, NULL);
}

file_tensor *model_find(file_model *m, const char *name)
{
    for (int i = 0; i < m->n; i++)
        if (strcmp(m->tensors[i].name, name) == 0)
            return &m->tensors[i];
    fail_with("no tensor %s", name);
}

file_tensor *model_add(file_model *m, const file_tensor *like, const char *name)
{
    const file_tensor from = *like;
    char copy[sizeof from.name]; /* name may lie in the array that moves */
    snprintf(copy, sizeof copy, "%s", name);
    if (m->n == m->room) {
        m->room = 2 * m->room;
        m->tensors = realloc(m->tensors, (size_t)m->room * sizeof *m->tensors);
        check(m->tensors != NULL);
    }
    file_tensor *t = &m->tensors[m->n++];
    *t = from;
    snprintf(t->name, sizeof t->name, "%s", copy);
    t->data = malloc(from.bytes + 1);
    memcpy(t->data, from.data, from.bytes);
    return t;
}

static void write_shard(const file_model *m, const char *path, int shard)
{
    bytes header = { 0 }, data = { 0 }, file = { 0 };
    bytes_add(&header, "{\"__metadata__\":{\"format\":\"pt\"}", 31);
    for (int i = 0; i < m->n; i++) {
        const file_tensor *t = &m->tensors[i];
        char entry[600];
        if (t->dropped || t->shard != shard)
            continue;
        int n = snprintf(entry, sizeof entry, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, t->dtype);
        for (int d = 0; d < t->n_dims; d++)
            n += snprintf(entry + n, sizeof entry - (size_t)n, "%s%" PRIu64, d ? "," : "", t->shape[d]);
        n += snprintf(entry + n, sizeof entry - (size_t)n, "],\"data_offsets\":[%zu,%zu]}", data.n, data.n + t->bytes);
        bytes_add(&header, entry, (size_t)n);
        bytes_add(&data, t->data, t->bytes);
    }
    bytes_add(&header, "}", 1);
    bytes_u64(&file, header.n);
    bytes_add(&file, header.data, header.n);
    bytes_add(&file, data.data, data.n);
    bytes_write(&file, path);
    bytes_free(&header);
    bytes_free(&data);
    bytes_free(&file);
}

const char *model_write(const file_model *m, const char *dir, int n_shards)
{
    char path[700];
    snprintf(path, sizeof path, "%s/config.json", dir);
    text_write(m->config, path);
    if (m->generation) {
        snprintf(path, sizeof path, "%s/generation_config.json", dir);
        text_write(m->generation, path);
    }
    if (n_shards <= 1) {
        snprintf(path, sizeof path, "%s/model.safetensors", dir);
        write_shard(m, path, 0);
        return dir;
    }
    bytes index = { 0 };
    static const char start[] = "{\"metadata\":{\"total_size\":0.0},\"weight_map\":{";
    bytes_add(&index, start, sizeof start - 1);
    bool first = true;
    for (int i = 0; i < m->n; i++)
        if (!m->tensors[i].dropped) {
            char entry[300];
            int n = snprintf(entry, sizeof entry, "%s\"%s\":\"model-%05d-of-%05d.safetensors\"", first ? "" : ",", m->tensors[i].name,
                             m->tensors[i].shard + 1, n_shards);
            bytes_add(&index, entry, (size_t)n);
            first = false;
        }
    bytes_add(&index, "}}", 2);
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
    bytes_write(&index, path);
    bytes_free(&index);
    for (int s = 0; s < n_shards; s++) {
        snprintf(path, sizeof path, "%s/model-%05d-of-%05d.safetensors", dir, s + 1, n_shards);
        write_shard(m, path, s);
    }
    return dir;
}

static uint32_t type_id(const char *name)
{
    static const struct known {
        const char *name;
        uint32_t id;
    } known[] = { { "F32", 0 }, { "F16", 1 }, { "BF16", 30 }, { "Q8_0", 8 }, { "I32", 26 }, { "IQ2_XXS", 16 } };
    for (size_t i = 0; i < BW_COUNT(known); i++)
        if (strcmp(known[i].name, name) == 0)
            return known[i].id;
    fail_with("no id for type %s", name);
}

const char *model_write_gguf(const file_model *m, const char *path)
{
    bytes b = { 0 };
    uint64_t n = 0, n_values = 0, offset = 0;
    for (int i = 0; i < m->n; i++)
        n += !m->tensors[i].dropped;
    for (int i = 0; i < m->n_values; i++)
        n_values += !m->values[i].dropped;
    bytes_add(&b, "GGUF", 4);
    bytes_u32(&b, 3);
    bytes_u64(&b, n);
    bytes_u64(&b, n_values);
    for (int i = 0; i < m->n_values; i++)
        if (!m->values[i].dropped) {
            bytes_string(&b, m->values[i].key);
            bytes_add(&b, m->values[i].body.data, m->values[i].body.n);
        }
    for (int i = 0; i < m->n; i++) {
        const file_tensor *t = &m->tensors[i];
        if (t->dropped)
            continue;
        bytes_string(&b, t->name);
        bytes_u32(&b, (uint32_t)t->n_dims);
        for (int d = t->n_dims - 1; d >= 0; d--)
            bytes_u64(&b, t->shape[d]);
        bytes_u32(&b, type_id(t->dtype));
        bytes_u64(&b, offset);
        offset += (t->bytes + 31) / 32 * 32;
    }
    for (int i = 0; i < m->n; i++) {
        bytes_zero(&b, (32 - b.n % 32) % 32);
        if (!m->tensors[i].dropped)
            bytes_add(&b, m->tensors[i].data, m->tensors[i].bytes);
    }
    bytes_write(&b, path);
    bytes_free(&b);
    return path;
}

void model_free(file_model *m)
{
    for (int i = 0; i < m->n_values; i++)
        bytes_free(&m->values[i].body);
    free(m->values);
    for (int i = 0; i < m->n; i++)
        free(m->tensors[i].data);
    free(m->tensors);
    free(m->config);
    free(m->generation);
    *m = (file_model){ 0 };
}

const char *fresh_dir(void)
{
    static char ring[8][300];
    static int next;
    char *path = ring[next % 8];
    snprintf(path, sizeof ring[0], "%s/m%d", temp_dir(), next++);
    check_that(mkdir(path, 0700) == 0, "cannot make %s", path);
    return path;
}

char *replace(char *text, const char *from, const char *to)
{
    char *at = strstr(text, from);
    check_that(at != NULL, "no \"%s\" to replace", from);
    char *out = malloc(strlen(text) + strlen(to) + 1);
    size_t before = (size_t)(at - text);
    memcpy(out, text, before);
    strcpy(out + before, to);
    strcat(out, at + strlen(from));
    free(text);
    return out;
}
