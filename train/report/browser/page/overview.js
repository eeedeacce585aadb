// The charts of the episodes that the filter keeps; what is picked in one sets the filter.
(function (E) {
  'use strict';

  const { h, charts } = E;

  const mean = (list, of) => {
    let sum = 0, n = 0;
    for (const i of list) { const v = of(i); if (E.known(v)) { sum += v; n++; } }
    return { n, mean: n ? sum / n : null };
  };

  function tiles(run, kept) {
    const { columns: c } = run;
    const groups = new Map();
    for (const i of kept) groups.set(`${c.source[i]} ${c.problem[i]}`, c.flags[i]);
    const still = 1 << run.field('flag').values.indexOf('no_variance');
    const dead = [...groups.values()].filter((flags) => flags & still).length;
    const share = (column, want = 1) => mean(kept, (i) => (E.known(c[column][i]) ? Number(c[column][i] === want) : null));
    const before = share('before'), after = share('after'), agrees = share('agrees', 0);
    const reward = mean(kept, (i) => c.reward[i]);
    const tile = (title, value, note) => h('div', { class: 'tile' }, h('dt', null, title), h('dd', null, value, note && h('small', null, note)));
    const of = (s) => (s.n ? `${(100 * s.mean).toFixed(1)} %` : '–');
    return h('dl', { class: 'tiles' },
      tile('episodes', E.count(kept.length), `${E.plural(new Set(kept.map((i) => c.problem[i])).size, 'question')}`),
      tile('attempts right', of(before), `of ${E.count(before.n)}`),
      tile('answers right', of(after), before.n ? `${E.signed(100 * (after.mean - before.mean), 1)} points` : ''),
      tile('verdicts true', of(agrees), `of ${E.count(agrees.n)}`),
      tile('mean reward', E.number(reward.mean, 3), `of ${E.count(reward.n)}`),
      tile('groups without variance', E.percent(dead, groups.size), `of ${E.count(groups.size)}`),
      tile('tokens sampled', E.number(mean(kept, (i) => c.tokens[i]).mean, 1), 'an episode'));
  }

  const tally = (list, key) => {
    const counts = new Map();
    for (const i of list) { const k = key(i); counts.set(k, (counts.get(k) || 0) + 1); }
    return counts;
  };

  const same = (wanted, values) => Boolean(wanted && wanted.length === values.length && values.every((v) => wanted.includes(v)));

  function transitions(app) {
    const { run, result } = app, counts = tally(result.kept, (i) => run.transition(i));
    const cell = (value) => ({ count: counts.get(value) || 0, value, kind: value.endsWith('c') ? 'right' : 'wrong' });
    return charts.card('Change', 'attempt, then answer; without a refinement an attempt stays as it is', charts.matrix({
      rows: ['right', 'wrong'], columns: ['right', 'wrong'], rowTitle: 'attempt', columnTitle: 'answer',
      cells: [['c2c', 'c2i'].map(cell), ['i2c', 'i2i'].map(cell)],
      picked: (c) => same(app.query.transition, [c.value]),
      onpick: (c) => app.pick({ transition: same(app.query.transition, [c.value]) ? [] : [c.value] }) }));
  }

  function confusion(app) {
    const { run, result } = app, { columns: c } = run;
    const says = run.field('says').values, counts = tally(result.kept, (i) => `${c.before[i]} ${c.judged[i]}`);
    const cells = [1, 0].map((truth) => says.map((name, n) => ({ count: counts.get(`${truth} ${n}`) || 0,
      query: { attempt: [truth ? 'right' : 'wrong'], says: [name] }, kind: n === 2 ? 'unknown' : n === 1 - truth ? 'right' : 'wrong' })));
    if (!cells.flat().some((cell) => cell.count)) return missing('Verdicts', 'None of these episodes has a critique of a model.');
    const picked = (cell) => Object.entries(cell.query).every(([name, values]) => same(app.query[name], values));
    return charts.card('Verdicts', 'of the final answer, against the truth', charts.matrix({
      rows: ['right', 'wrong'], columns: says, cells, rowTitle: 'attempt', columnTitle: 'the critic says', picked,
      onpick: (cell) => app.pick(picked(cell) ? { attempt: [], says: [] } : cell.query) }));
  }

  const missing = (title, why) => charts.card(title, null, h('p', { class: 'soft none' }, why));

  // Bins of [bin, score, right] as the summaries' calibration: mean score, share right, and ECE.
  function binned(pairs) {
    const bins = new Map();
    for (const [bin, score, right] of pairs) {
      const b = bins.get(bin) || { bin, count: 0, score: 0, right: 0 };
      b.count++; b.score += score; b.right += right;
      bins.set(bin, b);
    }
    const list = [...bins.values()].sort((a, b) => a.bin - b.bin).map((b) => ({ ...b, score: b.score / b.count, right: b.right / b.count }));
    const total = pairs.length;
    return { list, total, ece: total ? list.reduce((sum, b) => sum + b.count * Math.abs(b.score - b.right), 0) / total : null };
  }

  function calibration(app) {
    const { run, result } = app, { columns: c } = run;
    const finals = result.kept.flatMap((i) => (E.known(c.bin[i]) && E.known(c.before[i]) ? [[c.bin[i], c.score[i], c.before[i]]] : []));
    const steps = result.kept.flatMap((i) => { const s = c.steps[i], out = []; for (let n = 0; n < s.length; n += 2) out.push([s[n] >> 1, s[n + 1], s[n] & 1]); return out; });
    const one = (title, { list, total, ece }, unit, pick, why) => (total ? charts.card(title,
      `expected calibration error ${E.number(ece, 3)} over ${E.count(total)} ${unit}`,
      charts.reliability(list, { onpick: (bin) => app.pick(pick(bin)), unit }),
      h('div', { class: 'bins', role: 'group', 'aria-label': `${title}: bins` }, list.map((bin) => E.button(`${(bin.bin / 10).toFixed(1)}`, () => app.pick(pick(bin)),
        { title: `score ${bin.bin / 10} to ${(bin.bin + 1) / 10}: ${E.count(bin.count)} ${unit}`, 'aria-label': `${unit} with score ${bin.bin / 10} to ${(bin.bin + 1) / 10}: ${bin.count}; show them`,
          'aria-pressed': String(Boolean(pick(bin).bin ? same(app.query.bin, pick(bin).bin) : same(app.query.step_bin, pick(bin).step_bin))) })))) : missing(title, why));
    return [one("Calibration of answers' scores", binned(finals), 'answers', (b) => ({ bin: [String(b.bin)] }), 'No attempt here has a score.'),
      one("Calibration of steps' scores", binned(steps), 'steps', (b) => ({ step_bin: [`${b.bin}w`, `${b.bin}r`] }), 'The truth of steps is known on the lab alone, where they have scores.')];
  }

  function levels(app) {
    const { run, result } = app, { columns: c } = run, field = run.field('level');
    const by = new Map();
    for (const i of result.kept) (by.get(c.level[i]) || by.set(c.level[i], []).get(c.level[i])).push(i);
    return charts.card('Right answers by level', 'the tick is the attempt alone', charts.bars([...by.keys()].sort((a, b) => a - b).slice(0, 40).map((n) => {
      const after = mean(by.get(n), (i) => c.after[i]), before = mean(by.get(n), (i) => c.before[i]), value = field.values[n];
      return { label: value, share: after.mean, before: before.mean, text: after.n ? `${(100 * after.mean).toFixed(0)} %` : '–', count: by.get(n).length,
        picked: same(app.query.level, [value]), onpick: () => app.pick({ level: same(app.query.level, [value]) ? [] : [value] }) };
    })));
  }

  function rewards(app) {
    const { run, result } = app, values = result.kept.map((i) => run.columns.reward[i]).filter(E.known);
    if (!values.length) return missing('Reward', 'No reward is known here.');
    const distinct = [...new Set(values)].sort((a, b) => a - b);
    const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b)), n = 10, width = (high - low) / n || 1;
    const few = distinct.length <= n;
    const bins = few ? distinct.map((v) => ({ low: v, high: v, count: 0 })) : Array.from({ length: n }, (_, k) => ({ low: low + k * width, high: low + (k + 1) * width, count: 0 }));
    for (const v of values) bins[few ? distinct.indexOf(v) : Math.min(n - 1, Math.floor((v - low) / width))].count++;
    const stored = new Set(result.kept.map((i) => run.source(i).stored));
    const kind = stored.has(true) ? (stored.has(false) ? 'as stored by reinforcement learning; elsewhere 1 for a right answer' : 'as reinforcement learning computed it') : 'no reward is stored: 1 for a right answer, 0 for a wrong one';
    return charts.card('Reward', kind, charts.histogram(bins, { label: 'reward', onpick: (bin) => app.pick({ reward: [Number(bin.low.toPrecision(6)), Number(bin.high.toPrecision(6))] }) }));
  }

  function stages(app) {
    const { run, result } = app, { columns: c } = run, by = new Map();
    for (const i of result.kept) (by.get(c.source[i]) || by.set(c.source[i], []).get(c.source[i])).push(i);
    return charts.card('Right answers by stage and round', 'the tick is the attempt alone', charts.bars([...by.keys()].sort((a, b) => a - b).map((n) => {
      const after = mean(by.get(n), (i) => c.after[i]), before = mean(by.get(n), (i) => c.before[i]), s = run.sources[n];
      const query = { stage: [s.stage], part: [s.part], round: E.known(s.round) ? [String(s.round)] : [] };
      return { label: run.sourceName(n), share: after.mean, before: before.mean, text: after.n ? `${(100 * after.mean).toFixed(0)} %` : '–', count: by.get(n).length,
        picked: same(app.query.stage, query.stage) && same(app.query.part, query.part), onpick: () => app.pick(query) };
    })));
  }

  function draw(root, app) {
    if (!app.result.kept.length) return E.put(root, h('p', { class: 'soft none' }, 'The filter keeps no episode.'));
    return E.put(root, tiles(app.run, app.result.kept), h('div', { class: 'cards' }, transitions(app), confusion(app), levels(app),
      rewards(app), calibration(app), stages(app)));
  }

  E.overview = { draw, mean, binned };
})(elenchus);
