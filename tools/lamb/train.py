#!/usr/bin/env python3
"""Trains lamb. Data workers (data.py) write packed rows while the GPU already trains on the first.

    train.py --minutes 9 --workers 13 --docs docs.txt.xz --tokenizer FOLDER --out run1
    train.py --minutes 6 --init run1/checkpoint.pt --lr 0.4 --seed 2 --long 0.2 ... --out run2

Loss: next token, plus the MTP head unrolled over --chain steps on its own recycled hidden states.
The head's target is the distribution of the model itself one row later (which is what a drafted
token is compared with), mixed with a little of the true token. Gradients of the head reach the
trunk. Muon for matrices, AdamW for the rest; linear warm-up, then a linear fall to zero.
"""
import argparse
import json
import math
import os
import time

import numpy as np
import torch
import torch.nn.functional as F

BEGIN = time.time()

import data
import kernel
import model as lamb


# ---- optimiser ---------------------------------------------------------------------------------

def orthogonal(g, steps=5):
    """Newton-Schulz iteration on a stack of matrices [n, rows, cols]: nearly U V^T of each."""
    x = g.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.transpose(1, 2)
    x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).bfloat16()
    for _ in range(steps):
        a = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.transpose(1, 2) if tall else x


class Muon:
    """Momentum with orthogonalised updates; matrices of one shape are handled as one stack."""

    def __init__(self, params, momentum=0.95, decay=0.02):
        shapes = {}
        for p in params:
            shapes.setdefault(p.shape, []).append(p)
        self.groups = list(shapes.values())
        self.buffers = [torch.zeros(len(g), *g[0].shape, device=g[0].device) for g in self.groups]
        self.momentum, self.decay = momentum, decay

    @torch.no_grad()
    def step(self, lr):
        for group, buf in zip(self.groups, self.buffers):
            grad = torch.stack([p.grad for p in group])
            buf.lerp_(grad, 1 - self.momentum)
            rows, cols = grad.shape[1:]
            update = orthogonal(grad.lerp(buf, self.momentum)) * max(1, rows / cols) ** 0.5
            for p, u in zip(group, update.float().unbind(0)):
                p.mul_(1 - lr * self.decay).add_(u, alpha=-lr)


def optimisers(m):
    matrices, table, rest = [], [], []
    for name, p in m.named_parameters():
        if "embed_tokens" in name:
            table.append(p)
        elif p.dim() == 2 and "in_proj_a" not in name and "in_proj_b" not in name:
            matrices.append(p)
        else:
            rest.append(p)
    adam = torch.optim.AdamW([{"params": table, "base": 4e-3}, {"params": rest, "base": 3e-3}],
                             lr=0.0, betas=(0.9, 0.97), eps=1e-10, weight_decay=0.0,
                             fused=next(m.parameters()).is_cuda)
    return Muon(matrices), adam


# ---- losses ------------------------------------------------------------------------------------

def head_loss(h, table, target, valid, dtype):
    logits = F.linear(h.to(dtype), table.to(dtype))
    full = logits.float()
    lse = full.logsumexp(-1)
    nll = lse - full.gather(-1, target[..., None])[..., 0]
    return (nll * valid).sum() / valid.sum().clamp(min=1), logits.detach(), lse.detach()


def draft_loss(m, table, teacher, teacher_lse, tokens, valid, dtype, hard, j):
    """(1 - hard) * cross entropy with the model's own distribution + hard * with the text."""
    teacher, teacher_lse = torch.roll(teacher, -j, 1), torch.roll(teacher_lse, -j, 1)
    target = torch.roll(tokens, -j - 1, 1)
    full = F.linear(m.to(dtype), table.to(dtype)).float()
    lse = full.logsumexp(-1)
    p = torch.exp(teacher.float() - teacher_lse[..., None])
    soft = lse - (p * full).sum(-1)
    nll = lse - full.gather(-1, target[..., None])[..., 0]
    agree = full.argmax(-1) == teacher.argmax(-1)
    n = valid.sum().clamp(min=1)
    return ((1 - hard) * soft * valid + hard * nll * valid).sum() / n, ((agree & valid).sum() / n).detach()


def losses(m, tokens, chain, hard=0.2):
    h, rows = m(tokens)
    table = m.text.embed_tokens.weight
    main, logits, lse = m.compiled(head_loss)(h, table, torch.roll(tokens, -1, 1), rows.valid(1), m.dtype)
    drafts, agree = [], []
    for j, hj in enumerate(m.draft_chain(tokens, h, rows, chain), 1):
        loss, same = m.compiled(draft_loss)(hj, table, logits, lse, tokens, rows.valid(j + 1), m.dtype, hard, j)
        drafts.append(loss)
        agree.append(same)
    return main, drafts, agree


def use_gpu(m):
    """bfloat16 products, compiled pieces, and the chunked delta-rule kernel of flash-linear-attention."""
    m.cuda()
    m.dtype = torch.bfloat16
    cache = {}
    m.compiled = lambda f: cache.setdefault(f, torch.compile(f, dynamic=False))
    m.delta_rule = kernel.checked(lamb.delta_rule_chunked)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch._dynamo.config.cache_size_limit = 64


# ---- the run -----------------------------------------------------------------------------------

def run(args):
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    os.makedirs(args.out, exist_ok=True)
    tok = data.load_tokenizer(args.tokenizer)
    lamb.set_end(tok.token_to_id("<|endoftext|>"))
    stream = data.Stream(args.tokenizer, args.docs, args.workers, args.seed, args.shards, args.scratch,
                         0.15 if args.long else 0.0)
    m = lamb.Lamb(lamb.Config())
    if args.init:
        if args.init.endswith(".safetensors"):
            from safetensors.torch import load_file
            m.load_state_dict({k: v.float() for k, v in load_file(args.init).items()})
        else:
            m.load_state_dict(torch.load(args.init, map_location="cpu"))
    if args.cpu:
        device = "cpu"
    else:
        device = "cuda"
        use_gpu(m)
    muon, adam = optimisers(m)
    log = open(os.path.join(args.out, "log.jsonl"), "w")
    held_out = data.held_out(tok, args.docs, args.batch // data.ROW)
    start, seen, step = None, 0, 0
    while True:
        rows = args.batch // data.ROW
        long = step >= 3 and rng.random() < args.long
        batch = stream.batch(rows // 2, rng, "long") if long else stream.batch(rows, rng)
        tokens = torch.from_numpy(batch.astype(np.int64))
        tokens = tokens if args.cpu else tokens.pin_memory().to(device, non_blocking=True)
        progress = 0.0 if start is None else (time.time() - start) / (60 * args.minutes)
        if progress >= 1 or (args.steps and step >= args.steps):
            break
        warm = min(1.0, (step + 1) / 150)
        rate = args.lr * warm * (1 - (1 - args.end) * progress)
        main, drafts, agree = losses(m, tokens, args.chain)
        (main + args.draft_weight * sum(drafts)).backward()
        grad = torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)
        muon.step(0.02 * rate)
        for g in adam.param_groups:
            g["lr"] = g["base"] * rate
        adam.step()
        m.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + tokens.numel()
        if start is None and step == 3:                   # compiled: the clock starts here
            if device == "cuda":
                torch.cuda.synchronize()
            start = time.time()
            if args.deadline:
                args.minutes = (args.deadline - (start - BEGIN)) / 60
            print(f"compiled after {start - BEGIN:.0f} s, training for {args.minutes:.2f} minutes", flush=True)
        if step % args.report == 0:
            row = {"step": step, "tokens": seen, "rate": round(rate, 4), "loss": round(main.item(), 4),
                   "draft": [round(d.item(), 4) for d in drafts], "agree": [round(a.item(), 4) for a in agree],
                   "grad": round(float(grad), 3), "seconds": round(time.time() - (start or time.time()), 1),
                   "distinct": stream.size()}
            print(json.dumps(row), flush=True)
            log.write(json.dumps(row) + "\n")
            log.flush()
    for kind, rows in held_out.items():
        row = {"kind": kind, **measure(m, rows, args.chain, device)}
        print(json.dumps(row), flush=True)
        log.write(json.dumps(row) + "\n")
    torch.save({k: v.float().cpu() for k, v in m.state_dict().items()}, os.path.join(args.out, "checkpoint.pt"))
    json.dump({"steps": step, "tokens": seen, "minutes": args.minutes, "seed": args.seed, "args": vars(args),
               "parameters": sum(p.numel() for p in m.parameters())},
              open(os.path.join(args.out, "run.json"), "w"), indent=1)
    stream.close()


def measure(m, rows, chain, device):
    """Held-out loss, perplexity, and how often each drafted token is the model's own first choice
    (on the given text; evaluate.py measures it on what the model itself writes)."""
    tokens = torch.from_numpy(rows.astype(np.int64)).to(device)
    main, _, agree = losses(m, tokens, chain)
    return {"loss": round(main.item(), 4), "perplexity": round(math.exp(main.item()), 3), "agree": [round(a.item(), 4) for a in agree]}


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--minutes", type=float, default=9)
    p.add_argument("--deadline", type=float, default=0, help="seconds after the start at which training must end; replaces --minutes")
    p.add_argument("--steps", type=int, default=0, help="stop after so many steps even if time is left")
    p.add_argument("--batch", type=int, default=65536, help="tokens per step")
    p.add_argument("--chain", type=int, default=3, help="MTP steps unrolled")
    p.add_argument("--draft-weight", type=float, default=0.25, help="weight of each of them")
    p.add_argument("--lr", type=float, default=1.0, help="scale of all learning rates")
    p.add_argument("--end", type=float, default=0.0, help="learning rate at the end, relative to the start")
    p.add_argument("--long", type=float, default=0.0, help="share of steps with rows of twice the length")
    p.add_argument("--init", help="checkpoint.pt or model.safetensors to go on from")
    p.add_argument("--tokenizer", default=data.MODEL)
    p.add_argument("--docs", default="")
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--shards", type=int, default=10 ** 6, help="shards per worker")
    p.add_argument("--scratch", default="scratch")
    p.add_argument("--out", default="run")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--report", type=int, default=50)
    p.add_argument("--cpu", action="store_true")
    run(p.parse_args())
