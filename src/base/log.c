/* log.c - formats one line and hands it to the program's sink. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/utf8.h"

static bw_log_fn sink;
static void *sink_arg;

void bw_log_to(bw_log_fn fn, void *arg)
{
    sink = fn;
    sink_arg = arg;
}

void bw_log(bw_log_level level, const char *format, ...)
{
    if (!sink)
        return;
    char line[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    bw_utf8_one_line(line); /* names from files may hold anything */
    sink(sink_arg, level, line);
}
