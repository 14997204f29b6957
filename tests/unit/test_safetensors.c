/* A safetensors header is believed only when every number in it fits every other and the file. */
#include "lib/check.h"

#include <stdlib.h>

#include "base/mem.h"
#include "format/checkpoint_parts.h"
#include "lib/model_files.h"

/* The block is exact, so that a sanitizer sees the first byte read outside it. */
static bw_status parse(bw_checkpoint **c, const void *data, size_t n, bw_error *err)
{
    return bw_checkpoint_from_memory(c, BW_CONTAINER_HF, "x.safetensors", data, n, err);
}

static bw_status parse_header(const char *header, size_t n_data, bw_error *err)
{
    bw_checkpoint *c;
    bytes b = safetensors_of(header, n_data);
    unsigned char *exact = malloc(b.n);
    memcpy(exact, b.data, b.n);
    bw_status st = parse(&c, exact, b.n, err);
    check((st == BW_OK) == (c != NULL));
    bw_checkpoint_close(c);
    free(exact);
    bytes_free(&b);
    return st;
}

#define T(shape, offsets) "{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

TEST(valid_headers_of_every_kind_open)
{
    bw_error err;
    check_ok(parse_header("{}", 0, &err), err);
    check_ok(parse_header("{}   ", 0, &err), err);
    check_ok(parse_header("{\"__metadata__\":{\"format\":\"pt\",\"a\":\"\\u00e9\"},\"t\":" T("[2,3]", "[0,24]") "}", 24, &err), err);
    check_ok(parse_header("{\"scalar\":" T("[]", "[0,4]") "}", 4, &err), err);
    check_ok(parse_header("{\"a\":" T("[2]", "[0,8]") ",\"none\":" T("[0,5]", "[8,8]") ",\"b\":" T("[1]", "[8,12]") "}", 12, &err), err);
    check_ok(parse_header("{\"b\":" T("[1]", "[4,8]") " , \"a\" : " T("[ 1 ]", "[ 0 , 4 ]") "}", 8, &err), err);
    check_ok(parse_header("{\"a\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[0,2]}}", 2, &err), err);
    check_ok(parse_header("{\"a\":{\"dtype\":\"F32\",\"x\":[1,{\"y\":null}],\"shape\":[1],\"data_offsets\":[0,4]}}", 4, &err), err);
}

static bw_status parse_unknown(const char *value, bw_error *err)
{
    char header[4000];
    snprintf(header, sizeof header, "{\"a\":{\"x\":%s,\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", value);
    bytes b = safetensors_of(header, 4);
    unsigned char *at = memchr(b.data + 8, '@', b.n - 8); /* stands for NUL */
    if (at)
        *at = 0;
    bw_checkpoint *c;
    bw_status st = parse(&c, b.data, b.n, err);
    bw_checkpoint_close(c);
    bytes_free(&b);
    return st;
}

TEST(the_value_of_an_unknown_key_must_be_json)
{
    static const char *const good[] = { "0", "-0", "1", "-12", "0.5", "1e5", "1E+5", "-1.25e-07", "true", "false", "null", "\"s\"", "[]", "{}",
                                        "[0 , 1.5,null]", "{\"k\":{\"k\":true},\"l\":{\"k\":1}}" };
    static const char *const bad[] = { "1abc.e+-", "1abc", "01", "-", "-01", "+1", ".5", "1.", "1.e5", "1e", "1e+", "1e5.5", "0x10", "1-2", "NaN",
                                       "-Infinity", "nul", "nulll", "True", "tru", "", "@", "1@", "[1,]", "[,1]", "[1 2]", "{\"k\":1,}",
                                       "{\"k\" 1}", "{k:1}", "[1}" };
    static const char *const twice[] = { "{\"k\":1,\"k\":2}", "[{\"k\":1,\"l\":2,\"\\u006b\":3}]" };
    bw_error err;
    for (size_t i = 0; i < BW_COUNT(good); i++)
        check_ok(parse_unknown(good[i], &err), err);
    for (size_t i = 0; i < BW_COUNT(bad); i++)
        check_that(parse_unknown(bad[i], &err) == BW_E_FORMAT, "%s is accepted", bad[i]);
    for (size_t i = 0; i < BW_COUNT(twice); i++)
        check_error(parse_unknown(twice[i], &err), BW_E_FORMAT, err, "x.safetensors", "twice");
    char many[3000] = "{";
    for (int i = 0; i < 65; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many), "%s\"%d\":0", i ? "," : "", i);
    strcat(many, "}");
    check_error(parse_unknown(many, &err), BW_E_FORMAT, err, "more than 64 keys");
}

TEST(tensors_are_lent_as_the_header_describes_them)
{
    bw_checkpoint *c;
    bw_error err;
    bytes b = safetensors_of("{\"b\\u0021\":{\"dtype\":\"BF16\",\"shape\":[2,1,3],\"data_offsets\":[8,20]},\"a\":{\"dtype\":\"I64\",\"shape\":[1],"
                             "\"data_offsets\":[0,8]}}", 20);
    check_ok(parse(&c, b.data, b.n, &err), err);
    check_int(bw_checkpoint_n_tensors(c), 2);
    const bw_tensor *t = bw_checkpoint_tensor(c, "b!");
    check(t && t->readable && t->type == BW_BF16 && t->n_dims == 3 && t->shape[2] == 3 && t->bytes == 12);
    check(t->data == b.data + b.n - 12);
    t = bw_checkpoint_tensor(c, "a");
    check(t && !t->readable);
    check_str(t->type_name, "I64");
    check(bw_checkpoint_tensor(c, "c") == NULL);
    bw_checkpoint_close(c);
    bytes_free(&b);
}

TEST(a_header_that_contradicts_itself_or_the_file_is_named)
{
    static const struct broken {
        const char *header;
        size_t n_data;
        const char *says;
    } broken[] = {
        { "{}x", 0, "follows the header's end" },
        { "{\"a\":" T("[1]", "[0,4]") ",\"a\":" T("[1]", "[4,8]") "}", 8, "twice" },
        { "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype twice" },
        { "{\"a\":" T("[2]", "[0,4]") "}", 4, "needs 8 bytes" },
        { "{\"a\":" T("[1]", "[4,0]") "}", 4, "a begin and an end" },
        { "{\"a\":" T("[500000000000000000]", "[0,2000000000000000000]") "}", 4, "cut off" },
        { "{\"a\":" T("[4294967296,4294967296]", "[0,4]") "}", 4, "overflows" },
        { "{\"a\":" T("[1099511627776,1099511627776]", "[0,4]") "}", 4, "overflows" },
        { "{\"a\":" T("[-1]", "[0,4]") "}", 4, "integers from 0 up" },
        { "{\"a\":" T("[-0]", "[0,0]") "}", 0, "integers from 0 up" },
        { "{\"a\":" T("[1.0]", "[0,4]") "}", 4, "written as integers" },
        { "{\"a\":" T("[1e3]", "[0,4]") "}", 4, "written as integers" },
        { "{\"a\":" T("[01]", "[0,4]") "}", 4, "begins with 0" },
        { "{\"a\":" T("[18446744073709551616]", "[0,4]") "}", 4, "does not fit 64 bits" },
        { "{\"a\":" T("[[1]]", "[0,4]") "}", 4, "nested" },
        { "{\"a\":" T("[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "more than 8" },
        { "{\"a\":" T("\"1\"", "[0,4]") "}", 4, "list is expected" },
        { "{\"a\":" T("[1]", "[0,4,8]") "}", 4, "more than 2" },
        { "{\"a\":" T("[1]", "[0]") "}", 4, "a begin and an end" },
        { "{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, "whole number of bytes" },
        { "{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "string is expected" },
        { "{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "lacks dtype" },
        { "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "lacks shape" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "lacks data_offsets" },
        { "{\"a\":{}}", 4, "lacks dtype" },
        { "{\"a\":[]}", 4, "must be an object" },
        { "{\"a\":" T("[1]", "[0,4]") ",\"b\":" T("[1]", "[2,6]") "}", 6, "overlap" },
        { "{\"a\":" T("[1]", "[0,4]") ",\"b\":" T("[1]", "[8,12]") "}", 12, "a hole" },
        { "{\"a\":" T("[1]", "[4,8]") "}", 8, "a hole" },
        { "{\"a\":" T("[1]", "[0,4]") "}", 3, "cut off" },
        { "{\"a\":" T("[1]", "[0,4]") "}", 5, "appended" },
        { "{\"__metadata__\":{\"a\":1}}", 0, "strings to strings" },
        { "{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, "twice" },
        { "{\"__metadata__\":{},\"__metadata__\":{}}", 0, "twice" },
        { "{\"a\\u0000b\":" T("[1]", "[0,4]") "}", 4, "NUL" },
        { "{\"a\\ud800\":" T("[1]", "[0,4]") "}", 4, "escape" },
        { "{\"a\\x\":" T("[1]", "[0,4]") "}", 4, "escape" },
        { "{\"\xC3\x28\":" T("[1]", "[0,4]") "}", 4, "UTF-8" },
        { "{\"\xED\xA0\x80\":" T("[1]", "[0,4]") "}", 4, "UTF-8" },
        { "{\"a\":" T("[1]", "[0,4]"), 4, "does not end" },
        { "{\"a\":{", 4, "string is expected" },
        { "{\"a", 4, "does not end" },
        { "{\"a\"", 4, "colon" },
        { "{\"a\":" T("[1]", "[0,4]") ",}", 4, "string is expected" },
        { "{\"a\":{\"x\":[[[1]]],\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "nested deeper" },
        { "{\"a\":{\"x\":1,\"x\":2,\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "x twice" },
        { "{\"a\":{\"x\":?}}", 4, "value is expected" },
        { "[]", 0, "begins with byte 5b" },
        { "{\"a\tb\":" T("[1]", "[0,4]") "}", 4, "control character" },
    };
    for (size_t i = 0; i < BW_COUNT(broken); i++) {
        bw_error err;
        check_error(parse_header(broken[i].header, broken[i].n_data, &err), BW_E_FORMAT, err, "x.safetensors", broken[i].says);
    }
    bw_error err;
    check_error(parse_header("{\"a\":{\"dtype\":\"F128\",\"shape\":[1],\"data_offsets\":[0,16]}}", 16, &err), BW_E_UNSUPPORTED, err, "F128", "a");
}

TEST(a_length_that_cannot_be_is_refused_before_it_is_used)
{
    static const uint64_t lengths[] = { 0, 1, 100000001, (uint64_t)1 << 63, UINT64_MAX, 29, 30 };
    for (size_t i = 0; i < BW_COUNT(lengths); i++) {
        bytes b = { 0 };
        bw_checkpoint *c;
        bw_error err;
        bytes_u64(&b, lengths[i]);
        bytes_add(&b, "{}", 2);
        bytes_zero(&b, 26);
        check_error(parse(&c, b.data, b.n, &err), BW_E_FORMAT, err, "x.safetensors",
                    lengths[i] == 29 || lengths[i] == 30 ? "cut off inside its header" : "impossible");
        bytes_free(&b);
    }
    for (size_t n = 0; n < 8; n++) {
        bw_checkpoint *c;
        bw_error err;
        unsigned char *exact = calloc(n + 1, 1);
        check_error(parse(&c, exact, n, &err), BW_E_FORMAT, err, n ? "too short" : "empty");
        free(exact);
    }
}

TEST(what_is_saved_in_place_of_a_model_is_recognised)
{
    static const char *const impostors[][2] = {
        { "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "git lfs pull" },
        { "<!DOCTYPE html><html>", "error page" },
        { "{\"error\":\"Repository not found\"}", "Repository not found" },
        { "Entry not found", "Entry not found" },
    };
    for (size_t i = 0; i < BW_COUNT(impostors); i++) {
        bw_checkpoint *c;
        bw_error err;
        check_error(parse(&c, impostors[i][0], strlen(impostors[i][0]), &err), BW_E_FORMAT, err, impostors[i][1]);
        check_error(bw_checkpoint_from_memory(&c, BW_CONTAINER_GGUF, "x.gguf", (const unsigned char *)impostors[i][0],
                                              strlen(impostors[i][0]), &err), BW_E_FORMAT, err, impostors[i][1]);
    }
}

TEST(headers_made_to_be_slow_are_refused_soon)
{
    bw_error err;
    bytes b = { 0 };
    char entry[80];
    bytes_add(&b, "{", 1);
    for (int i = 0; i < 1000001; i++)
        bytes_add(&b, entry, (size_t)snprintf(entry, sizeof entry, "%s\"%d\":" T("[0]", "[0,0]"), i ? "," : "", i));
    bytes_add(&b, "}", 2); /* and the NUL */
    check_error(parse_header((const char *)b.data, 0, &err), BW_E_LIMIT, err, "1000000 tensors");
    bytes_free(&b);
    bytes_add(&b, "{\"", 2);
    for (int i = 0; i < 1 << 20; i++)
        bytes_add(&b, "n", 1);
    bytes_add(&b, "\":" T("[0]", "[0,0]") "}", sizeof("\":" T("[0]", "[0,0]") "}"));
    check_error(parse_header((const char *)b.data, 0, &err), BW_E_FORMAT, err, "64 KiB");
    bytes_free(&b);
    bytes_add(&b, "{\"a\":{\"shape\":", 14);
    for (int i = 0; i < 300; i++)
        bytes_add(&b, "[", 1);
    bytes_add(&b, "", 1);
    check_error(parse_header((const char *)b.data, 0, &err), BW_E_FORMAT, err, "nested");
    bytes_free(&b);
    bytes_add(&b, "{\"__metadata__\":{", 17);
    for (int i = 0; i < 3000; i++)
        bytes_add(&b, entry, (size_t)snprintf(entry, sizeof entry, "%s\"%d\":\"\"", i ? "," : "", i));
    bytes_add(&b, "}}", 3);
    check_error(parse_header((const char *)b.data, 0, &err), BW_E_FORMAT, err, "2,000 keys");
    bytes_free(&b);
}

/* Opens as something or fails with a message; nothing else. */
static void try_any(const unsigned char *data, size_t n)
{
    bw_checkpoint *c;
    bw_error err = { 0 };
    unsigned char *exact = malloc(n ? n : 1);
    memcpy(exact, data, n);
    if (parse(&c, exact, n, &err))
        check(!c && err.message[0]);
    for (int i = 0; c && i < bw_checkpoint_n_tensors(c); i++) {
        const bw_tensor *t = bw_checkpoint_tensor_at(c, i);
        check(!t->bytes || (t->data >= exact && t->bytes <= (uint64_t)(exact + n - t->data)));
    }
    bw_checkpoint_close(c);
    free(exact);
}

TEST(no_cut_and_no_flipped_bit_reads_outside_the_file)
{
    static const char header[] = "{\"__metadata__\":{\"format\":\"pt\"},\"layers.0\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[0,12]},"
                                 "\"b\\u00e9\":" T("[4]", "[12,28]") "}";
    bytes b = safetensors_of(header, 28);
    for (size_t n = 0; n <= b.n; n++)
        try_any(b.data, n);
    for (size_t bit = 0; bit < 8 * (8 + sizeof header - 1); bit++) {
        b.data[bit / 8] ^= (unsigned char)(1u << (bit % 8));
        try_any(b.data, b.n);
        b.data[bit / 8] ^= (unsigned char)(1u << (bit % 8));
    }
    for (int round = 0; round < 20000; round++) {
        unsigned char *copy = malloc(b.n);
        memcpy(copy, b.data, b.n);
        for (int k = rnd_int(1, 4); k > 0; k--)
            copy[rnd_int(8, (int)sizeof header + 6)] = (unsigned char)"{}[]\",:0123456789ae-.\\u\x80 "[rnd_int(0, 25)];
        try_any(copy, b.n);
        free(copy);
    }
    bytes_free(&b);
}

TEST(every_allocation_may_fail)
{
    static const char header[] = "{\"a\":" T("[1]", "[0,4]") ",\"b\":" T("[1]", "[4,8]") "}";
    bytes b = safetensors_of(header, 8);
    uint64_t before = bw_mem_used(BW_MEM_MISC);
    bool failed = true;
    for (long n = 1; failed; n++) {
        bw_checkpoint *c;
        bw_error err;
        bw_mem_fail_at(n);
        bw_status st = parse(&c, b.data, b.n, &err);
        failed = bw_mem_fail_at(0);
        check_int(st, failed ? BW_E_MEMORY : BW_OK);
        bw_checkpoint_close(c);
        check_int(bw_mem_used(BW_MEM_MISC), before);
    }
    bytes_free(&b);
}

TESTS_MAIN(ENTRY(valid_headers_of_every_kind_open), ENTRY(tensors_are_lent_as_the_header_describes_them),
           ENTRY(the_value_of_an_unknown_key_must_be_json),
           ENTRY(a_header_that_contradicts_itself_or_the_file_is_named), ENTRY(a_length_that_cannot_be_is_refused_before_it_is_used),
           ENTRY(what_is_saved_in_place_of_a_model_is_recognised), ENTRY(headers_made_to_be_slow_are_refused_soon),
           ENTRY(no_cut_and_no_flipped_bit_reads_outside_the_file), ENTRY(every_allocation_may_fail))
