#!/usr/bin/env bash
# What cannot work ends with exit status 1, nothing on stdout and one message that names what and
# where: in every command that opens a model.
. tests/cli/common.bash
lamb=models/lamb
model=tests/golden/dense-r2
ids=$model/ids.json

# A copy of the model to break: its folder's name.
copy() {
    rm -rf "$work/copy"
    mkdir "$work/copy"
    cp $model/config.json $model/generation_config.json $model/model.safetensors "$work/copy/"
}
# everywhere NAME WORD ... : no command works with $work/copy (or $target)
everywhere() {
    local name=$1 words=("${@:2}") at=${target:-$work/copy}
    refuses "run_$name" 1 "${words[@]}" -- run "$at" --ids $ids --max-tokens 1
    refuses "eval_$name" 1 "${words[@]}" -- eval "$at" --ids $ids
    refuses "inspect_$name" 1 "${words[@]}" -- inspect "$at"
}

target=$work/nowhere everywhere model_that_is_not_there "$work/nowhere"
mkdir "$work/empty"
target=$work/empty everywhere folder_without_a_model "$work/empty"
echo "no model" >"$work/text.gguf"
target=$work/text.gguf everywhere file_that_is_no_model "$work/text.gguf"
: >"$work/none.gguf"
target=$work/none.gguf everywhere empty_file "$work/none.gguf"

copy
head -c 100000 $model/model.safetensors >"$work/copy/model.safetensors"
everywhere truncated_weights model.safetensors
copy
head -c 4 $model/model.safetensors >"$work/copy/model.safetensors"
everywhere weights_without_a_header model.safetensors
copy
printf '\377\377\377\377\377\377\377\177' | dd of="$work/copy/model.safetensors" conv=notrunc status=none
everywhere header_of_2_to_the_63_bytes model.safetensors
copy
LC_ALL=C sed -i 's/layers\.2\.mlp\.up_proj/layers.2.mlp.up_prox/' "$work/copy/model.safetensors"
everywhere missing_tensor up_pro
copy
rm "$work/copy/config.json"
everywhere missing_config config.json
copy
echo '{"model_type": "qwen3_5", "text_config": {' >"$work/copy/config.json"
everywhere malformed_config config.json
copy
sed -i 's/"hidden_size": 64/"hidden_size": 65/' "$work/copy/config.json"
everywhere config_that_does_not_fit_the_tensors 65
copy
sed -i 's/"model_type": "qwen3_5[a-z_]*"/"model_type": "llama"/' "$work/copy/config.json"
everywhere another_architecture llama

# A broken head: only --draft off runs.
copy
LC_ALL=C sed -i 's/mtp\.fc\.weight/mtp.fx.weight/' "$work/copy/model.safetensors"
refuses broken_head_auto 1 mtp.f -- run "$work/copy" --ids $ids --max-tokens 4
refuses broken_head_3_drafts 1 mtp.f -- run "$work/copy" --ids $ids --max-tokens 4 --draft 3
refuses broken_head_eval 1 mtp.f -- eval "$work/copy" --ids $ids
bw run "$work/copy" --ids $ids --max-tokens 4 --draft off --temperature 0 --kv f32 --ignore-eos --json
is broken_head_runs_without_drafts "$status:$(json tokens)" "0:$(cut -d, -f1-4 $model/greedy.json | tr -d ' ')]"
is broken_head_is_said_once "$(grep -c 'mtp\.fc' "$work/err")" 1
bw eval "$work/copy" --ids $ids --draft off
is broken_head_evaluates_without_drafts "$status" 0
bw inspect "$work/copy"
is inspect_names_what_a_broken_head_lacks "$status:$(grep -c 'MTP: 14/15 tensors: .*mtp\.fc' "$work/out")" 1:1

# ---- prompts ------------------------------------------------------------------------------------------

refuses text_without_a_tokenizer 1 tokenizer --ids -- run $model "Hello"
refuses eval_text_without_a_tokenizer 1 tokenizer --ids -- eval $model --text $model/config.json
refuses stop_string_without_a_tokenizer 1 --stop '"x"' -- run $model --ids $ids --stop x
refuses empty_prompt 1 "prompt" empty -- run $lamb ""
refuses empty_pipe 1 "standard input is empty" -- run $lamb
printf ' \n\t' >"$work/blank"
bw_in "$work/blank" run $lamb
check_refusal blank_pipe 1 "standard input is empty"
refuses eval_empty_text 1 "empty" -- eval $lamb --text /dev/null
refuses eval_text_that_is_not_there 1 "$work/nothing" -- eval $lamb --text "$work/nothing"
refuses drafts_without_a_head 1 --draft mtp -- run tests/golden/moe-mlx --ids tests/golden/moe-mlx/ids.json --draft 3
refuses draft_logits_without_a_head 1 --draft-logits mtp -- eval tests/golden/moe-mlx --ids tests/golden/moe-mlx/ids.json \
    --draft-logits 3 "$work/x.npy"
refuses prompt_longer_than_the_context 1 160 100 -- run $model --ids $ids --ctx 100
refuses prompt_as_long_as_the_context 1 160 -- run $model --ids $ids --ctx 160
refuses eval_longer_than_ctx 1 160 159 --ctx -- eval $model --ids $ids --ctx 159
refuses context_longer_than_the_models 1 999999999 -- run $model --ids $ids --ctx 999999999
refuses eval_context_longer_than_the_models 1 999999999 --ctx -- eval $model --ids $ids --ctx 999999999
refuses inspect_context_longer_than_the_models 1 999999999 -- inspect $model --ctx 999999999

while IFS='|' read -r name content word; do
    echo "$content" >"$work/ids.json"
    for command in run eval; do
        refuses "${command}_$name" 1 "$word" -- $command $model --ids "$work/ids.json"
    done
done <<'CASES'
id_outside_the_vocabulary|[1, 2, 320]|320
negative_id|[1, -2]|-2
id_above_32_bits|[1, 4294967296]|4294967296
id_above_64_bits|[1, 99999999999999999999]|9223372036854775807 or more
id_below_64_bits|[1, -99999999999999999999]|-9223372036854775808 or less
fraction|[1, 2.5]|2.5
word|[1, "two"]|"two"
no_ids|[]|at least one
no_array|{"ids": [1]}|array
no_json|1 2 3|ids.json
cut_array|[1, 2|ids.json
CASES
refuses ids_file_that_is_not_there 1 "$work/nothing" -- run $model --ids "$work/nothing"
refuses ids_file_that_is_a_folder 1 "$work/empty" -- run $model --ids "$work/empty"

# Not enough memory for the context, with room for everything else.
bash -c 'ulimit -v 120000; exec ./bellwether run models/lamb --threads 1 --kv f32 hi' >"$work/out" 2>"$work/err" </dev/null
status=$?
check_refusal no_memory_for_the_context 1 KV context

# ---- outputs ------------------------------------------------------------------------------------------

refuses logits_into_a_missing_folder 1 "$work/no/x.npy" -- eval $model --ids $ids --logits "$work/no/x.npy"
refuses logits_onto_a_folder 1 "$work/empty" -- eval $model --ids $ids --logits "$work/empty"
refuses logits_of_a_failed_evaluation 1 320 -- eval $model --ids <(echo '[1, 320]') --logits "$work/empty/x.npy"
is a_failed_evaluation_leaves_no_file "$(find "$work/empty" -type f | wc -l)" 0
if [ "$(id -u)" -eq 0 ]; then
    echo "skip logits_where_nobody_may_write: root may write everywhere"
else
    mkdir -m 500 "$work/locked"
    refuses logits_where_nobody_may_write 1 "$work/locked/x.npy" -- eval $model --ids $ids --logits "$work/locked/x.npy"
fi
BW_CPU=z80 refuses unknown_cpu_level 1 z80 -- run $model --ids $ids --max-tokens 1
exit $failed
