#!/usr/bin/env bash
# `bellwether eval`: the JSON object, and .npy files that hold what the golden data says.
. tests/cli/common.bash
lamb=models/lamb
golden=tests/golden
npy_error=${BW_BUILD:-build}/tests/cli/npy_error
# close NAME GOT WANT: within 1e-4
close() {
    local error
    error=$("$npy_error" "$2" "$3" 2>&1)
    is "$1" "$(awk -v e="$error" 'BEGIN { print (e ~ /^[0-9.e+-]+$/ && e <= 1e-4) ? "close" : e }')" close
}

for name in dense-r2 moe-r3-8; do
    model=$golden/$name
    bw eval $model --ids $model/ids.json --kv f32 --logits "$work/l.npy" --draft-logits 4 "$work/d.npy"
    is "${name}_evaluates" "$status:$(json tokens)" 0:160
    close "${name}_logits" "$work/l.npy" $model/logits.npy
    close "${name}_draft_logits" "$work/d.npy" $model/mtp.npy
    loss=$(json mean_loss)
    is "${name}_perplexity_is_exp_of_the_loss" "$(awk -v l="$loss" -v p="$(json perplexity)" \
        'BEGIN { d = exp(l) / p - 1; print (d < 1e-6 && d > -1e-6) }')" 1
    for chunk in 0 1 7; do
        bw eval $model --ids $model/ids.json --kv f32 --chunk $chunk --logits "$work/l$chunk.npy"
        is "${name}_same_bytes_with_chunk_$chunk" "$(cmp "$work/l.npy" "$work/l$chunk.npy" && echo same)" same
        is "${name}_same_loss_with_chunk_$chunk" "$(json mean_loss)" "$loss"
    done
done
model=$golden/dense-r2
bw eval $model --ids $model/ids.json --kv f32 --draft-logits 1 "$work/d1.npy"
is one_draft_is_one_row "$("$npy_error" "$work/d1.npy" "$work/d1.npy" 0 1)" 0
bw eval $model --ids $model/ids.json --ctx 160 --logits "$work/l.npy"
is an_input_as_long_as_ctx_fits "$status" 0
is and_every_row_of_it_is_written "$("$npy_error" "$work/l.npy" "$work/l.npy")" 0
# A model that was made for exactly these 160 tokens.
mkdir "$work/short"
cp $model/model.safetensors $model/generation_config.json "$work/short/"
sed 's/"max_position_embeddings": 4096/"max_position_embeddings": 160/' $model/config.json >"$work/short/config.json"
want=$(bw eval $model --ids $model/ids.json; json mean_loss)
bw eval "$work/short" --ids $model/ids.json --logits "$work/s.npy"
is an_input_as_long_as_the_models_context_fits "$status:$(json tokens):$(json mean_loss)" "0:160:$want"
is with_the_logits_of_a_longer_context "$(cmp "$work/s.npy" "$work/l.npy" && echo same)" same
refuses no_room_for_drafts_in_the_models_context 1 160 draft -- eval "$work/short" --ids $model/ids.json --draft-logits 1 "$work/s.npy"
sed 's/^\[[0-9]*, /[/' $model/ids.json >"$work/159.json"
bw eval "$work/short" --ids "$work/159.json" --draft-logits 1 "$work/d.npy"
is room_for_one_draft_is_enough "$status:$(json tokens)" 0:159
is outputs_get_the_usual_permissions "$(stat -c %A "$work/l.npy")" "$(touch "$work/new" && stat -c %A "$work/new")"
is nothing_else_is_left_beside_the_output "$(find "$work" -name 'l.npy*' | wc -l)" 1
echo '[5]' >"$work/one.json"
bw eval $model --ids "$work/one.json"
is one_token_has_no_loss "$status:$(json tokens):$(json mean_loss):$(json perplexity)" 0:1:null:null
bw_in $model/ids.json eval $model --ids - --kv f32
is ids_from_standard_input "$(json mean_loss)" "$(bw eval $model --ids $model/ids.json --kv f32; json mean_loss)"

printf 'Once upon a time there was a sheep who walked ahead, and the flock followed her.\n' >"$work/text"
bw eval $lamb --text "$work/text"
is a_text_has_a_perplexity "$status:$(json perplexity | grep -cE '^[0-9.]+$')" 0:1
perplexity=$(json perplexity)
bw_in "$work/text" eval $lamb --text -
is a_text_from_standard_input "$(json perplexity)" "$perplexity"
bw eval $lamb --text "$work/text" --kv f32 --chunk 3 --threads 1 --logits "$work/t.npy"
is every_row_of_a_text_is_written "$("$npy_error" "$work/t.npy" "$work/t.npy")" 0

# Ctrl-C in the middle: far more text than fits into the time. --foreground: else timeout(1) signals
# the process and then its group, and the second Ctrl-C ends the program at once.
for ((i = 0; i < 1500; i++)); do cat "$work/text"; done >"$work/long"
mkdir "$work/outputs"
timeout --foreground --preserve-status -s INT 3 ./bellwether eval $lamb --threads 1 --text "$work/long" --logits "$work/outputs/x.npy" >"$work/out" 2>"$work/err"
is ctrl_c_ends_with_130_and_leaves_nothing "$?:$(wc -c <"$work/out"):$(find "$work/outputs" -type f | wc -l)" 130:0:0
exit $failed
