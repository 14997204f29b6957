/* args.c - see args.h. */
#include "cli/args.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bellwether.h"

enum { HELP_COLUMN = 30, MAX_OPTIONS = 64 };

int bw_args_fail(const char *command, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "bellwether %s: %s (see bellwether %s --help)\n", command, text, command);
    return 2;
}

/* Insertions, deletions and replacements from a to b; both shorter than 32 bytes. */
static int distance(const char *a, const char *b)
{
    int row[33];
    const int n = (int)strlen(b);
    for (int j = 0; j <= n; j++)
        row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[n];
}

const char *bw_args_nearest(const char *given, const char *const *names, size_t n)
{
    const char *nearest = NULL;
    int least = 4; /* further away is another word */
    for (size_t i = 0; i < n && strlen(given) < 32; i++)
        if (strlen(names[i]) < 32 && distance(given, names[i]) < least) {
            least = distance(given, names[i]);
            nearest = names[i];
        }
    return nearest;
}

static bool takes_value(const bw_option *option)
{
    return option->kind != BW_OPTION_SET && option->kind != BW_OPTION_CLEAR;
}

static void print_help(const bw_command *command)
{
    printf("Usage: bellwether %s [OPTIONS] %s\n\n%s", command->name, command->positionals, command->about);
    for (size_t i = 0; i < command->n_options; i++) {
        const bw_option *option = &command->options[i];
        if (option->kind == BW_OPTION_GROUP) {
            printf("\n%s\n", option->name);
            continue;
        }
        int column = printf("  %s%s%s", option->name, option->value ? " " : "", option->value ? option->value : "");
        if (column >= HELP_COLUMN) {
            putchar('\n');
            column = 0;
        }
        printf("%*s", HELP_COLUMN - column, "");
        for (const char *c = option->help; *c; c++) {
            putchar(*c);
            if (*c == '\n')
                printf("%*s", HELP_COLUMN, "");
        }
        putchar('\n');
    }
    printf("\nOther\n  %-*s%s\n  %-*s%s\n", HELP_COLUMN - 2, "--help", "print this and exit", HELP_COLUMN - 2,
           "--version", "print the version and exit");
    printf("\nExample:\n  %s\n", command->example);
}

static bool read_int(const bw_option *option, int *target, const char *text)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno || (double)value < option->low || (double)value > option->high)
        return false;
    *target = (int)value;
    return true;
}

static bool read_seed(const bw_option *option, const char *text)
{
    bw_seed_option *seed = option->target;
    char *end;
    if (text[strspn(text, "0123456789")] || !*text)
        return false;
    errno = 0;
    seed->value = strtoull(text, &end, 10);
    seed->given = errno == 0;
    return seed->given;
}

static bool read_number(const bw_option *option, const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value) || value < option->low || value > option->high ||
        (option->open & BW_OPEN_LOW && value <= option->low) || (option->open & BW_OPEN_HIGH && value >= option->high))
        return false;
    *(float *)option->target = (float)value;
    return true;
}

static bool read_choice(const bw_option *option, const char *text)
{
    const size_t n = strlen(text);
    int index = 0;
    for (const char *c = option->choices; *c; c += *c == '|', index++) {
        size_t m = strcspn(c, "|");
        if (m == n && memcmp(c, text, n) == 0) {
            *(int *)option->target = index;
            return true;
        }
        c += m;
    }
    return false;
}

static bool read_list(const bw_option *option, const char *text)
{
    bw_list_option *list = option->target;
    if (!*text || list->n == BW_MAX_LIST)
        return false;
    list->items[list->n++] = text;
    return true;
}

static bool read_value(const bw_option *option, const char *text)
{
    switch (option->kind) {
    case BW_OPTION_INT: return read_int(option, option->target, text);
    case BW_OPTION_COUNTED: return read_int(option, &((bw_counted_option *)option->target)->n, text);
    case BW_OPTION_SEED: return read_seed(option, text);
    case BW_OPTION_NUMBER: return read_number(option, text);
    case BW_OPTION_TEXT: *(const char **)option->target = text; return true;
    case BW_OPTION_LIST: return read_list(option, text);
    case BW_OPTION_CHOICE: return read_choice(option, text);
    case BW_OPTION_CUSTOM: return option->read(option->target, text);
    case BW_OPTION_SET:
    case BW_OPTION_CLEAR:
    case BW_OPTION_GROUP: break;
    }
    return false;
}

static void describe(const bw_option *option, char *out, size_t n)
{
    switch (option->kind) {
    case BW_OPTION_INT:
    case BW_OPTION_COUNTED:
        if (option->high >= 2147483647)
            snprintf(out, n, "a whole number of at least %.0f", option->low);
        else
            snprintf(out, n, "a whole number from %.0f to %.0f", option->low, option->high);
        break;
    case BW_OPTION_SEED: snprintf(out, n, "a whole number from 0 to 18446744073709551615"); break;
    case BW_OPTION_NUMBER:
        snprintf(out, n, "a number %s %g and %s %g", option->open & BW_OPEN_LOW ? "above" : "of at least", option->low,
                 option->open & BW_OPEN_HIGH ? "below" : "at most", option->high);
        break;
    case BW_OPTION_CHOICE: snprintf(out, n, "one of %s", option->choices); break;
    case BW_OPTION_LIST: snprintf(out, n, "a text that is not empty, at most %d times", BW_MAX_LIST); break;
    case BW_OPTION_CUSTOM: snprintf(out, n, "%s", option->expected); break;
    default: snprintf(out, n, "%s", option->expected ? option->expected : "a value"); break;
    }
}

static const bw_option *find(const bw_command *command, const char *name, size_t n)
{
    for (size_t i = 0; i < command->n_options; i++) {
        const bw_option *option = &command->options[i];
        if (option->kind != BW_OPTION_GROUP && strlen(option->name) == n && memcmp(option->name, name, n) == 0)
            return option;
    }
    return NULL;
}

static bw_args_result unknown_option(const bw_command *command, const char *given, size_t n)
{
    const char *names[MAX_OPTIONS + 2] = { "--help", "--version" };
    size_t n_names = 2;
    for (size_t i = 0; i < command->n_options && n_names < MAX_OPTIONS; i++)
        if (command->options[i].kind != BW_OPTION_GROUP)
            names[n_names++] = command->options[i].name;
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name - 1), given);
    const char *nearest = bw_args_nearest(name, names, n_names);
    if (nearest)
        bw_args_fail(command->name, "%s is not an option; did you mean %s?", name, nearest);
    else
        bw_args_fail(command->name, "%s is not an option", name);
    return BW_ARGS_WRONG;
}

/* argv[*at] is an option; moves *at onto its value if that is a word of its own. */
static bw_args_result read_option(const bw_command *command, int argc, char **argv, int *at)
{
    const char *word = argv[*at], *equals = strchr(word, '=');
    const size_t n = equals ? (size_t)(equals - word) : strlen(word);
    const bw_option *option = find(command, word, n);
    if (!option)
        return unknown_option(command, word, n);
    if (!takes_value(option)) {
        if (equals) {
            bw_args_fail(command->name, "%s takes no value, given \"%s\"", option->name, equals + 1);
            return BW_ARGS_WRONG;
        }
        *(bool *)option->target = option->kind == BW_OPTION_SET;
        return BW_ARGS_RUN;
    }
    char expected[256];
    describe(option, expected, sizeof expected);
    const char *text = equals ? equals + 1 : *at + 1 < argc ? argv[*at + 1] : NULL;
    if (!equals && (!text || strncmp(text, "--", 2) == 0)) {
        if (text)
            bw_args_fail(command->name,
                         "%s: a value is missing before %s, expected %s; write %s=... for a value that begins with --",
                         option->name, text, expected, option->name);
        else
            bw_args_fail(command->name, "%s: a value is missing, expected %s", option->name, expected);
        return BW_ARGS_WRONG;
    }
    *at += !equals;
    if (!read_value(option, text)) {
        bw_args_fail(command->name, "%s: given \"%s\", expected %s", option->name, text, expected);
        return BW_ARGS_WRONG;
    }
    if (option->kind != BW_OPTION_COUNTED)
        return BW_ARGS_RUN;
    if (*at + 1 >= argc || strncmp(argv[*at + 1], "--", 2) == 0) {
        bw_args_fail(command->name, "%s: the second value is missing after \"%s\", expected %s", option->name, text,
                     option->value);
        return BW_ARGS_WRONG;
    }
    ((bw_counted_option *)option->target)->text = argv[++*at];
    return BW_ARGS_RUN;
}

bw_args_result bw_args_read(const bw_command *command, int argc, char **argv, const char **positionals)
{
    int n = 0;
    bool only_positionals = false;
    for (int i = 0; i < command->n_most; i++)
        positionals[i] = NULL;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (only_positionals || word[0] != '-' || !word[1]) {
            if (n == command->n_most) {
                bw_args_fail(command->name, "unexpected argument \"%s\", expected %s: quote a text of several words",
                             word, command->positionals);
                return BW_ARGS_WRONG;
            }
            positionals[n++] = word;
        } else if (strcmp(word, "--") == 0) {
            only_positionals = true;
        } else if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            print_help(command);
            return BW_ARGS_DONE;
        } else if (strcmp(word, "--version") == 0) {
            printf("bellwether %s\n", bw_version());
            return BW_ARGS_DONE;
        } else {
            bw_args_result result = read_option(command, argc, argv, &i);
            if (result != BW_ARGS_RUN)
                return result;
        }
    }
    if (n < command->n_required) {
        bw_args_fail(command->name, "an argument is missing, expected %s", command->positionals);
        return BW_ARGS_WRONG;
    }
    return BW_ARGS_RUN;
}
