"""openai, the Python SDK."""
import asyncio
import json
import threading
import time

import openai
from openai import AsyncOpenAI, DefaultHttpxClient, OpenAI

from checks import (API_KEY, BASE_URL, ENDLESS, ENDLESS_TOKENS, MODEL, RAIN, STORY, TIGHT_URL, TOOLS, WEATHER, Server,
                    busy_slots, case, check, equal, get, raises, run_cases, slot_is_free_soon, until)

print("version", openai.__version__)
client = OpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0, timeout=120)


@case
def models():
    listed = client.models.list().data
    equal([m.id for m in listed], [MODEL])
    one = client.models.retrieve(MODEL)
    equal((one.id, one.object, one.created), (MODEL, "model", listed[0].created))
    raises(openai.NotFoundError, lambda: client.models.retrieve("nobody"))


@case
def chat():
    r = client.chat.completions.create(model=MODEL, messages=STORY, temperature=0, max_tokens=40, reasoning_effort="none")
    choice = r.choices[0]
    equal((r.object, r.model, choice.finish_reason, choice.message.role), ("chat.completion", MODEL, "length", "assistant"))
    check("Lamb" in choice.message.content, choice.message.content)
    equal(r.usage.completion_tokens, 40)
    equal(r.usage.total_tokens, r.usage.prompt_tokens + 40)


@case
def chat_that_ends_by_itself():
    r = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "How much is 2 + 3?"}],
                                       temperature=0, max_completion_tokens=200, reasoning_effort="none")
    equal(r.choices[0].finish_reason, "stop")
    check(r.choices[0].message.content, "no content")


def joined(chunks):
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


@case
def stream_with_usage():
    whole = client.chat.completions.create(model=MODEL, messages=STORY, temperature=0, max_tokens=40, reasoning_effort="none")
    chunks = list(client.chat.completions.create(model=MODEL, messages=STORY, temperature=0, max_tokens=40, stream=True,
                                                 stream_options={"include_usage": True}, reasoning_effort="none"))
    equal(len({c.id for c in chunks}), 1)
    equal(chunks[0].choices[0].delta.role, "assistant")
    equal(joined(chunks), whole.choices[0].message.content)
    equal([c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason], ["length"])
    equal([c.usage is not None for c in chunks], [False] * (len(chunks) - 1) + [True])
    equal((chunks[-1].choices, chunks[-1].usage.completion_tokens), ([], 40))


@case
def stream_without_usage():
    chunks = list(client.chat.completions.create(model=MODEL, messages=STORY, max_tokens=5, stream=True))
    check(all(c.usage is None and len(c.choices) == 1 for c in chunks), chunks)


@case
def two_choices():
    r = client.chat.completions.create(model=MODEL, messages=STORY, n=2, max_tokens=30, seed=7, temperature=1, reasoning_effort="none")
    equal([c.index for c in r.choices], [0, 1])
    check(r.choices[0].message.content != r.choices[1].message.content, "the choices are the same")
    texts = ["", ""]
    for chunk in client.chat.completions.create(model=MODEL, messages=STORY, n=2, max_tokens=30, seed=7, temperature=1,
                                                stream=True, reasoning_effort="none"):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    equal(texts, [c.message.content for c in r.choices], "streamed choices")


@case
def the_sdks_own_accumulator():
    with client.chat.completions.stream(model=MODEL, messages=[{"role": "user", "content": "How much is 2 + 3?"}], n=2, seed=1,
                                        stream_options={"include_usage": True}, reasoning_effort="none") as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    check({"chunk", "content.delta", "content.done"} <= kinds, kinds)
    equal([c.finish_reason for c in final.choices], ["stop", "stop"])
    check(all(c.message.content for c in final.choices) and final.usage.completion_tokens > 2, final)


@case
def thinking_comes_apart_from_the_answer():
    r = client.chat.completions.create(model=MODEL, messages=STORY, temperature=0, max_tokens=300,
                                       extra_body={"chat_template_kwargs": {"enable_thinking": True}})
    message = r.choices[0].message
    check(message.reasoning_content and message.reasoning == message.reasoning_content, message)
    check("</think>" not in message.content + message.reasoning_content, message)
    check(r.usage.completion_tokens_details.reasoning_tokens > 0, r.usage)
    thought = answer = ""
    for chunk in client.chat.completions.create(model=MODEL, messages=STORY, temperature=0, max_tokens=300, stream=True,
                                                extra_body={"chat_template_kwargs": {"enable_thinking": True}}):
        delta = chunk.choices[0].delta
        thought += getattr(delta, "reasoning_content", None) or ""
        answer += delta.content or ""
    equal((thought, answer), (message.reasoning_content, message.content))


@case
def a_tool_is_called_and_its_result_used():
    r = client.chat.completions.create(model=MODEL, messages=WEATHER, tools=TOOLS, temperature=0, reasoning_effort="none")
    equal(r.choices[0].finish_reason, "tool_calls")
    call = r.choices[0].message.tool_calls[0]
    equal((call.type, call.function.name, json.loads(call.function.arguments)), ("function", "get_weather", {"city": "Oslo"}))
    told = WEATHER + [r.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": RAIN}]
    r = client.chat.completions.create(model=MODEL, messages=told, tools=TOOLS, temperature=0, reasoning_effort="none")
    equal((r.choices[0].finish_reason, r.choices[0].message.tool_calls), ("stop", None))
    check("7 degrees" in r.choices[0].message.content, r.choices[0].message.content)


@case
def a_streamed_tool_call():
    with client.chat.completions.stream(model=MODEL, messages=WEATHER, tools=TOOLS, temperature=0, reasoning_effort="none") as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion()
    equal([(e.name, json.loads(e.arguments)) for e in done], [("get_weather", {"city": "Oslo"})])
    equal(final.choices[0].finish_reason, "tool_calls")
    equal(final.choices[0].message.tool_calls[0].function.name, "get_weather")


@case
def tools_can_be_switched_off():
    r = client.chat.completions.create(model=MODEL, messages=WEATHER, tools=TOOLS, tool_choice="none", temperature=0,
                                       max_tokens=60, reasoning_effort="none")
    check(not r.choices[0].message.tool_calls and r.choices[0].finish_reason in ("stop", "length"), r)


@case
def log_probabilities():
    r = client.chat.completions.create(model=MODEL, messages=STORY, temperature=0, max_tokens=5, logprobs=True, top_logprobs=3,
                                       reasoning_effort="none")
    content = r.choices[0].logprobs.content
    equal(len(content), 5)
    check(all(len(t.top_logprobs) == 3 and t.logprob <= 0 and t.token == t.top_logprobs[0].token for t in content), content)
    equal(bytes(b for t in content for b in t.bytes).decode(), r.choices[0].message.content)


@case
def the_same_seed_gives_the_same_text():
    def text(seed):
        return client.chat.completions.create(model=MODEL, messages=STORY, seed=seed, temperature=1, max_tokens=30,
                                              reasoning_effort="none").choices[0].message.content
    equal(text(3), text(3))
    check(text(3) != text(4), "another seed, the same text")


@case
def stop_strings():
    r = client.chat.completions.create(model=MODEL, messages=STORY, temperature=0, max_tokens=200, stop=["xyzzy", "Once"], reasoning_effort="none")
    whole = client.chat.completions.create(model=MODEL, messages=STORY, temperature=0, max_tokens=200, reasoning_effort="none")
    text = whole.choices[0].message.content
    check("Once" in text, text)
    equal((r.choices[0].message.content, r.choices[0].finish_reason), (text[:text.index("Once")], "stop"))
    equal(r.choices[0].stop_reason, "Once")


@case
def completions():
    r = client.completions.create(model=MODEL, prompt="Once upon a time", temperature=0, max_tokens=8, echo=True, logprobs=2)
    choice = r.choices[0]
    equal((r.object, choice.finish_reason), ("text_completion", "length"))
    check(choice.text.startswith("Once upon a time"), choice.text)
    equal("".join(choice.logprobs.tokens), choice.text)
    check(choice.logprobs.token_logprobs[0] is None and choice.logprobs.token_logprobs[1] < 0, choice.logprobs)
    r = client.completions.create(model=MODEL, prompt=["Once", "The"], n=2, max_tokens=3)
    equal([c.index for c in r.choices], [0, 1, 2, 3])
    pieces = list(client.completions.create(model=MODEL, prompt="Once upon a time", temperature=0, max_tokens=8, stream=True))
    equal("Once upon a time" + "".join(p.choices[0].text for p in pieces), choice.text)


@case
def the_second_turn_comes_from_the_cache():
    first = client.chat.completions.create(model=MODEL, messages=STORY, temperature=0, max_tokens=120, reasoning_effort="none")
    turns = STORY + [{"role": "assistant", "content": first.choices[0].message.content}, {"role": "user", "content": "And then?"}]
    second = client.chat.completions.create(model=MODEL, messages=turns, temperature=0, max_tokens=5, reasoning_effort="none")
    cached = second.usage.prompt_tokens_details.cached_tokens
    check(cached > 0, second.usage)
    return f"{cached} of {second.usage.prompt_tokens} prompt tokens"


@case
def many_at_once_get_what_one_alone_gets():
    """16 streams at a server with room for 4, every other one abandoned: the others' greedy text is the same."""
    alone = client.chat.completions.create(model=MODEL, messages=STORY, temperature=0, max_tokens=60, reasoning_effort="none")

    async def one(many, leaves):
        text = ""
        stream = await many.chat.completions.create(model=MODEL, messages=STORY, temperature=0, max_tokens=60, stream=True,
                                                    reasoning_effort="none")
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            if leaves and len(text) > 40:
                await stream.close()
                return None
        return text

    async def everyone():
        async with AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0, timeout=120) as many:
            return await asyncio.gather(*(one(many, i % 2) for i in range(16)))
    texts = asyncio.run(everyone())
    equal(texts, [None if i % 2 else alone.choices[0].message.content for i in range(16)])
    return slot_is_free_soon(BASE_URL)


@case
def errors_are_the_sdks_own():
    e = raises(openai.NotFoundError, lambda: client.chat.completions.create(model="gpt-9", messages=STORY))
    equal((e.status_code, e.code, e.type), (404, "model_not_found", "invalid_request_error"))
    e = raises(openai.BadRequestError, lambda: client.chat.completions.create(model=MODEL, messages=STORY, temperature=9))
    equal(e.param, "temperature")
    e = raises(openai.BadRequestError, lambda: client.chat.completions.create(model=MODEL, messages=[]))
    equal(e.param, "messages")
    e = raises(openai.BadRequestError, lambda: client.completions.create(model=MODEL, prompt="sheep " * 60000, max_tokens=1))
    equal(e.code, "context_length_exceeded")
    check("maximum context length is" in e.message, e.message)
    raises(openai.BadRequestError, lambda: client.chat.completions.create(model=MODEL, messages=STORY, temperature=9, stream=True))
    other = OpenAI(base_url=BASE_URL, api_key="wrong", max_retries=0)
    e = raises(openai.AuthenticationError, lambda: other.chat.completions.create(model=MODEL, messages=STORY))
    equal((e.status_code, e.type), (401, "authentication_error"))
    check(client.with_raw_response.models.list().headers["x-request-id"], "no request id")


@case
def an_abandoned_stream_frees_its_slot():
    stream = client.chat.completions.create(model=MODEL, messages=STORY, max_tokens=ENDLESS_TOKENS, stream=True, extra_body=ENDLESS)
    for _, _ in zip(range(3), stream):
        pass
    equal(busy_slots(BASE_URL), 1)
    stream.close()
    return slot_is_free_soon(BASE_URL)


@case
def a_timeout_frees_its_slot():
    hasty = client.with_options(timeout=0.5)
    raises(openai.APITimeoutError, lambda: hasty.chat.completions.create(
        model=MODEL, messages=STORY, max_tokens=ENDLESS_TOKENS, extra_body=ENDLESS))
    return slot_is_free_soon(BASE_URL)


@case
def a_full_queue_is_tried_again():
    """One stream runs, one waits; the next request is told 429, comes back after Retry-After and is served."""
    patient = OpenAI(base_url=TIGHT_URL, api_key=API_KEY, max_retries=0, timeout=120)
    runs = patient.chat.completions.create(model=MODEL, messages=STORY, max_tokens=ENDLESS_TOKENS, stream=True, extra_body=ENDLESS)
    next(iter(runs))
    left = threading.Event()

    def wait_in_line():
        try:
            with patient.chat.completions.create(model=MODEL, messages=STORY, max_tokens=ENDLESS_TOKENS, stream=True,
                                                 extra_body=ENDLESS) as stream:
                for _ in stream:
                    if left.is_set():
                        break
        except openai.OpenAIError:
            pass
    waits = threading.Thread(target=wait_in_line, daemon=True)
    waits.start()
    until(lambda: get(TIGHT_URL, "/load")["server_load"] == 2, 10, "one that runs and one that waits")
    seen = []

    def look(response):
        seen.append((response.status_code, response.headers.get("retry-after")))
        if response.status_code == 429:  # what is in the way goes away
            left.set()
            runs.close()
    tries = OpenAI(base_url=TIGHT_URL, api_key=API_KEY, max_retries=5, http_client=DefaultHttpxClient(event_hooks={"response": [look]}, timeout=120))
    r = tries.chat.completions.create(model=MODEL, messages=STORY, max_tokens=4)
    waits.join(30)
    equal((seen[0][0], seen[-1][0]), (429, 200), seen)
    check(1 <= int(seen[0][1]) <= 60, "Retry-After", seen)
    equal(r.usage.completion_tokens, 4)
    return f"status and Retry-After: {seen}"


@case
def a_restart_is_survived():
    """The server drains: an open connection hears 503, later ones are refused, until it is there again."""
    with Server() as server:
        seen = []
        at_first = threading.Event()

        def look(response):
            seen.append(response.status_code)
            at_first.set()
        holder = OpenAI(base_url=server.url, api_key=API_KEY, max_retries=0)
        held = holder.chat.completions.create(model=MODEL, messages=STORY, max_tokens=ENDLESS_TOKENS, stream=True, extra_body=ENDLESS)
        next(iter(held))
        tries = OpenAI(base_url=server.url, api_key=API_KEY, max_retries=8, timeout=120,
                       http_client=DefaultHttpxClient(event_hooks={"response": [look]}, timeout=120))
        tries.models.list()
        seen.clear()
        at_first.clear()
        server.terminate()
        time.sleep(0.3)
        answers = []
        asks = threading.Thread(target=lambda: answers.append(tries.chat.completions.create(model=MODEL, messages=STORY, max_tokens=4)), daemon=True)
        asks.start()
        at_first.wait(10)
        held.close()
        equal(server.wait_gone(), 0, "exit status")
        server.start()
        asks.join(60)
        check(answers and answers[0].usage.completion_tokens == 4, "no answer; statuses", seen)
        equal((seen[0], seen[-1]), (503, 200), seen)
        return f"statuses {seen}"


run_cases()
