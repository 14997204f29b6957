/* receipt.h - what an answer took, for people (one block on stderr) and for programs (JSON).
 *
 * Rates are those of the engine's steps: prefill is prompt tokens over prefill time, decode the
 * tokens after the first one over decode time, for the first comes out of the prefill. A rate
 * nothing was measured for is "-", in JSON null. */
#ifndef BW_CLI_RECEIPT_H
#define BW_CLI_RECEIPT_H

#include <stdint.h>

#include "bellwether.h"
#include "cli/setup.h"

typedef struct bw_receipt {
    const bw_setup *setup;
    const bw_model_info *info;
    const bw_memory_plan *plan;
    bw_sampling sampling;
    bw_finish finish;    /* of the last answer; NONE: interrupted */
    int n_answers;
    int64_t prompt_tokens, generated_tokens;
    int64_t cached_tokens; /* of the prompts: computed in earlier turns */
    int64_t prefilled, decoded; /* tokens behind the two times */
    double prefill_s, decode_s;
    int draft_n;
    int64_t verifies, accepted_by_position[BW_MAX_DRAFTS];
} bw_receipt;

/* Adds one answer of n_tokens tokens, as the user got them. */
void bw_receipt_add(bw_receipt *receipt, const bw_usage *usage, int n_tokens);

void bw_receipt_print(const bw_receipt *receipt); /* to stderr */

/* The object of `run --json`; the caller puts it. NULL: out of memory. */
struct json_object *bw_receipt_json(const bw_receipt *receipt);

/* Helpers for other JSON: a double printed with `digits` significant digits, null unless finite. */
struct json_object *bw_json_number(double value, int digits);
/* A text from outside, as a path may be: bytes that are not UTF-8 as U+FFFD each. NULL: no memory. */
struct json_object *bw_json_text(const char *text);

#endif
