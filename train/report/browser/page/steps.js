// Attempt, critique and refinement in columns that are aligned by step.
(function (E) {
  'use strict';

  const { h } = E;

  // Text with the words of the search marked; pieces are [text, isOnlyHere].
  function marked(pieces, words, kind) {
    return pieces.map(([text, only]) => (only ? h(kind, null, hits(text, words)) : hits(text, words)));
  }

  function hits(text, words) {
    if (!words || text.length > 20000) return text;
    const parts = [], small = text.toLowerCase();
    if (small.length !== text.length) return text; // a letter whose small form is longer
    let at = 0;
    for (let next; (next = small.indexOf(words, at)) >= 0; at = next + words.length) {
      parts.push(text.slice(at, next), h('mark', null, text.slice(next, next + words.length)));
    }
    return [...parts, text.slice(at)];
  }

  const lines = (turn) => (turn ? (turn.steps || turn.text.split('\n').map((text) => ({ text }))) : []);

  // The words of attempt and refinement that differ, by line of each.
  function compared(attempt, refinement) {
    const texts = [attempt, refinement].map((turn) => lines(turn).map((line) => line.text));
    const plain = texts.map((list) => list.map((text) => [[text, false]]));
    if (!refinement) return plain;
    const result = E.diff.diff(...texts.map((list) => list.join('\n')));
    return result ? result.map((pieces, n) => E.diff.lines(pieces, texts[n].map((text) => text.length))) : plain;
  }

  const score = (value) => (E.known(value) ? h('span', { class: `score ${value >= 0.5 ? 'right' : 'wrong'}`,
    title: "the critic's probability that the step is right" },
  h('span', { class: 'meter', vars: { '--x': value } }), `${value >= 0.5 ? '✓' : '✗'} ${value.toFixed(2)}`) : null);

  function errors(n, attempt, critique) {
    const truth = attempt.facts.first_error === n, claim = critique?.facts.located === n;
    return [truth && h('span', { class: 'flag error' }, `◆ first error${attempt.facts.kind ? `: ${attempt.facts.kind}` : ''}`),
      claim && h('span', { class: `flag claim${truth ? ' hit' : ''}` }, truth ? '◇ claimed here too' : '◇ claimed first error')];
  }

  function verdict(step, words, quoted) {
    if (!step) return h('span', { class: 'soft' }, 'no verdict');
    const differs = step.sentence && step.sentence.replace(/\s+/g, '') !== quoted.replace(/\s+/g, '');
    return [E.mark(step.correct, step.correct === 1 ? 'correct' : step.correct === 0 ? 'wrong' : 'unreadable'),
      differs && h('q', { class: 'soft', title: 'the step as the critique quotes it' }, hits(step.sentence, words)),
      step.why && h('p', null, hits(step.why, words))];
  }

  // text: of an episode. words: of the search, or ''.
  function aligned(text, words) {
    const [attempt, critique, refinement] = ['attempt', 'critique', 'refinement'].map((role) => E.turnOf(text, role));
    if (!attempt) return plain(text, words);
    const [before, after] = compared(attempt, refinement);
    const steps = critique?.critique?.steps || [], count = Math.max(before.length, steps.length, after.length);
    const cell = (kind, ...children) => h('div', { class: `cell-${kind}`, role: 'cell', 'data-title': kind }, children);
    const row = (name, ...cells) => h('div', { class: 'step', role: 'row' }, h('div', { class: 'number', role: 'rowheader' }, name), cells);
    const shows = { critique: Boolean(critique), refinement: Boolean(refinement) };
    // A critique judges the line with the answer in its final verdict, after those of the steps.
    const { final = null, why = '' } = critique?.critique || {}, end = before.length - 1;
    const placed = E.known(final) && steps.length <= end ? { correct: final, why, sentence: '' } : null;
    const judged = (n) => steps[n] || (n === end ? placed : null);
    const rows = Array.from({ length: count }, (_, n) => row(n + 1,
      cell('attempt', before[n] ? [h('code', null, marked(before[n], words, 'del')), score(lines(attempt)[n].score), errors(n, attempt, critique)] : null),
      shows.critique && cell('critique', steps[n] || n < before.length ? verdict(judged(n), words, lines(attempt)[n]?.text || '') : null),
      shows.refinement && cell('refinement', after[n] ? [h('code', null, marked(after[n], words, 'ins')), refinement.facts.first_error === n && h('span', { class: 'flag error' }, '◆ first error')] : null)));
    const answer = (turn) => turn && [h('span', { class: 'soft' }, 'answer '), h('code', null, turn.facts.answer ?? 'none'), ' ',
      E.known(turn.facts.correct) && E.mark(Number(turn.facts.correct), turn.facts.correct ? 'right' : 'wrong')];
    const last = row('=', cell('attempt', answer(attempt)),
      shows.critique && cell('critique', E.known(final) || why
        ? [h('span', { class: 'soft' }, 'says '), verdict({ correct: final, why: placed ? '' : why, sentence: '' }, words, '')] : h('span', { class: 'soft' }, 'no final verdict')),
      shows.refinement && cell('refinement', answer(refinement)));
    last.classList.add('final');
    const head = h('div', { class: 'step head', role: 'row' }, h('div', { role: 'columnheader' }, h('span', { class: 'hidden' }, 'step')),
      ['attempt', ...(shows.critique ? ['critique'] : []), ...(shows.refinement ? ['refinement'] : [])].map((name) => h('div', { role: 'columnheader' }, name)));
    return h('div', { class: `aligned n${1 + shows.critique + shows.refinement}`, role: 'table', 'aria-label': 'Attempt, critique and refinement by step' }, head, rows, last);
  }

  // The turns one under the other, as they were written.
  const plain = (text, words) => h('div', { class: 'turns' }, text.turns.map((turn) => h('section', { class: `turn ${turn.role}` },
    h('h4', null, turn.role, E.known(turn.sampled) && h('small', null, ` ${E.plural(turn.sampled, 'token')}`)),
    h('pre', null, hits(E.turnText(turn), words)), facts(turn.facts))));

  const facts = (known) => (Object.keys(known).length ? h('p', { class: 'facts soft' },
    Object.entries(known).map(([name, value]) => h('span', null, `${name} `, h('b', null, plainly(value))))) : null);

  const plainly = (value) => (Array.isArray(value) ? value.join(', ') : value && typeof value === 'object'
    ? Object.entries(value).map(([key, item]) => `${key} ${item}`).join(', ') : String(value));

  E.steps = { aligned, plain, facts, hits, marked };
})(elenchus);
