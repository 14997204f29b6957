// mock_server.mjs - a stand-in for the server: the page's own files, and the routes it uses, as
// docs/serving.md has them. For the page's tests, and to work on the page without a model:
//
//     node tests/web/mock_server.mjs [PORT]
//
// The last user message chooses what happens: see `scenes`.

import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
const types = { html: 'text/html; charset=utf-8', css: 'text/css; charset=utf-8', js: 'text/javascript; charset=utf-8', svg: 'image/svg+xml', txt: 'text/plain; charset=utf-8' };
// The server's own policy: what it would block must fail here too.
const policy = /policy\[\] =((?:\s*"[^"]*")+);/.exec(readFileSync(`${root}src/server/web.c`, 'utf8'))[1]
  .replace(/"\s*"/g, '').trim().slice(1, -1);

const answerText = `A bellwether is the sheep that **walks ahead** and the flock follows. Here the model's own
draft head walks ahead, and the full model verifies.

## What one step does

1. Take the last token and its drafts.
2. Run them as *one* batch of rows.
3. Keep the drafts that agree with the model, \`n\` of them.

\`\`\`c
/* Accept while the sample equals the draft. */
int n = 0;
while (n < n_drafts && sample[n] == draft[n])
    n++;
bw_slots_accept(slots, slot, 1 + n); /* a long comment, so that this line has to be scrolled on a narrow window */
\`\`\`

| Backend | Rows | Same bytes |
|---|---:|---|
| CPU | 9 | yes |
| CUDA | 64 | the goal |

> The output is the same bytes with drafts on or off.

See [the design](https://example.org/design) for why.
`;
const thoughtText = `The user asks what the name means. A bellwether is a leading sheep with a bell on its neck.
I should connect that to drafting: the head proposes, the model checks. A short list of the steps would help,
with a piece of code, since the acceptance rule fits in three lines. A table can show the backends.
I will keep it short, and end with where to read more.
`;
const evilText = `Before <script>window.hacked = 1</script><img src="x" onerror="window.hacked = 2">
<b onclick="window.hacked = 3">bold</b> [click](javascript:window.hacked=4)
![a cat](https://outside.invalid/cat.png) <iframe src="https://outside.invalid/"></iframe>
<style>body { display: none }</style><form action="https://outside.invalid/"><input name="a"></form>
<svg><use href="https://outside.invalid/x.svg#a"></use></svg> <div style="position:fixed" class="bubble" id="input">after</div>
`;
const loopText = 'and so on '.repeat(20);

const scenes = {
  full: { refuse: 429 },
  cut: { text: answerText, cutAfter: 30 },
  broken: { text: answerText, errorAfter: 20 },
  evil: { text: evilText },
  plain: { text: answerText },
  short: { text: 'Yes, it does.' },
  loop: { text: loopText, stopReason: 'loop' },
  slow: { text: answerText.repeat(8), thought: thoughtText.repeat(4), stepMs: 60 },
  endless: { text: answerText.repeat(200), stepMs: 20 },
};

const words = (text) => text.match(/\s*\S+|\s+$/g) ?? [];
const lengthOf = (messages) => messages.reduce((n, m) => n + words(`${m.content ?? ''} ${m.reasoning_content ?? ''}`).length + 4, 0);
const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

class Mock {
  constructor() {
    this.key = '';
    this.ready = true;
    this.progress = 0.4;
    this.vision = false;
    this.refusals = 1;       // how many 429 a `full` gets before it is served
    this.requests = [];      // bodies of the chat completions
    this.left = 0;           // clients that went before their answer was complete
    this.seen = new Map();   // prompt lengths, for the cache
    this.running = 0;
    this.drafts = { verifies: 0, accepted: [0, 0, 0] };
  }

  async listen(port = 0) {
    this.server = createServer((request, response) => this.#handle(request, response).catch((error) => response.destroy(error)));
    await new Promise((resolve) => { this.server.listen(port, '127.0.0.1', resolve); });
    return `http://127.0.0.1:${this.server.address().port}/`;
  }

  close() {
    this.server.closeAllConnections();
    this.server.close();
  }

  async #handle(request, response) {
    const path = new URL(request.url, 'http://x').pathname;
    if (path === '/' || path.startsWith('/web/')) return this.#file(path === '/' ? 'index.html' : path.slice(5), response);
    if (path === '/health') return this.#health(response);
    if (path === '/metrics') return this.ready ? this.#metrics(response) : this.#loading(response);
    if (this.key && request.headers.authorization !== `Bearer ${this.key}`) {
      return fail(response, 401, 'authentication_error', null, 'This server wants an API key.');
    }
    if (!this.ready) return this.#loading(response);
    if (path === '/props') return json(response, 200, this.#props());
    if (path === '/v1/models') return json(response, 200, { object: 'list', data: [{ id: 'lamb-mock', object: 'model', max_model_len: 4096 }] });
    if (path === '/v1/chat/completions') return this.#chat(request, response);
    return fail(response, 404, 'invalid_request_error', 'not_found', `No such path: ${path}`);
  }

  #file(name, response) {
    let body;
    try {
      if (name.includes('..')) throw new Error(name);
      body = readFileSync(`${root}src/server/web/${name}`);
    } catch {
      return fail(response, 404, 'invalid_request_error', 'not_found', `no file ${name}`);
    }
    response.writeHead(200, { 'Content-Type': types[name.split('.').at(-1)], 'Content-Security-Policy': policy, 'Cache-Control': 'no-cache' });
    response.end(body);
  }

  #health(response) {
    if (this.ready) return json(response, 200, { status: 'ok' });
    const error = { code: 503, message: 'Loading model', type: 'unavailable_error', progress: this.progress };
    return json(response, 503, { error }, { 'Retry-After': '1' });
  }

  #loading(response) {
    fail(response, 503, 'service_unavailable', 'loading', `the model is loading: ${Math.round(100 * this.progress)} % done`, { 'Retry-After': '1' });
  }

  #props() {
    return {
      default_generation_settings: { n_ctx: 4096, params: { temperature: 0.6, top_p: 0.95, top_k: 20, min_p: 0, repetition_penalty: 1, presence_penalty: 0, frequency_penalty: 0 },
        params_without_thinking: { temperature: 0.7, top_p: 0.8, top_k: 20, min_p: 0, repetition_penalty: 1, presence_penalty: 1.5, frequency_penalty: 0 } },
      total_slots: 32,
      modalities: { vision: this.vision, audio: false },
      self_test: { ran: true, passed: true, drafts: { engaged: 'yes', note: '61 % of the drafts accepted' }, cache: { engaged: 'yes', note: 'hits' } },
    };
  }

  #metrics(response) {
    const label = 'model_name="lamb-mock",engine="0"';
    const lines = [`vllm:num_requests_running{${label}} ${this.running}`, `vllm:num_requests_waiting{${label}} 0`,
      `vllm:spec_decode_num_drafts_total{${label}} ${this.drafts.verifies}`,
      ...this.drafts.accepted.map((n, i) => `vllm:spec_decode_num_accepted_tokens_per_pos_total{${label},position="${i}"} ${n}`)];
    response.writeHead(200, { 'Content-Type': 'text/plain; version=0.0.4; charset=utf-8' });
    response.end(`${lines.join('\n')}\n`);
  }

  async #chat(request, response) {
    let text = '';
    for await (const part of request) text += part;
    const body = JSON.parse(text);
    this.requests.push(body);
    const last = body.messages.at(-1).content;
    const chosen = scenes[last.split(' ')[0]];
    const scene = chosen ? { text: answerText, thought: '', ...chosen } : { text: answerText, thought: thoughtText };
    if (body.chat_template_kwargs?.enable_thinking === false) scene.thought = '';
    if (scene.refuse && this.refusals-- > 0) {
      return fail(response, 429, 'rate_limit_error', 'queue_full', '64 requests wait already', { 'Retry-After': '2' });
    }
    this.running++;
    let gone = false;
    response.on('close', () => {
      this.running--;
      gone = !response.writableFinished;
      if (gone) this.left++;
    });
    await this.#stream(body, scene, response, () => gone);
  }

  async #stream(body, scene, response, isGone) {
    const started = Date.now();
    const prompt = lengthOf(body.messages);
    const cached = body.messages.length > 2 ? lengthOf(body.messages.slice(0, -2)) : 0;
    const head = { id: 'chatcmpl-mock', object: 'chat.completion.chunk', created: 1763700000, model: 'lamb-mock' };
    const tokens = [...words(scene.thought).map((t) => ({ reasoning_content: t, reasoning: t })), ...words(scene.text).map((t) => ({ content: t }))];
    const counts = { tokens: 0, verifies: 0, drafted: 0, accepted: [0, 0, 0] };
    const usage = () => ({ prompt_tokens: prompt, completion_tokens: counts.tokens, total_tokens: prompt + counts.tokens,
      prompt_tokens_details: { cached_tokens: cached },
      completion_tokens_details: { reasoning_tokens: 0, accepted_prediction_tokens: sum(counts.accepted), rejected_prediction_tokens: counts.drafted - sum(counts.accepted) } });
    const event = (choices, more = {}) => `data: ${JSON.stringify({ ...head, choices, ...more })}\n\n`;
    response.writeHead(200, { 'Content-Type': 'text/event-stream; charset=utf-8', 'Cache-Control': 'no-cache' });
    response.flushHeaders();
    await sleep(120);
    while (counts.tokens < tokens.length && !isGone()) {
      const accepted = this.#step(counts);
      let send = '';
      for (const delta of tokens.slice(counts.tokens, counts.tokens + 1 + accepted)) {
        counts.tokens++;
        const first = counts.tokens === 1 ? { role: 'assistant' } : {};
        send += event([{ index: 0, delta: { ...first, ...delta }, logprobs: null, finish_reason: null }], { usage: usage() });
      }
      response.write(send);
      if (scene.cutAfter && counts.tokens >= scene.cutAfter) return response.destroy();
      if (scene.errorAfter && counts.tokens >= scene.errorAfter) {
        return response.end('data: {"error":{"message":"The engine met damaged weights.","type":"server_error","param":null,"code":"engine_failed"}}\n\ndata: [DONE]\n\n');
      }
      await sleep(scene.stepMs ?? 25);
    }
    if (isGone()) return undefined;
    const seconds = (Date.now() - started) / 1000;
    const timings = { cache_n: cached, prompt_n: prompt - cached, prompt_ms: 110, predicted_n: counts.tokens, predicted_ms: 1000 * seconds,
      predicted_per_second: counts.tokens / seconds, draft_n: counts.drafted, draft_n_accepted: sum(counts.accepted), draft_verifies: counts.verifies,
      draft_accepted_per_position: counts.accepted, queue_ms: 0.4, seed: 42, cache_miss: cached ? null : `text differs at token ${Math.min(7, prompt)}` };
    response.end(event([{ index: 0, delta: {}, logprobs: null, finish_reason: 'stop', stop_reason: scene.stopReason ?? null }])
      + event([], { usage: usage(), timings }) + 'data: [DONE]\n\n');
    return undefined;
  }

  /** A verify run of three drafts: how many were accepted, by a fixed pattern. */
  #step(counts) {
    const accepted = [3, 1, 2, 0, 3, 2][counts.verifies % 6];
    counts.verifies++;
    this.drafts.verifies++;
    counts.drafted += 3;
    for (let i = 0; i < accepted; i++) {
      counts.accepted[i]++;
      this.drafts.accepted[i]++;
    }
    return accepted;
  }
}

const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

function json(response, status, body, headers = {}) {
  response.writeHead(status, { 'Content-Type': 'application/json', ...headers });
  response.end(JSON.stringify(body));
}

function fail(response, status, type, code, message, headers = {}) {
  json(response, status, { error: { message, type, param: null, code } }, headers);
}

export { Mock, thoughtText };

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  console.log(`listening on ${await new Mock().listen(Number(process.argv[2] ?? 8081))}`);
}
