// Two stages or two runs, paired by question.
(function (E) {
  'use strict';

  const { h } = E;
  const RESAMPLES = 1000, MIN_QUESTIONS = 50; // as in sampling/metrics/statistics.py

  // A small generator of random numbers (mulberry32), so that an interval is the same every time.
  function generator(seed) {
    return () => {
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  // Mean and 95 % percentile interval of values, resampled; the interval is null below MIN_QUESTIONS.
  function interval(values) {
    const n = values.length, mean = n ? values.reduce((a, b) => a + b, 0) / n : null;
    if (n < MIN_QUESTIONS) return { mean, low: null, high: null };
    const random = generator(n), means = [];
    for (let r = 0; r < RESAMPLES; r++) {
      let sum = 0;
      for (let k = 0; k < n; k++) sum += values[Math.floor(random() * n)];
      means.push(sum / n);
    }
    means.sort((a, b) => a - b);
    return { mean, low: means[Math.floor(0.025 * RESAMPLES)], high: means[Math.ceil(0.975 * RESAMPLES) - 1] };
  }

  // Episodes of one source by question that the filter, but for where they are, keeps.
  function questions(app, { run, source }) {
    const query = Object.fromEntries(Object.entries(app.query).filter(([name]) => !['stage', 'part', 'round'].includes(name)));
    const by = new Map();
    for (const i of E.filter.select(run, query).kept) {
      if (run.columns.source[i] !== source || !E.known(run.columns.reward[i])) continue;
      const id = run.problem(i).id;
      (by.get(id) || by.set(id, []).get(id)).push(i);
    }
    return by;
  }

  // Pairs of the questions that both have, the greatest gains first.
  function pair(app, left, right) {
    const [a, b] = [questions(app, left), questions(app, right)];
    const mean = (run, list) => list.reduce((sum, i) => sum + run.columns.reward[i], 0) / list.length;
    const pairs = [...a.keys()].filter((id) => b.has(id)).map((id) => {
      const [x, y] = [mean(left.run, a.get(id)), mean(right.run, b.get(id))];
      return { id, left: a.get(id), right: b.get(id), x, y, gain: y - x };
    });
    return { pairs: pairs.sort((p, q) => q.gain - p.gain || (p.id < q.id ? -1 : 1)), only: [a.size, b.size].map((size) => size - pairs.length) };
  }

  const options = (app) => app.runs.flatMap((run) => run.sources.map((_, source) => ({ key: `${run.key}:${source}`, run, source,
    title: app.runs.length > 1 ? `${run.about.name} · ${run.sourceName(source)}` : run.sourceName(source) })));

  // Where a run measures itself: its evaluations and the tests of its stages.
  function defaults(app, list) {
    const measured = app.runs.map((run) => list.filter((o) => o.run === run && /^(main|test)$/.test(o.run.sources[o.source].part)
      && (o.run.sources[o.source].part === 'test' || /evaluate/.test(o.title))));
    const all = app.runs.map((run, n) => (measured[n].length ? measured[n] : list.filter((o) => o.run === run)));
    if (all.length > 1) return [all[0].at(-1), all[1].at(-1)];
    return all[0].length > 1 ? [all[0][0], all[0].at(-1)] : [list[0], list[1]];
  }

  function picker(app, name, list, chosen) {
    return h('label', { class: 'pick' }, h('span', null, name), h('select', { id: `pick-${name}`, onchange: (event) => app.set({ [name]: event.target.value, pair: null }) },
      list.map((o) => h('option', { value: o.key, selected: o === chosen }, o.title))));
  }

  const KINDS = [['all', 'all'], ['won', 'won'], ['lost', 'lost'], ['tied', 'tied']];
  const kindOf = (p) => (p.gain > 0 ? 'won' : p.gain < 0 ? 'lost' : 'tied');

  function draw(root, app) {
    const list = options(app), chosen = ['left', 'right'].map((name) => list.find((o) => o.key === app.setting(name)));
    const first = defaults(app, list), [left, right] = chosen.map((o, n) => o || first[n]);
    if (!left || !right) return E.put(root, h('h2', null, 'Compare'), h('p', { class: 'soft none' }, 'There are not two places with episodes to compare.'));
    const { pairs, only } = pair(app, left, right), kind = app.setting('result') || 'all';
    const counts = Object.fromEntries(KINDS.map(([key]) => [key, key === 'all' ? pairs.length : pairs.filter((p) => kindOf(p) === key).length]));
    const gain = interval(pairs.map((p) => p.gain)), of = (values) => interval(values).mean;
    const tile = (title, value, note) => h('div', { class: 'tile' }, h('dt', null, title), h('dd', null, value, note && h('small', null, note)));
    const shown = pairs.filter((p) => kind === 'all' || kindOf(p) === kind);
    const rows = new E.List({ id: 'pair', height: 34, label: 'Questions of both', choose: (p) => app.set({ pair: p.id }), render: (p) => pairRow(p) });
    const body = h('div', { id: 'pair-body' });
    E.put(root, h('h2', null, 'Compare'), h('div', { class: 'pickers' }, picker(app, 'left', list, left), picker(app, 'right', list, right)),
      h('dl', { class: 'tiles' }, tile('questions of both', E.count(pairs.length), only.some(Boolean) ? `${E.count(only[0])} only left, ${E.count(only[1])} only right` : ''),
        tile('reward, left', E.number(of(pairs.map((p) => p.x)), 3)), tile('reward, right', E.number(of(pairs.map((p) => p.y)), 3)),
        tile('right − left', E.signed(gain.mean, 3), E.known(gain.low) ? `${E.signed(gain.low, 3)} to ${E.signed(gain.high, 3)}` : 'too few for an interval'),
        tile('won · lost · tied', `${E.count(counts.won)} · ${E.count(counts.lost)} · ${E.count(counts.tied)}`)),
      h('p', { class: 'soft' }, 'Means of the samples of a question; 95 % interval by resampling questions. All of the filter counts here but stage, part and round.'),
      E.choice('Questions', KINDS.map(([key, title]) => [key, `${title} ${E.count(counts[key])}`]), kind, (key) => app.set({ result: key })),
      shown.length ? h('div', { class: 'pairs' }, rows.element) : h('p', { class: 'soft none' }, 'No such question.'), body, settings(app));
    const opened = pairs.find((p) => p.id === app.setting('pair'));
    rows.show(shown, opened);
    if (opened) { rows.mark(opened); void sides(body, app, { left, right, opened }); }
    root.dataset.episode = '';
  }

  const pairRow = (p) => [h('span', { class: `gain ${p.gain > 0 ? 'plus' : p.gain < 0 ? 'minus' : 'soft'}` }, E.signed(p.gain)),
    h('span', { class: 'id' }, p.id), h('span', { class: 'soft n' }, `${E.number(p.x)} → ${E.number(p.y)}`)];

  // The answers of both to one question, with the words that differ.
  async function sides(body, app, { left, right, opened }) {
    const numbers = [0, 0], ends = [left, right], lists = [opened.left, opened.right];
    const show = async () => {
      const texts = await Promise.all(ends.map((end, n) => end.run.text(lists[n][numbers[n]])));
      const answers = texts.map((text) => E.turnText(E.turnOf(text, 'refinement') || E.turnOf(text, 'attempt') || text.turns[0]));
      const pieces = E.diff.diff(...answers) || answers.map((text) => [[text, false]]);
      E.put(body, h('blockquote', { class: 'question' }, left.run.problem(opened.left[0]).question), h('div', { class: 'two' }, ends.map((end, n) => {
        const i = lists[n][numbers[n]];
        return h('section', { class: 'turn' }, h('h4', null, options(app).find((o) => o.key === end.key).title),
          h('p', { class: 'soft' }, E.button('‹', () => { numbers[n] = (numbers[n] + lists[n].length - 1) % lists[n].length; void show(); }, { 'aria-label': 'previous sample' }),
            ` sample ${numbers[n] + 1} of ${lists[n].length} `, E.button('›', () => { numbers[n] = (numbers[n] + 1) % lists[n].length; void show(); }, { 'aria-label': 'next sample' }), ' ',
            E.mark(end.run.columns.after[i], E.truth(end.run.columns.after[i])), ' ', E.button('open', () => app.open(i, end.run.key), { class: 'plain' })),
          h('pre', null, E.steps.marked(pieces[n], app.words, n ? 'ins' : 'del')));
      })));
    };
    await show();
  }

  function settings(app) {
    if (app.runs.length < 2) return null;
    const { differences } = app.setup;
    return [h('h3', null, 'Settings that differ'), differences.length ? E.table(['field', ...app.runs.map((run) => run.about.name)],
      differences.map(([name, ...values]) => [h('code', null, name), ...values.map((v) => h('code', null, E.about.text(v)))])) : h('p', { class: 'soft' }, 'None.')];
  }

  E.compare = { draw, pair, interval };
})(elenchus);
