/* args.h - the options of every command, described as a table and read from it.
 *
 * The same rows parse the command line and print --help, so that neither can forget what the other
 * knows. A mistake ends in one line on stderr that names the option, what was given and what is
 * expected. Main thread only. */
#ifndef BW_CLI_ARGS_H
#define BW_CLI_ARGS_H

#include <stdbool.h>
#include <stddef.h>

/* What a value may be and what `target` points to. */
typedef enum bw_option_kind {
    BW_OPTION_GROUP,  /* a heading of the help; `name` is its text */
    BW_OPTION_SET,    /* no value; bool becomes true */
    BW_OPTION_CLEAR,  /* no value; bool becomes false */
    BW_OPTION_INT,    /* int from low to high */
    BW_OPTION_SEED,   /* bw_seed_option */
    BW_OPTION_NUMBER, /* float from low to high, without the ends that `open` names */
    BW_OPTION_TEXT,   /* const char *, borrowed from argv */
    BW_OPTION_LIST,   /* bw_list_option: may be given several times */
    BW_OPTION_CHOICE, /* int: index of the value in `choices`, "f16|f32" */
    BW_OPTION_COUNTED, /* two words: bw_counted_option */
    BW_OPTION_CUSTOM  /* whatever `read` does */
} bw_option_kind;

enum { BW_OPEN_LOW = 1, BW_OPEN_HIGH = 2, BW_MAX_LIST = 64 };

typedef struct bw_option {
    bw_option_kind kind;
    const char *name;  /* "--seed" */
    const char *value; /* what help calls the value: "N"; NULL when there is none */
    void *target;
    const char *help; /* with the default; lines after the first are indented by the printer */
    double low, high;
    int open;
    const char *choices;
    bool (*read)(void *target, const char *text); /* false: not what `expected` says */
    const char *expected; /* of CUSTOM and TEXT, for messages: "a file name" */
} bw_option;

typedef struct bw_seed_option {
    bool given;
    unsigned long long value;
} bw_seed_option;

typedef struct bw_list_option {
    const char *items[BW_MAX_LIST];
    int n;
} bw_list_option;

typedef struct bw_counted_option {
    int n;            /* from low to high; 0: not given */
    const char *text; /* borrowed from argv */
} bw_counted_option;

typedef struct bw_command {
    const char *name;        /* "run" */
    const char *positionals; /* "MODEL [PROMPT]" */
    int n_required, n_most;  /* positional arguments; messages call them by `positionals` */
    const char *about;       /* what it does, lines ending in \n */
    const bw_option *options;
    size_t n_options;
    const char *example; /* a command that works */
} bw_command;

typedef enum bw_args_result {
    BW_ARGS_RUN,  /* go on */
    BW_ARGS_DONE, /* --help or --version was printed: exit 0 */
    BW_ARGS_WRONG /* a usage error was printed: exit 2 */
} bw_args_result;

/* Reads argv[1..] into the targets and up to n_most positional arguments; those not given are
 * NULL. `--name value` and `--name=value`; after `--` everything is positional. A value that
 * begins with `--` must be written with `=`, so that a forgotten value is noticed. */
bw_args_result bw_args_read(const bw_command *command, int argc, char **argv, const char **positionals);

/* Prints "bellwether NAME: message (see bellwether NAME --help)" on stderr; returns exit status 2. */
int bw_args_fail(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Of n names the one `given` was probably meant to be, or NULL. */
const char *bw_args_nearest(const char *given, const char *const *names, size_t n);

#endif
