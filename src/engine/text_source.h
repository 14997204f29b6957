/* text_source.h - tokenizer and chat format of a model, wherever they lie: a Hugging Face folder, a
 * GGUF file, or a tokenizer.json alone.
 *
 * Owns both; reads no weights. Immutable once open: any thread. */
#ifndef BW_ENGINE_TEXT_SOURCE_H
#define BW_ENGINE_TEXT_SOURCE_H

#include "format/checkpoint.h"
#include "model/config.h"
#include "text/chat.h"
#include "text/tokenizer.h"

typedef struct bw_text_source bw_text_source;

/* Opens by path: a folder with a tokenizer.json (nothing else needs to be in it), a .gguf file, or a
 * tokenizer.json. BW_E_IO, BW_E_FORMAT, BW_E_UNSUPPORTED: as err says, also when there is no
 * tokenizer. On failure *out is NULL. */
bw_status bw_text_source_open(bw_text_source **out, const char *path, bw_error *err);

/* The same from an open checkpoint, which is not needed afterwards. A checkpoint without a tokenizer
 * that can be used is no error, because it can run token ids: *out is then NULL and note [note_bytes]
 * says in one line why. Otherwise note is empty; an unknown chat template is reported through bw_log.
 * Fails only for want of memory. */
bw_status bw_text_source_open_checkpoint(bw_text_source **out, const bw_checkpoint *checkpoint, char *note,
                                         size_t note_bytes, bw_error *err);

void bw_text_source_close(bw_text_source *source); /* takes NULL */

const bw_tokenizer *bw_text_source_tokenizer(const bw_text_source *source);
int bw_text_source_n_tokens(const bw_text_source *source); /* every token's id is below */
bw_chat_variant bw_text_source_chat(const bw_text_source *source);
bool bw_text_source_chat_known(const bw_text_source *source); /* the template is one whose text is known */
/* "3.6", or "3.6 assumed: ..." and why. */
const char *bw_text_source_chat_note(const bw_text_source *source);

/* The chat template as it came with the model, n bytes; NULL: none. */
const char *bw_text_source_template(const bw_text_source *source, size_t *n);

/* A chat ends its turns with <|im_end|> and texts end with <|endoftext|>, also where the checkpoint's
 * list of stop tokens names only one of them (config.json alone names the text's end): adds those of
 * the two that the tokenizer has and config->sampling.eos lacks. */
void bw_text_source_complete_stops(const bw_text_source *source, bw_config *config);

/* A request (chat.h) to the ids of its prompt. No special token is matched inside a message body. */
bw_status bw_text_source_chat_encode(const bw_text_source *source, const char *request, size_t n_bytes, int32_t **ids,
                                     int *n_ids, bw_error *err);

#endif
