/* show_metrics.c - for shell tests: prints the page of /metrics of a server that has had some work.
 *
 *     show_metrics            the page
 *     show_metrics FILE       a dashboard's expressions as a file of rules, which promtool can check */
#include <stdio.h>
#include <string.h>

#include <json.h>

#include "base/mem.h"
#include "lib/metrics_read.h"

/* The panels' "expr" members; Grafana's own variable becomes a time. */
static int print_rules(struct json_object *value, int n)
{
    if (json_object_is_type(value, json_type_array))
        for (size_t i = 0; i < json_object_array_length(value); i++)
            n = print_rules(json_object_array_get_idx(value, i), n);
    if (!json_object_is_type(value, json_type_object))
        return n;
    json_object_object_foreach(value, key, member)
    {
        if (strcmp(key, "expr") != 0) {
            n = print_rules(member, n);
            continue;
        }
        printf("      - record: dashboard:expression_%d\n        expr: '", n++);
        static const char variable[] = "$__rate_interval";
        for (const char *s = json_object_get_string(member); *s;) {
            bool here = strncmp(s, variable, sizeof variable - 1) == 0;
            if (here)
                printf("5m");
            else
                putchar(*s);
            s += here ? sizeof variable - 1 : 1;
        }
        printf("'\n");
    }
    return n;
}

static int rules_of(const char *path)
{
    struct json_object *dashboard = json_object_from_file(path);
    if (!dashboard) {
        fprintf(stderr, "show_metrics: %s is no JSON\n", path);
        return 1;
    }
    printf("groups:\n  - name: dashboard\n    rules:\n");
    int n = print_rules(dashboard, 0);
    json_object_put(dashboard);
    return n > 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc == 2)
        return rules_of(argv[1]);
    bw_metrics_options options = example_metrics_options();
    options.legacy = true;
    bw_metrics *metrics;
    bw_error err;
    if (bw_metrics_create(&metrics, &options, &err) != BW_OK) {
        fprintf(stderr, "show_metrics: %s\n", err.message);
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
