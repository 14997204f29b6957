/* GGUF metadata and tensor tables, whole and split, and everything that can be wrong with them. */
#include "lib/check.h"

#include <stdlib.h>

#include "base/mem.h"
#include "format/checkpoint_parts.h"
#include "lib/model_files.h"

enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 }; /* value types of the format */

static void header(bytes *b, uint64_t n_tensors, uint64_t n_values)
{
    bytes_add(b, "GGUF", 4);
    bytes_u32(b, 3);
    bytes_u64(b, n_tensors);
    bytes_u64(b, n_values);
}

static void key(bytes *b, const char *name, uint32_t type)
{
    bytes_string(b, name);
    bytes_u32(b, type);
}

static void tensor(bytes *b, const char *name, uint64_t in, uint64_t out, uint32_t type, uint64_t offset)
{
    bytes_string(b, name);
    bytes_u32(b, out ? 2 : 1);
    bytes_u64(b, in);
    if (out)
        bytes_u64(b, out);
    bytes_u32(b, type);
    bytes_u64(b, offset);
}

/* Pads to the alignment and adds the data section. */
static void data(bytes *b, size_t n)
{
    bytes_zero(b, (32 - b->n % 32) % 32 + n);
}

static bw_status parse(bw_checkpoint **c, const bytes *b, bw_error *err)
{
    return bw_checkpoint_from_memory(c, BW_CONTAINER_GGUF, "x.gguf", b->data, b->n, err);
}

/* The block is exact, so that a sanitizer sees the first byte read outside it; *b is freed. */
static bw_status parse_exact(bytes *b, bw_error *err)
{
    bw_checkpoint *c;
    unsigned char *exact = malloc(b->n ? b->n : 1);
    if (b->n)
        memcpy(exact, b->data, b->n);
    const bytes block = { exact, b->n, b->n };
    bw_status st = parse(&c, &block, err);
    check((st == BW_OK) == (c != NULL));
    bw_checkpoint_close(c);
    free(exact);
    bytes_free(b);
    return st;
}

/* A file with one of everything. */
static bytes sample(void)
{
    bytes b = { 0 };
    header(&b, 3, 8);
    key(&b, "general.architecture", STRING);
    bytes_string(&b, "qwen35");
    key(&b, "a.u8", U8);
    bytes_add(&b, "\xFE", 1);
    key(&b, "a.i16", I16);
    bytes_add(&b, "\xFE\xFF", 2);
    key(&b, "a.u64", U64);
    bytes_u64(&b, UINT64_MAX);
    key(&b, "a.f32", F32);
    bytes_u32(&b, 0x3FC00000);
    key(&b, "a.true", BOOL);
    bytes_add(&b, "\1", 1);
    key(&b, "a.words", ARRAY);
    bytes_u32(&b, STRING);
    bytes_u64(&b, 3);
    bytes_string(&b, "one");
    bytes_string(&b, "");
    bytes_string(&b, "\xFF\x80");
    key(&b, "a.numbers", ARRAY);
    bytes_u32(&b, I32);
    bytes_u64(&b, 2);
    bytes_u32(&b, 7);
    bytes_u32(&b, (uint32_t)-7);
    tensor(&b, "plain", 5, 3, 0, 0);     /* F32: 60 bytes, padded to 64 */
    tensor(&b, "packed", 64, 2, 8, 64);  /* Q8_0: 136 bytes, padded to 160 */
    tensor(&b, "strange", 256, 0, 16, 224); /* IQ2_XXS: known, not computed with */
    data(&b, 224 + 66);
    return b;
}

TEST(values_of_every_kind_are_read_as_what_they_are)
{
    bw_checkpoint *c;
    bw_error err;
    bytes b = sample();
    int64_t n;
    double x;
    bool truth;
    bw_slice text;
    check_ok(parse(&c, &b, &err), err);
    check_int(bw_checkpoint_n_values(c), 8);
    check(bw_gguf_int(bw_checkpoint_value(c, "a.u8"), 0, &n) && n == 254);
    check(bw_gguf_int(bw_checkpoint_value(c, "a.i16"), 0, &n) && n == -2);
    check(!bw_gguf_int(bw_checkpoint_value(c, "a.u64"), 0, &n) && !bw_gguf_int(bw_checkpoint_value(c, "a.f32"), 0, &n));
    check(!bw_gguf_int(bw_checkpoint_value(c, "a.u8"), 1, &n) && !bw_gguf_int(bw_checkpoint_value(c, "none"), 0, &n));
    check(bw_gguf_float(bw_checkpoint_value(c, "a.f32"), 0, &x) && x == 1.5);
    check(bw_gguf_float(bw_checkpoint_value(c, "a.i16"), 0, &x) && x == -2);
    check(bw_gguf_bool(bw_checkpoint_value(c, "a.true"), 0, &truth) && truth);
    check(bw_gguf_string(bw_checkpoint_value(c, "general.architecture"), &text) && text.n == 6 && memcmp(text.text, "qwen35", 6) == 0);
    check(!bw_gguf_string(bw_checkpoint_value(c, "a.words"), &text));
    check_int(bw_gguf_find_string(bw_checkpoint_value(c, "a.words"), "\xFF\x80"), 2);
    check_int(bw_gguf_find_string(bw_checkpoint_value(c, "a.words"), "on"), -1);
    bw_slice *words;
    int32_t *numbers;
    size_t count;
    check_ok(bw_checkpoint_strings(c, "a.words", &words, &count, &err), err);
    check(count == 3 && words[0].n == 3 && words[1].n == 0 && memcmp(words[2].text, "\xFF\x80", 2) == 0);
    check_ok(bw_checkpoint_ints(c, "a.numbers", &numbers, &count, &err), err);
    check(count == 2 && numbers[0] == 7 && numbers[1] == -7);
    bw_mem_free(words);
    bw_mem_free(numbers);
    check_error(bw_checkpoint_strings(c, "a.numbers", &words, &count, &err), BW_E_FORMAT, err, "a.numbers", "strings");
    check_error(bw_checkpoint_ints(c, "a.words", &numbers, &count, &err), BW_E_FORMAT, err, "a.words", "integers");
    bw_checkpoint_close(c);
    bytes_free(&b);
}

TEST(tensors_are_lent_rows_first)
{
    bw_checkpoint *c;
    bw_error err;
    bytes b = sample();
    check_ok(parse(&c, &b, &err), err);
    const bw_tensor *t = bw_checkpoint_tensor(c, "plain");
    check(t && t->type == BW_F32 && t->n_dims == 2 && t->shape[0] == 3 && t->shape[1] == 5 && t->data == b.data + b.n - 290);
    t = bw_checkpoint_tensor(c, "packed");
    check(t && t->type == BW_Q8_0 && t->shape[0] == 2 && t->shape[1] == 64 && t->bytes == 136 && t->data == b.data + b.n - 290 + 64);
    t = bw_checkpoint_tensor(c, "strange");
    check(t && !t->readable);
    check_str(t->type_name, "IQ2_XXS");
    bw_checkpoint_close(c);
    bytes_free(&b);
}

/* One key, then a value that `rest` describes. */
static bw_status with_value(uint32_t type, const void *rest, size_t n, bw_error *err)
{
    bytes b = { 0 };
    header(&b, 0, 1);
    key(&b, "a.key", type);
    bytes_add(&b, rest, n);
    return parse_exact(&b, err);
}

TEST(metadata_that_cannot_be_is_refused)
{
    bw_error err;
    bytes b = { 0 };
    static const uint64_t huge[] = { (uint64_t)1 << 63, UINT64_MAX, (uint64_t)1 << 30, 9 };
    for (size_t i = 0; i < BW_COUNT(huge); i++) {
        check_error(with_value(STRING, &huge[i], 8, &err), BW_E_FORMAT, err, "x.gguf", "a.key", "cut off");
        bytes array = { 0 };
        bytes_u32(&array, i % 2 ? STRING : U64);
        bytes_u64(&array, huge[i]);
        bytes_zero(&array, 20);
        check_error(with_value(ARRAY, array.data, array.n, &err), BW_E_FORMAT, err, "a.key", "cut off");
        bytes_free(&array);
    }
    check_error(with_value(ARRAY, "\x09\0\0\0\1\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0\0\0\0\0", 24, &err), BW_E_FORMAT, err, "a.key", "array element type 9");
    check_error(with_value(13, "\0\0\0\0\0\0\0\0", 8, &err), BW_E_FORMAT, err, "a.key", "type 13");
    check_error(with_value((uint32_t)-1, "\0\0\0\0\0\0\0\0", 8, &err), BW_E_FORMAT, err, "a.key");
    check_error(with_value(BOOL, "\2", 1, &err), BW_E_FORMAT, err, "truth value 2");
    for (int twice = 0; twice < 2; twice++) { /* a name that stands twice, a name that is empty */
        header(&b, 0, 2);
        key(&b, "a.key", U8);
        bytes_add(&b, "", 1);
        key(&b, twice ? "a.key" : "", U8);
        bytes_add(&b, "", 1);
        check_error(parse_exact(&b, &err), BW_E_FORMAT, err, twice ? "twice" : "1 to 65536 bytes");
    }
    static const uint32_t alignments[] = { 0, 3, (uint32_t)1 << 31 };
    for (size_t i = 0; i < BW_COUNT(alignments); i++) {
        header(&b, 0, 1);
        key(&b, "general.alignment", U32);
        bytes_u32(&b, alignments[i]);
        check_error(parse_exact(&b, &err), BW_E_FORMAT, err, "general.alignment", "power of two");
    }
}

TEST(headers_of_other_kinds_are_named)
{
    bw_error err;
    bytes b = { 0 };
    header(&b, UINT64_MAX, 0);
    check_error(parse_exact(&b, &err), BW_E_FORMAT, err, "impossible");
    header(&b, (uint64_t)1 << 62, 0);
    check_error(parse_exact(&b, &err), BW_E_FORMAT, err, "impossible");
    header(&b, 0, 100000);
    check_error(parse_exact(&b, &err), BW_E_FORMAT, err, "impossible");
    header(&b, 999999, 0);
    check_error(parse_exact(&b, &err), BW_E_FORMAT, err, "cut off");
    header(&b, 0, 0);
    b.data[4] = 1;
    check_error(parse_exact(&b, &err), BW_E_UNSUPPORTED, err, "version 1");
    header(&b, 0, 0);
    memcpy(b.data + 4, "\0\0\0\3", 4);
    check_error(parse_exact(&b, &err), BW_E_UNSUPPORTED, err, "big-endian");
    bytes_add(&b, "PK\3\4....", 8);
    check_error(parse_exact(&b, &err), BW_E_FORMAT, err, "does not begin with");
    header(&b, 0, 0);
    b.data[4] = 2;
    check_ok(parse_exact(&b, &err), err);
}

static bw_status with_tensor(const char *name, uint32_t n_dims, const uint64_t *ne, uint32_t type, uint64_t offset, size_t n_data, bw_error *err)
{
    bytes b = { 0 };
    header(&b, 1, 0);
    bytes_string(&b, name);
    bytes_u32(&b, n_dims);
    for (uint32_t i = 0; i < n_dims && i < 8; i++)
        bytes_u64(&b, ne[i]);
    bytes_u32(&b, type);
    bytes_u64(&b, offset);
    data(&b, n_data);
    return parse_exact(&b, err);
}

TEST(tensors_that_cannot_be_are_refused)
{
    bw_error err;
    const uint64_t one[8] = { 32, 1, 1, 1, 1, 1, 1, 1 };
    check_ok(with_tensor("t", 1, one, 0, 0, 128, &err), err);
    check_error(with_tensor("t", 1, one, 0, 0, 127, &err), BW_E_FORMAT, err, "cut off");
    check_error(with_tensor("t", 0, one, 0, 0, 128, &err), BW_E_FORMAT, err, "t has 0 dimensions");
    check_error(with_tensor("t", 5, one, 0, 0, 128, &err), BW_E_FORMAT, err, "t has 5 dimensions");
    check_error(with_tensor("", 1, one, 0, 0, 128, &err), BW_E_FORMAT, err, "1 to 63 bytes");
    check_error(with_tensor("0123456789012345678901234567890123456789012345678901234567890123", 1, one, 0, 0, 128, &err), BW_E_FORMAT, err,
                "64 bytes");
    check_error(with_tensor("t", 1, one, 0, 32, 256, &err), BW_E_FORMAT, err, "begins at byte 32", "0 is expected");
    check_error(with_tensor("t", 1, one, 0, 1, 256, &err), BW_E_FORMAT, err, "begins at byte 1");
    check_error(with_tensor("t", 1, one, 0, UINT64_MAX - 31, 256, &err), BW_E_FORMAT, err, "begins at byte");
    check_error(with_tensor("t", 4, (const uint64_t[]){ (uint64_t)1 << 32, (uint64_t)1 << 32, (uint64_t)1 << 32, 2 }, 0, 0, 0, &err), BW_E_FORMAT,
                err, "overflow");
    check_error(with_tensor("t", 2, (const uint64_t[]){ (uint64_t)1 << 62, 1 }, 0, 0, 0, &err), BW_E_FORMAT, err, "overflow");
    check_error(with_tensor("t", 1, (const uint64_t[]){ UINT64_MAX }, 0, 0, 0, &err), BW_E_FORMAT, err, "overflow");
    check_error(with_tensor("t", 1, (const uint64_t[]){ 100 }, 12, 0, 256, &err), BW_E_FORMAT, err, "100", "Q4_K");
    static const uint32_t strange[] = { 4, 31, 36, 43, 133, 200, INT32_MAX, (uint32_t)-1 };
    for (size_t i = 0; i < BW_COUNT(strange); i++) {
        char id[24];
        snprintf(id, sizeof id, "type %u,", strange[i]);
        check_error(with_tensor("blk.0.x", 1, one, strange[i], 0, 256, &err), BW_E_UNSUPPORTED, err, "blk.0.x", id);
    }
    bytes b = { 0 };
    header(&b, 2, 0);
    tensor(&b, "t", 8, 0, 0, 0);
    tensor(&b, "u", 8, 0, 0, 0);
    data(&b, 64);
    check_error(parse_exact(&b, &err), BW_E_FORMAT, err, "overlap", "tensor u");
    header(&b, 2, 0);
    tensor(&b, "t", 8, 0, 0, 0);
    tensor(&b, "t", 8, 0, 0, 32);
    data(&b, 64);
    check_error(parse_exact(&b, &err), BW_E_FORMAT, err, "t stands in the header twice");
}

static void try_any(const unsigned char *from, size_t n)
{
    bw_checkpoint *c;
    bw_error err = { 0 };
    unsigned char *exact = malloc(n ? n : 1);
    memcpy(exact, from, n);
    const bytes block = { exact, n, n };
    if (parse(&c, &block, &err))
        check(!c && err.message[0]);
    for (int i = 0; c && i < bw_checkpoint_n_tensors(c); i++) {
        const bw_tensor *t = bw_checkpoint_tensor_at(c, i);
        check(!t->bytes || (t->data >= exact && t->bytes <= (uint64_t)(exact + n - t->data)));
    }
    for (int i = 0; c && i < bw_checkpoint_n_values(c); i++) {
        const bw_gguf_value *v = bw_checkpoint_value_at(c, i);
        double x;
        bw_slice *slices;
        size_t count;
        bw_gguf_float(v, v->count - 1, &x);
        if (v->array && v->type == BW_GGUF_STRING && !bw_checkpoint_strings(c, v->key, &slices, &count, &err))
            bw_mem_free(slices);
    }
    bw_checkpoint_close(c);
    free(exact);
}

TEST(no_cut_and_no_flipped_bit_reads_outside_the_file)
{
    bytes b = sample();
    for (size_t n = 0; n <= b.n; n++)
        try_any(b.data, n);
    for (size_t bit = 0; bit < 8 * (b.n - 290); bit++) {
        b.data[bit / 8] ^= (unsigned char)(1u << (bit % 8));
        try_any(b.data, b.n);
        b.data[bit / 8] ^= (unsigned char)(1u << (bit % 8));
    }
    for (int round = 0; round < 20000; round++) {
        unsigned char *copy = malloc(b.n);
        memcpy(copy, b.data, b.n);
        for (int k = rnd_int(1, 4); k > 0; k--)
            copy[rnd_int(4, (int)b.n - 291)] = (unsigned char)rnd_u64();
        try_any(copy, b.n);
        free(copy);
    }
    bytes_free(&b);
}

TEST(a_real_file_cut_anywhere_in_its_first_4_kib_is_refused)
{
    size_t n;
    char *file = read_file(repo_path("tests/golden/gguf/dense-Q8_0.gguf"), &n);
    for (size_t cut = 0; cut < 4096; cut++) {
        bw_error err;
        bytes b = { 0 };
        bytes_add(&b, file, cut);
        check_error(parse_exact(&b, &err), BW_E_FORMAT, err, "x.gguf");
    }
    free(file);
}

TEST(every_allocation_may_fail)
{
    bytes b = sample();
    uint64_t before = bw_mem_used(BW_MEM_MISC);
    bool failed = true;
    for (long n = 1; failed; n++) {
        bw_checkpoint *c;
        bw_error err;
        bw_mem_fail_at(n);
        bw_status st = parse(&c, &b, &err);
        failed = bw_mem_fail_at(0);
        check_int(st, failed ? BW_E_MEMORY : BW_OK);
        bw_checkpoint_close(c);
        check_int(bw_mem_used(BW_MEM_MISC), before);
    }
    bytes_free(&b);
}

/* ---- split files --------------------------------------------------------------------------------- */

typedef struct part {
    int no, count, total; /* -1: the key is left out */
    const char *tensor;   /* NULL: none */
} part;

static void write_part(const char *path, const part *p)
{
    bytes b = { 0 };
    header(&b, p->tensor != NULL, (uint64_t)(p->no >= 0) + (p->count >= 0) + (p->total >= 0) + 1);
    key(&b, "general.name", STRING);
    bytes_string(&b, p->no == 0 ? "first" : "other");
    if (p->no >= 0) {
        key(&b, "split.no", U16);
        bytes_add(&b, &(uint16_t){ (uint16_t)p->no }, 2);
    }
    if (p->count >= 0) {
        key(&b, "split.count", U16);
        bytes_add(&b, &(uint16_t){ (uint16_t)p->count }, 2);
    }
    if (p->total >= 0) {
        key(&b, "split.tensors.count", I32);
        bytes_u32(&b, (uint32_t)p->total);
    }
    if (p->tensor)
        tensor(&b, p->tensor, 8, 0, 0, 0);
    data(&b, 32);
    bytes_write(&b, path);
    bytes_free(&b);
}

static const char *part_path(const char *dir, int no, int count)
{
    static char ring[4][400];
    static int next;
    char *path = ring[next++ % 4];
    snprintf(path, sizeof ring[0], "%s/m-%05d-of-%05d.gguf", dir, no, count);
    return path;
}

TEST(a_split_model_opens_by_any_of_its_parts)
{
    const char *dir = fresh_dir();
    write_part(part_path(dir, 1, 3), &(part){ 0, 3, 2, NULL }); /* metadata only */
    write_part(part_path(dir, 2, 3), &(part){ 1, 3, 2, "a" });
    write_part(part_path(dir, 3, 3), &(part){ 2, 3, 2, "b" });
    for (int i = 1; i <= 3; i++) {
        bw_checkpoint *c;
        bw_error err;
        bw_slice name;
        check_ok(bw_checkpoint_open(&c, part_path(dir, i, 3), &err), err);
        check_int(bw_checkpoint_n_files(c), 3);
        check_int(bw_checkpoint_n_tensors(c), 2);
        check_int(bw_checkpoint_tensor(c, "b")->file, 2);
        check(bw_gguf_string(bw_checkpoint_value(c, "general.name"), &name) && memcmp(name.text, "first", 5) == 0);
        bw_checkpoint_close(c);
    }
}

TEST(split_parts_that_do_not_belong_together_are_named)
{
    bw_checkpoint *c;
    bw_error err;
    const char *dir = fresh_dir();
    write_part(part_path(dir, 1, 2), &(part){ 0, 2, 2, "a" });
    check_error(bw_checkpoint_open(&c, part_path(dir, 1, 2), &err), BW_E_IO, err, "part 2 of 2", "m-00002-of-00002.gguf");
    write_part(part_path(dir, 2, 2), &(part){ 0, 2, 2, "b" });
    check_error(bw_checkpoint_open(&c, part_path(dir, 1, 2), &err), BW_E_FORMAT, err, "part 1 of 2", "2 of 2");
    write_part(part_path(dir, 2, 2), &(part){ 1, 3, 2, "b" });
    check_error(bw_checkpoint_open(&c, part_path(dir, 1, 2), &err), BW_E_FORMAT, err, "renamed or mixed");
    write_part(part_path(dir, 2, 2), &(part){ 1, 2, 2, NULL });
    check_error(bw_checkpoint_open(&c, part_path(dir, 1, 2), &err), BW_E_FORMAT, err, "hold 1 tensors", "says 2");
    write_part(part_path(dir, 2, 2), &(part){ 1, 2, 2, "a" });
    check_error(bw_checkpoint_open(&c, part_path(dir, 1, 2), &err), BW_E_FORMAT, err, "tensor a is in", "m-00001", "m-00002");
    char alone[400];
    snprintf(alone, sizeof alone, "%s/renamed.gguf", dir);
    write_part(alone, &(part){ 0, 2, 2, "a" });
    check_error(bw_checkpoint_open(&c, alone, &err), BW_E_FORMAT, err, "renamed.gguf", "one of 2 parts");
    write_part(part_path(dir, 1, 4), &(part){ 0, 1, 1, "a" });
    check_error(bw_checkpoint_open(&c, part_path(dir, 1, 4), &err), BW_E_FORMAT, err, "m-00001-of-00004.gguf", "split.count says 1 part,", "name says 4");
    write_part(part_path(dir, 1, 4), &(part){ 0, 2, 1, "a" });
    check_error(bw_checkpoint_open(&c, part_path(dir, 1, 4), &err), BW_E_FORMAT, err, "split.count says 2 parts,", "name says 4");
    write_part(part_path(dir, 1, 1), &(part){ 0, 1, 1, "a" });
    check_ok(bw_checkpoint_open(&c, part_path(dir, 1, 1), &err), err); /* a split model of one part */
    bw_checkpoint_close(c);
    write_part(part_path(dir, 3, 7), &(part){ -1, -1, -1, "a" });
    check_ok(bw_checkpoint_open(&c, part_path(dir, 3, 7), &err), err); /* only named like one */
    bw_checkpoint_close(c);
    snprintf(alone, sizeof alone, "%s.aria2", part_path(dir, 3, 7));
    text_write("", alone);
    check_error(bw_checkpoint_open(&c, part_path(dir, 3, 7), &err), BW_E_FORMAT, err, "unfinished", ".aria2");
}

TESTS_MAIN(ENTRY(values_of_every_kind_are_read_as_what_they_are), ENTRY(tensors_are_lent_rows_first),
           ENTRY(metadata_that_cannot_be_is_refused), ENTRY(headers_of_other_kinds_are_named),
           ENTRY(tensors_that_cannot_be_are_refused), ENTRY(no_cut_and_no_flipped_bit_reads_outside_the_file),
           ENTRY(a_real_file_cut_anywhere_in_its_first_4_kib_is_refused), ENTRY(every_allocation_may_fail),
           ENTRY(a_split_model_opens_by_any_of_its_parts), ENTRY(split_parts_that_do_not_belong_together_are_named))
