#!/usr/bin/env bash
# bench/auto_grid.py: a run of `bellwether bench` for each cell, what is flagged, and cells that fail.
. tests/cli/common.bash
if ! command -v python3 >/dev/null; then
    echo "skip auto_grid: no python3"
    exit 0
fi

# grid ARGS: leaves $status, $work/out, $work/err, and $work/grid.json where it got so far
grid() {
    timeout 120 bench/auto_grid.py --out "$work/grid" "$@" </dev/null >"$work/out" 2>"$work/err"
    status=$?
}
table() { grep -c "$1" "$work/grid.md"; }

# ---- what it says of given figures: a program that prints them ---------------------------------------

cat >"$work/program" <<'PROGRAM'
#!/usr/bin/env bash
while [ $# -gt 0 ]; do
    case $1 in --accept) accept=$2 ;; --seqs) seqs=$2 ;; esac
    shift
done
[ "$seqs" = 1 ] || { echo "bellwether: note: so" >&2; echo "bellwether: no room for $seqs" >&2; exit 1; }
case $accept in
    0,*) off='0.97,"auto_off_spread":[0.9,0.9799]' best='0.94,"auto_best_spread":[0.9,0.9501]' ;;
    *) off='0.98,"auto_off_spread":[0.9,0.99]' best='0.95,"auto_best_spread":[0.9,0.96]' ;;
esac
row='"shape":"s","type":"t","simulated":["weights","acceptance"],"tokens_per_s":10'
machine='{"cpu":"c","threads":1,"level":"l"}'
rows="{\"drafts\":0,$row},{\"drafts\":\"auto\",$row,\"best_drafts\":0,\"auto_off\":$off,\"auto_best\":$best}"
notes='' machines=$machine
case $accept in
    1,*) rows='' notes='"no head in /home/a/m.gguf"' ;;
    0.1,*) machines="$machine,$machine" ;;
    0.2,*) rows="$rows,$rows" ;;
esac
echo "{\"machine\":$machine,\"machines\":[$machines],\"model\":\"/home/a/m.gguf\",\"reps\":3,\"notes\":[$notes],
    \"accept\":[$accept],\"rows\":[$rows]}"
PROGRAM
chmod +x "$work/program"
grid --program "$work/program" --accept 0,0.5 --seqs 2,1 --depths 0
is a_failed_cell_is_no_end_but_no_success \
    "$status:$(table '^| [0-9]'):$(table 'failed: bellwether: no room for 2 ')" 1:4:2
is all_repetitions_below_are_flagged_twice "$(table '^| 0 | 1 | .* 0.970 (0.900..0.980) !! |')" 1
is a_median_below_is_flagged_once "$(table '^| 0 | 1 | .* 0.940 (0.900..0.950) ! |$')" 1
is a_median_at_the_limit_is_good "$(table '^| 0.5 | 1 | .* 0.980 (0.900..0.990) | 0.950 (0.900..0.960) |$')" 1
is the_rule_is_stated "$(table '^!! even the largest of the repetitions')" 1
is flags_are_counted "$(grep 'below 0' "$work/grid.md")" \
    "auto / off below 0.98: all repetitions in 1, only the median in 0 of 2 cells; the least median is 0.970.
auto / best below 0.95: all repetitions in 0, only the median in 1 of 2 cells; the least median is 0.940."
is what_is_simulated_is_said "$(table '^Simulated: acceptance, weights\.')" 1
cp "$work/grid.json" "$work/out"
is acceptance_is_the_same_at_each_of_eight_places "$(json cells.3.result.accept)" \
    "[0.5,0.25,0.125,0.0625,0.03125,0.015625,0.0078125,0.00390625]"
is the_json_has_verdicts_and_messages \
    "$(json cells.0.error):$(json cells.2.auto_off.verdict):$(json cells.2.auto_best.verdict)" \
    "bellwether: no room for 2:all below:median below"

grid --program "$work/program" --model "/home/my models/m.gguf" --accept 1,0.1,0.2,0.5 --seqs 1 --depths 0 -- \
    --x=/home/b/y
is a_result_without_rows_is_no_end "$status:$(table 'failed: no head in m.gguf'):$(table '^s t; c, threads: 1')" 1:1:1
is numbers_of_threads_are_no_cell "$(table '^| 0.1 | .*failed: .*several numbers of threads')" 1
is several_groups_are_no_cell "$(table '^| 0.2 | .*failed: .*rows with the same drafts')" 1
is folders_of_the_machine_are_left_out \
    "$(grep -c "/home\|$work" "$work/grid.json"):$(grep -c '"--x=y"' "$work/grid.json")" 0:5

# ---- with the program itself -------------------------------------------------------------------------

grid --model models/lamb --accept 0,0.9 --seqs 1 --depths 70 --drafts 8,0,auto --reps 1 -- --quick --threads 1
is the_program_runs_in_each_cell \
    "$status:$(table '^| 0 | 1 | 70 | '):$(table '^| 0.9 | 1 | 70 | '):$(table failed)" 0:1:1:0
is nothing_is_left_beside_the_files "$(find "$work" -name 'grid*' | wc -l)" 2
cp "$work/grid.json" "$work/out"
is options_after_the_dashes_are_for_the_program \
    "$(json cells.0.result.machine.threads):$(json cells.0.result.rows.0.drafts)" 1:8

grid --drafts 0,1
is a_list_without_auto_is_refused "$status:$(grep -c 'expected auto' "$work/err")" 2:1
grid --accept 1.5
is a_share_above_one_is_refused "$status:$(grep -c 'from 0 to 1' "$work/err")" 2:1
exit $failed
