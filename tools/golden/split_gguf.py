#!/usr/bin/env python3
"""Splits a GGUF file into parts, as the usual tools do: the metadata in the first part, split.* keys in each, the
tensors in file order.

    split_gguf.py IN.gguf PREFIX PARTS [--no-tensor-first]

Writes PREFIX-00001-of-0000N.gguf and so on. --no-tensor-first: the first part holds metadata only. Plain Python.
"""
import struct
import sys

U16, U32, U64, STRING, ARRAY, I32 = 2, 4, 10, 8, 9, 5
SIZE = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, code):
        (x,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return x

    def string(self):
        n = self.take("Q")
        self.at += n
        return self.data[self.at - n:self.at]

    def skip_value(self, kind):
        if kind == STRING:
            self.string()
        elif kind == ARRAY:
            inner, n = self.take("I"), self.take("Q")
            for _ in range(n if inner in (STRING, ARRAY) else 0):
                self.skip_value(inner)
            self.at += SIZE.get(inner, 0) * n
        else:
            self.at += SIZE[kind]


def read(path):
    """The raw bytes of the key-value section, its count, alignment, tensors [(name, dims, type, bytes)]."""
    r = Reader(open(path, "rb").read())
    assert r.take("I") == 0x46554747 and r.take("I") == 3, "not GGUF v3"
    n_tensors, n_keys = r.take("Q"), r.take("Q")
    begin, align = r.at, 32
    for _ in range(n_keys):
        key, kind, value = r.string(), r.take("I"), r.at
        r.skip_value(kind)
        if key == b"general.alignment":
            align = struct.unpack_from("<I", r.data, value)[0]
    keys, infos = r.data[begin:r.at], []
    for _ in range(n_tensors):
        name = r.string()
        dims = [r.take("Q") for _ in range(r.take("I"))]
        infos.append((name, dims, r.take("I"), r.take("Q")))
    start = -(-r.at // align) * align
    ends = sorted(i[3] for i in infos) + [len(r.data) - start]
    tensors = []
    for name, dims, kind, offset in infos:      # bytes up to the next tensor, its padding included
        tensors.append((name, dims, kind, r.data[start + offset:start + ends[ends.index(offset) + 1]]))
    return keys, n_keys, align, tensors


def write(path, keys, n_keys, align, tensors):
    pad = lambda b: b + b"\0" * (-len(b) % align)
    head = struct.pack("<IIQQ", 0x46554747, 3, len(tensors), n_keys) + keys
    body = b""
    for name, dims, kind, data in tensors:
        head += struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, len(body))
        body += pad(data)
    with open(path, "wb") as f:
        f.write(pad(head) + body)


def key(name, kind, code, value):
    return struct.pack("<Q", len(name)) + name + struct.pack("<I" + code, kind, value)


def main(source, prefix, parts, empty_first):
    keys, n_keys, align, tensors = read(source)
    full = parts - empty_first
    per = -(-len(tensors) // full)
    groups = [[]] * empty_first + [tensors[i * per:(i + 1) * per] for i in range(full)]
    for i, group in enumerate(groups):
        split = key(b"split.no", U16, "H", i) + key(b"split.count", U16, "H", parts) + key(b"split.tensors.count", I32, "i", len(tensors))
        write(f"{prefix}-{i + 1:05d}-of-{parts:05d}.gguf", (keys if i == 0 else b"") + split, (n_keys if i == 0 else 0) + 3, align, group)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), "--no-tensor-first" in sys.argv)
