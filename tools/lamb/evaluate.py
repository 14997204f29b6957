#!/usr/bin/env python3
"""Measures a model folder on the CPU: what it writes, how well its MTP head drafts, whether other
code agrees. Everything is computed with the published BF16 weights in F32.

    evaluate.py --samples 5                        of models/lamb, or of --model FOLDER
    evaluate.py --acceptance 40       real speculative decoding at temperature 0
    evaluate.py --perplexity 8        rows per kind of held-out text
    evaluate.py --answers 60          share of right answers by kind of question
    evaluate.py --transformers 4      greedy text equal to transformers' own class
"""
import argparse
import json
import math
import os
import random
import re

import torch
from safetensors.torch import load_file

import chats
import data
import model as lamb
import stories


def load(folder):
    m = lamb.Lamb(lamb.Config.from_hf(json.load(open(os.path.join(folder, "config.json")))))
    m.load_state_dict({k: v.float() for k, v in load_file(os.path.join(folder, "model.safetensors")).items()})
    tok = data.load_tokenizer(folder)
    lamb.set_end(tok.token_to_id("<|endoftext|>"))
    return m.eval().requires_grad_(False), tok


def stops(tok):
    return {tok.token_to_id("<|im_end|>"), tok.token_to_id("<|endoftext|>")}


def generate(m, ids, stop, limit, temperature=0.0, top_k=20, top_p=0.95, seed=0):
    """Plain decoding without drafts."""
    d, rng, out = lamb.Decoder(m), torch.Generator().manual_seed(seed), []
    h = d.feed(ids)[-1]
    while len(out) < limit:
        logits = m.logits(h)
        if temperature == 0:
            t = int(logits.argmax())
        else:
            p, order = torch.softmax(logits / temperature, -1).sort(descending=True)
            p, order = p[:top_k], order[:top_k]
            p = p * ((p.cumsum(0) - p) / p.sum() < top_p)
            t = int(order[torch.multinomial(p, 1, generator=rng)])
        out.append(t)
        if t in stop:
            break
        h = d.feed([t])[-1]
    return out


def speculate(m, ids, stop, limit, n, tally):
    """Greedy decoding with n drafts per round. tally: [rounds, accepted at position 1, 2, ..., tokens]."""
    d = lamb.Decoder(m)
    hidden = d.feed(ids)
    token = int(m.logits(hidden[-1]).argmax())
    out, fresh_tokens, fresh_hidden = [token], ids[1:] + [token], hidden
    while out[-1] not in stop and len(out) < limit:
        drafts = d.draft(fresh_tokens, fresh_hidden, n)
        at = d.n
        hidden = d.feed([token] + drafts)
        choice = m.logits(hidden).argmax(-1).tolist()
        a = 0
        while a < n and drafts[a] == choice[a] and choice[a] not in stop:
            a += 1
        d.truncate(at + 1 + a)
        new = drafts[:a] + [choice[a]]
        hit = a + (a < n and drafts[a] == choice[a])      # a drafted end of turn is right as well
        tally[0] += 1
        for j in range(hit):
            tally[1 + j] += 1
        tally[-1] += len(new)
        out += new
        token, fresh_tokens, fresh_hidden = new[-1], new, hidden[:a + 1]
    return out


def prompts(kind, n, tok, seed=5551212):
    """Held-out beginnings: the first words of a story, or a conversation up to the answer."""
    rng, out = random.Random(f"{seed} {kind}"), []
    while len(out) < n:
        if kind == "story":
            out.append(tok.encode(stories.document(rng)).ids[:24])
        else:
            text = data.chat_of(kind, rng)
            cut = text.rindex("<|im_start|>assistant\n")
            think = not text[cut:].startswith("<|im_start|>assistant\n<think>\n\n")
            out.append(tok.encode(text[:cut] + "<|im_start|>assistant\n<think>\n" + ("" if think else "\n</think>\n\n")).ids)
            if len(out[-1]) > 700:
                out.pop()
    return out


def acceptance(m, tok, count, n):
    for kind in ("story", "chat", "chat, thinking", "tools"):
        tally, same = [0] * (n + 2), 0
        for ids in prompts(kind, count, tok):
            text = speculate(m, ids, stops(tok), 200, n, tally)
            if same < 3:                                  # drafting must not change the text
                assert generate(m, ids, stops(tok), len(text)) == text[:len(text)], "drafting changed the text"
                same += 1
        rounds = tally[0]
        print(json.dumps({"kind": kind, "drafts": n, "verifies": rounds, "tokens": tally[-1],
                          "accepted by position": [round(x / rounds, 3) for x in tally[1:n + 1]],
                          "tokens per verify": round(tally[-1] / rounds, 3)}), flush=True)


def perplexity(m, tok, docs, rows):
    for kind, part in data.held_out(tok, docs, rows, 1024).items():
        total, count = 0.0, 0
        for row in torch.from_numpy(part.astype("int64")):
            h, info = m(row[None])
            nll = torch.nn.functional.cross_entropy(m.logits(h)[0, :-1], row[1:], reduction="none")
            ok = info.valid(1)[0, :-1]
            total, count = total + float((nll * ok).sum()), count + int(ok.sum())
        print(json.dumps({"kind": kind, "tokens": count, "perplexity": round(math.exp(total / count), 3)}), flush=True)


def answers(m, tok, count):
    """Greedy answers to held-out questions that have one right answer, thinking off."""
    for name, kind in (("questions about a story", chats.story_question), ("sums", chats.sums), ("facts", chats.fact),
                       ("rewriting", chats.rewrite_fixed), ("recall", chats.recall)):
        rng, right, ended = random.Random(f"answers {name}"), 0, 0
        for _ in range(count):
            q, a, _ = kind(rng)
            ids = tok.encode(chats.render([{"role": "user", "content": q}], generate=True, think=False)).ids
            out = generate(m, ids, stops(tok), 90)
            ended += out[-1] == tok.token_to_id("<|im_end|>")
            words = re.findall(r"\w+", tok.decode(out).lower())
            right += words == re.findall(r"\w+", a.lower()) or (name == "sums" and re.findall(r"\d+", a)[-1:] == re.findall(r"\d+", tok.decode(out))[-1:])
        print(json.dumps({"kind": name, "right": round(right / count, 3), "turn ended": round(ended / count, 3), "of": count}), flush=True)
    rng, good = random.Random("answers tools"), [0, 0, 0]
    for _ in range(count):
        messages, tools = chats.tool_chat(rng, False)
        call = next((x for x in messages if x.get("tool_calls")), None)
        if not call:
            continue
        ids = tok.encode(chats.render(messages[:messages.index(call)], tools, generate=True, think=False)).ids
        out = tok.decode(generate(m, ids, stops(tok), 150), skip_special_tokens=False)
        want = chats.render(messages[:messages.index(call) + 1], tools).split("</think>\n\n")[-1]
        form = re.search(r"<tool_call>\n<function=\w+>\n(<parameter=\w+>\n.*?\n</parameter>\n)*</function>\n</tool_call>(?:\n<tool_call>.*)?<\|im_end\|>$", out, re.S)
        good = [good[0] + 1, good[1] + bool(form), good[2] + (out[out.find("<tool_call>"):].strip() == want[want.find("<tool_call>"):].strip())]
    print(json.dumps({"kind": "tool calls", "well formed": round(good[1] / good[0], 3), "exactly right": round(good[2] / good[0], 3), "of": good[0]}))


def samples(m, tok, count):
    asks = [("Once", None), ("Once upon a time", None)] + [(q, t) for q, t in (
        ("Tell me a story about a lamb.", False), ("Write a short story about a girl named Mia and a lantern.", False), ("Tell me a story about a storm.", True),
        ("Please write a story about friends.", False), ("Tell me a story about a boy named Otto that takes place at the old mill.", True))]
    for i in range(count):
        q, think = asks[i % len(asks)]
        text = q if think is None else chats.render([{"role": "user", "content": q}], generate=True, think=think)
        out = generate(m, tok.encode(text).ids, stops(tok), 500, temperature=1.0, seed=i)
        print(f"### {q!r}, temperature 1.0, top-k 20, top-p 0.95, seed {i}\n\n{text if think is None else ''}{tok.decode(out, skip_special_tokens=False)}\n", flush=True)


def against_transformers(folder, m, tok, count):
    from transformers import AutoModelForImageTextToText, AutoTokenizer
    from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5ForCausalLM
    other = Qwen3_5ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    auto = AutoTokenizer.from_pretrained(folder)
    for i, kind in zip(range(count), ["story", "chat", "tools", "chat, thinking"] * count):
        ids = prompts(kind, i + 1, tok)[i]
        assert auto.encode(tok.decode(ids, skip_special_tokens=False)) == tok.encode(tok.decode(ids, skip_special_tokens=False)).ids
        mine = generate(m, ids, stops(tok), 120)
        with torch.no_grad():
            theirs = other.generate(torch.tensor([ids]), max_new_tokens=len(mine), do_sample=False, temperature=None, top_k=None, top_p=None)[0, len(ids):].tolist()
            gap = (other(torch.tensor([ids])).logits[0, -1] - m.logits(lamb.Decoder(m).feed(ids)[-1])).abs().max()
        print(json.dumps({"kind": kind, "tokens": len(mine), "same greedy text": mine == theirs, "largest logit difference": float(gap)}), flush=True)


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--model", default=data.MODEL)
    p.add_argument("--docs", default="")
    p.add_argument("--drafts", type=int, default=3)
    for name in ("samples", "acceptance", "perplexity", "answers", "transformers"):
        p.add_argument("--" + name, type=int, default=0)
    a = p.parse_args()
    m, tok = load(a.model)
    with torch.no_grad():
        if a.samples:
            samples(m, tok, a.samples)
        if a.acceptance:
            acceptance(m, tok, a.acceptance, a.drafts)
        if a.perplexity:
            perplexity(m, tok, a.docs, a.perplexity)
        if a.answers:
            answers(m, tok, a.answers)
        if a.transformers:
            against_transformers(a.model, m, tok, a.transformers)
