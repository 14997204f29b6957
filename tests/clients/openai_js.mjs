// openai, the JavaScript SDK: `node openai_js.mjs openai` or another name it is installed under.
import { API_KEY, BASE_URL, MODEL, Server, TIGHT_URL, busySlots, check, endless, equal, get, rain, raises, runCases, sleep,
         slotIsFreeSoon, story, test, tools, until, versionOf, weather } from "./checks.mjs";

const name = process.argv[2];
const { default: OpenAI } = await import(name);
console.log("version", versionOf(name));
const create = (options) => new OpenAI({ baseURL: BASE_URL, apiKey: API_KEY, maxRetries: 0, timeout: 120_000, ...options });
const client = create();
const brief = { model: MODEL, messages: story, temperature: 0, max_tokens: 40, reasoning_effort: "none" };

test("models", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  equal(ids, [MODEL]);
  equal((await client.models.retrieve(MODEL)).object, "model");
  await raises(OpenAI.NotFoundError, () => client.models.retrieve("nobody"));
});

test("chat", async () => {
  const r = await client.chat.completions.create(brief);
  const [choice] = r.choices;
  equal([r.object, r.model, choice.finish_reason, choice.message.role], ["chat.completion", MODEL, "length", "assistant"]);
  check(choice.message.content.includes("Lamb"), choice.message.content);
  equal([r.usage.completion_tokens, r.usage.total_tokens], [40, r.usage.prompt_tokens + 40]);
});

test("stream with usage", async () => {
  const whole = await client.chat.completions.create(brief);
  const chunks = [];
  for await (const chunk of await client.chat.completions.create({ ...brief, stream: true, stream_options: { include_usage: true } }))
    chunks.push(chunk);
  equal(new Set(chunks.map((c) => c.id)).size, 1);
  equal(chunks[0].choices[0].delta.role, "assistant");
  equal(chunks.map((c) => c.choices[0]?.delta.content ?? "").join(""), whole.choices[0].message.content);
  equal(chunks.map((c) => c.choices[0]?.finish_reason).filter(Boolean), ["length"]);
  equal(chunks.filter((c) => "usage" in c).length, 1, "chunks with a usage");
  equal([chunks.at(-1).choices, chunks.at(-1).usage.completion_tokens], [[], 40]);
});

test("two choices", async () => {
  const two = { ...brief, n: 2, temperature: 1, seed: 7 };
  const r = await client.chat.completions.create(two);
  equal(r.choices.map((c) => c.index), [0, 1]);
  check(r.choices[0].message.content !== r.choices[1].message.content, "the choices are the same");
  const final = await client.chat.completions.stream({ ...two, stream: true }).finalChatCompletion();
  equal(final.choices.map((c) => c.message.content), r.choices.map((c) => c.message.content), "streamed choices");
});

test("thinking comes apart from the answer", async () => {
  let thought = "", answer = "";
  const stream = await client.chat.completions.create({ ...brief, reasoning_effort: "high", max_tokens: 300, stream: true });
  for await (const chunk of stream) {
    thought += chunk.choices[0].delta.reasoning_content ?? "";
    answer += chunk.choices[0].delta.content ?? "";
  }
  check(thought && answer && !(thought + answer).includes("</think>"), { thought, answer });
});

test("a tool is called and its result used", async () => {
  const asked = { ...brief, messages: weather, tools, max_tokens: 200 };
  const r = await client.chat.completions.create(asked);
  equal(r.choices[0].finish_reason, "tool_calls");
  const [call] = r.choices[0].message.tool_calls;
  equal([call.type, call.function.name, JSON.parse(call.function.arguments)], ["function", "get_weather", { city: "Oslo" }]);
  const messages = [...weather, r.choices[0].message, { role: "tool", tool_call_id: call.id, content: rain }];
  const answer = (await client.chat.completions.create({ ...asked, messages })).choices[0];
  equal(answer.finish_reason, "stop");
  check(answer.message.content.includes("7 degrees"), answer.message.content);
});

test("the SDK's own tool loop, streamed", async () => {
  const called = [];
  const runnable = tools.map((tool) => ({
    type: "function",
    function: { ...tool.function, parse: JSON.parse, function: (args) => (called.push([tool.function.name, args]), rain) },
  }));
  const runner = client.chat.completions.runTools({ ...brief, messages: weather, tools: runnable, max_tokens: 200, stream: true });
  const answer = await runner.finalContent();
  equal(called, [["get_weather", { city: "Oslo" }]]);
  check(answer.includes("7 degrees"), answer);
});

test("completions", async () => {
  const r = await client.completions.create({ model: MODEL, prompt: "Once upon a time", temperature: 0, max_tokens: 8 });
  let text = "";
  for await (const chunk of await client.completions.create({ model: MODEL, prompt: "Once upon a time", temperature: 0, max_tokens: 8, stream: true }))
    text += chunk.choices[0]?.text ?? "";
  equal(text, r.choices[0].text);
});

test("errors are the SDK's own", async () => {
  let e = await raises(OpenAI.NotFoundError, () => client.chat.completions.create({ ...brief, model: "gpt-9" }));
  equal([e.status, e.code, e.type], [404, "model_not_found", "invalid_request_error"]);
  e = await raises(OpenAI.BadRequestError, () => client.chat.completions.create({ ...brief, temperature: 9 }));
  equal(e.param, "temperature");
  await raises(OpenAI.BadRequestError, () => client.chat.completions.create({ ...brief, temperature: 9, stream: true }));
  e = await raises(OpenAI.BadRequestError, () =>
    client.completions.create({ model: MODEL, prompt: "sheep ".repeat(60000), max_tokens: 1 }));
  equal(e.code, "context_length_exceeded");
  e = await raises(OpenAI.AuthenticationError, () => create({ apiKey: "wrong" }).chat.completions.create(brief));
  equal(e.status, 401);
  check(e.requestID, "no request id");
});

test("an aborted stream frees its slot", async () => {
  const stream = await client.chat.completions.create({ model: MODEL, messages: story, ...endless, stream: true });
  let n = 0;
  for await (const _ of stream) if (++n === 3) break;
  return slotIsFreeSoon(BASE_URL);
});

test("an aborted wait frees its slot", async () => {
  const abort = new AbortController();
  const answer = client.chat.completions.create({ model: MODEL, messages: story, ...endless }, { signal: abort.signal });
  answer.catch(() => {});
  await until(async () => (await busySlots(BASE_URL)) === 1, 10, "a busy slot");
  abort.abort();
  await raises(OpenAI.APIUserAbortError, () => answer);
  return slotIsFreeSoon(BASE_URL);
});

// fetch, with what it saw written down
function watched(seen, onStatus = () => {}) {
  return async (url, options) => {
    const response = await fetch(url, options);
    seen.push([response.status, response.headers.get("retry-after")]);
    await onStatus(response.status);
    return response;
  };
}

test("a full queue is tried again", async () => {
  const holder = create({ baseURL: TIGHT_URL });
  const aborts = [new AbortController(), new AbortController()];
  const hold = (i) => holder.chat.completions.create({ model: MODEL, messages: story, ...endless, stream: true }, { signal: aborts[i].signal });
  await hold(0);
  hold(1).catch(() => {});
  await until(async () => (await get(TIGHT_URL, "/load")).server_load === 2, 10, "one that runs and one that waits");
  const seen = [];
  const tries = create({ baseURL: TIGHT_URL, maxRetries: 5, fetch: watched(seen, (s) => s === 429 && aborts.forEach((a) => a.abort())) });
  const r = await tries.chat.completions.create({ model: MODEL, messages: story, max_tokens: 4 });
  equal([seen[0][0], seen.at(-1)[0]], [429, 200], JSON.stringify(seen));
  check(Number(seen[0][1]) >= 1 && Number(seen[0][1]) <= 60, "Retry-After", seen);
  equal(r.usage.completion_tokens, 4);
  return `status and Retry-After: ${JSON.stringify(seen)}`;
});

test("a restart is survived", async () => {
  const server = await Server.create();
  try {
    const abort = new AbortController();
    await create({ baseURL: server.url }).chat.completions.create({ model: MODEL, messages: story, ...endless, stream: true }, { signal: abort.signal });
    const seen = [];
    let heard;
    const first = new Promise((resolve) => (heard = resolve));
    const tries = create({ baseURL: server.url, maxRetries: 8, fetch: watched(seen, heard) });
    await tries.models.list();
    seen.length = 0;
    server.process.kill("SIGTERM");
    await sleep(300);
    const answer = tries.chat.completions.create({ model: MODEL, messages: story, max_tokens: 4 });
    await Promise.race([first, sleep(10_000)]);
    await sleep(100);
    abort.abort();
    equal(await server.gone, 0, "exit status");
    server.start();
    equal((await answer).usage.completion_tokens, 4);
    equal([seen[0][0], seen.at(-1)[0]], [503, 200], JSON.stringify(seen));
    return `status and Retry-After: ${JSON.stringify(seen)}`;
  } finally {
    server.process.kill("SIGKILL");
  }
});

await runCases();
