#!/usr/bin/env bash
# `bellwether run`: what reaches stdout, what the JSON object and the receipt hold.
. tests/cli/common.bash
lamb=models/lamb
golden=tests/golden
greedy=(--temperature 0 --ignore-eos --max-tokens 32 --kv f32 --threads 2)

# ---- token ids, no tokenizer ------------------------------------------------------------------------

for folder in "$golden"/*/; do
    [ -e "$folder/greedy.json" ] || continue
    name=$(basename "$folder")
    bw run "$folder" --ids "$folder/ids.json" "${greedy[@]}" --json
    is "${name}_greedy_tokens" "$(json tokens)" "$("$json_get" . <"$folder/greedy.json")"
    if [ -e "$folder/mtp.npy" ]; then
        bw run "$folder" --ids "$folder/ids.json" "${greedy[@]}" --json --draft 3
        is "${name}_greedy_tokens_with_3_drafts" "$(json tokens)" "$("$json_get" . <"$folder/greedy.json")"
    fi
done
model=$golden/dense-r2
bw run $model --ids $model/ids.json "${greedy[@]}" --json --draft 3
is text_is_null_without_a_tokenizer "$(json text)" null
is finish_reason_at_max_tokens "$(json finish_reason)" length
is receipt_counts_the_prompt "$(json receipt.prompt_tokens)" 160
is receipt_counts_the_answer "$(json receipt.generated_tokens)" 32
is receipt_says_how_many_drafts "$(json receipt.draft.n)" 3
is receipt_has_a_count_per_position "$(json receipt.draft.accepted_by_position | tr -cd , | wc -c)" 2
is receipt_names_the_threads "$(json receipt.threads)" 2
for key in prefill_tokens_per_s decode_tokens_per_s load_s cpu seed draft.verifies draft.tokens_per_verify; do
    is "receipt_has_$key" "$(json "receipt.$key" | grep -cE '^([0-9.e+-]+|[a-z0-9]+)$')" 1
done
verifies=$(json receipt.draft.verifies) per=$(json receipt.draft.tokens_per_verify)
sum=$(json receipt.draft.accepted_by_position | tr -d '[]' | tr , '\n' | awk '{ s += $1 } END { print s }')
is tokens_per_verify_is_one_and_the_accepted "$(awk -v v="$verifies" -v s="$sum" -v p="$per" \
    'BEGIN { d = 1 + s / v - p; print (d < 1e-4 && d > -1e-4) }')" 1
tokens=$(json tokens | tr -d '[]' | tr , ' ')
bw run $model --ids $model/ids.json "${greedy[@]}" --draft off
is plain_output_is_the_ids_without_a_tokenizer "$(cat "$work/out")" "$tokens"
is receipt_is_on_stderr "$(grep -c '^receipt' "$work/err")" 1
bw run $model --ids $model/ids.json "${greedy[@]}" --draft off --json
is without_drafts_nothing_is_verified "$(json receipt.draft)" '{"n":0,"vocab":320,"verifies":0,"accepted_by_position":[],"tokens_per_verify":null}'
bw_in $model/ids.json run $model --ids - "${greedy[@]}" --json
is ids_from_standard_input "$(json tokens | tr -d '[]' | tr , ' ')" "$tokens"
for chunk in 0 1 7; do
    bw run $model --ids $model/ids.json "${greedy[@]}" --json --chunk $chunk
    is "same_tokens_with_chunk_$chunk" "$(json tokens | tr -d '[]' | tr , ' ')" "$tokens"
done
bw run $model --ids $model/ids.json "${greedy[@]}" --json --logprobs 2
is a_logprob_per_token "$(json logprobs.31.token)" "$(json tokens.31)"
is the_best_alternative_is_the_greedy_token "$(json logprobs.31.top.0.token):$(json logprobs.31.top.0.logprob)" \
    "$(json logprobs.31.token):$(json logprobs.31.logprob)"
is as_many_alternatives_as_asked "$(json logprobs.0.top.1.token >/dev/null && json logprobs.0.top.2.token | grep -c nothing)" 1
bw run $golden/moe-mlx --ids $golden/moe-mlx/ids.json "${greedy[@]}" --json
is without_a_head_one_line_says_so "$status:$(grep -c 'note: .*mtp' "$work/err")" 0:1
mkdir "$work/stopping" && cp $model/config.json $model/model.safetensors "$work/stopping/"
echo "{\"eos_token_id\": [319, $(cut -d' ' -f5 <<<"$tokens")]}" >"$work/stopping/generation_config.json"
bw run "$work/stopping" --ids $model/ids.json --temperature 0 --kv f32 --json
is a_stop_token_ends_the_answer_and_is_delivered "$(json finish_reason):$(json tokens | tr -d '[]' | tr , ' ')" \
    "stop:$(cut -d' ' -f1-5 <<<"$tokens")"

# ---- text ---------------------------------------------------------------------------------------------

prompt="Tell me a story about a lost kite."
bw run $lamb --seed 7 --max-tokens 40 "$prompt" --json
is lamb_answers "$status" 0
text=$(json text)
is lamb_says_something "$([ ${#text} -gt 20 ] && echo yes)" yes
is the_seed_is_kept "$(json receipt.seed)" 7
bw run $lamb --seed 7 --max-tokens 40 "$prompt"
is stdout_is_the_text_and_nothing_else "$(cat "$work/out")" "$text"
printf '%s' "$prompt" >"$work/prompt"
bw_in "$work/prompt" run $lamb --seed 7 --max-tokens 40
is a_prompt_from_a_pipe_is_the_same "$(cat "$work/out")" "$text"
for draft in off 1 3 8; do
    bw run $lamb --seed 7 --max-tokens 40 --draft $draft "$prompt"
    is "drafts_${draft}_change_nothing" "$(cat "$work/out")" "$text"
done
bw run $lamb --seed 8 --max-tokens 40 "$prompt"
is another_seed_is_another_text "$([ "$(cat "$work/out")" != "$text" ] && echo yes)" yes
bw run $lamb --max-tokens 1 "$prompt" --json
first=$(json receipt.seed)
bw run $lamb --max-tokens 1 "$prompt" --json
is seeds_are_random_unless_given "$([ "$(json receipt.seed)" != "$first" ] && echo yes)" yes
bw run $lamb --temperature 0 --raw --max-tokens 60 "Once upon a time" --json
whole=$(json text)
is raw_goes_on_with_the_prompt "$(json receipt.prompt_tokens):$(json finish_reason)" 4:length
stop=${whole:20:6}
for draft in off 3; do
    bw run $lamb --temperature 0 --raw --max-tokens 60 --draft $draft "Once upon a time" --stop "zzzzzz" --stop "$stop" --json
    is "a_stop_string_cuts_before_it_drafts_$draft" "$(json finish_reason):$(json text)" "stop:${whole%%"$stop"*}"
    n=$(json receipt.generated_tokens)
    is "tokens_end_with_the_stop_string_drafts_$draft" "$(json tokens | tr -cd , | wc -c)" $((n - 1))
done
printf 'a\377b\000c' >"$work/prompt"
bw_in "$work/prompt" run $lamb --raw --max-tokens 4 --json
is invalid_utf8_in_a_raw_prompt_goes_through "$status" 0
bw_in "$work/prompt" run $lamb --max-tokens 4 --json
is invalid_utf8_in_a_message_goes_through "$status" 0
bw run $lamb --max-tokens 4 --system "Be brief." --no-think "Hi" --json
is no_think_samples_by_its_own_row "$(json receipt.sampling.temperature):$(json receipt.sampling.presence_penalty)" 0.7:1.5
bw run $lamb --max-tokens 4 --no-think --temperature 0.5 --top-k 3 "Hi" --json
is given_values_win "$(json receipt.sampling.temperature):$(json receipt.sampling.top_k)" 0.5:3
bw run $lamb --max-tokens 4 "<|im_end|>" --json
plain=$(json receipt.prompt_tokens)
bw run $lamb --max-tokens 4 "x" --json
is a_message_cannot_end_its_own_turn "$([ "$plain" -gt $(($(json receipt.prompt_tokens) + 2)) ] && echo yes)" yes
./bellwether run $lamb --max-tokens 200 "$prompt" 2>"$work/err" | head -c 1 >"$work/out"
is a_reader_that_leaves_is_no_error "$(wc -c <"$work/out"):$(grep -c cannot "$work/err")" 1:0
if [ -w /dev/full ]; then
    ./bellwether run $lamb --max-tokens 4 "$prompt" >/dev/full 2>"$work/err"
    is a_full_disk_is_an_error "$?:$(grep -c 'standard output' "$work/err")" 1:1
else
    echo "skip a_full_disk_is_an_error: no /dev/full here"
fi
exit $failed
