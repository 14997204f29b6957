#!/usr/bin/env bash
# Plays unmodified clients against ./bellwether serve models/lamb; `make test-clients` runs it.
#
#     tests/clients/run.sh [NAME ...]     openai-python langchain-python litellm curl openai-js
#                                         openai-js-6 ai-sdk ai-sdk-6 langchain-js; default: all
#
# Installs them, pinned, from PyPI and npm into BW_CLIENTS_CACHE (default ~/.cache/bellwether-clients),
# once; where that cannot be, a client is skipped and the reason said. Prints a line per case, then a
# table and `N passed, N failed, N skipped`. Not part of `make test`: it needs a network once.
# BW_PROGRAM is another build of the server, such as build-asan/bellwether.
set -u
cd "$(dirname "$0")/../.." || exit 2
export LC_ALL=C.UTF-8
cache=${BW_CLIENTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/bellwether-clients}
here=tests/clients
work=$(mktemp -d)
passed=0 failed=0 skipped=0
table=()
servers=()
trap 'for p in "${servers[@]}"; do kill -9 "$p" 2>/dev/null; done; rm -rf "$work"' EXIT
wanted=("$@")

# ---- servers -----------------------------------------------------------------------------------

export API_KEY=sheep-and-lambs MODEL=lamb
printf '%s\n' "$API_KEY" >"$work/keys"
program=$(realpath "${BW_PROGRAM:-./bellwether}")
export SERVE="$program serve $PWD/models/lamb --model-id lamb --api-key-file $work/keys --max-seqs 4 --ctx 32768"

# start NAME OPTIONS: leaves the address in $url
start() {
    # shellcheck disable=SC2086
    $SERVE --port 0 "${@:2}" >"$work/$1.out" 2>"$work/$1.log" </dev/null &
    servers+=($!)
    for _ in $(seq 600); do
        url=$(grep -ohE 'http://127\.0\.0\.1:[1-9][0-9]*' "$work/$1.log" "$work/$1.out" | head -n 1)
        [ -n "$url" ] && curl -fso /dev/null "$url/health" && return 0
        kill -0 "${servers[-1]}" 2>/dev/null || break
        sleep 0.1
    done
    echo "not ok server_$1: it did not come up: $(tail -n 3 "$work/$1.log")"
    exit 1
}

# ---- clients -----------------------------------------------------------------------------------

# A virtual environment with one requirement (and what it needs): leaves $why empty, or a reason.
python_env() { # name, requirements
    local env=$cache/$1
    shift
    why=
    [ "$(cat "$env/done" 2>/dev/null)" = "$*" ] && return 0
    rm -rf "$env"
    if ! python3 -m venv "$env" >"$work/venv.log" 2>&1; then
        why="python3 -m venv: $(tail -n 1 "$work/venv.log")"
    elif ! timeout 600 "$env/bin/pip" install -q --disable-pip-version-check "$@" >"$work/pip.log" 2>&1; then
        why="pip install $*: $(grep -v WARNING "$work/pip.log" | tail -n 1)"
    else
        echo "$*" >"$env/done"
    fi
}

js_env() {
    local env=$cache/js
    why=
    mkdir -p "$env"
    cp $here/*.mjs "$env/"
    cmp -s $here/package.json "$env/done" && return 0
    if ! command -v npm >/dev/null; then
        why='there is no npm'
        return
    fi
    if ! (cd "$work" && timeout 60 npm view openai@7.55.0 version --fetch-retries 0 >"$work/npm.log" 2>&1); then
        why="the npm registry: $(grep -v '^npm warn' "$work/npm.log" | head -n 1)" # npm install would try for minutes
        return
    fi
    rm -rf "$env/node_modules" "$env/package-lock.json"
    cp $here/package.json "$env/"
    if (cd "$env" && timeout 600 npm install --no-audit --no-fund --ignore-scripts >"$work/npm.log" 2>&1); then
        cp $here/package.json "$env/done"
    else
        why="npm install: $(grep -v '^npm warn' "$work/npm.log" | head -n 1)"
    fi
}

is_wanted() {
    [ ${#wanted[@]} -eq 0 ] && return 0
    for w in "${wanted[@]}"; do [ "$w" = "$1" ] && return 0; done
    return 1
}

# play NAME COMMAND: runs a client; every line it prints gets its name in front.
play() {
    local name=$1 yes no
    if [ -n "$why" ]; then
        echo "skip $name: ${why:0:300}"
        skipped=$((skipped + 1))
        table+=("$name|-|skipped: ${why:0:60}")
        return
    fi
    local start=$SECONDS
    timeout 600 "${@:2}" >"$work/client.log" 2>"$work/client.err" </dev/null
    local status=$?
    sed -nE "s/^(ok|not ok) (.*)/\1 $name: \2/p" "$work/client.log"
    yes=$(grep -c '^ok ' "$work/client.log")
    no=$(grep -c '^not ok ' "$work/client.log")
    if [ "$((yes + no))" -eq 0 ] || { [ $status -ne 0 ] && [ "$no" -eq 0 ]; }; then
        echo "not ok $name: it ended with status $status: $(tail -n 3 "$work/client.err" | tr '\n' ' ' | cut -c1-400)"
        no=$((no + 1))
    fi
    passed=$((passed + yes)) failed=$((failed + no))
    table+=("$name|$(sed -n 's/^version //p' "$work/client.log")|$yes of $((yes + no)) passed|$((SECONDS - start)) s")
}

python_client() { # name, script, requirements
    is_wanted "$1" || return 0
    python_env "${@:1:1}" "${@:3}"
    play "$1" "$cache/$1/bin/python" "$here/$2"
}

js_client() { # name, script, arguments
    is_wanted "$1" || return 0
    js_env
    play "$1" node "$cache/js/$2" "${@:3}"
}

[ -x "$program" ] || { echo 'run.sh: there is no ./bellwether: make' >&2; exit 2; }
mkdir -p "$cache" || exit 2
export PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1
unset OPENAI_API_KEY OPENAI_BASE_URL OPENAI_API_BASE http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
start main
export BASE_URL=$url/v1
start tight --max-seqs 1 --max-waiting 1
export TIGHT_URL=$url/v1

why=
is_wanted curl && play curl $here/curl.sh
python_client openai-python openai_python.py openai==3.54.0
python_client langchain-python langchain_python.py langchain-openai==1.7.3 langchain-core==1.7.2
python_client litellm litellm_python.py litellm==1.106.2 mcp==2.3.0 # which tools need
js_client openai-js openai_js.mjs openai
js_client openai-js-6 openai_js.mjs openai-6
js_client ai-sdk ai_sdk.mjs ai @ai-sdk/openai-compatible
js_client ai-sdk-6 ai_sdk.mjs ai-6 @ai-sdk/openai-compatible-2
js_client langchain-js langchain_js.mjs

# Both servers must still be there, with nothing left running, and leave in order.
for p in "${servers[@]}"; do
    kill -TERM "$p" 2>/dev/null
    wait "$p"
    status=$?
    if [ $status -eq 0 ]; then
        passed=$((passed + 1))
    else
        echo "not ok server: it ended with status $status: $(tail -n 3 "$work"/*.log | tr '\n' ' ')"
        failed=$((failed + 1))
    fi
done
servers=()

echo
printf '%s\n' 'client|version|result|time' "${table[@]}" | awk -F'|' '{ printf "%-18s %-40s %-18s %s\n", $1, $2, $3, $4 }'
echo
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
