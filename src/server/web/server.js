// server.js - what the page knows of its server: is it there, what does it run, how busy is it.

import { ApiError, getJson, getText } from './api.js';
import { shares } from './meter.js';

const awayMs = 2000; // between looks while it loads or cannot be reached
const busyMs = 1500; // between looks at the metrics while an answer streams
const idleMs = 10000;

/** state: 'connecting', 'loading', 'away', 'key' (it wants one), 'ready', 'failed'. `changed` is called
 *  after every change of any field. */
export class Server {
  constructor(changed) {
    this.changed = changed;
    this.state = 'connecting';
    this.message = '';
    this.progress = null;   // 0 to 1 while loading, null: not known
    this.model = '';
    this.context = 0;       // tokens
    this.defaults = {};     // of sampling
    this.calmDefaults = {}; // without thinking
    this.vision = false;
    this.notes = [];        // lines of the self-test
    this.running = null;
    this.waiting = null;
    this.drafts = null;     // {verifies, accepted: [...]} since the server started
    this.busy = false;      // an answer streams: look more often
    this.timer = 0;
    document.addEventListener('visibilitychange', () => { if (!document.hidden) this.look(); });
  }

  /** Looks now, and again after a while; called early, it only hurries. */
  async look() {
    clearTimeout(this.timer);
    try {
      if (this.state !== 'ready') await this.#connect();
      await this.#measure();
    } catch (error) {
      this.failed(error);
    }
    this.changed();
    clearTimeout(this.timer);
    const pause = this.state !== 'ready' ? awayMs : this.busy ? busyMs : idleMs;
    if (!document.hidden && this.state !== 'key') this.timer = setTimeout(() => this.look(), pause);
  }

  /** An error somebody met: what it tells of the server's state. */
  failed(error) {
    if (!(error instanceof ApiError)) throw error;
    this.message = error.message;
    if (error.status === 401) this.state = 'key';
    else if (error.status === 503) {
      this.state = error.code === 'engine_failed' ? 'failed' : 'loading';
      this.progress = error.progress;
    } else if (error.status === 0 && error.code === 'unreachable') this.state = 'away';
    this.changed();
  }

  async #connect() {
    await getText('health');
    const [props, models] = await Promise.all([getJson('props'), getJson('v1/models')]);
    const general = props.default_generation_settings ?? {};
    this.defaults = general.params ?? {};
    this.calmDefaults = general.params_without_thinking ?? this.defaults;
    this.model = models.data?.[0]?.id ?? '';
    this.context = general.n_ctx ?? models.data?.[0]?.max_model_len ?? 0;
    this.vision = Boolean(props.modalities?.vision);
    this.notes = notesOf(props);
    this.message = '';
    this.state = 'ready';
  }

  async #measure() {
    const metrics = await getText('metrics');
    const value = (name) => {
      const found = metrics.match(new RegExp(`^${name}\\{[^}]*\\} (\\S+)`, 'm'));
      return found ? Number(found[1]) : null;
    };
    this.running = value('vllm:num_requests_running');
    this.waiting = value('vllm:num_requests_waiting');
    const verifies = value('vllm:spec_decode_num_drafts_total');
    const positions = [...metrics.matchAll(/^vllm:spec_decode_num_accepted_tokens_per_pos_total\{[^}]*\bposition="(\d+)"[^}]*\} (\S+)/gm)];
    const accepted = [];
    for (const [, position, n] of positions) accepted[position] = Number(n);
    this.drafts = verifies === null ? null : { verifies, accepted };
  }

  /** Acceptance by position of everything decoded since `before` (an earlier `drafts`). */
  acceptanceSince(before) {
    if (!this.drafts || !before) return [];
    const verifies = this.drafts.verifies - before.verifies;
    const accepted = this.drafts.accepted.map((n, i) => n - (before.accepted[i] ?? 0));
    while (accepted.length && accepted.at(-1) === 0) accepted.pop();
    return verifies > 0 ? shares(accepted, verifies, 0) : [];
  }
}

/** What the self-test at start found, one line per subject. */
function notesOf(props) {
  return Object.entries(props.self_test ?? {})
    .filter(([, finding]) => finding?.note)
    .map(([subject, finding]) => `${subject}: ${finding.note}`);
}
