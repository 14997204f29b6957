"""serve_client.py - starts `bellwether serve` and talks to it: what serve_bench.py and tests/soak share.

Only the standard library. A Stream notes when each event of a reply arrived; many of them are read by
one thread (run_streams), so that the client takes little of the machine it measures.
"""
import http.client
import json
import os
import selectors
import signal
import socket
import subprocess
import tempfile
import time


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A server of our own, or one that runs already (url HOST:PORT)."""

    def __init__(self, program, model, options=(), url=None, env=None, load_seconds=600):
        self.process = None
        self.command = None
        self.log = None
        if url:
            host, port = url.replace("http://", "").rstrip("/").split(":")
            self.host, self.port = host, int(port)
        else:
            self.host, self.port = "127.0.0.1", free_port()
            self.command = [program, "serve", model, "--port", str(self.port), *options]
            self.log = tempfile.NamedTemporaryFile("w+", prefix="bellwether-serve-", suffix=".log", delete=False)
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                            env={**os.environ, **(env or {})})
        self.wait_until_ready(load_seconds)

    def wait_until_ready(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process and self.process.poll() is not None:
                raise SystemExit(f"the server ended with {self.process.returncode}:\n{self.said()}")
            try:
                if self.get("/health", timeout=5)[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise SystemExit(f"the server was not ready after {seconds} s:\n{self.said()}")

    def said(self):
        if not self.log:
            return ""
        with open(self.log.name, errors="replace") as f:
            return f.read()

    def request(self, method, path, body=None, timeout=3600):
        """(status, headers, bytes)"""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, {} if data is None else {"Content-Type": "application/json"})
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), reply.read()
        finally:
            connection.close()

    def get(self, path, timeout=60):
        status, _, data = self.request("GET", path, timeout=timeout)
        return status, data

    def post(self, path, body, timeout=3600):
        """The JSON of a reply that must be 200."""
        status, _, data = self.request("POST", path, body, timeout)
        if status != 200:
            raise SystemExit(f"POST {path}: status {status}: {data[:500]!r}")
        return json.loads(data)

    def stop(self, seconds=60):
        """SIGTERM, then the exit status; SIGKILL and None when it does not end."""
        if not self.process:
            return 0
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None


class Stream:
    """One streamed POST. arrivals: the time of every content event; tokens that came in one read have one time."""

    def __init__(self, server, path, body):
        self.body = dict(body, stream=True, stream_options={"include_usage": True})
        self.events, self.arrivals = [], []
        self.status, self.error = None, None
        self.done = False
        self._buffer, self._text, self._chunked = b"", b"", False
        data = json.dumps(self.body).encode()
        self.socket = socket.create_connection((server.host, server.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.start = time.monotonic()
        self.socket.sendall(f"POST {path} HTTP/1.1\r\nHost: {server.host}\r\nContent-Type: application/json\r\n"
                            f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data)

    def fileno(self):
        return self.socket.fileno()

    def read(self):
        """What there is, once."""
        try:
            data = self.socket.recv(1 << 16)
        except OSError as error:
            self.error = str(error)
            data = b""
        now = time.monotonic()
        if not data:
            self.close()
            return
        self._buffer += data
        if self.status is None:
            self._read_head()
        if self.status is not None:
            self._read_body(now)

    def _read_head(self):
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        self.status = int(head.split(None, 2)[1])
        self._chunked = b"transfer-encoding: chunked" in head.lower()
        self._buffer = rest

    def _read_body(self, now):
        if not self._chunked:
            self._text, self._buffer = self._text + self._buffer, b""
        while self._chunked and b"\r\n" in self._buffer:
            size, _, rest = self._buffer.partition(b"\r\n")
            n = int(size, 16)
            if len(rest) < n + 2:
                break
            self._text += rest[:n]
            self._buffer = rest[n + 2:]
        if self.status != 200:
            self.error = self._text.decode(errors="replace")
            return
        *events, self._text = self._text.split(b"\n\n")
        for event in events:
            self._read_event(event, now)

    def _read_event(self, event, now):
        if event == b"data: [DONE]":
            self.done = True
            return
        if not event.startswith(b"data: "):
            return
        value = json.loads(event[6:])
        self.events.append(value)
        if "error" in value:
            self.error = json.dumps(value["error"])
        for choice in value.get("choices", []):
            delta = choice.get("delta", choice)
            if choice.get("finish_reason") is None or delta.get("text") or delta.get("content"):
                self.arrivals.append(now)

    def last(self, key):
        for event in reversed(self.events):
            if event.get(key):
                return event[key]
        return {}

    def text(self):
        return "".join(c.get("text") or c.get("delta", {}).get("content") or "" for e in self.events for c in e["choices"])

    def close(self):
        if self.socket.fileno() >= 0:
            self.socket.close()


def run_streams(streams, until=None, on_event=None):
    """Reads them all until each has ended, or until() says so."""
    selector = selectors.DefaultSelector()
    live = [s for s in streams if s.fileno() >= 0]
    for stream in live:
        selector.register(stream, selectors.EVENT_READ)
    while selector.get_map() and not (until and until()):
        for key, _ in selector.select(0.05):
            stream = key.fileobj
            before = stream.fileno()
            stream.read()
            if stream.done or stream.fileno() < 0:
                selector.unregister(before)
                stream.close()
            if on_event:
                on_event(stream)
    selector.close()
