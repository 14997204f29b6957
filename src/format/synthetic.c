/* synthetic.c - draws weights and deals them out. */
#include "format/synthetic.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/chance.h"
#include "base/mem.h"
#include "base/pool.h"
#include "format/checkpoint_parts.h"
#include "format/quantize.h"
#include "format/shape_header.h"
#include "format/shapes.h"

enum {
    DRAWN = 1 << 16,    /* values that are drawn once */
    DEALT_FLOATS = 32,  /* unquantised values that are dealt together */
    MOST_BLOCKS = 64,   /* kinds of blocks: types times row lengths */
    PIECE = 1 << 20     /* bytes, about */
};

/* The drawn values, scaled for rows of `cols` and packed. */
typedef struct blocks {
    bw_dtype type;
    uint64_t cols;
    unsigned char *packed;
} blocks;

/* Where a tensor begins, in the file and among the pieces. */
typedef struct place {
    uint64_t offset;
    int first_piece;
} place;

struct bw_synthetic {
    bw_shape_plan plan;
    uint64_t seed;
    unsigned char *header;
    size_t header_bytes;
    blocks blocks[MOST_BLOCKS];
    int n_blocks;
    place *places; /* [n_tensors + 1] */
};

/* ---- values -------------------------------------------------------------------------------------- */

static float small_value(bw_shape_kind kind, uint64_t cols, uint64_t *state)
{
    switch (kind) {
    case BW_SHAPE_MATRIX: return (float)(bw_chance_normal(state) / sqrt((double)cols));
    case BW_SHAPE_NORM: return (float)(1 + 0.1 * bw_chance_normal(state));
    case BW_SHAPE_CONV: return (float)(0.5 * bw_chance_normal(state));
    case BW_SHAPE_DECAY: return -(float)exp(bw_chance_uniform(state) * log(16.0));  /* -A, A from 1 to 16 */
    default: return (float)log(expm1(exp(log(0.001) + bw_chance_uniform(state) * log(100.0)))); /* softplus of it: 0.001 to 0.1 */
    }
}

static bool is_dealt(const bw_shape_tensor *t)
{
    return t->kind == BW_SHAPE_MATRIX && t->ne[1];
}

/* Values of a tensor that are dealt together; one where each is drawn. */
static uint64_t unit_of(const bw_shape_tensor *t)
{
    const uint64_t block = (uint64_t)bw_dtype_get(t->type)->elements;
    return !is_dealt(t) ? 1 : block > 1 ? block : t->ne[0] % DEALT_FLOATS ? 1 : DEALT_FLOATS;
}

static size_t unit_bytes(const bw_shape_tensor *t)
{
    return (size_t)bw_dtype_row_bytes(t->type, unit_of(t));
}

static const blocks *find_blocks(const bw_synthetic *s, const bw_shape_tensor *t)
{
    for (int i = 0; i < s->n_blocks; i++)
        if (s->blocks[i].type == t->type && s->blocks[i].cols == t->ne[0])
            return &s->blocks[i];
    return NULL;
}

/* drawn: standard normal values. */
static bw_status pack_blocks(bw_synthetic *s, const bw_shape_tensor *t, const float *drawn, float *scaled, bw_error *err)
{
    const float scale = (float)(1 / sqrt((double)t->ne[0]));
    const size_t bytes = (size_t)bw_dtype_row_bytes(t->type, DRAWN);
    if (s->n_blocks == MOST_BLOCKS)
        return bw_fail(err, BW_E_INTERNAL, "synthetic: more than %d kinds of matrices", MOST_BLOCKS);
    blocks *b = &s->blocks[s->n_blocks];
    *b = (blocks){ t->type, t->ne[0], bw_mem_alloc(bytes, BW_MEM_MISC) };
    if (!b->packed)
        return bw_fail_memory(err, "synthetic blocks", bytes);
    s->n_blocks++;
    for (int i = 0; i < DRAWN; i++)
        scaled[i] = drawn[i] * scale;
    bw_quantize_row(t->type, scaled, b->packed, DRAWN);
    return BW_OK;
}

static bw_status draw_blocks(bw_synthetic *s, bw_error *err)
{
    bw_status st = BW_OK;
    uint64_t state = s->seed;
    float *drawn = bw_mem_alloc(2 * DRAWN * sizeof *drawn, BW_MEM_MISC);
    if (!drawn)
        return bw_fail_memory(err, "synthetic values", 2 * DRAWN * sizeof *drawn);
    for (int i = 0; i < DRAWN; i++)
        drawn[i] = (float)bw_chance_normal(&state);
    for (int i = 0; !st && i < s->plan.n; i++)
        if (is_dealt(&s->plan.tensors[i]) && !find_blocks(s, &s->plan.tensors[i]))
            st = pack_blocks(s, &s->plan.tensors[i], drawn, drawn + DRAWN, err);
    bw_mem_free(drawn);
    return st;
}

/* n units from the blocks, each drawn with 16 bits of chance: there are at most 2^16 and a power of two. */
static void deal(unsigned char *out, const bw_shape_tensor *t, const unsigned char *packed, uint64_t n, uint64_t state)
{
    const size_t bytes = unit_bytes(t);
    const uint64_t last = DRAWN / unit_of(t) - 1;
    uint64_t chance = 0;
    for (uint64_t i = 0; i < n; i++, out += bytes, chance >>= 16) {
        if (i % 4 == 0)
            chance = bw_chance_draw(&state);
        memcpy(out, packed + (size_t)(chance & last) * bytes, bytes);
    }
}

static void draw_each(unsigned char *out, const bw_shape_tensor *t, uint64_t n, uint64_t state)
{
    for (uint64_t i = 0; i < n; i++) {
        const float x = small_value(t->kind, t->ne[0], &state);
        bw_quantize_row(t->type, &x, out + i * unit_bytes(t), 1);
    }
}

/* ---- pieces -------------------------------------------------------------------------------------- */

static uint64_t piece_units(const bw_shape_tensor *t)
{
    return PIECE / unit_bytes(t);
}

static bw_status place_tensors(bw_synthetic *s, bw_error *err)
{
    const size_t n = (size_t)s->plan.n;
    s->places = bw_mem_zalloc(n + 1, sizeof *s->places, BW_MEM_MISC);
    if (!s->places)
        return bw_fail_memory(err, "synthetic tensors", (n + 1) * sizeof *s->places);
    s->places[0].offset = s->header_bytes;
    for (size_t i = 0; i < n; i++) {
        const bw_shape_tensor *t = &s->plan.tensors[i];
        const uint64_t units = t->bytes / unit_bytes(t), pieces = (units + piece_units(t) - 1) / piece_units(t);
        s->places[i + 1].offset = s->places[i].offset + bw_shape_padded(t->bytes);
        s->places[i + 1].first_piece = s->places[i].first_piece + (int)pieces; /* 2^46 bytes at most: 2^26 and one a tensor */
    }
    return BW_OK;
}

/* The tensor of piece i. */
static int tensor_of(const bw_synthetic *s, int i)
{
    int low = 0, high = s->plan.n; /* first_piece of low <= i < that of high */
    while (high - low > 1) {
        const int middle = low + (high - low) / 2;
        if (s->places[middle].first_piece <= i)
            low = middle;
        else
            high = middle;
    }
    return low;
}

void bw_synthetic_fill(const bw_synthetic *s, int i, unsigned char *out)
{
    const int k = tensor_of(s, i), piece = i - s->places[k].first_piece;
    const bw_shape_tensor *t = &s->plan.tensors[k];
    const uint64_t first = (uint64_t)piece * piece_units(t), left = t->bytes / unit_bytes(t) - first;
    const uint64_t n = left < piece_units(t) ? left : piece_units(t);
    const uint64_t state = bw_chance_mix(bw_chance_mix(s->seed ^ (uint64_t)k) + (uint64_t)piece);
    if (is_dealt(t))
        deal(out, t, find_blocks(s, t)->packed, n, state);
    else
        draw_each(out, t, n, state);
    if (n == left)
        memset(out + n * unit_bytes(t), 0, (size_t)(bw_shape_padded(t->bytes) - t->bytes));
}

uint64_t bw_synthetic_offset(const bw_synthetic *s, int i)
{
    if (i == bw_synthetic_n_pieces(s))
        return bw_synthetic_bytes(s);
    const int k = tensor_of(s, i);
    const bw_shape_tensor *t = &s->plan.tensors[k];
    return s->places[k].offset + (uint64_t)(i - s->places[k].first_piece) * piece_units(t) * unit_bytes(t);
}

int bw_synthetic_n_pieces(const bw_synthetic *s)
{
    return s->places[s->plan.n].first_piece;
}

size_t bw_synthetic_largest_piece(const bw_synthetic *s)
{
    (void)s;
    return PIECE + BW_SHAPE_ALIGNMENT;
}

uint64_t bw_synthetic_bytes(const bw_synthetic *s)
{
    return s->places[s->plan.n].offset;
}

int bw_synthetic_n_tensors(const bw_synthetic *s)
{
    return s->plan.n;
}

const unsigned char *bw_synthetic_header(const bw_synthetic *s, size_t *n)
{
    *n = s->header_bytes;
    return s->header;
}

/* ---- the plan ------------------------------------------------------------------------------------ */

/* What the metadata call it: "2b.json" by name and by path. */
static void name_of(const char *shape, char *out, size_t size)
{
    const char *slash = strrchr(shape, '/'), *base = slash ? slash + 1 : shape;
    snprintf(out, size, "%s%s", base, strchr(base, '.') ? "" : ".json");
}

static bw_status make_header(bw_synthetic *s, const bw_synthetic_options *o, bw_error *err)
{
    bw_shape_words words = { 0 };
    char name[256];
    name_of(o->shape, name, sizeof name);
    bw_status st = o->tokenizer ? bw_shape_words_init(&words, o->tokenizer, s->plan.shape.vocab, err) : BW_OK;
    if (!st)
        st = bw_shape_header(&s->header, &s->header_bytes, &s->plan, name, o->tokenizer ? &words : NULL, err);
    bw_shape_words_fini(&words);
    return st;
}

static const char *type_of(const bw_synthetic_options *o)
{
    return o->type ? o->type : "q8_0";
}

void bw_synthetic_name(const bw_synthetic_options *o, char *out, size_t size)
{
    snprintf(out, size, "synthetic %.400s %.60s", o->shape, type_of(o));
}

bw_status bw_synthetic_create(bw_synthetic **out, const bw_synthetic_options *o, bw_error *err)
{
    bw_shape shape;
    char *text = NULL;
    size_t n;
    *out = NULL;
    bw_synthetic *s = bw_mem_zalloc(1, sizeof *s, BW_MEM_MISC);
    if (!s)
        return bw_fail_memory(err, "synthetic model", sizeof *s);
    s->seed = bw_chance_mix(o->seed + 1);
    bw_status st;
    if ((st = bw_shape_load(o->shape, &text, &n, err)) || (st = bw_shape_read(&shape, o->shape, text, n, err)) ||
        (st = bw_shape_plan_init(&s->plan, &shape, type_of(o), !o->no_mtp, err)) ||
        (st = make_header(s, o, err)) || (st = place_tensors(s, err)) || (st = draw_blocks(s, err)))
        bw_synthetic_destroy(s);
    else
        *out = s;
    bw_mem_free(text);
    return st;
}

void bw_synthetic_destroy(bw_synthetic *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->n_blocks; i++)
        bw_mem_free(s->blocks[i].packed);
    bw_mem_free(s->header);
    bw_mem_free(s->places);
    bw_shape_plan_fini(&s->plan);
    bw_mem_free(s);
}

/* ---- a checkpoint in memory ---------------------------------------------------------------------- */

typedef struct filling {
    const bw_synthetic *synthetic;
    unsigned char *file;
    int first; /* piece of the pool's unit 0 */
} filling;

static void fill_one(void *arg, int unit, int thread)
{
    const filling *f = arg;
    (void)thread;
    bw_synthetic_fill(f->synthetic, f->first + unit, f->file + bw_synthetic_offset(f->synthetic, f->first + unit));
}

static bw_status fill_all(const bw_synthetic *s, unsigned char *file, int n_threads, void (*progress)(void *arg, double done),
                          void *progress_arg, bw_error *err)
{
    enum { BETWEEN_REPORTS = 64 };
    const int n = bw_synthetic_n_pieces(s);
    filling f = { s, file, 0 };
    bw_pool *pool;
    const bw_status st = bw_pool_create(&pool, n_threads, err);
    if (st)
        return st;
    memcpy(file, s->header, s->header_bytes);
    for (; f.first < n; f.first += BETWEEN_REPORTS) {
        if (progress)
            progress(progress_arg, (double)f.first / n);
        bw_pool_for(pool, n - f.first < BETWEEN_REPORTS ? n - f.first : BETWEEN_REPORTS, fill_one, &f);
    }
    if (progress)
        progress(progress_arg, 1);
    bw_pool_destroy(pool);
    return BW_OK;
}

static bw_status check_room(const bw_synthetic *s, const char *name, bw_error *err)
{
    const uint64_t available = bw_mem_available(), wanted = bw_synthetic_bytes(s);
    if (available == 0 || wanted <= available)
        return BW_OK;
    return bw_fail(err, BW_E_MEMORY, "%s: %.2f GiB of weights and %.2f GiB of free memory: choose a smaller shape or type", name,
                   (double)wanted / 0x1p30, (double)available / 0x1p30);
}

bw_status bw_synthetic_open(bw_checkpoint **out, const bw_synthetic_options *o, int n_threads,
                            void (*progress)(void *arg, double done), void *progress_arg, bw_error *err)
{
    bw_synthetic *s;
    bw_map map;
    unsigned char *file;
    char name[512];
    bw_synthetic_name(o, name, sizeof name);
    *out = NULL;
    bw_status st = bw_synthetic_create(&s, o, err);
    if (st)
        return st;
    if ((st = check_room(s, name, err)) || (st = bw_map_create(&map, &file, bw_synthetic_bytes(s), name, err)))
        goto done;
    if ((st = fill_all(s, file, n_threads, progress, progress_arg, err)))
        bw_map_close(&map);
    else
        st = bw_checkpoint_adopt(out, name, &map, err);
done:
    bw_synthetic_destroy(s);
    return st;
}
