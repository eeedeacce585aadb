// What may be wrong with a run: shares of episodes, and metrics against their healthy ranges.
(function (E) {
  'use strict';

  const { h } = E;

  // Of how many a check speaks: episodes, judged critiques, groups, or those with stored numbers.
  function counted(run, kept, check) {
    const { columns: c } = run, bit = 1 << run.field('flag').values.indexOf(check.flag);
    const has = (i) => (c.flags[i] & bit) !== 0;
    if (check.of === 'groups') {
      const groups = new Map(kept.map((i) => [`${c.source[i]} ${c.problem[i]}`, has(i)]));
      return [[...groups.values()].filter(Boolean).length, groups.size];
    }
    const base = kept.filter({ episodes: () => true, sampled: (i) => c.tokens[i] > 0, critiques: (i) => E.known(c.judged[i]),
      steps: (i) => c.after[i] === 1, stored: (i) => run.source(i).stored }[check.of]);
    return [base.filter(has).length, base.length];
  }

  function draw(root, app) {
    const { run, result } = app;
    const rows = run.about.checks.map((check) => {
      const unknown = check.flag === 'truncated' && run.about.truncation;
      const [count, total] = counted(run, result.kept, check), share = total ? count / total : null;
      const state = unknown || share === null ? 'unknown' : share > check.limit ? 'wrong' : 'right';
      return h('tr', null, h('th', { scope: 'row' }, check.flag.replace('_', ' '), h('small', { class: 'soft' }, check.meaning)),
        h('td', null, h('span', { class: `mark ${state}` }, { right: '✓ healthy', wrong: '▲ look here', unknown: '· unknown' }[state])),
        h('td', null, unknown ? 'unknown' : `${E.percent(count, total)}`, h('small', { class: 'soft' }, ` ${E.count(count)} of ${E.count(total)} ${{ sampled: 'episodes', stored: 'episodes', steps: 'right answers' }[check.of] || check.of}`)),
        h('td', null, `${100 * check.limit} %`),
        h('td', null, count ? E.button('Examples', () => app.pick({ flag: [check.flag] }, 'episodes'), { class: 'plain', 'aria-label': `show episodes: ${check.flag}` }) : null),
        h('td', { class: 'why' }, state === 'wrong' ? check.remedy : unknown || null));
    });
    E.put(root, h('h2', null, 'Health'), h('p', { class: 'soft' }, `Of the ${E.plural(result.kept.length, 'episode')} that the filter keeps. A limit is ours; the runs of the lab stay below it.`),
      h('div', { class: 'scroll' }, h('table', { class: 'health' }, h('thead', null, h('tr', null, ['check', '', 'share', 'limit', '', 'what to do'].map((t) => h('th', { scope: 'col' }, t)))), h('tbody', null, rows))),
      series(run), verifier(run));
  }

  function series(run) {
    const { series: list } = run.about;
    if (!list.length) return [h('h2', null, 'Metrics'), h('p', { class: 'soft none' }, 'No stage of this run has metrics with a healthy range.')];
    const range = (m) => `${E.number(m.low)} to ${E.known(m.high) ? E.number(m.high) : '∞'}`;
    const one = (m) => h('figure', { class: `card metric${m.outside ? ' out' : ''}` },
      h('figcaption', null, h('h3', null, m.name), h('p', { class: 'soft' }, `${m.stage} · healthy ${range(m)}`)),
      E.charts.spark(m.points, { low: m.low, high: m.high, label: `${m.name} by step, ${m.count} values` }),
      h('p', null, h('span', { class: `mark ${m.outside ? 'wrong' : 'right'}` }, m.outside ? `▲ outside at ${E.plural(m.outside, 'step')}, first ${m.first_outside}` : '✓ inside'),
        h('small', { class: 'soft' }, ` last ${E.number(m.points.at(-1)[1], 3)}`)),
      m.outside ? h('p', { class: 'soft' }, m.cause) : null);
    const order = [...list].sort((a, b) => Boolean(b.outside) - Boolean(a.outside));
    return [h('h2', null, 'Metrics'), h('p', { class: 'soft' }, 'Of every optimiser step, against the range that the trainer warns of. Those that leave it come first.'), h('div', { class: 'cards small' }, order.map(one))];
  }

  function verifier(run) {
    if (!run.about.verifier.length) return null;
    const names = [...new Set(run.about.verifier.flatMap(Object.keys))].filter((name) => name !== 'stage');
    return [h('h2', null, 'Verifier'), E.table(['stage', ...names], run.about.verifier.map((row) => [row.stage, ...names.map((n) => E.number(row[n], 3))]),
      'pairs compared, and the shares that needed algebra, stayed unsure, ran out of time or failed')];
  }

  E.health = { draw };
})(elenchus);
