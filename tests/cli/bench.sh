#!/usr/bin/env bash
# `bellwether bench`: the table, the JSON with every member, what is marked as simulated, what is refused. How fast
# anything is, is nobody's business here.
. tests/cli/common.bash
lamb=models/lamb

# near GOT WANT: within 1e-4 of it
near() { awk -v a="$1" -v b="$2" 'BEGIN { d = a / b - 1; print (d < 1e-4 && d > -1e-4) ? "near" : a }'; }
# count_rows: of the last output
count_rows() {
    local n=0
    while "$json_get" "rows.$n" <"$work/out" >/dev/null 2>&1; do n=$((n + 1)); done
    echo $n
}

# ---- all tests, JSON ---------------------------------------------------------------------------------

bw bench $lamb --quick --reps 1 --json -
# Random prompts are far from what a head was trained on: how many of its drafts come true is chance.
is a_quick_run_succeeds \
    "$status:$(grep -v '^bellwether: note: \(loading\|measuring\), \|the MTP head is loaded, but' "$work/err")" 0:
for member in cpu level threads read_gb_per_s int8_tmac_per_s f32_gmac_per_s probes; do
    json machine.$member >/dev/null || not_ok "machine_has_$member" "$(json machine.$member)"
done
for limit in read_gb_per_s int8_tmac_per_s f32_gmac_per_s; do
    is "${limit}_was_measured" "$(json machine.$limit | awk '{ print ($1 > 0) }')" 1
done
rows=$(count_rows)
tests='' missing=''
for ((i = 0; i < rows; i++)); do
    tests+="$(json rows.$i.test) "
    for member in test shape type rows seqs depth drafts threads ms ms_spread.0 ms_spread.1 tokens_per_s bytes \
        int8_macs f32_macs roofline_ms roofline_share steps simulated; do
        "$json_get" rows.$i.$member <"$work/out" >/dev/null 2>&1 || missing+="$i.$member "
    done
    for member in ms bytes roofline_share; do
        [ "$(json rows.$i.$member | awk '{ print ($1 > 0) }')" = 1 ] || missing+="$i.$member=$(json rows.$i.$member) "
    done
done
is every_row_has_every_member "$missing" ""
is every_test_has_its_rows \
    "$tests" "load prefill prefill decode decode verify verify verify seqs seqs draft draft draft "
is the_shape_is_the_models_name "$(json rows.0.shape):$(json rows.0.type):$(json random_weights)" lamb:bf16:false
is a_real_model_at_depth_0_is_not_simulated "$(json rows.3.depth):$(json rows.3.simulated)" 0:false
is a_depth_that_is_made_up_says_so "$(json rows.4.depth):$(json rows.4.simulated)" '256:["depth"]'
is a_verify_has_drafts_for_its_rows "$(json rows.6.rows):$(json rows.6.seqs):$(json rows.6.drafts)" 4:1:3
is many_rows_are_of_several_sequences "$(json rows.7.rows):$(json rows.7.seqs):$(json rows.7.drafts)" 16:2:7
is drafts_are_numbers_or_auto "$(json rows.10.drafts):$(json rows.11.drafts):$(json rows.12.drafts)" 0:3:auto
is the_first_is_what_others_are_compared_with "$(json rows.5.ratio):$(json rows.5.ratio_to)" "1:ms of 1 row"
is a_share_is_least_time_over_time "$(near "$(json rows.3.roofline_share)" \
    "$(awk -v a="$(json rows.3.roofline_ms)" -v b="$(json rows.3.ms)" 'BEGIN { print a / b }')")" near

# ---- lists -------------------------------------------------------------------------------------------

bw bench $lamb --quick --reps 2 --tests seqs,decode --seqs 3,1 --depth 70,0 --kv f32 --threads 1 \
    --json "$work/result.json"
is the_table_comes_with_a_file "$status:$(grep -c '^decode ' "$work/out"):$(grep -c '^seqs ' "$work/out")" 0:2:4
is the_heading_says_what_is_simulated "$(grep -c '^simulated  depth' "$work/out")" 1
is rows_say_it_too "$(grep -c 'simulated: depth$' "$work/out")" 3
is nothing_is_left_beside_the_file "$(find "$work" -name 'result.json*' | wc -l)" 1
cp "$work/result.json" "$work/out"
is the_file_has_the_rows_in_the_order_given \
    "$(json rows.0.depth):$(json rows.1.depth):$(json rows.2.seqs):$(json rows.3.seqs)" 70:0:3:1
is options_are_in_the_file "$(json kv):$(json machine.threads):$(json reps)" f32:1:2
# Of each position 2 layers keep keys and values of 256 f32. How many steps there were moves the mean by up to 36.
is a_depth_costs_its_keys_and_values "$(awk -v a="$(json rows.0.bytes)" -v b="$(json rows.1.bytes)" \
    'BEGIN { n = (a - b) / (2 * 2 * 256 * 4); print (n > 30 && n < 110) ? "about 70" : n }')" "about 70"

bw bench $lamb --quick --reps 1 --tests decode,draft --depth 0 --drafts 0,auto --threads 2,1 --json -
is all_tests_run_for_each_number_of_threads \
    "$status:$(for i in 0 1 2 3 4 5; do json rows.$i.test; json rows.$i.threads; done | tr '\n' ' ')" \
    "0:decode 2 draft 2 draft 2 decode 1 draft 1 draft 1 "
machines=$(for i in 0 1 2; do json machines.$i.threads; done)
is the_machine_is_probed_with_each "$(json machine.threads):$machines" "2:2
1
nothing at 2"
# the least time of row $1 by the limits of machine $2
least_ms() {
    awk -v b="$(json rows.$1.bytes)" -v i="$(json rows.$1.int8_macs)" -v f="$(json rows.$1.f32_macs)" \
        -v gb="$(json machines.$2.read_gb_per_s)" -v ti="$(json machines.$2.int8_tmac_per_s)" \
        -v gf="$(json machines.$2.f32_gmac_per_s)" \
        'BEGIN { m = b / gb / 1e6; c = i / ti / 1e9 + f / gf / 1e6; print (m > c ? m : c) }'
}
is rows_stand_against_the_limits_of_their_threads \
    "$(near "$(json rows.0.roofline_ms)" "$(least_ms 0 0)"):$(near "$(json rows.3.roofline_ms)" "$(least_ms 3 1)")" \
    near:near
is auto_is_compared_with_the_same_threads "$(json rows.2.best_drafts):$(json rows.5.best_drafts)" 0:0
bw bench $lamb --quick --reps 1 --tests load,decode,draft --depth 0 --drafts 0,auto --threads 1,2
count() { grep -c "$1" "$work/out"; }
is the_table_has_each_number_by_itself "$status:$(count '^1 thread$'):$(count '^2 threads$')" 0:1:1
is each_has_its_limits_and_rows "$(count '^limits '):$(count '^load '):$(count '^  auto: ')" 2:2:2
bw bench --synthetic $lamb/config.json --quick --reps 1 --tests load,decode --depth 0 --threads 1,2 --json -
is notes_say_of_how_many_threads "$status:$(json notes | grep -o '[0-9] threads*: load left out')" \
    "0:1 thread: load left out
2 threads: load left out"

bw bench $lamb --quick --reps 1 --tests decode --depth 70 --real-depth --json -
is a_depth_that_was_computed_is_not_simulated "$status:$(json rows.0.simulated)" 0:false

bw bench $lamb --quick --reps 1 --tests draft --drafts 0,1,2,auto --accept 0.5,0.25 --json -
is imposed_acceptance_is_marked "$status:$(json rows.0.simulated):$(json rows.1.simulated)" \
    '0:["depth"]:["depth","acceptance"]'
tokens_of() { awk -v r="$(json rows.$1.tokens_per_s)" -v ms="$(json rows.$1.ms)" 'BEGIN { print r * ms / 1000 }'; }
is a_step_without_drafts_gives_a_token "$(near "$(tokens_of 0)" 1)" near
is one_draft_gives_what_was_imposed "$(near "$(tokens_of 1)" 1.5)" near
is two_drafts_give_both_shares "$(near "$(tokens_of 2)" 1.75)" near
is the_draft_vocabulary_is_all_of_a_small_one "$(json draft_vocab | awk '{ print ($1 > 8192 && $1 <= 8256) }')" 1
is the_shares_are_in_the_json "$(json accept)" "[0.5,0.25]"
# with one repetition a ratio of figures is the ratio of the repetition
best=$(for i in 0 1 2; do echo "$(json rows.$i.tokens_per_s) $i"; done | sort -g | tail -n 1 | cut -d ' ' -f 2)
rate_ratio() { awk -v a="$(json rows.$1.tokens_per_s)" -v b="$(json rows.$2.tokens_per_s)" 'BEGIN { print a / b }'; }
is the_best_fixed_length_has_the_most_tokens "$(json rows.3.best_drafts)" "$best"
is auto_is_set_against_it "$(near "$(json rows.3.auto_best)" "$(rate_ratio 3 "$best")")" near
is auto_is_set_against_no_drafts \
    "$(near "$(json rows.3.auto_off)" "$(rate_ratio 3 0)"):$(json rows.3.auto_off_spread.0)" \
    "near:$(json rows.3.auto_off)"
is only_auto_is_compared_so "$("$json_get" rows.2.auto_best <"$work/out" >/dev/null 2>&1; echo $?)" 1

bw bench $lamb --quick --reps 2 --tests draft --seqs 1,2 --drafts auto,0,8 --accept 0.5
is under_each_group_a_line_says_how_auto_compares \
    "$status:$(grep -A 1 '^draft .* 8 ' "$work/out" | grep -c '^  auto: ')" 0:2
# auto computed the 20 tokens before; those of the others are made up
is the_line_says_what_is_simulated \
    "$(grep '^  auto: ' "$work/out" | tail -n 1 | sed 's/[0-9]\.[0-9]*/X/g; s/n = [08]/n = N/')" \
    "  auto: X (X..X) of off, X (X..X) of the best fixed length, n = N; at 2 sequences, depth 21; simulated: depth,"\
" acceptance"
bw bench $lamb --quick --reps 1 --tests draft --depth 0,10 --drafts auto,0
is each_group_has_its_line_where_depths_become_one "$status:$(grep -c '^  auto: .* depth 21' "$work/out")" 0:2
bw bench $lamb --quick --reps 1 --tests draft --drafts auto,3 --json -
is without_off_there_is_the_best_fixed_length "$status:$(json rows.0.best_drafts)" 0:3
is what_was_not_measured_is_not_compared_with "$("$json_get" rows.0.auto_off <"$work/out" >/dev/null 2>&1; echo $?)" 1
bw bench $lamb --quick --reps 1 --tests draft --drafts auto --accept 0
is auto_alone_has_nothing_to_compare_with \
    "$status:$(grep -c '^draft ' "$work/out"):$(grep -c '^  auto:' "$work/out")" 0:1:0

bw bench $lamb --quick --reps 1 --tests verify --rows 1,4 --accept 1,1,1 --json -
is imposed_acceptance_is_for_drafts_alone "$status:$(json rows.0.simulated):$(json rows.1.simulated)" 0:false:false
is a_verify_rejects_what_nobody_drafted \
    "$(json rows.1.mean_drafts):$(json rows.1.mean_accepted | awk '{ print ($1 < 0.5) }')" 3:1

bw bench $lamb --quick --reps 1 --tests draft --seqs 64 --drafts 0,1,2,3,4,auto --json -
is many_sequences_draft "$status:$(count_rows):$(json rows.0.seqs):$(json rows.5.drafts)" 0:6:64:auto

# auto learns from 200 tokens before it is measured: no setting is measured less deep than that
bw bench $lamb --reps 1 --tests draft --drafts 0,auto --depth 400,0 --accept 0.4,0.1 --json -
depths() { for i in "$@"; do json rows.$i.depth; done | tr '\n' ' '; }
is settings_have_the_same_depth "$status:$(count_rows):$(depths 0 1 2 3)" "0:4:400 400 201 201 "
# from there on: up to 32 steps of one token, of auto up to 128 of some more
is settings_are_measured_from_there_on "$(for i in 0 1 2 3; do
    awk -v mean="$(json rows.$i.mean_depth)" -v depth="$(json rows.$i.depth)" 'BEGIN {
        past = mean - depth; print (past >= 0 && past < 150) ? "from there on" : past }'
done | sort -u)" "from there on"
is what_auto_generated_is_not_simulated "$(json rows.2.simulated):$(json rows.3.simulated)" '["depth"]:["acceptance"]'
is other_depths_are_said "$(json notes | grep -o 'draft at depths below 201: measured from position 201 on' | wc -l)" 1
bw bench $lamb --reps 1 --tests draft --drafts 0,8 --accept 1 --json -
# 32 steps of 1 and of 9 tokens, fewer where a step takes long: by more than a page of 64 it is said
apart=$(awk -v a="$(json rows.0.mean_depth)" -v b="$(json rows.1.mean_depth)" 'BEGIN { print (b - a > 64) }')
[ "$apart" = 1 ] || echo "skip depths_that_part_are_said: steps too slow"
is depths_that_part_are_said \
    "$status:$(json notes | grep -o 'depth 0, 1 sequence: the mean depth of its settings goes from' | wc -l)" "0:$apart"

bw bench tests/golden/moe-mlx --quick --reps 1 --json - --tests decode,verify,draft --depth 0
is a_model_without_a_head_has_no_verify_and_no_drafts \
    "$status:$(count_rows):$(json rows.0.test):$(json rows.1.test)" 0:2:decode:draft
is what_is_left_out_is_said "$(json notes.0 | grep -c '^verify: '):$(json notes.1 | grep -c '^draft: ')" 1:1

# ---- random weights ----------------------------------------------------------------------------------

bw bench --synthetic $lamb/config.json --type q8_0 --quick --reps 1 --tests load,decode,draft --drafts 0,2 \
    --depth 0,70 --json -
is random_weights_need_no_model \
    "$status:$(json random_weights):$(json rows.0.shape):$(json rows.0.type)" 0:true:lamb:q8_0
is every_row_of_them_is_marked "$(json rows.0.simulated):$(json rows.1.simulated)" '["weights"]:["weights","depth"]'
is nothing_was_loaded "$(json notes.0 | grep -c '^load left out')" 1
is the_others_ran "$(count_rows)" 6
bw bench --synthetic $lamb/config.json --quick --reps 1 --tests prefill --prompt 20
is the_table_says_that_weights_are_random "$status:$(grep -c '^simulated  weights (random)$' "$work/out")" 0:1

mkdir "$work/small"
sed 's/\("max_position_embeddings": *\)[0-9]*/\13000/' $lamb/config.json >"$work/small/config.json"
bw bench --synthetic "$work/small/config.json" --reps 1 --tests decode --json -
is depths_without_room_are_left_out "$status:$(count_rows):$(json rows.0.depth)" 0:1:0
is depths_that_are_left_out_are_said "$(json notes.0 | cut -d: -f1):$(json notes.1 | cut -d: -f1)" \
    "decode at depth 4096 left out:decode at depth 16384 left out"

# ---- what is refused ---------------------------------------------------------------------------------

refuses no_model_and_no_shape 2 MODEL --synthetic -- bench
refuses a_model_and_a_shape 2 MODEL --synthetic -- bench $lamb --synthetic 2b
refuses a_type_for_a_model_that_has_one 2 --type --synthetic -- bench $lamb --type q4_0
refuses an_unknown_shape 1 3b 0.8b 35b-a3b -- bench --synthetic 3b
refuses an_unknown_type 1 q7_0 q4_k_m -- bench --synthetic 2b --type q7_0
refuses a_model_that_is_not_there 1 no/such/model -- bench no/such/model
refuses a_depth_above_the_context 1 "depth 32000" 32768 -- bench $lamb --depth 32000
refuses a_prompt_above_the_context 1 "prompt of 32767" 32768 -- bench $lamb --tests prefill --prompt 32767
refuses a_file_that_cannot_be_written 1 /no/such/dir/x.json "cannot write" -- bench $lamb --json /no/such/dir/x.json
refuses a_folder_as_a_file 1 "$work" "cannot write" -- bench $lamb --json "$work"
# option, what was given, part of what is expected
while read -r option given expected; do
    refuses "${option#--}_$given" 2 "$option" "\"$given\"" "$expected" -- bench $lamb "$option=$given"
done <<'CASES'
--tests decode,prefil prefill
--tests decode,decode none of them twice
--tests decode, prefill
--tests , prefill
--depth -1 from 0
--depth 4k from 0
--depth 0,0 different
--depth 1,,2 from 0
--prompt 0 lengths
--rows 0 from 1 to 72
--rows 73 from 1 to 72
--rows 1.5 from 1 to 72
--seqs 0 from 1 to 256
--seqs 257 from 1 to 256
--drafts 9 from 0 to 8
--drafts -1 from 0 to 8
--drafts off from 0 to 8
--drafts auto,auto none of them twice
--accept 1.1 from 1 to 0
--accept 0.5,0.6 do not rise
--accept nan from 1 to 0
--accept 0.5x from 1 to 0
--reps 0 from 1
--threads two different numbers of threads
--threads 1,1 different
--threads 1025 from 0 to 1024
--kv f8 f16|f32
--activations f16 int8|f32
CASES
refuses more_than_sixteen_values 2 --depth "up to 16" -- bench $lamb --depth 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16
exit $failed
