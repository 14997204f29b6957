#!/usr/bin/env bash
# bench/draft_coverage.py: the list as the engine has it, what counts, and what is refused.
. tests/cli/common.bash
if ! command -v python3 >/dev/null; then
    echo "skip draft_coverage: no python3"
    exit 0
fi

# coverage ARGS: leaves $status, $work/out, $work/err
coverage() {
    timeout 120 bench/draft_coverage.py "$@" </dev/null >"$work/out" 2>"$work/err"
    status=$?
}

coverage --self-test
is the_list_finds_as_much_as_the_engines "$status" 0

# ---- texts of known tokens: a program that makes a token of each number ------------------------------

cat >"$work/program" <<'PROGRAM'
#!/usr/bin/env bash
while read -r line; do
    case $line in *im_end*) line='"900"' ;; *[a-z]*) line='"1 2"' ;; esac
    echo "{\"ids\": [$(echo "$line" | tr -d '"' | tr ' ' ',')]}"
done
PROGRAM
chmod +x "$work/program"
mkdir "$work/texts" "$work/texts/b"
printf '5 200 201 202 200 900 201 5' >"$work/texts/a"
printf '7 300 300 8' >"$work/texts/b/c"
printf '1\0' >"$work/texts/d"
coverage any "$work/texts" --program "$work/program" --first 100,250,all --list 3,4 --prompt 0.5 --json "$work/json"
is below_and_listed_tokens_after_the_prompt_count \
    "$status:$(grep -c '^| texts | 6 | ' "$work/out"):$(grep '| 100 |' "$work/out")" \
    "0:3:| texts | 6 | 100 | 33.33 % | 66.67 % | 0.00 % | 100.00 % | 100.00 % |"
is frequent_tokens_take_no_place "$(grep '| 250 |' "$work/out")" \
    "| texts | 6 | 250 | 66.67 % | 100.00 % | 100.00 % | 100.00 % | 100.00 % |"
is all_can_be_drafted_from_all "$(grep '| all |' "$work/out" | grep -o '100.00 %' | wc -l)" 5
cp "$work/json" "$work/out"
is the_json_counts "$(json rows.0.tokens):$(json rows.0.without):$(json rows.0.with)" 6:2:4
is neighbours_are_of_one_text "$(json rows.0.begun):$(json rows.0.whole):$(json rows.1.whole)" \
    "[6,4,2,1]:[4,1,0,0]:[6,4,2,1]"

# ---- with the program itself, and what is refused ----------------------------------------------------

coverage models/lamb c=src/engine/draft_list.c --first 4096,all
is the_program_tokenizes "$status:$(grep -c '^| c | [1-9][0-9]* | .* | 100.00 % |$' "$work/out")" 0:1
coverage models/lamb nothing="$work/nothing"
is a_missing_text_is_named "$status:$(cat "$work/err")" "1:$work/nothing: No such file or directory"
coverage models/lamb "$work/texts/d"
is a_kind_without_text_is_refused "$status:$(grep -c 'no text in it' "$work/err")" 1:1
coverage "$work/nothing" src/engine/draft_list.c
is a_failed_tokenizer_is_no_success "$status:$(grep -c 'tokenize failed: status' "$work/err")" 1:1
coverage any src/engine/draft_list.c --program "$work/nothing"
is a_missing_program_is_named "$status:$(cat "$work/err")" \
    "1:$work/nothing tokenize failed: FileNotFoundError: [Errno 2] No such file or directory: '$work/nothing'"
printf '#!/bin/sh\nsed "s/.*/no JSON/"\n' >"$work/program"
coverage any src/engine/draft_list.c --program "$work/program"
is an_answer_that_is_no_json_is_refused \
    "$status:$(wc -l <"$work/err"):$(grep -c 'failed: JSONDecodeError' "$work/err")" 1:1:1
printf '#!/bin/sh\nsed "s/.*/no JSON/"\nexit 3\n' >"$work/program"
coverage any src/engine/draft_list.c --program "$work/program"
is the_exit_status_comes_first "$status:$(grep -c 'tokenize failed: status 3' "$work/err")" 1:1
coverage models/lamb src/engine/draft_list.c --prompt 1
is a_text_that_is_all_prompt_is_refused "$status:$(grep -c 'expected a share' "$work/err")" 2:1
exit $failed
