// api.js - talking to the server: keys, errors, event streams.

import { get } from './store.js';

/** A request that failed. status 0: no answer at all; 'cut' in code: the stream ended too early. */
export class ApiError extends Error {
  constructor(status, code, message, more = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = more.retryAfter || 0; // seconds, 0: not said
    this.progress = more.progress ?? null;  // of loading, 0 to 1
  }
}

function headers(json) {
  const out = json ? { 'Content-Type': 'application/json' } : {};
  if (get('key')) out.Authorization = `Bearer ${get('key')}`;
  return out;
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

async function errorOf(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // A proxy's page, or nothing: the status has to do.
  }
  const message = error.message || `The server answered ${response.status} ${response.statusText}`.trim();
  const retryAfter = Number(response.headers.get('Retry-After'));
  return new ApiError(response.status, error.code, sentence(message), { retryAfter, progress: error.progress });
}

/** Paths are relative to the page. Throws ApiError; an abort passes through as AbortError. */
async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { cache: 'no-store', ...options });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError(0, 'unreachable', 'The server cannot be reached.');
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

export const getJson = async (path) => (await ask(path, { headers: headers(false) })).json();
export const getText = async (path) => (await ask(path, { headers: headers(false) })).text();

/** Whole events as they come in: strings between blank lines. */
async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let held = '';
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (held + decoder.decode(value, { stream: true })).split('\n\n');
      held = parts.pop();
      yield* parts;
    }
  } finally {
    reader.cancel().catch(() => {}); // frees the connection where the caller stops early
  }
}

/** Chunks of a streamed chat completion. Throws ApiError when refused, failed, or cut off. */
export async function* streamChat(request, signal) {
  const body = JSON.stringify(request);
  const response = await ask('v1/chat/completions', { method: 'POST', headers: headers(true), body, signal });
  let complete = false;
  try {
    for await (const event of events(response.body)) {
      if (!event.startsWith('data: ')) continue; // a comment: the server says it is alive
      const data = event.slice(6);
      complete = data === '[DONE]';
      if (complete) continue; // to the end of the body, so that the connection can be used again
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(200, chunk.error.code, sentence(chunk.error.message));
      yield chunk;
    }
  } catch (error) {
    if (error.name === 'AbortError' || error instanceof ApiError) throw error;
  }
  if (!complete) throw new ApiError(0, 'cut', 'The connection was lost before the answer was complete.');
}
