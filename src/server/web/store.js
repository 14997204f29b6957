// store.js - what the browser keeps: conversations in IndexedDB, settings and the key in localStorage.
//
// A conversation: {id, title, created, updated, messages: [...]}, times in milliseconds.
// A message of the user: {role: 'user', content}. Of the model: {role: 'assistant', content, reasoning,
// thinkMs, figures, notice}; figures as meter.js makes them, notice: why it is incomplete.

const storeName = 'chats';

function request(make) {
  return new Promise((resolve, reject) => {
    const pending = make();
    pending.onsuccess = () => resolve(pending.result);
    pending.onerror = () => reject(pending.error);
  });
}

function openDatabase() {
  return request(() => {
    const opening = indexedDB.open('bellwether', 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(storeName, { keyPath: 'id' });
    return opening;
  });
}

/** Conversations. `lasting` is false where the browser gives no storage (private windows): then they
 *  live as long as the page. */
export async function openStore() {
  let database = null;
  try {
    database = await openDatabase();
  } catch {
    return { lasting: false, all: async () => [], put: async () => {}, remove: async () => {} };
  }
  const objects = (mode) => database.transaction(storeName, mode).objectStore(storeName);
  return {
    lasting: true,
    all: () => request(() => objects('readonly').getAll()),
    put: (chat) => request(() => objects('readwrite').put(chat)),
    remove: (id) => request(() => objects('readwrite').delete(id)),
  };
}

/** crypto.randomUUID exists only on https and localhost. */
function newId() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((b) => b.toString(16).padStart(2, '0')).join('');
}

export function newChat() {
  return { id: newId(), title: '', created: Date.now(), updated: Date.now(), messages: [] };
}

function read(name, fallback) {
  try {
    return JSON.parse(localStorage.getItem(`bellwether.${name}`)) ?? fallback;
  } catch {
    return fallback;
  }
}

function write(name, value) {
  try {
    localStorage.setItem(`bellwether.${name}`, JSON.stringify(value));
  } catch {
    // No room, or not allowed: the value holds until the page is closed.
  }
}

const kept = { settings: read('settings', {}), key: read('key', ''), strip: read('strip', false) };

export const get = (name) => kept[name];

export function set(name, value) {
  kept[name] = value;
  write(name, value);
}

const fileFormat = 'bellwether-conversations';

export function exportText(chats) {
  return JSON.stringify({ format: fileFormat, version: 1, chats }, null, 1);
}

const text = (value) => (typeof value === 'string' ? value : '');

const areNumbers = (list) => Array.isArray(list) && list.every(Number.isFinite);

function importedFigures(figures) {
  const out = Object.fromEntries(Object.entries(figures).filter(([, value]) => Number.isFinite(value)));
  const [seconds, speeds] = Array.isArray(figures.series) ? figures.series : [];
  const isCurve = areNumbers(seconds) && areNumbers(speeds) && seconds.length === speeds.length;
  return { ...out, miss: text(figures.miss), byPosition: areNumbers(figures.byPosition) ? figures.byPosition : [],
    series: isCurve ? [seconds, speeds] : [[], []] };
}

function importedMessage(message) {
  if (message?.role === 'user') return { role: 'user', content: text(message.content) };
  if (message?.role !== 'assistant') throw new Error(`it has a message with the role ${JSON.stringify(message?.role)}`);
  const out = { role: 'assistant', content: text(message.content), reasoning: text(message.reasoning) };
  if (Number.isFinite(message.thinkMs)) out.thinkMs = message.thinkMs;
  if (message.figures && typeof message.figures === 'object') out.figures = importedFigures(message.figures);
  return out;
}

/** Conversations of an exported file; throws with the reason in words. */
export function importText(json) {
  let file;
  try {
    file = JSON.parse(json);
  } catch {
    throw new Error('it is not JSON');
  }
  if (file?.format !== fileFormat || !Array.isArray(file.chats)) throw new Error('it is no export of this page');
  return file.chats.map((chat) => ({
    id: /^[0-9a-f]{24}$/.test(chat.id) ? chat.id : newId(),
    title: text(chat.title),
    created: Number(chat.created) || Date.now(),
    updated: Number(chat.updated) || Date.now(),
    messages: (Array.isArray(chat.messages) ? chat.messages : []).map(importedMessage),
  }));
}
