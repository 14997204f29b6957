// meter.js - measures one answer while it streams. Times in milliseconds, speeds in tokens per second.

const windowMs = 1500; // speed is shown over the last so many ms: steady enough to read
const sampleMs = 200; // between points of the curve, at first
const mostSamples = 600;

/** What `figures` of a message holds when its answer is over; null or absent: not known.
 *  {ttftMs, tokens, perSecond, promptTokens, cachedTokens, miss, drafted, accepted, byPosition: [0..1],
 *   queueMs, seed, series: [[seconds], [tokens per second]], live} */
export class Meter {
  constructor() {
    this.start = performance.now();
    this.firstAt = 0;
    this.tokens = 0;
    this.recent = []; // [time, tokens so far], covering windowMs
    this.sampledAt = 0;
    this.sampleMs = sampleMs;
    this.figures = { series: [[], []], live: true };
  }

  chunk(chunk) {
    const now = performance.now();
    const delta = chunk.choices?.[0]?.delta;
    if (delta && !chunk.choices[0].finish_reason) this.#token(now, chunk.usage?.completion_tokens);
    if (chunk.usage) this.#usage(chunk.usage);
    if (chunk.timings) this.#timings(chunk.timings);
  }

  /** Every chunk is a token, unless the server counts for us (its chunks may hold several). */
  #token(now, counted) {
    this.tokens = counted ?? this.tokens + 1;
    if (!this.firstAt) {
      this.firstAt = now;
      this.figures.ttftMs = now - this.start;
    }
    this.figures.tokens = this.tokens;
    this.recent.push([now, this.tokens]);
    while (this.recent.length > 2 && now - this.recent[0][0] > windowMs) this.recent.shift();
    const [then, before] = this.recent[0];
    if (now - then < sampleMs) return;
    this.figures.perSecond = (1000 * (this.tokens - before)) / (now - then);
    if (now - this.sampledAt >= this.sampleMs) this.#sample(now);
  }

  #sample(now) {
    this.sampledAt = now;
    const [seconds, speeds] = this.figures.series;
    if (!seconds.length) { // the curve begins with the first token
      seconds.push(0);
      speeds.push(Math.round(10 * this.figures.perSecond) / 10);
    }
    seconds.push(Math.round((now - this.firstAt) / 10) / 100);
    speeds.push(Math.round(10 * this.figures.perSecond) / 10);
    if (seconds.length < mostSamples) return;
    this.sampleMs *= 2; // a long answer: every other point will do
    this.figures.series = this.figures.series.map((list) => list.filter((_, i) => i % 2 === 0));
  }

  #usage(usage) {
    const of = usage.completion_tokens_details ?? {};
    Object.assign(this.figures, {
      tokens: usage.completion_tokens,
      promptTokens: usage.prompt_tokens,
      cachedTokens: usage.prompt_tokens_details?.cached_tokens ?? 0,
    });
    if (of.accepted_prediction_tokens === undefined) return;
    this.figures.accepted = of.accepted_prediction_tokens;
    this.figures.drafted = of.accepted_prediction_tokens + (of.rejected_prediction_tokens ?? 0);
  }

  #timings(t) {
    Object.assign(this.figures, {
      perSecond: t.predicted_per_second ?? this.figures.perSecond,
      drafted: t.draft_n,
      accepted: t.draft_n_accepted,
      miss: t.cache_miss ?? '',
      queueMs: t.queue_ms,
      prefillMs: t.prompt_ms,
      seed: t.seed,
    });
    const positions = t.draft_accepted_per_position;
    if (positions?.length) this.figures.byPosition = shares(positions, t.draft_verifies, t.draft_n);
  }

  /** The answer is over: what message.figures keeps. */
  end() {
    this.figures.live = false;
    const { series, perSecond } = this.figures;
    if (!series[0].length && perSecond) { // too short for a curve: a level line
      series[0].push(0, this.tokens / perSecond);
      series[1].push(perSecond, perSecond);
    }
    return this.figures;
  }
}

/** Accepted at each position as a share of the verify runs. Where their number is not told, drafts of one
 *  length are assumed: then it is drafts / positions. */
export function shares(accepted, verifies, drafted) {
  const runs = verifies || drafted / accepted.length;
  return runs > 0 ? accepted.map((n) => Math.min(1, n / runs)) : [];
}
