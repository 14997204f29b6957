/* json_file.c - a configuration file of a checkpoint as one JSON object, through json-c, with limits
 * that no real file comes near. */
#include "format/checkpoint_parts.h"

#include <inttypes.h>
#include <json.h>
#include <string.h>

enum { JSON_MAX_DEPTH = 64, JSON_MAX_BYTES = 256 << 20 };

static bool begins_an_object(const unsigned char *data, uint64_t bytes)
{
    uint64_t i = 0;
    while (i < bytes && data[i] && strchr(" \t\r\n", data[i]))
        i++;
    return i < bytes && data[i] == '{';
}

bw_status bw_json_read(const char *path, const unsigned char *data, uint64_t bytes, struct json_object **out, bw_error *err)
{
    *out = NULL;
    if (bytes > JSON_MAX_BYTES)
        return bw_fail(err, BW_E_LIMIT, "%s: %" PRIu64 " bytes of JSON; at most %d are read", path, bytes, JSON_MAX_BYTES);
    json_tokener *tokener = json_tokener_new_ex(JSON_MAX_DEPTH);
    if (!tokener)
        return bw_fail_memory(err, path, sizeof tokener);
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8 | JSON_TOKENER_ALLOW_TRAILING_CHARS);
    json_object *object = json_tokener_parse_ex(tokener, (const char *)data, (int)bytes);
    enum json_tokener_error problem = json_tokener_get_error(tokener);
    size_t at = json_tokener_get_parse_end(tokener);
    json_tokener_free(tokener);
    bw_status st = BW_OK;
    while (!problem && at < bytes && data[at] && strchr(" \t\r\n", data[at]))
        at++;
    if (problem == json_tokener_continue)
        st = bw_fail(err, BW_E_FORMAT, "%s: the JSON text ends too early, after %" PRIu64 " bytes: download it again", path, bytes);
    else if (problem)
        st = bw_fail(err, BW_E_FORMAT, "%s: byte %zu: not valid JSON (%s)", path, at, json_tokener_error_desc(problem));
    else if (at < bytes)
        st = bw_fail(err, BW_E_FORMAT, "%s: byte %zu: text follows the end of the JSON", path, at);
    else if (!json_object_is_type(object, json_type_object) && begins_an_object(data, bytes))
        st = bw_fail_memory(err, path, (size_t)bytes); /* json-c reports success when it could not get memory */
    else if (!json_object_is_type(object, json_type_object))
        st = bw_fail(err, BW_E_FORMAT, "%s: a JSON object is expected", path);
    if (st)
        json_object_put(object);
    else
        *out = object;
    return st;
}
