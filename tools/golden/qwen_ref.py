#!/usr/bin/env python3
"""NumPy reference of the Qwen3.5/3.6 text model and its MTP head.

Written from the formulas of docs/model.md (section numbers below are its sections). Plain and slow:
every formula stands where that page has it, nothing is fused. Everything is computed in float32
(default) or float64; weights may be F32, F16 or BF16 on disk.

    qwen_ref.py logits   FOLDER --ids 1,2,3 --out x.npy [--chunk N] [--dtype float64]
    qwen_ref.py layers   FOLDER --ids 1,2,3 --out x.npz     residual stream after every layer, final hidden, logits
    qwen_ref.py generate FOLDER --ids 1,2,3 --n 32 [--draft 3] [--trace trace.json]
    qwen_ref.py mtp      FOLDER --ids 1,2,3 --chain 4 --out m.npy
    qwen_ref.py make     OUTDIR --config NAME|FILE.json --seed S [--dtype bf16|f16|f32]
    qwen_ref.py selftest

`--ids` takes a comma list or the name of a JSON file holding a list.
"""
import argparse, glob, json, math, os, struct
import numpy as np
import safetensors


# ---------------------------------------------------------------- checkpoint files

def bf16_to_f32(raw):
    return (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)


def f32_to_bf16(x):                                     # round to nearest even
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)


READ = {"BF16": bf16_to_f32, "F16": lambda b: np.frombuffer(b, np.float16),
        "F32": lambda b: np.frombuffer(b, np.float32), "F64": lambda b: np.frombuffer(b, np.float64)}

PREFIXES = ["model.language_model.", "language_model.model.", "language_model.", "model."]


def canonical(name):
    """Official and re-saved names (2.8) -> 'embed_tokens.weight', 'layers.3...', 'mtp...', 'lm_head.weight'."""
    if ".visual." in "." + name or "vision_tower." in name:
        return None
    for p in PREFIXES:
        if name.startswith(p):
            name = name[len(p):]
            break
    return name


def load_tensors(folder, dtype):
    index = os.path.join(folder, "model.safetensors.index.json")
    if os.path.exists(index):
        files = sorted(set(json.load(open(index))["weight_map"].values()))
    else:
        files = sorted(os.path.basename(f) for f in glob.glob(os.path.join(folder, "*.safetensors")))
    out = {}
    for f in files:
        with open(os.path.join(folder, f), "rb") as fh:
            for name, t in safetensors.deserialize(fh.read()):
                key = canonical(name)
                if key is not None:
                    out[key] = READ[t["dtype"]](t["data"]).astype(dtype).reshape(t["shape"])
    return out


class Config:
    """Text fields of config.json (1.1): wrapped in text_config, or flat."""

    def __init__(self, raw):
        t = raw.get("text_config") or raw
        rope = dict(t.get("rope_scaling") or {}, **(t.get("rope_parameters") or {}))
        g = t.get
        self.hidden, self.layers, self.vocab = t["hidden_size"], t["num_hidden_layers"], t["vocab_size"]
        self.nh, self.nkv, self.d = t["num_attention_heads"], t["num_key_value_heads"], g("head_dim", 256)
        self.hk, self.hv = g("linear_num_key_heads", 16), g("linear_num_value_heads", 32)
        self.dk, self.dv = g("linear_key_head_dim", 128), g("linear_value_head_dim", 128)
        self.conv = g("linear_conv_kernel_dim", 4)
        self.eps = g("rms_norm_eps", 1e-6)
        interval = g("full_attention_interval", 4)
        self.kinds = g("layer_types") or ["full_attention" if (i + 1) % interval == 0 else "linear_attention"
                                          for i in range(self.layers)]
        self.n_experts, self.top_k = g("num_experts", 0), g("num_experts_per_tok", 0)
        self.moe = bool(self.n_experts)
        self.tied = bool(g("tie_word_embeddings") or raw.get("tie_word_embeddings"))   # used when no lm_head is stored
        self.mtp = g("mtp_num_hidden_layers", 0)
        self.gate = g("output_gate_type", "swish")
        self.rope_type = rope.get("rope_type", "default")
        self.theta = rope.get("rope_theta", g("rope_theta", 10000.0))
        self.rot = int(self.d * rope.get("partial_rotary_factor", g("partial_rotary_factor", 0.25)))
        self.sections = rope.get("mrope_section", g("mrope_section", [11, 11, 10]))
        self.rope = rope
        assert g("hidden_act", "silu") == "silu" and not g("attention_bias", False)
        assert self.gate in ("swish", "silu"), "unknown output_gate_type"
        assert self.rope_type in ("default", "yarn"), "unknown rope_type"


# ---------------------------------------------------------------- small functions (3.1, 3.3, 3.5)

def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def silu(x):
    return x * sigmoid(x)


def softplus(x):
    return np.where(x > 20, x, np.log1p(np.exp(np.minimum(x, 20))))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def rms(x, eps):
    return x * (np.mean(x * x, -1, keepdims=True) + eps) ** -0.5


def rms1p(x, w, eps):
    return rms(x, eps) * (1 + w)


def l2norm(x, eps=1e-6):
    return x / np.sqrt(np.sum(x * x, -1, keepdims=True) + eps)


def rope_table(cfg):
    """inv_freq [rot/2], axis of every frequency (0 T, 1 H, 2 W), magnitude. 3.3 and, for YaRN, 1.3."""
    j = np.arange(cfg.rot // 2)
    inv, mag = cfg.theta ** (-2.0 * j / cfg.rot), 1.0
    if cfg.rope_type == "yarn":
        f, o = cfg.rope["factor"], cfg.rope["original_max_position_embeddings"]
        dim = lambda r: cfg.rot * math.log(o / (2 * math.pi * r)) / (2 * math.log(cfg.theta))
        low = max(math.floor(dim(cfg.rope.get("beta_fast", 32))), 0)
        high = min(math.ceil(dim(cfg.rope.get("beta_slow", 1))), cfg.rot - 1)
        ramp = np.clip((j - low) / max(high - low, 0.001), 0, 1)
        inv = inv * (ramp / f + 1 - ramp)
        mag = 0.1 * math.log(f) + 1
    _, sh, sw = cfg.sections
    axis = np.where((j % 3 == 1) & (j < 3 * sh), 1, np.where((j % 3 == 2) & (j < 3 * sw), 2, 0))
    return inv, axis, mag


def rope(x, cos, sin):
    """x [rows, heads, d]; rotates the first 2*cos.shape[-1] dims, pairs (j, j + half)."""
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half:2 * half], x[..., 2 * half:]
    c, s = cos[:, None, :], sin[:, None, :]
    return np.concatenate([a * c - b * s, b * c + a * s, rest], -1)


def delta_rows(S, q, k, v, beta, g):
    """Recurrence (3.5). S [h,dk,dv]; q,k [T,h,dk] already normalised (q scaled); v [T,h,dv]; beta,g [T,h]."""
    out = np.empty(v.shape, v.dtype)
    for t in range(len(v)):
        S = np.exp(g[t])[:, None, None] * S
        m = np.einsum("hkv,hk->hv", S, k[t])
        delta = beta[t][:, None] * (v[t] - m)
        S = S + k[t][:, :, None] * delta[:, None, :]
        out[t] = np.einsum("hkv,hk->hv", S, q[t])
    return S, out


def delta_chunk(S, q, k, v, beta, g):
    """The same for one head and one chunk in the chunked form (3.6); shapes as above without h."""
    gam = np.cumsum(g)
    low = np.tril(np.ones((len(g), len(g)), bool))
    D = np.where(low, np.exp(np.where(low, gam[:, None] - gam[None, :], 0)), 0)
    A = np.tril(beta[:, None] * (k @ k.T) * D, -1)
    U, W = beta[:, None] * v, (beta * np.exp(gam))[:, None] * k
    for i in range(len(g)):                             # forward substitution with I + A
        U[i] -= A[i, :i] @ U[:i]
        W[i] -= A[i, :i] @ W[:i]
    Vn = U - W @ S
    O = np.exp(gam)[:, None] * (q @ S) + ((q @ k.T) * D) @ Vn
    return np.exp(gam[-1]) * S + (np.exp(gam[-1] - gam)[:, None] * k).T @ Vn, O, (A, U, W)


# ---------------------------------------------------------------- the model

class State:
    """KV per full-attention layer, conv window and recurrent state per linear layer, MTP KV."""

    def __init__(self, cfg, dtype):
        self.pos = 0                                    # rows the main model has seen
        self.layer = []
        for kind in cfg.kinds:
            if kind == "full_attention":
                z = np.zeros((0, cfg.nkv, cfg.d), dtype)
                self.layer.append([z, z])
            else:
                ch = 2 * cfg.hk * cfg.dk + cfg.hv * cfg.dv
                self.layer.append([np.zeros((cfg.conv - 1, ch), dtype),
                                   np.zeros((cfg.hv, cfg.dk, cfg.dv), dtype)])
        z = np.zeros((0, cfg.nkv, cfg.d), dtype)
        self.mtp = [z, z]                               # row p belongs to (hidden p, token p+1): 4.3 B

    def copy(self):                                     # arrays are replaced, never written into
        other = object.__new__(State)
        other.pos, other.layer, other.mtp = self.pos, [list(x) for x in self.layer], list(self.mtp)
        return other


class Model:
    def __init__(self, folder, dtype=np.float32):
        self.cfg = c = Config(json.load(open(os.path.join(folder, "config.json"))))
        self.t, self.dtype = load_tensors(folder, dtype), dtype
        self.embed = self.t["embed_tokens.weight"]
        self.head = self.t.get("lm_head.weight", self.embed if c.tied else None)
        assert self.head is not None, "no lm_head.weight and embeddings are not tied"
        self.inv, self.axis, self.mag = rope_table(c)
        self.router_gap = np.inf                        # smallest p(k) - p(k+1) met: how near a routing flip was

    def new_state(self):
        return State(self.cfg, self.dtype)

    def angles(self, pos):
        pos = np.asarray(pos)
        pos = np.stack([pos] * 3, -1) if pos.ndim == 1 else pos        # text: T = H = W
        a = pos[:, self.axis] * self.inv
        return (np.cos(a) * self.mag).astype(self.dtype), (np.sin(a) * self.mag).astype(self.dtype)

    # 3.4
    def attention(self, p, x, cache, pos):
        c, t, T = self.cfg, self.t, len(x)
        qg = (x @ t[p + "q_proj.weight"].T).reshape(T, c.nh, 2, c.d)
        q, gate = qg[:, :, 0], qg[:, :, 1]
        k = (x @ t[p + "k_proj.weight"].T).reshape(T, c.nkv, c.d)
        v = (x @ t[p + "v_proj.weight"].T).reshape(T, c.nkv, c.d)
        cos, sin = self.angles(pos)
        q = rope(rms1p(q, t[p + "q_norm.weight"], c.eps), cos, sin)
        k = rope(rms1p(k, t[p + "k_norm.weight"], c.eps), cos, sin)
        past = len(cache[0])
        K, V = np.concatenate([cache[0], k]), np.concatenate([cache[1], v])
        cache[0], cache[1] = K, V
        out = np.empty((T, c.nh, c.d), x.dtype)
        hidden = np.arange(past + T)[None, :] > past + np.arange(T)[:, None]
        for h in range(c.nh):
            j = h // (c.nh // c.nkv)
            s = (q[:, h] @ K[:, j].T) * x.dtype.type(c.d ** -0.5)
            s[hidden] = -np.inf
            out[:, h] = softmax(s) @ V[:, j]
        return (out * sigmoid(gate)).reshape(T, -1) @ t[p + "o_proj.weight"].T

    # 3.5
    def deltanet(self, p, x, cache):
        c, t, T = self.cfg, self.t, len(x)
        u = x @ t[p + "in_proj_qkv.weight"].T
        z = (x @ t[p + "in_proj_z.weight"].T).reshape(T, c.hv, c.dv)
        b, a = x @ t[p + "in_proj_b.weight"].T, x @ t[p + "in_proj_a.weight"].T
        w = t[p + "conv1d.weight"].reshape(-1, c.conv)
        window = np.concatenate([cache[0], u])
        cv = silu(sum(window[i:i + T] * w[:, i] for i in range(c.conv)))
        cache[0] = window[len(window) - (c.conv - 1):]
        kd = c.hk * c.dk
        r = c.hv // c.hk
        q = l2norm(cv[:, :kd].reshape(T, c.hk, c.dk)) * x.dtype.type(c.dk ** -0.5)
        k = l2norm(cv[:, kd:2 * kd].reshape(T, c.hk, c.dk))
        v = cv[:, 2 * kd:].reshape(T, c.hv, c.dv)
        beta = sigmoid(b)
        g = -np.exp(t[p + "A_log"]) * softplus(a + t[p + "dt_bias"])
        of = np.arange(c.hv) // r                       # value head h uses key head h div r
        cache[1], o = delta_rows(cache[1], q[:, of], k[:, of], v, beta, g)
        n = rms(o, c.eps) * t[p + "norm.weight"]        # plain w
        return (n * silu(z)).reshape(T, -1) @ t[p + "out_proj.weight"].T

    # 3.7
    def mlp(self, p, x):
        t = self.t
        ffn = lambda x, gate, up, down: (silu(x @ gate.T) * (x @ up.T)) @ down.T
        three = lambda q: [t[q + n + "_proj.weight"] for n in ("gate", "up", "down")]
        if p + "gate.weight" not in t:
            return ffn(x, *three(p))
        probs, k = softmax(x @ t[p + "gate.weight"].T), self.cfg.top_k
        order = np.argsort(-probs, axis=1, kind="stable")               # ties: lower index first
        ranked = np.take_along_axis(probs, order, 1)
        if ranked.shape[1] > k:
            self.router_gap = min(self.router_gap, float((ranked[:, k - 1] - ranked[:, k]).min()))
        weight = ranked[:, :k] / ranked[:, :k].sum(1, keepdims=True)
        y = np.zeros_like(x)
        for e in range(self.cfg.n_experts):
            row, slot = np.nonzero(order[:, :k] == e)
            if len(row) == 0:
                continue
            if p + "experts.gate_up_proj" in t:         # fused: gate rows first
                gate, up = np.split(t[p + "experts.gate_up_proj"][e], 2)
                mats = gate, up, t[p + "experts.down_proj"][e]
            else:
                mats = three(p + f"experts.{e}.")
            y[row] += weight[row, slot, None] * ffn(x[row], *mats)
        shared = ffn(x, *three(p + "shared_expert."))
        return y + sigmoid(x @ t[p + "shared_expert_gate.weight"].T) * shared

    def block(self, p, kind, x, cache, pos):
        t, eps = self.t, self.cfg.eps
        n = rms1p(x, t[p + "input_layernorm.weight"], eps)
        x = x + (self.attention(p + "self_attn.", n, cache, pos) if kind == "full_attention"
                 else self.deltanet(p + "linear_attn.", n, cache))
        return x + self.mlp(p + "mlp.", rms1p(x, t[p + "post_attention_layernorm.weight"], eps))

    def rows(self, ids, st, pos=None, keep=None):
        """Run rows through the main model, advance st; returns post-final-norm hidden [T, H] (3, 4.2).
        keep: a dict that gets the residual stream after every layer."""
        x = self.embed[np.asarray(ids)]
        pos = st.pos + np.arange(len(ids)) if pos is None else pos
        for i, kind in enumerate(self.cfg.kinds):
            x = self.block(f"layers.{i}.", kind, x, st.layer[i], pos)
            if keep is not None:
                keep[f"layer.{i}"] = x
        st.pos += len(ids)
        return rms1p(x, self.t["norm.weight"], self.cfg.eps)

    def logits(self, h):
        return h @ self.head.T

    # ------------------------------------------------------------ MTP (4)

    def mtp_rows(self, tokens, hiddens, st, first):
        """MTP rows at positions first, first+1, ...: row p takes token p+1 and hidden p. Rows of the head's
        cache from `first` on are replaced. Returns the head's output after mtp.norm [T, H]."""
        c, t = self.cfg, self.t
        assert len(st.mtp[0]) >= first, "the head's cache has a hole"
        st.mtp = [a[:first] for a in st.mtp]
        e = rms1p(self.embed[np.asarray(tokens)], t["mtp.pre_fc_norm_embedding.weight"], c.eps)
        n = rms1p(np.asarray(hiddens), t["mtp.pre_fc_norm_hidden.weight"], c.eps)
        x = np.concatenate([e, n], -1) @ t["mtp.fc.weight"].T          # embedding FIRST
        x = self.block("mtp.layers.0.", "full_attention", x, st.mtp, first + np.arange(len(tokens)))
        return rms1p(x, t["mtp.norm.weight"], c.eps)

    def mtp_chain(self, m, st, first, n):
        """m: head output of row `first` - 1 (whose logits are draft 1). Drafts 2..n recycle the head's own
        post-norm output. Returns tokens [n] and logits [n, V]."""
        drafts, logits = [], []
        for j in range(n):
            logits.append(self.logits(m))
            drafts.append(int(logits[-1].argmax()))
            if j + 1 < n:
                m = self.mtp_rows([drafts[-1]], [m], st, first + j)[0]
        return drafts, np.array(logits)


def prefill(model, ids, st, chunk=0):
    """Prompt through the model and, one row behind, through the head ("warm-up", 4.4). Returns hidden rows."""
    hs = []
    for a in range(0, len(ids), chunk or len(ids)):
        part = ids[a:a + (chunk or len(ids))]
        h = model.rows(part, st)
        if "mtp.fc.weight" in model.t:                  # rows a-1 .. a+len-2: hidden p with token p+1
            carried = hs[-1][-1:] if hs else h[:0]
            hidden = np.concatenate([carried, h[:-1]])
            if len(hidden):
                model.mtp_rows(part[len(part) - len(hidden):], hidden, st, max(a - 1, 0))
        hs.append(h)
    return np.concatenate(hs)


def top_gaps(logits):
    """Distance of the two best logits of every row: a choice with a small one hangs on rounding."""
    a = np.sort(np.atleast_2d(logits), -1)
    return a[:, -1] - a[:, -2]


def top_gap(logits):
    return float(top_gaps(logits).min())


def generate(model, ids, n, draft=0, chunk=0):
    """Greedy. Returns tokens, with drafts a list of rounds {drafts, accepted, tokens} (4.5) with the gap of every
    draft and token, and the smallest gaps of tokens and drafts."""
    st, rounds = model.new_state(), []
    h = prefill(model, ids, st, chunk)[-1:]
    P = len(ids) - 1                                    # last committed position
    out = [int(model.logits(h[-1]).argmax())]           # bonus token x_{P+1}
    gap, draft_gap = top_gap(model.logits(h[-1])), np.inf
    new = out[:]                                        # tokens whose MTP rows are due: row P takes x_{P+1}, h_P
    while len(out) < n:
        d, dl = [], np.zeros((0, 2))
        if draft:
            m = model.mtp_rows(new, h, st, P + 1 - len(new))    # repair + draft 1 in one batch (step 6)
            d, dl = model.mtp_chain(m[-1], st, P + 1, draft)    # steps 1, 2
            draft_gap = min(draft_gap, top_gap(dl))
        before = st.copy()
        hv = model.rows([out[-1]] + d, st)                      # step 3: verify
        lv = model.logits(hv)
        true = [int(x) for x in lv.argmax(-1)]
        a = 0
        while a < len(d) and true[a] == d[a]:                   # step 4
            a += 1
        if a < len(d):                                          # step 5: state must advance by a + 1 rows only
            mtp = st.mtp
            st = before
            model.rows([out[-1]] + d[:a], st)
            st.mtp = mtp
        new, h = true[:a + 1], hv[:a + 1]
        gap = min(gap, top_gap(lv[:a + 1]))
        P += a + 1
        out += new
        four = lambda logits: [round(float(g), 4) for g in top_gaps(logits)] if len(logits) else []
        rounds.append({"drafts": d, "accepted": a, "tokens": new, "draft_gaps": four(dl), "gaps": four(lv[:a + 1])})
    return out[:n], rounds, gap, draft_gap


# ---------------------------------------------------------------- random tiny checkpoints

def tiny(**kw):
    base = dict(hidden_size=48, num_hidden_layers=4, vocab_size=320, num_attention_heads=2, num_key_value_heads=1,
                head_dim=64, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=32,
                linear_value_head_dim=32, intermediate_size=96, tie_word_embeddings=False, theta=1e7)
    return dict(base, **kw)


CONFIGS = {  # the plain names; make_golden.py has its own table, and --config takes a JSON file too
    "dense": tiny(),
    "dense-tied": tiny(tie_word_embeddings=True, hidden_size=40, linear_num_value_heads=2, num_hidden_layers=8),
    "moe": tiny(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=24, shared_expert_intermediate_size=40),
}


def hf_config(k):
    """config.json as the official files have it, with the tiny sizes of k."""
    k = dict(k)
    moe, half = "num_experts" in k, int(k["head_dim"] * 0.25) // 2
    sec = [half - 2 * (half // 3), half // 3, half // 3]
    if half == 32:
        sec = [11, 11, 10]
    text = dict(attention_bias=False, attention_dropout=0.0, attn_output_gate=True, bos_token_id=k["vocab_size"] - 1, eos_token_id=k["vocab_size"] - 1,
                dtype="bfloat16", full_attention_interval=4, hidden_act="silu", initializer_range=0.02,
                linear_conv_kernel_dim=4, mamba_ssm_dtype="float32", max_position_embeddings=4096,
                model_type="qwen3_5_moe_text" if moe else "qwen3_5_text", mtp_num_hidden_layers=1,
                mtp_use_dedicated_embeddings=False, output_gate_type="swish", pad_token_id=None,
                partial_rotary_factor=0.25, rms_norm_eps=1e-6, use_cache=True,
                rope_parameters=dict(mrope_interleaved=True, mrope_section=sec, partial_rotary_factor=0.25,
                                     rope_theta=k.pop("theta"), rope_type="default"))
    text["rope_parameters"].update(k.pop("rope", {}))
    if moe:
        k.pop("intermediate_size", None)
        text.update(output_router_logits=False, router_aux_loss_coef=0.001)
    text.update(k)
    text["layer_types"] = ["full_attention" if (i + 1) % text["full_attention_interval"] == 0 else "linear_attention"
                           for i in range(text["num_hidden_layers"])]
    return dict(architectures=["Qwen3_5MoeForConditionalGeneration" if moe else "Qwen3_5ForConditionalGeneration"],
                model_type="qwen3_5_moe" if moe else "qwen3_5", language_model_only=False,
                tie_word_embeddings=text["tie_word_embeddings"], text_config=dict(sorted(text.items())))


def random_tensors(raw, seed, copy=0.97):
    """Random weights under the official names. `copy` > 0 ties the head to a permutation of the embedding and
    lets mtp.fc pass the embedding through, so that drafts are sometimes right."""
    c, tc = Config(raw), raw["text_config"]
    rng = np.random.Generator(np.random.PCG64(seed))
    H, V, out = c.hidden, c.vocab, {}
    N = lambda *shape: rng.standard_normal(shape)
    lin = lambda o, i, gain=1.0: N(o, i) * gain / math.sqrt(i)
    norm = lambda n, mean=0.1: mean + 0.25 * N(n)       # stored as w of (1 + w): non-zero, non-one

    def mlp(p, gain):
        if not c.moe:
            I = tc["intermediate_size"]
            return {p + "gate_proj.weight": lin(I, H, 1.5), p + "up_proj.weight": lin(I, H), p + "down_proj.weight": lin(H, I, gain)}
        E, I, Is = c.n_experts, tc["moe_intermediate_size"], tc["shared_expert_intermediate_size"]
        return {p + "gate.weight": lin(E, H, 1.5), p + "experts.gate_up_proj": N(E, 2 * I, H) * 1.2 / math.sqrt(H),
                p + "experts.down_proj": N(E, H, I) * 1.5 * gain / math.sqrt(I),
                p + "shared_expert.gate_proj.weight": lin(Is, H, 1.5), p + "shared_expert.up_proj.weight": lin(Is, H),
                p + "shared_expert.down_proj.weight": lin(H, Is, gain), p + "shared_expert_gate.weight": lin(1, H, 1.0)}

    def attention(p):
        return {p + "q_proj.weight": lin(2 * c.nh * c.d, H), p + "k_proj.weight": lin(c.nkv * c.d, H),
                p + "v_proj.weight": lin(c.nkv * c.d, H), p + "o_proj.weight": lin(H, c.nh * c.d, 2.0),
                p + "q_norm.weight": norm(c.d, 0.5), p + "k_norm.weight": norm(c.d, 0.3)}

    def deltanet(p):
        kd, vd = c.hk * c.dk, c.hv * c.dv
        dt = np.exp(rng.uniform(math.log(0.002), math.log(0.3), c.hv))      # step sizes, log-uniform
        return {p + "in_proj_qkv.weight": lin(2 * kd + vd, H, 1.2), p + "in_proj_z.weight": lin(vd, H, 1.2),
                p + "in_proj_b.weight": lin(c.hv, H), p + "in_proj_a.weight": lin(c.hv, H),
                p + "conv1d.weight": N(2 * kd + vd, 1, c.conv) * 0.5, p + "A_log": np.log(rng.uniform(0.3, 16, c.hv)),
                p + "dt_bias": dt + np.log(-np.expm1(-dt)),                 # softplus(dt_bias) = dt
                p + "norm.weight": 1 + 0.2 * N(c.dv), p + "out_proj.weight": lin(H, vd, 1.0)}

    L = "model.language_model."
    emb = N(V, H)
    out[L + "embed_tokens.weight"] = emb * (2.0 / math.sqrt(H) if c.tied else 1.0)
    for i, kind in enumerate(c.kinds):
        p = f"{L}layers.{i}."
        out[p + "input_layernorm.weight"], out[p + "post_attention_layernorm.weight"] = norm(H), norm(H)
        out.update(attention(p + "self_attn.") if kind == "full_attention" else deltanet(p + "linear_attn."))
        out.update(mlp(p + "mlp.", 0.8))
    out[L + "norm.weight"] = norm(H)
    if not c.tied:
        head = N(V, H)
        head[rng.permutation(V)] = copy * emb + math.sqrt(1 - copy * copy) * head
        out["lm_head.weight"] = head * 1.6 / math.sqrt(H)
    if c.mtp:
        fc = N(H, 2 * H) * 0.35 / math.sqrt(H)
        fc[:, :H] += copy * np.eye(H) * 2.5
        out.update({"mtp.fc.weight": fc, "mtp.norm.weight": norm(H), "mtp.pre_fc_norm_embedding.weight": norm(H, -0.7),
                    "mtp.pre_fc_norm_hidden.weight": norm(H, -0.5), "mtp.layers.0.input_layernorm.weight": norm(H),
                    "mtp.layers.0.post_attention_layernorm.weight": norm(H)})
        out.update(attention("mtp.layers.0.self_attn."))
        out.update(mlp("mtp.layers.0.mlp.", 0.6))
    return out


def write_checkpoint(folder, raw, tensors, dtype="bf16", f32_names=("A_log", "linear_attn.norm.weight"), shards=1):
    """dtype bf16|f16|f32, or a function of a tensor's name that gives one; tensors whose name ends in one of f32_names
    stay F32 when dtype is f16."""
    os.makedirs(folder, exist_ok=True)
    raw = json.loads(json.dumps(raw))
    if callable(dtype):
        dtype_of, dtype = dtype, "bf16"
    else:
        dtype_of = lambda name: "f32" if dtype == "f16" and name.endswith(tuple(f32_names)) else dtype
    raw.get("text_config", raw)["dtype"] = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}[dtype]
    spec, total = {}, 0
    for name, x in tensors.items():
        kind = dtype_of(name)
        data = {"bf16": f32_to_bf16, "f16": lambda x: x.astype(np.float16), "f32": lambda x: x.astype(np.float32)}[kind](x)
        spec[name] = kind.upper(), list(x.shape), np.ascontiguousarray(data).tobytes()
        total += data.nbytes
    names = sorted(spec)
    file = lambda i: f"model-{i + 1:05d}-of-{shards:05d}.safetensors" if shards > 1 else "model.safetensors"
    for i in range(shards):
        header, at = {"__metadata__": {"format": "pt"}}, 0
        for n in names[i::shards]:
            code, shape, data = spec[n]
            header[n] = {"dtype": code, "shape": shape, "data_offsets": [at, at + len(data)]}
            at += len(data)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(os.path.join(folder, file(i)), "wb") as fh:
            fh.write(struct.pack("<Q", len(text)) + text + b"".join(spec[n][2] for n in names[i::shards]))
    if shards > 1:
        index = {"metadata": {"total_size": float(total)}, "weight_map": {n: file(j % shards) for j, n in enumerate(names)}}
        json.dump(index, open(os.path.join(folder, "model.safetensors.index.json"), "w"), indent=1)
    json.dump(raw, open(os.path.join(folder, "config.json"), "w"), indent=1)
    V = raw.get("text_config", raw)["vocab_size"]       # the last two ids play eos
    json.dump({"do_sample": True, "temperature": 1.0, "top_k": 20, "top_p": 0.95, "bos_token_id": V - 1,
               "eos_token_id": [V - 2, V - 1], "pad_token_id": V - 1}, open(os.path.join(folder, "generation_config.json"), "w"), indent=1)
    return total


# ---------------------------------------------------------------- self-test: sections 6 and 3.6

def selftest():
    f = np.float64
    raw = lambda *r: np.array(r, f)
    q, k, v = raw((1, 2), (.5, -1), (-2, 1)), raw((2, 1), (1, 1), (-1, 3)), raw((1, -1), (2, .5), (-1, 3))
    b, a = raw(0, 1, -.5), raw(.3, -1, 2)
    beta, g = sigmoid(b), -np.exp(math.log(.5)) * softplus(a + .1)
    q, k = l2norm(q) * 2 ** -0.5, l2norm(k)
    np.set_printoptions(precision=10, suppress=True)
    print("beta", beta, "\ng   ", g, "\nq^", q.tolist(), "\nk^", k.tolist())
    for S0 in (raw((.5, -.25), (1, .75)), np.zeros((2, 2))):
        S, o = delta_rows(S0[None], q[:, None], k[:, None], v[:, None], beta[:, None], g[:, None])
        S2, o2, (A, U, W) = delta_chunk(S0, q, k, v, beta, g)
        print("o", o[:, 0].tolist(), "\nS3", S[0].tolist(), "\nA21 A31 A32", A[1, 0], A[2, 0], A[2, 1])
        print("U", U.tolist(), "\nW", W.tolist(), "\nchunk - recurrence:", abs(S - S2).max(), abs(o[:, 0] - o2).max())
    rng = np.random.default_rng(1)
    for C, T in ((64, 200), (16, 40)):                  # several chunks, short last one, decays of realistic size
        dk, dv = 128, 128
        q, k, v = l2norm(rng.normal(size=(T, dk))) * dk ** -0.5, l2norm(rng.normal(size=(T, dk))), rng.normal(size=(T, dv))
        beta, g = sigmoid(rng.normal(size=T)), -np.exp(rng.uniform(-6, 1, T))
        S = S0 = rng.normal(size=(dk, dv))
        St, o = delta_rows(S0[None], q[:, None], k[:, None], v[:, None], beta[:, None], g[:, None])
        parts = []
        for i in range(0, T, C):
            S, oc, _ = delta_chunk(S, q[i:i + C], k[i:i + C], v[i:i + C], beta[i:i + C], g[i:i + C])
            parts.append(oc)
        err = max(abs(S - St[0]).max(), abs(np.concatenate(parts) - o[:, 0]).max())
        print(f"chunked form, C={C}, T={T}: max abs difference {err:.2e}")
        assert err < 1e-12


# ---------------------------------------------------------------- command line

def parse_ids(s):
    return json.load(open(s)) if os.path.exists(s) else [int(x) for x in s.split(",")]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("command", choices=["logits", "layers", "generate", "mtp", "make", "selftest"])
    ap.add_argument("folder", nargs="?")
    ap.add_argument("--ids"), ap.add_argument("--out"), ap.add_argument("--trace"), ap.add_argument("--config", default="dense")
    ap.add_argument("--n", type=int, default=32), ap.add_argument("--draft", type=int, default=0)
    ap.add_argument("--chain", type=int, default=4), ap.add_argument("--chunk", type=int, default=0)
    ap.add_argument("--seed", type=int, default=1), ap.add_argument("--dtype", default=None)
    o = ap.parse_args()
    if o.command == "selftest":
        return selftest()
    if o.command == "make":
        k = tiny(**json.load(open(o.config))) if o.config.endswith(".json") else CONFIGS[o.config]
        raw = hf_config(k)
        return print(write_checkpoint(o.folder, raw, random_tensors(raw, o.seed), o.dtype or "bf16"), "bytes of tensors")
    model, ids = Model(o.folder, np.dtype(o.dtype or "float32").type), parse_ids(o.ids)
    if o.command == "logits":
        np.save(o.out, model.logits(prefill(model, ids, model.new_state(), o.chunk)).astype(np.float32))
    elif o.command == "layers":
        keep = {}
        keep["hidden"] = h = model.rows(ids, model.new_state(), keep=keep)
        np.savez(o.out, logits=model.logits(h), **keep)
    elif o.command == "mtp":
        st = model.new_state()
        h = prefill(model, ids, st, o.chunk)[-1:]
        bonus = int(model.logits(h[0]).argmax())
        m = model.mtp_rows([bonus], h, st, len(ids) - 1)
        drafts, logits = model.mtp_chain(m[-1], st, len(ids), o.chain)
        np.save(o.out, logits.astype(np.float32))
        print("bonus", bonus, "drafts", drafts)
    else:
        out, rounds, gap, draft_gap = generate(model, ids, o.n, o.draft, o.chunk)
        print("tokens", ",".join(map(str, out)))
        if o.draft:
            for r in rounds:
                print("drafts", r["drafts"], "accepted", r["accepted"], "tokens", r["tokens"])
            at = [sum(r["accepted"] > j for r in rounds) / len(rounds) for j in range(o.draft)]
            print("rounds", len(rounds), "acceptance by position", [round(x, 3) for x in at],
                  "tokens per round", round(1 + sum(r["accepted"] for r in rounds) / len(rounds), 3))
        print(f"smallest top-1 minus top-2: target {gap:.4g}, drafts {draft_gap:.4g}")
        if o.trace:
            json.dump({"tokens": out, "rounds": rounds}, open(o.trace, "w"))


if __name__ == "__main__":
    main()
