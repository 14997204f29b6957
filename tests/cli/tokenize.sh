#!/usr/bin/env bash
# `bellwether tokenize`: text to ids and back, a line at a time, conversations.
. tests/cli/common.bash
lamb=models/lamb
tab=$'\t'

# ---- one text -------------------------------------------------------------------------------------
printf 'Hello<|im_end|>\xff\n' >"$work/in"
bw_in "$work/in" tokenize $lamb
is a_line_per_token "$status $(cat "$work/out")" "0 4594$tab\"Hello\"
8194$tab\"<|im_end|>\"
171$tab\"�\"
123$tab\"�\"
121$tab\"�\"
198$tab\"\\n\""
printf '8194 4594\n\t11' >"$work/in"
bw_in "$work/in" tokenize $lamb --decode
is ids_become_text "$status $(cat "$work/out")" "0 <|im_end|>Hello,"
head -n 40 README.md >"$work/text"
bw_in "$work/text" tokenize $lamb
cut -f1 "$work/out" >"$work/ids"
bw_in "$work/ids" tokenize $lamb --decode
cmp -s "$work/text" "$work/out" && ok text_survives_both_ways || not_ok text_survives_both_ways "other bytes came back"
bw tokenize $lamb
is no_text_has_no_tokens "$status $(cat "$work/out")" "0 "
printf 'Hello' >"$work/in"
bw_in "$work/in" tokenize $lamb/tokenizer.json
is a_tokenizer_json_alone_will_do "$status $(cat "$work/out")" "0 4594$tab\"Hello\""
bw_in "$work/in" tokenize tests/golden/gguf/dense-Q8_0.gguf
is a_gguf_file_will_do "$status $(cut -f2 "$work/out" | tr -d '"\n')" "0 Hello"

# ---- lines ----------------------------------------------------------------------------------------
printf '"Hello"\n5\n"x\n\n"Hello"' >"$work/in"
bw_in "$work/in" tokenize $lamb --jsonl
is every_line_has_an_answer "$status $(sed 's/": ".*/"/' "$work/out")" '0 {"ids": [4594]}
{"error"
{"error"
{"error"
{"ids": [4594]}'
cat >"$work/in" <<'LINES'
{"messages": [{"role": "user", "content": "Hello"}], "enable_thinking": false}
{"messages": []}
LINES
bw_in "$work/in" tokenize $lamb --jsonl --chat
is a_conversation_has_ids_and_text "$status $(head -n 1 "$work/out" | sed 's/.*"text"/"text"/')" \
    '0 "text": "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"}'
is a_refused_conversation_has_an_error "$(tail -n 1 "$work/out" | cut -c 1-10)" '{"error": '
is a_known_template_needs_no_note "$(cat "$work/err")" ""
mkdir "$work/model"
cp $lamb/tokenizer.json "$work/model/"
bw_in "$work/in" tokenize "$work/model" --chat
is an_unknown_format_is_warned_of "$status $(grep -c '^bellwether: warning: .*3.6 assumed' "$work/err")" "0 1"
bw_in "$work/in" tokenize $lamb/tokenizer.json --chat
is a_tokenizer_json_needs_no_note "$status $(cat "$work/err")" "0 "

# thousands of lines a second: 20,000 in far less than ten
for ((i = 0; i < 20000; i++)); do printf '"Line %d of a text: the fence of the meadow was mended."\n' $i; done >"$work/in"
start=$SECONDS
bw_in "$work/in" tokenize $lamb --jsonl
is twenty_thousand_lines_take_seconds "$status $(wc -l <"$work/out") $((SECONDS - start < 10))" "0 20000 1"

# ---- refusals -------------------------------------------------------------------------------------
printf '12 x' >"$work/in"
bw_in "$work/in" tokenize $lamb --decode
check_refusal decoding_a_word 1 '"x"' "number 2"
printf '12 9000' >"$work/in"
bw_in "$work/in" tokenize $lamb --decode
check_refusal decoding_what_is_no_token 1 9000 "number 2"
printf '99999999999999999999' >"$work/in"
bw_in "$work/in" tokenize $lamb --decode
check_refusal decoding_an_id_out_of_range 1 99999999999999999999
refuses decode_and_chat 2 --decode --chat -- tokenize $lamb --decode --chat
refuses no_such_model 1 /nowhere -- tokenize /nowhere
refuses a_folder_without_a_tokenizer 1 tokenizer.json -- tokenize tests/golden/dense-r2
printf '{}' >"$work/empty.json"
refuses a_json_that_is_no_tokenizer 1 empty.json model -- tokenize "$work/empty.json"
refuses weights_are_no_tokenizer 1 model.safetensors -- tokenize $lamb/model.safetensors
exit $failed
