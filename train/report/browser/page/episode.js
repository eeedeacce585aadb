// One episode: what it is, its turns, its group and its question elsewhere.
(function (E) {
  'use strict';

  const { h } = E;

  // A group without variance is no fault of an episode.
  function faults(run, i) {
    const names = run.flags(i).filter((flag) => flag !== 'no_variance');
    return names.length ? h('span', { class: 'warn', title: names.join(', ') }, ' !') : null;
  }

  // One line of the list.
  function row(run, i) {
    const { columns: c } = run;
    return [h('span', { class: 'marks' }, E.question.path(run, i)),
      h('span', { class: 'what' }, h('span', { class: 'id' }, run.problem(i).id, h('small', null, ` #${c.sample[i] + 1}`)),
        h('span', { class: 'soft line' }, run.problem(i).question)),
      h('span', { class: 'side' }, h('span', null, E.number(c.reward[i])),
        h('small', { class: 'soft' }, `level ${run.level(i)}`, faults(run, i)))];
  }

  function head(app, i, text) {
    const { run } = app, { columns: c } = run;
    const [attempt, critique, refinement] = ['attempt', 'critique', 'refinement'].map((role) => E.turnOf(text, role));
    const fact = (title, ...value) => h('div', null, h('dt', null, title), h('dd', null, value));
    const agrees = c.agrees[i];
    return h('header', { class: 'episode' },
      h('div', { class: 'title' }, h('h2', null, run.problem(i).id, h('small', null, ` sample ${c.sample[i] + 1}`)),
        h('span', { class: 'steps-nav' }, E.button('←', () => app.move(-1), { 'aria-label': 'previous episode (k)', title: 'previous episode (k)' }),
          E.button('→', () => app.move(1), { 'aria-label': 'next episode (j)', title: 'next episode (j)' }),
          E.button('×', () => app.close(), { 'aria-label': 'close the episode (Escape)', title: 'close (Escape)' }))),
      h('p', { class: 'soft' }, run.sourceName(c.source[i]), ` · level ${run.level(i)}`),
      h('dl', { class: 'facts' },
        attempt && fact('attempt', E.mark(c.before[i], E.truth(c.before[i]))),
        critique && fact('critic says', E.known(c.judged[i]) ? run.field('says').values[c.judged[i]] : 'not judged', agrees === null ? null : [' ', h('small', { class: agrees ? 'minus' : 'plus' }, agrees ? 'false verdict' : 'true verdict')]),
        refinement && fact('refinement', E.mark(c.after[i], E.truth(c.after[i]))),
        E.known(c.score[i]) && fact("critic's score", E.number(c.score[i], 3)),
        fact('reward', E.number(c.reward[i]), run.source(i).stored ? null : h('small', { class: 'soft' }, ' right answer')),
        E.known(c.advantage[i]) && fact('advantage', E.signed(c.advantage[i])),
        fact('tokens sampled', E.count(c.tokens[i]))),
      run.flags(i).length ? h('p', null, run.flags(i).map((flag) => h('span', { class: 'flag', title: meaning(run, flag) }, flag.replace('_', ' ')))) : null,
      h('blockquote', { class: 'question' }, E.steps.hits(run.problem(i).question, app.words)));
  }

  const meaning = (run, flag) => run.about.checks.find((check) => check.flag === flag)?.meaning;

  const VIEWS = [['steps', 'By step', 'columns aligned by step'], ['text', 'As written', 'turns one under the other'], ['tokens', 'Tokens', 'numbers of every token']];

  async function draw(root, app, i) {
    const { run } = app;
    const text = await run.text(i), mode = app.setting('show') || 'steps';
    const tokens = mode === 'tokens' ? await run.tokens(i) : null;
    if (app.setting('ep') !== i || app.run !== run) return; // another one was opened meanwhile
    const body = mode === 'tokens' ? E.heat.draw(run, text, { turns: tokens, chosen: app.setting('heat'), onchoose: (name) => app.set({ heat: name }) })
      : mode === 'text' ? E.steps.plain(text, app.words) : E.steps.aligned(text, app.words);
    const top = root.dataset.episode === String(i) ? root.scrollTop : 0;
    E.put(root, head(app, i, text), E.choice('View of the episode', VIEWS, mode, (show) => app.set({ show })), body,
      E.steps.facts(text.facts), E.question.group(app, i), E.question.rounds(app, i));
    root.dataset.episode = i;
    root.scrollTop = top;
  }

  E.episode = { row, draw };
})(elenchus);
