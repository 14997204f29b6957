// checks.mjs - what the JavaScript clients share; the same as checks.py.
import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { createRequire } from "node:module";
import { isDeepStrictEqual } from "node:util";

export const { BASE_URL, TIGHT_URL, API_KEY, MODEL } = process.env;

export const story = [{ role: "user", content: "Tell me a story about a lamb." }];
export const weather = [{ role: "user", content: "What is the weather in Oslo?" }];
export const rain = '{"city": "Oslo", "temperature": 7, "sky": "rain"}';
export const tools = [
  {
    type: "function",
    function: {
      name: "get_weather",
      description: "Weather by city",
      parameters: { type: "object", required: ["city"], properties: { city: { type: "string" }, days: { type: "integer" } } },
    },
  },
  {
    type: "function",
    function: {
      name: "find_sheep",
      description: "Find out where a sheep is",
      parameters: { type: "object", required: ["name"], properties: { name: { type: "string" } } },
    },
  },
];
// An answer that would take minutes, for what has to be cut short.
export const endless = { ignore_eos: true, loop_guard: false, max_tokens: 20000 };

const cases = [];
export const test = (name, run) => cases.push({ name, run });

// A client may leave handles open: the process ends with the last case.
export async function runCases() {
  let failed = 0;
  for (const { name, run } of cases) {
    const start = Date.now();
    try {
      const note = await run();
      console.log(`ok ${name}  # ${note ? `${note}, ` : ""}${((Date.now() - start) / 1000).toFixed(1)} s`);
    } catch (e) {
      failed++;
      const line = /mjs:(\d+)/.exec((e.stack ?? "").replaceAll(/checks\.mjs:\d+/g, ""))?.[1];
      const why = `${e.name}: ${e.message}`.replaceAll(/\s+/g, " ").slice(0, 400);
      console.log(`not ok ${name}: line ${line}, after ${(Date.now() - start) / 1000} s: ${why}`);
    }
  }
  process.exit(failed ? 1 : 0);
}

export function check(condition, ...what) {
  if (!condition) throw new Error(what.map((w) => (typeof w === "string" ? w : JSON.stringify(w))).join(" ") || "not true");
}

export function equal(got, want, what = "") {
  check(isDeepStrictEqual(got, want), `${what} got ${JSON.stringify(got)}, expected ${JSON.stringify(want)}`);
}

export async function raises(kind, call) {
  try {
    await call();
  } catch (e) {
    check(e instanceof kind, `expected ${kind.name}, got ${e.name}: ${e.message}`);
    return e;
  }
  throw new Error(`expected ${kind.name}, nothing was thrown`);
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Waits; returns the milliseconds it took.
export async function until(condition, seconds, what) {
  const start = Date.now();
  while (!(await condition())) {
    check(Date.now() - start < 1000 * seconds, `${what}: not within ${seconds} s`);
    await sleep(2);
  }
  return Date.now() - start;
}

export async function get(url, path) {
  const response = await fetch(url.replace(/\/v1$/, "") + path, { headers: { authorization: `Bearer ${API_KEY}` } });
  return response.json();
}

export const busySlots = async (url) => (await get(url, "/slots")).filter((slot) => slot.is_processing).length;

// After a client has left: a step takes some milliseconds here, an answer would take minutes.
export async function slotIsFreeSoon(url) {
  return `slot free after ${await until(async () => (await busySlots(url)) === 0, 2, "a free slot")} ms`;
}

// The version of an installed package, whether or not it exports its package.json.
export function versionOf(name) {
  const require = createRequire(import.meta.url);
  for (const folder of require.resolve.paths(name))
    try {
      return require(`${folder}/${name}/package.json`).version;
    } catch {}
}

// A server of our own, at a port that stays the same when it is started again.
export class Server {
  static async create() {
    const server = new Server();
    server.port = await new Promise((resolve) => {
      const probe = createServer().listen(0, "127.0.0.1", () => {
        const { port } = probe.address();
        probe.close(() => resolve(port));
      });
    });
    server.url = `http://127.0.0.1:${server.port}/v1`;
    server.start();
    await until(() => server.isReady(), 60, "a server that is ready");
    return server;
  }
  start() {
    const [program, ...args] = process.env.SERVE.split(" ");
    this.process = spawn(program, [...args, "--port", String(this.port)], { stdio: "ignore" });
    this.gone = new Promise((resolve) => this.process.on("exit", resolve));
  }
  async isReady() {
    try {
      return (await fetch(this.url.replace("/v1", "/health"))).status === 200;
    } catch {
      return false;
    }
  }
}
