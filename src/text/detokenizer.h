/* detokenizer.h - token ids to text as they come, never splitting a character.
 *
 * However the ids are cut into calls, the texts together are what bw_tokenizer_decode gives for all
 * of them: bytes that may still become a character (at most 3) are held back, malformed ones become
 * U+FFFD. Allocates at its start only. One thread at a time. */
#ifndef BW_TEXT_DETOKENIZER_H
#define BW_TEXT_DETOKENIZER_H

#include "text/tokenizer.h"

typedef struct bw_detokenizer bw_detokenizer;

/* Borrows the tokenizer. skip_special as in bw_tokenizer_decode. */
bw_status bw_detokenizer_create(bw_detokenizer **out, const bw_tokenizer *tokenizer, bool skip_special, bw_error *err);
void bw_detokenizer_destroy(bw_detokenizer *detokenizer); /* takes NULL */

/* The text that id makes certain, NUL-terminated, valid until the next call. BW_E_ARGUMENT: id is no
 * token; the detokenizer goes on as if it had not come. */
bw_status bw_detokenizer_push(bw_detokenizer *detokenizer, int32_t id, const char **text, size_t *n_bytes, bw_error *err);

/* The end: U+FFFD for bytes that never became a character. Ready for another text afterwards. */
void bw_detokenizer_finish(bw_detokenizer *detokenizer, const char **text, size_t *n_bytes);

#endif
