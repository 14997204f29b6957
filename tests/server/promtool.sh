#!/usr/bin/env bash
# Prometheus' own checker reads the page of /metrics, the alert rules and the dashboard of deploy/. Debian has it in
# the package `prometheus` (96 MB with what it needs, so scripts/setup leaves it alone).
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
build=${BW_BUILD:-build}

if ! command -v promtool >/dev/null; then
    echo "skip promtool_reads_the_page: promtool is not installed (Debian: prometheus)"
    echo "skip promtool_reads_the_dashboards_expressions: promtool is not installed (Debian: prometheus)"
    echo "skip promtool_reads_the_alerts: promtool is not installed (Debian: prometheus)"
    exit 0
fi

# 0: fine; 3: only style, which colons in vLLM's names always are; 1: not the format
"$build/tests/cli/show_metrics" >"$work/page" || { echo "not ok a_page_can_be_made: show_metrics failed"; exit 1; }
failed=0
promtool check metrics <"$work/page" >"$work/said" 2>&1
status=$?
case $status in
0 | 3) echo "ok promtool_reads_the_page" ;;
*) echo "not ok promtool_reads_the_page: exit status $status: $(head -c 500 "$work/said")" && failed=1 ;;
esac
# The checker must be able to say no, or its yes is worth nothing.
sed '/^# TYPE vllm:prompt_tokens_total/s/counter/conuter/' "$work/page" | promtool check metrics >/dev/null 2>&1
if [ $? -eq 1 ]; then echo "ok promtool_refuses_a_damaged_page"; else echo "not ok promtool_refuses_a_damaged_page" && failed=1; fi
if promtool check rules deploy/alerts.yml >"$work/said" 2>&1; then
    echo "ok promtool_reads_the_alerts"
else
    echo "not ok promtool_reads_the_alerts: $(head -c 500 "$work/said")" && failed=1
fi
if "$build/tests/cli/show_metrics" deploy/grafana.json >"$work/dashboard.yml" &&
    promtool check rules "$work/dashboard.yml" >"$work/said" 2>&1; then
    echo "ok promtool_reads_the_dashboards_expressions"
else
    echo "not ok promtool_reads_the_dashboards_expressions: $(head -c 500 "$work/said")" && failed=1
fi
exit $failed
