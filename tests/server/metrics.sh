#!/usr/bin/env bash
# The figures of /metrics beside what answers say of themselves, on a server that is asked a few things.
. tests/cli/common.bash
show=${BW_BUILD:-build}/tests/cli/show_metrics
port='' server=''
trap 'kill -9 $server 2>/dev/null; rm -rf "$work"' EXIT

: >"$work/log"
./bellwether serve models/lamb --port 0 --threads 2 --max-seqs 4 --ctx 2048 2>"$work/log" >/dev/null &
server=$!
for _ in {1..1200}; do
    port=$(sed -n 's|.*listening on http://[^ ]*:\([0-9]*\)/.*|\1|p' "$work/log")
    [ -n "$port" ] && (exec 3<>"/dev/tcp/127.0.0.1/$port" && printf 'GET /ping HTTP/1.0\r\n\r\n' >&3 && grep -q ' 200 ' <&3) 2>/dev/null && break
    kill -0 $server 2>/dev/null || break
    sleep 0.05
done

# ask METHOD PATH [BODY]: the body of the answer, in $work/out
ask() {
    local body=${3:-}
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    printf '%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' "$1" "$2" \
        "${#body}" "$body" >&3
    timeout 100 cat <&3 | sed '1,/^\r$/d' >"$work/out"
    exec 3>&- 3<&-
}
scrape() { ask GET /metrics && cp "$work/out" "$1"; }
# series PAGE NAME [LABEL]: the value of the series; 0 where it is not there
series() { awk -v name="$2" -v label="${3:-}" 'index($1, name "{") == 1 && (label == "" || index($0, label)) { v = $NF } END { print v + 0 }' "$1"; }
grew() { echo $(($(series "$work/after" "$@") - $(series "$work/before" "$@"))); }

chat() { ask POST /v1/chat/completions '{"messages":[{"role":"user","content":"Tell me a story about a lamb."}],"temperature":0,"ignore_eos":true,"loop_guard":false,'"$1"'}'; }

scrape "$work/before"
is nothing_has_ended "$(series "$work/before" vllm:e2e_request_latency_seconds_count)" 0
chat '"max_tokens":20'
prompt=$(json usage.prompt_tokens) accepted=$(json usage.completion_tokens_details.accepted_prediction_tokens)
rejected=$(json usage.completion_tokens_details.rejected_prediction_tokens)
chat '"max_tokens":30,"n":2,"draft":0'
chat '"max_tokens":-1'
is a_mistake_is_refused "$(json error.param)" max_tokens
ask GET /nowhere
# a client that leaves in the middle
exec 4<>"/dev/tcp/127.0.0.1/$port"
body='{"messages":[{"role":"user","content":"Hi"}],"stream":true,"ignore_eos":true,"loop_guard":false,"max_tokens":1900}'
printf 'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' "${#body}" "$body" >&4
while read -r -t 60 line <&4; do [ "${line:0:5}" = data: ] && break; done
exec 4>&- 4<&-
for _ in {1..200}; do
    scrape "$work/after"
    [ "$(grew vllm:request_success_total '"abort"')" -gt 0 ] && [ "$(series "$work/after" vllm:num_requests_running)" -eq 0 ] && break
    sleep 0.05
done

is sequences_by_how_they_ended "$(grew vllm:request_success_total '"length"') $(grew vllm:request_success_total '"stop"') \
$(grew vllm:request_success_total '"abort"') $(grew vllm:request_success_total '"error"')" '3 0 1 0'
is a_client_left_while_it_decoded "$(grew bellwether_clients_gone_total '"decode"')" 1
is first_tokens "$(grew vllm:time_to_first_token_seconds_count)" 4
is sequences_have_lengths "$(grew vllm:request_generation_tokens_sum) $(grew vllm:request_prompt_tokens_sum)" "80 $((3 * prompt))"
is requests_have_choices "$(grew vllm:request_params_n_count) $(grew vllm:request_params_n_sum)" '2 3'
is the_longest_choice "$(grew vllm:request_max_num_generation_tokens_sum)" 50
is sources_add_up "$(grew vllm:prompt_tokens_total)" \
    "$(($(grew vllm:prompt_tokens_by_source_total '"local_compute"') + $(grew vllm:prompt_tokens_by_source_total '"local_cache_hit"')))"
is hits_are_tokens_from_the_cache "$(grew vllm:prefix_cache_hits_total)" "$(grew vllm:prompt_tokens_cached_total)"
if [ "$(grew vllm:generation_tokens_total)" -ge 81 ]; then ok tokens_are_counted; else not_ok tokens_are_counted "$(grew vllm:generation_tokens_total)"; fi
drafted=$(grew vllm:spec_decode_num_draft_tokens_total) taken=$(grew vllm:spec_decode_num_accepted_tokens_total)
if [ "$drafted" -ge $((accepted + rejected)) ] && [ "$taken" -ge "$accepted" ] && [ "$taken" -le "$drafted" ]; then
    ok drafts_are_counted
else
    not_ok drafts_are_counted "page: $taken of $drafted; one answer: $accepted of $((accepted + rejected))"
fi
is nothing_runs "$(series "$work/after" vllm:num_requests_running) $(series "$work/after" vllm:num_requests_waiting) \
$(series "$work/after" vllm:kv_cache_usage_perc)" '0 0 0'
is every_slot_is_free "$(series "$work/after" bellwether_recurrent_slots '"free"')" 4
for what in kv state; do
    is "${what}_takes_what_was_planned" "$(series "$work/after" bellwether_memory_bytes "what=\"$what\",state=\"used\"")" \
        "$(series "$work/after" bellwether_memory_bytes "what=\"$what\",state=\"planned\"")"
done
# the mistake, and the client that left: 499
is http_by_class "$(series "$work/after" http_requests_total 'method="POST",status="4xx"')" 2
# The same families as a page that no server made, in the same order.
is the_same_families "$(grep '^# TYPE' "$work/after" | md5sum)" \
    "$("$show" | grep '^# TYPE' | grep -vE 'vllm:(gpu_|time_per_output_token_seconds )' | md5sum)"
if ! command -v promtool >/dev/null; then
    echo 'skip promtool_reads_a_live_page: promtool is not installed (Debian: prometheus)'
else
    promtool check metrics <"$work/after" >"$work/said" 2>&1
    is promtool_reads_a_live_page "$(($? == 1))" 0
fi
kill -TERM $server
wait $server
is it_leaves_in_order $? 0
exit $failed
