/* roles.c - the two tables of names, and the cutting of a name to look it up. */
#include "format/roles.h"

#include <stdio.h>
#include <string.h>

/* ---- Hugging Face -------------------------------------------------------------------------------- */

typedef struct entry {
    const char *name;
    bw_role role;
} entry;

/* After "layers.N." and before the suffix. */
static const entry hf_layer[] = {
    { "input_layernorm", BW_ROLE_INPUT_NORM },
    { "post_attention_layernorm", BW_ROLE_POST_NORM },
    { "self_attn.q_proj", BW_ROLE_Q },
    { "self_attn.k_proj", BW_ROLE_K },
    { "self_attn.v_proj", BW_ROLE_V },
    { "self_attn.o_proj", BW_ROLE_O },
    { "self_attn.q_norm", BW_ROLE_Q_NORM },
    { "self_attn.k_norm", BW_ROLE_K_NORM },
    { "linear_attn.in_proj_qkv", BW_ROLE_QKV },
    { "linear_attn.in_proj_z", BW_ROLE_GDN_Z },
    { "linear_attn.in_proj_a", BW_ROLE_GDN_A },
    { "linear_attn.in_proj_b", BW_ROLE_GDN_B },
    { "linear_attn.out_proj", BW_ROLE_GDN_OUT },
    { "linear_attn.conv1d", BW_ROLE_GDN_CONV },
    { "linear_attn.A_log", BW_ROLE_GDN_DECAY },
    { "linear_attn.dt_bias", BW_ROLE_GDN_DT },
    { "linear_attn.norm", BW_ROLE_GDN_NORM },
    { "mlp.gate_proj", BW_ROLE_FFN_GATE },
    { "mlp.up_proj", BW_ROLE_FFN_UP },
    { "mlp.down_proj", BW_ROLE_FFN_DOWN },
    { "mlp.gate", BW_ROLE_ROUTER },
    { "mlp.shared_expert_gate", BW_ROLE_SHARED_GATE },
    { "mlp.shared_expert.gate_proj", BW_ROLE_SHARED_FFN_GATE },
    { "mlp.shared_expert.up_proj", BW_ROLE_SHARED_FFN_UP },
    { "mlp.shared_expert.down_proj", BW_ROLE_SHARED_FFN_DOWN },
    { "mlp.experts.gate_up_proj", BW_ROLE_EXPERTS_GATE_UP },
    { "mlp.experts.gate_proj", BW_ROLE_EXPERTS_GATE },
    { "mlp.experts.up_proj", BW_ROLE_EXPERTS_UP },
    { "mlp.experts.down_proj", BW_ROLE_EXPERTS_DOWN },
    { "mlp.switch_mlp.gate_proj", BW_ROLE_EXPERTS_GATE },
    { "mlp.switch_mlp.up_proj", BW_ROLE_EXPERTS_UP },
    { "mlp.switch_mlp.down_proj", BW_ROLE_EXPERTS_DOWN },
};

static const entry hf_model[] = {
    { "embed_tokens", BW_ROLE_EMBED },
    { "norm", BW_ROLE_FINAL_NORM },
    { "lm_head", BW_ROLE_HEAD },
};

static const entry hf_mtp[] = {
    { "fc", BW_ROLE_MTP_FC },
    { "pre_fc_norm_embedding", BW_ROLE_MTP_NORM_EMBEDDING },
    { "pre_fc_norm_hidden", BW_ROLE_MTP_NORM_HIDDEN },
    { "norm", BW_ROLE_MTP_NORM },
    { "embed_tokens", BW_ROLE_MTP_EMBED },
    { "lm_head", BW_ROLE_MTP_HEAD },
};

/* What may follow a module's name. Longer ones first where one ends in another. */
static const char *const parts[] = {
    "weight", "qweight", "qzeros", "scales", "g_idx", "biases", "weight_packed", "weight_scale", "weight_scale_inv",
    "weight_scale_2", "weight_global_scale", "weight_shape", "weight_zero_point", "weight_g_idx", "bias",
};

/* Scales of activations and of a KV cache: for engines that quantise those. */
static const char *const ignored_parts[] = {
    "input_scale", "input_global_scale", "output_scale", "k_scale", "v_scale", "q_scale", "k_cache_scale", "v_cache_scale", "inv_freq",
};

static bool strip(const char **name, const char *prefix)
{
    size_t n = strlen(prefix);
    if (strncmp(*name, prefix, n) != 0)
        return false;
    *name += n;
    return true;
}

/* "17." at *name: digits without a leading zero, at most six. */
static bool strip_number(const char **name, int *number)
{
    const char *p = *name;
    int n = 0, digits = 0;
    for (; *p >= '0' && *p <= '9' && digits < 7; p++, digits++)
        n = n * 10 + (*p - '0');
    if (!digits || digits > 6 || *p != '.' || ((*name)[0] == '0' && digits > 1))
        return false;
    *number = n;
    *name = p + 1;
    return true;
}

static bw_role find(const entry *table, size_t n, const char *name, size_t length)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(table[i].name) == length && memcmp(table[i].name, name, length) == 0)
            return table[i].role;
    return BW_ROLE_UNKNOWN;
}

/* The role of `name` less its suffix; a module without a suffix is written without one in the file
 * (A_log, experts.gate_up_proj). */
static bw_place find_with_part(const entry *table, size_t n, const char *name)
{
    bw_place place = { .expert = -1, .part = "" };
    const char *dot = strrchr(name, '.');
    const char *suffix = dot ? dot + 1 : name;
    if ((place.role = find(table, n, name, strlen(name))))
        return place;
    if (!dot)
        return place;
    for (size_t i = 0; i < BW_COUNT(parts); i++)
        if (strcmp(suffix, parts[i]) == 0) {
            place.role = find(table, n, name, (size_t)(dot - name));
            place.part = i ? parts[i] : "";
            return place;
        }
    for (size_t i = 0; i < BW_COUNT(ignored_parts); i++)
        if (strcmp(suffix, ignored_parts[i]) == 0)
            place.role = BW_ROLE_IGNORED;
    return place;
}

/* "mlp.experts.17.gate_proj.weight" is "mlp.experts.gate_proj.weight" of expert 17. */
static bw_place hf_layer_place(const char *name)
{
    char joined[128];
    const char *rest = name;
    int expert = -1;
    if (strip(&rest, "mlp.experts.") && strip_number(&rest, &expert)) {
        if (snprintf(joined, sizeof joined, "mlp.experts.%s", rest) >= (int)sizeof joined || strcmp(rest, "gate_up_proj") == 0)
            return (bw_place){ .expert = -1, .part = "" };
        name = joined;
    }
    bw_place place = find_with_part(hf_layer, BW_COUNT(hf_layer), name);
    place.expert = expert;
    return place;
}

static bool is_vision(const char *name)
{
    static const char *const prefixes[] = { "model.visual.", "visual.", "vision_tower.", "model.vision_tower.", "vision_model.",
                                            "language_model.visual.", "multi_modal_projector." };
    for (size_t i = 0; i < BW_COUNT(prefixes); i++)
        if (strip(&name, prefixes[i]))
            return true;
    return false;
}

static bool strip_any(const char **name, const char *const *prefixes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strip(name, prefixes[i]))
            return true;
    return false;
}

static bw_place hf_place(const char *name)
{
    static const char *const mtp[] = { "mtp.", "model.mtp.", "language_model.mtp.", "model.language_model.mtp.", "language_model.model.mtp." };
    static const char *const text[] = { "model.language_model.", "language_model.model.", "language_model.", "model." };
    bw_place place = { .expert = -1, .part = "" };
    int layer = 0;
    if (is_vision(name)) {
        place.role = BW_ROLE_VISION;
        return place;
    }
    const bool in_mtp = strip_any(&name, mtp, BW_COUNT(mtp));
    if (!in_mtp)
        strip_any(&name, text, BW_COUNT(text));
    const char *rest = name;
    if (strip(&rest, "layers.") && strip_number(&rest, &layer))
        place = hf_layer_place(rest);
    else if (in_mtp)
        place = find_with_part(hf_mtp, BW_COUNT(hf_mtp), name);
    else
        place = find_with_part(hf_model, BW_COUNT(hf_model), name);
    place.layer = layer;
    place.mtp = in_mtp;
    return place;
}

/* ---- GGUF ---------------------------------------------------------------------------------------- */

static const entry gguf_model[] = {
    { "token_embd.weight", BW_ROLE_EMBED },
    { "output.weight", BW_ROLE_HEAD },
    { "output_norm.weight", BW_ROLE_FINAL_NORM },
    { "output_extra.weight", BW_ROLE_IGNORED }, /* a second, smaller copy of the head for drafting */
};

static const entry gguf_layer[] = {
    { "attn_norm.weight", BW_ROLE_INPUT_NORM },
    { "post_attention_norm.weight", BW_ROLE_POST_NORM },
    { "attn_q.weight", BW_ROLE_Q },
    { "attn_k.weight", BW_ROLE_K },
    { "attn_v.weight", BW_ROLE_V },
    { "attn_output.weight", BW_ROLE_O },
    { "attn_q_norm.weight", BW_ROLE_Q_NORM },
    { "attn_k_norm.weight", BW_ROLE_K_NORM },
    { "attn_qkv.weight", BW_ROLE_QKV },
    { "attn_gate.weight", BW_ROLE_GDN_Z },
    { "ssm_alpha.weight", BW_ROLE_GDN_A },
    { "ssm_beta.weight", BW_ROLE_GDN_B },
    { "ssm_out.weight", BW_ROLE_GDN_OUT },
    { "ssm_conv1d.weight", BW_ROLE_GDN_CONV },
    { "ssm_a", BW_ROLE_GDN_DECAY },
    { "ssm_dt.bias", BW_ROLE_GDN_DT },
    { "ssm_norm.weight", BW_ROLE_GDN_NORM },
    { "ffn_gate.weight", BW_ROLE_FFN_GATE },
    { "ffn_up.weight", BW_ROLE_FFN_UP },
    { "ffn_down.weight", BW_ROLE_FFN_DOWN },
    { "ffn_gate_inp.weight", BW_ROLE_ROUTER },
    { "ffn_gate_inp_shexp.weight", BW_ROLE_SHARED_GATE },
    { "ffn_gate_shexp.weight", BW_ROLE_SHARED_FFN_GATE },
    { "ffn_up_shexp.weight", BW_ROLE_SHARED_FFN_UP },
    { "ffn_down_shexp.weight", BW_ROLE_SHARED_FFN_DOWN },
    { "ffn_gate_exps.weight", BW_ROLE_EXPERTS_GATE },
    { "ffn_up_exps.weight", BW_ROLE_EXPERTS_UP },
    { "ffn_down_exps.weight", BW_ROLE_EXPERTS_DOWN },
    { "ffn_gate_up_exps.weight", BW_ROLE_EXPERTS_GATE_UP },
    { "nextn.eh_proj.weight", BW_ROLE_MTP_FC },
    { "nextn.enorm.weight", BW_ROLE_MTP_NORM_EMBEDDING },
    { "nextn.hnorm.weight", BW_ROLE_MTP_NORM_HIDDEN },
    { "nextn.shared_head_norm.weight", BW_ROLE_MTP_NORM },
    { "nextn.embed_tokens.weight", BW_ROLE_MTP_EMBED },
    { "nextn.shared_head_head.weight", BW_ROLE_MTP_HEAD },
};

static bw_place gguf_place(const char *name)
{
    bw_place place = { .expert = -1, .part = "" };
    const char *rest = name;
    if (strip(&rest, "blk.") && strip_number(&rest, &place.layer)) {
        place.role = find(gguf_layer, BW_COUNT(gguf_layer), rest, strlen(rest));
        place.mtp = strncmp(rest, "nextn.", 6) == 0;
        return place;
    }
    place.role = find(gguf_model, BW_COUNT(gguf_model), name, strlen(name));
    if (!place.role && (strncmp(name, "v.", 2) == 0 || strncmp(name, "mm.", 3) == 0))
        place.role = BW_ROLE_VISION;
    return place;
}

/* ---- both ---------------------------------------------------------------------------------------- */

bw_place bw_role_of(bw_container container, const char *name)
{
    return container == BW_CONTAINER_HF ? hf_place(name) : gguf_place(name);
}

static const char *word_for(const entry *table, size_t n, bw_role role)
{
    for (size_t i = 0; i < n; i++)
        if (table[i].role == role)
            return table[i].name;
    return NULL;
}

const char *bw_role_name(char *text, size_t size, bw_container container, bw_role role, int layer, bool mtp)
{
    const char *word;
    if (container == BW_CONTAINER_GGUF) {
        if ((word = word_for(gguf_model, BW_COUNT(gguf_model), role)))
            snprintf(text, size, "%s", word);
        else
            snprintf(text, size, "blk.%d.%s", layer, (word = word_for(gguf_layer, BW_COUNT(gguf_layer), role)) ? word : "?");
        return text;
    }
    const bool bare = role == BW_ROLE_GDN_DECAY || role == BW_ROLE_GDN_DT || role == BW_ROLE_EXPERTS_GATE_UP;
    if ((word = word_for(hf_model, BW_COUNT(hf_model), role)))
        snprintf(text, size, "%s.weight", word);
    else if ((word = word_for(hf_mtp, BW_COUNT(hf_mtp), role)))
        snprintf(text, size, "mtp.%s.weight", word);
    else
        snprintf(text, size, "%slayers.%d.%s%s", mtp ? "mtp." : "", layer,
                 (word = word_for(hf_layer, BW_COUNT(hf_layer), role)) ? word : "?", bare ? "" : ".weight");
    return text;
}
