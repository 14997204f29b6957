// dom.js - building elements; the few icons; copying text.

/** el('button', {class: 'x', onclick: f, 'aria-label': 'y'}, child, 'text'): an element.
 *  false, null and undefined attributes and children are left out. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const byId = (id) => document.getElementById(id);

// Strokes on a 24 x 24 grid.
const paths = {
  menu: 'M4 7h16M4 12h16M4 17h16',
  close: 'M6 6l12 12M18 6L6 18',
  plus: 'M12 5v14M5 12h14',
  send: 'M12 19V5M6 11l6-6 6 6',
  stop: 'M7 7h10v10H7z',
  down: 'M12 5v14M6 13l6 6 6-6',
  copy: 'M9 9h10v11H9zM5 15V4h10',
  check: 'M5 12.5l4.500 4.500L19 7.500',
  edit: 'M4 20l1-4L16 5l3 3L8 19zM13.500 7.500l3 3',
  again: 'M19 12a7 7 0 1 1-2-4.900M19 4v4h-4',
  trash: 'M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10.500 11v5M13.500 11v5',
  download: 'M12 4v11M7 11l5 5 5-5M5 20h14',
  upload: 'M12 16V5M7 9l5-5 5 5M5 20h14',
  sliders: 'M4 7h9M17 7h3M4 12h3M11 12h9M4 17h11M19 17h1M15 5v4M9 10v4M17 15v4',
  image: 'M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.500 9.200v.1',
  chevron: 'M7 10l5 5 5-5',
};

export function icon(name) {
  const namespace = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(namespace, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('class', `i-${name}`);
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(namespace, 'path');
  path.setAttribute('d', paths[name]);
  svg.append(path);
  return svg;
}

/** Draws the icons of buttons that stand in index.html. */
export function drawIcons(root = document) {
  for (const button of root.querySelectorAll('[data-icon]')) button.prepend(icon(button.dataset.icon));
}

export function setIcon(button, name) {
  button.querySelector('svg')?.replaceWith(icon(name));
}

export function iconButton(name, label, onclick) {
  return el('button', { type: 'button', class: 'icon small', 'aria-label': label, title: label, onclick }, icon(name));
}

/** navigator.clipboard exists only on https and localhost; a server in the local network has neither. */
async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = el('textarea', { class: 'hidden-text' });
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand('copy');
  area.remove();
  if (!done) throw new Error('the browser does not allow it');
}

/** A copy button; text() is asked when it is pressed. */
export function copyButton(label, text) {
  const button = iconButton('copy', label, async () => {
    try {
      await copyText(text());
    } catch (error) {
      toast(`Not copied: ${error.message}`);
      return;
    }
    setIcon(button, 'check');
    setTimeout(() => setIcon(button, 'copy'), 1500);
  });
  return button;
}

let toastTimer = 0;

/** A line at the bottom for some seconds; action: {label, run} adds a button. */
export function toast(text, action = null) {
  const box = byId('toast');
  const hide = () => { box.hidden = true; };
  box.replaceChildren(text);
  if (action) box.append(el('button', { type: 'button', onclick: () => { hide(); action.run(); } }, action.label));
  box.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(hide, action ? 8000 : 4000);
}

/** For those who listen instead of look. */
export function say(text) {
  byId('spoken').textContent = text;
}
