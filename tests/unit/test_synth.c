/* What tools/synth writes opens, resolves whole, and holds weights of a sane spread. */
#include "lib/check.h"

#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/dequant.h"
#include "base/mem.h"
#include "engine/text_source.h"
#include "format/checkpoint.h"
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
        { "\"head_dim\": 0", "", "head_dim is 0; an integer", 1 },
        { "\"model_type\": [1]", "", "model_type is", 1 },
        { "\"rms_norm_eps\": \"x\"", "", "rms_norm_eps is \"x\"; a number", 1 },
        { "\"partial_rotary_factor\": 2", "", "partial_rotary_factor is 2; a number above 0 and up to 1", 1 },
        { "\"tie_word_embeddings\": 1", "", "tie_word_embeddings is 1; true or false", 1 },
        { "\"conv\": 1", "--tokenizer models/lamb", "the shape has 320 rows", 1 },
        { "\"conv\": 1", "--tokenizer models", "models/tokenizer.json: cannot be read", 1 },
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

TESTS_MAIN(ENTRY(a_tokenizer_that_is_given_comes_out_again),
           ENTRY(every_type_gives_a_file_that_resolves), ENTRY(the_head_can_be_left_out),
           ENTRY(a_seed_repeats_a_file_and_another_gives_another), ENTRY(shapes_and_seeds_that_cannot_be_are_named),
           ENTRY(a_device_is_not_removed_when_writing_fails))
