#!/usr/bin/env python3
"""Writes tests/golden/tokenizer/: what the `tokenizers` library makes of 10,000 strings, of every code
point, and of malformed UTF-8 (that last part is Python's own errors='replace').

    make_tokenizer.py models/lamb tests/golden/tokenizer [--bellwether ./bellwether]

strings.txt      10,000 strings of code points that Unicode 9 knows, with their ids
points.txt       every code point in four surroundings: a checksum of the ids per block of 4,096
replace.txt      malformed UTF-8 and what it becomes
differences.txt  where bellwether's ids are others, because Unicode tables differ; needs --bellwether,
                 which is run as `bellwether tokenize MODEL --jsonl`

Needs the tokenizers package, and perl for the age of code points (perl 5.36 knows Unicode 14)."""
import argparse
import json
import os
import random
import subprocess
import unicodedata

import tokenizers
from tokenizers import AddedToken, Tokenizer

N = 10000
# {c} the code point. A letter ends before 's, a symbol swallows its apostrophe; the others show composition
# and the order of marks. "apostrophe" comes first: differences.txt explains it by class, the rest by ids.
SURROUNDINGS = ["{c}'s", "e{c}\u0316", "a\u0315{c}", "{c}\u0338"]

# the composition that came between Unicode 9 and 15 (Dives Akuru)
COMPOSING = ["\U00011935\U00011930"]


def load(model):
    t = Tokenizer.from_file(os.path.join(model, "tokenizer.json"))
    with open(os.path.join(model, "tokenizer_config.json"), encoding="utf-8") as f:
        decoder = json.load(f)["added_tokens_decoder"]
    added = []
    for key, a in sorted(decoder.items(), key=lambda x: int(x[0])):
        if t.id_to_token(int(key)) is None:
            t.add_tokens([AddedToken(a["content"], special=a["special"], normalized=a["normalized"])])
        assert t.id_to_token(int(key)) == a["content"], key
        added.append(a["content"])
    return t, added


def known_to_unicode_9():
    script = r'for (0 .. 0x10ffff) { next if $_ >= 0xd800 && $_ < 0xe000; print "$_\n" if chr($_) =~ /\p{Present_In: 9.0}/ }'
    out = subprocess.run(["perl", "-e", script], check=True, capture_output=True, text=True).stdout
    return [int(x) for x in out.split()]


# ---- strings ----

def by_script(points):
    """First word of the name: LATIN, GREEK, CJK, HANGUL, ... ; the small groups together."""
    groups = {}
    for p in points:
        c = chr(p)
        if unicodedata.category(c) in ("Co", "Cn", "Cs"):
            continue
        groups.setdefault(unicodedata.name(c, "CONTROL").split()[0].split("-")[0], []).append(c)
    rest = [c for g in groups.values() if len(g) < 8 for c in g]
    groups = {k: g for k, g in groups.items() if len(g) >= 8}
    groups["REST"] = rest
    return groups


EMOJI = ["\U0001F600", "\U0001F469\u200D\U0001F4BB", "\U0001F468\u200D\U0001F469\u200D\U0001F467\u200D\U0001F466", "\u2764\uFE0F",
         "\U0001F1EE\U0001F1F9", "1\uFE0F\u20E3", "\U0001F44D\U0001F3FD", "\U0001F3F4\u200D\u2620\uFE0F", "\u263A", "\U0001F926\U0001F3FF\u200D\u2642\uFE0F"]
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\r", "\n\n", "   ", "\u00A0", "\u2003", "\u3000", "\u2028", "\u2029", "\u0085", "\u1680", "\u202F", "\u205F",
          "\u200B", "\u180E", "\uFEFF", "\v", "\f", "\x1c", "\x1f"]
WORDS = ("the of and to a in is it You that he was for on are with as I his they be at one have this from or had by hot but some what there we can "
         "out other were all your when up use word how said an each she which do their time if will way about many then them would write like so these "
         "lamb meadow village story once upon walked, river. \"Well,\" fence; return int const char void if (x) { } == != -> // /* */ def self import "
         "print(\"\") None True 0x1F 3.14 1e-7 100% $5 #tag @user http://example.org/a?b=c&d=e <b>bold</b> [1, 2] {\"k\": null} \\n \\t").split()
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'RE", "'\u017F", "'LL", "\u2019s", "'x", "''s"]
CONTROLS = [chr(i) for i in range(32)] + ["\x7f"] + [chr(i) for i in range(0x80, 0xA0)]
MARKS = [chr(i) for i in range(0x300, 0x370)] + ["\u0483", "\u0591", "\u05B0", "\u064B", "\u0670", "\u093C", "\u09BC", "\u0E38", "\u0EB8", "\u302A", "\u3099",
                                                 "\U0001D165", "\u0F71", "\u0F72", "\u1DC0", "\u20D0", "\uFE20"]


def strings(points, added, rnd):
    groups = by_script(points)
    names = sorted(groups)
    pick = rnd.choice

    def word(g):
        return "".join(pick(groups[g]) for _ in range(rnd.randint(1, 8)))

    def script():
        g = pick(names)
        return "".join(word(g) + pick([" ", " ", "", ", ", "\n", ". "]) for _ in range(rnd.randint(1, 6)))

    def mixed():
        return "".join(word(pick(names)) for _ in range(rnd.randint(1, 6)))

    def english():
        return "".join(pick(WORDS) + pick([" ", " ", " ", "  ", "\n", "", "\n\n", "\t", pick(CONTRACTIONS) + " "]) for _ in range(rnd.randint(1, 15)))

    def spaces():
        return "".join(pick(SPACES) if rnd.random() < 0.7 else pick([pick(WORDS), word(pick(names)), "7", "!"]) for _ in range(rnd.randint(1, 12)))

    def emoji():
        return "".join(pick(EMOJI) + pick(["", " ", pick(WORDS)]) for _ in range(rnd.randint(1, 6)))

    def controls():
        return "".join(pick(CONTROLS) if rnd.random() < 0.6 else pick(WORDS) for _ in range(rnd.randint(1, 10)))

    def runs():
        return "".join(pick(["a", "e", " ", "\n", "=", "-", "0", "\u4E2D", "\u0301", "\U0001F600", "<", ".", "ha", "' "]) * pick([2, 3, 7, 16, 33, 64, 150])
                       for _ in range(rnd.randint(1, 3)))

    def tokens():
        parts = []
        for _ in range(rnd.randint(1, 6)):
            a = pick(added)
            parts.append(pick([a, a, a[:-1], a[1:], a.upper(), pick(WORDS), " ", "\n", "\u0301", "<", "|>", word(pick(names))]))
        return "".join(parts)

    def marks():
        return "".join(pick(["a", "e", "o", "\u0915", "\u1100\u1161\u11A8", "\uAC00", "\u212B", "\u0F73", "\u0344", "\u2126", "A", " ", "1"]) +
                       "".join(pick(MARKS) for _ in range(rnd.randint(0, 5))) for _ in range(rnd.randint(1, 5)))

    def hangul():
        return "".join(chr(rnd.randint(0x1100, 0x1112)) + chr(rnd.randint(0x1161, 0x1175)) + pick(["", chr(rnd.randint(0x11A8, 0x11C2))]) for _ in range(rnd.randint(1, 4)))

    kinds = [(script, 5), (mixed, 2), (english, 4), (spaces, 2), (emoji, 1), (controls, 1), (runs, 0.3), (tokens, 2), (marks, 2), (hangul, 0.3)]
    made = ["", " ", "\n", "'", "<", "<|im_end|>", "\x00", "\uFFFD", "\U0010FFFF", "Hello, world!"]
    while len(made) < N:
        made.append(rnd.choices([k for k, _ in kinds], [w for _, w in kinds])[0]())
    allowed = set(points)
    assert all(ord(c) in allowed for s in made for c in s if unicodedata.category(c) != "Co" and ord(c) < 0x10FFFE), "newer than Unicode 9"
    return made


def escape(s):
    """One line: backslash, controls and line ends as \\xHH, the rest raw."""
    return "".join("\\x%02x" % ord(c) if ord(c) < 32 or c in "\\\x7f" else c for c in s)


# ---- malformed bytes ----

def malformed(rnd):
    bits = [b"a", b"\xc3\xa9", b"\xe4\xb8\xad", b"\xf0\x9f\x98\x80", b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc2", b"\xe0\x80", b"\xe0\xa0", b"\xe4\xb8",
            b"\xed\xa0\x80", b"\xed\x9f", b"\xed\x9f\xbf", b"\xee\x80", b"\xf0\x80", b"\xf0\x8f\xbf\xbf", b"\xf0\x90", b"\xf0\x9f\x98", b"\xf4\x8f\xbf",
            b"\xf4\x90\x80\x80", b"\xf5\x80", b"\xff", b"\xfe", b"\xf8\x88\x80\x80\x80", b"\x00", b" "]
    cases = [x for x in bits]
    while len(cases) < 500:
        n = rnd.randint(1, 6)
        cases.append(b"".join(rnd.choice(bits) if rnd.random() < 0.8 else bytes([rnd.randint(0, 255)]) for _ in range(n)))
    return cases


# ---- every code point ----

def checksum(list_of_ids):
    """FNV-1a over the ids, each followed by a separator -1, as 32-bit little-endian words."""
    h = 0xCBF29CE484222325
    for ids in list_of_ids:
        for i in ids + [0xFFFFFFFF]:
            h = ((h ^ i) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def block_points(block):
    return [p for p in range(block * 4096, (block + 1) * 4096) if not 0xD800 <= p < 0xE000]


def ours(program, model, texts):
    lines = "".join(json.dumps(t) + "\n" for t in texts)
    out = subprocess.run([program, "tokenize", model, "--jsonl"], input=lines, check=True, capture_output=True, text=True).stdout
    return [json.loads(x)["ids"] for x in out.splitlines()]


def ranges(points):
    out = []
    for p in points:
        if out and out[-1][1] == p - 1:
            out[-1][1] = p
        else:
            out.append([p, p])
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("out")
    p.add_argument("--bellwether", help="the program; also writes differences.txt")
    p.add_argument("--seed", type=int, default=9)
    a = p.parse_args()
    tok, added = load(a.model)
    rnd = random.Random(a.seed)
    ids_of = lambda texts: [e.ids for e in tok.encode_batch(texts, add_special_tokens=False)]
    made_by = f"# made by tools/golden/make_tokenizer.py with tokenizers {tokenizers.__version__}, models/lamb, seed {a.seed}\n"
    os.makedirs(a.out, exist_ok=True)
    write = lambda name: open(os.path.join(a.out, name), "w", encoding="utf-8", newline="\n")

    texts = strings(known_to_unicode_9(), added, rnd)
    with write("strings.txt") as f:
        f.write(made_by + "# ids, space separated; a tab; the text with \\xHH for a byte below 32, 7f and the backslash\n")
        for s, ids in zip(texts, ids_of(texts)):
            f.write(" ".join(map(str, ids)) + "\t" + escape(s) + "\n")

    with write("replace.txt") as f:
        f.write("# made by tools/golden/make_tokenizer.py: bytes.decode('utf-8', 'replace') of Python\n# bytes in hex; a tab; the result in hex\n")
        for b in malformed(rnd):
            f.write(b.hex() + "\t" + b.decode("utf-8", "replace").encode().hex() + "\n")

    differing = {k: [] for k in range(len(SURROUNDINGS))}
    explained = []
    with write("points.txt") as f:
        f.write(made_by + "# every code point c of a block of 4096 (not surrogates, not those of differences.txt) in a surrounding:\n")
        f.write("# block in hex, surrounding, FNV-1a of the ids. Surroundings: " + ", ".join(f"{i} {json.dumps(s)}" for i, s in enumerate(SURROUNDINGS)) + "\n")
        for block in range(0x110):
            for k, around in enumerate(SURROUNDINGS):
                points = block_points(block)
                if not points:
                    continue
                cases = [around.format(c=chr(x)) for x in points]
                want = ids_of(cases)
                if a.bellwether:
                    got = ours(a.bellwether, a.model, cases)
                    bad = [i for i in range(len(points)) if got[i] != want[i]]
                    differing[k] += [points[i] for i in bad]
                    explained += [(k, points[i], want[i], got[i]) for i in bad]
                    want = [w for i, w in enumerate(want) if i not in set(bad)]
                f.write(f"{block:03x} {k} {checksum(want):016x}\n")
    if not a.bellwether:
        return
    with write("differences.txt") as f:
        f.write(made_by + "# Known differences from that library; all come from Unicode tables. The library: NFC of Unicode 9, pattern of\n"
                "# Unicode 16. Here, recorded on Debian 12: NFC of utf8proc 2.8 (Unicode 15), pattern of PCRE2 10.42 (Unicode 14).\n"
                "# range FIRST LAST: code points newer than 14; c's is there a letter before 's, here a symbol and its apostrophe.\n"
                "# ids SURROUNDING POINT | ids of the library | ids here: composition and order of marks newer than 9.\n"
                "# text BYTES | the same for two code points that newer tables compose.\n"
                "# With other versions of the two libraries a line may cease to differ; nothing else may.\n")
        for first, last in ranges(differing[0]):
            f.write(f"range {first:04X} {last:04X}\n")
        for k, point, want, got in explained:
            if k:
                f.write(f"ids {k} {point:04X} | {' '.join(map(str, want))} | {' '.join(map(str, got))}\n")
        for text, want, got in zip(COMPOSING, ids_of(COMPOSING), ours(a.bellwether, a.model, COMPOSING)):
            f.write(f"text {text.encode().hex()} | {' '.join(map(str, want))} | {' '.join(map(str, got))}\n")


if __name__ == "__main__":
    main()
