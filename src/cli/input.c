/* input.c - see input.h. */
#include "cli/input.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <json.h>

#include "cli/terminal.h"

static const size_t most_bytes = (size_t)1 << 30;

bool bw_buffer_add(bw_buffer *bytes, const char *data, size_t n)
{
    if (n > SIZE_MAX / 4 - bytes->n)
        return false;
    if (bytes->n + n + 1 > bytes->room) {
        const size_t room = (bytes->n + n + 1) * 2;
        char *grown = realloc(bytes->data, room);
        if (!grown)
            return false;
        bytes->data = grown;
        bytes->room = room;
    }
    if (n)
        memcpy(bytes->data + bytes->n, data, n);
    bytes->n += n;
    bytes->data[bytes->n] = '\0';
    return true;
}

void bw_buffer_free(bw_buffer *bytes)
{
    free(bytes->data);
    *bytes = (bw_buffer){ 0 };
}

static bool read_all(bw_buffer *out, int fd, const char *name)
{
    static char block[65536];
    for (;;) {
        const ssize_t n = read(fd, block, sizeof block);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            bw_terminal_fail("%s: cannot read: %s", name, strerror(errno));
            return false;
        }
        if (n == 0 && bw_buffer_add(out, "", 0))
            return true;
        if (out->n + (size_t)n > most_bytes) {
            bw_terminal_fail("%s: longer than %zu bytes, more than any context holds", name, most_bytes);
            return false;
        }
        if (!bw_buffer_add(out, block, (size_t)n)) {
            bw_terminal_fail("%s: out of memory after %zu bytes", name, out->n);
            return false;
        }
    }
}

bool bw_input_read(bw_buffer *out, const char *path)
{
    const bool standard = strcmp(path, "-") == 0;
    const char *name = standard ? "standard input" : path;
    const int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    *out = (bw_buffer){ 0 };
    if (fd < 0) {
        bw_terminal_fail("%s: cannot open: %s", name, strerror(errno));
        return false;
    }
    const bool ok = read_all(out, fd, name);
    if (!standard)
        close(fd);
    if (!ok)
        bw_buffer_free(out);
    return ok;
}

/* Item i of the array, or false after a message. */
static bool read_id(int32_t *id, const struct json_object *array, size_t i, const char *name)
{
    struct json_object *item = json_object_array_get_idx(array, i);
    if (!json_object_is_type(item, json_type_int)) {
        bw_terminal_fail("%s: item %zu is %s, expected a token id: a whole number", name, i,
                         json_object_to_json_string(item));
        return false;
    }
    const int64_t value = json_object_get_int64(item);
    if (value < 0 || value > INT32_MAX) {
        /* json-c stops at the ends of an int64 */
        bw_terminal_fail("%s: item %zu is %" PRId64 "%s, which is no token id: expected 0 to %d", name, i, value,
                         value == INT64_MAX ? " or more" : value == INT64_MIN ? " or less" : "", INT32_MAX);
        return false;
    }
    *id = (int32_t)value;
    return true;
}

static bool take_ids(int32_t **ids, int *n_ids, const struct json_object *array, const char *name)
{
    if (!json_object_is_type(array, json_type_array)) {
        bw_terminal_fail("%s: expected a JSON array of token ids, like [1, 2, 3]", name);
        return false;
    }
    const size_t n = json_object_array_length(array);
    if (n == 0 || n > INT_MAX) {
        bw_terminal_fail("%s: the array holds %zu token ids, expected at least one%s", name, n,
                         n ? " and fewer than 2^31" : "");
        return false;
    }
    int32_t *out = malloc(n * sizeof *out);
    if (!out) {
        bw_terminal_fail("%s: out of memory for %zu token ids", name, n);
        return false;
    }
    for (size_t i = 0; i < n; i++)
        if (!read_id(&out[i], array, i, name)) {
            free(out);
            return false;
        }
    *ids = out;
    *n_ids = (int)n;
    return true;
}

bool bw_input_read_ids(int32_t **ids, int *n_ids, const char *path)
{
    const char *name = strcmp(path, "-") == 0 ? "standard input" : path;
    bw_buffer text;
    if (!bw_input_read(&text, path))
        return false;
    struct json_tokener *tokener = json_tokener_new();
    bool ok = false;
    if (!tokener) {
        bw_terminal_fail("%s: out of memory", name);
        bw_buffer_free(&text);
        return false;
    }
    /* With the terminating NUL, json-c sees the end of a bare number. most_bytes fits an int. */
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
    struct json_object *array = json_tokener_parse_ex(tokener, text.data, (int)text.n + 1);
    const enum json_tokener_error problem = json_tokener_get_error(tokener);
    if (problem != json_tokener_success)
        bw_terminal_fail("%s: not JSON at byte %zu: %s; expected an array of token ids, like [1, 2, 3]", name,
                         json_tokener_get_parse_end(tokener),
                         problem == json_tokener_continue ? "it ends too early" : json_tokener_error_desc(problem));
    else
        ok = take_ids(ids, n_ids, array, name);
    json_object_put(array);
    json_tokener_free(tokener);
    bw_buffer_free(&text);
    return ok;
}
