/* deploy/: the dashboard and the alerts ask only for metrics and labels that the server sends. */
#include "lib/check.h"

#include <ctype.h>
#include <stdlib.h>

#include <json-c/json.h>

#include "base/mem.h"
#include "lib/metrics_read.h"
#include "lib/runs.h"

/* A page after some work, so that every family has samples. */
static metrics_read *example_page(void)
{
    bw_metrics_options options = example_metrics_options();
    bw_metrics *metrics;
    bw_error err;
    check_ok(bw_metrics_create(&metrics, &options, &err), err);
    example_metrics_activity(metrics);
    size_t n;
    char *page = bw_metrics_render(metrics, &n);
    check(page != NULL);
    metrics_read *read = metrics_read_page(page, n);
    bw_mem_free(page);
    bw_metrics_destroy(metrics);
    return read;
}

static bool is_word(const char *word, size_t n, const char *const *list)
{
    for (; *list; list++)
        if (strlen(*list) == n && strncmp(word, *list, n) == 0)
            return true;
    return false;
}

static size_t skip_string(const char *s)
{
    size_t n = 1;
    while (s[n] && s[n] != s[0])
        n += s[n] == '\\' && s[n + 1] ? 2 : 1;
    return n + (s[n] != '\0');
}

/* In {label="value",...}: each label stands on a sample of the page, or is one Prometheus adds. */
static size_t check_matchers(const metrics_read *page, const char *s, const char *name)
{
    static const char *const added[] = { "instance", "job", NULL };
    size_t n = 1;
    while (s[n] && s[n] != '}') {
        size_t m = strspn(s + n, "abcdefghijklmnopqrstuvwxyz_");
        check_that(m > 0, "%s: labels: %s", name, s);
        bool known = is_word(s + n, m, added);
        for (int i = 0; i < page->n_series && !known; i++) {
            char label[64];
            snprintf(label, sizeof label, "%.*s=\"", (int)m, s + n);
            known = strncmp(page->series[i].key, name, strlen(name)) == 0 && strstr(page->series[i].key, label);
        }
        check_that(known, "%s has no label %.*s", name, (int)m, s + n);
        n += m;
        n += strspn(s + n, "=!~");
        n += skip_string(s + n);
        n += s[n] == ',';
    }
    return n + 1;
}

/* Every metric in a PromQL expression is on the page; returns how many there were. */
static int check_expression(const metrics_read *page, const char *expression)
{
    static const char *const words[] = { "and", "or", "unless", "bool", "offset", "inf", "sum", "min", "max", "avg", NULL };
    static const char *const lists[] = { "by", "on", "without", "ignoring", "group_left", "group_right", NULL };
    int found = 0;
    for (const char *s = expression; *s;) {
        if (*s == '"') {
            s += skip_string(s);
        } else if (*s == '[') {
            s += strcspn(s, "]");
        } else if (isdigit((unsigned char)*s)) {
            s += strspn(s, "0123456789.e");
        } else if (isalpha((unsigned char)*s) || *s == '_') {
            size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:");
            const char *next = s + n + strspn(s + n, " ");
            if (is_word(s, n, lists)) {
                s = next + (*next == '(' ? strcspn(next, ")") : 0);
                continue;
            }
            if (*next != '(' && !is_word(s, n, words)) {
                char name[128];
                snprintf(name, sizeof name, "%.*s", (int)n, s);
                check_that(metrics_read_has_name(page, name), "the server has no %s: %s", name, expression);
                found++;
                s += n;
                s += *s == '{' ? check_matchers(page, s, name) : 0;
                continue;
            }
            s += n;
        } else
            s++;
    }
    return found;
}

TEST(the_check_finds_what_is_not_there)
{
    metrics_read *page = example_page();
    check_int(check_expression(page, "sum by (job, le) (rate(vllm:e2e_request_latency_seconds_bucket[5m:1m])) > 1.5e3"), 1);
    check_int(check_expression(page, "http_requests_total{status=~\"a}b\",instance=\"x\"} and on (job) bellwether_build_info"), 2);
    check_int(check_expression(page, "1 + 2"), 0);
    check(!metrics_read_has_name(page, "vllm:e2e_request_latency"));
    check(!metrics_read_has_name(page, "vllm:e2e_request_latency_seconds"));
    metrics_read_free(page);
}

/* The "expr" members of a value and of all below it. */
static int check_json(const metrics_read *page, struct json_object *value)
{
    int found = 0;
    if (json_object_is_type(value, json_type_array))
        for (size_t i = 0; i < json_object_array_length(value); i++)
            found += check_json(page, json_object_array_get_idx(value, i));
    if (!json_object_is_type(value, json_type_object))
        return found;
    json_object_object_foreach(value, key, member)
    {
        if (strcmp(key, "expr") == 0) {
            int n = check_expression(page, json_object_get_string(member));
            check_that(n > 0, "no metric in %s", json_object_get_string(member));
            found += n;
        } else
            found += check_json(page, member);
    }
    return found;
}

TEST(the_dashboard_asks_for_metrics_that_exist)
{
    metrics_read *page = example_page();
    struct json_object *dashboard = read_json(repo_path("deploy/grafana.json"));
    check(check_json(page, dashboard) > 50);
    json_object_put(dashboard);
    metrics_read_free(page);
}

TEST(the_alerts_ask_for_metrics_that_exist)
{
    metrics_read *page = example_page();
    size_t n;
    char *rules = read_file(repo_path("deploy/alerts.yml"), &n);
    int found = 0, alerts = 0;
    for (char *line = strtok(rules, "\n"); line; line = strtok(NULL, "\n")) {
        const char *text = line + strspn(line, " -");
        alerts += strncmp(text, "alert: ", 7) == 0;
        if (strncmp(text, "expr: ", 6) == 0)
            found += check_expression(page, text + 6) > 0;
    }
    check(alerts > 5);
    check_int(found, alerts);
    free(rules);
    metrics_read_free(page);
}

TESTS_MAIN(ENTRY(the_check_finds_what_is_not_there), ENTRY(the_dashboard_asks_for_metrics_that_exist),
           ENTRY(the_alerts_ask_for_metrics_that_exist))
