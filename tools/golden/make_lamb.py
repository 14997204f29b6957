#!/usr/bin/env python3
"""Makes tests/golden/lamb/rounds.json: what the shipped model drafts, accepts and writes on held-out prompts.

    make_lamb.py [OUTFILE]

Five prompts of each kind come from the writers of tools/lamb with a seed that neither the training nor its
evaluation used; qwen_ref.py continues them greedily with three drafts per round, in float32, up to 120 tokens or the
first stop token, which is kept. Per draft and token stands the distance of its two best logits, so that a
difference can be told from a near tie. Needs numpy, torch, tokenizers, safetensors.
"""
import hashlib
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tools", "lamb"))

import data
import evaluate
import qwen_ref as ref

SEED, PER_KIND, LIMIT, SHORTEST, DRAFTS = 20261121, 5, 120, 16, 3
KINDS = {"story": "story", "chat": "chat", "thinking": "chat, thinking", "tools": "tools"}


def until_stop(tokens, stops):
    for i, t in enumerate(tokens):
        if t in stops:
            return i + 1
    return len(tokens)


def continue_prompt(model, ids, stops):
    """The greedy continuation, cut after its first stop token, or None when that is too short to tell anything."""
    n = until_stop(ref.generate(model, ids, LIMIT)[0], stops)
    if n < SHORTEST:
        return None
    tokens, rounds, gap, draft_gap = ref.generate(model, ids, n, DRAFTS)
    return {"ids": ids, "tokens": tokens, "rounds": rounds, "smallest_gap": round(gap, 4), "smallest_draft_gap": round(draft_gap, 4)}


def main(out):
    folder = os.path.join(ROOT, "models", "lamb")
    model, tok = ref.Model(folder), data.load_tokenizer(folder)
    stops = evaluate.stops(tok)
    prompts, table = [], {}
    for name, kind in KINDS.items():
        found, tried = [], 0
        candidates = evaluate.prompts(kind, 4 * PER_KIND, tok, SEED)
        while len(found) < PER_KIND:
            one = continue_prompt(model, candidates[tried], stops)
            tried += 1
            if one:
                found.append(dict(kind=name, **one))
        every = [r for p in found for r in p["rounds"]]
        table[name] = {"verifies": len(every),
                       "accepted_by_position": [sum(r["accepted"] > j for r in every) for j in range(DRAFTS)],
                       "tokens_per_verify": round(1 + sum(r["accepted"] for r in every) / len(every), 3)}
        print(name, table[name], "gaps", min(p["smallest_gap"] for p in found), min(p["smallest_draft_gap"] for p in found), flush=True)
        prompts += found
    sha = hashlib.sha256(open(os.path.join(folder, "model.safetensors"), "rb").read()).hexdigest()
    head = {"made_by": "tools/golden/make_lamb.py", "model_sha256": sha, "draft": DRAFTS, "seed": SEED, "kinds": table}
    with open(out, "w") as f:       # one prompt a line
        f.write(json.dumps(head)[:-1] + ', "prompts": [\n' + ",\n".join(json.dumps(p) for p in prompts) + "\n]}\n")


if __name__ == "__main__":
    main(sys.argv[1] if sys.argv[1:] else os.path.join(ROOT, "tests", "golden", "lamb", "rounds.json"))
