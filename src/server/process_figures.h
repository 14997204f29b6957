/* process_figures.h - what the system says of this process, for the metrics. Any thread. */
#ifndef BW_SERVER_PROCESS_FIGURES_H
#define BW_SERVER_PROCESS_FIGURES_H

#include <stdint.h>

/* A figure nobody could tell is negative. */
typedef struct bw_process_figures {
    double cpu_s;          /* user and system */
    int64_t virtual_bytes, resident_bytes;
    int64_t open_files, max_files;
} bw_process_figures;

bw_process_figures bw_process_get_figures(void);
double bw_process_started(void); /* Unix time; negative: nobody knows */

#endif
