// markdown.js - the model's Markdown as safe elements, cheap to update while it streams.
//
// marked parses, DOMPurify cleans, and what is left gets our copy buttons. Nothing is loaded from
// elsewhere: a picture with an outside address becomes a link, since fetching it would tell its host.

import { Marked } from './vendor/marked.esm.js';
import { copyButton, el } from './dom.js';

const marked = new Marked({
  gfm: true,
  renderer: { checkbox: ({ checked }) => (checked ? '☑ ' : '☐ ') },
});

const clean = {
  USE_PROFILES: { html: true },
  FORBID_TAGS: ['style', 'form', 'input', 'button', 'select', 'textarea', 'option', 'dialog', 'video', 'audio', 'source'],
  FORBID_ATTR: ['style', 'id', 'name', 'tabindex', 'autofocus', 'srcset', 'background'],
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

function safeImage(image) {
  if (image.getAttribute('src')?.startsWith('data:image/')) return;
  const address = image.getAttribute('src') ?? '';
  const text = image.getAttribute('alt') || address || 'image';
  image.replaceWith(/^https?:/.test(address) ? outsideLink(el('a', { href: address }, text)) : text);
}

function outsideLink(link) {
  link.target = '_blank';
  link.rel = 'noopener noreferrer';
  return link;
}

function frameCode(pre) {
  const code = pre.querySelector('code') ?? pre;
  const language = /\blanguage-(\S+)/.exec(code.className)?.[1] ?? '';
  const copy = copyButton('Copy the code', () => code.textContent);
  const frame = el('div', { class: 'code' }, el('div', { class: 'code-head' }, el('span', {}, language), copy));
  pre.replaceWith(frame);
  frame.append(pre);
  pre.tabIndex = 0; // so that a keyboard can scroll it
}

function frameTable(table) {
  const frame = el('div', { class: 'table', tabindex: 0 });
  table.replaceWith(frame);
  frame.append(table);
}

function render(token) {
  const fragment = DOMPurify.sanitize(marked.parser([token]), clean);
  for (const element of fragment.querySelectorAll('[class]')) { // our style sheet is not the model's to use
    if (element.tagName !== 'CODE' || !/^language-[^\s]+$/.test(element.className)) element.removeAttribute('class');
  }
  fragment.querySelectorAll('img').forEach(safeImage);
  fragment.querySelectorAll('a[href]').forEach(outsideLink);
  fragment.querySelectorAll('pre').forEach(frameCode);
  fragment.querySelectorAll('table').forEach(frameTable);
  return [...fragment.childNodes];
}

/** Shows a growing text in `element`. Blocks whose source did not change keep their elements, so that a
 *  long answer costs no more per token than a short one, and a selection in it survives. */
export class MarkdownView {
  constructor(element) {
    this.element = element;
    this.blocks = []; // {raw, nodes}
  }

  /** whole: render everything again (a link's definition may stand at the end). */
  show(text, whole = false) {
    const tokens = marked.lexer(text).filter((token) => token.type !== 'space');
    let same = 0;
    while (!whole && same < tokens.length && this.blocks[same]?.raw === tokens[same].raw) same++;
    for (const block of this.blocks.splice(same)) for (const node of block.nodes) node.remove();
    for (const token of tokens.slice(same)) {
      const nodes = render(token);
      this.element.append(...nodes);
      this.blocks.push({ raw: token.raw, nodes });
    }
  }
}
