// Vercel's ai with @ai-sdk/openai-compatible: `node ai_sdk.mjs AI COMPATIBLE`, the names they are installed under.
import { z } from "zod";
import { API_KEY, BASE_URL, MODEL, check, endless, equal, rain, raises, runCases, slotIsFreeSoon, test, versionOf } from "./checks.mjs";

const [, , aiName, compatibleName] = process.argv;
const ai = await import(aiName);
const { createOpenAICompatible } = await import(compatibleName);
console.log("version", `${versionOf(aiName)} with openai-compatible ${versionOf(compatibleName)}`);

const provider = createOpenAICompatible({ name: "bellwether", baseURL: BASE_URL, apiKey: API_KEY, includeUsage: true });
const prompt = "Tell me a story about a lamb.";
const extra = (fields) => ({ providerOptions: { bellwether: fields } });
const plain = { ...extra({ reasoningEffort: "none" }), maxRetries: 0 };
const brief = { model: provider(MODEL), prompt, temperature: 0, maxOutputTokens: 40, ...plain };
const tools = {
  get_weather: ai.tool({ description: "Weather by city", inputSchema: z.object({ city: z.string(), days: z.number().int().optional() }), execute: async () => rain }),
  find_sheep: ai.tool({ description: "Find out where a sheep is", inputSchema: z.object({ name: z.string() }), execute: async () => "in the barn" }),
};

test("generateText", async () => {
  const r = await ai.generateText(brief);
  check(r.text.includes("Lamb"), r.text);
  equal([r.finishReason, r.usage.outputTokens], ["length", 40]);
});

test("streamText with usage", async () => {
  const whole = await ai.generateText(brief);
  const r = ai.streamText(brief);
  let text = "";
  for await (const piece of r.textStream) text += piece;
  equal(text, whole.text);
  equal([await r.finishReason, (await r.usage).outputTokens], ["length", 40]);
});

test("reasoning", async () => {
  const r = await ai.generateText({ ...brief, ...extra({ reasoningEffort: "high" }), maxOutputTokens: 300 });
  check(r.reasoningText && r.text && !r.text.includes("</think>"), r.text);
  const s = ai.streamText({ ...brief, ...extra({ reasoningEffort: "high" }), maxOutputTokens: 300 });
  equal([await s.reasoningText, await s.text], [r.reasoningText, r.text]);
});

for (const [name, run] of [["generateText", ai.generateText], ["streamText", ai.streamText]])
  test(`a tool loop of ${name}`, async () => {
    const r = await run({ ...brief, prompt: "What is the weather in Oslo?", tools, maxOutputTokens: 200, stopWhen: ai.stepCountIs(3) });
    const steps = await r.steps;
    equal(steps.map((s) => s.finishReason), ["tool-calls", "stop"]);
    equal(steps[0].toolCalls.map((c) => [c.toolName, c.input]), [["get_weather", { city: "Oslo" }]]);
    check((await r.text).includes("7 degrees"), await r.text);
  });

test("errors are its own", async () => {
  const refused = async (options) => {
    const e = await raises(Error, () => ai.generateText({ ...brief, ...options }));
    check(ai.APICallError.isInstance(e), `${e.name}: ${e.message}`);
    return e;
  };
  let e = await refused({ model: provider("gpt-9") });
  equal([e.statusCode, e.isRetryable, e.data.error.code], [404, false, "model_not_found"]);
  e = await refused({ topP: 7 });
  equal([e.statusCode, e.data.error.param], [400, "top_p"]);
});

test("an aborted stream frees its slot", async () => {
  const abort = new AbortController();
  const { max_tokens, ...fields } = endless;
  const r = ai.streamText({ ...brief, ...extra(fields), maxOutputTokens: max_tokens, abortSignal: abort.signal, onError() {} });
  let n = 0;
  for await (const part of r.fullStream) {
    if (part.type.endsWith("-delta") && ++n === 3) abort.abort();
    if (part.type === "abort") break;
  }
  check(n >= 3, `${n} pieces`);
  return slotIsFreeSoon(BASE_URL);
});

await runCases();
