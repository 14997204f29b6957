/* terminal.h - what the user sees beside the result: messages, notes, a progress bar, dimmed
 * thinking; and Ctrl-C. Everything but answer text goes to stderr. Main thread only; owns the one
 * progress line there is. */
#ifndef BW_CLI_TERMINAL_H
#define BW_CLI_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>

#include "bellwether.h"

/* "bellwether: message" on stderr; returns exit status 1. */
int bw_terminal_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* One line that is worth knowing but no failure; not printed if the log's last line was the same. */
void bw_terminal_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A bw_log_fn: the library's warnings and facts, to stderr. */
void bw_terminal_log(void *arg, bw_log_level level, const char *line);

/* Draws "what [#####     ] 43 %" on stderr if the work has taken over a second since
 * bw_terminal_progress_begin; where stderr is no terminal, a line for every 10 %. */
void bw_terminal_progress_begin(const char *what);
void bw_terminal_progress(void *arg, double done); /* bw_model_options.progress */
void bw_terminal_progress_end(void);               /* erases the line */

/* Answer text to stdout. A terminal gets thinking dimmed, and no control characters but newline
 * and tab: a model must not be able to drive the user's terminal. Otherwise the bytes as they
 * are. Flushed, so that text appears as it comes. */
void bw_terminal_text(const char *text, size_t n_bytes, bool dimmed);
void bw_terminal_text_end(void); /* switches dimming off */

/* Flushes stdout. False, after one message, when what was printed could not be written. */
bool bw_terminal_flush(void);

/* From watch on, the first Ctrl-C only sets a flag and the second one ends the program at once;
 * unwatch gives Ctrl-C back the meaning it had. */
void bw_interrupt_watch(void);
void bw_interrupt_unwatch(void);
bool bw_interrupted(void);

#endif
