/* json_get.c - for shell tests: checks that standard input is one strict JSON text and prints a part.
 *
 *     json_get PATH       PATH: member names and array indices joined by dots; "." is the whole
 *
 * Strings are printed as they are, all else as plain JSON. Exit status 1, with a reason on stderr:
 * not JSON, or nothing at PATH. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json.h>

static char *read_all(size_t *n)
{
    size_t room = 1 << 16, used = 0, got;
    char *text = malloc(room);
    while (text && (got = fread(text + used, 1, room - used - 1, stdin)) > 0)
        if ((used += got) + 1 == room)
            text = realloc(text, room *= 2);
    if (text)
        text[used] = '\0';
    *n = used;
    return text;
}

/* One step down, or false. A member that is null is found. */
static bool step(struct json_object **at, const char *name)
{
    if (json_object_is_type(*at, json_type_object))
        return json_object_object_get_ex(*at, name, at);
    if (!json_object_is_type(*at, json_type_array) || strtoul(name, NULL, 10) >= json_object_array_length(*at))
        return false;
    *at = json_object_array_get_idx(*at, strtoul(name, NULL, 10));
    return true;
}

int main(int argc, char **argv)
{
    size_t n;
    char *text = read_all(&n);
    struct json_tokener *tokener = json_tokener_new();
    if (argc != 2 || !text || !tokener)
        return 2;
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    struct json_object *root = json_tokener_parse_ex(tokener, text, (int)n + 1), *at = root;
    if (json_tokener_get_error(tokener) != json_tokener_success) {
        fprintf(stderr, "not JSON: %s\n", json_tokener_error_desc(json_tokener_get_error(tokener)));
        return 1;
    }
    for (char *name = strtok(argv[1], "."); name; name = strtok(NULL, "."))
        if (!step(&at, name)) {
            fprintf(stderr, "nothing at %s\n", name);
            return 1;
        }
    puts(json_object_is_type(at, json_type_string) ? json_object_get_string(at)
                                                   : json_object_to_json_string_ext(at, JSON_C_TO_STRING_PLAIN));
    json_object_put(root);
    json_tokener_free(tokener);
    free(text);
    return 0;
}
