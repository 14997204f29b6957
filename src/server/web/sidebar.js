// sidebar.js - the list of conversations, newest first, by day; a drawer on narrow windows.

import { byId, el, iconButton } from './dom.js';
import { day } from './words.js';

export const titleOf = (chat) => chat.title || 'New conversation';

/** actions: {open(chat), remove(chat)} */
export class Sidebar {
  constructor(actions) {
    this.actions = actions;
    this.list = byId('chats');
    byId('open-sidebar').addEventListener('click', () => this.slide(true));
    byId('close-sidebar').addEventListener('click', () => this.slide(false));
    byId('shade').addEventListener('click', () => this.slide(false));
  }

  get isOut() {
    return document.body.classList.contains('sidebar-out');
  }

  slide(out) {
    if (out === this.isOut) return;
    document.body.classList.toggle('sidebar-out', out);
    byId('shade').hidden = !out;
    byId('open-sidebar').setAttribute('aria-expanded', String(out));
    byId(out ? 'close-sidebar' : 'open-sidebar').focus();
  }

  show(chats, current, running) {
    const items = [];
    let heading = '';
    for (const chat of [...chats].sort((a, b) => b.updated - a.updated)) {
      if (day(chat.updated) !== heading) items.push(el('li', { class: 'day' }, (heading = day(chat.updated))));
      items.push(this.#item(chat, chat === current, running(chat)));
    }
    this.list.replaceChildren(...items);
  }

  #item(chat, isCurrent, isRunning) {
    const open = el('button', { type: 'button', class: 'chat', 'aria-current': isCurrent ? 'true' : null,
      onclick: () => { this.slide(false); this.actions.open(chat); } }, el('span', {}, titleOf(chat)));
    const remove = iconButton('trash', `Delete "${titleOf(chat)}"`, () => this.actions.remove(chat));
    return el('li', { class: isRunning ? 'running' : '' }, open, remove);
  }
}
