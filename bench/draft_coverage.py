#!/usr/bin/env python3
"""draft_coverage.py - what share of a text's tokens can be drafted at all, by the size of the draft vocabulary.

    bench/draft_coverage.py TOKENIZER prose=texts/english c=src docs
    bench/draft_coverage.py TOKENIZER zh=texts/chinese --first 16384,32768,all --list 64,256,1024

A token can be drafted when its id is below --draft-vocab or when it is in the sequence's list
(src/engine/draft_list.h). TOKENIZER is what `bellwether tokenize` takes. How to read the table:
bench/README.md. Only the standard library.
"""
import argparse
import itertools
import json
import os
import subprocess
import sys

from serve_bench import ROOT, commit, short

# That the engine gives every sequence's list (src/engine/engine_memory.c).
MARKS = ["<|im_end|>", "<|endoftext|>", "</think>", "<think>", "<tool_call>", "</tool_call>", "<tool_response>",
         "</tool_response>", "<|im_start|>"]
MOST_FIXED = 64
ROOM = 512
CHAIN = 4  # drafts of a verify that are counted


# ---- the list ------------------------------------------------------------------------------------

class DraftList:
    """The rules of src/engine/draft_list.c: fixed ones stay, of the others those that came last."""

    def __init__(self, n_first, fixed, room=ROOM):
        self.n_first = n_first
        self.fixed = set()
        for token in fixed:
            if token >= n_first and len(self.fixed) < min(MOST_FIXED, room):
                self.fixed.add(token)
        self.room = room - len(self.fixed)
        self.latest = {}  # in the order in which they came

    def has(self, token):
        return token in self.fixed or token in self.latest

    def read(self, token):
        if token < self.n_first or token in self.fixed or self.room == 0:
            return
        if token in self.latest:
            del self.latest[token]
        elif len(self.latest) == self.room:
            del self.latest[next(iter(self.latest))]
        self.latest[token] = True


def chains(flags, begun, whole):
    """Adds to begun[j] how many stretches of j + 1 neighbours there are, to whole[j] those that can all be drafted."""
    run = 0
    for flag in reversed(flags):
        run = run + 1 if flag else 0
        for j in range(min(run, CHAIN)):
            whole[j] += 1
    for j in range(CHAIN):
        begun[j] += max(0, len(flags) - j)


def play(ids, n_prompt, n_first, room, fixed, result):
    """The whole text passes the list; only what is not the prompt counts."""
    draft_list, below, listed = DraftList(n_first, fixed, room), [], []
    for i, token in enumerate(ids):
        if i >= n_prompt:
            below.append(token < n_first)
            listed.append(below[-1] or draft_list.has(token))
        draft_list.read(token)
    result["tokens"] += len(below)
    result["without"] += sum(below)
    result["with"] += sum(listed)
    chains(listed, result["begun"], result["whole"])


def expect(got, want, what):
    if got != want:
        raise SystemExit(f"self-test: {what}: {got}, expected {want}")


def self_test():
    """The same made-up text, and the same count, as in tests/unit/test_draft_list.c."""
    draft_list, x, found = DraftList(1000, [5000, 3, 5001, 5000], 512), 1, 0
    for _ in range(20000):
        x = (x * 1103515245 + 12345) % 2 ** 31
        token = (x >> 16) % (900 if x >> 8 & 3 else 4100) + 700
        found += draft_list.has(token)
        draft_list.read(token)
    expect(found, 6042, "tokens of the made-up text that are in the list")
    small = DraftList(10, [], 2)
    for token in (11, 12, 11, 13):
        small.read(token)
    expect([small.has(t) for t in (11, 12, 13, 9)], [True, False, True, False], "a list of two")
    begun, whole = [0] * CHAIN, [0] * CHAIN
    chains([True, True, False, True], begun, whole)
    expect((begun, whole), ([4, 3, 2, 1], [3, 1, 0, 0]), "neighbours")
    print("the list finds what src/engine/draft_list.c finds")


# ---- texts ---------------------------------------------------------------------------------------

def files_below(path):
    if not os.path.isdir(path):
        return [path]
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)


def texts_of(path, most):
    """What is no text (has a zero byte) is left out."""
    texts, n = [], 0
    for name in files_below(path):
        if n >= most:
            break
        try:
            with open(name, "rb") as f:
                data = f.read(most - n)
        except OSError as problem:
            raise SystemExit(f"{name}: {problem.strerror}") from None
        if data and b"\0" not in data:
            texts.append(data.decode(errors="replace"))
            n += len(data)
    if not texts:
        raise SystemExit(f"{path}: no text in it")
    return texts


def tokenize(program, tokenizer, texts):
    try:
        done = subprocess.run([program, "tokenize", "--jsonl", tokenizer], stdout=subprocess.PIPE, text=True,
                              check=False, input="".join(json.dumps(t) + "\n" for t in texts))
        answers = done.stdout.splitlines()
        if done.returncode != 0 or len(answers) != len(texts):
            failed = [line for line in answers if '"error"' in line]
            raise SystemExit(f"{program} tokenize failed: status {done.returncode}, {len(answers)} answers to "
                             f"{len(texts)} texts" + "".join(f"; {line}" for line in failed[:1]))
        return [json.loads(line)["ids"] for line in answers]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise SystemExit(f"{program} tokenize failed: {type(problem).__name__}: {problem}") from None


# ---- the whole -----------------------------------------------------------------------------------

def measure(args, groups):
    texts = [texts_of(path, args.bytes) for _, path in groups]
    ids = tokenize(args.program, args.tokenizer, MARKS + [t for group in texts for t in group])
    fixed = [mark[0] for mark in ids[:len(MARKS)] if len(mark) == 1]
    at, rows = len(MARKS), []
    for (name, _), group in zip(groups, texts):
        pieces = [text[i:i + args.length] for text in ids[at:at + len(group)] for i in range(0, len(text), args.length)]
        at += len(group)
        for n_first, room in itertools.product(args.first, args.list):
            row = {"text": name, "first": n_first, "list": room, "texts": len(pieces), "tokens": 0, "without": 0,
                   "with": 0, "begun": [0] * CHAIN, "whole": [0] * CHAIN}
            below = sys.maxsize if n_first == "all" else n_first
            for piece in pieces:
                play(piece, int(len(piece) * args.prompt), below, room, fixed, row)
            rows.append(row)
    return rows


def percent(part, whole):
    return f"{100 * part / whole:.2f} %" if whole else "-"


def table(rows, rooms):
    """The rows that differ by the list alone are one line."""
    heading = ["text", "tokens", "ids below", "without a list"]
    for room in rooms:
        heading += [f"with {room:,}", f"{CHAIN - 1} in a row"]
    lines = [heading, ["---"] + ["---:"] * (len(heading) - 1)]
    for at in range(0, len(rows), len(rooms)):
        r = rows[at]
        first = "all" if r["first"] == "all" else f"{r['first']:,}"
        line = [r["text"], f"{r['tokens']:,}", first, percent(r["without"], r["tokens"])]
        for r in rows[at:at + len(rooms)]:
            line += [percent(r["with"], r["tokens"]), percent(r["whole"][CHAIN - 2], r["begun"][CHAIN - 2])]
        lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def numbers(text):
    return [word if word == "all" else int(word) for word in text.split(",")]


def places(text):
    return [max(0, int(word)) for word in text.split(",")]


def share(text):
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError("expected a share from 0 to below 1")
    return value


def group_of(text):
    name, equals, path = text.partition("=")
    return (name, path) if equals else (os.path.basename(os.path.normpath(text)), text)


def read_arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("tokenizer", help="a checkpoint's folder, a .gguf file or a tokenizer.json")
    p.add_argument("texts", nargs="+", metavar="[NAME=]PATH",
                   help="a kind of text each: a file, or a folder and all below it")
    p.add_argument("--first", type=numbers, default="4096,8192,16384,32768,65536,131072,all",
                   help="values of --draft-vocab (default %(default)s)")
    p.add_argument("--list", type=places, default=str(ROOM),
                   help="places of the list (default %(default)s, the engine's)")
    p.add_argument("--prompt", type=share, default=0.25,
                   help="how much of each text is the prompt: read, not counted (default %(default)s)")
    p.add_argument("--length", type=int, default=4096,
                   help="tokens of a text, at most; longer files are cut (default %(default)s)")
    p.add_argument("--bytes", type=int, default=1 << 20, help="of each kind, at most (default %(default)s)")
    p.add_argument("--program", default=os.path.join(ROOT, "bellwether"), help="default ./bellwether")
    p.add_argument("--json", help="write all figures here")
    args = p.parse_args()
    if args.length < 1 or args.bytes < 1:
        p.error("--length and --bytes must be at least 1")
    return args


def main():
    if sys.argv[1:] == ["--self-test"]:
        self_test()
        return
    args = read_arguments()
    rows = measure(args, [group_of(t) for t in args.texts])
    print(table(rows, args.list))
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"commit": commit(), "tokenizer": short(args.tokenizer), "prompt": args.prompt,
                       "length": args.length, "rows": rows}, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
