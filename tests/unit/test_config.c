/* A model's sizes are read the same from every form a configuration comes in; what would change the
 * mathematics and is not understood is refused by name. */
#include "lib/check.h"

#include <math.h>
#include <stdlib.h>

#include "base/log.h"
#include "format/checkpoint.h"
#include "lib/model_files.h"
#include "model/config.h"

/* Config text as a folder with one tensor in it. */
static bw_status read_config(bw_config *c, const char *config, const char *generation, bw_error *err)
{
    char path[400];
    const char *dir = fresh_dir();
    bw_checkpoint *checkpoint;
    snprintf(path, sizeof path, "%s/config.json", dir);
    text_write(config, path);
    if (generation) {
        snprintf(path, sizeof path, "%s/generation_config.json", dir);
        text_write(generation, path);
    }
    bytes b = safetensors_of("{}", 0);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    bytes_write(&b, path);
    bytes_free(&b);
    check_ok(bw_checkpoint_open(&checkpoint, dir, err), *err);
    bw_status st = bw_config_read(c, checkpoint, err);
    bw_checkpoint_close(checkpoint);
    return st;
}

/* config.json of the 27B, whole. */
static char *real_config(void)
{
    return read_file(repo_path("bench/shapes/27b.json"), NULL);
}

/* The 27B's configuration with one edit. */
static bw_status edited(bw_config *c, const char *from, const char *to, bw_error *err)
{
    char *text = replace(real_config(), from, to);
    bw_status st = read_config(c, text, NULL, err);
    free(text);
    return st;
}

TEST(the_27b_reads_as_documented)
{
    bw_config c;
    bw_error err;
    char *text = real_config();
    check_ok(read_config(&c, text, "{\"temperature\": 0.6, \"top_k\": 20, \"top_p\": 0.95, \"eos_token_id\": [248046, 248044]}", &err), err);
    free(text);
    check_str(c.architecture, "qwen3_5");
    check(!c.moe && !c.tied && !c.v_heads_tiled);
    check_int(c.hidden, 5120);
    check_int(c.n_layers, 64);
    check_int(c.n_attention, 16);
    check_int(c.n_linear, 48);
    check(c.attention[3] && c.attention[63] && !c.attention[0] && !c.attention[62]);
    check_int(c.vocab, 248320);
    check_int(c.conv_dim, 10240);
    check_int(c.rope.n_pairs, 32);
    check(fabsf(c.rope.inv_freq[1] - 0.6042963902f) < 1e-7f && fabsf(c.rope.inv_freq[31] / 1.6548170999e-07f - 1) < 1e-6f);
    for (int j = 0; j < 32; j++)
        check_int(c.rope.axis[j], "THWTHWTHWTHWTHWTHWTHWTHWTHWTHWTH"[j] == 'T' ? 0 : j % 3);
    check(c.rope.magnitude == 1 && c.sampling.temperature == 0.6f && c.sampling.top_k == 20 && isnan(c.sampling.min_p));
    check(c.sampling.n_eos == 2 && c.sampling.eos[0] == 248046 && c.sampling.eos[1] == 248044);
}

TEST(rope_fields_are_found_in_all_three_places)
{
    static const char *const forms[] = {
        "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 5e6, \"partial_rotary_factor\": 0.5, \"mrope_section\": [4, 2, 2]}",
        "\"rope_scaling\": {\"type\": \"default\", \"mrope_section\": [4, 2, 2]}, \"rope_theta\": 5000000, \"partial_rotary_factor\": 0.5",
        "\"rope_theta\": 5000000.0, \"partial_rotary_factor\": 0.5, \"mrope_section\": [4, 2, 2], \"rope_parameters\": null",
        "\"rope_parameters\": {\"rope_theta\": 5e6, \"partial_rotary_factor\": 0.5, \"mrope_section\": [4, 2, 2]}, \"partial_rotary_factor\": 0.25",
    };
    for (size_t i = 0; i < BW_COUNT(forms); i++)
        for (int flat = 0; flat < 2; flat++) { /* text fields wrapped in text_config, or at the top */
            char text[1200];
            bw_config c;
            bw_error err;
            snprintf(text, sizeof text, "{%s\"model_type\": \"qwen3_5_text\", \"hidden_size\": 64, \"num_hidden_layers\": 8, \"vocab_size\": 320,"
                     "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 32, \"intermediate_size\": 128, %s}%s",
                     flat ? "" : "\"model_type\": \"qwen3_5\", \"text_config\": {", forms[i], flat ? "" : "}");
            check_ok(read_config(&c, text, NULL, &err), err);
            check_int(c.rope.n_pairs, 8);
            check(fabsf(c.rope.inv_freq[1] - powf(5e6f, -0.125f)) < 1e-6f);
            check(c.rope.axis[0] == 0 && c.rope.axis[1] == 1 && c.rope.axis[4] == 1 && c.rope.axis[7] == 0 && c.rope.axis[2] == 2);
            check_int(c.n_k_heads, 16); /* not said: the class's defaults */
            check_int(c.n_v_heads, 32);
            check_int(c.max_position, 32768);
            check(c.attention[3] && c.attention[7] && c.n_attention == 2);
        }
}

TEST(yarn_stretches_the_slow_frequencies)
{
    bw_config plain, c;
    bw_error err;
    check_ok(edited(&plain, "\"rope_type\": \"default\"", "\"rope_type\": \"default\"", &err), err);
    check_ok(edited(&c, "\"rope_type\": \"default\"", "\"rope_type\": \"yarn\", \"factor\": 4.0, \"original_max_position_embeddings\": 262144", &err), err);
    check(fabsf(c.rope.magnitude - 1.1386294361f) < 1e-6f);
    for (int j = 0; j < 32; j++) {
        float ramp = fminf(fmaxf((float)(j - 14) / 8, 0), 1);
        check(fabsf(c.rope.inv_freq[j] / (plain.rope.inv_freq[j] * (ramp / 4 + 1 - ramp)) - 1) < 1e-6f);
    }
    check_int(c.max_position, 1048576);
    check_error(edited(&c, "\"rope_type\": \"default\"", "\"rope_type\": \"yarn\", \"factor\": 4.0", &err), BW_E_FORMAT, err, "original_max_position");
}

TEST(layer_types_win_over_the_interval)
{
    bw_config c;
    bw_error err;
    check_ok(edited(&c, "\"num_hidden_layers\": 64", "\"num_hidden_layers\": 3, \"layer_types\": [\"full_attention\", \"linear_attention\", \"full_attention\"]", &err), err);
    check(c.attention[0] && !c.attention[1] && c.attention[2] && c.n_attention == 2);
    check_error(edited(&c, "\"num_hidden_layers\": 64", "\"num_hidden_layers\": 3, \"layer_types\": [\"full_attention\"]", &err), BW_E_FORMAT, err, "layer_types", "3");
    check_error(edited(&c, "\"num_hidden_layers\": 64", "\"num_hidden_layers\": 1, \"layer_types\": [\"sliding_attention\"]", &err), BW_E_UNSUPPORTED, err, "sliding_attention");
}

TEST(what_changes_the_mathematics_is_refused_by_name)
{
    static const struct refusal {
        const char *from, *to;
        bw_status st;
        const char *says;
    } refusals[] = {
        { "\"attn_output_gate\": true", "\"attn_output_gate\": false", BW_E_UNSUPPORTED, "attn_output_gate" },
        { "\"attn_output_gate\": true", "\"attention_bias\": true", BW_E_UNSUPPORTED, "attention_bias" },
        { "\"attn_output_gate\": true", "\"output_gate_type\": \"sigmoid\"", BW_E_UNSUPPORTED, "sigmoid" },
        { "\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"", BW_E_UNSUPPORTED, "gelu" },
        { "\"rope_type\": \"default\"", "\"rope_type\": \"llama3\"", BW_E_UNSUPPORTED, "llama3" },
        { "\"mrope_interleaved\": true", "\"mrope_interleaved\": false", BW_E_UNSUPPORTED, "mrope_interleaved" },
        { "\"model_type\": \"qwen3_5_text\"", "\"model_type\": \"llama\"", BW_E_UNSUPPORTED, "llama" },
        { "\"rope_theta\": 10000000", "\"rope_thetas\": 10000000", BW_E_FORMAT, "rope_theta" },
        { "\"hidden_size\": 5120", "\"hidden_sizes\": 5120", BW_E_FORMAT, "hidden_size is missing" },
        { "\"hidden_size\": 5120", "\"hidden_size\": 5120.5", BW_E_FORMAT, "hidden_size is 5120.5" },
        { "\"hidden_size\": 5120", "\"hidden_size\": -1", BW_E_FORMAT, "hidden_size is -1" },
        { "\"hidden_size\": 5120", "\"hidden_size\": \"5120\"", BW_E_FORMAT, "hidden_size is" },
        { "\"num_hidden_layers\": 64", "\"num_hidden_layers\": 100000", BW_E_FORMAT, "num_hidden_layers is 100000" },
        { "\"num_key_value_heads\": 4", "\"num_key_value_heads\": 5", BW_E_FORMAT, "24 query heads" },
        { "\"linear_num_value_heads\": 48", "\"linear_num_value_heads\": 40", BW_E_FORMAT, "40 value heads" },
        { "\"partial_rotary_factor\": 0.25", "\"partial_rotary_factor\": 0.001", BW_E_FORMAT, "rotary" },
    };
    for (size_t i = 0; i < BW_COUNT(refusals); i++) {
        bw_config c;
        bw_error err;
        check_error(edited(&c, refusals[i].from, refusals[i].to, &err), refusals[i].st, err, "config.json", refusals[i].says);
    }
}

TEST(a_config_that_is_no_json_object_is_named)
{
    static const char *const texts[][2] = {
        { "", "empty" }, { "{\"a\": 1", "ends too early" }, { "[1]", "object is expected" }, { "{} {}", "follows the end" }, { "{a: 1}", "not valid JSON" },
    };
    for (size_t i = 0; i < BW_COUNT(texts); i++) {
        bw_config c;
        bw_error err;
        check_error(read_config(&c, texts[i][0], NULL, &err), BW_E_FORMAT, err, "config.json", texts[i][1]);
    }
    char deep[400] = "{\"a\":";
    memset(deep + 5, '[', 300);
    bw_config c;
    bw_error err;
    check_error(read_config(&c, deep, NULL, &err), BW_E_FORMAT, err, "config.json");
}

TEST(end_tokens_come_from_the_first_place_that_names_them)
{
    bw_config c;
    bw_error err;
    char *text = replace(real_config(), "\"hidden_size\"", "\"eos_token_id\": 7, \"hidden_size\"");
    check_ok(read_config(&c, text, NULL, &err), err);
    check(c.sampling.n_eos == 1 && c.sampling.eos[0] == 7 && isnan(c.sampling.temperature) && c.sampling.top_k == -1);
    check_ok(read_config(&c, text, "{\"eos_token_id\": 9, \"do_sample\": false}", &err), err);
    check(c.sampling.n_eos == 1 && c.sampling.eos[0] == 9 && c.sampling.temperature == 0);
    check_ok(read_config(&c, text, "{\"eos_token_id\": [9, 9, 300000, 8]}", &err), err); /* twice; outside the vocabulary */
    check(c.sampling.n_eos == 2 && c.sampling.eos[0] == 9 && c.sampling.eos[1] == 8);
    check_error(read_config(&c, text, "{\"temperature\": \"hot\"}", &err), BW_E_FORMAT, err, "generation_config.json", "temperature", "hot");
    free(text);
}

static char logged[4000];

static void keep_line(void *arg, bw_log_level level, const char *line)
{
    (void)arg, (void)level;
    strncat(logged, line, sizeof logged - strlen(logged) - 2);
    strcat(logged, "\n");
}

static bool nothing_said(const bw_sampling_defaults *s)
{
    return isnan(s->temperature) && isnan(s->top_p) && isnan(s->min_p) && isnan(s->presence_penalty) && isnan(s->frequency_penalty) &&
           isnan(s->repetition_penalty) && s->top_k == -1;
}

TEST(defaults_no_request_may_have_are_told_and_not_used)
{
    static const struct odd {
        const char *text, *says;
    } odd[] = {
        { "{\"temperature\": 100.5}", "temperature is 100.5; at least 0 and at most 100 is expected" },
        { "{\"temperature\": -1}", "temperature is -1; at least 0" },
        { "{\"top_p\": 0}", "top_p is 0; more than 0 and at most 1 is expected" },
        { "{\"top_p\": 1e-60}", "top_p is 1e-60; more than 0" }, /* zero as a float */
        { "{\"min_p\": 1.25}", "min_p is 1.25; at least 0 and at most 1" },
        { "{\"presence_penalty\": 2.5}", "presence_penalty is 2.5; at least -2 and at most 2" },
        { "{\"frequency_penalty\": -2.5}", "frequency_penalty is -2.5" },
        { "{\"repetition_penalty\": 0}", "repetition_penalty is 0; more than 0 and at most 100" },
        { "{\"repetition_penalty\": 101}", "repetition_penalty is 101" },
        { "{\"top_k\": -1}", "top_k is -1; 0 to 2147483647 is expected" },
        { "{\"top_k\": 5000000000}", "top_k is 5000000000" },
    };
    char *text = real_config();
    bw_config c;
    bw_error err;
    bw_log_to(keep_line, NULL);
    for (size_t i = 0; i < BW_COUNT(odd); i++) {
        logged[0] = '\0';
        check_ok(read_config(&c, text, odd[i].text, &err), err);
        check_that(strstr(logged, odd[i].says) && strstr(logged, "generation_config.json: ") && strstr(logged, "not used"), "%s: %s", odd[i].text, logged);
        check_that(nothing_said(&c.sampling), "%s: a value is kept", odd[i].text);
    }
    logged[0] = '\0';
    check_ok(read_config(&c, text, "{\"temperature\": 100, \"top_p\": 1, \"min_p\": 0, \"presence_penalty\": 2, \"frequency_penalty\": -2, "
                                   "\"repetition_penalty\": 100, \"top_k\": 0}", &err), err);
    bw_log_to(NULL, NULL);
    check_str(logged, "");
    check(c.sampling.temperature == 100 && c.sampling.top_p == 1 && c.sampling.min_p == 0 && c.sampling.presence_penalty == 2);
    check(c.sampling.frequency_penalty == -2 && c.sampling.repetition_penalty == 100 && c.sampling.top_k == 0);
    free(text);
}

TEST(gguf_metadata_reads_like_the_folder_it_was_made_from)
{
    bw_checkpoint *checkpoint;
    bw_config c;
    bw_error err;
    check_ok(bw_checkpoint_open(&checkpoint, repo_path("tests/golden/gguf/moe-F16.gguf"), &err), err);
    check_ok(bw_config_read(&c, checkpoint, &err), err);
    check_str(c.architecture, "qwen35moe");
    check(c.moe && c.v_heads_tiled && c.tied);
    check_int(c.n_layers, 2); /* block_count 3, the last is the MTP block */
    check(!c.attention[0] && c.attention[1]);
    check_int(c.mtp_layers, 1);
    check_int(c.vocab, 352);
    check_int(c.d_k, 64);
    check_int(c.d_v, 64);
    check_int(c.n_v_heads, 4);
    check_int(c.rope.n_pairs, 16);
    check_int(c.n_experts, 4);
    check_int(c.n_experts_used, 2);
    check(c.sampling.top_k == 20 && c.sampling.top_p == 0.95f && c.sampling.temperature == 1);
    check(c.sampling.n_eos == 2 && c.sampling.eos[0] == 312 && c.sampling.eos[1] == 310); /* end of turn, then end of text */
    bw_checkpoint_close(checkpoint);
}

/* moe-F16.gguf with its metadata edited. */
static bw_status edited_gguf(bw_config *c, void (*edit)(file_model *), bw_error *err)
{
    char path[400];
    file_model m;
    bw_checkpoint *checkpoint;
    model_read(&m, repo_path("tests/golden/gguf/moe-F16.gguf"));
    edit(&m);
    snprintf(path, sizeof path, "%s/edited.gguf", fresh_dir());
    check_ok(bw_checkpoint_open(&checkpoint, model_write_gguf(&m, path), err), *err);
    bw_status st = bw_config_read(c, checkpoint, err);
    bw_checkpoint_close(checkpoint);
    model_free(&m);
    return st;
}

static void set_value(file_model *m, const char *key, uint32_t type, const void *value, size_t n)
{
    bytes *body = &model_value(m, key)->body;
    bytes_free(body);
    bytes_u32(body, type);
    bytes_add(body, value, n);
}

static void use_other_widths(file_model *m)
{
    set_value(m, "qwen35moe.embedding_length", BW_GGUF_U64, &(uint64_t){ 256 }, 8);
    set_value(m, "qwen35moe.expert_count", BW_GGUF_I16, &(int16_t){ 4 }, 2);
    set_value(m, "qwen35moe.ssm.conv_kernel", BW_GGUF_U8, "\4", 1);
    set_value(m, "qwen35moe.rope.freq_base", BW_GGUF_F64, &(double){ 1e7 }, 8);
    bytes *body = &model_value(m, "qwen35moe.attention.head_count_kv")->body; /* one for each block */
    bytes_free(body);
    bytes_u32(body, BW_GGUF_ARRAY);
    bytes_u32(body, BW_GGUF_I32);
    bytes_u64(body, 3);
    for (uint32_t i = 0; i < 3; i++)
        bytes_u32(body, i > 0);
}

static void unequal_heads(file_model *m)
{
    use_other_widths(m);
    bytes *body = &model_value(m, "qwen35moe.attention.head_count_kv")->body;
    body->data[body->n - 4] = 2;
}

static void drop_layer_kinds(file_model *m)
{
    model_value(m, "qwen35moe.attention.recurrent_layers")->dropped = true;
    model_value(m, "qwen35moe.full_attention_interval")->dropped = true; /* 4 then, which the tensors contradict */
    model_value(m, "qwen35moe.nextn_predict_layers")->dropped = true;
}

static void drop_width(file_model *m)
{
    model_value(m, "qwen35moe.embedding_length")->dropped = true;
}

static void make_width_a_float(file_model *m)
{
    set_value(m, "qwen35moe.embedding_length", BW_GGUF_F32, &(float){ 256 }, 4);
}

static void make_inner_size_odd(file_model *m)
{
    set_value(m, "qwen35moe.ssm.inner_size", BW_GGUF_U32, &(uint32_t){ 257 }, 4);
}

static void make_vision(file_model *m)
{
    bytes *body = &model_value(m, "general.architecture")->body;
    bytes_free(body);
    bytes_u32(body, BW_GGUF_STRING);
    bytes_string(body, "clip");
}

static void make_linear_rope(file_model *m)
{
    file_value *v = model_value(m, "general.name"); /* its place is as good as any */
    strcpy(v->key, "qwen35moe.rope.scaling.type");
    bytes_free(&v->body);
    bytes_u32(&v->body, BW_GGUF_STRING);
    bytes_string(&v->body, "linear");
}

static void make_defaults_odd(file_model *m)
{
    set_value(m, "general.sampling.temp", BW_GGUF_F32, &(float){ 101 }, 4);
    set_value(m, "general.sampling.top_p", BW_GGUF_F32, &(float){ 0 }, 4);
    set_value(m, "general.sampling.top_k", BW_GGUF_I32, &(int32_t){ -1 }, 4);
}

static void make_defaults_of_other_types(file_model *m)
{
    set_value(m, "general.sampling.temp", BW_GGUF_BOOL, "\1", 1);
    set_value(m, "general.sampling.top_p", BW_GGUF_F32, &(float){ INFINITY }, 4);
    set_value(m, "general.sampling.top_k", BW_GGUF_F32, &(float){ 20 }, 4);
}

TEST(gguf_defaults_no_request_may_have_are_told_and_not_used)
{
    bw_config c;
    bw_error err;
    bw_log_to(keep_line, NULL);
    logged[0] = '\0';
    check_ok(edited_gguf(&c, make_defaults_odd, &err), err);
    check(nothing_said(&c.sampling));
    check(strstr(logged, "edited.gguf: general.sampling.temp is 101; at least 0 and at most 100"));
    check(strstr(logged, "general.sampling.top_p is 0; more than 0") && strstr(logged, "general.sampling.top_k is -1; 0 to"));
    logged[0] = '\0';
    check_ok(edited_gguf(&c, make_defaults_of_other_types, &err), err);
    bw_log_to(NULL, NULL);
    check(nothing_said(&c.sampling));
    check(strstr(logged, "general.sampling.temp is of type bool") && strstr(logged, "general.sampling.top_p is of type f32; a finite number"));
    check(strstr(logged, "general.sampling.top_k is of type f32; an integer is expected"));
}

TEST(gguf_numbers_of_any_width_and_heads_by_block_are_read)
{
    bw_config c;
    bw_error err;
    check_ok(edited_gguf(&c, use_other_widths, &err), err);
    check(c.hidden == 256 && c.n_experts == 4 && c.conv_width == 4 && c.n_kv_heads == 1);
    check(fabsf(c.rope.inv_freq[1] / powf(1e7f, -1.0f / 16) - 1) < 1e-6f);
}

TEST(gguf_tensors_decide_what_the_metadata_leaves_out)
{
    bw_config c;
    bw_error err;
    check_ok(edited_gguf(&c, drop_layer_kinds, &err), err);
    check_int(c.n_layers, 2);
    check(!c.attention[0] && c.attention[1] && c.mtp_layers == 1);
}

TEST(gguf_metadata_that_cannot_be_is_named)
{
    bw_config c;
    bw_error err;
    check_error(edited_gguf(&c, drop_width, &err), BW_E_FORMAT, err, "qwen35moe.embedding_length is missing");
    check_error(edited_gguf(&c, make_width_a_float, &err), BW_E_FORMAT, err, "qwen35moe.embedding_length", "type f32", "integer");
    check_error(edited_gguf(&c, make_inner_size_odd, &err), BW_E_FORMAT, err, "inner_size 257", "4 value heads");
    check_error(edited_gguf(&c, unequal_heads, &err), BW_E_FORMAT, err, "head_count_kv[2]", "the same number");
    check_error(edited_gguf(&c, make_vision, &err), BW_E_UNSUPPORTED, err, "vision tower", "text model");
    check_error(edited_gguf(&c, make_linear_rope, &err), BW_E_UNSUPPORTED, err, "linear", "yarn");
}

TESTS_MAIN(ENTRY(the_27b_reads_as_documented), ENTRY(rope_fields_are_found_in_all_three_places),
           ENTRY(yarn_stretches_the_slow_frequencies), ENTRY(layer_types_win_over_the_interval),
           ENTRY(what_changes_the_mathematics_is_refused_by_name), ENTRY(a_config_that_is_no_json_object_is_named),
           ENTRY(end_tokens_come_from_the_first_place_that_names_them),
           ENTRY(defaults_no_request_may_have_are_told_and_not_used), ENTRY(gguf_defaults_no_request_may_have_are_told_and_not_used),
           ENTRY(gguf_metadata_reads_like_the_folder_it_was_made_from),
           ENTRY(gguf_numbers_of_any_width_and_heads_by_block_are_read), ENTRY(gguf_tensors_decide_what_the_metadata_leaves_out),
           ENTRY(gguf_metadata_that_cannot_be_is_named))
