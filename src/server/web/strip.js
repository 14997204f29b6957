// strip.js - the live strip below the conversation: how fast, how well drafted, how much was cached.

import { el, icon } from './dom.js';
import { get, set } from './store.js';
import { count, duration, percent, plural, rate } from './words.js';

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Speed over the answer, by uPlot. Canvas takes no CSS variables, so a change of theme makes it anew. */
class SpeedChart {
  constructor(box) {
    this.box = box;
    this.plot = null;
    this.data = [[], []];
    new ResizeObserver(() => this.#resize()).observe(box);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#make());
  }

  #size() {
    return { width: this.box.clientWidth, height: this.box.clientHeight };
  }

  #make() {
    this.plot?.destroy();
    const { width, height } = this.#size();
    if (!width || !height) { this.plot = null; return; }
    const axes = height > 80; // drawn only where there is room to read them
    const axis = { show: axes, stroke: css('--muted'), font: '11px system-ui', grid: { stroke: css('--line'), width: 1 }, ticks: { show: false } };
    this.plot = new uPlot({
      width, height,
      padding: axes ? [8, 8, 0, 0] : [2, 1, 2, 1],
      legend: { show: false },
      cursor: { show: false },
      scales: { x: { time: false, range: (plot, low, high) => [0, high || 1] }, y: { range: (plot, low, high) => [0, Math.max(1, high * 1.1)] } },
      axes: [{ ...axis, size: 24, space: 70, values: (plot, ticks) => ticks.map((t) => `${t} s`) }, { ...axis, size: 40 }],
      series: [{}, { stroke: css('--accent'), fill: css('--accent-soft'), width: 1.5, points: { show: false } }],
    }, this.data, this.box);
  }

  #resize() {
    const { width, height } = this.#size();
    if (this.plot && this.plot.width === width && this.plot.height === height) return;
    this.#make();
  }

  show(data) {
    this.data = data;
    if (this.plot) this.plot.setData(data);
    else this.#make();
  }
}

function cell(name, label, title) {
  const value = el('span', { class: 'value' }, '–');
  const note = el('span', { class: 'note' });
  const root = el('div', { class: `cell ${name}`, title }, el('span', { class: 'label' }, label), value, note);
  return { root, value, note };
}

function put(target, value, note = '') {
  target.value.textContent = value;
  target.note.textContent = note;
}

export class Strip {
  constructor(root) {
    this.root = root;
    this.speed = cell('speed', 'Tokens / s', 'Tokens per second, over the last moments while it streams, over the answer at its end');
    this.chartBox = el('div', { class: 'chart', role: 'img', 'aria-label': 'Speed over the answer' });
    this.accepted = cell('accepted', 'Drafts accepted', 'Tokens the draft head guessed right; a bar per position of the draft');
    this.bars = el('span', { class: 'bars', role: 'img' });
    this.accepted.root.append(this.bars);
    this.cache = cell('cache', 'Prompt from cache', 'Prompt tokens that did not have to be computed again');
    this.first = cell('first', 'First token', 'From sending to the first token');
    this.queue = cell('queue', 'Requests', 'Requests this server works on and keeps waiting');
    this.room = cell('room', 'Context', 'Tokens of this conversation, and how many the server holds for one');
    this.meter = el('span', { class: 'meter' }, el('span'));
    this.room.root.append(this.meter);
    this.toggle = el('button', { type: 'button', class: 'icon small', 'aria-label': 'All figures', 'aria-expanded': 'false', onclick: () => this.#open(!get('strip')) }, icon('chevron'));
    root.append(this.speed.root, this.chartBox, this.accepted.root, this.cache.root, this.first.root, this.queue.root, this.room.root, this.toggle);
    this.chart = new SpeedChart(this.chartBox);
    this.#open(get('strip'));
  }

  #open(open) {
    set('strip', open);
    this.root.classList.toggle('open', open);
    this.toggle.setAttribute('aria-expanded', String(open));
  }

  /** figures of the answer in sight ({}: none yet), and the server's. byPosition: live acceptance. */
  show(figures, server, byPosition = figures.byPosition ?? []) {
    put(this.speed, rate(figures.perSecond), figures.tokens ? plural(figures.tokens, 'token') : '');
    this.chart.show(figures.series ?? [[], []]);
    this.#showAcceptance(figures, byPosition);
    this.#showCache(figures);
    put(this.first, duration(figures.ttftMs), figures.queueMs >= 10 ? `${duration(figures.queueMs)} queued` : '');
    const known = server.running !== null;
    put(this.queue, known ? `${count(server.running)} running` : '–', known ? `${count(server.waiting ?? 0)} waiting` : '');
    this.#showContext(figures, server);
  }

  #showAcceptance({ drafted, accepted }, byPosition) {
    const note = drafted ? `${count(accepted)} of ${count(drafted)}` : drafted === 0 ? 'no drafts' : '';
    put(this.accepted, drafted ? percent(accepted, drafted) : '–', note);
    while (this.bars.children.length > byPosition.length) this.bars.lastChild.remove();
    while (this.bars.children.length < byPosition.length) this.bars.append(el('i', {}, el('b')));
    byPosition.forEach((share, i) => { this.bars.children[i].firstChild.style.height = `${Math.round(100 * share)}%`; });
    const words = byPosition.map((share, i) => `position ${i + 1}: ${percent(share, 1)}`).join(', ');
    this.bars.setAttribute('aria-label', words || 'No drafts yet');
    this.bars.title = words;
  }

  #showCache({ promptTokens, cachedTokens, miss }) {
    if (promptTokens === undefined) return put(this.cache, '–');
    put(this.cache, `${count(cachedTokens)} of ${count(promptTokens)}`, miss ?? '');
    this.cache.root.title = miss || 'Prompt tokens that did not have to be computed again';
  }

  #showContext({ promptTokens, tokens }, { context }) {
    const used = (promptTokens ?? 0) + (tokens ?? 0);
    put(this.room, used ? count(used) : '–', context ? `of ${count(context)}` : '');
    this.meter.firstChild.style.width = context ? `${Math.min(100, (100 * used) / context)}%` : '0';
  }
}
