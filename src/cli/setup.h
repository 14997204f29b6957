/* setup.h - the options that every command which computes shares, and opening a model with them.
 *
 * Knows bellwether.h only. Failures are printed here; callers return exit status 1. */
#ifndef BW_CLI_SETUP_H
#define BW_CLI_SETUP_H

#include "bellwether.h"
#include "cli/args.h"

typedef struct bw_setup {
    int threads;     /* 0: one per processor */
    bool pin;
    int context;     /* 0: not given */
    int kv;          /* bw_kv_type */
    int activations; /* bw_activations, less AUTO */
    int chunk;       /* 0: whole */
    int draft;       /* BW_DRAFT_AUTO, BW_DRAFT_OFF or a number */
    int draft_vocab; /* 0: the engine's choice */
} bw_setup;

#define BW_SETUP_DEFAULTS { .kv = BW_KV_F16, .activations = -1, .chunk = 512, .draft = BW_DRAFT_AUTO }

#define BW_DRAFT_VOCAB_HELP                                                                                        \
    "drafts are chosen from the ids below N and the\ntokens of the text; default: 32768, or 65536 where\n"         \
    "the output head is a small part of a step"

/* The rows of an option table, for a bw_setup `s`. */
#define BW_SETUP_OPTIONS(s, context_help)                                                                          \
    { BW_OPTION_GROUP, .name = "Computing" },                                                                      \
    { BW_OPTION_INT, .name = "--threads", .value = "N", .target = &(s).threads, .low = 0, .high = 1024,            \
      .help = "worker threads; 0, the default: one per processor" },                                               \
    { BW_OPTION_SET, .name = "--pin", .target = &(s).pin,                                                          \
      .help = "keep each worker thread on one processor" },                                                        \
    { BW_OPTION_INT, .name = "--ctx", .value = "N", .target = &(s).context, .low = 1, .high = 2147483647,          \
      .help = context_help },                                                                                      \
    { BW_OPTION_CHOICE, .name = "--kv", .value = "f16|f32", .target = &(s).kv, .choices = "f16|f32",               \
      .help = "how keys and values are kept; default f16" },                                                       \
    { BW_OPTION_CHOICE, .name = "--activations", .value = "int8|f32", .target = &(s).activations,                  \
      .choices = "int8|f32",                                                                                       \
      .help = "what quantised weights are multiplied with;\ndefault int8 (other weights: always f32)" },           \
    { BW_OPTION_INT, .name = "--chunk", .value = "N", .target = &(s).chunk, .low = 0, .high = 2147483647,          \
      .help = "the prompt is cut at multiples of N tokens;\n0: not at all; default 512" },                           \
    { BW_OPTION_INT, .name = "--draft-vocab", .value = "N", .target = &(s).draft_vocab, .low = 1,                  \
      .high = 2147483647, .help = BW_DRAFT_VOCAB_HELP }

#define BW_DRAFT_OPTION(s, draft_help)                                                                             \
    { BW_OPTION_CUSTOM, .name = "--draft", .value = "auto|off|N", .target = &(s).draft,                            \
      .read = bw_setup_read_draft, .expected = "auto, off or a whole number from 1 to 8", .help = draft_help }

/* The reader of --draft: target is an int. */
bool bw_setup_read_draft(void *target, const char *text);

/* Opens the model with a progress bar; the log goes to stderr. NULL after a message. */
bw_model *bw_setup_open(const bw_setup *setup, const char *path);

/* Engine options with room for `context` tokens (0: the engine's choice) in prompts of up to
 * n_prompt tokens. */
bw_engine_options bw_setup_engine(const bw_setup *setup, int context, int n_prompt);

/* "int8" or "f32", "f16" or "f32": what is in use. */
const char *bw_setup_activations(const bw_model *model);
const char *bw_setup_kv(const bw_setup *setup);

#endif
