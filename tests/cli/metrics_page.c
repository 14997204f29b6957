/* metrics_page.c - for shell tests: prints the page of /metrics of a server that has had some work. */
#include <stdio.h>

#include "base/mem.h"
#include "lib/metrics_read.h"

int main(void)
{
    bw_metrics_options options = example_metrics_options();
    options.legacy = true;
    bw_metrics *metrics;
    bw_error err;
    if (bw_metrics_create(&metrics, &options, &err) != BW_OK) {
        fprintf(stderr, "metrics_page: %s\n", err.message);
        return 1;
    }
    example_metrics_activity(metrics);
    size_t n;
    char *page = bw_metrics_render(metrics, &n);
    if (page)
        fwrite(page, 1, n, stdout);
    bw_mem_free(page);
    bw_metrics_destroy(metrics);
    return page ? 0 : 1;
}
