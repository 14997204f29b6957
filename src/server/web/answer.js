// answer.js - one request for an answer, with the waiting and retrying that a person would do by hand.

import { ApiError, streamChat } from './api.js';
import { Meter } from './meter.js';
import { requestFields, systemPrompt } from './settings.js';
import { endOf, plural } from './words.js';

/** The API's messages: the reasoning goes back too, so that the server finds its own text in the cache.
 *  Answers that failed or were stopped before they said anything are left out. */
function history(messages) {
  const said = messages.filter(({ content }) => content);
  const out = said.map(({ role, content, reasoning }) => (reasoning ? { role, content, reasoning_content: reasoning } : { role, content }));
  return systemPrompt() ? [{ role: 'system', content: systemPrompt() }, ...out] : out;
}

function requestOf(messages) {
  return {
    messages: history(messages),
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
    ...requestFields(),
  };
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      reject(new DOMException('stopped', 'AbortError'));
    }, { once: true });
  });
}

/** An answer on its way: fills `message`, the last of chat.messages. hooks: {changed(answer): something to
 *  show, wantKey(message): resolves to whether there is one now, failed(error): news of the server}. */
export class Answer {
  constructor(chat, message, hooks) {
    Object.assign(this, { chat, message, hooks });
    this.controller = new AbortController();
    this.meter = new Meter();
    this.thinkingSince = 0;
    this.#wait();
  }

  stop() {
    this.controller.abort();
  }

  /** The time is told, since a long prompt takes a while. */
  #wait() {
    const seconds = Math.floor((performance.now() - this.meter.start) / 1000);
    this.message.notice = { kind: 'wait', text: `Waiting for the first token${seconds ? `, ${seconds} s` : ''}`, first: true };
  }

  #tick() {
    if (!this.message.notice?.first) return;
    this.#wait();
    this.hooks.changed(this);
  }

  /** Ends when the answer is over, however it ended; never throws. */
  async run() {
    const request = requestOf(this.chat.messages.slice(0, -1));
    const ticking = setInterval(() => this.#tick(), 1000);
    try {
      while (!(await this.#attempt(request)));
    } catch (error) {
      if (error.name !== 'AbortError') throw error;
      this.message.notice = { kind: 'end', text: 'Stopped.' };
    } finally {
      clearInterval(ticking);
      this.#thinkingTime();
      this.message.figures = this.meter.end();
      this.hooks.changed(this);
    }
  }

  /** False: to be tried again. */
  async #attempt(request) {
    this.meter = new Meter();
    this.#wait();
    try {
      for await (const chunk of streamChat(request, this.controller.signal)) this.#take(chunk);
      return true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      return !(await this.#recover(error));
    }
  }

  #take(chunk) {
    this.meter.chunk(chunk);
    const choice = chunk.choices?.[0];
    const { reasoning_content: reasoning, reasoning: short, content } = choice?.delta ?? {};
    if (reasoning || short) {
      this.thinkingSince ||= performance.now();
      this.message.reasoning += reasoning || short;
    }
    if (!this.message.content) this.#thinkingTime();
    if (content) this.message.content += content;
    if (reasoning || short || content) this.message.notice = null;
    if (choice?.finish_reason) this.#finish(choice);
    this.hooks.changed(this);
  }

  #thinkingTime() {
    if (this.thinkingSince && !this.message.content) this.message.thinkMs = performance.now() - this.thinkingSince;
  }

  #finish(choice) {
    const words = endOf(choice.finish_reason, choice.stop_reason);
    this.message.notice = words ? { kind: 'end', text: words } : null;
  }

  /** True: try again. Otherwise the message says what went wrong. */
  async #recover(error) {
    this.hooks.failed(error);
    if (error.status === 401 && (await this.hooks.wantKey(error.message))) return true;
    if (error.status === 429) return this.#countdown(error, 'The server is full');
    if (error.status === 503 && error.code !== 'engine_failed') return this.#countdown(error, error.message);
    this.#fail(error);
    return false;
  }

  async #countdown(error, why) {
    const sentence = why.replace(/\.$/, '');
    for (let left = error.retryAfter || 5; left > 0; left--) {
      this.message.notice = { kind: 'wait', text: `${sentence}. Trying again in ${plural(left, 'second')}.` };
      this.hooks.changed(this);
      await pause(1000, this.controller.signal);
    }
    return true;
  }

  #fail(error) {
    this.message.notice = { kind: 'error', text: error.message, buttons: [{ label: 'Try again', run: this.hooks.again }] };
    this.hooks.changed(this);
  }
}
