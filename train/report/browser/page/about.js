// Where a run came from and what it cost.
(function (E) {
  'use strict';

  const { h } = E;

  const flat = (value, name = '') => (value && typeof value === 'object' && !Array.isArray(value)
    ? Object.entries(value).flatMap(([key, item]) => flat(item, name ? `${name}.${key}` : key)) : [[name, value]]);

  const text = (value) => (E.known(value) ? (typeof value === 'object' ? JSON.stringify(value) : String(value)) : '–');

  // Hashes by their first digits; the whole is in the title.
  const short = (value) => h('span', { class: 'nowrap', title: /^[0-9a-f]{12,}$/.test(value) ? value : null }, /^[0-9a-f]{12,}$/.test(value) ? value.slice(0, 10) : value);

  function draw(root, app) {
    const { about } = app.run;
    const commands = [...new Set(about.starts.map((start) => start.command).filter(Boolean))];
    const total = (name) => about.costs.reduce((sum, row) => sum + (row[name] || 0), 0);
    const names = [...new Set(about.starts.flatMap(Object.keys))].filter((name) => name !== 'command');
    const fields = flat(about.config);
    const list = h('tbody', null);
    const fill = (words) => E.put(list, fields.filter(([name]) => name.includes(words)).map(([name, value]) => h('tr', null, h('td', null, h('code', null, name)), h('td', null, h('code', null, text(value))))));
    fill('');
    E.put(root, h('h2', null, about.name),
      h('dl', { class: 'tiles' }, [['config', about.config_hash ?? 'not stored'], ['seed', text(about.seed)], ['episodes', E.count(app.run.size)],
        ['hours', E.number(total('seconds') / 3600)], ['tokens sampled', E.count(total('tokens_sampled'))], ['tokens trained', E.count(total('tokens_trained'))]]
        .map(([title, value]) => h('div', { class: 'tile' }, h('dt', null, title), h('dd', null, value)))),
      h('h3', null, 'Command'), commands.length ? commands.map((command) => h('pre', { class: 'command' }, command))
        : h('p', { class: 'soft' }, 'Not stored: the run was started by an earlier version. The config below is whole.'),
      h('h3', null, 'Started with'), about.starts.length ? E.table(names, about.starts.map((start) => names.map((name) => short(text(start[name])))),
        'A stage has a line for every start under other code, packages or devices.') : h('p', { class: 'soft' }, 'Not stored: the run was started by an earlier version.'),
      h('h3', null, 'Cost'), E.table(['stage', 'seconds', 'tokens sampled', 'tokens trained'], about.costs.map((row) => [row.stage, E.number(row.seconds, 1), E.count(row.tokens_sampled), E.count(row.tokens_trained)])),
      h('h3', null, 'Accuracy'), E.table(['stage', 'arm', 'right, %', 'interval'], Object.entries(about.accuracy).flatMap(([stage, arms]) => Object.entries(arms).map(([arm, value]) => {
        const [middle, ...ends] = (Array.isArray(value) ? value : [value]).map((v) => (E.known(v) ? (100 * v).toFixed(1) : null));
        return [stage, arm, middle ?? '–', ends.every(Boolean) && ends.length ? `${ends.join(' to ')}` : '–'];
      }))),
      h('h3', null, 'Config'), h('label', { class: 'search' }, h('span', { class: 'hidden' }, 'Search in the config'), h('input', { type: 'search', placeholder: 'Field', oninput: (event) => fill(event.target.value) })),
      h('div', { class: 'scroll' }, h('table', { class: 'config' }, list)));
  }

  E.about = { draw, text };
})(elenchus);
