// messages.js - the conversation as it is seen: one view per message, and where the window is scrolled.

import { copyButton, el, icon, iconButton } from './dom.js';
import { MarkdownView } from './markdown.js';
import { duration, plural, rate } from './words.js';

const nearEnd = 60; // pixels: so close to the end counts as at it

class UserView {
  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    this.root = el('article', { class: 'user', 'aria-label': 'You' });
    this.#rest();
  }

  #rest() {
    this.root.replaceChildren(
      el('div', { class: 'bubble' }, this.message.content),
      el('div', { class: 'tools' },
        copyButton('Copy the message', () => this.message.content),
        iconButton('edit', 'Edit and send again', () => this.#edit())),
    );
  }

  #edit() {
    const area = el('textarea', { 'aria-label': 'Edit the message', rows: 3 });
    area.value = this.message.content;
    const done = () => area.value.trim() && this.actions.resend(this.message, area.value.trim());
    area.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') { event.stopPropagation(); this.#rest(); }
      if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) { event.preventDefault(); done(); }
    });
    this.root.replaceChildren(el('div', { class: 'edit' }, area,
      el('div', { class: 'edit-foot' },
        el('span', { class: 'hint' }, 'What follows this message is replaced.'),
        el('button', { type: 'button', class: 'quiet', onclick: () => this.#rest() }, 'Cancel'),
        el('button', { type: 'button', class: 'primary', onclick: done }, 'Send again'))));
    area.focus();
  }

  update() {}
}

class AnswerView {
  constructor(message, actions) {
    this.message = message;
    this.touched = false; // the reader opened or closed the thinking: then it stays as it is
    this.thought = el('div', { class: 'thought', tabindex: 0 });
    this.thinkingTitle = el('span');
    this.thinking = el('details', { class: 'thinking', hidden: true },
      el('summary', { onclick: () => { this.touched = true; } }, icon('chevron'), this.thinkingTitle), this.thought);
    this.answer = el('div', { class: 'answer' });
    this.markdown = new MarkdownView(this.answer);
    this.notice = el('div', { class: 'notice', hidden: true });
    this.facts = el('span', { class: 'facts' });
    this.again = iconButton('again', 'Answer again', () => actions.regenerate(message));
    this.again.classList.add('again');
    this.tools = el('div', { class: 'tools' }, copyButton('Copy the answer', () => message.content), this.again, this.facts);
    this.root = el('article', { class: 'assistant', 'aria-label': 'Answer' }, this.thinking, this.answer, this.notice, this.tools);
    this.actions = actions;
    this.update(false);
  }

  /** live: it still streams. */
  update(live) {
    this.root.classList.toggle('live', live);
    this.#updateThinking(live);
    this.markdown.show(this.message.content, !live);
    this.#updateNotice();
    this.facts.textContent = live ? '' : factsOf(this.message.figures);
  }

  #updateThinking(live) {
    const { reasoning, content, thinkMs } = this.message;
    this.thinking.hidden = !reasoning;
    if (!reasoning) return;
    const now = live && !content;
    if (!this.touched) this.thinking.open = now;
    this.thinking.classList.toggle('now', now);
    this.thinkingTitle.textContent = now ? `Thinking, ${duration(thinkMs ?? 0)}` : `Thought for ${duration(thinkMs)}`;
    const atEnd = this.thought.scrollHeight - this.thought.scrollTop - this.thought.clientHeight < nearEnd;
    appendText(this.thought, reasoning);
    if (now && atEnd) this.thought.scrollTop = this.thought.scrollHeight;
  }

  #updateNotice() {
    const notice = this.message.notice;
    this.notice.hidden = !notice;
    if (!notice) return;
    this.notice.className = `notice ${notice.kind}`;
    const buttons = (notice.buttons ?? []).map(({ label, run }) =>
      el('button', { type: 'button', onclick: () => run(this.message) }, label));
    this.notice.replaceChildren(el('span', {}, notice.text), ...buttons);
  }
}

/** Adds what is new at the end of a text node, so that the rest is not laid out again. */
function appendText(element, text) {
  const node = element.firstChild ?? element.appendChild(document.createTextNode(''));
  if (text.startsWith(node.data)) node.appendData(text.slice(node.data.length));
  else node.data = text;
}

function factsOf(figures) {
  if (!figures?.tokens) return '';
  const parts = [plural(figures.tokens, 'token')];
  if (figures.perSecond) parts.push(`${rate(figures.perSecond)} / s`);
  if (figures.ttftMs) parts.push(`first in ${duration(figures.ttftMs)}`);
  return parts.join(' · ');
}

/** The scrolled list. actions: {resend(message, text), regenerate(message)}. */
export class MessageList {
  constructor(scroller, list, toEnd, actions) {
    Object.assign(this, { scroller, list, toEnd, actions });
    this.views = new Map();
    this.follow = true; // the reader is at the end, so it stays in sight
    this.lastTop = 0;
    scroller.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    toEnd.addEventListener('click', () => { this.scrollToEnd(); scroller.focus(); });
    new ResizeObserver(() => this.#keepEnd()).observe(list);
    new ResizeObserver(() => this.#keepEnd()).observe(scroller);
  }

  /** Only a way up is the reader's: text may have grown between our own scrolling and its event. */
  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    if (scrollHeight - scrollTop - clientHeight < nearEnd) this.follow = true;
    else if (scrollTop < this.lastTop) this.follow = false;
    this.lastTop = scrollTop;
    this.toEnd.hidden = this.follow;
  }

  #keepEnd() {
    if (this.follow) this.scroller.scrollTop = this.scroller.scrollHeight;
    else this.#scrolled();
  }

  scrollToEnd() {
    this.follow = true;
    this.#keepEnd();
  }

  /** Shows messages; liveMessage is the one that streams, or null. */
  show(messages, liveMessage) {
    const Kind = { user: UserView, assistant: AnswerView };
    this.views = new Map(messages.map((m) => [m, new Kind[m.role](m, this.actions)]));
    this.list.replaceChildren(...[...this.views.values()].map((view) => view.root));
    if (liveMessage) this.update(liveMessage, true);
    this.scrollToEnd();
  }

  add(message, live) {
    const view = message.role === 'user' ? new UserView(message, this.actions) : new AnswerView(message, this.actions);
    this.views.set(message, view);
    this.list.append(view.root);
    if (live) view.update(true);
  }

  update(message, live) {
    this.views.get(message)?.update(live);
  }
}
