#!/usr/bin/env python3
"""serve_bench.py - what a server does under load, and what its prefix cache saves.

    bench/serve_bench.py                     the 0.8b shape with random weights, Q4_0, made in $TMPDIR
    bench/serve_bench.py MODEL --only chat,agent --json result.json
    bench/serve_bench.py MODEL --url 127.0.0.1:8080      a server that runs already

Sections: gap (tokens of 4 live streams while a long prompt arrives), streams (1 and 16 at a time),
chat (turn 2 after a long turn 1), agent (20 tool turns, replayed with what was returned). What each
number means: bench/README.md. Only the standard library.
"""
import argparse
import datetime
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time

from serve_client import Server, Stream, run_streams

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SECTIONS = ["gap", "streams", "chat", "agent"]


def percentile(values, p):
    """Linear between the sorted values, as numpy's default."""
    values = sorted(values)
    if not values:
        return float("nan")
    at = (len(values) - 1) * p / 100
    low = int(at)
    return values[low] + (values[min(low + 1, len(values) - 1)] - values[low]) * (at - low)


def gaps_ms(stream, begin, end):
    """Gaps between neighbouring tokens that both arrived in the window."""
    times = [t for t in stream.arrivals if begin <= t <= end]
    return [(b - a) * 1e3 for a, b in zip(times, times[1:])]


def step_gaps_ms(stream, begin, end):
    """Gaps between arrivals: tokens that came together count once."""
    times = sorted({t for t in stream.arrivals if begin <= t <= end})
    return [(b - a) * 1e3 for a, b in zip(times, times[1:])]


def random_ids(rng, n, limit):
    return [rng.randrange(limit) for _ in range(n)]


def completion(ids, max_tokens, **more):
    return {"prompt": ids, "max_tokens": max_tokens, "ignore_eos": True, "temperature": 1, "seed": 1, **more}


def check(stream):
    if stream.error or stream.status != 200:
        raise SystemExit(f"a request failed: status {stream.status}: {stream.error}")


# ---- sections ------------------------------------------------------------------------------------

def bench_gap(server, args, rng):
    """Live streams decode for a while alone, then beside the prefill of one long prompt."""
    live = [Stream(server, "/v1/completions", completion(random_ids(rng, 64, args.ids), 8192, seed=i))
            for i in range(args.live)]
    run_streams(live, until=lambda: all(len(s.arrivals) >= 16 for s in live) or any(s.error for s in live))
    begin = time.monotonic()
    run_streams(live, until=lambda: time.monotonic() > begin + args.alone_seconds)
    middle = time.monotonic()
    long = Stream(server, "/v1/completions", completion(random_ids(rng, args.prompt_tokens, args.ids), 1))
    run_streams(live + [long], until=lambda: long.fileno() < 0 or any(s.error for s in live))
    end = time.monotonic()
    for stream in live:
        stream.close()
        check(stream)
    check(long)
    alone = [g for s in live for g in gaps_ms(s, begin, middle)]
    beside = [g for s in live for g in gaps_ms(s, middle, end)]
    alone_steps = [g for s in live for g in step_gaps_ms(s, begin, middle)]
    beside_steps = [g for s in live for g in step_gaps_ms(s, middle, end)]
    result = {"live": args.live, "prompt_tokens": args.prompt_tokens, "prefill_s": long.arrivals[0] - middle if long.arrivals else None}
    for name, values in (("alone", alone), ("beside", beside), ("alone_steps", alone_steps), ("beside_steps", beside_steps)):
        result[name] = {"n": len(values), "p50_ms": percentile(values, 50), "p99_ms": percentile(values, 99),
                        "max_ms": max(values, default=float("nan"))}
    for what in ("", "_steps"):  # tokens of one step arrive together: a gap of 0 between them
        alone, beside = result["alone" + what], result["beside" + what]
        result["p99_ratio" + what] = beside["p99_ms"] / alone["p99_ms"] if alone["p99_ms"] else float("nan")
    result["timings"] = long.last("timings")
    line = "p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms, most {max_ms:.1f} ms"
    rows = [(f"gap between tokens of {args.live} streams, alone", line.format(**result["alone"])),
            (f"  while {args.prompt_tokens} tokens arrive ({result['prefill_s'] or 0:.1f} s)", line.format(**result["beside"])),
            ("  p99 beside / alone (wanted: at most 2)", f"{result['p99_ratio']:.2f}"),
            ("gap between steps with tokens, alone", line.format(**result["alone_steps"])),
            ("  while they arrive", line.format(**result["beside_steps"])),
            ("  p99 beside / alone", f"{result['p99_ratio_steps']:.2f}")]
    return result, rows


def bench_streams(server, args, rng):
    result, rows = {}, []
    for n in (1, args.streams):
        streams = [Stream(server, "/v1/completions", completion(random_ids(rng, 32, args.ids), args.stream_tokens, seed=i))
                   for i in range(n)]
        run_streams(streams)
        for stream in streams:
            check(stream)
        tokens = sum(s.last("usage")["completion_tokens"] for s in streams)
        first, last = min(s.arrivals[0] for s in streams), max(s.arrivals[-1] for s in streams)
        start = min(s.start for s in streams)
        timings = [s.last("timings") for s in streams]
        result[str(n)] = {"tokens": tokens, "seconds": last - start, "tokens_per_s": tokens / (last - start),
                          "decode_tokens_per_s": (tokens - n) / (last - first),
                          "drafted": sum(t.get("draft_n", 0) for t in timings),
                          "accepted": sum(t.get("draft_n_accepted", 0) for t in timings)}
        rows.append((f"{n} stream{'s' if n > 1 else ''} of {args.stream_tokens} tokens",
                     f"{result[str(n)]['tokens_per_s']:.1f} tokens/s ({result[str(n)]['decode_tokens_per_s']:.1f} decoding)"))
    result["ratio"] = result[str(args.streams)]["tokens_per_s"] / result["1"]["tokens_per_s"]
    rows.append((f"  {args.streams} streams / 1", f"{result['ratio']:.2f}"))
    return result, rows


WORDS = ("the sheep went over the hill and down to the river where an old farmer kept a small boat for people "
         "who wanted to cross in the evening before the bells of the village rang").split()


def text_of(server, rng, n_tokens):
    """Words until they are about n_tokens tokens; different each time."""
    words, count = [], 0
    while count < n_tokens:
        words += [rng.choice(WORDS) for _ in range(max(16, (n_tokens - count) * 2 // 3))]
        count = server.post("/tokenize", {"prompt": " ".join(words)})["count"]
    while count > n_tokens + 8:
        words = words[:-max(1, (count - n_tokens) * 2 // 3)]
        count = server.post("/tokenize", {"prompt": " ".join(words)})["count"]
    return " ".join(words)


def chat(server, messages, max_tokens, **more):
    stream = Stream(server, "/v1/chat/completions", {"messages": messages, "max_tokens": max_tokens, "temperature": 0, **more})
    run_streams([stream])
    check(stream)
    deltas = [c["delta"] for e in stream.events for c in e["choices"]]
    answer = {"role": "assistant", "content": "".join(d.get("content") or "" for d in deltas)}
    reasoning = "".join(d.get("reasoning_content") or "" for d in deltas)
    if reasoning:
        answer["reasoning_content"] = reasoning
    if not stream.arrivals:
        raise SystemExit("an answer without a token")
    return answer, stream


def bench_chat(server, args, rng):
    # Without thinking, so that all of the answer is in the history; random weights write what is not split
    # into the same tokens again, so that it is the dearest case: the whole answer is prefilled.
    plain = {"chat_template_kwargs": {"enable_thinking": False}}
    messages = [{"role": "user", "content": text_of(server, rng, args.history)}]
    answer, first = chat(server, messages, 64, **plain)
    messages += [answer, {"role": "user", "content": "And what did the farmer say then?"}]
    _, second = chat(server, messages, 16, **plain)
    result, turns = {}, (("turn_1", first), ("turn_2", second))
    for name, stream in turns:
        result[name] = {"ttft_s": stream.arrivals[0] - stream.start, "usage": stream.last("usage"), "timings": stream.last("timings")}
    result["ratio"] = result["turn_2"]["ttft_s"] / result["turn_1"]["ttft_s"]
    rows = [(f"first token of turn 1, {result['turn_1']['usage']['prompt_tokens']} tokens", f"{result['turn_1']['ttft_s']:.2f} s")]
    usage = result["turn_2"]["usage"]
    rows.append((f"  of turn 2, {usage['prompt_tokens']} tokens, {usage['prompt_tokens_details']['cached_tokens']} from the cache",
                 f"{result['turn_2']['ttft_s']:.3f} s"))
    rows.append(("  turn 2 / turn 1 (wanted: at most 3 %)", f"{100 * result['ratio']:.2f} %"))
    return result, rows


def schema(name, description, /, **properties):
    return {"type": "function", "function": {"name": name, "description": description, "parameters": {
        "type": "object", "properties": {k: {"type": v} for k, v in properties.items()}, "required": list(properties)}}}


TOOLS = [schema("get_weather", "Weather by city", city="string"), schema("find_sheep", "Find out where a sheep is", name="string"),
         schema("calculate", "Evaluate an arithmetic expression", expression="string")]
CITIES = ["Paris", "Rome", "Berlin", "Oslo", "Madrid", "London"]


def question(turn, rng):
    """And the tool's result, as long as those of agents are at least: some hundred tokens."""
    city = CITIES[turn % len(CITIES)]
    days = [f"day {i}: {rng.randrange(-5, 30)} C, {rng.choice(WORDS)} {rng.choice(WORDS)}" for i in range(1, rng.randrange(12, 24))]
    return f"What is the weather in {city}?", "\n".join(days)


def common(a, b):
    n = 0
    while n < len(a) and n < len(b) and a[n] == b[n]:
        n += 1
    return n


def bench_agent(server, args, rng):
    """Each turn: a question, the model's call, the result, its answer; where the model makes no call, the
    result comes all the same. New tokens are those of a prompt that continue no earlier prompt with its answer."""
    messages, known, trace, calls = [{"role": "system", "content": "You are a helpful farm assistant."}], [], [], 0

    def ask(say_more):
        messages.extend(say_more)
        reply = server.post("/v1/chat/completions", {
            "messages": messages, "tools": TOOLS, "max_tokens": 96, "temperature": 0, "return_token_ids": True,
            "chat_template_kwargs": {"preserve_thinking": True}})
        choice, ids = reply["choices"][0], reply["choices"][0].get("prompt_token_ids") or reply["prompt_token_ids"]
        trace.append({"prompt": len(ids), "new": len(ids) - max([common(ids, k) for k in known], default=0),
                      "prefilled": reply["timings"]["prompt_n"], "miss": reply["timings"].get("cache_miss"),
                      "answer": len(choice["token_ids"]), "finish": choice["finish_reason"]})
        known.append(ids + choice["token_ids"])
        messages.append({k: v for k, v in choice["message"].items() if v is not None})
        return messages[-1].get("tool_calls") or []

    for turn in range(args.turns):
        text, result = question(turn, rng)
        made = ask([{"role": "user", "content": text}])
        calls += len(made) > 0
        ask([{"role": "tool", "tool_call_id": c["id"], "content": result} for c in made or [{"id": "call_0"}]])
    prompt_tokens, new, prefilled = (sum(t[key] for t in trace) for key in ("prompt", "new", "prefilled"))
    requests = len(trace)
    out = {"turns": args.turns, "requests": requests, "tool_calls": calls, "prompt_tokens": prompt_tokens, "new_tokens": new,
           "prefilled_tokens": prefilled, "ratio": prefilled / new, "requests_traced": trace}
    rows = [(f"{args.turns} tool turns, {requests} requests, {calls} with calls", f"{prompt_tokens} prompt tokens"),
            ("  that were in no earlier prompt or answer", f"{new}"),
            ("  prefilled", f"{prefilled}"),
            ("  prefilled / new (wanted: at most 1.1)", f"{out['ratio']:.3f}")]
    return out, rows


# ---- around them ---------------------------------------------------------------------------------

def sha256(path):
    if os.path.isdir(path):
        path = os.path.join(path, "model.safetensors")
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as f:
            while block := f.read(1 << 20):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()


def machine():
    cpu = ""
    try:
        with open("/proc/cpuinfo") as f:
            cpu = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), "")
    except OSError:
        pass
    system = os.uname()
    return {"system": f"{system.sysname} {system.release} {system.machine}", "cpu": cpu, "cpus": os.cpu_count()}


def short(path):
    """Without the folders of this machine."""
    return os.path.relpath(path, ROOT) if os.path.abspath(path).startswith(ROOT + os.sep) else os.path.basename(path)


def commit():
    out = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return out.stdout.strip()


def synthetic(args):
    path = os.path.join(os.environ.get("TMPDIR", tempfile.gettempdir()), "bellwether-0.8b-q4_0.gguf")
    if not os.path.exists(path):
        subprocess.run([os.path.join(ROOT, "tools/synth"), "0.8b", path, "--type", "q4_0",
                        "--tokenizer", os.path.join(ROOT, "models/lamb")], check=True)
    return path


def run(name, model, args):
    server = Server(args.server, model, args.options, args.url)
    try:
        before = os.getloadavg()
        result, rows = globals()["bench_" + name](server, args, random.Random(args.seed))
        result.update(model=short(model), command=["bellwether", "serve", short(model), *args.options], load_before=before, load_after=os.getloadavg())
        return result, rows
    finally:
        server.stop()


def read_arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", nargs="?", help="default: tools/synth makes the 0.8b shape, Q4_0, once")
    p.add_argument("--agent-model", default=os.path.join(ROOT, "models/lamb"), help="that calls tools (default models/lamb)")
    p.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas: " + ",".join(SECTIONS))
    p.add_argument("--server", default=os.path.join(ROOT, "bellwether"), help="the program (default ./bellwether)")
    p.add_argument("--url", help="HOST:PORT of a server that runs already")
    p.add_argument("--json", help="write all figures here")
    p.add_argument("--ids", type=int, default=8000, help="prompts of ids are drawn below this (default 8000)")
    p.add_argument("--live", type=int, default=4, help="streams that decode meanwhile (default 4)")
    p.add_argument("--alone-seconds", type=float, default=20, help="how long they decode alone (default 20)")
    p.add_argument("--prompt-tokens", type=int, default=8192, help="of the prompt that arrives (default 8192)")
    p.add_argument("--streams", type=int, default=16, help="at a time (default 16)")
    p.add_argument("--stream-tokens", type=int, default=128, help="of each answer (default 128)")
    p.add_argument("--history", type=int, default=16384, help="tokens of turn 1 (default 16384)")
    p.add_argument("--turns", type=int, default=20, help="tool turns (default 20)")
    p.add_argument("--seed", type=int, default=1)
    p.epilog = "What follows -- goes to `bellwether serve`."
    mine = sys.argv[1:sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    args = p.parse_args(mine)
    args.options = sys.argv[len(mine) + 2:]
    unknown = set(args.only.split(",")) - set(SECTIONS)
    if unknown:
        p.error(f"--only: no section {', '.join(sorted(unknown))}")
    return args


def main():
    args = read_arguments()
    if not args.url and not args.model and set(args.only.split(",")) != {"agent"}:
        args.model = synthetic(args)
    report = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "machine": machine(),
              "commit": commit(), "arguments": sys.argv[1:], "models": {}, "sections": {}}
    for name in args.only.split(","):
        model = args.agent_model if name == "agent" and not args.url else args.model or args.url
        if short(model) not in report["models"]:
            report["models"][short(model)] = sha256(model)
        result, rows = run(name, model, args)
        report["sections"][name] = result
        for what, value in rows:
            print(f"{what:<64} {value}", flush=True)
        print(f"  load of the machine before {result['load_before'][0]:.2f}, after {result['load_after'][0]:.2f}", flush=True)
    if args.json:
        with open(args.json, "w") as f:
            json.dump(report, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
