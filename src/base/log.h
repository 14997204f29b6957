/* log.h - lines for the operator: warnings and facts found while opening and running.
 *
 * Library code never prints: it hands a finished line to the sink the program set (none: dropped).
 * Any thread; the sink is set once, before other threads exist. */
#ifndef BW_BASE_LOG_H
#define BW_BASE_LOG_H

#include "bellwether.h"

void bw_log(bw_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
