#!/usr/bin/env bash
# A chat through a pseudo-terminal: messages, history, commands, Ctrl-C and Ctrl-D.
. tests/cli/common.bash
if ! command -v script >/dev/null; then
    echo "skip chat: no script(1) here"
    exit 0
fi
if [ "$(timeout 10 script -qec 'echo here' /dev/null </dev/null 2>/dev/null | tr -d '\r')" != here ]; then
    echo "skip chat: no pseudo-terminal to be had here (a chroot without /dev/pts?)"
    exit 0
fi
# chat OPTIONS: types what the function `keys` writes, the screen goes to $work/screen. The shell in
# between gets Ctrl-C too, and unlike bash others end with it: the trap keeps it for the status.
chat() {
    keys | timeout 120 script -qec "trap : INT; ./bellwether run models/lamb $*; echo status \$?" /dev/null >"$work/screen" 2>&1
    sed -i 's/\r//g' "$work/screen"
}
# Waits until the screen shows $1 for the $2-th time, then types $3.
type_after() {
    local n
    for ((n = 0; n < 600; n++)); do
        [ "$(grep -caF -e "$1" "$work/screen")" -ge "$2" ] && break
        sleep 0.1
    done
    printf "$3"
}
shows() { is "$1" "$([ "$(grep -cae "$2" "$work/screen")" -ge 1 ] && echo shown)" shown; }

: >"$work/screen"
keys() {
    type_after '> ' 1 'Hello there\n'
    type_after '(cut' 1 '/nonsense\n'
    type_after '/system' 1 '/reset\n'
    sleep 0.5
    printf '\004'
    sleep 1
}
chat --seed 3 --max-tokens 24 --ignore-eos
shows the_chat_greets 'Ctrl-D leaves'
shows a_long_answer_says_why_it_ends 'cut: --max-tokens is reached'
shows an_unknown_command_is_named '/nonsense is not a command'
shows help_lists_the_commands '/system TEXT'
shows a_receipt_ends_the_chat '^receipt'
shows leaving_is_success 'status 0'

: >"$work/screen"
keys() {
    type_after '> ' 1 'Hello there, it is a fine morning\n'
    type_after '(cut' 1 'And then\n'
    type_after '(cut' 2 ''
    sleep 0.5
    printf '\004'
    sleep 1
}
chat --seed 3 --max-tokens 24 --ignore-eos
shows a_second_turn_does_not_read_the_first_again 'prompt .* of them remembered'

: >"$work/screen"
keys() {
    type_after '> ' 1 'Tell me a story\n'
    sleep 2
    printf '\003'
    type_after '(interrupted)' 1 'dropped\003/quit\n'
    sleep 1
}
chat --seed 3 --ignore-eos
shows ctrl_c_ends_the_answer '(interrupted)'
shows ctrl_c_keeps_the_chat 'status 0'
shows the_receipt_counts_one_answer '^receipt'

: >"$work/screen"
keys() {
    type_after '> ' 1 'one\ntwo\nthree\n'
    type_after '(cut' 1 ''
    sleep 1
    printf '\004'
    sleep 1
}
chat --seed 3 --max-tokens 8 --ignore-eos
is a_paste_is_one_message "$(grep -ca 'cut: --max-tokens' "$work/screen")" 1
: >"$work/screen"
keys() {
    type_after '> ' 1 'Hello\n'
    type_after '(cut' 1 'one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty\n'
    type_after 'is forgotten' 1 '/reset\nHi\n'
    type_after '(cut' 2 '/quit\n'
}
chat --seed 3 --ctx 40 --ignore-eos
shows a_full_context_ends_the_answer 'cut: the context is full'
shows a_message_that_does_not_fit_is_forgotten 'context of 40.*the message is forgotten'
is after_a_reset_the_chat_goes_on "$(grep -ca 'cut: the context is full' "$work/screen")" 2
exit $failed
