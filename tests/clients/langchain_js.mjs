// LangChain's ChatOpenAI for JavaScript.
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { ChatOpenAI } from "@langchain/openai";
import { API_KEY, BASE_URL, MODEL, check, endless, equal, rain, runCases, slotIsFreeSoon, test, tools, versionOf } from "./checks.mjs";

console.log("version", versionOf("@langchain/openai"));
const chatModel = (more = {}) =>
  new ChatOpenAI({ model: MODEL, apiKey: API_KEY, configuration: { baseURL: BASE_URL }, maxRetries: 0, temperature: 0, maxTokens: 40,
                   ...more, modelKwargs: { chat_template_kwargs: { enable_thinking: false }, ...more.modelKwargs } });
const prompt = "Tell me a story about a lamb.";

test("chat", async () => {
  const answer = await chatModel().invoke(prompt);
  check(answer.content.includes("Lamb"), answer.content);
  equal([answer.usage_metadata.output_tokens, answer.response_metadata.finish_reason], [40, "length"]);
});

test("stream with usage", async () => {
  let whole;
  for await (const chunk of await chatModel({ streamUsage: true }).stream(prompt)) whole = whole ? whole.concat(chunk) : chunk;
  equal(whole.content, (await chatModel().invoke(prompt)).content);
  equal(whole.usage_metadata.output_tokens, 40);
});

test("a tool loop", async () => {
  const model = chatModel({ maxTokens: 200 }).bindTools(tools);
  const messages = [new HumanMessage("What is the weather in Oslo?")];
  const call = await model.invoke(messages);
  equal(call.tool_calls.map((c) => [c.name, c.args]), [["get_weather", { city: "Oslo" }]]);
  messages.push(call, new ToolMessage({ content: rain, tool_call_id: call.tool_calls[0].id }));
  const answer = await model.invoke(messages);
  check(answer.content.includes("7 degrees"), answer.content);
});

test("errors", async () => {
  let thrown;
  await chatModel({ model: "gpt-9" }).invoke(prompt).catch((e) => (thrown = e));
  equal([thrown?.status, thrown?.code], [404, "model_not_found"]);
});

test("an aborted stream frees its slot", async () => {
  const abort = new AbortController();
  const { max_tokens, ...fields } = endless;
  const stream = await chatModel({ maxTokens: max_tokens, modelKwargs: fields }).stream(prompt, { signal: abort.signal });
  let n = 0;
  try {
    for await (const _ of stream) if (++n === 3) abort.abort();
  } catch {} // it throws what it was aborted with
  check(n >= 3, `${n} pieces`);
  return slotIsFreeSoon(BASE_URL);
});

await runCases();
