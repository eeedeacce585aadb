// The episodes that the filter keeps, as a file: JSONL with all texts, or CSV of the index.
(function (E) {
  'use strict';

  const COLUMNS = ['stage', 'round', 'part', 'question_id', 'sample', 'level', 'transition', 'critic_says', 'verdict_true', 'claimed_first_error', 'true_first_error', 'score', 'reward', 'advantage', 'tokens', 'flags'];

  // The columns of one episode; null = unknown.
  function record(run, i) {
    const { columns: c } = run, source = run.source(i);
    return { stage: source.stage, round: source.round, part: source.part, question_id: run.problem(i).id, sample: c.sample[i], level: run.level(i),
      transition: run.transition(i) ?? null, critic_says: E.known(c.judged[i]) ? run.field('says').values[c.judged[i]] : null,
      verdict_true: E.known(c.agrees[i]) ? c.agrees[i] === 0 : null, claimed_first_error: c.claimed[i], true_first_error: c.error[i],
      score: c.score[i], reward: c.reward[i], advantage: c.advantage[i], tokens: c.tokens[i], flags: run.flags(i) };
  }

  // A cell that a spreadsheet could take for a formula begins with an apostrophe.
  function cell(value) {
    if (!E.known(value)) return '';
    if (typeof value === 'number' || typeof value === 'boolean') return String(value);
    const text = (Array.isArray(value) ? value.join(' ') : String(value)).replace(/^(?=[=+\-@\t\r])/, "'");
    return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  }

  const csv = (run, list) => [COLUMNS.join(','), ...list.map((i) => { const r = record(run, i); return COLUMNS.map((name) => cell(r[name])).join(','); })].join('\n') + '\n';

  async function jsonl(run, list, onpart) {
    const lines = [];
    for (const i of list) {
      const { turns, facts } = await run.text(i);
      lines.push(JSON.stringify({ ...record(run, i), question: run.problem(i).question, facts,
        turns: turns.map((turn) => ({ role: turn.role, text: E.turnText(turn), step_scores: turn.steps?.map((step) => step.score ?? null), facts: turn.facts })) }));
      if (lines.length % 2000 === 0) onpart(lines.length);
    }
    return lines.map((line) => line + '\n').join('');
  }

  function save(name, type, content) {
    const address = URL.createObjectURL(new Blob([content], { type }));
    E.h('a', { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }

  async function write(app, kind) {
    const { run, result } = app, name = `episodes.${kind}`;
    E.say(`Writing ${E.plural(result.kept.length, 'episode')} …`);
    if (kind === 'csv') save(name, 'text/csv', csv(run, result.kept));
    else save(name, 'application/jsonl', await jsonl(run, result.kept, (n) => E.say(`${E.count(n)} of ${E.count(result.kept.length)} …`)));
    E.say(`${name}: ${E.plural(result.kept.length, 'episode')}`);
  }

  E.exporter = { csv, jsonl, cell, record, write, COLUMNS };
})(elenchus);
