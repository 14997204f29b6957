#!/usr/bin/env bash
# Command lines that are not understood: exit status 2, nothing on stdout, one line that names what
# was wrong, what was given and what is expected.
. tests/cli/common.bash
lamb=models/lamb

refuses no_command 2 "command is missing" run serve inspect tokenize eval bench --
refuses unknown_command 2 '"rum"' "did you mean run" -- rum
refuses unknown_command_far_from_all 2 '"xyzzyxyzzy"' run -- xyzzyxyzzy

for command in run serve eval bench inspect tokenize; do
    refuses "${command}_without_a_model" 2 "bellwether $command" MODEL -- $command
    refuses "${command}_with_an_unknown_option" 2 "bellwether $command" --frobnicate -- $command $lamb --frobnicate
    bw $command --help
    is "${command}_help_succeeds" "$status:$(wc -c <"$work/err")" 0:0
    is "${command}_help_ends_with_an_example" "$(tail -n 1 "$work/out" | grep -c "bellwether $command ")" 1
    bw $command --version
    is "${command}_version" "$(cat "$work/out")" "$(./bellwether --version)"
done
bw --help
is help_lists_every_command "$(grep -cE '^  (run|serve|eval|bench|inspect|tokenize) ' "$work/out")" 6
bw --version
is version_is_name_and_number "$(grep -cE '^bellwether [0-9]+\.[0-9]+\.[0-9]+$' "$work/out")" 1

refuses a_near_miss_is_recognised 2 --temprature "did you mean --temperature" -- run $lamb hi --temprature 1
refuses value_missing_at_the_end 2 --seed "value is missing" "whole number" -- run $lamb hi --seed
refuses value_missing_before_an_option 2 --seed "value is missing" --json -- run $lamb hi --seed --json
refuses value_for_a_switch 2 --json '"yes"' -- run $lamb hi --json=yes
refuses two_prompts 2 '"there"' "MODEL [PROMPT]" -- run $lamb hi there

# option, what was given, part of what is expected
while read -r option given expected; do
    refuses "run_${option#--}_$given" 2 "$option" "\"$given\"" "$expected" -- run $lamb hi "$option=$given"
done <<'CASES'
--seed -1 whole number
--seed 18446744073709551616 whole number
--seed 1e3 whole number
--temperature hot number
--temperature -0.1 at least 0
--temperature nan number
--temperature inf number
--top-p 0 above 0
--top-p 1.5 at most 1
--top-k 1.5 whole number
--top-k -3 at least 0
--min-p 1 below 1
--presence-penalty 2.5 at most 2
--frequency-penalty -2.5 at least -2
--repetition-penalty 0 above 0
--max-tokens 0 at least 1
--max-tokens 99999999999 at least 1
--logprobs 21 from 0 to 20
--draft 9 from 1 to 8
--draft maybe auto, off
--draft 1x auto, off
--threads -1 from 0
--threads two whole number
--ctx 0 at least 1
--ctx 4k whole number
--kv f8 f16|f32
--activations f16 int8|f32
--chunk -1 at least 0
CASES
refuses empty_stop_string 2 --stop "not empty" -- run $lamb hi --stop=
refuses ids_and_prompt 2 --ids PROMPT -- run $lamb hi --ids tests/golden/dense-r2/ids.json
refuses system_without_a_chat_format 2 --system --raw -- run $lamb hi --raw --system x
refuses logprobs_without_json 2 --logprobs --json -- run $lamb hi --logprobs 3

refuses eval_without_input 2 "input is missing" --text --ids -- eval $lamb
refuses eval_with_two_inputs 2 "--text and --ids" -- eval $lamb --text a --ids b
refuses eval_draft_logits_without_count 2 --draft-logits '"x.npy"' "from 1 to 8" -- eval $lamb --text a --draft-logits x.npy
refuses eval_draft_logits_too_many 2 --draft-logits '"9"' "from 1 to 8" -- eval $lamb --text a --draft-logits 9 x.npy
refuses eval_logits_without_file 2 --logits "expected the name of a file to write" -- eval $lamb --text a --logits
refuses eval_text_without_file 2 --text "expected a file name" -- eval $lamb --text
refuses eval_draft_logits_without_file 2 --draft-logits "second value is missing" -- eval $lamb --text a --draft-logits 3

while read -r option given expected; do
    refuses "serve_${option#--}_$given" 2 "$option" "\"$given\"" "$expected" -- serve $lamb "$option=$given"
done <<'CASES'
--port 65536 from 0 to 65535
--port http whole number
--max-seqs 0 from 1 to 1024
--max-seqs 2000 from 1 to 1024
--kv-memory lots 2GiB
--kv-memory -1 2GiB
--kv-memory 2Gi 2GiB
--kv-memory 0x10 2GiB
--kv-memory 0 full context
--max-body 0 at least 1
--cors-origin http://localhost:3000/ nothing behind the port
--cors-origin * http://localhost:3000
--cors-origin localhost:3000 http://localhost:3000
--cache-memory 9999999TB 2GiB
--decode-gap 0 above 0
--draft 3 auto|off
--sampling-defaults mine checkpoint|openai
--late-system drop join|error
--reasoning-field none both|content|short|inline
CASES
refuses serve_no_cache_of_a_size 2 --no-cache --cache-memory -- serve $lamb --no-cache --cache-memory 1GiB
refuses serve_beyond_loopback_without_keys 1 0.0.0.0 --api-key-file --insecure -- serve $lamb --host 0.0.0.0 --port 0
printf '# nobody\n\n' >"$work/keys"
refuses serve_with_a_file_without_keys 1 --api-key-file "no key in it" -- serve $lamb --api-key-file "$work/keys"
printf 'good\nnot one\n' >"$work/keys"
refuses serve_with_a_key_that_is_none 1 "line 2" "visible ASCII" -- serve $lamb --api-key-file "$work/keys"
refuses serve_with_a_missing_key_file 1 "$work/none" "cannot open" -- serve $lamb --api-key-file "$work/none"
refuses serve_of_a_missing_model 1 no/such/model -- serve no/such/model --port 0
exit $failed
