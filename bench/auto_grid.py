#!/usr/bin/env python3
"""auto_grid.py - the draft length that `auto` chooses, beside no drafts and every fixed length, over a grid.

    bench/auto_grid.py                                   the 0.8b shape with random weights, Q4_0
    bench/auto_grid.py --model model.gguf --seqs 1 --depths 0 --out /tmp/grid

Each cell is a run of `bellwether bench --tests draft` with an imposed acceptance p: drafts 1 to j are all
accepted in p^j of the verifies. How to read the table: bench/README.md. What follows -- goes to
`bellwether bench`. Only the standard library.
"""
import argparse
import datetime
import json
import os
import re
import subprocess
import sys

from serve_bench import ROOT, commit, machine, short

PLACES = 8  # drafts of a verify, at most
LIMITS = {"auto_off": 0.98, "auto_best": 0.95}
NAMES = {"auto_off": "auto / off", "auto_best": "auto / best"}
MARKS = {"good": "", "median below": " !", "all below": " !!", None: ""}
RULE = ("!! even the largest of the repetitions' ratios is below the limit (that of off "
        f"{LIMITS['auto_off']}, of the best fixed length {LIMITS['auto_best']}); ! their median is.")
HEADING = ["p", "seqs", "depth", "off tok/s", "best n", "its tok/s", "auto tok/s", "drafts", *NAMES.values()]


# ---- a cell --------------------------------------------------------------------------------------

def shares(p):
    return ",".join(f"{p ** j:.6g}" for j in range(1, PLACES + 1))


def command_of(args, p, seqs, depth):
    what = [args.model] if args.model else ["--synthetic", args.synthetic, "--type", args.type]
    return [args.program, "bench", *what, "--tests", "draft", "--accept", shares(p), "--seqs", str(seqs),
            "--depth", str(depth), "--drafts", args.drafts, "--reps", str(args.reps), "--json", "-", *args.options]


# An absolute path, at the start of a text or after what is no part of one.
FOLDERS = re.compile(r"(?<![\w./~-])/[^\s:;,()'\"=]+")


def hidden(what, known=()):
    """Without the folders of this machine, in all texts of a report; known: paths that may have spaces."""
    if isinstance(what, dict):
        return {key: hidden(value, known) for key, value in what.items()}
    if isinstance(what, (list, tuple)):
        return [hidden(value, known) for value in what]
    if not isinstance(what, str):
        return what
    for path in known:
        what = what.replace(path, short(path))
    return FOLDERS.sub(lambda found: short(found[0]), what)


def paths_of(args):
    return [p for p in (args.model, args.synthetic, args.program, args.out) if p and p.startswith((os.sep, os.pardir))]


def verdict(median, largest, limit):
    return "all below" if largest < limit else "median below" if median < limit else "good"


def judge(cell, row):
    """Notes what the row of auto says of itself; a ratio that was not taken is left out."""
    for name, limit in LIMITS.items():
        if name in row:
            smallest, largest = row[name + "_spread"]
            cell[name] = {"median": row[name], "smallest": smallest, "largest": largest, "limit": limit,
                          "verdict": verdict(row[name], largest, limit)}


def by_drafts(result):
    """The rows by their number of drafts: those of one group alone can be told apart so."""
    rows = {row["drafts"]: row for row in result["rows"]}
    if len(result["machines"]) > 1 or len(rows) < len(result["rows"]):
        raise ValueError("several numbers of threads or rows with the same drafts: a cell is one group, expected one "
                         "value each of --threads, --seqs and --depth after --")
    return rows


def measure(args, p, seqs, depth):
    command = command_of(args, p, seqs, depth)
    cell = {"accept": p, "seqs": seqs, "depth": depth, "command": ["bellwether", *command[1:]],
            "load_before": os.getloadavg()}
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if ": note: " not in line and ": warning: " not in line]
            cell["error"] = " / ".join(said) or f"exit status {done.returncode}, no message"
        else:
            cell["result"] = json.loads(done.stdout)
            rows = by_drafts(cell["result"])
            if "auto" in rows:
                judge(cell, rows["auto"])
            else:
                cell["error"] = " / ".join(cell["result"]["notes"]) or "no row of auto, no note"
    except (OSError, ValueError, KeyError, TypeError) as problem:
        cell["error"] = f"{type(problem).__name__}: {problem}"
    cell["load_after"] = os.getloadavg()
    return hidden(cell, paths_of(args))


# ---- the table -----------------------------------------------------------------------------------

def ratio_text(ratio):
    if not ratio:
        return "-"
    return f"{ratio['median']:.3f} ({ratio['smallest']:.3f}..{ratio['largest']:.3f}){MARKS[ratio['verdict']]}"


def line_of(cell):
    head = [f"{cell['accept']:g}", str(cell["seqs"]), str(cell["depth"])]
    if "error" in cell:
        return head + ["failed: " + cell["error"].replace("|", "/")] + [""] * (len(HEADING) - 4)
    rows = by_drafts(cell["result"])
    auto = rows["auto"]

    def rate(n):
        return f"{rows[n]['tokens_per_s']:.2f}" if n in rows else "-"
    best = auto.get("best_drafts")
    return head + [rate(0), "-" if best is None else str(best), rate(best), rate("auto"),
                   f"{auto.get('mean_drafts', 0):.2f}", ratio_text(cell.get("auto_off")),
                   ratio_text(cell.get("auto_best"))]


def markdown(fields):
    return "| " + " | ".join(fields) + " |"


def heading():
    return [markdown(HEADING), markdown(["---:"] * len(HEADING))]


def summary(cells):
    """How many cells are below, and how many were not measured."""
    lines = []
    for name, limit in LIMITS.items():
        ratios = [c[name] for c in cells if name in c]
        below = [sum(r["verdict"] == v for r in ratios) for v in ("all below", "median below")]
        if ratios:
            lines.append(f"{NAMES[name]} below {limit}: all repetitions in {below[0]}, only the median in {below[1]} "
                         f"of {len(ratios)} cells; the least median is {min(r['median'] for r in ratios):.3f}.")
    failed = sum("error" in c for c in cells)
    if failed:
        lines.append(f"{failed} of {len(cells)} cells failed.")
    return lines


def simulated(cells):
    kinds = {kind for c in cells for row in c.get("result", {}).get("rows", []) for kind in row["simulated"] or []}
    return ", ".join(sorted(kinds))


def page(report):
    first = next((c["result"] for c in report["cells"] if c.get("result", {}).get("rows")), None)
    lines = ["# auto beside fixed draft lengths", ""]
    if first:
        about, m = first["rows"][0], first["machine"]
        lines += [f"{about['shape']} {about['type']}; {m['cpu']}, threads: {m['threads']}, {m['level']}; "
                  f"{report['commit']}, {report['date']}.",
                  f"Simulated: {simulated(report['cells'])}. Median of {first['reps']} repetitions "
                  "(smallest..largest), in turns; ratios within each repetition.",
                  "drafts: what auto made per verify; p: acceptance imposed on each place.", RULE, ""]
    lines += heading() + [markdown(line_of(c)) for c in report["cells"]]
    return "\n".join(lines + [""] + summary(report["cells"])) + "\n"


def write(path, text):
    """The file gets its name once it is whole: what was measured so far is never lost."""
    with open(path + ".partial", "w") as f:
        f.write(text)
    os.replace(path + ".partial", path)


def write_report(args, report):
    if args.out:
        write(args.out + ".json", json.dumps(report, indent=1) + "\n")
        write(args.out + ".md", page(report))


# ---- the whole -----------------------------------------------------------------------------------

def list_of(kind, low, high):
    def read(text):
        values = [kind(word) for word in text.split(",")]
        if not all(low <= v <= high for v in values) or len(set(values)) != len(values):
            raise argparse.ArgumentTypeError(f"expected different values from {low} to {high}")
        return values
    read.__name__ = "list"
    return read


def read_arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", help="a checkpoint; else random weights:")
    p.add_argument("--synthetic", default="0.8b", help="their shape (default 0.8b)")
    p.add_argument("--type", default="q4_0", help="their type (default q4_0)")
    p.add_argument("--accept", type=list_of(float, 0, 1), default="0,0.3,0.5,0.65,0.8,0.9,0.95",
                   help="acceptances (default %(default)s)")
    p.add_argument("--seqs", type=list_of(int, 1, 256), default="1,4,16",
                   help="sequences at a time (default %(default)s)")
    p.add_argument("--depths", type=list_of(int, 0, 1 << 26), default="0,16384",
                   help="tokens before (default %(default)s)")
    p.add_argument("--drafts", default="0,1,2,3,4,6,8,auto",
                   help="what takes turns in each cell (default %(default)s)")
    p.add_argument("--reps", type=int, default=5, help="repetitions (default %(default)s)")
    p.add_argument("--program", default=os.path.join(ROOT, "bellwether"), help="default ./bellwether")
    p.add_argument("--out", help="writes OUT.md and OUT.json, anew after each cell")
    mine = sys.argv[1:sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    args = p.parse_args(mine)
    args.options = sys.argv[len(mine) + 2:]
    drafts = args.drafts.split(",")
    if "auto" not in drafts or len(drafts) < 2:
        p.error("--drafts: expected auto and at least one number beside it")
    return args


def main():
    args = read_arguments()
    report = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "machine": machine(),
              "commit": commit(), "arguments": hidden(sys.argv[1:], paths_of(args)), "rule": RULE, "cells": []}
    write_report(args, report)
    print("\n".join(heading()), flush=True)
    for seqs in args.seqs:
        for depth in args.depths:
            for p in args.accept:
                report["cells"].append(measure(args, p, seqs, depth))
                write_report(args, report)
                print(markdown(line_of(report["cells"][-1])), flush=True)
    print("\n".join(["", RULE, *summary(report["cells"])]))
    return 1 if any("error" in c for c in report["cells"]) else 0


if __name__ == "__main__":
    sys.exit(main())
