// app.js - puts the page together: which conversation is open, what streams, what the controls do.

import { Answer } from './answer.js';
import { byId, drawIcons, say, setIcon, toast } from './dom.js';
import { MessageList } from './messages.js';
import { Server } from './server.js';
import { askKey, openSettings } from './settings.js';
import { Sidebar, titleOf } from './sidebar.js';
import { exportText, importText, newChat, openStore } from './store.js';
import { Strip } from './strip.js';
import { percent } from './words.js';

const saveMs = 1500; // between saves while an answer streams
const hasKeyboard = matchMedia('(hover: hover)'); // elsewhere the focus would bring up a keyboard of glass

const store = await openStore();
let chats = await store.all();
let current = newChat(); // joins the list with its first message
const answers = new Map(); // chat -> Answer on its way

const server = new Server(() => showServer());
const sidebar = new Sidebar({ open: openChat, remove: removeChat });
const list = new MessageList(byId('scroller'), byId('messages'), byId('to-end'), { resend, regenerate });
const strip = new Strip(byId('strip'));
const input = byId('input');

// ---- conversations ---------------------------------------------------------------------------

function openChat(chat) {
  current = chat;
  list.show(chat.messages, answers.get(chat)?.message ?? null);
  showAll();
  if (hasKeyboard.matches) input.focus();
}

const interrupted = { kind: 'end', text: 'The page was closed before this answer was complete.' };

/** As storage keeps it: notices without their buttons, and an answer on its way as if the page closed now. */
function storable(chat) {
  const live = answers.get(chat)?.message;
  const messages = chat.messages.map((message) => {
    const { notice, ...rest } = message;
    if (message === live) return { ...rest, notice: interrupted };
    return notice ? { ...rest, notice: { kind: notice.kind, text: notice.text } } : rest;
  });
  return { ...chat, messages };
}

async function save(chat) {
  if (!chats.includes(chat)) return;
  chat.updated = Date.now();
  try {
    await store.put(storable(chat));
  } catch (error) {
    toast(`This conversation could not be kept: ${error.message}`);
  }
}

function removeChat(chat) {
  answers.get(chat)?.stop();
  chats = chats.filter((other) => other !== chat);
  store.remove(chat.id);
  if (chat === current) openChat(newChat());
  showSidebar();
  const back = () => { chats.push(chat); save(chat); showSidebar(); };
  toast(`"${titleOf(chat)}" deleted`, { label: 'Undo', run: back });
}

function exportChats() {
  const address = URL.createObjectURL(new Blob([exportText(chats.map(storable))], { type: 'application/json' }));
  const link = document.createElement('a');
  link.href = address;
  link.download = `bellwether-${new Date().toISOString().slice(0, 10)}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

async function importChats(file) {
  try {
    const incoming = importText(await file.text());
    const ids = new Set(incoming.map((chat) => chat.id));
    chats = [...chats.filter((chat) => !ids.has(chat.id)), ...incoming];
    for (const chat of incoming) await store.put(chat);
    if (ids.has(current.id)) openChat(incoming.find((chat) => chat.id === current.id));
    showSidebar();
    toast(`${incoming.length} imported`);
  } catch (error) {
    toast(`${file.name} was not imported: ${error.message}`);
  }
}

// ---- asking and answering --------------------------------------------------------------------

function send(text) {
  if (!chats.includes(current)) chats.push(current);
  current.title ||= text.replace(/\s+/g, ' ').slice(0, 60);
  const message = { role: 'user', content: text };
  current.messages.push(message);
  list.add(message, false);
  answer(current);
}

function answer(chat) {
  const message = { role: 'assistant', content: '', reasoning: '' };
  chat.messages.push(message);
  const run = new Answer(chat, message, { changed, wantKey, failed: (error) => server.failed(error), again: regenerate });
  run.draftsBefore = server.drafts;
  answers.set(chat, run);
  server.busy = true;
  if (chat === current) {
    list.add(message, true);
    list.scrollToEnd();
  }
  save(chat);
  showAll();
  server.look();
  run.run().finally(() => ended(run));
}

function ended(run) {
  if (answers.get(run.chat) === run) answers.delete(run.chat); // or another took its place
  server.busy = answers.size > 0;
  run.message.figures.byPosition ??= run.acceptance; // a stopped answer tells no more
  if (run.chat === current) {
    list.update(run.message, false);
    say(run.message.notice?.text ?? 'The answer is complete.');
  }
  save(run.chat);
  showAll();
  server.look();
}

/** Drops everything from `index` on and asks for a new answer. */
function rewind(chat, index) {
  answers.get(chat)?.stop();
  chat.messages.length = index;
  list.show(chat.messages, null);
  answer(chat);
  if (hasKeyboard.matches) input.focus(); // the button that had it is gone
}

function regenerate(message) {
  const index = current.messages.indexOf(message);
  if (index > 0) rewind(current, index);
}

function resend(message, text) {
  const index = current.messages.indexOf(message);
  if (index < 0) return;
  current.messages[index] = { role: 'user', content: text };
  if (index === 0) current.title = text.replace(/\s+/g, ' ').slice(0, 60);
  rewind(current, index + 1);
}

let keyQuestion = null;

/** One dialog, however many requests were refused. */
function wantKey(message) {
  keyQuestion ??= askKey(byId('key'), message).finally(() => { keyQuestion = null; });
  return keyQuestion;
}

// ---- showing ---------------------------------------------------------------------------------

/** At most once per frame, and rarer where showing is slow: a long answer must not slow its own stream. */
function changed(run) {
  if (run.pending) return;
  run.pending = true;
  const show = () => {
    run.pending = false;
    const began = performance.now();
    if (run.chat === current && answers.get(run.chat) === run) {
      list.update(run.message, true);
      showStrip();
    }
    if (began - (run.savedAt ?? began) > saveMs) save(run.chat);
    if (!run.savedAt || began - run.savedAt > saveMs) run.savedAt = began;
    run.cost = performance.now() - began;
  };
  setTimeout(() => requestAnimationFrame(show), Math.min(500, 3 * (run.cost ?? 0)));
}

function showStrip() {
  const run = answers.get(current);
  const last = current.messages.findLast((message) => message.figures);
  const figures = run?.meter.figures ?? last?.figures ?? {};
  // The server tells an answer's own acceptance at its end; until then everybody's since it began will do.
  if (run && !figures.byPosition) run.acceptance = server.acceptanceSince(run.draftsBefore);
  strip.show(figures, server, figures.byPosition ?? run?.acceptance);
}

function showServer() {
  byId('model').textContent = server.model;
  showBanner();
  showImageButton();
  showStrip();
  if (server.state === 'key' && !keyQuestion) wantKey(server.message).then((given) => given && server.look());
}

function showBanner() {
  const banner = byId('banner');
  const words = {
    loading: server.message || 'The model is loading.',
    away: 'The server cannot be reached. Looking for it every two seconds.',
    key: 'This server wants an API key: see the settings.',
    failed: server.message,
  }[server.state];
  banner.hidden = !words;
  if (!words) return;
  const done = server.state === 'loading' && server.progress !== null ? percent(server.progress, 1) : '';
  banner.textContent = done && !words.includes('%') ? `${words} ${done}` : words;
  banner.style.setProperty('--done', server.state === 'loading' ? String(server.progress ?? 0) : '0');
}

function showImageButton() {
  const ready = server.vision ? 'This page cannot send images.' : 'This server runs without vision.';
  const why = server.state === 'ready' ? ready : 'The server is not ready yet.';
  byId('image').title = why;
  byId('image').setAttribute('aria-description', why);
}

function showSidebar() {
  sidebar.show(chats, current, (chat) => answers.has(chat));
}

function showControls() {
  const streams = answers.has(current);
  const button = byId('send');
  setIcon(button, streams ? 'stop' : 'send');
  button.setAttribute('aria-label', streams ? 'Stop' : 'Send');
  button.title = streams ? 'Stop (Esc)' : 'Send (Enter)';
  button.disabled = !streams && !input.value.trim();
  document.body.classList.toggle('empty', current.messages.length === 0);
  byId('title').textContent = titleOf(current);
  document.title = current.title ? `${current.title} · Bellwether` : 'Bellwether';
}

function showAll() {
  showSidebar();
  showControls();
  showStrip();
}

// ---- controls --------------------------------------------------------------------------------

function fitInput() {
  input.style.height = 'auto';
  input.style.height = `${Math.min(input.scrollHeight, innerHeight * 0.4)}px`;
  showControls();
}

function submit() {
  const text = input.value.trim();
  if (!text || answers.has(current)) return;
  input.value = '';
  send(text);
  fitInput();
}

byId('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  if (answers.has(current)) answers.get(current).stop();
  else submit();
});
input.addEventListener('input', fitInput);
input.addEventListener('keydown', (event) => {
  // While an input method composes a word, Enter chooses it.
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || document.querySelector('dialog[open]')) return;
  if (sidebar.isOut) sidebar.slide(false);
  else answers.get(current)?.stop();
});
byId('image').addEventListener('click', () => toast(byId('image').title));
byId('new-chat').addEventListener('click', () => { sidebar.slide(false); openChat(newChat()); });
byId('open-settings').addEventListener('click', () => openSettings(byId('settings'), server, () => server.look()));
byId('export').addEventListener('click', exportChats);
byId('import').addEventListener('click', () => byId('import-file').click());
byId('import-file').addEventListener('change', async (event) => {
  for (const file of event.target.files) await importChats(file);
  event.target.value = '';
});

drawIcons();
showAll();
if (!store.lasting) toast('This browser gives no storage: conversations last as long as this page.');
server.look();
