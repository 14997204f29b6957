"""LangChain's ChatOpenAI."""
import importlib.metadata

import openai
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI

from checks import API_KEY, BASE_URL, ENDLESS, ENDLESS_TOKENS, MODEL, RAIN, busy_slots, case, check, equal, raises, run_cases, slot_is_free_soon

print("version", importlib.metadata.version("langchain-openai"))
STORY = "Tell me a story about a lamb."


def chat_model(**more):
    return ChatOpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0,
                      **{"model": MODEL, "temperature": 0, "max_tokens": 40, "reasoning_effort": "none", **more})


@tool
def get_weather(city: str, days: int = 1) -> str:
    """Weather by city"""
    return RAIN


@tool
def find_sheep(name: str) -> str:
    """Find out where a sheep is"""
    return "in the barn"


@case
def chat():
    answer = chat_model().invoke(STORY)
    check("Lamb" in answer.content, answer.content)
    equal(answer.response_metadata["finish_reason"], "length")
    equal(answer.usage_metadata["output_tokens"], 40)


@case
def stream_with_usage():
    whole = None
    for chunk in chat_model(stream_usage=True).stream(STORY):
        whole = chunk if whole is None else whole + chunk
    equal(whole.content, chat_model().invoke(STORY).content)
    equal(whole.usage_metadata["output_tokens"], 40)
    equal(whole.response_metadata["finish_reason"], "length")


@case
def batch():
    answers = chat_model(max_tokens=8).batch([STORY] * 6)
    equal([a.content for a in answers], [answers[0].content] * 6)


@case
def two_choices():
    result = chat_model(n=2, temperature=1, seed=5).generate([[HumanMessage(STORY)]])
    texts = [g.text for g in result.generations[0]]
    check(len(texts) == 2 and texts[0] != texts[1], texts)


@case
def a_tool_loop():
    model = chat_model(max_tokens=200).bind_tools([get_weather, find_sheep])
    messages = [HumanMessage("What is the weather in Oslo?")]
    answer = model.invoke(messages)
    equal([(c["name"], c["args"]["city"]) for c in answer.tool_calls], [("get_weather", "Oslo")])
    messages += [answer, ToolMessage(RAIN, tool_call_id=answer.tool_calls[0]["id"])]
    check("7 degrees" in model.invoke(messages).content, model.invoke(messages).content)


@case
def a_streamed_tool_call():
    whole = None
    for chunk in chat_model(max_tokens=200).bind_tools([get_weather, find_sheep]).stream("What is the weather in Oslo?"):
        whole = chunk if whole is None else whole + chunk
    equal([(c["name"], c["args"]["city"]) for c in whole.tool_calls], [("get_weather", "Oslo")])


@case
def completions():
    text = OpenAI(model=MODEL, base_url=BASE_URL, api_key=API_KEY, max_tokens=8, temperature=0).invoke("Once upon a time")
    check(isinstance(text, str) and text, repr(text))


@case
def errors():
    e = raises(openai.NotFoundError, lambda: chat_model(model="gpt-9").invoke(STORY))
    equal(e.code, "model_not_found")
    e = raises(openai.BadRequestError, lambda: chat_model(temperature=1, top_p=7).invoke(STORY))
    equal(e.param, "top_p")


@case
def an_abandoned_stream_frees_its_slot():
    stream = chat_model(max_tokens=ENDLESS_TOKENS, extra_body=ENDLESS).stream(STORY)
    for _, _ in zip(range(3), stream):
        pass
    equal(busy_slots(BASE_URL), 1)
    stream.close()
    return slot_is_free_soon(BASE_URL)


run_cases()
