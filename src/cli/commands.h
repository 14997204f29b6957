/* commands.h - what `bellwether COMMAND` calls: argv[0] is the command's name, the result the exit
 * status (0, 1 failure, 2 usage error). One file per command: cmd_<name>.c. */
#ifndef BW_CLI_COMMANDS_H
#define BW_CLI_COMMANDS_H

int bw_cmd_run(int argc, char **argv);
int bw_cmd_serve(int argc, char **argv);
int bw_cmd_bench(int argc, char **argv);
int bw_cmd_eval(int argc, char **argv);
int bw_cmd_inspect(int argc, char **argv);
int bw_cmd_tokenize(int argc, char **argv);

#endif
