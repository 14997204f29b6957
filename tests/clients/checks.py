"""checks.py - what the Python clients share: cases that print `ok NAME`, the server's slots, a server to restart.

run.sh sets BASE_URL, API_KEY and MODEL of a server that is up, TIGHT_URL of one that holds one
sequence and one more that waits, and SERVE, the command that starts another."""
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import traceback
import urllib.request

BASE_URL = os.environ["BASE_URL"]
TIGHT_URL = os.environ["TIGHT_URL"]
API_KEY = os.environ["API_KEY"]
MODEL = os.environ["MODEL"]

STORY = [{"role": "user", "content": "Tell me a story about a lamb."}]
WEATHER = [{"role": "user", "content": "What is the weather in Oslo?"}]
RAIN = '{"city": "Oslo", "temperature": 7, "sky": "rain"}'
TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "Weather by city",
        "parameters": {"type": "object", "required": ["city"],
                       "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}},
    {"type": "function", "function": {
        "name": "find_sheep", "description": "Find out where a sheep is",
        "parameters": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}}},
]
# An answer that would take minutes, for what has to be cut short.
ENDLESS = {"ignore_eos": True, "loop_guard": False}
ENDLESS_TOKENS = 20000

cases = []


def case(function):
    cases.append(function)
    return function


def run_cases():
    """Runs them in order; a client's own exceptions are failures like any other."""
    failed = 0
    for function in cases:
        start = time.monotonic()
        try:
            note = function()
            print(f"ok {function.__name__}  # " + (f"{note}, " if note else "") + f"{time.monotonic() - start:.1f} s", flush=True)
        except Exception as e:
            failed += 1
            where = traceback.extract_tb(e.__traceback__)
            line = next((f.lineno for f in reversed(where) if os.path.basename(f.filename) == os.path.basename(sys.argv[0])), 0)
            why = " ".join(f"{type(e).__name__}: {e}".split())[:400]
            print(f"not ok {function.__name__}: line {line}, after {time.monotonic() - start:.1f} s: {why}", flush=True)
    sys.exit(1 if failed else 0)


def check(condition, *what):
    if not condition:
        raise AssertionError(" ".join(str(w) for w in what) or "not true")


def equal(got, want, what=""):
    check(got == want, what, f"got {got!r}, expected {want!r}")


def raises(kind, call):
    try:
        call()
    except kind as e:
        return e
    raise AssertionError(f"expected {kind.__name__}, nothing was raised")


def get(url, path):
    """A small route, with a client of its own."""
    root = url[:-len("/v1")]
    request = urllib.request.Request(root + path, headers={"Authorization": "Bearer " + API_KEY})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def busy_slots(url):
    return sum(1 for slot in get(url, "/slots") if slot["is_processing"])


def until(condition, seconds, what):
    """Waits; returns the milliseconds it took."""
    start = time.monotonic()
    while not condition():
        check(time.monotonic() - start < seconds, what, f"not within {seconds} s")
        time.sleep(0.002)
    return round(1000 * (time.monotonic() - start))


def slot_is_free_soon(url):
    """After a client has left: a step takes some milliseconds here, an answer would take minutes."""
    return f"slot free after {until(lambda: busy_slots(url) == 0, 2, 'a free slot')} ms"


class Server:
    """One of our own, at a port that stays the same when it is started again."""

    def __init__(self, *options):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.command = shlex.split(os.environ["SERVE"]) + ["--port", str(self.port), *options]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.process = None

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def health(self):
        try:
            with urllib.request.urlopen(self.url[:-3] + "/health", timeout=5) as response:
                return response.status
        except urllib.error.HTTPError as e:
            return e.code
        except OSError:
            return 0

    def wait_ready(self):
        until(lambda: self.health() == 200, 60, "a server that is ready")

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait_gone(self):
        return self.process.wait(timeout=60)

    def __enter__(self):
        self.start()
        self.wait_ready()
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
