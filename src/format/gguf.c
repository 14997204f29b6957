/* gguf.c - reads GGUF 2 and 3: metadata, tensor table, split files. Every length is checked against
 * what is left of the file before anything is done with it; tensor data is never read here. */
#include "format/checkpoint_parts.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/utf8.h"

enum { MAX_TENSOR_NAME = 63, DEFAULT_ALIGNMENT = 32 };

/* ---- types --------------------------------------------------------------------------------------- */

typedef struct ggml_type {
    const char *name;
    int elements, bytes; /* of a block; 0: unknown or removed */
    bool readable;
    bw_dtype type;
} ggml_type;

static const ggml_type types[] = {
    [0] = { "F32", 1, 4, true, BW_F32 },
    [1] = { "F16", 1, 2, true, BW_F16 },
    [2] = { "Q4_0", 32, 18, true, BW_Q4_0 },
    [3] = { "Q4_1", 32, 20, true, BW_Q4_1 },
    [6] = { "Q5_0", 32, 22, true, BW_Q5_0 },
    [7] = { "Q5_1", 32, 24, true, BW_Q5_1 },
    [8] = { "Q8_0", 32, 34, true, BW_Q8_0 },
    [9] = { "Q8_1", 32, 36, false, 0 },
    [10] = { "Q2_K", 256, 84, true, BW_Q2_K },
    [11] = { "Q3_K", 256, 110, true, BW_Q3_K },
    [12] = { "Q4_K", 256, 144, true, BW_Q4_K },
    [13] = { "Q5_K", 256, 176, true, BW_Q5_K },
    [14] = { "Q6_K", 256, 210, true, BW_Q6_K },
    [15] = { "Q8_K", 256, 292, false, 0 },
    [16] = { "IQ2_XXS", 256, 66, false, 0 },
    [17] = { "IQ2_XS", 256, 74, false, 0 },
    [18] = { "IQ3_XXS", 256, 98, false, 0 },
    [19] = { "IQ1_S", 256, 50, false, 0 },
    [20] = { "IQ4_NL", 32, 18, true, BW_IQ4_NL },
    [21] = { "IQ3_S", 256, 110, false, 0 },
    [22] = { "IQ2_S", 256, 82, false, 0 },
    [23] = { "IQ4_XS", 256, 136, true, BW_IQ4_XS },
    [24] = { "I8", 1, 1, false, 0 },
    [25] = { "I16", 1, 2, false, 0 },
    [26] = { "I32", 1, 4, false, 0 },
    [27] = { "I64", 1, 8, false, 0 },
    [28] = { "F64", 1, 8, false, 0 },
    [29] = { "IQ1_M", 256, 56, false, 0 },
    [30] = { "BF16", 1, 2, true, BW_BF16 },
    [34] = { "TQ1_0", 256, 54, false, 0 },
    [35] = { "TQ2_0", 256, 66, false, 0 },
    [39] = { "MXFP4", 32, 17, false, 0 },
    [40] = { "NVFP4", 64, 36, false, 0 },
};

/* Types whose size we do not know, so that nothing behind them can be checked. */
static const char *strange_type(uint32_t id)
{
    if (id == 4 || id == 5 || (id >= 31 && id <= 33) || (id >= 36 && id <= 38))
        return "which was removed from the format";
    if (id == 133 || (id >= 137 && id <= 152) || (id >= 200 && id < 400))
        return "which only ik_llama.cpp writes and reads";
    return id <= 44 ? "whose meaning differs between programs" : "which is unknown";
}

static const struct value_type {
    const char *name;
    int bytes; /* 0: varies */
} value_types[BW_GGUF_TYPE_COUNT] = {
    [BW_GGUF_U8] = { "u8", 1 },   [BW_GGUF_I8] = { "i8", 1 },         [BW_GGUF_U16] = { "u16", 2 },
    [BW_GGUF_I16] = { "i16", 2 }, [BW_GGUF_U32] = { "u32", 4 },       [BW_GGUF_I32] = { "i32", 4 },
    [BW_GGUF_F32] = { "f32", 4 }, [BW_GGUF_BOOL] = { "bool", 1 },     [BW_GGUF_STRING] = { "string", 0 },
    [BW_GGUF_U64] = { "u64", 8 }, [BW_GGUF_I64] = { "i64", 8 },       [BW_GGUF_F64] = { "f64", 8 },
    [BW_GGUF_ARRAY] = { "array", 0 },
};

const char *bw_gguf_type_name(bw_gguf_type type)
{
    return (unsigned)type < BW_GGUF_TYPE_COUNT ? value_types[type].name : "unknown";
}

/* ---- cursor -------------------------------------------------------------------------------------- */

typedef struct cursor {
    bw_checkpoint *c;
    const char *path;
    const unsigned char *data;
    uint64_t at, bytes; /* at <= bytes */
    bw_error *err;
} cursor;

static bw_status cut_off(const cursor *f, const char *what)
{
    return bw_fail(f->err, BW_E_FORMAT, "%s: byte %" PRIu64 ": the file ends inside %s (%" PRIu64 " bytes): it is cut off or damaged, download it again",
                   f->path, f->at, what, f->bytes);
}

static uint64_t little(const unsigned char *p, int n)
{
    uint64_t value = 0;
    for (int i = n - 1; i >= 0; i--)
        value = value << 8 | p[i];
    return value;
}

static bw_status read_number(cursor *f, const char *what, int n, uint64_t *value)
{
    if (f->bytes - f->at < (uint64_t)n)
        return cut_off(f, what);
    *value = little(f->data + f->at, n);
    f->at += (uint64_t)n;
    return BW_OK;
}

static bw_status read_slice(cursor *f, const char *what, bw_slice *slice)
{
    uint64_t n = 0;
    bw_status st = read_number(f, what, 8, &n);
    if (st)
        return st;
    if (n > f->bytes - f->at)
        return cut_off(f, what);
    *slice = (bw_slice){ (const char *)f->data + f->at, (size_t)n };
    f->at += n;
    return BW_OK;
}

/* A key or a tensor's name: short, not empty, UTF-8, no NUL; copied, with a terminator. */
static bw_status read_name(cursor *f, const char *what, size_t longest, const char **name)
{
    bw_slice slice;
    bw_status st = read_slice(f, what, &slice);
    if (st)
        return st;
    if (!slice.n || slice.n > longest || memchr(slice.text, 0, slice.n) ||
        bw_utf8_valid_prefix(slice.text, slice.n) != slice.n)
        return bw_fail(f->err, BW_E_FORMAT, "%s: byte %" PRIu64 ": %s of %zu bytes; 1 to %zu bytes of UTF-8 are expected: the file is damaged",
                       f->path, f->at - slice.n, what, slice.n, longest);
    char *copy = bw_parts_names(f->c, slice.n + 1);
    if (!copy)
        return bw_fail_memory(f->err, f->path, slice.n + 1);
    memcpy(copy, slice.text, slice.n);
    copy[slice.n] = '\0';
    *name = copy;
    return BW_OK;
}

/* ---- metadata ------------------------------------------------------------------------------------ */

/* Passes over `count` elements of a type, each checked to lie in the file. */
static bw_status pass_elements(cursor *f, const char *key, bw_gguf_type type, uint64_t count)
{
    const uint64_t left = f->bytes - f->at;
    const uint64_t least = type == BW_GGUF_STRING ? 8 : (uint64_t)value_types[type].bytes;
    if (count > left / least)
        return cut_off(f, key);
    if (type != BW_GGUF_STRING) {
        for (uint64_t i = 0; type == BW_GGUF_BOOL && i < count; i++)
            if (f->data[f->at + i] > 1)
                return bw_fail(f->err, BW_E_FORMAT, "%s: the key %.200s holds the truth value %d: the file is damaged", f->path, key,
                               f->data[f->at + i]);
        f->at += count * least;
        return BW_OK;
    }
    bw_slice slice;
    bw_status st = BW_OK;
    for (uint64_t i = 0; !st && i < count; i++)
        st = read_slice(f, key, &slice);
    return st;
}

static bw_status read_value(cursor *f)
{
    bw_gguf_value v = { .count = 1 };
    uint64_t type = 0;
    bw_status st;
    if ((st = read_name(f, "a metadata key", BW_MAX_NAME, &v.key)) || (st = read_number(f, v.key, 4, &type)))
        return st;
    if (type == BW_GGUF_ARRAY) {
        v.array = true;
        if ((st = read_number(f, v.key, 4, &type)) || (st = read_number(f, v.key, 8, &v.count)))
            return st;
    }
    if (type >= BW_GGUF_TYPE_COUNT || type == BW_GGUF_ARRAY)
        return bw_fail(f->err, BW_E_FORMAT, "%s: the key %.200s is of the %s type %" PRIu64 ": the file is damaged or newer than this program",
                       f->path, v.key, v.array ? "array element" : "value", type);
    v.type = (bw_gguf_type)type;
    v.data = f->data + f->at;
    const uint64_t start = f->at;
    if ((st = pass_elements(f, v.key, v.type, v.count)))
        return st;
    v.bytes = f->at - start;
    return bw_parts_add_value(f->c, &v, f->err);
}

static const bw_gguf_value *find_value(const bw_checkpoint *c, int first, const char *key)
{
    for (int i = first; i < c->n_values; i++)
        if (strcmp(c->values[i].key, key) == 0)
            return &c->values[i];
    return NULL;
}

static bw_status read_alignment(const cursor *f, int first_value, uint64_t *alignment)
{
    const bw_gguf_value *v = find_value(f->c, first_value, "general.alignment");
    int64_t n = DEFAULT_ALIGNMENT;
    if (v && (v->array || v->type != BW_GGUF_U32 || !bw_gguf_int(v, 0, &n) || n < 1 || n > 65536 || (n & (n - 1))))
        return bw_fail(f->err, BW_E_FORMAT, "%s: general.alignment must be a u32 and a power of two up to 65536", f->path);
    *alignment = (uint64_t)n;
    return BW_OK;
}

/* ---- tensors ------------------------------------------------------------------------------------- */

static bw_status read_shape(cursor *f, bw_tensor *t, const ggml_type **type)
{
    uint64_t n_dims = 0, ne = 0, id = 0, bytes = 1;
    bw_status st;
    if ((st = read_number(f, t->name, 4, &n_dims)))
        return st;
    if (n_dims < 1 || n_dims > 4)
        return bw_fail(f->err, BW_E_FORMAT, "%s: tensor %s has %" PRIu64 " dimensions; 1 to 4 are possible: the file is damaged", f->path,
                       t->name, n_dims);
    t->n_dims = (int)n_dims;
    for (int i = 0; i < t->n_dims; i++) {
        if ((st = read_number(f, t->name, 8, &ne)))
            return st;
        t->shape[t->n_dims - 1 - i] = ne;
        if (ne > INT64_MAX || __builtin_mul_overflow(bytes, ne ? ne : 1, &bytes) || bytes > INT64_MAX)
            return bw_fail(f->err, BW_E_FORMAT, "%s: tensor %s: its dimensions overflow: the file is damaged", f->path, t->name);
    }
    if ((st = read_number(f, t->name, 4, &id)))
        return st;
    if (id >= BW_COUNT(types) || !types[id].elements)
        return bw_fail(f->err, BW_E_UNSUPPORTED, "%s: tensor %s is of type %" PRIu64 ", %s: use a file with the usual types (Q8_0, Q4_K, ...)",
                       f->path, t->name, id, strange_type((uint32_t)id));
    *type = &types[id];
    t->type_name = (*type)->name;
    t->readable = (*type)->readable;
    t->type = (*type)->type;
    return BW_OK;
}

static bw_status read_tensor(cursor *f, uint64_t alignment, uint64_t *next, uint64_t *offset, bw_tensor *t)
{
    const ggml_type *type = NULL;
    bw_status st;
    if ((st = read_name(f, "a tensor's name", MAX_TENSOR_NAME, &t->name)) || (st = read_shape(f, t, &type)) ||
        (st = read_number(f, t->name, 8, offset)))
        return st;
    const uint64_t row = t->shape[t->n_dims - 1];
    if (row % (uint64_t)type->elements)
        return bw_fail(f->err, BW_E_FORMAT, "%s: tensor %s: rows of %" PRIu64 " are no whole number of %s blocks of %d", f->path, t->name, row,
                       type->name, type->elements);
    uint64_t bytes = row / (uint64_t)type->elements;
    bool overflow = __builtin_mul_overflow(bytes, (uint64_t)type->bytes, &bytes);
    for (int i = 0; i < t->n_dims - 1; i++)
        overflow |= __builtin_mul_overflow(bytes, t->shape[i], &bytes);
    if (overflow || bytes > INT64_MAX)
        return bw_fail(f->err, BW_E_FORMAT, "%s: tensor %s: its size overflows: the file is damaged", f->path, t->name);
    t->bytes = bytes;
    if (*offset % alignment || *offset != *next)
        return bw_fail(f->err, BW_E_FORMAT, "%s: tensor %s begins at byte %" PRIu64 " of the data, %" PRIu64 " is expected: tensors overlap, or the file is damaged",
                       f->path, t->name, *offset, *next);
    if (*next > UINT64_MAX / 2 - bytes - alignment)
        return bw_fail(f->err, BW_E_FORMAT, "%s: tensor %s: the data overflows: the file is damaged", f->path, t->name);
    *next = (*next + bytes + alignment - 1) / alignment * alignment;
    return BW_OK;
}

static bw_status read_tensors(cursor *f, uint64_t n, uint64_t alignment, int file)
{
    const int first = f->c->n_tensors;
    uint64_t next = 0, offset = 0, end = 0;
    bw_status st = BW_OK;
    if (n > (f->bytes - f->at) / 24) /* a name's length, dimensions, type, offset: no info is smaller */
        return cut_off(f, "the tensor table");
    for (uint64_t i = 0; i < n; i++) {
        bw_tensor t = { .file = file };
        if ((st = read_tensor(f, alignment, &next, &offset, &t)))
            return st;
        end = offset + t.bytes;
        t.data = f->data; /* moved to its place once the table's end is known */
        if ((st = bw_parts_add_tensor(f->c, &t, f->err)))
            return st;
    }
    const uint64_t start = (f->at + alignment - 1) / alignment * alignment;
    if (n && (start > f->bytes || end > f->bytes - start))
        return bw_fail(f->err, BW_E_FORMAT, "%s: the file is cut off: %" PRIu64 " bytes, its table describes %" PRIu64 ": download it again",
                       f->path, f->bytes, start + end);
    if (n && f->bytes - start > next)
        bw_log(BW_LOG_WARNING, "%s: %" PRIu64 " bytes follow the last tensor and are not read", f->path, f->bytes - start - next);
    offset = start;
    for (int i = first; i < f->c->n_tensors; i++) { /* the offsets are the running sum, as checked */
        bw_tensor *t = &f->c->tensors[i];
        t->data = t->bytes ? f->data + offset : NULL;
        offset += (t->bytes + alignment - 1) / alignment * alignment;
    }
    return BW_OK;
}

/* ---- a file -------------------------------------------------------------------------------------- */

static bw_status read_header(cursor *f, uint64_t *n_tensors, uint64_t *n_values)
{
    uint64_t magic, version = 0;
    bw_status st = bw_check_impostor(f->path, f->data, f->bytes, f->err);
    if (st)
        return st;
    if (f->bytes < 4 || memcmp(f->data, "GGUF", 4) != 0)
        return bw_fail(f->err, BW_E_FORMAT, "%s: does not begin with \"GGUF\": a Hugging Face folder or a GGUF file is expected", f->path);
    if ((st = read_number(f, "the header", 4, &magic)) || (st = read_number(f, "the header", 4, &version)))
        return st;
    if (version && (version & 0xFFFF) == 0)
        return bw_fail(f->err, BW_E_UNSUPPORTED, "%s: a big-endian GGUF file; convert it to little-endian", f->path);
    if (version != 2 && version != 3)
        return bw_fail(f->err, BW_E_UNSUPPORTED, "%s: GGUF version %" PRIu64 "; 2 and 3 are read: convert the model again", f->path, version);
    if ((st = read_number(f, "the header", 8, n_tensors)) || (st = read_number(f, "the header", 8, n_values)))
        return st;
    if (*n_tensors > BW_MAX_TENSORS || *n_values > BW_MAX_VALUES)
        return bw_fail(f->err, BW_E_FORMAT, "%s: %" PRIu64 " tensors and %" PRIu64 " metadata keys are impossible: the file is damaged", f->path,
                       *n_tensors, *n_values);
    return BW_OK;
}

bw_status bw_gguf_parse(bw_checkpoint *c, const char *path, const unsigned char *data, uint64_t bytes, int file, bw_error *err)
{
    cursor f = { c, path, data, 0, bytes, err };
    const int first_value = c->n_values;
    uint64_t n_tensors = 0, n_values = 0, alignment = DEFAULT_ALIGNMENT;
    bw_status st = read_header(&f, &n_tensors, &n_values);
    for (uint64_t i = 0; !st && i < n_values; i++)
        st = read_value(&f);
    if (st || (st = read_alignment(&f, first_value, &alignment)))
        return st;
    return read_tensors(&f, n_tensors, alignment, file);
}

/* ---- split files --------------------------------------------------------------------------------- */

/* "PREFIX-00002-of-00007.gguf": part and count, one-based; prefix is what stands before. */
static bool split_name(const char *path, int *part, int *count, size_t *prefix)
{
    static const size_t tail = sizeof "-00002-of-00007.gguf" - 1;
    size_t n = strlen(path);
    if (n < tail)
        return false;
    const char *p = path + n - tail;
    if (p[0] != '-' || strncmp(p + 6, "-of-", 4) != 0 || strcmp(p + 15, ".gguf") != 0)
        return false;
    *part = *count = 0;
    for (int i = 0; i < 5; i++) {
        int a = p[1 + i] - '0', b = p[10 + i] - '0';
        if (a < 0 || a > 9 || b < 0 || b > 9)
            return false;
        *part = *part * 10 + a;
        *count = *count * 10 + b;
    }
    *prefix = n - tail;
    return *part >= 1 && *part <= *count;
}

static bw_status open_part(bw_checkpoint *c, const char *path, bw_error *err)
{
    int file;
    bw_status st = bw_check_unfinished(path, err);
    if (st || (st = bw_parts_add_file(c, path, &file, err)))
        return st;
    return bw_gguf_parse(c, path, c->files[file].map.data, c->files[file].map.bytes, file, err);
}

static void forget_parts(bw_checkpoint *c)
{
    for (int i = 0; i < c->n_files; i++) {
        bw_map_close(&c->files[i].map);
        bw_mem_free(c->files[i].path);
    }
    c->n_files = c->n_tensors = c->n_values = 0;
}

static int64_t split_key(const bw_checkpoint *c, int first, const char *key)
{
    int64_t n;
    return bw_gguf_int(find_value(c, first, key), 0, &n) ? n : -1;
}

/* All parts in order; the first one's metadata counts, the others' split keys are only checked. */
static bw_status open_split(bw_checkpoint *c, int count, size_t prefix, bw_error *err)
{
    bw_status st = BW_OK;
    int64_t total = -1;
    for (int part = 1; part <= count; part++) {
        char path[4096];
        const int first = c->n_values;
        if (snprintf(path, sizeof path, "%.*s-%05d-of-%05d.gguf", (int)prefix, c->path, part, count) >= (int)sizeof path)
            return bw_fail(err, BW_E_ARGUMENT, "%s: the path is too long", c->path);
        if ((st = open_part(c, path, err)))
            return st == BW_E_IO ? bw_fail_prefix(err, "part %d of %d of a split model", part, count) : st;
        if (split_key(c, first, "split.no") != part - 1 || split_key(c, first, "split.count") != count)
            return bw_fail(err, BW_E_FORMAT, "%s: says it is part %" PRId64 " of %" PRId64 ", its name says %d of %d: the files were renamed or mixed",
                           path, split_key(c, first, "split.no") + 1, split_key(c, first, "split.count"), part, count);
        if (part == 1)
            total = split_key(c, first, "split.tensors.count");
        else
            c->n_values = first;
    }
    if (total >= 0 && total != c->n_tensors)
        return bw_fail(err, BW_E_FORMAT, "%s: its %d parts hold %d tensors, split.tensors.count says %" PRId64 ": parts of two models are mixed",
                       c->path, count, c->n_tensors, total);
    return BW_OK;
}

bw_status bw_gguf_open(bw_checkpoint *c, bw_error *err)
{
    int part, count;
    size_t prefix;
    bw_status st = open_part(c, c->path, err);
    if (st)
        return st;
    const int64_t declared = split_key(c, 0, "split.count");
    const bool named = split_name(c->path, &part, &count, &prefix);
    if (named && declared < 0 && count > 1)
        bw_log(BW_LOG_WARNING, "%s is named like a part of a split model but has no split keys: read alone", c->path);
    if (named && declared >= 0 && declared != count)
        return bw_fail(err, BW_E_FORMAT, "%s: its key split.count says %" PRId64 " part%s, its name says %d: the file was renamed or belongs to another model",
                       c->path, declared, declared == 1 ? "" : "s", count);
    if (declared <= 1)
        return BW_OK;
    if (!named)
        return bw_fail(err, BW_E_FORMAT, "%s: is one of %" PRId64 " parts, but its name is not PREFIX-%05d-of-%05" PRId64 ".gguf: rename the parts as they were",
                       c->path, declared, 1, declared);
    forget_parts(c);
    return open_split(c, count, prefix, err);
}

/* ---- values -------------------------------------------------------------------------------------- */

bool bw_gguf_int(const bw_gguf_value *v, uint64_t i, int64_t *out)
{
    if (!v || i >= v->count || v->type == BW_GGUF_STRING)
        return false;
    const int bytes = value_types[v->type].bytes;
    const uint64_t raw = little(v->data + i * (uint64_t)bytes, bytes);
    switch (v->type) {
    case BW_GGUF_U8:
    case BW_GGUF_U16:
    case BW_GGUF_U32: *out = (int64_t)raw; return true;
    case BW_GGUF_I8: *out = (int8_t)raw; return true;
    case BW_GGUF_I16: *out = (int16_t)raw; return true;
    case BW_GGUF_I32: *out = (int32_t)raw; return true;
    case BW_GGUF_I64: *out = (int64_t)raw; return true;
    case BW_GGUF_U64: *out = (int64_t)raw; return raw <= INT64_MAX;
    default: return false;
    }
}

bool bw_gguf_float(const bw_gguf_value *v, uint64_t i, double *out)
{
    int64_t n;
    if (bw_gguf_int(v, i, &n)) {
        *out = (double)n;
        return true;
    }
    if (!v || i >= v->count || (v->type != BW_GGUF_F32 && v->type != BW_GGUF_F64))
        return false;
    const uint64_t raw = little(v->data + i * (v->type == BW_GGUF_F32 ? 4 : 8), v->type == BW_GGUF_F32 ? 4 : 8);
    if (v->type == BW_GGUF_F32)
        *out = bw_f32_from_bits((uint32_t)raw);
    else
        memcpy(out, &raw, sizeof *out);
    return isfinite(*out);
}

bool bw_gguf_bool(const bw_gguf_value *v, uint64_t i, bool *out)
{
    if (!v || i >= v->count || v->type != BW_GGUF_BOOL)
        return false;
    *out = v->data[i] != 0;
    return true;
}

bool bw_gguf_string(const bw_gguf_value *v, bw_slice *out)
{
    if (!v || v->array || v->type != BW_GGUF_STRING)
        return false;
    *out = (bw_slice){ (const char *)v->data + 8, (size_t)little(v->data, 8) };
    return true;
}

int64_t bw_gguf_find_string(const bw_gguf_value *v, const char *text)
{
    if (!v || v->type != BW_GGUF_STRING)
        return -1;
    const unsigned char *p = v->data;
    const size_t wanted = strlen(text);
    for (uint64_t i = 0; i < v->count; i++) { /* the lengths were checked when the file was opened */
        const uint64_t n = little(p, 8);
        if (n == wanted && memcmp(p + 8, text, wanted) == 0)
            return (int64_t)i;
        p += 8 + n;
    }
    return -1;
}

static bw_status no_array(const bw_checkpoint *c, const char *key, const char *kind, bw_error *err)
{
    return bw_fail(err, BW_E_FORMAT, "%s: the metadata key %s is missing or no array of %s", bw_checkpoint_path(c), key, kind);
}

bw_status bw_checkpoint_strings(const bw_checkpoint *c, const char *key, bw_slice **out, size_t *n, bw_error *err)
{
    const bw_gguf_value *v = bw_checkpoint_value(c, key);
    *out = NULL;
    *n = 0;
    if (!v || !v->array || v->type != BW_GGUF_STRING)
        return no_array(c, key, "strings", err);
    bw_slice *slices = bw_mem_zalloc((size_t)v->count, sizeof *slices, BW_MEM_TEXT);
    if (!slices)
        return bw_fail_memory(err, key, (size_t)v->count * sizeof *slices);
    const unsigned char *p = v->data;
    for (uint64_t i = 0; i < v->count; i++) {
        slices[i] = (bw_slice){ (const char *)p + 8, (size_t)little(p, 8) };
        p += 8 + slices[i].n;
    }
    *out = slices;
    *n = (size_t)v->count;
    return BW_OK;
}

bw_status bw_checkpoint_ints(const bw_checkpoint *c, const char *key, int32_t **out, size_t *n, bw_error *err)
{
    const bw_gguf_value *v = bw_checkpoint_value(c, key);
    *out = NULL;
    *n = 0;
    if (!v || !v->array)
        return no_array(c, key, "integers", err);
    int32_t *ints = bw_mem_zalloc((size_t)v->count, sizeof *ints, BW_MEM_TEXT);
    if (!ints)
        return bw_fail_memory(err, key, (size_t)v->count * sizeof *ints);
    for (uint64_t i = 0; i < v->count; i++) {
        int64_t one;
        if (!bw_gguf_int(v, i, &one) || one < INT32_MIN || one > INT32_MAX) {
            bw_mem_free(ints);
            return no_array(c, key, "integers", err);
        }
        ints[i] = (int32_t)one;
    }
    *out = ints;
    *n = (size_t)v->count;
    return BW_OK;
}
