#!/usr/bin/env python3
"""soak.py - random clients against one server for a while; run by `make soak`.

    tests/soak/soak.py --seconds 600 build-asan/bellwether models/lamb

Memory is short on purpose, so that sequences give way to others and checkpoints are evicted. Clients come
and go: chats that continue, completions of ids, some with several choices, clients that leave before or
during an answer, read slowly, send half a request or nonsense. Some requests are asked again and again
with temperature 0 and must get the same tokens each time, whatever else runs. At the end no slot may be
in use, SIGTERM with answers under way must end the server with 0, and the log may hold no finding of a
sanitizer. Prints what happened, the seed first; exits 1 when something was wrong.
"""
import argparse
import collections
import json
import os
import random
import re
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../bench"))
from serve_client import Server, Stream, run_streams  # noqa: E402

WORDS = "the sheep went over a hill to find one small boat for an old farmer who told this story again".split()
OPTIONS = ["--ctx", "1024", "--max-seqs", "6", "--max-waiting", "12", "--kv-memory", "5MiB", "--cache-memory", "16MiB",
           "--threads", "2", "--drain-timeout", "60"]
FINDINGS = re.compile(r"ERROR: \w*Sanitizer|WARNING: ThreadSanitizer|runtime error:|Assertion .* failed")
WRONG = [  # bodies of chat completions that must be refused
    b"", b"{", b"[]", b"null", b'{"messages": 1}', b'{"messages": []}', b'{"messages": [{"role": "x", "content": "y"}]}',
    b'{"messages": [{"role": "user", "content": "y"}], "temperature": "hot"}',
    b'{"messages": [{"role": "user", "content": "y"}], "n": 1000}',
    b'{"messages": [{"role": "user", "content": "y"}], "max_tokens": -1}',
    b'{"messages": [{"role": "user", "content": "\xff\xfe"}], "stop": [[]]}',
    b'{"messages": [{"role": "user", "content": "' + b"long " * 4000 + b'"}]}',
    b"[" * 100000, b'{"a":' * 5000, b'{"model": "another", "messages": [{"role": "user", "content": "y"}]}',
]
RAW = [  # requests that are no HTTP, or not ours
    b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n",
    b"DELETE /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(300)) + b"\r\n",
]
ROUTES = ["/health", "/metrics", "/slots", "/props", "/load", "/version", "/v1/models", "/ping", "/"]


class Trouble(Exception):
    pass


class Soak:
    def __init__(self, server, seed, seconds):
        self.server, self.seed = server, seed
        self.end = time.monotonic() + seconds
        self.lock = threading.Lock()
        self.counts, self.troubles = collections.Counter(), []
        self.answers = {}

    def count(self, what):
        with self.lock:
            self.counts[what] += 1

    def trouble(self, what):
        with self.lock:
            self.troubles.append(what)
        print(f"  trouble: {what}", flush=True)

    def over(self):
        return time.monotonic() > self.end

    # ---- clients; each does one thing -------------------------------------------------------------

    def finished(self, stream, what):
        """A stream that was read to its end: a whole answer, or a refusal that may be."""
        if stream.status in (429, 503):
            self.count(f"{what}: {stream.status}")
            return False
        if stream.status == 400 and "maximum context length" in (stream.error or ""):
            self.count(f"{what}: too long")
            return False
        if stream.status != 200 or stream.error or not stream.done:
            raise Trouble(f"{what}: status {stream.status}, done {stream.done}, error {stream.error}: {json.dumps(stream.body)[:300]}")
        reasons = {c["index"]: c["finish_reason"] for e in stream.events for c in e["choices"] if c.get("finish_reason")}
        if len(reasons) != stream.body.get("n", 1):
            raise Trouble(f"{what}: choices ended {reasons}")
        self.count(f"{what}: whole")
        return True

    def body_of_ids(self, rng):
        body = {"prompt": [rng.randrange(8000) for _ in range(rng.choice([1, 20, 63, 64, 65, 300, 900, 1100]))],
                "max_tokens": rng.choice([1, 20, 60, 250]), "seed": rng.randrange(1 << 30), "temperature": rng.choice([0, 0.7, 1])}
        if rng.random() < 0.3:
            body["n"] = rng.randint(1, 3)
        if rng.random() < 0.3:
            body["logprobs"] = rng.randint(0, 5)
        if rng.random() < 0.3:
            body["ignore_eos"] = True
        return body

    def client_completion(self, rng):
        stream = Stream(self.server, "/v1/completions", self.body_of_ids(rng))
        run_streams([stream])
        self.finished(stream, "completion")

    def client_chat(self, rng):
        """Turns of one conversation, at times with an earlier one changed."""
        messages = [{"role": "system", "content": "You tell stories." if rng.random() < 0.7 else " ".join(rng.choices(WORDS, k=40))}]
        for _ in range(rng.randint(1, 5)):
            messages.append({"role": "user", "content": " ".join(rng.choices(WORDS, k=rng.randint(2, 80)))})
            stream = Stream(self.server, "/v1/chat/completions", {"messages": messages, "max_tokens": rng.randint(1, 50)})
            run_streams([stream])
            if not self.finished(stream, "chat") or self.over():
                return
            messages.append({"role": "assistant", "content": stream.text()})
            if rng.random() < 0.1:
                messages[1]["content"] = "Something else."

    def client_whole(self, rng):
        """Not streamed."""
        body = self.body_of_ids(rng)
        status, headers, data = self.server.request("POST", "/v1/completions", body)
        self.count(f"whole answer: {status}")
        if status == 429 and "Retry-After" not in headers:
            raise Trouble("a 429 without Retry-After")
        if status == 200 and len(json.loads(data)["choices"]) != body.get("n", 1):
            raise Trouble("too few choices")
        if status not in (200, 400, 429):
            raise Trouble(f"status {status}: {data[:300]!r}")

    def client_again(self, rng):
        """The same question as before, with temperature 0: the same tokens."""
        which = rng.randrange(12)
        ids = [random.Random(which).randrange(8000) for _ in range(20 + 60 * which)]
        body = {"prompt": ids, "max_tokens": 24, "temperature": 0, "ignore_eos": True, "return_token_ids": True,
                "cache_prompt": rng.random() < 0.7}
        if rng.random() < 0.5:
            body["draft"] = rng.randint(0, 3)
        status, _, data = self.server.request("POST", "/v1/completions", body)
        if status == 429:
            self.count("again: 429")
            return
        if status != 200:
            raise Trouble(f"again: status {status}: {data[:300]!r}")
        tokens = json.loads(data)["choices"][0]["token_ids"]
        with self.lock:
            want = self.answers.setdefault(which, tokens)
        if tokens != want:
            raise Trouble(f"prompt {which} got other tokens: {tokens}, first {want}")
        self.count("again: same tokens")

    def client_leaves(self, rng):
        """Closes after a few events, or before the first; politely or with a reset."""
        stream = Stream(self.server, "/v1/completions", {**self.body_of_ids(rng), "max_tokens": 200, "ignore_eos": True})
        n, end = rng.randint(0, 10), time.monotonic() + rng.random() * 2
        run_streams([stream], until=lambda: len(stream.events) >= n or time.monotonic() > end)
        if rng.random() < 0.5 and stream.fileno() >= 0:
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()
        self.count("left")

    def client_reads_slowly(self, rng):
        stream = Stream(self.server, "/v1/completions", {**self.body_of_ids(rng), "n": 1, "logprobs": 5, "max_tokens": 100})
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        for _ in range(rng.randint(1, 60)):
            time.sleep(0.05)
            if not stream.socket.recv(16) or self.over():
                break
        stream.close()
        self.count("read slowly")

    def client_sends_half(self, rng):
        data = json.dumps(self.body_of_ids(rng)).encode()
        with socket.create_connection((self.server.host, self.server.port)) as s:
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data)
                      + data[:rng.randrange(len(data))])
            time.sleep(rng.random())
        self.count("sent half")

    def client_is_wrong(self, rng):
        if rng.random() < 0.5:
            data = rng.choice(WRONG)
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(data)
            request = head + data
        else:
            request = rng.choice(RAW)
        with socket.create_connection((self.server.host, self.server.port), timeout=60) as s:
            try:
                s.sendall(request)
                status = s.recv(4096)[9:12]
            except ConnectionError:  # it may close before it has read everything
                status = b""
            except TimeoutError:
                raise Trouble(f"no answer in a minute to {request[:200]!r}") from None
        if status == b"200" or status[:1] == b"5":
            raise Trouble(f"answered {status} to {request[:200]!r}")
        self.count("wrong: " + (status.decode() or "closed"))

    def client_looks(self, rng):
        path = rng.choice(ROUTES)
        status, data = self.server.get(path)
        if status != 200:
            raise Trouble(f"{path}: status {status}: {data[:200]!r}")
        self.count("looked")

    def client_counts(self, rng):
        text = " ".join(rng.choices(WORDS, k=rng.randint(0, 300)))
        tokens = self.server.post("/tokenize", {"content": text})["tokens"]
        if self.server.post("/detokenize", {"tokens": tokens})["content"] != text:
            raise Trouble("tokens are not their text")
        self.count("tokenised")

    def client_waits(self, rng):
        """Opens a connection and says nothing."""
        with socket.create_connection((self.server.host, self.server.port)):
            time.sleep(rng.random() * 3)
        self.count("said nothing")

    def run_client(self, number):
        rng = random.Random(self.seed * 1000 + number)
        kinds = [self.client_completion] * 4 + [self.client_chat] * 4 + [self.client_whole] * 2 + [self.client_again] * 4 + \
            [self.client_leaves] * 4 + [self.client_reads_slowly] * 2 + [self.client_sends_half, self.client_looks, self.client_counts,
                                                                         self.client_waits] + [self.client_is_wrong] * 3
        while not self.over() and len(self.troubles) < 20:
            kind = rng.choice(kinds)
            try:
                kind(rng)
            except Trouble as trouble:
                self.trouble(str(trouble))
            except SystemExit as refused:  # a post that was not answered with 200
                self.trouble(f"{kind.__name__}: {refused}")
            except (OSError, ValueError, KeyError) as error:
                self.trouble(f"{kind.__name__}: {type(error).__name__}: {error}")
                if self.server.process.poll() is not None:
                    return
            time.sleep(rng.random() * 0.2)


def check_idle(soak):
    """Nobody is there any more: no slot may be in use for long."""
    end = time.monotonic() + 60
    while True:
        slots = json.loads(soak.server.get("/slots")[1])
        load = json.loads(soak.server.get("/load")[1])["server_load"]
        busy = [s for s in slots if s.get("is_processing", True)]
        if not busy and load == 0:
            return
        if time.monotonic() > end:
            soak.trouble(f"slots in use a minute after the last client: {busy}, load {load}")
            return
        time.sleep(0.2)


def print_counts(soak):
    """That memory was short indeed."""
    for line in soak.server.get("/metrics")[1].decode().splitlines():
        if re.match(r"vllm:num_preemptions_total|bellwether_prefix_cache_evictions_total|vllm:prefix_cache_(hits|queries)_total", line):
            print(f"  {int(float(line.split()[-1])):7d}  {line.split('{')[0].split()[0]}")


def check_end(soak):
    """SIGTERM while answers stream: they are finished, and the server ends with 0."""
    streams = [Stream(soak.server, "/v1/completions", {"prompt": [i, 2, 3], "max_tokens": 60, "ignore_eos": True}) for i in range(4)]
    run_streams(streams, until=lambda: all(s.events for s in streams))
    reader = threading.Thread(target=run_streams, args=(streams,))
    reader.start()
    status = soak.server.stop(180)
    reader.join()
    for stream in streams:
        if not stream.done or stream.error:
            soak.trouble(f"a stream was not finished at the end: status {stream.status}, error {stream.error}")
    if status != 0:
        soak.trouble(f"the server ended with {status}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("program")
    p.add_argument("model")
    p.add_argument("--seconds", type=float, default=600)
    p.add_argument("--clients", type=int, default=12)
    p.add_argument("--seed", type=int, default=int(time.time()) % 100000)
    args = p.parse_args()
    print(f"soak: {args.program}, {args.seconds:g} s, {args.clients} clients, --seed {args.seed}", flush=True)
    environment = {"ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1:detect_stack_use_after_return=0:abort_on_error=0",
                   "UBSAN_OPTIONS": "print_stacktrace=1", "TSAN_OPTIONS": "halt_on_error=0:exitcode=66"}
    server = Server(args.program, args.model, OPTIONS, env=environment)
    soak = Soak(server, args.seed, args.seconds)
    try:
        threads = [threading.Thread(target=soak.run_client, args=(i,)) for i in range(args.clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if server.process.poll() is None:
            check_idle(soak)
            print_counts(soak)
            check_end(soak)
        else:
            soak.trouble(f"the server ended by itself with {server.process.returncode}")
    finally:
        if server.process.poll() is None:
            server.process.kill()
    said = server.said()
    for line in said.splitlines():
        if FINDINGS.search(line):
            soak.trouble(line)
    for what, n in sorted(soak.counts.items()):
        print(f"  {n:7d}  {what}")
    if soak.troubles:
        print(f"soak: {len(soak.troubles)} troubles; the server's log is {server.log.name}; repeat with --seed {args.seed}")
        return 1
    os.unlink(server.log.name)
    print("soak: nothing was wrong")
    return 0


if __name__ == "__main__":
    sys.exit(main())
