/* terminal.c - see terminal.h. */
#include "cli/terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
    const char *what;
    bool bar;     /* stderr is a terminal */
    double start; /* seconds */
    int shown;    /* percent on the screen, -1 none; of lines: the last line's */
} progress;

static char last_logged[1024]; /* a note that the log has just given is not given again */
static volatile sig_atomic_t interrupted;
static volatile sig_atomic_t dim_now; /* the signal handler asks */
static struct sigaction before_watch;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void erase_progress(void)
{
    if (!progress.what || !progress.bar)
        return;
    if (progress.shown >= 0)
        fprintf(stderr, "\r\033[K");
    progress.shown = -1;
}

int bw_terminal_fail(const char *format, ...)
{
    va_list args;
    erase_progress();
    fprintf(stderr, "bellwether: ");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return 1;
}

void bw_terminal_note(const char *format, ...)
{
    char line[sizeof last_logged];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (strcmp(line, last_logged) != 0)
        bw_terminal_log(NULL, BW_LOG_INFO, line);
}

void bw_terminal_log(void *arg, bw_log_level level, const char *line)
{
    (void)arg;
    erase_progress();
    fprintf(stderr, "bellwether: %s: %s\n", level == BW_LOG_WARNING ? "warning" : "note", line);
    snprintf(last_logged, sizeof last_logged, "%s", line);
}

void bw_terminal_progress_begin(const char *what)
{
    progress.what = what;
    progress.bar = isatty(STDERR_FILENO);
    progress.start = now();
    progress.shown = -1;
}

void bw_terminal_progress(void *arg, double done)
{
    (void)arg;
    int percent = done < 0 ? 0 : done > 1 ? 100 : (int)(done * 100);
    if (!progress.bar)
        percent = percent / 10 * 10;
    if (!progress.what || percent == progress.shown || now() - progress.start < 1)
        return;
    if (!progress.bar) {
        fprintf(stderr, "bellwether: note: %s, %d %%\n", progress.what, percent);
        progress.shown = percent;
        return;
    }
    char bar[31] = "..............................";
    memset(bar, '#', (size_t)percent * 30 / 100);
    fprintf(stderr, "\r%s [%s] %d %%\033[K", progress.what, bar, percent);
    fflush(stderr);
    progress.shown = percent;
}

void bw_terminal_progress_end(void)
{
    erase_progress();
    progress.what = NULL;
}

/* C0 but \n and \t, DEL, and C1 as UTF-8 writes it (C2 80 .. C2 9F) become '?'. A character never
 * straddles two calls: the stream gives whole ones. */
static void put_harmless(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)text[i];
        const unsigned char next = i + 1 < n ? (unsigned char)text[i + 1] : 0;
        if (c == 0xC2 && next >= 0x80 && next < 0xA0) {
            putchar('?');
            i++;
        } else if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7F) {
            putchar('?');
        } else {
            putchar(c);
        }
    }
}

void bw_terminal_text(const char *text, size_t n_bytes, bool dimmed)
{
    if (!isatty(STDOUT_FILENO)) {
        fwrite(text, 1, n_bytes, stdout);
    } else {
        if (dimmed != dim_now)
            fputs(dimmed ? "\033[2m" : "\033[0m", stdout);
        dim_now = dimmed;
        put_harmless(text, n_bytes);
    }
    fflush(stdout);
}

void bw_terminal_text_end(void)
{
    if (dim_now)
        fputs("\033[0m", stdout);
    dim_now = false;
    fflush(stdout);
}

bool bw_terminal_flush(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return true;
    bw_terminal_fail("standard output: cannot write: %s", strerror(errno));
    return false;
}

static void on_interrupt(int number)
{
    (void)number;
    if (interrupted) {
        static const char reset[] = "\033[0m\n";
        if (dim_now)
            (void)!write(STDOUT_FILENO, reset, sizeof reset - 1);
        _exit(130);
    }
    interrupted = 1;
}

void bw_interrupt_watch(void)
{
    struct sigaction action = { .sa_handler = on_interrupt, .sa_flags = SA_RESTART };
    sigemptyset(&action.sa_mask);
    interrupted = 0;
    sigaction(SIGINT, &action, &before_watch);
}

void bw_interrupt_unwatch(void)
{
    sigaction(SIGINT, &before_watch, NULL);
}

bool bw_interrupted(void)
{
    return interrupted != 0;
}
