/* pyjson.h - JSON read and re-printed as Python's json.loads and json.dumps(ensure_ascii=False).
 *
 * Chat templates print tools and arguments with Python's json module, and what a prompt says byte
 * for byte decides its tokens. json-c, which reads all other JSON here, cannot stand in: it cuts
 * integers to 64 bits, ends a key at an escaped NUL and drops the text of numbers it converts. So
 * this is a small reader of its own, which keeps integers of any size and prints every other number
 * in Python's shortest form (1.0, 1e-07, 1e+22).
 *
 * As in Python: key order is kept; of equal keys the first one's place and the last one's value.
 * Unlike Python: NaN, Infinity and numbers that overflow are errors; malformed UTF-8 and lone
 * surrogates become U+FFFD (as errors='replace' does), so every string here is valid UTF-8.
 * Threads: a document is immutable once parsed; any number of readers. */
#ifndef BW_TEXT_PYJSON_H
#define BW_TEXT_PYJSON_H

#include "base/status.h"
#include "text/bytes.h"

typedef enum bw_json_kind {
    BW_JSON_NULL,
    BW_JSON_BOOL,
    BW_JSON_INT,   /* no fraction, no exponent */
    BW_JSON_FLOAT,
    BW_JSON_STRING,
    BW_JSON_ARRAY,
    BW_JSON_OBJECT
} bw_json_kind;

typedef struct bw_json bw_json;
struct bw_json {
    bw_json_kind kind;
    bool is_true;       /* BOOL */
    const char *text;   /* STRING: the bytes, NUL-terminated; INT, FLOAT: as Python prints it */
    size_t n_bytes;
    const char *key;    /* of a member of an object, NUL-terminated; NULL in an array */
    size_t key_bytes;
    size_t n_items;     /* ARRAY, OBJECT */
    const bw_json *first, *next;
};

typedef struct bw_pyjson bw_pyjson; /* owns the values of one document */

enum { BW_JSON_MAX_DEPTH = 200 };

/* Parses exactly one JSON value. `what` names the source in messages ("the request").
 * BW_E_FORMAT: not JSON, with the byte and what was expected there; nested deeper than
 * BW_JSON_MAX_DEPTH. *root belongs to *out. */
bw_status bw_pyjson_parse(bw_pyjson **out, const bw_json **root, const char *text, size_t n_bytes,
                          const char *what, bw_error *err);
void bw_pyjson_free(bw_pyjson *document); /* takes NULL */

/* The member called key, or NULL. */
const bw_json *bw_json_get(const bw_json *object, const char *key);
bool bw_json_is(const bw_json *string, const char *text); /* a string equal to text */
/* "null", "a boolean", "a number", "a string", "an array", "an object"; NULL gives "nothing". */
const char *bw_json_kind_name(const bw_json *value);

/* Appends json.dumps(value, ensure_ascii=False). */
void bw_json_print(bw_bytes *out, const bw_json *value);
/* Appends the JSON string literal of n bytes of valid UTF-8. */
void bw_json_print_string(bw_bytes *out, const char *text, size_t n);

enum { BW_JSON_NUMBER_BYTES = 32 };
/* Python's repr(value) of a finite number. */
void bw_json_format_double(char out[BW_JSON_NUMBER_BYTES], double value);
/* The double nearest to a JSON number's text, in any locale. May be infinite. */
double bw_json_read_double(const char *text, size_t n_bytes);
/* Length of the JSON number at the start of text, 0 when there is none; *is_float: it has a
 * fraction or an exponent. */
size_t bw_json_number_length(const char *text, size_t n_bytes, bool *is_float);

/* Appends n bytes with malformed UTF-8 replaced as Python's errors='replace' does. */
void bw_json_add_utf8(bw_bytes *out, const char *text, size_t n);

#endif
