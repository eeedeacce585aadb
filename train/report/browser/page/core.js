// The one name of the page, `elenchus`; elements; numbers as text.
// Scripts of a page that was opened from disk cannot be modules: each adds its part to the name.
globalThis.elenchus = {};

(function (E) {
  'use strict';

  E.received = new Map();

  // Called by every file of data.
  E.receive = (name, value) => E.received.set(name, value);

  // Builds an element. Text becomes text nodes: nothing of it is ever read as HTML.
  E.h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

  E.svg = (tag, attributes, ...children) =>
    fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);

  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
      else if (name === 'vars') for (const [n, v] of Object.entries(value)) element.style.setProperty(n, v);
      else if (name === 'value' || name === 'checked' || name === 'open') element[name] = value;
      else element.setAttribute(name, value === true ? '' : value);
    }
    add(element, children);
    return element;
  }

  function add(element, children) {
    for (const child of children) {
      if (child === null || child === undefined || child === false) continue;
      if (Array.isArray(child)) add(element, child);
      else element.append(child instanceof Node ? child : String(child));
    }
  }

  E.put = (element, ...children) => {
    element.replaceChildren();
    add(element, children);
    return element;
  };

  E.known = (value) => value !== null && value !== undefined;

  E.count = (value) => (E.known(value) ? Math.round(value).toLocaleString('en') : '–');

  E.number = (value, digits = 2) => {
    if (!E.known(value)) return '–';
    if (Number.isInteger(value)) return value.toLocaleString('en').replace('-', '−');
    const size = Math.abs(value);
    const text = size >= 1000 ? Math.round(value).toLocaleString('en')
      : size < 0.001 ? value.toExponential(1) : value.toFixed(size < 0.1 ? digits + 1 : digits);
    return text.replace('-', '−');
  };

  E.signed = (value, digits = 2) =>
    (E.known(value) && value > 0 ? '+' : '') + E.number(value, digits);

  E.percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : '–');

  E.plural = (n, word) => `${E.count(n)} ${word}${n === 1 ? '' : 's'}`;

  // A sign and a colour for a truth: 1 right, 0 wrong, null unknown.
  E.truth = (value) => (value === 1 ? 'right' : value === 0 ? 'wrong' : 'unknown');
  E.sign = (value) => (value === 1 ? '✓' : value === 0 ? '✗' : '·');

  E.mark = (value, text, title) =>
    E.h('span', { class: `mark ${E.truth(value)}`, title }, `${E.sign(value)} ${text}`.trim());

  E.say = (text) => { document.getElementById('status').textContent = text; };

  E.button = (text, onclick, attributes) =>
    E.h('button', { type: 'button', onclick, ...attributes }, text);

  // A table with headings; cells are text or elements.
  E.table = (head, rows, caption) => E.h('div', { class: 'scroll' }, E.h('table', null,
    caption && E.h('caption', null, caption),
    E.h('thead', null, E.h('tr', null, head.map((title) => E.h('th', { scope: 'col' }, title)))),
    E.h('tbody', null, rows.map((row) => E.h('tr', null, row.map((cell) => E.h('td', null, cell)))))));

  // A row of buttons of which one is pressed.
  E.choice = (label, options, value, onchoose) => E.h('div', { class: 'choice', role: 'group', 'aria-label': label },
    options.map(([key, title, hint]) => E.button(title, () => onchoose(key),
      { 'aria-pressed': String(key === value), title: hint })));
})(elenchus);
