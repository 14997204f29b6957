"""litellm, as a library, with its provider for any OpenAI-compatible server."""
import importlib.metadata
import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # its price list otherwise comes from the network
import litellm

from checks import (API_KEY, BASE_URL, ENDLESS, ENDLESS_TOKENS, MODEL, RAIN, STORY, TOOLS, WEATHER, busy_slots, case, check,
                    equal, raises, run_cases, slot_is_free_soon)

print("version", importlib.metadata.version("litellm"))
litellm.suppress_debug_info = True
litellm.telemetry = False


def ask(messages=STORY, model=MODEL, **more):
    body = {"chat_template_kwargs": {"enable_thinking": False}, **more.pop("extra_body", {})}
    return litellm.completion(model="openai/" + model, api_base=BASE_URL, api_key=API_KEY, messages=messages, num_retries=0,
                              max_retries=0, extra_body=body, **{"temperature": 0, "max_tokens": 40, **more})


@case
def chat():
    r = ask()
    check("Lamb" in r.choices[0].message.content, r)
    equal((r.choices[0].finish_reason, r.usage.completion_tokens), ("length", 40))


@case
def stream_with_usage():
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    whole = litellm.stream_chunk_builder(chunks, messages=STORY)
    equal(whole.choices[0].message.content, ask().choices[0].message.content)
    equal(whole.usage.completion_tokens, 40)


@case
def two_choices():
    r = ask(n=2, temperature=1, seed=5)
    check(len(r.choices) == 2 and r.choices[0].message.content != r.choices[1].message.content, r)


@case
def thinking():
    r = ask(max_tokens=300, extra_body={"chat_template_kwargs": {"enable_thinking": True}})
    check(r.choices[0].message.reasoning_content and r.choices[0].message.content, r)
    check("</think>" not in r.choices[0].message.content, r)


@case
def a_tool_loop():
    r = ask(WEATHER, tools=TOOLS, max_tokens=200)
    call = r.choices[0].message.tool_calls[0]
    equal((r.choices[0].finish_reason, call.function.name), ("tool_calls", "get_weather"))
    equal(json.loads(call.function.arguments), {"city": "Oslo"})
    told = WEATHER + [r.choices[0].message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": RAIN}]
    r = ask(told, tools=TOOLS, max_tokens=200)
    check("7 degrees" in r.choices[0].message.content, r)


@case
def a_streamed_tool_call():
    chunks = list(ask(WEATHER, tools=TOOLS, max_tokens=200, stream=True))
    call = litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls[0]
    equal((call.function.name, json.loads(call.function.arguments)), ("get_weather", {"city": "Oslo"}))


@case
def errors():
    e = raises(litellm.NotFoundError, lambda: ask(model="gpt-9"))
    equal(e.status_code, 404)
    raises(litellm.BadRequestError, lambda: ask(top_p=7))
    e = raises(litellm.ContextWindowExceededError, lambda: ask([{"role": "user", "content": "sheep " * 60000}]))
    check("maximum context length is" in str(e), e)


@case
def an_abandoned_stream_frees_its_slot():
    stream = ask(max_tokens=ENDLESS_TOKENS, stream=True, extra_body=ENDLESS)
    for _, _ in zip(range(3), stream):
        pass
    equal(busy_slots(BASE_URL), 1)
    stream.completion_stream.close()
    return slot_is_free_soon(BASE_URL)


run_cases()
