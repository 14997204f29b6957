/* synth.c - writes a GGUF file of random weights in the shape of a real model, to time things without a
 * download, with other programs too. `bellwether bench --synthetic` makes the very same model in memory. A
 * tokenizer is in it only when one is given: with --tokenizer, the routes of a server that take text can be
 * timed too.
 *
 *     tools/synth 2b /tmp/2b.gguf --type q8_0
 *
 * What a file holds: src/format/synthetic.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "format/synthetic.h"

static const char usage[] =
    "usage: tools/synth SHAPE OUT.gguf [--type TYPE] [--seed N] [--no-mtp]\n"
    "                   [--tokenizer DIR]\n"
    "  SHAPE        one of bench/shapes (0.8b, 2b, 27b, 35b-a3b, moe8), or a config.json of the family\n"
    "  --type TYPE  of the matrices: f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 iq4_nl q2_k q3_k q4_k q5_k q6_k\n"
    "               iq4_xs, or the mixes q4_k_m q5_k_m (default q8_0)\n"
    "  --seed N     another file of the same kind (default 1)\n"
    "  --no-mtp     without the MTP head\n"
    "  --tokenizer DIR  puts in the tokenizer and chat template of a model's folder (models/lamb); rows of the\n"
    "               head beyond its tokens belong to none\n"
    "example: tools/synth 2b 2b.gguf --type q4_k_m\n";

static bool put_pieces(FILE *f, const bw_synthetic *s)
{
    size_t n;
    const unsigned char *header = bw_synthetic_header(s, &n);
    unsigned char *piece = malloc(bw_synthetic_largest_piece(s));
    fwrite(header, 1, n, f); /* ferror is asked once, at the end */
    for (int i = 0; piece && i < bw_synthetic_n_pieces(s) && !ferror(f); i++) {
        bw_synthetic_fill(s, i, piece);
        fwrite(piece, 1, (size_t)(bw_synthetic_offset(s, i + 1) - bw_synthetic_offset(s, i)), f);
    }
    free(piece);
    return piece && !ferror(f);
}

static bool write_file(const bw_synthetic *s, const char *path)
{
    FILE *f = fopen(path, "wb");
    struct stat info;
    const bool regular = f && fstat(fileno(f), &info) == 0 && S_ISREG(info.st_mode);
    bool ok = f && put_pieces(f, s);
    if (f)
        ok = fclose(f) == 0 && ok;
    if (ok)
        printf("%s: %d tensors, %.2f GiB\n", path, bw_synthetic_n_tensors(s), (double)bw_synthetic_bytes(s) / (1 << 30));
    else
        perror(path);
    if (!ok && regular) /* half a model; a device such as /dev/full is not ours to remove */
        remove(path);
    return ok;
}

static bool read_seed(const char *text, uint64_t *seed)
{
    char *end;
    errno = 0;
    *seed = strtoull(text, &end, 10);
    if (text[0] >= '0' && text[0] <= '9' && !*end && !errno) /* strtoull takes blanks and signs */
        return true;
    fprintf(stderr, "synth: --seed is %s; a whole number from 0 to 2^64 - 1 is expected\n%s", text, usage);
    return false;
}

int main(int argc, char **argv)
{
    const char *paths[2] = { NULL, NULL };
    int n_paths = 0;
    bw_synthetic_options options = { .type = "q8_0", .seed = 1 };
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            return 0;
        } else if (strcmp(argv[i], "--no-mtp") == 0) {
            options.no_mtp = true;
        } else if (strcmp(argv[i], "--tokenizer") == 0 && i + 1 < argc) {
            options.tokenizer = argv[++i];
        } else if (strcmp(argv[i], "--type") == 0 && i + 1 < argc) {
            options.type = argv[++i];
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            if (!read_seed(argv[++i], &options.seed))
                return 2;
        } else if (argv[i][0] != '-' && n_paths < 2) {
            paths[n_paths++] = argv[i];
        } else {
            fputs(usage, stderr);
            return 2;
        }
    }
    if (n_paths != 2) {
        fputs(usage, stderr);
        return 2;
    }
    bw_synthetic *synthetic;
    bw_error err;
    options.shape = paths[0];
    if (bw_synthetic_create(&synthetic, &options, &err)) {
        fprintf(stderr, "synth: %s\n", err.message);
        return err.status == BW_E_ARGUMENT ? 2 : 1;
    }
    const bool ok = write_file(synthetic, paths[1]);
    bw_synthetic_destroy(synthetic);
    return ok ? 0 : 1;
}
