// settings.js - the dialogs: sampling, system prompt and key. An empty field means the server's default.

import { el, toast } from './dom.js';
import { get, set } from './store.js';

// name: the API's, also among the server's defaults. plain: the placeholder where there is no such default.
const numbers = [
  { name: 'temperature', label: 'Temperature', min: 0, max: 2, step: 'any', hint: '0: always the likeliest token' },
  { name: 'top_p', label: 'Top p', min: 0, max: 1, step: 'any' },
  { name: 'top_k', label: 'Top k', min: -1, max: 1000000, step: 1, hint: '0: off' },
  { name: 'min_p', label: 'Min p', min: 0, max: 1, step: 'any' },
  { name: 'presence_penalty', label: 'Presence penalty', min: -2, max: 2, step: 'any' },
  { name: 'frequency_penalty', label: 'Frequency penalty', min: -2, max: 2, step: 'any' },
  { name: 'repetition_penalty', label: 'Repetition penalty', min: 0.01, max: 100, step: 'any' },
  { name: 'seed', label: 'Seed', min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, plain: 'random' },
  { name: 'max_tokens', label: 'Max tokens', min: 1, max: 10000000, step: 1, plain: 'no limit' },
  { name: 'thinking_token_budget', label: 'Thinking budget', min: 0, max: 10000000, step: 1, plain: 'no limit' },
];

/** What a request carries of the settings. */
export function requestFields() {
  const kept = get('settings');
  const fields = {};
  for (const { name } of numbers) if (kept[name] !== undefined) fields[name] = kept[name];
  if (kept.thinking === 'on' || kept.thinking === 'off') fields.chat_template_kwargs = { enable_thinking: kept.thinking === 'on' };
  return fields;
}

export const systemPrompt = () => get('settings').system ?? '';

function defaultOf({ name, plain }, defaults) {
  const value = defaults[name];
  if (plain || typeof value !== 'number') return plain ?? 'default';
  return String(Number(value.toFixed(4)));
}

function numberField(spec) {
  const input = el('input', { type: 'number', name: spec.name, min: spec.min, max: spec.max, step: spec.step, inputmode: 'decimal',
    value: get('settings')[spec.name] ?? null });
  return el('label', {}, el('span', {}, spec.label), input, spec.hint && el('small', {}, spec.hint));
}

function thinkingField() {
  const choices = [['', 'Default'], ['on', 'On'], ['off', 'Off']];
  const now = get('settings').thinking ?? '';
  return el('fieldset', { class: 'choice' }, el('legend', {}, 'Thinking'),
    ...choices.map(([value, label]) =>
      el('label', {}, el('input', { type: 'radio', name: 'thinking', value, checked: value === now }), el('span', {}, label))));
}

function readForm(form) {
  const values = {};
  for (const { name } of numbers) {
    const text = form.elements[name].value;
    if (text !== '') values[name] = Number(text);
  }
  const thinking = form.elements.thinking.value;
  if (thinking) values.thinking = thinking;
  const system = form.elements.system.value.trim();
  if (system) values.system = system;
  return values;
}

function serverFacts(server) {
  if (!server.notes.length) return null;
  return el('div', { class: 'facts-box' }, el('span', {}, 'This server'), el('ul', {}, ...server.notes.map((note) => el('li', {}, note))));
}

/** Opens the settings; saved: called after they were changed. */
export function openSettings(dialog, server, saved) {
  const area = el('textarea', { name: 'system', rows: 3, placeholder: 'None' });
  area.value = get('settings').system ?? '';
  const key = el('input', { type: 'password', name: 'key', autocomplete: 'off', placeholder: 'None', value: get('key') || null });
  const form = el('form', {},
    el('h2', { id: 'settings-title' }, 'Settings'),
    el('label', { class: 'full' }, el('span', {}, 'System prompt'), area),
    thinkingField(),
    el('div', { class: 'fields' }, ...numbers.map(numberField)),
    el('label', { class: 'full' }, el('span', {}, 'API key'), key),
    serverFacts(server),
    el('div', { class: 'dialog-foot' },
      el('button', { type: 'button', class: 'quiet', onclick: () => clearForm(form, server) }, 'Defaults'),
      el('span', { class: 'space' }),
      el('button', { type: 'button', class: 'quiet', onclick: () => dialog.close() }, 'Cancel'),
      el('button', { type: 'submit', class: 'primary' }, 'Save')));
  form.addEventListener('change', () => showDefaults(form, server));
  showDefaults(form, server);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    set('settings', readForm(form));
    set('key', key.value.trim());
    dialog.close();
    toast('Settings saved');
    saved();
  });
  dialog.replaceChildren(form);
  dialog.showModal();
}

/** As placeholders; a model may want other ones when it does not think. */
function showDefaults(form, server) {
  const defaults = form.elements.thinking.value === 'off' ? server.calmDefaults : server.defaults;
  for (const spec of numbers) form.elements[spec.name].placeholder = defaultOf(spec, defaults);
}

function clearForm(form, server) {
  for (const { name } of numbers) form.elements[name].value = '';
  form.elements.thinking.value = '';
  showDefaults(form, server);
}

/** Asks for the API key; resolves to whether one was given. */
export function askKey(dialog, message) {
  return new Promise((resolve) => {
    const input = el('input', { type: 'password', autocomplete: 'off', required: true, 'aria-label': 'API key' });
    const form = el('form', {},
      el('h2', { id: 'key-title' }, 'This server wants an API key'),
      el('p', { class: 'hint' }, get('key') ? 'The key kept in this browser was refused. ' : '', message, ' It is kept in this browser.'),
      input,
      el('div', { class: 'dialog-foot' }, el('span', { class: 'space' }),
        el('button', { type: 'button', class: 'quiet', onclick: () => dialog.close() }, 'Cancel'),
        el('button', { type: 'submit', class: 'primary' }, 'Use this key')));
    let given = false;
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      given = true;
      set('key', input.value.trim());
      dialog.close();
    });
    dialog.onclose = () => resolve(given);
    dialog.replaceChildren(form);
    dialog.showModal();
  });
}
