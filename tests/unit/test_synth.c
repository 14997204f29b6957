/* Synthetic models: what tools/synth writes opens, resolves whole, and holds weights of a sane spread; what is
 * made in memory is the same, byte by byte. */
#include "lib/check.h"

#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/dequant.h"
#include "base/mem.h"
#include "engine/model_facts.h"
#include "engine/model_open.h"
#include "engine/text_source.h"
#include "format/checkpoint_parts.h"
#include "format/shapes.h"
#include "format/synthetic.h"
#include "model/weights.h"

static const char *dense_shape(void)
{
    static const char text[] =
        "{\"model_type\": \"qwen3_5\", \"tie_word_embeddings\": false, \"text_config\": {\"model_type\": \"qwen3_5_text\","
        "\"hidden_size\": 256, \"num_hidden_layers\": 4, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 64,"
        "\"linear_num_key_heads\": 2, \"linear_num_value_heads\": 6, \"linear_key_head_dim\": 32, \"linear_value_head_dim\": 32,"
        "\"vocab_size\": 320, \"intermediate_size\": 512, \"rope_parameters\": {\"rope_theta\": 10000000}}}";
    return text;
}

static const char *moe_shape(void)
{
    static const char text[] =
        "{\"model_type\": \"qwen3_5_moe\", \"tie_word_embeddings\": true, \"text_config\": {\"model_type\": \"qwen3_5_moe_text\","
        "\"hidden_size\": 256, \"num_hidden_layers\": 4, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 64,"
        "\"linear_num_key_heads\": 2, \"linear_num_value_heads\": 6, \"linear_key_head_dim\": 32, \"linear_value_head_dim\": 32,"
        "\"vocab_size\": 320, \"num_experts\": 8, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 64,"
        "\"shared_expert_intermediate_size\": 96, \"rope_parameters\": {\"rope_theta\": 10000000}}}";
    return text;
}

/* Runs the tool; the file's path. */
static const char *synthesise(const char *shape, const char *options)
{
    static char out[300];
    char json[300], command[1000];
    snprintf(json, sizeof json, "%s/shape.json", temp_dir());
    snprintf(out, sizeof out, "%s/synth.gguf", temp_dir());
    FILE *f = fopen(json, "w");
    check(f && fputs(shape, f) >= 0 && fclose(f) == 0);
    snprintf(command, sizeof command, "%s %s %s %s > /dev/null", repo_path("tools/synth"), json, out, options);
    check_int(system(command), 0);
    return out;
}

static void check_spread(const bw_matrix *m)
{
    float row[2048];
    double square = 0;
    const int rows = m->rows < 64 ? m->rows : 64;
    for (int i = 0; i < rows; i++) {
        bw_dequantize_row(m->type, (const char *)m->data + (size_t)i * bw_dtype_row_bytes(m->type, (uint64_t)m->cols), row, (size_t)m->cols);
        for (int j = 0; j < m->cols; j++)
            square += (double)row[j] * (double)row[j];
    }
    double sd = sqrt(square / rows / m->cols), wanted = 1 / sqrt(m->cols);
    check_that(sd > 0.8 * wanted && sd < 1.25 * wanted, "%s: spread %g, expected %g", bw_dtype_get(m->type)->name, sd, wanted);
}

static void check_file(const char *path, bool mtp)
{
    bw_checkpoint *checkpoint;
    bw_config config;
    bw_weights weights;
    bw_error err;
    check_ok(bw_checkpoint_open(&checkpoint, path, &err), err);
    check_ok(bw_config_read(&config, checkpoint, &err), err);
    check_ok(bw_weights_resolve(&weights, &config, checkpoint, false, &err), err);
    check_int(config.n_layers, 4);
    check_int(weights.mtp_state, mtp ? BW_MTP_COMPLETE : BW_MTP_ABSENT);
    check_spread(&weights.embed);
    check_spread(&weights.layers[0].gdn.qkv);
    check_spread(config.moe ? &weights.layers[3].moe.experts[7].down : &weights.layers[3].ffn.down);
    bw_weights_release(&weights);
    bw_checkpoint_close(checkpoint);
}

TEST(every_type_gives_a_file_that_resolves)
{
    if (access(repo_path("tools/synth"), X_OK) != 0)
        skip_because("tools/synth is not built");
    for (int type = 0; type < BW_DTYPE_COUNT; type++) {
        char options[40];
        snprintf(options, sizeof options, "--type %s --seed %d", bw_dtype_get((bw_dtype)type)->name, type);
        check_file(synthesise(type % 2 ? moe_shape() : dense_shape(), options), true);
    }
    check_file(synthesise(dense_shape(), "--type q4_k_m"), true);
    check_file(synthesise(moe_shape(), "--type q5_k_m"), true);
}

TEST(the_head_can_be_left_out)
{
    if (access(repo_path("tools/synth"), X_OK) != 0)
        skip_because("tools/synth is not built");
    check_file(synthesise(dense_shape(), "--no-mtp"), false);
    check_file(synthesise(moe_shape(), "--no-mtp --type f32"), false);
}

TEST(a_seed_repeats_a_file_and_another_gives_another)
{
    if (access(repo_path("tools/synth"), X_OK) != 0)
        skip_because("tools/synth is not built");
    size_t n, m, k;
    char *a = read_file(synthesise(dense_shape(), "--seed 5"), &n);
    char *b = read_file(synthesise(dense_shape(), "--seed 5"), &m);
    char *c = read_file(synthesise(dense_shape(), "--seed 6"), &k);
    check(n == m && n == k && memcmp(a, b, n) == 0 && memcmp(a, c, n) != 0);
    free(a);
    free(b);
    free(c);
}

/* The tool's exit status, -1 if a signal ended it, and what it said. */
static int fails(const char *shape, const char *options, char *said, size_t size)
{
    char json[300], command[1000];
    snprintf(json, sizeof json, "%s/odd.json", temp_dir());
    FILE *f = fopen(json, "w");
    check(f && fputs(shape, f) >= 0 && fclose(f) == 0);
    snprintf(command, sizeof command, "%s %s %s/odd.gguf %s 2>&1", repo_path("tools/synth"), json, temp_dir(), options);
    FILE *pipe = popen(command, "r");
    check(pipe != NULL);
    said[fread(said, 1, size - 1, pipe)] = '\0';
    const int st = pclose(pipe);
    return WIFEXITED(st) && WEXITSTATUS(st) < 126 ? WEXITSTATUS(st) : -1;
}

TEST(shapes_and_seeds_that_cannot_be_are_named)
{
    static const struct odd {
        const char *fields, *options, *says;
        int status;
    } odd[] = {
        { "\"mrope_section\": 5", "", "odd.json: mrope_section is 5; a list of three integers", 1 },
        { "\"mrope_section\": [1, 2]", "", "mrope_section is [ 1, 2 ];", 1 },
        { "\"mrope_section\": [1, 2, \"x\"]", "", "mrope_section is", 1 },
        { "\"hidden_size\": \"256\"", "", "hidden_size is \"256\"; an integer from 1", 1 },
        { "\"hidden_size\": 2.5", "", "hidden_size is 2.5; an integer", 1 },
        { "\"num_hidden_layers\": 1001", "", "num_hidden_layers is 1001; at most 1000", 1 },
        { "\"linear_value_head_dim\": 16777216", "", "linear_value_head_dim is 16777216; one that makes", 1 },
        { "\"vocab_size\": 16777216, \"hidden_size\": 16777216", "", "more than 2^46 bytes of weights", 1 },
        { "\"conv\": 1", "--type q4_9", "unknown type q4_9: expected one of f32 f16 ", 2 },
        { "\"head_dim\": 0", "", "head_dim is 0; an integer", 1 },
        { "\"model_type\": [1]", "", "model_type is", 1 },
        { "\"rms_norm_eps\": \"x\"", "", "rms_norm_eps is \"x\"; a number", 1 },
        { "\"partial_rotary_factor\": 2", "", "partial_rotary_factor is 2; a number above 0 and up to 1", 1 },
        { "\"tie_word_embeddings\": 1", "", "tie_word_embeddings is 1; true or false", 1 },
        { "\"conv\": 1", "--tokenizer models/lamb", "the shape has 320 rows", 1 },
        { "\"conv\": 1", "--tokenizer models", "models/tokenizer.json: cannot open", 1 },
        { "\"conv\": 1", "--seed abc", "--seed is abc; a whole number", 2 },
        { "\"conv\": 1", "--seed 5x", "--seed is 5x;", 2 },
        { "\"conv\": 1", "--seed -1", "--seed is -1;", 2 },
        { "\"conv\": 1", "--seed 99999999999999999999", "--seed is 99999999999999999999;", 2 },
    };
    if (access(repo_path("tools/synth"), X_OK) != 0)
        skip_because("tools/synth is not built");
    for (size_t i = 0; i < BW_COUNT(odd); i++) {
        char shape[700], said[2000];
        snprintf(shape, sizeof shape, "{\"hidden_size\": 256, \"num_hidden_layers\": 4, \"num_attention_heads\": 4, \"num_key_value_heads\": 2,"
                 "\"vocab_size\": 320, \"intermediate_size\": 512, %s}", odd[i].fields);
        const int status = fails(shape, odd[i].options, said, sizeof said);
        check_that(status == odd[i].status && strstr(said, odd[i].says), "%s %s: status %d, said %s", odd[i].fields, odd[i].options, status, said);
    }
}

TEST(a_device_is_not_removed_when_writing_fails)
{
    if (access(repo_path("tools/synth"), X_OK) != 0)
        skip_because("tools/synth is not built");
    if (access("/dev/full", W_OK) != 0)
        skip_because("there is no /dev/full");
    char link[300], said[2000];
    struct stat info;
    snprintf(link, sizeof link, "%s/odd.gguf", temp_dir()); /* through a link: were it removed, only the link would go */
    check(symlink("/dev/full", link) == 0);
    check_int(fails(dense_shape(), "", said, sizeof said), 1);
    check(strstr(said, "No space left"));
    check(lstat(link, &info) == 0);
}

TEST(a_tokenizer_that_is_given_comes_out_again)
{
    if (access(repo_path("tools/synth"), X_OK) != 0)
        skip_because("tools/synth is not built");
    char shape[700];
    const char *at = strstr(dense_shape(), "320");
    snprintf(shape, sizeof shape, "%.*s8300%s", (int)(at - dense_shape()), dense_shape(), at + 3);
    bw_text_source *lamb, *synth;
    bw_error err;
    check_ok(bw_text_source_open(&lamb, repo_path("models/lamb"), &err), err);
    check_ok(bw_text_source_open(&synth, synthesise(shape, "--tokenizer models/lamb"), &err), err);
    check_int(bw_text_source_n_tokens(synth), bw_text_source_n_tokens(lamb));
    check_int(bw_text_source_chat_known(synth), bw_text_source_chat_known(lamb));
    static const char request[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"A lamb, 12 hills\\n and a café\"}]}";
    int32_t *want, *got;
    int n_want, n_got;
    check_ok(bw_text_source_chat_encode(lamb, request, strlen(request), &want, &n_want, &err), err);
    check_ok(bw_text_source_chat_encode(synth, request, strlen(request), &got, &n_got, &err), err);
    check_int(n_got, n_want);
    check(memcmp(got, want, (size_t)n_got * sizeof *got) == 0);
    bw_mem_free(want);
    bw_mem_free(got);
    bw_text_source_close(lamb);
    bw_text_source_close(synth);
}


/* ---- in memory ----------------------------------------------------------------------------------- */

static const char *const shape_names[] = { "0.8b", "2b", "27b", "35b-a3b", "moe8" };

static const char *shape_file(const char *shape)
{
    static char path[300];
    snprintf(path, sizeof path, "%s/memory.json", temp_dir());
    FILE *f = fopen(path, "w");
    check(f && fputs(shape, f) >= 0 && fclose(f) == 0);
    return path;
}

static void check_same_checkpoint(const bw_checkpoint *got, const bw_checkpoint *want)
{
    check_int(bw_checkpoint_n_tensors(got), bw_checkpoint_n_tensors(want));
    for (int i = 0; i < bw_checkpoint_n_tensors(want); i++) {
        const bw_tensor *a = bw_checkpoint_tensor_at(got, i), *b = bw_checkpoint_tensor_at(want, i);
        check_str(a->name, b->name);
        check_str(a->type_name, b->type_name);
        check_int(a->n_dims, b->n_dims);
        check(memcmp(a->shape, b->shape, sizeof a->shape) == 0);
        check_int(a->bytes, b->bytes);
        check_that(memcmp(a->data, b->data, (size_t)a->bytes) == 0, "%s: other bytes", a->name);
    }
    check_int(bw_checkpoint_n_values(got), bw_checkpoint_n_values(want));
    for (int i = 0; i < bw_checkpoint_n_values(want); i++) {
        const bw_gguf_value *a = bw_checkpoint_value_at(got, i), *b = bw_checkpoint_value_at(want, i);
        check_str(a->key, b->key);
        if (strcmp(a->key, "general.name") != 0) /* of the config.json */
            check_that(a->type == b->type && a->bytes == b->bytes && memcmp(a->data, b->data, (size_t)a->bytes) == 0, "%s", a->key);
    }
}

TEST(a_model_in_memory_is_the_file_tools_synth_writes)
{
    static const char *const types[] = { "q4_0", "q8_0", "q4_k_m", "q5_k_m", "q6_k", "bf16" };
    if (access(repo_path("tools/synth"), X_OK) != 0)
        skip_because("tools/synth is not built");
    for (size_t i = 0; i < BW_COUNT(types); i++) {
        bw_checkpoint *memory, *file;
        bw_error err;
        char options[100];
        const char *shape = i % 2 ? moe_shape() : dense_shape();
        snprintf(options, sizeof options, "--type %s --seed %zu", types[i], i);
        check_ok(bw_checkpoint_open(&file, synthesise(shape, options), &err), err);
        for (int threads = 1; threads <= 3; threads += 2) {
            const bw_synthetic_options what = { .shape = shape_file(shape), .type = types[i], .seed = i };
            check_ok(bw_synthetic_open(&memory, &what, threads, NULL, NULL, &err), err);
            check_same_checkpoint(memory, file);
            check_int(bw_checkpoint_bytes(memory), bw_checkpoint_bytes(file));
            bw_checkpoint_close(memory);
        }
        bw_checkpoint_close(file);
    }
}

/* The first bytes that the tool writes. */
static char *first_bytes(const char *shape, const char *type, size_t n)
{
    char command[400], *bytes = malloc(n);
    snprintf(command, sizeof command, "%s %s /dev/stdout --type %s 2>&1", repo_path("tools/synth"), shape, type);
    FILE *pipe = popen(command, "r"); /* the tool ends when nobody reads on */
    check(pipe && bytes);
    check_int(fread(bytes, 1, n, pipe), n);
    pclose(pipe);
    return bytes;
}

/* The header alone: pages that nobody touches cost nothing, so a model of 27 billion weights can be looked at. */
static void check_plan(const char *shape, const char *type)
{
    bw_synthetic *synthetic;
    bw_checkpoint *checkpoint;
    bw_config config;
    bw_weights weights;
    bw_error err;
    bw_map map;
    unsigned char *file;
    size_t n;
    check_ok(bw_synthetic_create(&synthetic, &(bw_synthetic_options){ .shape = shape, .type = type, .seed = 1 }, &err), err);
    const unsigned char *header = bw_synthetic_header(synthetic, &n);
    check_int(bw_synthetic_offset(synthetic, 0), n);
    char *written = first_bytes(shape, type, n);
    check_that(memcmp(written, header, n) == 0, "%s %s: the tool's header is another", shape, type);
    free(written);
    check_ok(bw_map_create(&map, &file, bw_synthetic_bytes(synthetic), shape, &err), err);
    memcpy(file, header, n);
    check_ok(bw_checkpoint_adopt(&checkpoint, shape, &map, &err), err);
    check_int(bw_checkpoint_n_tensors(checkpoint), bw_synthetic_n_tensors(synthetic));
    check_ok(bw_config_read(&config, checkpoint, &err), err);
    char name[64]; /* the one tensor whose values are looked at */
    snprintf(name, sizeof name, "blk.%d.nextn.eh_proj.weight", config.n_layers);
    const bw_tensor *t = bw_checkpoint_tensor(checkpoint, name);
    for (int i = 0; t && i < bw_synthetic_n_pieces(synthetic); i++)
        if (bw_synthetic_offset(synthetic, i) == (uint64_t)(t->data - file))
            bw_synthetic_fill(synthetic, i, file + bw_synthetic_offset(synthetic, i));
    check_ok(bw_weights_resolve(&weights, &config, checkpoint, false, &err), err);
    check_int(weights.mtp_state, BW_MTP_COMPLETE);
    bw_weights_release(&weights);
    bw_checkpoint_close(checkpoint);
    bw_synthetic_destroy(synthetic);
}

TEST(every_shape_is_one_plan_in_memory_and_in_the_file)
{
    static const char *const types[] = { "q4_0", "q4_k_m", "q6_k" };
    if (access(repo_path("tools/synth"), X_OK) != 0)
        skip_because("tools/synth is not built");
    for (size_t i = 0; i < BW_COUNT(shape_names); i++)
        for (size_t j = 0; j < BW_COUNT(types); j++)
            check_plan(shape_names[i], types[j]);
}

/* Its header and then a hole: enough to plan with, whatever the model's size. */
static const char *hollow_file(const char *shape, const char *type)
{
    static char path[300];
    bw_synthetic *synthetic;
    bw_error err;
    size_t n;
    const bw_synthetic_options what = { .shape = shape, .type = type, .seed = 1, .no_mtp = true };
    check_ok(bw_synthetic_create(&synthetic, &what, &err), err);
    const unsigned char *header = bw_synthetic_header(synthetic, &n);
    snprintf(path, sizeof path, "%s/hollow.gguf", temp_dir());
    FILE *f = fopen(path, "wb");
    check(f && fwrite(header, 1, n, f) == n && fclose(f) == 0);
    check_int(truncate(path, (off_t)bw_synthetic_bytes(synthetic)), 0);
    bw_synthetic_destroy(synthetic);
    return path;
}

/* Where the head is less than a tenth of what a step reads: of experts, those that a token chooses. */
TEST(drafts_are_chosen_from_more_tokens_where_the_head_is_small)
{
    static const struct { const char *shape, *type; int draft_vocab; } want[] = {
        { "0.8b", "q4_0", 32768 }, { "2b", "q4_0", 32768 }, { "2b", "q4_k_m", 32768 }, { "moe8", "q4_0", 32768 },
        { "35b-a3b", "q4_0", 32768 }, { "27b", "q4_0", 65536 }, { "27b", "q4_k_m", 65536 },
    };
    for (size_t i = 0; i < BW_COUNT(want); i++) {
        bw_model *model;
        bw_memory_plan plan;
        bw_error err;
        const char *path = hollow_file(want[i].shape, want[i].type);
        check_ok(bw_model_open(&model, path, &(bw_model_options){ .plan_only = true }, &err), err);
        const uint64_t head = bw_matrix_bytes(&model->weights.head);
        const uint64_t step = bw_weights_step_bytes(&model->weights, &model->config);
        check_ok(bw_engine_plan(model, &(bw_engine_options){ .context = 512 }, &plan, &err), err);
        check_that(plan.draft_vocab == want[i].draft_vocab && plan.draft_vocab == (head < step / 10 ? 65536 : 32768),
                   "%s %s: %d tokens, the head is %.4f of a step's %.3f GB", want[i].shape, want[i].type,
                   plan.draft_vocab, (double)head / (double)step, (double)step * 1e-9);
        check_ok(bw_engine_plan(model, &(bw_engine_options){ .context = 512, .draft_vocab = 4090 }, &plan, &err), err);
        check_int(plan.draft_vocab, 4096);
        bw_model_close(model);
    }
}

TEST(the_shapes_travel_inside_the_program)
{
    bw_error err;
    check_int(bw_shape_n_files, BW_COUNT(shape_names));
    for (size_t i = 0; i < BW_COUNT(shape_names); i++) {
        char path[100], *inside, *outside;
        size_t n_inside, n_outside;
        snprintf(path, sizeof path, "bench/shapes/%s.json", shape_names[i]);
        char *file = read_file(repo_path(path), &n_outside);
        check_ok(bw_shape_load(shape_names[i], &inside, &n_inside, &err), err);
        check(n_inside == n_outside && memcmp(inside, file, n_inside) == 0);
        bw_mem_free(inside);
        check_ok(bw_shape_load(repo_path(path), &outside, &n_outside, &err), err);
        check(n_inside == n_outside && memcmp(outside, file, n_outside) == 0);
        bw_mem_free(outside);
        free(file);
    }
    char *text;
    size_t n;
    check_error(bw_shape_load("3b", &text, &n, &err), BW_E_ARGUMENT, err, "shape 3b:", "0.8b, 27b, 2b, 35b-a3b, moe8", "config.json");
    check(text == NULL);
}

TEST(the_pieces_of_a_file_follow_each_other)
{
    bw_synthetic *s;
    bw_error err;
    check_ok(bw_synthetic_create(&s, &(bw_synthetic_options){ .shape = "0.8b", .type = "q5_k_m" }, &err), err);
    const int n = bw_synthetic_n_pieces(s);
    for (int i = 0; i < n; i++) {
        const uint64_t from = bw_synthetic_offset(s, i), to = bw_synthetic_offset(s, i + 1);
        check(from < to && to - from <= bw_synthetic_largest_piece(s));
    }
    check_int(bw_synthetic_offset(s, n), bw_synthetic_bytes(s));
    /* A piece is no longer than it says, whoever makes it, and whenever. */
    unsigned char *a = malloc(bw_synthetic_largest_piece(s) + 1), *b = malloc(bw_synthetic_largest_piece(s));
    check(a && b);
    for (int round = 0; round < 100; round++) {
        const int i = rnd_int(0, n - 1);
        const size_t bytes = (size_t)(bw_synthetic_offset(s, i + 1) - bw_synthetic_offset(s, i));
        a[bytes] = 0xA5;
        bw_synthetic_fill(s, i, a);
        bw_synthetic_fill(s, i, b);
        check(a[bytes] == 0xA5 && memcmp(a, b, bytes) == 0);
    }
    free(a);
    free(b);
    bw_synthetic_destroy(s);
}

TEST(what_cannot_be_made_is_refused_before_it_is_begun)
{
    static const char huge[] = "{\"hidden_size\": 65536, \"num_hidden_layers\": 40, \"num_attention_heads\": 64, \"num_key_value_heads\": 8,"
                               "\"vocab_size\": 1000000, \"intermediate_size\": 300000}";
    bw_checkpoint *c;
    bw_model *model;
    bw_error err;
    bw_synthetic_options what = { .shape = shape_file(huge), .type = "f32" };
    check_error(bw_synthetic_open(&c, &what, 1, NULL, NULL, &err), BW_E_MEMORY, err, "synthetic ", "memory.json f32: ", "GiB of free memory");
    check(c == NULL);
    check_error(bw_model_open_synthetic(&model, &what, NULL, &err), BW_E_MEMORY, err, "GiB of free memory");
    check(model == NULL);
    what = (bw_synthetic_options){ .shape = "0.8b", .type = "int4" };
    check_error(bw_synthetic_open(&c, &what, 1, NULL, NULL, &err), BW_E_ARGUMENT, err, "unknown type int4", bw_synthetic_types);
    what = (bw_synthetic_options){ .shape = "0.7b" };
    check_error(bw_model_open_synthetic(&model, &what, NULL, &err), BW_E_ARGUMENT, err, "shape 0.7b");
    what = (bw_synthetic_options){ .shape = shape_file("[1, 2]") };
    check_error(bw_synthetic_open(&c, &what, 1, NULL, NULL, &err), BW_E_FORMAT, err, "memory.json", "JSON object");
}

TEST(making_a_model_survives_every_failed_allocation)
{
    const bw_synthetic_options what = { .shape = shape_file(moe_shape()), .type = "q4_0", .tokenizer = NULL };
    const uint64_t before = bw_mem_used(BW_MEM_MISC);
    for (long n = 1;; n++) {
        bw_checkpoint *c = NULL;
        bw_error err;
        bw_mem_fail_at(n);
        const bw_status st = bw_synthetic_open(&c, &what, 1, NULL, NULL, &err);
        if (!bw_mem_fail_at(0)) {
            check_ok(st, err);
            bw_checkpoint_close(c);
            break;
        }
        check_int(st, BW_E_MEMORY);
        check(c == NULL);
        check_int(bw_mem_used(BW_MEM_MISC), before);
    }
    check_int(bw_mem_used(BW_MEM_MISC), before);
}

static void note_progress(void *arg, double done)
{
    double *last = arg;
    check(done >= 0 && done <= 1);
    *last = done;
}

static int next_tokens(bw_model *model, int32_t *tokens, int room)
{
    bw_engine *engine;
    bw_error err;
    bw_seq_id id;
    bw_event event;
    int n = 0;
    bw_engine_options options = bw_engine_defaults();
    options.context = 256;
    check_ok(bw_engine_create(&engine, model, &options, &err), err);
    bw_request request = bw_request_defaults(model);
    request.prompt = (const int32_t[]){ 5, 6, 7 };
    request.n_prompt = 3;
    request.max_tokens = room;
    request.draft = 2;
    check_ok(bw_engine_submit(engine, &request, &id, &err), err);
    while (!bw_engine_idle(engine)) {
        check_ok(bw_engine_step(engine, &err), err);
        while (bw_engine_event(engine, &event)) {
            check_int(event.usage->simulated, false);
            for (int i = 0; i < event.n_tokens; i++)
                tokens[n++] = event.tokens[i];
        }
    }
    bw_engine_destroy(engine);
    return n;
}

TEST(a_model_made_in_memory_runs_as_the_file_does)
{
    if (access(repo_path("tools/synth"), X_OK) != 0)
        skip_because("tools/synth is not built");
    bw_model *memory, *file;
    bw_model_facts facts;
    bw_error err;
    double done = 0;
    int32_t a[20], b[20];
    const bw_synthetic_options what = { .shape = shape_file(dense_shape()), .type = "q4_0", .seed = 1 };
    const bw_model_options options = { .n_threads = 2, .progress = note_progress, .progress_arg = &done };
    check_ok(bw_model_open_synthetic(&memory, &what, &options, &err), err);
    check(done == 1);
    check(memory->synthetic && strncmp(bw_model_get_info(memory)->path, "synthetic ", 10) == 0);
    check(bw_model_get_info(memory)->has_mtp && !bw_model_get_info(memory)->has_text);
    bw_model_get_facts(memory, &facts);
    check_str(facts.quantization, "Q4_0");
    check_ok(bw_model_open(&file, synthesise(dense_shape(), "--type q4_0"), &options, &err), err);
    check(!file->synthetic);
    check_int(next_tokens(memory, a, 20), 20);
    check_int(next_tokens(file, b, 20), 20);
    check(memcmp(a, b, sizeof a) == 0);
    bw_model_close(memory);
    bw_model_close(file);
}

TEST(a_tokenizer_can_be_asked_for_in_memory_too)
{
    char shape[700];
    const char *at = strstr(dense_shape(), "320");
    snprintf(shape, sizeof shape, "%.*s8300%s", (int)(at - dense_shape()), dense_shape(), at + 3);
    bw_model *model;
    bw_error err;
    const bw_synthetic_options what = { .shape = shape_file(shape), .tokenizer = repo_path("models/lamb") };
    check_ok(bw_model_open_synthetic(&model, &what, NULL, &err), err);
    check(bw_model_get_info(model)->has_text);
    int32_t *ids;
    int n;
    check_ok(bw_encode(model, "a lamb", 6, false, &ids, &n, &err), err);
    check(n > 0);
    bw_free(ids);
    bw_model_close(model);
}

/* ---- letting go of pages ------------------------------------------------------------------------- */

/* The largest tensor, and its copy. */
static const bw_tensor *largest(const bw_checkpoint *c, unsigned char **copy)
{
    const bw_tensor *t = bw_checkpoint_tensor_at(c, 0);
    for (int i = 1; i < bw_checkpoint_n_tensors(c); i++)
        if (bw_checkpoint_tensor_at(c, i)->bytes > t->bytes)
            t = bw_checkpoint_tensor_at(c, i);
    *copy = malloc((size_t)t->bytes);
    check(*copy != NULL);
    memcpy(*copy, t->data, (size_t)t->bytes);
    return t;
}

TEST(forgotten_pages_of_memory_are_gone_and_their_neighbours_are_not)
{
    bw_checkpoint *c;
    bw_error err;
    unsigned char *copy;
    const bw_synthetic_options what = { .shape = shape_file(dense_shape()), .type = "f32" };
    check_ok(bw_synthetic_open(&c, &what, 1, NULL, NULL, &err), err);
    const bw_tensor *t = largest(c, &copy);
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)t->data, end = start + (uintptr_t)t->bytes;
    check(t->bytes > 8 * page);
    bw_checkpoint_forget(c, copy, t->bytes);             /* not in the file: nothing happens */
    bw_checkpoint_forget(c, t->data, UINT64_MAX);        /* nor out of it */
    bw_checkpoint_forget(c, t->data + page - start % page + 1, page); /* no whole page */
    bw_checkpoint_forget(c, t->data, 0);
    check(memcmp(t->data, copy, (size_t)t->bytes) == 0);
    bw_checkpoint_forget(c, t->data, t->bytes);
    const size_t head = (size_t)((page - start % page) % page), tail = (size_t)(end % page);
    check(memcmp(t->data, copy, head) == 0);
    check(memcmp(t->data + t->bytes - tail, copy + t->bytes - tail, tail) == 0);
    for (size_t i = head; i < t->bytes - tail; i++)
        check(t->data[i] == 0);
    free(copy);
    bw_checkpoint_close(c);
}

TEST(forgotten_pages_of_a_file_are_read_again)
{
    if (access(repo_path("tools/synth"), X_OK) != 0)
        skip_because("tools/synth is not built");
    bw_checkpoint *c;
    bw_error err;
    unsigned char *copy;
    check_ok(bw_checkpoint_open(&c, synthesise(dense_shape(), "--type f32"), &err), err);
    const bw_tensor *t = largest(c, &copy);
    bw_checkpoint_forget(c, t->data, t->bytes);
    check(memcmp(t->data, copy, (size_t)t->bytes) == 0);
    free(copy);
    bw_checkpoint_close(c);
}

TESTS_MAIN(ENTRY(a_tokenizer_that_is_given_comes_out_again),
           ENTRY(every_type_gives_a_file_that_resolves), ENTRY(the_head_can_be_left_out),
           ENTRY(a_seed_repeats_a_file_and_another_gives_another), ENTRY(shapes_and_seeds_that_cannot_be_are_named),
           ENTRY(a_device_is_not_removed_when_writing_fails), ENTRY(a_model_in_memory_is_the_file_tools_synth_writes),
           ENTRY(every_shape_is_one_plan_in_memory_and_in_the_file),
           ENTRY(drafts_are_chosen_from_more_tokens_where_the_head_is_small),
           ENTRY(the_shapes_travel_inside_the_program),
           ENTRY(the_pieces_of_a_file_follow_each_other), ENTRY(what_cannot_be_made_is_refused_before_it_is_begun),
           ENTRY(making_a_model_survives_every_failed_allocation), ENTRY(a_model_made_in_memory_runs_as_the_file_does),
           ENTRY(a_tokenizer_can_be_asked_for_in_memory_too),
           ENTRY(forgotten_pages_of_memory_are_gone_and_their_neighbours_are_not), ENTRY(forgotten_pages_of_a_file_are_read_again))
