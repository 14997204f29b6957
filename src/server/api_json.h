/* api_json.h - a request body as JSON: typed members with ranges, and errors that name the path.
 *
 * The reader is text/pyjson.h, the one that reads messages and tools for the prompt: numbers keep every
 * digit, and body and prompt cannot be understood in two ways. Of equal keys the last value counts.
 * Getters leave their outputs alone where a member is absent or null, so a caller sets the default
 * first. Threads: any; a body is one thread's. */
#ifndef BW_SERVER_API_JSON_H
#define BW_SERVER_API_JSON_H

#include "server/api_request.h"
#include "text/pyjson.h"

enum {
    BW_API_MAX_DEPTH = 128,
    BW_API_MAX_VALUES = 2000000, /* a value of two bytes takes some 100 in memory */
    BW_API_MAX_MEMBERS = 1024    /* of the body itself */
};

typedef struct bw_api_body {
    bw_pyjson *document;
    const bw_json *root; /* an object */
} bw_api_body;

/* 400 invalid_json: not JSON (with the byte), too deep, too many values, not an object. */
bool bw_api_body_open(bw_api_body *body, const char *text, size_t n_bytes, bw_api_error *err);
void bw_api_body_close(bw_api_body *body); /* takes a zeroed one */

/* An object of the body and where it stands. */
typedef struct bw_api_object {
    const bw_json *json;
    const char *path; /* "": the body; "stream_options", "messages[3]" */
    bw_api_error *err;
} bw_api_object;

/* ---- errors; all return false -------------------------------------------------------------------- */

/* param is the path, "" for none; the message begins with it. */
bool bw_api_fail(bw_api_error *err, int status, const char *code, const char *param, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
bool bw_api_fail_memory(bw_api_error *err);
/* What the text side found: 500 for want of memory, else 400 invalid_value. */
bool bw_api_fail_from(bw_api_error *err, const char *param, const bw_error *found);
/* 400 invalid_value at object.key; key NULL: at the object. */
bool bw_api_invalid(const bw_api_object *object, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* 400 unsupported_parameter. */
bool bw_api_unsupported(const bw_api_object *object, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* 400 invalid_type: "found a number, expected ...". */
bool bw_api_wrong_type(const bw_api_object *object, const char *key, const bw_json *found, const char *expected);

/* ---- members; false: *err is filled -------------------------------------------------------------- */

const bw_json *bw_api_member(const bw_api_object *object, const char *key); /* NULL: absent or null */
bool bw_api_get_bool(const bw_api_object *object, const char *key, bool *out);
/* Integers, also as 100.0 or 1e2. */
bool bw_api_get_int(const bw_api_object *object, const char *key, int64_t low, int64_t high, int64_t *out);
bool bw_api_get_int32(const bw_api_object *object, const char *key, int low, int high, int *out);
/* BW_JSON_STRING, _ARRAY or _OBJECT; NULL where absent. */
bool bw_api_get(const bw_api_object *object, const char *key, bw_json_kind kind, const bw_json **out);
/* Low and high belong to the range unless `open` has the letter l or h. */
bool bw_api_get_float(const bw_api_object *object, const char *key, double low, double high, const char *open, float *out);

/* The value of an integer, false when it is none or does not fit. */
bool bw_api_int_of(const bw_json *value, int64_t *out);

/* True once per name and process, for what is logged only once; always false after some hundred names. */
bool bw_api_first_time(const char *name);
/* Logs, once per name and process, that a member was ignored. where: "chat completions". */
void bw_api_log_unknown(const char *where, const char *name, size_t n_bytes);
/* The same for every member of the object that is not among the names. */
void bw_api_log_unknowns(const bw_api_object *object, const char *where, const char *const *known, size_t n_known);

/* "text" in quotes, printable and short enough for a message. */
typedef struct bw_api_quoted {
    char text[80];
} bw_api_quoted;
bw_api_quoted bw_api_quote(const bw_json *string);

#endif
