/* weights.c - see weights.h. First every tensor is put into the slot its name says, then the model
 * is walked and takes from the slots what it needs, checking as it goes; what is left in a slot at
 * the end belongs nowhere. Problems are collected, so that one message can name several. */
#include "model/weights.h"

#include <inttypes.h>
#include <json.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dequant.h"
#include "base/log.h"
#include "base/mem.h"
#include "format/checkpoint.h"
#include "format/roles.h"

enum { LAYER_ROLES = BW_ROLE_LAST_OF_LAYER - BW_ROLE_FIRST_OF_LAYER + 1, NAMED_PROBLEMS = 6 };

/* ---- problems ------------------------------------------------------------------------------------ */

typedef struct problems {
    char text[760];
    int n, named;
    bw_status st; /* of the first */
} problems;

__attribute__((format(printf, 3, 4))) static void note(problems *p, bw_status st, const char *format, ...)
{
    if (!p->n)
        p->st = st;
    size_t at = strlen(p->text);
    char one[320];
    va_list args;
    va_start(args, format);
    vsnprintf(one, sizeof one, format, args);
    va_end(args);
    if (p->n < NAMED_PROBLEMS && at + strlen(one) + 3 < sizeof p->text) {
        snprintf(p->text + at, sizeof p->text - at, "%s%s", at ? "; " : "", one);
        p->named++;
    }
    p->n++;
}

/* "a; b; c; and 41 more" */
static void write_problems(const problems *p, char *text, size_t size)
{
    if (p->n > p->named)
        snprintf(text, size, "%s; and %d more", p->text, p->n - p->named);
    else
        snprintf(text, size, "%s", p->text);
}

/* ---- slots --------------------------------------------------------------------------------------- */

/* The pieces packed layouts put beside, or instead of, a tensor of values. */
enum part {
    PART_BIAS = 1, PART_GPTQ = 2, PART_MLX = 4, PART_PACKED = 8, PART_BLOCK_SCALE = 16, PART_SCALE = 32, PART_GLOBAL_SCALE = 64,
    PART_OTHER = 128
};

typedef struct slot {
    const bw_tensor *plain;
    const bw_tensor *piece; /* one of the packed pieces, for messages */
    unsigned parts;
    bool used;
} slot;

/* The row of the MTP head's layer comes after the model's. */
typedef struct layer_slots {
    slot of[LAYER_ROLES];
    slot *experts; /* [n_experts][3]: gate, up, down, where they are stored one by one */
} layer_slots;

typedef struct block {
    struct block *next;
    size_t used, room; /* in floats */
    float *floats;
} block;

/* What bw_weights.owned points at. */
typedef struct owned {
    block *blocks;
    bw_layer_weights *layers;
} owned;

typedef struct resolver {
    const bw_config *config;
    const bw_checkpoint *checkpoint;
    bw_container container;
    bool plus_one; /* norms are stored as offsets from one */
    slot model[BW_ROLE_COUNT];
    layer_slots *layers; /* [n_layers + 1] */
    int n_vision;
    owned *own;
    uint64_t matrix_bytes, vector_bytes;
    int mtp_experts_taken; /* of the MTP head's two expert tensors, those that can be used */
    problems main, mtp;
    bool no_memory;
} resolver;

static problems *problems_of(resolver *r, int row, bool mtp)
{
    return mtp || row == r->config->n_layers ? &r->mtp : &r->main;
}

static slot *layer_slot(resolver *r, int row, bw_role role)
{
    return &r->layers[row].of[role - BW_ROLE_FIRST_OF_LAYER];
}

static bool is_layer_role(bw_role role)
{
    return role >= BW_ROLE_FIRST_OF_LAYER && role <= BW_ROLE_LAST_OF_LAYER;
}

static bool is_mtp_role(bw_role role)
{
    return role >= BW_ROLE_MTP_FC && role <= BW_ROLE_MTP_HEAD;
}

static unsigned part_flag(const char *part)
{
    static const struct known {
        const char *name;
        unsigned flag;
    } known[] = {
        { "bias", PART_BIAS },          { "qweight", PART_GPTQ },      { "biases", PART_MLX },
        { "weight_packed", PART_PACKED }, { "weight_scale_inv", PART_BLOCK_SCALE }, { "weight_scale", PART_SCALE },
        { "weight_scale_2", PART_GLOBAL_SCALE }, { "weight_global_scale", PART_GLOBAL_SCALE },
    };
    for (size_t i = 0; i < BW_COUNT(known); i++)
        if (strcmp(known[i].name, part) == 0)
            return known[i].flag;
    return PART_OTHER;
}

static const char *layout_name(unsigned parts)
{
    return parts & PART_MLX            ? "MLX quantisation"
           : parts & PART_GPTQ         ? "GPTQ or AWQ int4"
           : parts & PART_GLOBAL_SCALE ? "NVFP4"
           : parts & PART_PACKED       ? "compressed-tensors"
           : parts & PART_BLOCK_SCALE  ? "FP8 in blocks"
           : parts & PART_SCALE        ? "FP8 or int8 with scales"
                                       : "a packed layout";
}

static void put(slot *s, const bw_tensor *t, const bw_place *place, problems *p)
{
    if (*place->part) {
        s->parts |= part_flag(place->part);
        s->piece = t;
    } else if (s->plain) {
        note(p, BW_E_FORMAT, "%s and %s are the same tensor under two names", s->plain->name, t->name);
    } else {
        s->plain = t;
    }
}

/* Slots of single experts are made when a layer's first one is met; there are at least as many
 * tensors as slots, or the layer is incomplete and need not be looked at one by one. */
static slot *expert_slot(resolver *r, int row, const bw_place *place)
{
    const int n = r->config->n_experts, projection = place->role - BW_ROLE_EXPERTS_GATE;
    layer_slots *l = &r->layers[row];
    if (place->expert >= n || projection > 2 || 3 * (int64_t)n > bw_checkpoint_n_tensors(r->checkpoint))
        return NULL;
    if (!l->experts && !(l->experts = bw_mem_zalloc((size_t)n * 3, sizeof *l->experts, BW_MEM_MISC))) {
        r->no_memory = true;
        return NULL;
    }
    return &l->experts[place->expert * 3 + projection];
}

static void place_tensor(resolver *r, const bw_tensor *t)
{
    const int n_layers = r->config->n_layers;
    bw_place place = bw_role_of(r->container, t->name);
    int row = place.layer;
    if (r->container == BW_CONTAINER_GGUF && row >= n_layers && strncmp(t->name, "blk.", 4) == 0) {
        place.mtp = true;
        place.layer = row -= n_layers;
    }
    problems *p = problems_of(r, 0, place.mtp);
    if (place.role == BW_ROLE_VISION) {
        r->n_vision++;
    } else if (place.role == BW_ROLE_IGNORED) {
        return;
    } else if (place.role == BW_ROLE_UNKNOWN) {
        char shape[120];
        note(p, BW_E_FORMAT, "%.120s (%s %s) is unknown", t->name, t->type_name, bw_shape_text(shape, sizeof shape, t->shape, t->n_dims));
    } else if (place.mtp && row > 0) {
        note(p, BW_E_UNSUPPORTED, "%.120s: a head of several layers is not understood", t->name);
    } else if (!is_layer_role(place.role)) {
        put(&r->model[place.role], t, &place, is_mtp_role(place.role) ? &r->mtp : &r->main);
    } else if (!place.mtp && row >= n_layers) {
        note(p, BW_E_FORMAT, "%.120s: the model has %d layers", t->name, n_layers);
    } else {
        row = place.mtp ? n_layers : row;
        slot *s = place.expert < 0 ? layer_slot(r, row, place.role) : expert_slot(r, row, &place);
        if (s)
            put(s, t, &place, p);
        else if (!r->no_memory)
            note(p, BW_E_FORMAT, "%.120s: the model has %d experts%s", t->name, r->config->n_experts,
                 place.expert < r->config->n_experts ? ", most of which are missing" : "");
    }
}

/* ---- taking tensors ------------------------------------------------------------------------------ */

typedef struct wanted {
    bw_role role;
    int row; /* layer, n_layers for the MTP head's */
} wanted;

static const char *wanted_name(const resolver *r, wanted w, char *text, size_t size)
{
    const bool mtp = w.row == r->config->n_layers;
    const int layer = mtp && r->container == BW_CONTAINER_HF ? 0 : w.row;
    return bw_role_name(text, size, r->container, w.role, layer, mtp);
}

/* Dimensions of one change nothing in memory: they are left out on both sides. */
static int squeeze(uint64_t *out, const uint64_t *shape, int n_dims)
{
    int n = 0;
    for (int i = 0; i < n_dims; i++)
        if (shape[i] != 1)
            out[n++] = shape[i];
    return n;
}

static bool same_shape(const bw_tensor *t, const uint64_t *shape, int n_dims)
{
    uint64_t a[BW_MAX_DIMS], b[BW_MAX_DIMS];
    int n = squeeze(a, t->shape, t->n_dims);
    return n == squeeze(b, shape, n_dims) && memcmp(a, b, (size_t)n * sizeof *a) == 0;
}

/* The slot's tensor if it is there, readable and of this shape; otherwise NULL and a problem noted. */
static const bw_tensor *take(resolver *r, slot *s, wanted w, const uint64_t *shape, int n_dims)
{
    char name[160], found[120], expected[120];
    problems *p = problems_of(r, w.row, is_mtp_role(w.role));
    s->used = true;
    if (s->parts == PART_BIAS && s->plain) {
        note(p, BW_E_UNSUPPORTED, "%.120s: this family has no biases", s->piece->name);
    } else if (s->parts) {
        note(p, BW_E_UNSUPPORTED, "%.120s: packed as %s, which is not read yet", s->piece->name, layout_name(s->parts));
    } else if (!s->plain) {
        note(p, BW_E_FORMAT, "%s is missing", wanted_name(r, w, name, sizeof name));
    } else if (!s->plain->readable) {
        note(p, BW_E_UNSUPPORTED, "%.120s is of type %s, which is not read yet", s->plain->name, s->plain->type_name);
    } else if (!same_shape(s->plain, shape, n_dims) || shape[n_dims - 1] % (uint64_t)bw_dtype_get(s->plain->type)->elements) {
        note(p, BW_E_FORMAT, "%.120s is %s, expected %s", s->plain->name, bw_shape_text(found, sizeof found, s->plain->shape, s->plain->n_dims),
             bw_shape_text(expected, sizeof expected, shape, n_dims));
    } else {
        return s->plain;
    }
    return NULL;
}

static bw_matrix matrix_of(resolver *r, slot *s, wanted w, int rows, int cols)
{
    const bw_tensor *t = take(r, s, w, (const uint64_t[]){ (uint64_t)rows, (uint64_t)cols }, 2);
    if (!t)
        return (bw_matrix){ 0 };
    r->matrix_bytes += t->bytes;
    return (bw_matrix){ t->type, rows, cols, t->data };
}

static bw_matrix layer_matrix(resolver *r, int row, bw_role role, int rows, int cols)
{
    return matrix_of(r, layer_slot(r, row, role), (wanted){ role, row }, rows, cols);
}

static bw_matrix rows_of(const bw_matrix *whole, int first, int rows)
{
    if (!whole->data)
        return *whole;
    const uint64_t row_bytes = bw_dtype_row_bytes(whole->type, (uint64_t)whole->cols);
    return (bw_matrix){ whole->type, rows, whole->cols, (const unsigned char *)whole->data + (uint64_t)first * row_bytes };
}

/* ---- vectors ------------------------------------------------------------------------------------- */

typedef enum meaning {
    AS_STORED,
    NORM,  /* a multiplier, perhaps stored less one */
    DECAY  /* -exp(A_log), or A_log */
} meaning;

/* n floats that live as long as the weights, 64-byte aligned. NULL: out of memory. */
static float *own_floats(resolver *r, size_t n)
{
    enum { BLOCK = 1 << 16 };
    const size_t whole = (n + 15) / 16 * 16;
    block *b = r->own->blocks;
    if (!b || b->room - b->used < whole) {
        if (!(b = bw_mem_alloc(sizeof *b, BW_MEM_WEIGHTS)))
            goto fail;
        *b = (block){ .next = r->own->blocks, .room = whole > BLOCK ? whole : BLOCK };
        if (!(b->floats = bw_mem_alloc(b->room * sizeof(float), BW_MEM_WEIGHTS))) {
            bw_mem_free(b);
            goto fail;
        }
        r->own->blocks = b;
    }
    float *floats = b->floats + b->used;
    b->used += whole;
    return floats;
fail:
    r->no_memory = true;
    return NULL;
}

static void undo_convention(const resolver *r, float *x, size_t n, meaning m)
{
    const bool hf = r->container == BW_CONTAINER_HF;
    for (size_t i = 0; i < n; i++)
        x[i] = m == NORM && r->plus_one ? 1 + x[i] : m == DECAY && hf ? -expf(x[i]) : x[i];
}

static void check_values(resolver *r, const bw_tensor *t, const float *x, size_t n, meaning m, problems *p)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) {
            note(p, BW_E_FORMAT, "%.120s[%zu] is not finite, the file is damaged", t->name, i);
            return;
        }
        if (m == DECAY && x[i] > 0) {
            note(p, BW_E_FORMAT, "%.120s[%zu] is positive, -exp(A_log) is expected", t->name, i);
            return;
        }
        sum += x[i];
    }
    if (m == NORM && n && (sum < 0 || sum > 10 * (double)n))
        bw_log(BW_LOG_WARNING, "%s: mean gain %.3g, read as %s: doubtful, a norm's is between 0 and 10", t->name, sum / (double)n,
               r->plus_one ? "1 + w" : "stored");
}

static const float *vector_of(resolver *r, slot *s, wanted w, const uint64_t *shape, int n_dims, meaning m)
{
    problems *p = problems_of(r, w.row, is_mtp_role(w.role));
    const bw_tensor *t = take(r, s, w, shape, n_dims);
    size_t n = 1;
    for (int i = 0; i < n_dims; i++)
        n *= (size_t)shape[i];
    float *x = t ? own_floats(r, n) : NULL;
    if (!x)
        return NULL;
    bw_dequantize_row(t->type, t->data, x, n);
    undo_convention(r, x, n, m);
    check_values(r, t, x, n, m, p);
    r->vector_bytes += t->bytes;
    return x;
}

static const float *layer_vector(resolver *r, int row, bw_role role, int n, meaning m)
{
    return vector_of(r, layer_slot(r, row, role), (wanted){ role, row }, (const uint64_t[]){ (uint64_t)n }, 1, m);
}

static const float *model_vector(resolver *r, bw_role role, int n, meaning m)
{
    return vector_of(r, &r->model[role], (wanted){ role, 0 }, (const uint64_t[]){ (uint64_t)n }, 1, m);
}

/* ---- layers -------------------------------------------------------------------------------------- */

static void take_attention(resolver *r, int row, bw_attention_weights *a)
{
    const bw_config *c = r->config;
    const int q_rows = 2 * c->n_heads * c->head_dim, kv_rows = c->n_kv_heads * c->head_dim;
    const slot *q = layer_slot(r, row, BW_ROLE_Q), *fused = layer_slot(r, row, BW_ROLE_QKV);
    if (r->container == BW_CONTAINER_GGUF && fused->plain && !q->plain) { /* q, k, v one below the other */
        const bw_matrix all = layer_matrix(r, row, BW_ROLE_QKV, q_rows + 2 * kv_rows, c->hidden);
        a->q = rows_of(&all, 0, q_rows);
        a->k = rows_of(&all, q_rows, kv_rows);
        a->v = rows_of(&all, q_rows + kv_rows, kv_rows);
    } else {
        a->q = layer_matrix(r, row, BW_ROLE_Q, q_rows, c->hidden);
        a->k = layer_matrix(r, row, BW_ROLE_K, kv_rows, c->hidden);
        a->v = layer_matrix(r, row, BW_ROLE_V, kv_rows, c->hidden);
    }
    a->o = layer_matrix(r, row, BW_ROLE_O, c->hidden, c->n_heads * c->head_dim);
    a->q_norm = layer_vector(r, row, BW_ROLE_Q_NORM, c->head_dim, NORM);
    a->k_norm = layer_vector(r, row, BW_ROLE_K_NORM, c->head_dim, NORM);
}

static void take_gdn(resolver *r, int row, bw_gdn_weights *g)
{
    const bw_config *c = r->config;
    const int v_rows = c->n_v_heads * c->d_v;
    const uint64_t conv[2] = { (uint64_t)c->conv_dim, (uint64_t)c->conv_width };
    g->qkv = layer_matrix(r, row, BW_ROLE_QKV, c->conv_dim, c->hidden);
    g->z = layer_matrix(r, row, BW_ROLE_GDN_Z, v_rows, c->hidden);
    g->a = layer_matrix(r, row, BW_ROLE_GDN_A, c->n_v_heads, c->hidden);
    g->b = layer_matrix(r, row, BW_ROLE_GDN_B, c->n_v_heads, c->hidden);
    g->out = layer_matrix(r, row, BW_ROLE_GDN_OUT, c->hidden, v_rows);
    g->conv = vector_of(r, layer_slot(r, row, BW_ROLE_GDN_CONV), (wanted){ BW_ROLE_GDN_CONV, row }, conv, 2, AS_STORED);
    g->decay = layer_vector(r, row, BW_ROLE_GDN_DECAY, c->n_v_heads, DECAY);
    g->dt_bias = layer_vector(r, row, BW_ROLE_GDN_DT, c->n_v_heads, AS_STORED);
    g->norm = layer_vector(r, row, BW_ROLE_GDN_NORM, c->d_v, AS_STORED);
}

/* All experts in one tensor [n_experts, rows, cols]; part of its rows may be another projection. */
typedef struct stack {
    const bw_tensor *tensor;
    int rows, cols;
} stack;

static stack take_stack(resolver *r, int row, bw_role role, int rows, int cols)
{
    const uint64_t shape[3] = { (uint64_t)r->config->n_experts, (uint64_t)rows, (uint64_t)cols };
    stack s = { take(r, layer_slot(r, row, role), (wanted){ role, row }, shape, 3), rows, cols };
    r->matrix_bytes += s.tensor ? s.tensor->bytes : 0;
    return s;
}

static bw_matrix stack_view(const stack *s, int expert, int first, int rows)
{
    if (!s->tensor)
        return (bw_matrix){ 0 };
    const uint64_t row_bytes = bw_dtype_row_bytes(s->tensor->type, (uint64_t)s->cols);
    return (bw_matrix){ s->tensor->type, rows, s->cols,
                        s->tensor->data + ((uint64_t)expert * (uint64_t)s->rows + (uint64_t)first) * row_bytes };
}

/* Experts stored one by one may be of several float types: then all become f32. */
static bool widen_experts(resolver *r, bw_matrix *first, size_t stride, int row)
{
    bw_dtype type = first->type;
    bool mixed = false, floats = true;
    for (int e = 0; e < r->config->n_experts; e++) {
        const bw_matrix *m = (const bw_matrix *)((char *)first + (size_t)e * stride);
        mixed |= m->type != type;
        floats &= bw_dtype_is_float(m->type);
    }
    if (!mixed)
        return true;
    if (!floats) {
        note(problems_of(r, row, false), BW_E_UNSUPPORTED, "layer %d: its experts are of different quantised types", row);
        return false;
    }
    for (int e = 0; e < r->config->n_experts; e++) {
        bw_matrix *m = (bw_matrix *)((char *)first + (size_t)e * stride);
        const size_t n = (size_t)m->rows * (size_t)m->cols;
        float *wide = own_floats(r, n);
        if (!wide)
            return false;
        bw_dequantize_row(m->type, m->data, wide, n);
        m->type = BW_F32;
        m->data = wide;
    }
    return true;
}

static void take_single_experts(resolver *r, int row, bw_ffn_weights *experts)
{
    const bw_config *c = r->config;
    problems *p = problems_of(r, row, false);
    const int before = p->n;
    for (int e = 0; e < c->n_experts; e++) {
        slot *s = &r->layers[row].experts[e * 3];
        for (int k = 0; k < 3; k++) {
            const bw_role role = BW_ROLE_EXPERTS_GATE + (bw_role)k;
            char name[160];
            if (!s[k].plain && !s[k].parts) {
                s[k].used = true;
                note(p, BW_E_FORMAT, "%s of expert %d is missing", wanted_name(r, (wanted){ role, row }, name, sizeof name), e);
                continue;
            }
            const bw_matrix m = matrix_of(r, &s[k], (wanted){ role, row }, k < 2 ? c->expert_ffn : c->hidden, k < 2 ? c->hidden : c->expert_ffn);
            *(k == 0 ? &experts[e].gate : k == 1 ? &experts[e].up : &experts[e].down) = m;
        }
    }
    if (p->n == before)
        (void)(widen_experts(r, &experts->gate, sizeof *experts, row) && widen_experts(r, &experts->up, sizeof *experts, row) &&
               widen_experts(r, &experts->down, sizeof *experts, row));
}

static void view_experts(const bw_config *c, bw_ffn_weights *experts, const stack *gate, const stack *up, const stack *down, int up_first)
{
    for (int e = 0; e < c->n_experts; e++) {
        experts[e].gate = stack_view(gate, e, 0, c->expert_ffn);
        experts[e].up = stack_view(up, e, up_first, c->expert_ffn);
        experts[e].down = stack_view(down, e, 0, c->hidden);
    }
}

/* One expert projection counts as one tensor however it is stored, gate and up together. */
static int count_taken_experts(const bw_config *c, const bw_ffn_weights *experts)
{
    bool gate_up = true, down = true;
    for (int e = 0; e < c->n_experts; e++) {
        gate_up &= experts[e].gate.data && experts[e].up.data;
        down &= experts[e].down.data != NULL;
    }
    return gate_up + down;
}

/* Three spellings; which one is there is decided layer by layer. The array is made only once the
 * tensors have been seen to be as large as it says. */
static const bw_ffn_weights *take_experts(resolver *r, int row)
{
    const bw_config *c = r->config;
    const int before = r->main.n + r->mtp.n;
    const bool single = r->layers[row].experts != NULL;
    const slot *split = layer_slot(r, row, BW_ROLE_EXPERTS_GATE);
    stack gate = { 0 }, up = { 0 }, down = { 0 };
    int up_first = 0;
    if (!single) {
        if (split->plain || split->parts) {
            gate = take_stack(r, row, BW_ROLE_EXPERTS_GATE, c->expert_ffn, c->hidden);
            up = take_stack(r, row, BW_ROLE_EXPERTS_UP, c->expert_ffn, c->hidden);
        } else {
            gate = up = take_stack(r, row, BW_ROLE_EXPERTS_GATE_UP, 2 * c->expert_ffn, c->hidden);
            up_first = c->expert_ffn;
        }
        down = take_stack(r, row, BW_ROLE_EXPERTS_DOWN, c->hidden, c->expert_ffn);
        if (row == c->n_layers)
            r->mtp_experts_taken = (gate.tensor && up.tensor) + (down.tensor != NULL);
        if (r->main.n + r->mtp.n != before)
            return NULL;
    }
    const size_t bytes = (size_t)c->n_experts * sizeof(bw_ffn_weights);
    bw_ffn_weights *experts = (bw_ffn_weights *)(void *)own_floats(r, (bytes + sizeof(float) - 1) / sizeof(float));
    if (!experts)
        return NULL;
    memset(experts, 0, bytes);
    if (single)
        take_single_experts(r, row, experts);
    else
        view_experts(c, experts, &gate, &up, &down, up_first);
    if (single && row == c->n_layers)
        r->mtp_experts_taken = count_taken_experts(c, experts);
    return experts;
}

static void take_moe(resolver *r, int row, bw_moe_weights *m)
{
    const bw_config *c = r->config;
    m->router = layer_matrix(r, row, BW_ROLE_ROUTER, c->n_experts, c->hidden);
    m->shared_gate = layer_vector(r, row, BW_ROLE_SHARED_GATE, c->hidden, AS_STORED);
    m->shared.gate = layer_matrix(r, row, BW_ROLE_SHARED_FFN_GATE, c->shared_ffn, c->hidden);
    m->shared.up = layer_matrix(r, row, BW_ROLE_SHARED_FFN_UP, c->shared_ffn, c->hidden);
    m->shared.down = layer_matrix(r, row, BW_ROLE_SHARED_FFN_DOWN, c->hidden, c->shared_ffn);
    m->experts = take_experts(r, row);
}

static void take_layer(resolver *r, int row, bool attention, bw_layer_weights *l)
{
    const bw_config *c = r->config;
    l->input_norm = layer_vector(r, row, BW_ROLE_INPUT_NORM, c->hidden, NORM);
    l->post_norm = layer_vector(r, row, BW_ROLE_POST_NORM, c->hidden, NORM);
    if (attention)
        take_attention(r, row, &l->attention);
    else
        take_gdn(r, row, &l->gdn);
    if (c->moe) {
        take_moe(r, row, &l->moe);
    } else {
        l->ffn.gate = layer_matrix(r, row, BW_ROLE_FFN_GATE, c->ffn, c->hidden);
        l->ffn.up = layer_matrix(r, row, BW_ROLE_FFN_UP, c->ffn, c->hidden);
        l->ffn.down = layer_matrix(r, row, BW_ROLE_FFN_DOWN, c->hidden, c->ffn);
    }
}

/* ---- the MTP head -------------------------------------------------------------------------------- */

static bool present(const slot *s)
{
    return s->plain || s->parts;
}

/* Counted as count_taken_experts does, but by what is there, usable or not. */
static int count_expert_tensors(resolver *r, int row)
{
    const slot *singles = r->layers[row].experts;
    bool gate_up = present(layer_slot(r, row, BW_ROLE_EXPERTS_GATE_UP)) ||
                   (present(layer_slot(r, row, BW_ROLE_EXPERTS_GATE)) && present(layer_slot(r, row, BW_ROLE_EXPERTS_UP)));
    bool down = present(layer_slot(r, row, BW_ROLE_EXPERTS_DOWN));
    if (singles) {
        gate_up = down = true;
        for (int e = 0; e < r->config->n_experts; e++) {
            gate_up &= present(&singles[3 * e]) && present(&singles[3 * e + 1]);
            down &= present(&singles[3 * e + 2]);
        }
    }
    return gate_up + down;
}

static void count_mtp(resolver *r, bw_weights *w)
{
    static const bw_role of_model[] = { BW_ROLE_MTP_FC, BW_ROLE_MTP_NORM_EMBEDDING, BW_ROLE_MTP_NORM_HIDDEN, BW_ROLE_MTP_NORM };
    static const bw_role common[] = { BW_ROLE_INPUT_NORM, BW_ROLE_POST_NORM, BW_ROLE_O, BW_ROLE_Q_NORM, BW_ROLE_K_NORM };
    static const bw_role qkv[] = { BW_ROLE_Q, BW_ROLE_K, BW_ROLE_V };
    static const bw_role dense[] = { BW_ROLE_FFN_GATE, BW_ROLE_FFN_UP, BW_ROLE_FFN_DOWN };
    static const bw_role moe[] = { BW_ROLE_ROUTER, BW_ROLE_SHARED_GATE, BW_ROLE_SHARED_FFN_GATE, BW_ROLE_SHARED_FFN_UP,
                                   BW_ROLE_SHARED_FFN_DOWN };
    const int row = r->config->n_layers;
    w->mtp_expected = r->config->moe ? 19 : 15;
    for (size_t i = 0; i < BW_COUNT(of_model); i++)
        w->mtp_found += present(&r->model[of_model[i]]);
    for (size_t i = 0; i < BW_COUNT(common); i++)
        w->mtp_found += present(layer_slot(r, row, common[i]));
    for (size_t i = 0; i < BW_COUNT(qkv); i++)
        w->mtp_found += present(layer_slot(r, row, qkv[i])) || present(layer_slot(r, row, BW_ROLE_QKV));
    for (size_t i = 0; !r->config->moe && i < BW_COUNT(dense); i++)
        w->mtp_found += present(layer_slot(r, row, dense[i]));
    for (size_t i = 0; r->config->moe && i < BW_COUNT(moe); i++)
        w->mtp_found += present(layer_slot(r, row, moe[i]));
    if (r->config->moe)
        w->mtp_found += count_expert_tensors(r, row);
}

/* A head whose projection was never filled drafts noise without any error: some rows of it are
 * looked at, all of them would mean reading 100 MB at every start. */
static void check_fc(resolver *r, const bw_matrix *fc)
{
    enum { ROWS = 16 };
    float *x = fc->data ? bw_mem_alloc((size_t)fc->cols * sizeof *x, BW_MEM_MISC) : NULL;
    bool zero = true, finite = true;
    if (!fc->data)
        return;
    if (!x) {
        r->no_memory = true;
        return;
    }
    for (int k = 0; k < ROWS; k++) {
        const bw_matrix row = rows_of(fc, (int)((int64_t)k * fc->rows / ROWS), 1);
        bw_dequantize_row(row.type, row.data, x, (size_t)row.cols);
        for (int i = 0; i < row.cols; i++) {
            zero &= x[i] == 0;
            finite &= isfinite(x[i]) != 0;
        }
    }
    bw_mem_free(x);
    if (zero || !finite)
        note(&r->mtp, BW_E_FORMAT, "%s: its values are %s", r->model[BW_ROLE_MTP_FC].plain->name, zero ? "all zero" : "not finite");
}

static void take_mtp(resolver *r, bw_weights *w)
{
    const bw_config *c = r->config;
    bw_mtp_weights *m = &w->mtp;
    m->fc = matrix_of(r, &r->model[BW_ROLE_MTP_FC], (wanted){ BW_ROLE_MTP_FC, c->n_layers }, c->hidden, 2 * c->hidden);
    check_fc(r, &m->fc);
    const uint64_t hidden[1] = { (uint64_t)c->hidden };
    m->norm_embedding = vector_of(r, &r->model[BW_ROLE_MTP_NORM_EMBEDDING], (wanted){ BW_ROLE_MTP_NORM_EMBEDDING, c->n_layers }, hidden, 1, NORM);
    m->norm_hidden = vector_of(r, &r->model[BW_ROLE_MTP_NORM_HIDDEN], (wanted){ BW_ROLE_MTP_NORM_HIDDEN, c->n_layers }, hidden, 1, NORM);
    m->norm = vector_of(r, &r->model[BW_ROLE_MTP_NORM], (wanted){ BW_ROLE_MTP_NORM, c->n_layers }, hidden, 1, NORM);
    take_layer(r, c->n_layers, true, &m->layer);
    for (bw_role role = BW_ROLE_MTP_EMBED; role <= BW_ROLE_MTP_HEAD; role++)
        if (present(&r->model[role])) {
            const slot *s = &r->model[role];
            note(&r->mtp, BW_E_UNSUPPORTED, "%.120s: a head with its own embedding or output matrix is not understood",
                 (s->plain ? s->plain : s->piece)->name);
        }
}

/* ---- everything ---------------------------------------------------------------------------------- */

static void report_unused(const slot *s, problems *p)
{
    if (present(s) && !s->used)
        note(p, BW_E_FORMAT, "%.120s has no place in this layer", (s->plain ? s->plain : s->piece)->name);
}

static void report_all_unused(resolver *r)
{
    const int n = r->config->n_layers;
    for (int row = 0; row <= n; row++) {
        for (int k = 0; k < LAYER_ROLES; k++)
            report_unused(&r->layers[row].of[k], problems_of(r, row, false));
        for (int e = 0; r->layers[row].experts && e < 3 * r->config->n_experts; e++)
            report_unused(&r->layers[row].experts[e], problems_of(r, row, false));
    }
}

/* MLX re-saves store the convolution as [channels, width, 1] and norms as multipliers: the one thing
 * tells the other. */
static bool norms_are_offsets(resolver *r)
{
    int offsets = 0, multipliers = 0;
    if (r->container == BW_CONTAINER_GGUF)
        return false;
    for (int i = 0; i < r->config->n_layers; i++) {
        const bw_tensor *conv = layer_slot(r, i, BW_ROLE_GDN_CONV)->plain;
        if (!conv || conv->n_dims != 3 || r->config->conv_width == 1)
            continue;
        multipliers += conv->shape[2] == 1;
        offsets += conv->shape[1] == 1;
    }
    if (offsets && multipliers)
        note(&r->main, BW_E_FORMAT, "the convolutions of %d layers are in MLX order and those of %d are not: files of two models are mixed",
             multipliers, offsets);
    if (!r->config->n_linear)
        bw_log(BW_LOG_WARNING, "%s: no layer has a convolution, which would tell an MLX re-save: norms are taken as offsets from one",
               bw_checkpoint_path(r->checkpoint));
    if (multipliers)
        bw_log(BW_LOG_INFO, "%s: an MLX re-save by the order of its convolutions: norms are taken as stored", bw_checkpoint_path(r->checkpoint));
    return multipliers == 0;
}

static void resolve_main(resolver *r, bw_weights *w)
{
    const bw_config *c = r->config;
    w->embed = matrix_of(r, &r->model[BW_ROLE_EMBED], (wanted){ BW_ROLE_EMBED, 0 }, c->vocab, c->hidden);
    if (!present(&r->model[BW_ROLE_HEAD]) && c->tied)
        w->head = w->embed;
    else
        w->head = matrix_of(r, &r->model[BW_ROLE_HEAD], (wanted){ BW_ROLE_HEAD, 0 }, c->vocab, c->hidden);
    w->final_norm = model_vector(r, BW_ROLE_FINAL_NORM, c->hidden, NORM);
    for (int i = 0; i < c->n_layers && !r->no_memory; i++)
        take_layer(r, i, c->attention[i], &w->layers[i]);
}

static void resolve_mtp(resolver *r, bw_weights *w)
{
    const bool claimed = r->config->mtp_layers > 0;
    const char *names = r->container == BW_CONTAINER_HF ? "mtp.*" : "nextn";
    count_mtp(r, w);
    if (!w->mtp_found && !r->mtp.n) {
        w->mtp_state = BW_MTP_ABSENT;
        snprintf(w->mtp_problem, sizeof w->mtp_problem, "no %s tensors in %.300s%s: it runs without drafts; the original checkpoint has them, "
                 "copies saved through transformers do not", names, bw_checkpoint_path(r->checkpoint),
                 claimed ? ", although its configuration declares the head" : "");
        return;
    }
    take_mtp(r, w);
    w->mtp_state = BW_MTP_COMPLETE;
}

/* Of the tensors that are there, those that cannot be used: packed, misshapen or of a strange type. */
static int count_unusable_mtp(const resolver *r, const bw_weights *w)
{
    const bw_mtp_weights *m = &w->mtp;
    const bw_layer_weights *l = &m->layer;
    const void *const used[] = { m->fc.data, m->norm_embedding, m->norm_hidden, m->norm, l->input_norm, l->post_norm,
                                 l->attention.q.data, l->attention.k.data, l->attention.v.data, l->attention.o.data,
                                 l->attention.q_norm, l->attention.k_norm };
    const void *const dense[] = { l->ffn.gate.data, l->ffn.up.data, l->ffn.down.data };
    const void *const moe[] = { l->moe.router.data, l->moe.shared_gate, l->moe.shared.gate.data, l->moe.shared.up.data,
                                l->moe.shared.down.data };
    int usable = r->mtp_experts_taken;
    for (size_t i = 0; i < BW_COUNT(used); i++)
        usable += used[i] != NULL;
    for (size_t i = 0; !r->config->moe && i < BW_COUNT(dense); i++)
        usable += dense[i] != NULL;
    for (size_t i = 0; r->config->moe && i < BW_COUNT(moe); i++)
        usable += moe[i] != NULL;
    return w->mtp_found > usable ? w->mtp_found - usable : 0;
}

static bw_status finish_mtp(resolver *r, bw_weights *w, bool ignore, bw_error *err)
{
    char text[900];
    if (!r->mtp.n) {
        w->matrix_bytes = r->matrix_bytes;
        w->vector_bytes = r->vector_bytes;
        return BW_OK;
    }
    write_problems(&r->mtp, text, sizeof text);
    w->mtp_found -= count_unusable_mtp(r, w);
    memset(&w->mtp, 0, sizeof w->mtp);
    w->mtp_state = BW_MTP_BROKEN;
    snprintf(w->mtp_problem, sizeof w->mtp_problem, "%d of %d MTP tensors can be used: %s", w->mtp_found, w->mtp_expected, text);
    if (ignore)
        return BW_OK;
    return bw_fail(err, r->mtp.st, "%.100s: the MTP head cannot be used, %s. Get a whole checkpoint, or run without drafts (--draft off)",
                   bw_checkpoint_path(r->checkpoint), w->mtp_problem);
}

/* ", quantised by NAME" if the configuration names what quantised the checkpoint, else "". */
static void name_quantiser(const resolver *r, char *text, size_t size)
{
    json_object *top = NULL, *inner = NULL, *about = NULL, *name = NULL;
    text[0] = '\0';
    if (bw_checkpoint_json(r->checkpoint, "config.json", &top, NULL) || !top)
        return;
    if (!json_object_object_get_ex(top, "quantization_config", &about) && json_object_object_get_ex(top, "text_config", &inner))
        json_object_object_get_ex(inner, "quantization_config", &about);
    if (json_object_is_type(about, json_type_object) && json_object_object_get_ex(about, "quant_method", &name) &&
        json_object_is_type(name, json_type_string))
        snprintf(text, size, ", quantised by %.40s", json_object_get_string(name));
    else if (json_object_object_get_ex(top, "quantization", NULL))
        snprintf(text, size, ", quantised by MLX");
    json_object_put(top);
}

/* Files that hold the MTP head alone belong beside a model's own. */
static bool has_layers(const resolver *r)
{
    for (int row = 0; row < r->config->n_layers; row++) {
        if (r->layers[row].experts)
            return true;
        for (int k = 0; k < LAYER_ROLES; k++)
            if (present(&r->layers[row].of[k]))
                return true;
    }
    return false;
}

static bw_status finish_main(const resolver *r, bw_error *err)
{
    char text[900], quantiser[64];
    if (!r->main.n)
        return BW_OK;
    if (!has_layers(r))
        return bw_fail(err, BW_E_FORMAT, "%.300s: holds none of the model's %d layers%s: give the file or folder of the whole model",
                       bw_checkpoint_path(r->checkpoint), r->config->n_layers, r->model[BW_ROLE_MTP_FC].plain ? ", only its MTP head" : "");
    write_problems(&r->main, text, sizeof text);
    name_quantiser(r, quantiser, sizeof quantiser);
    const char *advice = r->main.st != BW_E_UNSUPPORTED             ? ""
                         : r->container == BW_CONTAINER_HF ? ". Use a BF16, F16 or F32 checkpoint, or a GGUF file"
                                                           : ". Use a file of the usual types: Q8_0, Q4_K, ...";
    return bw_fail(err, r->main.st, "%.100s%s: %d tensor%s cannot be used: %s%s", bw_checkpoint_path(r->checkpoint), quantiser, r->main.n,
                   r->main.n == 1 ? "" : "s", text, advice);
}

static void release_slots(resolver *r)
{
    for (int i = 0; r->layers && i <= r->config->n_layers; i++)
        bw_mem_free(r->layers[i].experts);
    bw_mem_free(r->layers);
}

bw_status bw_weights_resolve(bw_weights *out, const bw_config *config, const bw_checkpoint *checkpoint, bool ignore_mtp, bw_error *err)
{
    const size_t n = (size_t)config->n_layers;
    bw_weights w = { 0 };
    bw_status st = BW_OK;
    resolver *r = bw_mem_zalloc(1, sizeof *r, BW_MEM_MISC);
    *out = w;
    if (!r)
        return bw_fail_memory(err, "weights", sizeof *r);
    r->config = config;
    r->checkpoint = checkpoint;
    r->container = bw_checkpoint_container(checkpoint);
    r->layers = bw_mem_zalloc(n + 1, sizeof *r->layers, BW_MEM_MISC);
    r->own = w.owned = bw_mem_zalloc(1, sizeof *r->own, BW_MEM_WEIGHTS);
    if (r->own)
        w.layers = r->own->layers = bw_mem_zalloc(n, sizeof *w.layers, BW_MEM_WEIGHTS);
    r->no_memory = !r->layers || !w.layers;
    for (int i = 0; i < bw_checkpoint_n_tensors(checkpoint) && !r->no_memory; i++)
        place_tensor(r, bw_checkpoint_tensor_at(checkpoint, i));
    if (!r->no_memory) {
        r->plus_one = norms_are_offsets(r);
        resolve_main(r, &w);
        w.matrix_bytes = r->matrix_bytes;
        w.vector_bytes = r->vector_bytes;
        resolve_mtp(r, &w);
        report_all_unused(r);
    }
    if (r->no_memory)
        st = bw_fail_memory(err, "weights", n * sizeof *w.layers);
    else if (!(st = finish_main(r, err)))
        st = finish_mtp(r, &w, ignore_mtp, err);
    if (!st && r->n_vision)
        bw_log(BW_LOG_INFO, "vision tensors: %d, left for later", r->n_vision);
    release_slots(r);
    bw_mem_free(r);
    if (st)
        bw_weights_release(&w);
    *out = w;
    return st;
}

void bw_weights_release(bw_weights *weights)
{
    owned *own = weights->owned;
    if (own) {
        for (block *b = own->blocks, *next; b; b = next) {
            next = b->next;
            bw_mem_free(b->floats);
            bw_mem_free(b);
        }
        bw_mem_free(own->layers);
        bw_mem_free(own);
    }
    *weights = (bw_weights){ 0 };
}

/* ---- what a step reads ----------------------------------------------------------------------- */

static uint64_t ffn_bytes(const bw_ffn_weights *w)
{
    return bw_matrix_bytes(&w->gate) + bw_matrix_bytes(&w->up) + bw_matrix_bytes(&w->down);
}

uint64_t bw_weights_step_bytes(const bw_weights *weights, const bw_config *config)
{
    uint64_t bytes = bw_matrix_bytes(&weights->head);
    for (int i = 0; i < config->n_layers; i++) {
        const bw_layer_weights *l = &weights->layers[i];
        const bw_attention_weights *a = &l->attention;
        const bw_gdn_weights *g = &l->gdn;
        if (config->attention[i])
            bytes += bw_matrix_bytes(&a->q) + bw_matrix_bytes(&a->k) + bw_matrix_bytes(&a->v) + bw_matrix_bytes(&a->o);
        else
            bytes += bw_matrix_bytes(&g->qkv) + bw_matrix_bytes(&g->z) + bw_matrix_bytes(&g->a) +
                     bw_matrix_bytes(&g->b) + bw_matrix_bytes(&g->out);
        if (config->moe)
            bytes += bw_matrix_bytes(&l->moe.router) + ffn_bytes(&l->moe.shared) +
                     (uint64_t)config->n_experts_used * ffn_bytes(&l->moe.experts[0]);
        else
            bytes += ffn_bytes(&l->ffn);
    }
    return bytes;
}
