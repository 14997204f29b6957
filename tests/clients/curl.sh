#!/usr/bin/env bash
# curl: what people type by hand, the headers, and what a client that leaves costs.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
json_get=${BW_BUILD:-build}/tests/cli/json_get
root=${BASE_URL%/v1}
curl --version | sed -n '1s/^curl \([^ ]*\).*/version \1/p'

ok() { echo "ok $1${2:+  # $2}"; }
not_ok() {
    echo "not ok $1: ${*:2}"
    failed=1
}
is() { if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "got \"${2:0:300}\", expected \"${3:0:300}\""; fi; }
# call PATH [CURL ARGS]: leaves $status, $work/body, $work/headers
call() {
    status=$(curl -sS --max-time 120 -o "$work/body" -D "$work/headers" -w '%{http_code}' -H "Authorization: Bearer ${key-$API_KEY}" \
        "${@:2}" "$root$1" 2>"$work/err") || status="curl failed: $(cat "$work/err")"
}
json() { "$json_get" "$1" <"$work/body" 2>&1; }
header() { sed -n "s/^$1: //Ip" "$work/headers" | tr -d '\r'; }

call /v1/models
is the_model_is_listed "$status $(json data.0.id) $(json data.0.object)" "200 $MODEL model"
is answers_are_json "$(header content-type | cut -d';' -f1)" application/json

body='{"messages":[{"role":"user","content":"Tell me a story about a lamb."}],"temperature":0,"max_tokens":20,"reasoning_effort":"none"}'
call /v1/chat/completions -d "$body"
is a_body_without_a_type_of_its_own "$status" 415
call /v1/chat/completions -H 'Content-Type: application/json' -d "$body"
is chat "$status $(json choices.0.finish_reason) $(json usage.completion_tokens)" '200 length 20'
whole=$(json choices.0.message.content)
call /v1/chat/completions -H 'Content-Type:' -d "$body"
is a_missing_type_is_json "$status" 200
call /v1/chat/completions -H 'Content-Type: application/json' -H 'Transfer-Encoding: chunked' -d "$body"
is a_chunked_body "$status" 200
call /v1/chat/completions -H 'Content-Type: application/json' -H 'X-Request-Id: mine-1' -d "$body"
is the_request_id_comes_back "$(header x-request-id) $(header request-id)" 'mine-1 mine-1'

call /v1/chat/completions -N -H 'Content-Type: application/json' -d "${body%\}},\"stream\":true,\"stream_options\":{\"include_usage\":true}}"
is a_stream_says_what_it_is "$status $(header content-type)" '200 text/event-stream; charset=utf-8'
grep -v '^$' "$work/body" | sed '$!s/^data: //' >"$work/events"
is a_stream_ends_with_done "$(tail -n 1 "$work/events")" 'data: [DONE]'
text=
while IFS= read -r event; do
    piece=$("$json_get" choices.0.delta.content <<<"$event" 2>/dev/null; echo x) && text+=${piece%$'\n'x}
done < <(sed '$d' "$work/events")
is a_streams_pieces_are_the_answer "${text//x/}" "${whole//x/}"
is a_token_is_an_event "$(grep -c '"content":"[^"]' "$work/events")" 20

call /v1/chat/completions -H 'Content-Type: application/json' -d '{"messages":['
is broken_json_is_400 "$status $(json error.type) $(json error.code)" '400 invalid_request_error invalid_json'
call /v1/chat/completions -H 'Content-Type: application/json' -d '{"model":"gpt-9","messages":[{"role":"user","content":"Hi"}]}'
is another_model_is_404 "$status $(json error.code)" '404 model_not_found'
call /v1/chat/completions
is another_method_is_405 "$status $(header allow)" '405 POST'
call /nowhere
is another_path_is_404 "$status $(json error.code)" '404 not_found'
key=wrong call /v1/chat/completions -H 'Content-Type: application/json' -d "$body"
is another_key_is_401 "$status $(json error.type)" '401 authentication_error'
call /v1/models -H 'Authorization:' -H "x-api-key: $API_KEY"
is the_key_may_stand_in_x_api_key "$status" 200
for path in /health /metrics /version; do
    call $path -H 'Authorization:'
    is "no_key_is_needed_for_${path#/}" "$status" 200
done
call /metrics
is the_metrics_count "$(grep -c '^vllm:request_success_total{.*finished_reason="length"} [1-9]' "$work/body")" 1
is head_has_no_body "$(curl -sS -I -o "$work/body" -w '%{http_code} %{size_download}' "$root/health")" '200 0'

head -c 3000000 /dev/zero | tr '\0' 'a' >"$work/large"
{ printf '{"messages":[{"role":"user","content":"' && cat "$work/large" && printf '"}]}'; } >"$work/large.json"
call /v1/chat/completions -H 'Content-Type: application/json' -H 'Expect: 100-continue' --data-binary "@$work/large.json"
is a_body_that_asks_first "$status $(json error.code)" '400 context_length_exceeded'

# Ctrl-C in the middle of a stream
busy() { curl -s -H "Authorization: Bearer $API_KEY" "$root/slots" | grep -o '"is_processing":[ ]*true' | wc -l; }
curl -sN -H "Authorization: Bearer $API_KEY" -H 'Content-Type: application/json' "$root/v1/chat/completions" \
    -d '{"messages":[{"role":"user","content":"Hi"}],"stream":true,"ignore_eos":true,"loop_guard":false,"max_tokens":20000}' >"$work/cut" &
pid=$!
for _ in $(seq 100); do [ "$(grep -c '^data' "$work/cut")" -gt 3 ] && break || sleep 0.05; done
is a_stream_holds_a_slot "$(busy)" 1
kill $pid
wait $pid 2>/dev/null
for _ in $(seq 20); do [ "$(busy)" -eq 0 ] && break || sleep 0.05; done
is a_stream_cut_short_frees_its_slot "$(busy)" 0
exit $failed
