// The controls of the filter: one menu a field, the ends of a range, and the words.
(function (E) {
  'use strict';

  const { h } = E;
  const TITLES = {
    transition: { c2c: 'right, stays right', c2i: 'right, made wrong', i2c: 'wrong, put right', i2i: 'wrong, stays wrong' },
    verdict: { true: 'true: agrees with the answer', false: 'false: contradicts it' },
    flag: { no_answer: 'no answer', no_variance: 'no variance', mismatch: 'sampler ≠ trainer', verifier: 'verifier error' },
  };
  const HIDDEN = ['bin', 'step_bin', 'question']; // set by charts; shown only where they limit

  E.valueTitle = (field, value) => TITLES[field.name]?.[value] ||
    (field.name === 'bin' ? `${value / 10} to ${(+value + 1) / 10}`
      : field.name === 'step_bin' ? `${parseInt(value, 10) / 10} to ${(parseInt(value, 10) + 1) / 10}, ${value.endsWith('r') ? 'right' : 'wrong'}` : value);

  // app: query, run, result, setFilter(name, value).
  function draw(root, app) {
    const open = [...root.querySelectorAll('details[open]')].map((e) => e.dataset.field);
    const focus = document.activeElement?.closest?.('#filters') ? document.activeElement.id : '';
    const { query, run } = app, search = root.querySelector('#text') || searchBox(app);
    const active = Object.keys(query).length;
    if (document.activeElement !== search && search.value.trim() !== (app.words || '')) search.value = app.words || '';
    const fields = run.fields.filter((field) => field.name !== 'text' && (!HIDDEN.includes(field.name) || query[field.name]));
    E.put(root, h('label', { class: 'search' }, h('span', { class: 'hidden' }, 'Search in all texts'), search, h('kbd', null, '/')),
      h('div', { class: `fields${app.menus ? ' open' : ''}` },
        E.button(active ? `Filter (${active})` : 'Filter', () => { app.menus = !app.menus; draw(root, app); }, { id: 'menus', 'aria-expanded': String(Boolean(app.menus)) }),
        h('div', { class: 'menus' }, fields.map((field) => (field.kind === 'range' ? range(field, app) : menu(field, app, open.includes(field.name)))))),
      active ? E.button('Clear', () => app.setQuery({}), { class: 'plain', id: 'clear' }) : null);
    if (focus) document.getElementById(focus)?.focus();
  }

  const searchBox = (app) => h('input', { id: 'text', type: 'search', placeholder: 'Search questions, answers, critiques', autocomplete: 'off', spellcheck: 'false',
    oninput: (event) => app.setWords(event.target.value),
    onkeydown: (event) => { if (event.key === 'Escape' || event.key === 'Enter') event.target.blur(); } });

  function menu(field, app, isOpen) {
    const wanted = app.query[field.name] || [];
    const counts = field.values ? E.filter.facet(app.run, field, app.result) : new Map();
    const values = (field.values || wanted).filter((v) => wanted.includes(v) || counts.get(v) || !HIDDEN.includes(field.name));
    if (!values.length) return null;
    const shown = wanted.map((v) => E.valueTitle(field, v)).join(', ');
    const toggle = (value, on) => app.setFilter(field.name, on ? [...wanted, value] : wanted.filter((v) => v !== value));
    return h('details', { class: `menu${wanted.length ? ' set' : ''}`, open: isOpen || undefined, 'data-field': field.name },
      h('summary', null, field.title, wanted.length ? h('b', null, shown.length > 30 ? `${shown.slice(0, 29)}…` : shown) : null),
      h('div', { class: 'options', role: 'group', 'aria-label': field.title },
        values.map((value) => h('label', null,
          h('input', { type: 'checkbox', id: `f-${field.name}-${field.values ? field.values.indexOf(value) : 0}`, checked: wanted.includes(value),
            onchange: (event) => toggle(value, event.target.checked) }),
          h('span', null, E.valueTitle(field, value)), h('small', null, E.count(counts.get(value) || 0)))),
        wanted.length ? E.button('any', () => app.setFilter(field.name, []), { class: 'plain' }) : null));
  }

  function range(field, app) {
    const [low, high] = app.query[field.name] || [null, null];
    const read = (text, old) => (text.trim() === '' ? null : Number.isFinite(Number(text)) ? Number(text) : old);
    const end = (which, value) => h('input', { type: 'text', inputmode: 'decimal', size: 4, id: `f-${field.name}-${which}`,
      'aria-label': `${field.title}, ${which}`, placeholder: which === 'least' ? 'min' : 'max', value: value ?? '',
      onchange: (event) => {
        const number = read(event.target.value, value);
        const both = which === 'least' ? [number, high] : [low, number];
        app.setFilter(field.name, both.some((n) => n !== null) ? both : []);
      } });
    return h('span', { class: `range${low !== null || high !== null ? ' set' : ''}` }, h('span', null, field.title), end('least', low), '–', end('most', high));
  }

  // A menu closes when something outside it is used.
  document.addEventListener('click', (event) => {
    for (const menu of document.querySelectorAll('details.menu[open]')) {
      if (!menu.contains(event.target) && event.target.isConnected) menu.open = false;
    }
  });

  E.filterbar = { draw };
})(elenchus);
