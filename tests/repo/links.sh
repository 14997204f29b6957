#!/usr/bin/env bash
# Documents point at files that exist, and scripts can be run.
set -u
cd "$(dirname "$0")/../.." || exit 2
shopt -s globstar nullglob

missing=() n=0
for page in *.md {docs,tests,bench,models,tools}/**/*.md; do
    while IFS= read -r target; do
        n=$((n + 1))
        [ -e "$(dirname "$page")/${target%%#*}" ] || missing+=("$page -> $target")
    done < <(grep -oE '\]\([^)#][^)]*\)' "$page" | sed 's/^](//; s/)$//' | grep -vE '^(https?|mailto):')
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "not ok links_in_documents_lead_somewhere: ${missing[*]}"
elif [ $n -lt 5 ]; then
    echo "not ok links_in_documents_lead_somewhere: only $n links seen"
else
    echo "ok links_in_documents_lead_somewhere"
fi

lame=()
for script in scripts/* .ci/run tests/run tests/{cli,repo}/*.sh; do
    { [ -x "$script" ] && bash -n "$script"; } || lame+=("$script")
done
if [ ${#lame[@]} -gt 0 ]; then
    echo "not ok scripts_have_their_run_bit_and_parse: ${lame[*]}"
else
    echo "ok scripts_have_their_run_bit_and_parse"
fi
