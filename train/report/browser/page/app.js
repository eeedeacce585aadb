// The page: its state is the address; keys, views and the list.
(function (E) {
  'use strict';

  const { h } = E;
  const VIEWS = [['episodes', 'Episodes'], ['compare', 'Compare'], ['health', 'Health'], ['run', 'Run']];
  const SETTINGS = ['view', 'run', 'ep', 'show', 'heat', 'order', 'left', 'right', 'result', 'pair'];
  const ORDERS = { stored: ['as stored'], low: ['reward, low first', 'reward', 1], high: ['reward, high first', 'reward', -1],
    score: ["critic's score, high first", 'score', -1], long: ['tokens, most first', 'tokens', -1] };
  const KEYS = [['j k', 'next, previous episode'], ['n p', 'next, previous question'], ['/', 'search'], ['Esc', 'close'], ['1 2 3 4', 'views'], ['?', 'these keys']];
  const FILES = 16; // of texts that are read at a time
  const el = (id) => document.getElementById(id);

  const app = {
    settings: {}, query: {}, result: null, typed: null,
    setting: (name) => app.settings[name],
    get run() { return app.runs.find((run) => run.key === app.settings.run) || app.runs[0]; },
    get words() { return app.query.text || ''; },
    // Changes settings; a value of null removes one.
    set: (changes) => { settle(); go(app.query, { ...app.settings, ...changes }); },
    // Replaces the whole filter, with what is being typed.
    setQuery: (query, settings = { ...app.settings, ep: null }) => { app.typed = null; go(query, settings); },
    setFilter: (name, value) => { settle(); go({ ...app.query, [name]: value }, app.settings); },
    // Sets some fields of the filter and shows what they keep.
    pick: (changes, view) => { settle(); go({ ...app.query, ...changes }, { ...app.settings, ep: null, ...(view ? { view } : {}) }); },
    setWords: (text) => { app.typed = E.filter.normalised(text); clearTimeout(app.timer); app.timer = setTimeout(settle, 120); },
    open: (i, key) => app.set({ view: 'episodes', ep: i, ...(key ? { run: key } : {}) }),
    close: () => app.set({ ep: null }),
    move: (by) => { settle(); const at = app.ordered.indexOf(app.settings.ep); if (app.ordered.length) app.open(app.ordered[Math.max(0, Math.min(app.ordered.length - 1, at < 0 ? 0 : at + by))]); },
    // To the next episode of another question.
    jump: (by) => {
      settle();
      const { problem } = app.run.columns, list = app.ordered, at = list.indexOf(app.settings.ep);
      let n = at < 0 ? (by > 0 ? 0 : list.length - 1) : at;
      while (at >= 0 && list[n] !== undefined && problem[list[n]] === problem[list[at]]) n += by;
      if (list[n] !== undefined) app.open(list[n]);
    },
  };

  // Applies a search that was typed and still waits, before anything else changes the state.
  function settle() {
    const text = app.typed;
    app.typed = null;
    if (text !== null) go({ ...app.query, text }, app.settings, true);
  }

  function go(query, settings, quiet) {
    const others = Object.fromEntries(SETTINGS.map((name) => [name, settings[name] ?? null]));
    const address = E.filter.format(app.run.fields, query, others);
    if (address === (location.hash || '#')) return;
    if (quiet) location.replace(address);
    else location.hash = address;
    read(); // the event comes later, and a second key may come before it
  }

  // Reads the address and draws what changed.
  function read() {
    if (app.address === location.hash) return;
    app.address = location.hash;
    const settings = Object.fromEntries([...E.filter.items(location.hash)].filter(([name]) => SETTINGS.includes(name)).map(([name, value]) => [name, E.filter.decoded(value)]));
    const before = app.settings, asked = Number(settings.ep);
    app.settings = settings;
    settings.ep = 'ep' in settings && Number.isInteger(asked) && asked >= 0 && asked < app.run.size ? asked : undefined;
    const query = E.filter.parse(app.run.fields, location.hash), text = JSON.stringify(query);
    if (text !== app.last || before.run !== settings.run || !app.result) { app.last = text; app.query = query; filter(); }
    else if (before.order !== settings.order) sort();
    draw();
    if (settings.ep !== undefined) app.list.mark(settings.ep); // once it has its size
    else if (before.ep !== undefined) app.list.mark(null);
  }

  function filter() {
    const start = performance.now();
    app.result = E.filter.select(app.run, app.query);
    sort();
    E.filterbar.draw(el('filters'), app);
    app.filterTime = performance.now() - start;
    if (app.result.unread.length) void readTexts(app.result.unread, app.last);
  }

  // Loads the texts that a search has to read; what they add is shown from time to time.
  async function readTexts(unread, asked) {
    const files = [...new Set(unread.map((i) => Math.floor(i / app.run.about.chunk)))], { run } = app;
    let shown = performance.now();
    for (let n = 0; n < files.length; n += FILES) {
      try { await Promise.all(files.slice(n, n + FILES).map((file) => run.textFile(file))); } catch (error) { return E.say(error.message); }
      if (app.last !== asked || app.run !== run) return;
      E.say(`Searching: ${Math.min(n + FILES, files.length)} of ${files.length} parts`);
      if (performance.now() - shown < 1000 && n + FILES < files.length) continue;
      app.result = E.filter.select(run, app.query);
      sort();
      if (app.settings.ep === undefined) draw();
      shown = performance.now();
    }
    E.filterbar.draw(el('filters'), app);
    count();
  }

  const order = () => (Object.hasOwn(ORDERS, app.settings.order ?? '') ? app.settings.order : 'stored');

  function sort() {
    const [, column, side] = ORDERS[order()], { kept } = app.result;
    const values = column && app.run.columns[column];
    app.ordered = values ? [...kept].sort((a, b) => (E.known(values[b]) - E.known(values[a])) || side * (values[a] - values[b]) || a - b) : kept;
    app.list.options.render = (i) => E.episode.row(app.run, i);
    app.list.element.scrollTop = 0;
    app.list.show(app.ordered, app.settings.ep);
    count();
  }

  function count() {
    const text = `${E.count(app.result.kept.length)} of ${E.count(app.run.size)}`;
    E.put(el('count'), text);
    E.say(`${text} episodes`);
  }

  function draw() {
    const view = VIEWS.some(([name]) => name === app.settings.view) ? app.settings.view : 'episodes', root = el('view');
    document.body.dataset.view = view;
    el('order').value = order();
    if (el('run')) el('run').value = app.run.key;
    document.body.dataset.episode = app.settings.ep === undefined ? 'no' : 'yes';
    for (const button of el('views').children) button.setAttribute('aria-current', button.dataset.view === view ? 'page' : 'false');
    if (view === 'episodes' && app.settings.ep !== undefined) E.episode.draw(root, app, app.settings.ep).catch((error) => E.put(root, h('p', { class: 'none' }, error.message)));
    else {
      root.dataset.episode = '';
      ({ episodes: E.overview, compare: E.compare, health: E.health, run: E.about })[view].draw(root, app);
    }
  }

  function onkey(event) {
    const menu = event.key === 'Escape' && document.querySelector('details.menu[open]');
    if (menu) { menu.open = false; menu.firstChild.focus(); return; }
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input, select, textarea, dialog')) return;
    const act = { j: () => app.move(1), k: () => app.move(-1), n: () => app.jump(1), p: () => app.jump(-1), ArrowDown: () => app.move(1), ArrowUp: () => app.move(-1),
      '/': () => el('text').focus(), Escape: () => app.close(), '?': help }[event.key];
    const inList = event.target.closest('.list');
    if (event.key.startsWith('Arrow') && !inList) return;
    if (act) { event.preventDefault(); act(); }
    else if (VIEWS[Number(event.key) - 1]) app.set({ view: VIEWS[Number(event.key) - 1][0] });
  }

  function help() {
    const dialog = h('dialog', { 'aria-label': 'Keys', onclose: () => dialog.remove() }, h('h2', null, 'Keys'),
      h('dl', { class: 'keys' }, KEYS.map(([keys, what]) => [h('dt', null, keys.split(' ').map((key) => h('kbd', null, key))), h('dd', null, what)])), E.button('Close', () => dialog.close()));
    document.body.append(dialog);
    dialog.showModal();
  }

  // Light, dark, or as the system is.
  function theme(next) {
    const root = document.documentElement, names = ['auto', 'light', 'dark'];
    const stored = () => { try { return localStorage.getItem('elenchus-theme'); } catch { return null; } };
    let name = names.includes(stored()) ? stored() : 'auto';
    if (next) {
      name = names[(names.indexOf(root.dataset.theme || 'auto') + 1) % names.length];
      try { localStorage.setItem('elenchus-theme', name); } catch { /* private windows keep nothing */ }
    }
    root.dataset.theme = name;
    const button = el('theme');
    if (button) { button.textContent = { auto: '◐', light: '○', dark: '●' }[name]; button.setAttribute('aria-label', `colours: ${name}`); button.title = `colours: ${name}`; }
  }

  function frame() {
    const { runs } = app;
    document.title = `${runs.map((run) => run.about.name).join(' and ')} · episodes`;
    E.put(el('name'), h('b', null, 'Elenchus'), h('span', null, app.runs.length > 1 ? h('select', { id: 'run', 'aria-label': 'Run', onchange: (event) => app.setQuery({}, { run: event.target.value }) },
      runs.map((run) => h('option', { value: run.key }, run.about.name))) : runs[0].about.name));
    E.put(el('views'), VIEWS.map(([name, title]) => E.button(title, () => app.set({ view: name, ep: name === 'episodes' ? null : app.settings.ep }), { 'data-view': name })));
    E.put(el('tools'), h('a', { href: 'summary.html' }, 'Summary'), E.button('JSONL', () => E.exporter.write(app, 'jsonl'), { title: 'write the filtered episodes with their texts' }),
      E.button('CSV', () => E.exporter.write(app, 'csv'), { title: 'write the index of the filtered episodes' }),
      E.button('', () => theme(true), { id: 'theme' }), E.button('?', help, { 'aria-label': 'keys', title: 'keys' }));
    theme(false);
    app.list = new E.List({ id: 'episode', height: 50, label: 'Episodes that the filter keeps', choose: (i) => app.open(i), render: () => '' });
    E.put(el('side'), h('div', { class: 'side-head' }, h('span', { id: 'count' }), h('label', null, h('span', { class: 'hidden' }, 'Order'),
      h('select', { id: 'order', onchange: (event) => app.set({ order: event.target.value }) }, Object.entries(ORDERS).map(([key, [title]]) => h('option', { value: key }, title)))),
    E.button('Charts', () => app.close(), { class: 'plain', id: 'charts' })), app.list.element);
  }

  // Where a run with many stages opens: its first evaluation.
  function first() {
    const source = app.run.sources.find((s) => /evaluate/.test(s.stage) && s.part === 'main');
    if (source && app.run.sources.length > 1 && !location.hash) location.replace(`#stage=${encodeURIComponent(source.stage)}&part=main`);
  }

  async function start() {
    theme(false);
    try { Object.assign(app, await E.store.open()); } catch (error) { E.put(el('view'), h('p', { class: 'none' }, error.message)); return; }
    if (app.run.empty) { E.put(el('view'), h('p', { class: 'none' }, 'This run has no episodes yet.'), h('a', { href: 'summary.html' }, 'Summary')); return; }
    app.settings = Object.fromEntries([...E.filter.items(location.hash)].filter(([name]) => SETTINGS.includes(name)));
    frame();
    first();
    window.addEventListener('hashchange', read);
    document.addEventListener('keydown', onkey);
    read();
    performance.mark('elenchus-ready');
  }

  E.app = app;
  void start();
})(elenchus);
