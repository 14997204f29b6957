#!/usr/bin/env bash
# `bellwether inspect`: sizes, roles, MTP, tokenizer, memory; for people and as JSON.
. tests/cli/common.bash
lamb=models/lamb
golden=tests/golden
shows() { is "$1" "$(grep -cE -e "$2" "$work/out")" 1; }

bw inspect $lamb
is a_whole_model_is_success "$status:$(wc -c <"$work/err")" 0:0
shows it_says_so '^whole: yes'
shows layers_by_kind '^  layers +8: 6 linear attention, 2 full attention$'
shows vocabulary_and_head '^  vocabulary +8256 rows, output head tied'
shows mtp_is_counted_and_typed '^MTP: 15/15 tensors \(bf16\)$'
shows tokenizer '^tokenizer: 8225 tokens'
shows chat_format '^chat format: .'
shows stop_tokens 'stop tokens 8194 8192$'
shows memory_of_the_context '^memory for one sequence of 32768 tokens, KV f16$'
mkdir "$work/bare" && cp "$lamb"/{config.json,tokenizer.json,tokenizer_config.json,chat_template.jinja,model.safetensors} "$work/bare"
bw inspect "$work/bare"
shows stops_are_completed_where_only_the_config_names_one 'stop tokens 8192 8194$'
bw run "$work/bare" Hi --no-think --temperature 0 --json
is the_turn_ends_all_the_same "$(grep -cE '30, ?8194\], ?"finish_reason": ?"stop"' "$work/out")" 1
bw inspect $lamb --ctx 1000 --kv f32
shows memory_of_another_context '^memory for one sequence of 1000 tokens, KV f32$'

bw inspect $lamb --json
is json_is_whole "$(json whole)" true
is json_has_sizes "$(json config.hidden):$(json config.layers):$(json config.vocab):$(json config.tied)" 256:8:8256:true
is json_has_the_head "$(json mtp.state):$(json mtp.found):$(json mtp.expected)" complete:15:15
is json_has_the_tokenizer "$(json tokenizer.tokens)" 8225
is json_counts_every_tensor "$(json tensors | tr ',' '\n' | sed -n 's/.*"count"://p' | awk '{ s += $1 } END { print s }')" \
    "$(bw inspect $lamb --json --tensors; json every_tensor | grep -o '"shape"' | wc -l)"
half=$(bw inspect $lamb --json --ctx 4096; json memory.kv)
is kv_doubles_with_f32 "$(bw inspect $lamb --json --ctx 4096 --kv f32; json memory.kv)" $((2 * half))
is kv_doubles_with_the_context "$(bw inspect $lamb --json --ctx 8192; json memory.kv)" $((2 * half))
is the_total_is_the_sum "$(json memory.total)" \
    $(($(json memory.weights) + $(json memory.kv) + $(json memory.state) + $(json memory.scratch)))

# A path that is not UTF-8 stays valid in every JSON: a byte as U+FFFD.
odd=$work/$'caf\351 \303\251'
cp -r $golden/dense-r2 "$odd"
shown=$work/$'caf\357\277\275 \303\251'
bw inspect "$odd" --json
is inspect_shows_an_odd_path "$status:$(json path)" "0:$shown"
bw run "$odd" --ids "$odd/ids.json" --max-tokens 1 --json
is run_shows_an_odd_path "$status:$(json receipt.model)" "0:$shown"
bw eval "$odd" --ids "$odd/ids.json"
is eval_shows_an_odd_path "$status:$(json model)" "0:$shown"
LC_ALL=C sed -i 's/mtp\.fc\.weight/mtp.fx.weight/' "$odd/model.safetensors"
bw inspect "$odd" --json
is a_problem_shows_an_odd_path "$status:$(json problems | grep -cF "${shown##*/}"):$(iconv -f UTF-8 "$work/out" >/dev/null && echo valid)" 1:1:valid
bw inspect $golden/moe-8of16
shows experts '^  experts +8 of 16 per token'
shows experts_have_a_head_of_19 '^MTP: 19/19 tensors'
shows no_tokenizer '^tokenizer: none'
bw inspect $golden/moe-mlx
is without_a_head_it_is_whole "$status" 0
shows without_a_head_it_says_what_that_means '^MTP: 0/19 tensors: .*drafts'
for file in $golden/gguf/*.gguf $golden/gguf-split/*-00001-of-*.gguf; do
    bw inspect "$file"
    is "whole_$(basename "$file" .gguf)" "$status:$(grep -c '^whole: yes' "$work/out")" 0:1
done
for folder in $golden/*/; do
    [ -e "$folder/config.json" ] || continue
    bw inspect "$folder" --json
    is "whole_$(basename "$folder")" "$status:$(json whole)" 0:true
done
exit $failed
