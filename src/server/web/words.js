// words.js - numbers and server facts as people say them.

const whole = new Intl.NumberFormat('en');

export const count = (n) => whole.format(Math.round(n));
export const percent = (part, all) => (all > 0 ? `${Math.round((100 * part) / all)} %` : '–');

export function rate(perSecond) {
  if (!(perSecond > 0)) return '–';
  return perSecond < 100 ? perSecond.toFixed(1) : count(perSecond);
}

export function duration(ms) {
  if (!(ms >= 0)) return '–';
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.floor(ms / 60000)} min ${Math.round((ms % 60000) / 1000)} s`;
}

export function plural(n, one, many = `${one}s`) {
  return `${count(n)} ${n === 1 ? one : many}`;
}

export function day(time) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (time >= midnight) return 'Today';
  if (time >= midnight - 86400e3) return 'Yesterday';
  if (time >= midnight - 6 * 86400e3) return 'This week';
  return new Date(time).toLocaleDateString(undefined, { year: 'numeric', month: 'long' });
}

/** Why an answer ended, where that is worth a word. */
export function endOf(finishReason, stopReason) {
  if (finishReason === 'length') return 'The answer reached its token limit.';
  if (stopReason === 'loop') return 'Stopped: the answer had begun to repeat itself.';
  return '';
}
