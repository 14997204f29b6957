#!/usr/bin/env bash
# `bellwether serve` from the first byte to the last, by a client of a few lines of bash: 503 while it
# loads, 200 when it is ready, the small routes, and what signals do.
. tests/cli/common.bash
lamb=models/lamb
port='' server=''

# start ARGS: a server in the background, on a free port, with its log in $work/log
start() {
    : >"$work/log"
    ./bellwether serve "$@" --port 0 --threads 2 2>>"$work/log" >"$work/stdout" &
    server=$!
    port=''
    for _ in {1..500}; do
        port=$(sed -n 's|.*listening on http://[^ ]*:\([0-9]*\)/.*|\1|p' "$work/log")
        [ -n "$port" ] && return
        kill -0 $server 2>/dev/null || return
        sleep 0.01
    done
}
ready() {
    for _ in {1..600}; do
        [ "$(call GET /ping)" = 200 ] && return 0
        kill -0 $server 2>/dev/null || return 1
        sleep 0.05
    done
    return 1
}
# call METHOD PATH [BODY [HEADER ...]]: prints the status; head and body are left in $work/head, $work/out
call() {
    local method=$1 path=$2 body=${3:-} header
    : >"$work/answer"
    {
        exec 3<>"/dev/tcp/127.0.0.1/$port"
    } 2>/dev/null || { echo refused; return; }
    {
        printf '%s %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: %d\r\n' "$method" "$path" "${#body}"
        [ -n "$body" ] && printf 'Content-Type: application/json\r\n'
        for header in "${@:4}"; do printf '%s\r\n' "$header"; done
        printf '\r\n%s' "$body"
    } >&3 2>/dev/null
    timeout 100 cat <&3 >"$work/answer" 2>/dev/null
    exec 3>&- 3<&-
    awk -v RS='\r\n' '$0 == "" { exit } { print }' "$work/answer" >"$work/head"
    sed '1,/^\r$/d' "$work/answer" >"$work/out"
    sed -n '1s/^HTTP\/1.1 \([0-9]*\).*/\1/p' "$work/head"
}
# The same beside a call that runs: its files have other names, and it prints the body.
call2() {
    local body=${3:-}
    {
        exec 5<>"/dev/tcp/127.0.0.1/$port"
        printf '%s %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' \
            "$1" "$2" "${#body}" "$body" >&5
        timeout 100 cat <&5 >"$work/answer2"
        exec 5>&-
    } 2>/dev/null
    sed '1,/^\r$/d' "$work/answer2"
}
header() { sed -n "s/^$1: //Ip" "$work/head"; }
# stop NAME SIGNAL WANT: the exit status, and how long it took is in $took
stop() {
    local begin=$EPOCHREALTIME
    kill -"$2" $server
    wait $server
    is "$1" $? "$3"
    took=$(((${EPOCHREALTIME/./} - ${begin/./}) / 1000))
}

# ---- loading -----------------------------------------------------------------------------------------

start $lamb --log-requests
# The first answer comes before the model is there, or, on a machine that is quick, after.
first=$(call GET /health)
case $first in
503)
    is while_loading_health_names_the_reason "$(json error.message):$(json error.type)" "Loading model:unavailable_error"
    is while_loading_there_is_progress "$(json error.progress | grep -cE '^[0-9.]+$')" 1
    is while_loading_a_client_is_told_when_to_come_back "$(header Retry-After)" 1
    ;;
200) ok "the_model_was_there_at_once" ;;
*) not_ok an_answer_comes_at_once "status $first" ;;
esac
if ready; then ok it_becomes_ready; else not_ok it_becomes_ready "$(tail -n 3 "$work/log")"; exit 1; fi

# ---- the small routes --------------------------------------------------------------------------------

is health_is_ok "$(call GET /health):$(cat "$work/out")" '200:{"status":"ok"}'
is every_answer_has_an_id "$(header X-Request-Id)" "$(header request-id)"
is health_has_a_name_under_v1 "$(call GET /v1/health)" 200
is ping_may_be_posted "$(call POST /ping):$(wc -c <"$work/out")" 200:0
is version_is_the_programs "$(call GET /version):$(json version)" "200:$(./bellwether --version | cut -d' ' -f2)"
is models_lists_what_is_served "$(call GET /v1/models):$(json data.0.id):$(json data.0.root)" "200:lamb:$lamb"
is models_says_how_large "$(json data.0.meta.n_params):$(json data.0.meta.quantization)" 14085936:BF16
is a_model_has_its_own_address "$(call GET /v1/models/lamb):$(json object)" 200:model
is a_model_that_is_not_there "$(call GET /v1/models/sheep):$(json error.code)" 404:model_not_found
is models_for_clients_of_messages "$(call GET /v1/models '' 'anthropic-version: 2023-06-01'):$(json data.0.type):$(json first_id)" 200:model:lamb
is props_has_the_template "$(call GET /props):$(json chat_template | head -c 3)" '200:{#-'
is props_has_the_plan "$(json memory_plan.weights)" 28171872
is props_has_the_self_test "$(json self_test.ran):$(json self_test.passed):$(json self_test.agreement.engaged)" true:true:yes
is drafting_drafts "$(json self_test.drafts.engaged)" yes
is the_cache_hits "$(json self_test.cache.engaged)" yes
is idle_slots_are_shown "$(call GET /slots):$(json 0.state):$(json 31.is_processing)" 200:idle:false
is a_free_slot_is_no_failure "$(call GET '/slots?fail_on_no_slot=1')" 200
is nothing_is_running "$(call GET /load):$(json server_load)" 200:0
is metrics_are_shown "$(call GET /metrics):$(grep -c '^bellwether_build_info' "$work/out")" 200:1
is text_becomes_tokens "$(call POST /tokenize '{"prompt": "Hello there"}'):$(json count):$(json max_model_len)" 200:2:32768
tokens=$(json tokens)
is tokens_become_text "$(call POST /detokenize "{\"tokens\": $tokens}"):$(json prompt)" "200:Hello there"
is messages_become_a_prompt "$(call POST /apply-template '{"messages": [{"role": "user", "content": "Hi"}]}'):$(json prompt | head -n 1)" \
    "200:<|im_start|>user"
is half_a_body_is_refused "$(call POST /tokenize '{"prompt":'):$(json error.code)" 400:invalid_json
is there_is_a_page "$(call GET /):$(grep -ci '<html' "$work/out")" 200:1
is an_unknown_path "$(call GET /nothing):$(json error.code)" 404:not_found
is a_wrong_method "$(call DELETE /health):$(header Allow | grep -c GET)" 405:1
for path in responses messages messages/count_tokens; do
    is "what_is_not_there_yet_is_said_$path" "$(call POST /v1/$path '{}'):$(json error.message | grep -c 'no Responses or Messages')" 404:1
done
is what_is_not_served_is_said "$(call POST /v1/embeddings '{}'):$(json error.message | grep -c embeddings)" 404:1

# ---- chats -------------------------------------------------------------------------------------------

question='"messages": [{"role": "user", "content": "Tell me a story about a kite."}], "seed": 7'
is a_chat_is_answered "$(call POST /v1/chat/completions "{$question, \"max_tokens\": 40}"):$(json object)" 200:chat.completion
is an_answer_is_as_long_as_asked "$(json usage.completion_tokens):$(json choices.0.finish_reason)" 40:length
is an_answer_says_what_it_took "$(json timings.predicted_n):$(json timings.seed)" 40:7
is an_answer_names_model_and_build "$(json model):$(json system_fingerprint)" "lamb:lamb-BF16-$(sed -n 's/.*threads, \([a-z0-9]*\) .*/\1/p' "$work/log")-$(./bellwether --version | cut -d' ' -f2)"
text=$(json choices.0.message.reasoning_content)$(json choices.0.message.content | sed 's/^null$//')
is a_chat_is_streamed "$(call POST /v1/chat/completions "{$question, \"max_tokens\": 40, \"stream\": true}"):$(header Content-Type)" \
    "200:text/event-stream; charset=utf-8"
events() { tr -d '\r' <"$1" | sed -n 's/^data: //p'; }
events "$work/out" >"$work/events"
is a_stream_ends_with_done "$(tail -n 1 "$work/events")" '[DONE]'
is an_event_per_token_beside_role_and_end "$(($(wc -l <"$work/events") - 3))" 40
streamed=$(grep -v '^\[DONE' "$work/events" | while read -r line; do
    for part in reasoning_content content; do "$json_get" "choices.0.delta.$part" <<<"$line" 2>/dev/null; printf '\001'; done
done | tr -d '\n' | tr -d '\001')
is a_stream_says_what_the_answer_said "$streamed" "$(tr -d '\n' <<<"$text")"
is the_same_prompt_is_supplied_from_the_cache "$(call POST /v1/chat/completions "{$question, \"max_tokens\": 4}" >/dev/null && (($(json usage.prompt_tokens_details.cached_tokens) > 0)) && echo yes)" yes
is a_completion_is_answered "$(call POST /v1/completions '{"prompt": "Once upon", "max_tokens": 5}'):$(json object):$(json usage.completion_tokens)" \
    200:text_completion:5
is a_chat_without_messages_is_refused "$(call POST /v1/chat/completions '{}'):$(json error.param)" 400:messages
is a_chat_for_another_model_is_refused "$(call POST /v1/chat/completions "{$question, \"model\": \"sheep\"}"):$(json error.code)" 404:model_not_found

# A stream of N tokens in the background, its events in $work/FILE.
stream() {
    local body="{$question, \"max_tokens\": $2, \"ignore_eos\": true, \"stream\": true, \"loop_guard\": false}"
    {
        exec 4<>"/dev/tcp/127.0.0.1/$port"
        printf 'POST /v1/chat/completions HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' \
            "${#body}" "$body" >&4
        exec timeout 60 cat <&4 >"$work/$1"
    } 2>/dev/null &
    reader=$!
    for _ in {1..1000}; do
        [ "$(grep -c '^data: ' "$work/$1" 2>/dev/null)" -gt 3 ] 2>/dev/null && return
        sleep 0.02
    done
}
stream leaver 30000
is who_is_answered_holds_a_slot "$(call GET /slots):$(json 0.state)" 200:decode
is and_is_counted "$(call GET /load):$(json server_load)" 200:1
kill $reader
for _ in {1..100}; do
    call GET /load >/dev/null
    [ "$(json server_load)" = 0 ] && break
    sleep 0.02
done
is who_leaves_frees_its_slot "$(json server_load)" 0
is and_the_log_says_so "$(sleep 0.1; grep -c '^POST /v1/chat/completions 499 ' "$work/log")" 1

# ---- the receipt and the log -------------------------------------------------------------------------

is nothing_is_on_stdout "$(wc -c <"$work/stdout")" 0
is the_receipt_comes_once "$(grep -c '^receipt' "$work/log")" 1
for part in model address computing memory room drafts cache identity self-test; do
    is "the_receipt_has_$part" "$(grep -c "^  $part  *[^ ]" "$work/log")" 1
done
is memory_that_was_chosen_is_said "$(grep -c 'note: \(KV\|cache\) memory: .*GiB free' "$work/log")" 2
is a_request_is_a_line_in_the_log "$(grep -cE '^GET /props 200 [0-9]{4,} bytes [0-9.]+ ms req_' "$work/log")" 1

# ---- signals -----------------------------------------------------------------------------------------

stop an_idle_server_ends_well TERM 0
is and_at_once "$((took < 10000))" 1
is the_port_is_free_again "$(call GET /health)" refused

start $lamb --no-self-test
ready
stream last 400
stop what_runs_ends_before_the_server TERM 0
wait $reader
is a_stream_that_drains_is_whole "$(events "$work/last" | tail -n 1):$(events "$work/last" | grep -c '"finish_reason":"length"')" '[DONE]:1'
is draining_is_said "$(grep -c 'note: SIGTERM: .* 1 running' "$work/log")" 1

start $lamb --no-self-test --drain-timeout 0.2
ready
stream cut 30000
stop what_takes_too_long_is_ended TERM 0
is and_in_time "$((took < 10000))" 1
wait $reader
is its_stream_ends_with_an_error "$(events "$work/cut" | tail -n 2 | grep -c '"error"')" 1
is and_not_as_if_it_had_finished "$(events "$work/cut" | grep -c '"finish_reason":"')" 0

start $lamb --no-self-test
ready
stream gone 30000
kill -TERM $server
for _ in {1..500}; do
    grep -q 'note: SIGTERM' "$work/log" && break
    sleep 0.02
done
sleep 0.1
is while_draining_nobody_is_let_in "$(call GET /health)" refused
stop a_second_signal_ends_it_at_once TERM 0
is and_that_is_quick "$((took < 10000))" 1
wait $reader

# One sequence, one place to wait.
start $lamb --no-self-test --max-seqs 1 --max-waiting 1
ready
stream running 30000
first=$reader
is with_every_slot_taken_a_prober_may_ask_for_a_failure "$(call GET '/slots?fail_on_no_slot=1'):$(json error.code)" 503:no_slot
call POST /v1/completions '{"prompt": "Once", "max_tokens": 1}' >"$work/waited" &
waiter=$!
for _ in {1..200}; do
    load=$(call2 GET /load)
    [ "$load" = '{"server_load":2}' ] && break
    sleep 0.02
done
is one_runs_and_one_waits "$load" '{"server_load":2}'
is the_next_one_is_refused "$(call2 POST /v1/completions '{"prompt": "Twice", "max_tokens": 1}' | "$json_get" error.code)" queue_full
is and_told_when_to_come_back "$(sed -n 's/^Retry-After: \([0-9]*\)\r*$/\1/Ip' "$work/answer2" | grep -cE '^([1-9]|[1-5][0-9]|60)$')" 1
kill $first
wait $waiter
is who_waits_is_served_when_the_first_leaves "$(cat "$work/waited")" 200
is refusals_are_counted "$(call GET /metrics):$(grep -c '^bellwether_requests_rejected_total{.*queue_full.*} 1$' "$work/out")" 200:1
stop a_server_with_a_queue_ends_well TERM 0

start $lamb --no-self-test --model-id one --model-id two --max-seqs 2 --ctx 256 --kv-memory 64MiB --no-cache
stop a_server_that_loads_ends_at_once INT 0

printf '# of the test\nsesame\n' >"$work/keys"
forty=$(printf 'o%039d' 0 | tr 0 o)
start $lamb --no-self-test --model-id "${forty%o}é" --model-id two --max-seqs 2 --ctx 256 --kv-memory 64MiB --no-cache \
    --api-key-file "$work/keys" --no-web
ready || not_ok a_server_with_keys_becomes_ready "$(tail -n 3 "$work/log")"
is without_a_key_nothing_is_shown "$(call GET /v1/models):$(json error.type)" 401:authentication_error
is a_wrong_key_is_none "$(call GET /props '' 'Authorization: Bearer sesamE')" 401
is a_key_opens "$(call GET /v1/models '' 'Authorization: Bearer sesame'):$(json data.0.id):$(json data.1.id)" "200:${forty%o}é:two"
is a_key_in_the_other_header_opens "$(call GET /slots '' 'x-api-key: sesame'):$(json 1.n_ctx)" 200:256
is no_third_slot "$(json 2 >/dev/null 2>&1 || echo none)" none
is a_long_name_is_cut_between_characters "$(call GET /props '' 'x-api-key: sesame'):$(json system_fingerprint | grep -c "^${forty%o}-BF16-")" 200:1
is probers_need_no_key "$(call GET /health)" 200
is without_a_page_a_line_says_where_to_go "$(call GET /):$(grep -c /v1 "$work/out")" 200:1
is the_self_test_was_left_out "$(call GET /props '' 'x-api-key: sesame'):$(json self_test.ran)" 200:false
stop interrupted_it_ends_well INT 0

bw serve "$work/nowhere" --port 0
is a_model_that_is_not_there_ends_it "$status:$(grep -c "nowhere" "$work/err")" 1:2
bw serve tests/golden/dense-r2 --port 0
is a_model_without_a_tokenizer_is_refused "$status:$(tail -n 1 "$work/err" | grep -c 'no tokenizer')" 1:1
start $lamb --no-self-test --header-timeout 0.2 --idle-timeout 0.4
exec 3<>"/dev/tcp/127.0.0.1/$port" 4<>"/dev/tcp/127.0.0.1/$port"
printf 'GET / HT' >&3
is a_head_that_stalls_is_answered_in_its_time "$(timeout 5 head -n 1 <&3 | tr -d '\r')" 'HTTP/1.1 408 Request Timeout'
is an_idle_connection_is_closed_in_its_time "$(timeout 5 cat <&4; echo $?)" 0
exec 3>&- 4>&-
bw serve $lamb --port "$port"
is an_address_in_use_is_refused "$status:$(tail -n 1 "$work/err" | grep -c "port $port")" 1:1
stop the_first_one_did_not_mind TERM 0
exit $failed
