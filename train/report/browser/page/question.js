// A question: its group of samples here, and what became of it over stages and rounds.
(function (E) {
  'use strict';

  const { h } = E;

  const path = (run, i) => {
    const { before, after } = run.columns;
    return [E.mark(before[i], '', 'attempt'), before[i] !== after[i] || run.columns.judged[i] !== null ? [' → ', E.mark(after[i], '', 'answer')] : null];
  };

  // The samples that are compared with each other.
  function group(app, i) {
    const { run } = app, { columns: c } = run, members = run.groupOf(i);
    const still = run.flags(i).includes('no_variance'), stored = run.source(i).stored;
    const rewards = members.map((j) => c.reward[j]).filter(E.known), mean = rewards.length ? rewards.reduce((a, b) => a + b, 0) / rewards.length : null;
    const top = Math.max(1e-9, ...rewards.map(Math.abs));
    const deviation = rewards.length ? Math.sqrt(rewards.reduce((sum, r) => sum + (r - mean) ** 2, 0) / rewards.length) : null;
    return h('section', { class: 'group' }, h('h3', null, 'Group'),
      h('p', { class: 'soft' }, `${E.plural(members.length, 'sample')} of this question in ${run.sourceName(c.source[i])}; reward ${E.number(mean, 3)} ± ${E.number(deviation, 3)}. `,
        still ? h('span', { class: 'flag still' }, '▬ no variance: nothing is learnt from it') : null,
        stored ? null : ' Advantages are not stored here; shown is the distance from the mean reward.'),
      h('div', { class: 'scroll' }, h('table', null, h('thead', null, h('tr', null, ['sample', 'attempt → answer', 'critic says', 'reward', stored ? 'advantage' : 'reward − mean', 'tokens'].map((t) => h('th', { scope: 'col' }, t)))),
        h('tbody', null, members.slice(0, 200).map((j) => {
          const reward = c.reward[j], gain = stored ? c.advantage[j] : E.known(reward) ? reward - mean : null;
          return h('tr', { class: j === i ? 'here' : '', 'aria-current': j === i ? 'true' : null },
            h('td', null, E.button(`#${c.sample[j] + 1}`, () => app.open(j), { class: 'link', 'aria-label': `open sample ${c.sample[j] + 1}` })),
            h('td', null, path(run, j)), h('td', null, E.known(c.judged[j]) ? run.field('says').values[c.judged[j]] : '–'),
            h('td', { class: 'share', vars: { '--x': E.known(reward) ? Math.abs(reward) / top : 0 } }, E.number(reward)),
            h('td', { class: gain > 0 ? 'plus' : gain < 0 ? 'minus' : '' }, E.signed(gain)), h('td', null, E.count(c.tokens[j])));
        })))), members.length > 200 ? h('p', { class: 'soft' }, `The first 200 of ${E.count(members.length)} are shown.`) : null);
  }

  // The same question in every stage, round and part of the run.
  function rounds(app, i) {
    const { run } = app, { columns: c } = run, by = new Map();
    for (const j of run.byProblem[c.problem[i]]) (by.get(c.source[j]) || by.set(c.source[j], []).get(c.source[j])).push(j);
    const places = [...by.keys()].sort((a, b) => a - b);
    if (places.length < 2) return h('section', null, h('h3', null, 'Over stages and rounds'), h('p', { class: 'soft' }, 'This question occurs nowhere else in the run.'));
    const at = places.indexOf(c.source[i]);
    const go = (n) => { const list = by.get(places[n]); app.open(list[Math.min(c.sample[i], list.length - 1)]); };
    return h('section', { class: 'rounds' }, h('h3', null, 'Over stages and rounds'),
      h('label', { class: 'slider' }, h('span', { class: 'hidden' }, 'Stage and round'),
        h('input', { type: 'range', id: 'rounds', min: 0, max: places.length - 1, value: at, 'aria-valuetext': run.sourceName(places[at]), onchange: (event) => go(Number(event.target.value)) })),
      h('ol', { class: 'places' }, places.map((n, k) => {
        const list = by.get(n), known = list.filter((j) => E.known(c.after[j])), right = known.filter((j) => c.after[j] === 1).length;
        return h('li', { class: k === at ? 'here' : '' }, h('span', { class: 'place' }, run.sourceName(n)),
          h('span', { class: 'dots' }, list.slice(0, 24).map((j) => E.button(E.sign(c.after[j]), () => app.open(j), { class: `dot ${E.truth(c.after[j])}${j === i ? ' here' : ''}`,
            title: `sample ${c.sample[j] + 1}: ${E.truth(c.after[j])}`, 'aria-label': `${run.sourceName(n)}, sample ${c.sample[j] + 1}: ${E.truth(c.after[j])}` })),
          list.length > 24 ? h('small', { class: 'soft' }, `+${list.length - 24}`) : null),
          h('span', { class: 'soft n' }, `${right}/${known.length} right`));
      })), h('p', null, E.button('Show all episodes of this question', () => app.pick({ question: [run.problem(i).id], stage: [], part: [], round: [] }), { class: 'plain' })));
  }

  E.question = { group, rounds, path };
})(elenchus);
