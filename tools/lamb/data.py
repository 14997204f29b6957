#!/usr/bin/env python3
"""The training text: mixing, splitting, packing, and worker processes that write it while the
model trains.

    data.py --make-docs docs.txt.xz      collects documentation and sources from this machine

Documents end with <|endoftext|>. Rows hold whole documents, best fit first; what is left over is
filled with <|endoftext|>, which is never a target. Long rows (two times ROW) exist for texts that do
not fit a row. Held-out text comes from seeds no worker uses, and for documentation from files that
are not trained on.
"""
import argparse
import glob
import gzip
import hashlib
import json
import lzma
import multiprocessing
import os
import random
import time

import numpy as np

import chats
import stories

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.normpath(os.path.join(HERE, "..", "..", "models", "lamb"))   # where the shipped folder stands
ROW = 2048
SHARD = 64                       # rows per file
MIX = {"story": 0.46, "chat": 0.50, "doc": 0.04}
SPLIT = "\n\x00\n"               # between documents in docs.txt.xz


def document(kind, rng, docs):
    if kind == "story":
        return stories.document(rng)
    if kind == "chat":
        return chats.document(rng)
    if kind == "long":
        return chats.long_recall(rng)
    return docs[rng.randrange(len(docs))]


def load_tokenizer(folder):
    """tokenizer.json plus the tokens that stand in tokenizer_config.json only."""
    from tokenizers import AddedToken, Tokenizer
    tok = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    extra = json.load(open(os.path.join(folder, "tokenizer_config.json")))["added_tokens_decoder"]
    for i in sorted(map(int, extra)):
        if tok.token_to_id(extra[str(i)]["content"]) is None:
            tok.add_tokens([AddedToken(extra[str(i)]["content"], special=extra[str(i)]["special"], normalized=False)])
    return tok


def read_docs(path):
    """(training documents, held-out documents)"""
    if not path:
        return [], []
    every = lzma.open(path, "rt", encoding="utf-8").read().split(SPLIT)
    held = [d for d in every if hashlib.sha256(d[:200].encode()).digest()[0] < 10]
    return [d for d in every if hashlib.sha256(d[:200].encode()).digest()[0] >= 10], held


def pack(lists, rows, width, end):
    """Best fit of documents (lists of ids) into rows; returns those used as an array."""
    out = np.full((rows, width), end, np.uint16)
    room = [width] * rows
    for ids in sorted(lists, key=len, reverse=True):
        ids = ids[:width]
        fits = [i for i in range(rows) if room[i] >= len(ids)]
        if not fits:
            continue
        i = min(fits, key=room.__getitem__)
        out[i, width - room[i]:width - room[i] + len(ids)] = ids
        room[i] -= len(ids)
    return out


def fill(tok, rng, docs, rows, width, kinds, weights):
    """An array of rows of documents of these kinds."""
    end, lists, total = tok.token_to_id("<|endoftext|>"), [], 0
    while total < rows * width * 1.03:
        texts = [document(k, rng, docs) for k in rng.choices(kinds, weights, k=64)]
        for e in tok.encode_batch(texts):
            lists.append(e.ids + [end])
            total += len(e.ids) + 1
    return pack(lists, rows, width, end)


def worker(folder, docs_path, seed, shards, scratch, long_share):
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.nice(10)
    tok, docs, rng = load_tokenizer(folder), read_docs(docs_path)[0], random.Random(seed)
    mix = {k: w for k, w in MIX.items() if k != "doc" or docs}
    for n in range(shards):
        long = rng.random() < long_share
        kinds, weights = list(mix), list(mix.values())
        if long:
            kinds, weights = kinds + ["long"], weights + [0.05]
        rows = fill(tok, rng, docs, SHARD // 2 if long else SHARD, ROW * 2 if long else ROW, kinds, weights)
        name = os.path.join(scratch, f"{'long' if long else 'row'}-{seed}-{n}.npy")
        np.save(name + ".part.npy", rows)
        os.rename(name + ".part.npy", name)


class Stream:
    """Rows as they are written; each is used once as long as there are fresh ones."""

    def __init__(self, folder, docs, workers, seed, shards, scratch, long_share=0.0, limit=5e8):
        os.makedirs(scratch, exist_ok=True)
        self.scratch, self.files, self.limit = scratch, set(), limit
        self.rows, self.fresh, self.used = {"row": [], "long": []}, {"row": [], "long": []}, {"row": 0, "long": 0}
        context = multiprocessing.get_context("spawn")
        self.workers = [context.Process(target=worker, daemon=True, args=(folder, docs, seed * 1000 + i, shards, scratch, long_share))
                        for i in range(workers)]
        for w in self.workers:
            w.start()

    def look(self):
        for path in glob.glob(os.path.join(self.scratch, "*.npy")):
            name = os.path.basename(path)
            if name in self.files or name.endswith(".part.npy"):
                continue
            self.files.add(name)
            kind = name.split("-")[0]
            rows = np.load(path)
            self.fresh[kind].extend(range(len(self.rows[kind]), len(self.rows[kind]) + len(rows)))
            self.rows[kind].extend(rows)
        if self.size() > self.limit:
            self.close()

    def batch(self, n, rng, kind="row"):
        while True:
            if len(self.fresh[kind]) < 4 * n or self.used[kind] % 64 == 0:
                self.look()
            if len(self.rows[kind]) >= n and (len(self.fresh[kind]) >= n or len(self.rows[kind]) > 40 * n):
                break
            time.sleep(0.2)
        self.used[kind] += 1
        out, fresh = [], self.fresh[kind]
        for _ in range(n):
            if fresh:
                i = int(rng.integers(len(fresh)))
                fresh[i], fresh[-1] = fresh[-1], fresh[i]
                out.append(fresh.pop())
            else:
                out.append(int(rng.integers(len(self.rows[kind]))))
        return np.stack([self.rows[kind][i] for i in out])

    def size(self):
        """Distinct tokens so far."""
        return sum(len(r) * r[0].size for r in self.rows.values() if r)

    def close(self):
        for w in self.workers:
            w.terminate()
        self.workers = []


def chat_of(kind, rng):
    """A conversation of one held-out kind."""
    if kind == "tools":
        return chats.render(*chats.tool_chat(rng, rng.random() < 0.5))
    if kind == "recall":
        q, a, why = chats.recall(rng, rng.randint(1, 5))
        return chats.render([{"role": "user", "content": q}, chats.answer_message(a, why, False)])
    think = kind == "chat, thinking"
    while True:
        messages, tools = chats.conversation(rng)
        if not tools and any("reasoning_content" in m for m in messages) == think:
            return chats.render(messages)


def held_out(tok, docs, rows, width=ROW, seed=987654321):
    """{kind: array of packed rows} of text no worker writes."""
    end, out = tok.token_to_id("<|endoftext|>"), {}
    for kind in ("story", "chat", "chat, thinking", "tools", "recall", "doc"):
        rng, lists, total = random.Random(f"{seed} {kind}"), [], 0
        held = read_docs(docs)[1] if kind == "doc" else []
        if kind == "doc" and not held:
            continue
        while total < rows * width * 1.05:
            text = stories.document(rng) if kind == "story" else held[len(lists) % len(held)] if kind == "doc" else chat_of(kind, rng)
            lists.append(tok.encode(text).ids + [end])
            total += len(lists[-1])
        out[kind] = pack(lists, rows, width, end)
    return out


def make_docs(path):
    """Python's library (PSF licence), Node.js manual (MIT), headers of OpenSSL (Apache-2.0), libevent
    (BSD), zlib: as this machine's Debian packages hold them, cut into pieces of some 5,000 characters."""
    names = [f for f in glob.glob("/usr/lib/python3*/**/*.py", recursive=True)
             if not any(x in f for x in ("/test", "/idlelib", "/encodings", "pydoc_data", "dist-packages", "lib2to3", "__phello"))]
    names += glob.glob("/usr/share/doc/nodejs/**/*.md*", recursive=True)
    names += glob.glob("/usr/include/openssl/*.h") + glob.glob("/usr/include/event2/*.h") + glob.glob("/usr/include/z*.h")
    pieces = set()
    for name in sorted(names):
        if "CHANGELOG" in name.upper():
            continue
        data = (gzip.open(name) if name.endswith(".gz") else open(name, "rb")).read()
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            continue
        piece = ""
        for block in text.split("\n\n"):
            piece += block + "\n\n"
            if len(piece) > 4000:
                pieces.add(piece[:7000])
                piece = ""
        if len(piece) > 400:
            pieces.add(piece[:7000])
    pieces = sorted(pieces, key=lambda x: hashlib.sha256(x.encode()).digest())
    with lzma.open(path, "wt", encoding="utf-8", preset=9) as f:
        f.write(SPLIT.join(pieces))
    print(len(pieces), "pieces,", sum(map(len, pieces)), "characters,", os.path.getsize(path), "bytes")


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--make-docs")
    make_docs(p.parse_args().make_docs)
