#!/usr/bin/env python3
"""Renders the requests of a chats.jsonl with a checkpoint's own chat template.

    chats.py TEMPLATE.jinja REQUESTS.jsonl [N] > OUT.jsonl

Every line of REQUESTS holds {"request": {...}, ...}; every line of OUT holds the request and the
"text" that the template renders for it, or the "error" it raises. Needs jinja2 3.1 and sets it up
as transformers does. N: only the first N lines.

tests/golden/chats.jsonl      Qwen3.6's template, sha256 e84f32a2...
tests/golden/chats-3.5.jsonl  Qwen3.5's, a4aee8af..., the first 60 requests of chats.jsonl
tests/golden/chats-3.8.jsonl  Qwen3.8-27B's, c3cf9e34..., the same
"""
import json
import sys

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment


def to_json(value, **_):
    return json.dumps(value, ensure_ascii=False)


def refuse(message):
    raise jinja2.TemplateError(message)


def main():
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    with open(sys.argv[1], encoding="utf-8") as file:
        template = environment.from_string(file.read())
    limit = int(sys.argv[3]) if len(sys.argv) > 3 else None
    with open(sys.argv[2], encoding="utf-8") as file:
        for line in file.read().split("\n")[:-1][:limit]:
            request = json.loads(line)["request"]
            try:
                result = {"text": template.render(**request)}
            except jinja2.TemplateError as error:
                result = {"error": str(error)}
            print(json.dumps({"request": request, **result}, ensure_ascii=False))


if __name__ == "__main__":
    main()
