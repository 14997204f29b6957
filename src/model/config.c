/* config.c - reads the sizes of a model from config.json or from GGUF metadata, then checks and
 * completes them in one place. See config.h. */
#include "model/config.h"

#include <inttypes.h>
#include <json.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "format/checkpoint.h"
#include "format/roles.h"

enum { REQUIRED = INT_MIN };

/* What rope fields say, before they become a table. */
typedef struct rope_facts {
    char type[32];
    int dims; /* how many of a head's dims turn */
    double theta, factor, original, beta_fast, beta_slow, magnitude; /* magnitude NAN: from the factor */
    bool truncate;
    int section[3];
} rope_facts;

/* The first failure stays; later reads give their default. So a reader reads straight down. */
typedef struct reader {
    const bw_checkpoint *checkpoint;
    char where[300];                 /* file, for messages */
    json_object *top, *text, *rope;  /* HF; rope may be NULL */
    char prefix[32];                 /* GGUF: "qwen35" */
    bw_status st;
    bw_error *err;
} reader;

static bool failed(reader *r)
{
    return r->st != BW_OK;
}

__attribute__((format(printf, 3, 4))) static void refuse(reader *r, bw_status st, const char *format, ...)
{
    if (failed(r))
        return;
    char text[600];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r->st = bw_fail(r->err, st, "%s: %s", r->where, text);
}

/* ---- JSON fields --------------------------------------------------------------------------------- */

/* NULL: absent or null. */
static json_object *field(json_object *object, const char *key)
{
    json_object *value = NULL;
    return object && json_object_object_get_ex(object, key, &value) ? value : NULL;
}

static bool json_number(json_object *value, double *number)
{
    if (!json_object_is_type(value, json_type_int) && !json_object_is_type(value, json_type_double))
        return false;
    *number = json_object_get_double(value);
    return isfinite(*number);
}

static int int_of(reader *r, json_object *value, const char *key, int low, int high, int otherwise)
{
    double number;
    if (failed(r))
        return otherwise == REQUIRED ? low : otherwise;
    if (!value) {
        if (otherwise == REQUIRED)
            refuse(r, BW_E_FORMAT, "the field %s is missing", key);
        return otherwise == REQUIRED ? low : otherwise;
    }
    if (json_number(value, &number) && number == floor(number) && number >= low && number <= high)
        return (int)number;
    refuse(r, BW_E_FORMAT, "%s is %.60s; an integer from %d to %d is expected", key, json_object_to_json_string(value), low, high);
    return low;
}

static int text_int(reader *r, const char *key, int low, int high, int otherwise)
{
    return int_of(r, field(r->text, key), key, low, high, otherwise);
}

static double number_of(reader *r, json_object *value, const char *key, double low, double high, double otherwise)
{
    double number;
    if (failed(r) || !value)
        return otherwise;
    if (json_number(value, &number) && number >= low && number <= high)
        return number;
    if (isinf(low))
        refuse(r, BW_E_FORMAT, "%s is %.60s; a number is expected", key, json_object_to_json_string(value));
    else
        refuse(r, BW_E_FORMAT, "%s is %.60s; a number from %g to %g is expected", key, json_object_to_json_string(value), low, high);
    return otherwise;
}

static bool bool_of(reader *r, json_object *value, const char *key, bool otherwise)
{
    if (failed(r) || !value)
        return otherwise;
    if (json_object_is_type(value, json_type_boolean))
        return json_object_get_boolean(value);
    refuse(r, BW_E_FORMAT, "%s is %.60s; true or false is expected", key, json_object_to_json_string(value));
    return otherwise;
}

/* "" when absent. */
static const char *string_of(reader *r, json_object *value, const char *key)
{
    if (failed(r) || !value)
        return "";
    if (json_object_is_type(value, json_type_string))
        return json_object_get_string(value);
    refuse(r, BW_E_FORMAT, "%s is %.60s; a string is expected", key, json_object_to_json_string(value));
    return "";
}

/* ---- config.json --------------------------------------------------------------------------------- */

static void hf_architecture(reader *r, bw_config *c)
{
    static const struct known {
        const char *name;
        bool moe;
    } known[] = {
        { "qwen3_5", false },
        { "qwen3_5_text", false },
        { "qwen3_5_moe", true },
        { "qwen3_5_moe_text", true },
        { "Qwen3_5ForConditionalGeneration", false },
        { "Qwen3_5ForCausalLM", false },
        { "Qwen3_5MoeForConditionalGeneration", true },
        { "Qwen3_5MoeForCausalLM", true },
    };
    const char *type = string_of(r, field(r->text, "model_type"), "model_type");
    if (!*type)
        type = string_of(r, field(r->top, "model_type"), "model_type");
    json_object *list = field(r->top, "architectures");
    if (!*type && json_object_is_type(list, json_type_array) && json_object_array_length(list))
        type = string_of(r, json_object_array_get_idx(list, 0), "architectures");
    for (size_t i = 0; i < BW_COUNT(known); i++)
        if (strcmp(known[i].name, type) == 0) {
            c->moe = known[i].moe;
            snprintf(c->architecture, sizeof c->architecture, "%s", c->moe ? "qwen3_5_moe" : "qwen3_5");
            return;
        }
    refuse(r, BW_E_UNSUPPORTED, "model_type is \"%.60s\"; qwen3_5 and qwen3_5_moe (Qwen3.5, 3.6, 3.8) are understood", type);
}

/* Fields that would change the mathematics. */
static void hf_refusals(reader *r)
{
    if (bool_of(r, field(r->text, "attention_bias"), "attention_bias", false))
        refuse(r, BW_E_UNSUPPORTED, "attention_bias is true; this family has no biases");
    if (!bool_of(r, field(r->text, "attn_output_gate"), "attn_output_gate", true))
        refuse(r, BW_E_UNSUPPORTED, "attn_output_gate is false; only gated attention is understood");
    const char *gate = string_of(r, field(r->text, "output_gate_type"), "output_gate_type");
    if (*gate && strcmp(gate, "swish") != 0 && strcmp(gate, "silu") != 0)
        refuse(r, BW_E_UNSUPPORTED, "output_gate_type is \"%.60s\"; swish (silu) is understood", gate);
    const char *act = string_of(r, field(r->text, "hidden_act"), "hidden_act");
    if (*act && strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        refuse(r, BW_E_UNSUPPORTED, "hidden_act is \"%.60s\"; silu is understood", act);
}

static void hf_layers(reader *r, bw_config *c)
{
    json_object *types = field(r->text, "layer_types");
    const int interval = text_int(r, "full_attention_interval", 1, BW_MAX_LAYERS, 4);
    if (failed(r))
        return;
    if (!types) {
        for (int i = 0; i < c->n_layers; i++)
            c->attention[i] = (i + 1) % interval == 0;
        return;
    }
    if (!json_object_is_type(types, json_type_array) || json_object_array_length(types) != (size_t)c->n_layers) {
        refuse(r, BW_E_FORMAT, "layer_types must be a list of %d entries, one a layer", c->n_layers);
        return;
    }
    for (int i = 0; i < c->n_layers; i++) {
        const char *type = string_of(r, json_object_array_get_idx(types, (size_t)i), "layer_types");
        c->attention[i] = strcmp(type, "full_attention") == 0;
        if (!c->attention[i] && strcmp(type, "linear_attention") != 0)
            refuse(r, BW_E_UNSUPPORTED, "layer_types[%d] is \"%.60s\"; linear_attention and full_attention are understood", i, type);
    }
}

/* A rope field may stand in rope_parameters, in rope_scaling, or flat beside the others. */
static json_object *rope_field(reader *r, const char *key)
{
    json_object *value = field(r->rope, key);
    if (!value)
        value = field(field(r->text, "rope_scaling"), key);
    return value ? value : field(r->text, key);
}

static void hf_rope(reader *r, const bw_config *c, rope_facts *f)
{
    r->rope = field(r->text, "rope_parameters");
    if ((r->rope && !json_object_is_type(r->rope, json_type_object)) ||
        (field(r->text, "rope_scaling") && !json_object_is_type(field(r->text, "rope_scaling"), json_type_object))) {
        refuse(r, BW_E_FORMAT, "rope_parameters and rope_scaling must be objects");
        return;
    }
    const char *type = string_of(r, rope_field(r, "rope_type"), "rope_type");
    if (!*type)
        type = string_of(r, field(r->rope, "type") ? field(r->rope, "type") : field(field(r->text, "rope_scaling"), "type"), "rope type");
    snprintf(f->type, sizeof f->type, "%s", *type ? type : "default");
    const double part = number_of(r, rope_field(r, "partial_rotary_factor"), "partial_rotary_factor", 0, 1, 0.25);
    f->dims = (int)(c->head_dim * part);
    f->theta = number_of(r, rope_field(r, "rope_theta"), "rope_theta", 1.0001, 1e18, 0);
    if (f->theta == 0)
        refuse(r, BW_E_FORMAT, "rope_theta is missing (in rope_parameters, rope_scaling or beside the other fields)");
    if (!bool_of(r, rope_field(r, "mrope_interleaved"), "mrope_interleaved", true))
        refuse(r, BW_E_UNSUPPORTED, "mrope_interleaved is false; only the interleaved layout is understood");
    json_object *section = rope_field(r, "mrope_section");
    if (section && (!json_object_is_type(section, json_type_array) || json_object_array_length(section) != 3))
        refuse(r, BW_E_FORMAT, "mrope_section must be a list of three integers");
    for (int i = 0; i < 3 && section && !failed(r); i++)
        f->section[i] = int_of(r, json_object_array_get_idx(section, (size_t)i), "mrope_section", 0, BW_MAX_ROTARY_PAIRS, REQUIRED);
    f->factor = number_of(r, rope_field(r, "factor"), "factor", 1, 1e6, 0);
    f->original = number_of(r, rope_field(r, "original_max_position_embeddings"), "original_max_position_embeddings", 1, 1e9, 0);
    f->beta_fast = number_of(r, rope_field(r, "beta_fast"), "beta_fast", 1e-3, 1e6, 32);
    f->beta_slow = number_of(r, rope_field(r, "beta_slow"), "beta_slow", 1e-3, 1e6, 1);
    f->magnitude = number_of(r, rope_field(r, "attention_factor"), "attention_factor", 1e-3, 1e3, NAN);
    f->truncate = bool_of(r, rope_field(r, "truncate"), "truncate", true);
    const double mscale = number_of(r, rope_field(r, "mscale"), "mscale", 0, 1e3, 0);
    const double mscale_all = number_of(r, rope_field(r, "mscale_all_dim"), "mscale_all_dim", 0, 1e3, 0);
    if (isnan(f->magnitude) && mscale > 0 && mscale_all > 0 && f->factor > 1)
        f->magnitude = (0.1 * mscale * log(f->factor) + 1) / (0.1 * mscale_all * log(f->factor) + 1);
}

static void hf_sizes(reader *r, bw_config *c)
{
    c->hidden = text_int(r, "hidden_size", 1, 1 << 20, REQUIRED);
    c->n_layers = text_int(r, "num_hidden_layers", 1, BW_MAX_LAYERS, REQUIRED);
    c->vocab = text_int(r, "vocab_size", 1, 1 << 24, REQUIRED);
    c->max_position = text_int(r, "max_position_embeddings", 1, INT_MAX, 32768);
    c->norm_eps = (float)number_of(r, field(r->text, "rms_norm_eps"), "rms_norm_eps", 0, 1, 1e-6);
    c->n_heads = text_int(r, "num_attention_heads", 1, 4096, REQUIRED);
    c->n_kv_heads = text_int(r, "num_key_value_heads", 1, 4096, REQUIRED);
    c->head_dim = text_int(r, "head_dim", 1, 1024, 256);
    c->n_k_heads = text_int(r, "linear_num_key_heads", 1, 4096, 16);
    c->n_v_heads = text_int(r, "linear_num_value_heads", 1, 4096, 32);
    c->d_k = text_int(r, "linear_key_head_dim", 1, 1024, 128);
    c->d_v = text_int(r, "linear_value_head_dim", 1, 1024, 128);
    c->conv_width = text_int(r, "linear_conv_kernel_dim", 1, 64, 4);
    c->mtp_layers = text_int(r, "mtp_num_hidden_layers", 0, 64, 0);
    if (c->moe) {
        c->n_experts = text_int(r, "num_experts", 1, 65536, 256);
        c->n_experts_used = text_int(r, "num_experts_per_tok", 1, 65536, 8);
        c->expert_ffn = text_int(r, "moe_intermediate_size", 1, 1 << 20, 512);
        c->shared_ffn = text_int(r, "shared_expert_intermediate_size", 1, 1 << 20, 512);
    } else {
        c->ffn = text_int(r, "intermediate_size", 1, 1 << 22, REQUIRED);
    }
    c->tied = bool_of(r, field(r->text, "tie_word_embeddings"), "tie_word_embeddings", false);
    c->tied |= bool_of(r, field(r->top, "tie_word_embeddings"), "tie_word_embeddings", false);
    c->has_vision = json_object_is_type(field(r->top, "vision_config"), json_type_object);
}

/* ---- sampling defaults --------------------------------------------------------------------------- */

static const bw_sampling_defaults nothing_said = { NAN, NAN, NAN, NAN, NAN, NAN, -1, { 0 }, 0 };

/* The ranges the engine takes from a request: a default outside would make every request fail. */
static const struct sampling_field {
    const char *hf, *gguf; /* gguf NULL: there is no such key */
    size_t at;
    float low, high;
    bool low_open;
} sampling_fields[] = {
    { "temperature", "general.sampling.temp", offsetof(bw_sampling_defaults, temperature), 0, 100, false },
    { "top_p", "general.sampling.top_p", offsetof(bw_sampling_defaults, top_p), 0, 1, true },
    { "min_p", "general.sampling.min_p", offsetof(bw_sampling_defaults, min_p), 0, 1, false },
    { "presence_penalty", NULL, offsetof(bw_sampling_defaults, presence_penalty), -2, 2, false },
    { "frequency_penalty", NULL, offsetof(bw_sampling_defaults, frequency_penalty), -2, 2, false },
    { "repetition_penalty", "general.sampling.penalty_repeat", offsetof(bw_sampling_defaults, repetition_penalty), 0, 100, true },
};

static void set_sampling(const reader *r, bw_config *c, const struct sampling_field *f, const char *key, double number)
{
    const float value = (float)number;
    if (value <= f->high && (f->low_open ? value > f->low : value >= f->low))
        memcpy((char *)&c->sampling + f->at, &value, sizeof value);
    else
        bw_log(BW_LOG_WARNING, "%s: %s is %g; %s %g and at most %g is expected: this default is not used", r->where, key, number,
               f->low_open ? "more than" : "at least", f->low, f->high);
}

static void set_top_k(const reader *r, bw_config *c, const char *key, double number)
{
    if (number >= 0 && number <= INT_MAX)
        c->sampling.top_k = (int)number;
    else
        bw_log(BW_LOG_WARNING, "%s: %s is %.17g; 0 to %d is expected: this default is not used", r->where, key, number, INT_MAX);
}

static void add_eos(const reader *r, bw_config *c, int64_t id)
{
    for (int i = 0; i < c->sampling.n_eos; i++)
        if (c->sampling.eos[i] == id)
            return;
    if (id < 0 || id >= c->vocab || c->sampling.n_eos == BW_MAX_EOS)
        bw_log(BW_LOG_WARNING, "%s: end token %" PRId64 " is left out: %s", r->where, id,
               c->sampling.n_eos == BW_MAX_EOS ? "there are too many" : "it is outside the vocabulary");
    else
        c->sampling.eos[c->sampling.n_eos++] = (int)id;
}

/* A number or a list of numbers. */
static void hf_eos(reader *r, bw_config *c, json_object *value)
{
    const bool list = json_object_is_type(value, json_type_array);
    const size_t n = !value ? 0 : list ? json_object_array_length(value) : 1;
    for (size_t i = 0; i < n && !failed(r); i++) {
        int id = int_of(r, list ? json_object_array_get_idx(value, i) : value, "eos_token_id", -1, INT_MAX, -1);
        if (!failed(r))
            add_eos(r, c, id);
    }
}

static void hf_top_k(reader *r, bw_config *c, json_object *value)
{
    double number;
    if (value && json_number(value, &number) && number == floor(number))
        set_top_k(r, c, "top_k", number);
    else
        int_of(r, value, "top_k", 0, INT_MAX, -1); /* refuses what is no integer */
}

static void hf_sampling(reader *r, bw_config *c)
{
    static const char file[] = "generation_config.json";
    json_object *g = NULL;
    if (failed(r))
        return;
    c->sampling = nothing_said;
    if ((r->st = bw_checkpoint_json(r->checkpoint, file, &g, r->err)))
        return;
    if (g) {
        char where[sizeof r->where];
        memcpy(where, r->where, sizeof where);
        snprintf(r->where, sizeof r->where, "%.250s/%s", bw_checkpoint_path(r->checkpoint), file);
        for (size_t i = 0; i < BW_COUNT(sampling_fields); i++) {
            const struct sampling_field *f = &sampling_fields[i];
            double number = number_of(r, field(g, f->hf), f->hf, -HUGE_VAL, HUGE_VAL, NAN);
            if (!isnan(number))
                set_sampling(r, c, f, f->hf, number);
        }
        hf_top_k(r, c, field(g, "top_k"));
        if (!bool_of(r, field(g, "do_sample"), "do_sample", true))
            c->sampling.temperature = 0;
        hf_eos(r, c, field(g, "eos_token_id"));
        json_object_put(g);
        memcpy(r->where, where, sizeof where);
    }
    if (!c->sampling.n_eos)
        hf_eos(r, c, field(r->text, "eos_token_id") ? field(r->text, "eos_token_id") : field(r->top, "eos_token_id"));
}

/* ---- GGUF metadata ------------------------------------------------------------------------------- */

static const bw_gguf_value *gguf_value(const reader *r, const char *key)
{
    char full[128];
    snprintf(full, sizeof full, "%s.%s", r->prefix, key);
    return bw_checkpoint_value(r->checkpoint, full);
}

static int gguf_int(reader *r, const char *key, int low, int high, int otherwise)
{
    const bw_gguf_value *value = gguf_value(r, key);
    int64_t number;
    if (failed(r) || (!value && otherwise != REQUIRED))
        return otherwise == REQUIRED ? low : otherwise;
    if (!value)
        refuse(r, BW_E_FORMAT, "the metadata key %s.%s is missing", r->prefix, key);
    else if (value->array || !bw_gguf_int(value, 0, &number))
        refuse(r, BW_E_FORMAT, "%s.%s is of type %s; an integer is expected", r->prefix, key, value->array ? "array" : bw_gguf_type_name(value->type));
    else if (number < low || number > high)
        refuse(r, BW_E_FORMAT, "%s.%s is %" PRId64 "; %d to %d is expected", r->prefix, key, number, low, high);
    else
        return (int)number;
    return low;
}

static double gguf_number(reader *r, const char *key, double low, double high, double otherwise)
{
    const bw_gguf_value *value = gguf_value(r, key);
    double number;
    if (failed(r) || !value)
        return otherwise;
    if (!value->array && bw_gguf_float(value, 0, &number) && number >= low && number <= high)
        return number;
    refuse(r, BW_E_FORMAT, "%s.%s: a number from %g to %g is expected", r->prefix, key, low, high);
    return otherwise;
}

/* A head count: one number, or one for each block with 0 where a block has no attention. */
static int gguf_heads(reader *r, const char *key)
{
    const bw_gguf_value *value = gguf_value(r, key);
    if (!value || !value->array)
        return gguf_int(r, key, 1, 4096, REQUIRED);
    int64_t heads = 0, one;
    for (uint64_t i = 0; i < value->count && !failed(r); i++) {
        if (!bw_gguf_int(value, i, &one) || one < 0 || one > 4096 || (one && heads && one != heads))
            refuse(r, BW_E_FORMAT, "%s.%s[%" PRIu64 "]: the same number from 1 to 4096 is expected wherever a block has attention", r->prefix, key, i);
        else if (one)
            heads = one;
    }
    if (!heads)
        refuse(r, BW_E_FORMAT, "%s.%s holds no head count", r->prefix, key);
    return heads ? (int)heads : 1;
}

static bool has_tensor(const reader *r, int block, const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "blk.%d.%s", block, name);
    return bw_checkpoint_tensor(r->checkpoint, full) != NULL;
}

static bool block_is_linear(const reader *r, int block)
{
    return has_tensor(r, block, "ssm_a") || has_tensor(r, block, "ssm_out.weight") || has_tensor(r, block, "ssm_conv1d.weight");
}

/* How many blocks are layers of the model. Tensors decide where the MTP block begins; the key
 * nextn_predict_layers is believed only where they leave it open. */
static int gguf_layer_count(reader *r, int blocks, int interval)
{
    for (int i = 0; i < blocks; i++)
        if (has_tensor(r, i, "nextn.eh_proj.weight") || has_tensor(r, i, "nextn.enorm.weight") ||
            has_tensor(r, i, "nextn.hnorm.weight") || has_tensor(r, i, "nextn.shared_head_norm.weight"))
            return i;
    const int claimed = gguf_int(r, "nextn_predict_layers", 0, BW_MAX_LAYERS, 0), last = blocks - 1;
    if (!claimed || claimed >= blocks)
        return blocks;
    /* An MTP block is full attention and comes where the interval would put a linear layer; a key
     * left over from a file that had one must not cost us a layer. */
    const bool ordinary = has_tensor(r, last, "attn_norm.weight") && (block_is_linear(r, last) || blocks % interval == 0);
    return ordinary ? blocks : blocks - claimed;
}

/* Tensors decide a layer's kind, and what the metadata says only where they are missing. */
static void gguf_layers(reader *r, bw_config *c, int interval)
{
    const bw_gguf_value *recurrent = gguf_value(r, "attention.recurrent_layers");
    int doubtful = 0;
    for (int i = 0; i < c->n_layers; i++) {
        bool linear = (i + 1) % interval != 0;
        if (recurrent && recurrent->array && (uint64_t)i < recurrent->count && !bw_gguf_bool(recurrent, (uint64_t)i, &linear))
            refuse(r, BW_E_FORMAT, "%s.attention.recurrent_layers must hold truth values", r->prefix);
        const bool attention_here = has_tensor(r, i, "attn_q.weight") || has_tensor(r, i, "attn_output.weight");
        const bool linear_here = block_is_linear(r, i);
        c->attention[i] = attention_here != linear_here ? attention_here : !linear;
        doubtful += c->attention[i] == linear;
    }
    if (doubtful)
        bw_log(BW_LOG_WARNING, "%s: in %d layers the tensors are of another kind than the metadata says; the tensors count", r->where, doubtful);
}

static void gguf_architecture(reader *r, bw_config *c)
{
    bw_slice name;
    if (!bw_gguf_string(bw_checkpoint_value(r->checkpoint, "general.architecture"), &name)) {
        refuse(r, BW_E_FORMAT, "the metadata key general.architecture is missing or no string");
        return;
    }
    if (name.n == 4 && memcmp(name.text, "clip", 4) == 0)
        refuse(r, BW_E_UNSUPPORTED, "this is a vision tower (mmproj), not a language model: give the text model's file");
    else if ((name.n != 6 || memcmp(name.text, "qwen35", 6) != 0) && (name.n != 9 || memcmp(name.text, "qwen35moe", 9) != 0))
        refuse(r, BW_E_UNSUPPORTED, "general.architecture is \"%.*s\"; qwen35 and qwen35moe (Qwen3.5, 3.6, 3.8) are understood",
               name.n < 60 ? (int)name.n : 60, name.text);
    else
        snprintf(c->architecture, sizeof c->architecture, "%.*s", (int)name.n, name.text);
    memcpy(r->prefix, c->architecture, sizeof r->prefix);
    c->moe = strcmp(c->architecture, "qwen35moe") == 0;
}

static void gguf_rope(reader *r, rope_facts *f)
{
    bw_slice type = { "default", 7 };
    bw_gguf_string(gguf_value(r, "rope.scaling.type"), &type);
    if (type.n == 4 && memcmp(type.text, "none", 4) == 0)
        type = (bw_slice){ "default", 7 };
    snprintf(f->type, sizeof f->type, "%.*s", type.n < sizeof f->type ? (int)type.n : (int)sizeof f->type - 1, type.text);
    f->dims = gguf_int(r, "rope.dimension_count", 2, 2 * BW_MAX_ROTARY_PAIRS, REQUIRED);
    f->theta = gguf_number(r, "rope.freq_base", 1.0001, 1e18, 0);
    if (f->theta == 0)
        refuse(r, BW_E_FORMAT, "the metadata key %s.rope.freq_base is missing", r->prefix);
    const bw_gguf_value *sections = gguf_value(r, "rope.dimension_sections");
    for (int i = 0; i < 3 && sections; i++) {
        int64_t n;
        if (!sections->array || sections->count < 3 || !bw_gguf_int(sections, (uint64_t)i, &n) || n < 0 || n > BW_MAX_ROTARY_PAIRS) {
            refuse(r, BW_E_FORMAT, "%s.rope.dimension_sections must be a list of three or four integers", r->prefix);
            break;
        }
        f->section[i] = (int)n;
    }
    f->factor = gguf_number(r, "rope.scaling.factor", 1, 1e6, 0);
    f->original = gguf_number(r, "rope.scaling.original_context_length", 1, 1e9, 0);
    f->beta_fast = gguf_number(r, "rope.scaling.yarn_beta_fast", 1e-3, 1e6, 32);
    f->beta_slow = gguf_number(r, "rope.scaling.yarn_beta_slow", 1e-3, 1e6, 1);
    f->magnitude = NAN;
    f->truncate = true;
    const double extra = gguf_number(r, "rope.scaling.attn_factor", 1e-3, 1e3, gguf_number(r, "rope.scaling.yarn_attn_factor", 1e-3, 1e3, 1));
    if (extra != 1 && f->factor > 1)
        f->magnitude = extra * (0.1 * log(f->factor) + 1);
}

/* Rows of the embedding: the vocabulary is what the model has rows for, whatever the tokenizer says. */
static int gguf_vocab(reader *r)
{
    const bw_tensor *embed = bw_checkpoint_tensor(r->checkpoint, "token_embd.weight");
    if (!embed || embed->n_dims != 2 || embed->shape[0] < 1 || embed->shape[0] > 1 << 24) {
        refuse(r, BW_E_FORMAT, "tensor token_embd.weight, which tells the size of the vocabulary, is %s", embed ? "misshapen" : "missing");
        return 1;
    }
    return (int)embed->shape[0];
}

static void gguf_sizes(reader *r, bw_config *c)
{
    const int interval = gguf_int(r, "full_attention_interval", 1, BW_MAX_LAYERS, 4);
    const int blocks = gguf_int(r, "block_count", 1, BW_MAX_LAYERS, REQUIRED);
    c->hidden = gguf_int(r, "embedding_length", 1, 1 << 20, REQUIRED);
    c->max_position = gguf_int(r, "context_length", 1, INT_MAX, REQUIRED);
    c->norm_eps = (float)gguf_number(r, "attention.layer_norm_rms_epsilon", 0, 1, 1e-6);
    c->n_heads = gguf_heads(r, "attention.head_count");
    c->n_kv_heads = gguf_heads(r, "attention.head_count_kv");
    c->head_dim = gguf_int(r, "attention.key_length", 1, 1024, REQUIRED);
    if (gguf_int(r, "attention.value_length", 1, 1024, c->head_dim) != c->head_dim)
        refuse(r, BW_E_UNSUPPORTED, "%s.attention.key_length and value_length differ", r->prefix);
    c->conv_width = gguf_int(r, "ssm.conv_kernel", 1, 64, REQUIRED);
    c->d_k = gguf_int(r, "ssm.state_size", 1, 1024, REQUIRED);
    c->n_k_heads = gguf_int(r, "ssm.group_count", 1, 4096, REQUIRED);
    c->n_v_heads = gguf_int(r, "ssm.time_step_rank", 1, 4096, REQUIRED);
    const int inner = gguf_int(r, "ssm.inner_size", 1, 1 << 22, REQUIRED);
    if (inner % c->n_v_heads || inner / c->n_v_heads > 1024)
        refuse(r, BW_E_FORMAT, "%s.ssm.inner_size %d is no multiple of the %d value heads (time_step_rank)", r->prefix, inner, c->n_v_heads);
    c->d_v = inner / c->n_v_heads;
    if (c->moe) {
        c->n_experts = gguf_int(r, "expert_count", 1, 65536, REQUIRED);
        c->n_experts_used = gguf_int(r, "expert_used_count", 1, 65536, REQUIRED);
        c->expert_ffn = gguf_int(r, "expert_feed_forward_length", 1, 1 << 20, REQUIRED);
        c->shared_ffn = gguf_int(r, "expert_shared_feed_forward_length", 1, 1 << 20, REQUIRED);
    } else {
        c->ffn = gguf_int(r, "feed_forward_length", 1, 1 << 22, REQUIRED);
    }
    c->vocab = gguf_vocab(r);
    if (failed(r))
        return;
    c->n_layers = gguf_layer_count(r, blocks, interval);
    c->mtp_layers = gguf_int(r, "nextn_predict_layers", 0, BW_MAX_LAYERS, blocks > c->n_layers);
    if (c->n_layers < 1)
        refuse(r, BW_E_FORMAT, "the file holds only the MTP head, no layer of the model: give the file of the model");
    gguf_layers(r, c, interval);
    c->v_heads_tiled = true;
    c->tied = true; /* a missing output.weight means just that */
}

/* NULL: absent, or of another type, which is told. */
static const bw_gguf_value *gguf_default(const reader *r, const char *key, bool integer)
{
    const bw_gguf_value *value = bw_checkpoint_value(r->checkpoint, key);
    int64_t whole;
    double number;
    if (!value || (!value->array && (integer ? bw_gguf_int(value, 0, &whole) : bw_gguf_float(value, 0, &number))))
        return value;
    bw_log(BW_LOG_WARNING, "%s: %s is of type %s; %s is expected: this default is not used", r->where, key,
           value->array ? "array" : bw_gguf_type_name(value->type), integer ? "an integer" : "a finite number");
    return NULL;
}

static void gguf_sampling(reader *r, bw_config *c)
{
    static const char top_k[] = "general.sampling.top_k";
    double number;
    int64_t id;
    c->sampling = nothing_said;
    for (size_t i = 0; i < BW_COUNT(sampling_fields); i++) {
        const struct sampling_field *f = &sampling_fields[i];
        if (f->gguf && bw_gguf_float(gguf_default(r, f->gguf, false), 0, &number))
            set_sampling(r, c, f, f->gguf, number);
    }
    if (bw_gguf_int(gguf_default(r, top_k, true), 0, &id))
        set_top_k(r, c, top_k, (double)id);
    if (bw_gguf_int(bw_checkpoint_value(r->checkpoint, "tokenizer.ggml.eos_token_id"), 0, &id))
        add_eos(r, c, id);
    /* The chat's end of turn is the key above; the end of a plain text is this token. */
    static const char end_of_text[] = "<|endoftext|>";
    int64_t found = bw_gguf_find_string(bw_checkpoint_value(r->checkpoint, "tokenizer.ggml.tokens"), end_of_text);
    if (found >= 0)
        add_eos(r, c, found);
}

/* ---- both ---------------------------------------------------------------------------------------- */

/* docs/model.md, YaRN: dimensions that turn often within the original context keep their frequency,
 * those that never complete a turn are stretched by the factor, with a ramp between. */
static void fill_rope(reader *r, bw_config *c, const rope_facts *f)
{
    const bool yarn = strcmp(f->type, "yarn") == 0;
    if (!yarn && strcmp(f->type, "default") != 0)
        refuse(r, BW_E_UNSUPPORTED, "the rope type is \"%s\"; default and yarn are understood", f->type);
    if (f->dims < 2 || f->dims % 2 || f->dims > c->head_dim || f->dims / 2 > BW_MAX_ROTARY_PAIRS)
        refuse(r, BW_E_FORMAT, "%d rotary dimensions of a head of %d are impossible", f->dims, c->head_dim);
    if (yarn && (f->factor < 1 || f->original < 1))
        refuse(r, BW_E_FORMAT, "yarn needs factor (>= 1) and original_max_position_embeddings");
    if (failed(r))
        return;
    bw_rope *rope = &c->rope;
    rope->n_pairs = f->dims / 2;
    rope->magnitude = 1;
    double low = 0, high = 0;
    if (yarn) {
        const double scale = f->dims / (2 * log(f->theta)), pi = 3.14159265358979323846;
        low = scale * log(f->original / (2 * pi * f->beta_fast));
        high = scale * log(f->original / (2 * pi * f->beta_slow));
        low = fmax(f->truncate ? floor(low) : low, 0);
        high = fmin(f->truncate ? ceil(high) : high, f->dims - 1);
        rope->magnitude = (float)(isnan(f->magnitude) ? 0.1 * log(f->factor) + 1 : f->magnitude);
        c->max_position = (int)fmin(fmax(c->max_position, f->original * f->factor), INT_MAX);
    }
    for (int j = 0; j < rope->n_pairs; j++) {
        const double inv = pow(f->theta, -2.0 * j / f->dims);
        const double ramp = yarn ? fmin(fmax((j - low) / fmax(high - low, 0.001), 0), 1) : 0;
        rope->inv_freq[j] = (float)(yarn ? inv * (ramp / f->factor + 1 - ramp) : inv);
        rope->axis[j] = j % 3 == 1 && j < 3 * f->section[1] ? 1 : j % 3 == 2 && j < 3 * f->section[2] ? 2 : 0;
    }
}

static void check_sizes(reader *r, const bw_config *c)
{
    if (c->n_heads % c->n_kv_heads)
        refuse(r, BW_E_FORMAT, "%d query heads cannot share %d key-value heads evenly", c->n_heads, c->n_kv_heads);
    if (c->n_v_heads % c->n_k_heads)
        refuse(r, BW_E_FORMAT, "%d value heads of the linear layers cannot share %d key heads evenly", c->n_v_heads, c->n_k_heads);
    if (c->moe && c->n_experts_used > c->n_experts)
        refuse(r, BW_E_FORMAT, "%d experts are used of %d", c->n_experts_used, c->n_experts);
}

static void complete(reader *r, bw_config *c, const rope_facts *rope)
{
    if (failed(r))
        return;
    check_sizes(r, c);
    fill_rope(r, c, rope);
    for (int i = 0; i < c->n_layers && !failed(r); i++) {
        c->n_attention += c->attention[i];
        c->n_linear += !c->attention[i];
    }
    c->conv_dim = 2 * c->n_k_heads * c->d_k + c->n_v_heads * c->d_v;
    for (int i = 0; i < bw_checkpoint_n_tensors(r->checkpoint) && !c->has_vision; i++) {
        const bw_tensor *t = bw_checkpoint_tensor_at(r->checkpoint, i);
        c->has_vision = bw_role_of(bw_checkpoint_container(r->checkpoint), t->name).role == BW_ROLE_VISION;
    }
}

static void read_hf(reader *r, bw_config *c, rope_facts *rope)
{
    const char *path = bw_checkpoint_path(r->checkpoint);
    if ((r->st = bw_checkpoint_json(r->checkpoint, "config.json", &r->top, r->err)))
        return;
    snprintf(r->where, sizeof r->where, "%.280s/config.json", path);
    if (!r->top) {
        refuse(r, BW_E_FORMAT, "is missing: download it beside the weights");
        return;
    }
    r->text = field(r->top, "text_config");
    if (!json_object_is_type(r->text, json_type_object))
        r->text = r->top;
    hf_architecture(r, c);
    hf_refusals(r);
    hf_sizes(r, c);
    hf_layers(r, c);
    hf_rope(r, c, rope);
    hf_sampling(r, c);
}

static void read_gguf(reader *r, bw_config *c, rope_facts *rope)
{
    snprintf(r->where, sizeof r->where, "%.290s", bw_checkpoint_path(r->checkpoint));
    gguf_architecture(r, c);
    gguf_sizes(r, c);
    gguf_rope(r, rope);
    if (!failed(r))
        gguf_sampling(r, c);
}

bw_status bw_config_read(bw_config *out, const bw_checkpoint *checkpoint, bw_error *err)
{
    reader r = { .checkpoint = checkpoint, .err = err };
    rope_facts rope = { .section = { 11, 11, 10 } };
    bw_config c = { 0 };
    if (bw_checkpoint_container(checkpoint) == BW_CONTAINER_HF)
        read_hf(&r, &c, &rope);
    else
        read_gguf(&r, &c, &rope);
    complete(&r, &c, &rope);
    json_object_put(r.top);
    if (failed(&r)) {
        *out = (bw_config){ 0 };
        return r.st;
    }
    *out = c;
    return BW_OK;
}
