/* main.c - picks the command. Owns nothing else; every command is a file of its own. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "bellwether.h"
#include "cli/args.h"
#include "cli/commands.h"

static const struct command {
    const char *name;
    int (*main)(int argc, char **argv);
    const char *about;
} commands[] = {
    { "run", bw_cmd_run, "write text: one prompt, or a chat" },
    { "serve", bw_cmd_serve, "answer programs over HTTP, in the OpenAI API" },
    { "inspect", bw_cmd_inspect, "what is in a model, and is it whole" },
    { "tokenize", bw_cmd_tokenize, "text to token ids and back" },
    { "eval", bw_cmd_eval, "perplexity of a text, logits of every row" },
    { "bench", bw_cmd_bench, "how fast a model is here, and how fast it could be" },
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void print_help(void)
{
    printf("bellwether %s - run Qwen3.5, 3.6 and 3.8 models, drafting with their own MTP head\n\n"
           "Usage: bellwether COMMAND [OPTIONS] MODEL ...\n\n"
           "MODEL is a Hugging Face folder or a .gguf file.\n\nCommands\n",
           bw_version());
    for (int i = 0; i < N_COMMANDS; i++)
        printf("  %-12s%s\n", commands[i].name, commands[i].about);
    printf("\nbellwether COMMAND --help explains each; bellwether --version prints the version.\n"
           "Exit status: 0 success, 1 failure, 2 a command line that is not understood.\n"
           "\nExample:\n  bellwether run models/lamb \"Tell me a story about a lost kite.\"\n");
}

static int unknown_command(const char *given)
{
    const char *names[N_COMMANDS];
    for (int i = 0; i < N_COMMANDS; i++)
        names[i] = commands[i].name;
    const char *nearest = bw_args_nearest(given, names, N_COMMANDS);
    fprintf(stderr, "bellwether: \"%s\" is not a command, expected run, serve, inspect, tokenize, eval or bench", given);
    if (nearest)
        fprintf(stderr, "; did you mean %s?", nearest);
    fprintf(stderr, " (see bellwether --help)\n");
    return 2;
}

int main(int argc, char **argv)
{
    /* A reader that leaves ends the program quietly, even where the parent ignored the signal. */
    signal(SIGPIPE, SIG_DFL);
    if (argc < 2) {
        fprintf(stderr,
                "bellwether: a command is missing, expected run, serve, inspect, tokenize, eval or bench (see bellwether --help)\n");
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_help();
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("bellwether %s\n", bw_version());
        return 0;
    }
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].main(argc - 1, argv + 1);
    return unknown_command(argv[1]);
}
