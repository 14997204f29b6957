#!/usr/bin/env bash
# The runner counts what programs say and does not let a broken one pass.
set -u
cd "$(dirname "$0")/../.." || exit 2
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT

program() { # name, then its lines
    printf '#!/usr/bin/env bash\n%s\n' "$2" >"$dir/$1" && chmod +x "$dir/$1"
}
program good 'echo "ok one"; echo "ok two"; echo "skip three: no GPU"'
program bad 'echo "ok one"; echo "not ok two: 3 is not 4"; exit 1'
program lenient 'echo "not ok one: but exits 0"'
program crash 'echo "ok one"; kill -SEGV $$'
program silent 'exit 0'
program slow 'echo "ok one"; sleep 20'
program groups 'printf "%s\n" "[==========] Running 3 test(s)." "[ RUN      ] a" "[       OK ] a" "[ RUN      ] b" "[  NOTE    ] skipped: no file" "[  SKIPPED ] b" "[ RUN      ] c" "[       OK ] c" "[==========] 3 test(s) run." "[  SKIPPED ] b"'
program check 'printf "%s\n" "[==========] Running 1 test(s)." "[ RUN      ] a" "[  FAILED  ] a.c:7: not true: x (BW_TEST_SEED=1)" "[  ERROR   ] --- a.c:7: error" "[  FAILED  ] a" "[==========] 1 test(s) run."; exit 1'
program half 'printf "%s\n" "[==========] Running 2 test(s)." "[ RUN      ] a" "[       OK ] a" "[ RUN      ] b"'

# name, expected last line, expected exit status, text that must appear, programs
expect() {
    local name=$1 last=$2 status=$3 text=$4 out got
    shift 4
    out=$(BW_TEST_LOGS="$dir/logs" BW_TEST_LIMIT=1 tests/run "${@/#/$dir/}" 2>&1)
    got=$?
    if [ "${out##*$'\n'}" != "$last" ]; then
        echo "not ok $name: the last line is '${out##*$'\n'}', not '$last'"
    elif [ "$got" -ne "$status" ]; then
        echo "not ok $name: exit status $got, not $status"
    elif [[ $out != *"$text"* ]]; then
        echo "not ok $name: '$text' is not in the output"
    else
        echo "ok $name"
    fi
}
expect passes_and_skips_are_counted '2 passed, 0 failed, 1 skipped' 0 'skipped: three: no GPU' good
expect cmocka_results_are_counted_once '2 passed, 0 failed, 1 skipped' 0 'skipped: b: no file' groups
expect a_failed_check_counts_once_and_says_why '0 passed, 1 failed' 1 'FAILED: a: a.c:7: not true: x' check
expect programs_add_up '4 passed, 0 failed, 2 skipped' 0 '' good groups
expect a_failure_fails_the_run '3 passed, 1 failed, 1 skipped' 1 'FAILED: two: 3 is not 4' good bad
expect a_failure_says_how_to_repeat_it '1 passed, 1 failed' 1 "to repeat: $dir/bad" bad
expect a_failure_counts_whatever_the_exit_status '0 passed, 1 failed' 1 'one: but exits 0' lenient
expect a_crash_is_a_failure '1 passed, 1 failed' 1 'exit status 139' crash
expect a_crash_in_a_test_names_it '1 passed, 1 failed' 1 'FAILED: b' half
cat >"$dir/dies.c" <<'END'
#include "cmocka.h"
#include <signal.h>
static void a(void **state) { (void)state; }
static void b(void **state) { (void)state; raise(SIGSEGV); }
int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(a), cmocka_unit_test(b) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
END
${CC:-cc} -Itests/arm -o "$dir/dies" "$dir/dies.c"
expect a_crash_in_a_test_for_arm_names_it '1 passed, 1 failed' 1 'FAILED: b' dies
expect a_program_without_tests_is_a_failure '0 passed, 1 failed' 1 'ran no test' silent
expect a_program_past_its_limit_is_a_failure '1 passed, 1 failed' 1 'stopped after 1 s' slow
expect a_missing_program_is_a_failure '0 passed, 1 failed' 1 'exit status 127' nowhere
expect running_nothing_is_a_failure '0 passed, 0 failed' 1 'no test ran'
out=$(BW_TEST_LOGS="$dir/logs" tests/run -j 2 "$dir/good" "$dir/groups" "$dir/bad" 2>&1)
if [ "${out##*$'\n'}" = '5 passed, 1 failed, 2 skipped' ]; then
    echo "ok two_at_a_time_count_the_same"
else
    echo "not ok two_at_a_time_count_the_same: ${out##*$'\n'}"
fi
