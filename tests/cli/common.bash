# common.bash - what the tests of the program share; they run from the repository's root.
#
# Each prints `ok NAME`, `not ok NAME: why` or `skip NAME: why` lines. `bw ARGS` runs ./bellwether
# without input (`bw_in FILE ARGS`: with), and leaves $status, $work/out and $work/err.
set -u
export LC_ALL=C.UTF-8
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
json_get=${BW_BUILD:-build}/tests/cli/json_get
if ! [ -x ./bellwether ] || ! [ -x "$json_get" ]; then
    echo "not ok $0: ./bellwether or $json_get is missing, built by: make all tests"
    exit 1
fi

bw_in() {
    local input=$1
    shift
    timeout 120 ./bellwether "$@" <"$input" >"$work/out" 2>"$work/err"
    status=$?
}
bw() { bw_in /dev/null "$@"; }

ok() { echo "ok $1"; }
not_ok() {
    echo "not ok $1: ${*:2}"
    failed=1
}
# is NAME GOT WANT
is() {
    if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "got \"${2:0:300}\", expected \"${3:0:300}\""; fi
}
# The part of the last output at PATH; fails loudly when the output is not JSON.
json() { "$json_get" "$1" <"$work/out" 2>&1; }

# refuses NAME STATUS WORD ... -- ARGS: exit status, nothing on stdout, one line on stderr that
# holds every WORD.
refuses() {
    local name=$1 want=$2 words=() word
    shift 2
    while [ "$1" != -- ]; do
        words+=("$1")
        shift
    done
    shift
    bw "$@"
    check_refusal "$name" "$want" "${words[@]}"
}
check_refusal() {
    local name=$1 want=$2 word lines
    shift 2
    lines=$(grep -vc '^bellwether: \(note\|warning\): ' "$work/err")
    if [ "$status" -ne "$want" ]; then
        not_ok "$name" "exit status $status, expected $want; stderr: $(head -c 300 "$work/err")"
        return
    fi
    if [ -s "$work/out" ]; then
        not_ok "$name" "stdout is not empty: $(head -c 100 "$work/out")"
        return
    fi
    if [ "$lines" -ne 1 ]; then
        not_ok "$name" "$lines lines on stderr, expected one message: $(head -c 500 "$work/err")"
        return
    fi
    for word in "$@"; do
        if ! grep -qF -e "$word" "$work/err"; then
            not_ok "$name" "the message \"$(head -c 400 "$work/err")\" does not name \"$word\""
            return
        fi
    done
    ok "$name"
}
