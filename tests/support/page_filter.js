// Runs the page's own filter, differences and cells of tables over values in a file.
const fs = require('fs'), [page, input] = process.argv.slice(2);
const load = (name) => (0, eval)(fs.readFileSync(`${page}/${name}.js`, 'utf8'));
globalThis.document = { getElementById: () => null };
['core', 'filter', 'diff', 'exporter', 'compare'].forEach(load);
const E = globalThis.elenchus, { index, texts, addresses, pairs, samples = [] } = JSON.parse(fs.readFileSync(input, 'utf8'));
const turnText = (turn) => (turn.steps ? turn.steps.map((step) => step.text).join('\n') : turn.text);
const run = { ...index, size: texts.length, says(i, words) {
  const problem = index.problems[index.columns.problem[i]];
  return E.filter.normalised([problem.id, problem.question, ...texts[i].turns.map(turnText)].join(' ')).includes(words);
} };
const results = addresses.map((address) => {
  const query = E.filter.parse(index.fields, address), { kept, almost } = E.filter.select(run, query);
  const again = E.filter.parse(index.fields, E.filter.format(index.fields, query, { view: 'x&y' }));
  const facets = Object.fromEntries(index.fields.filter((f) => f.values && f.kind !== 'range' && f.kind !== 'text' && f.values.length)
    .map((f) => [f.name, Object.fromEntries(E.filter.facet(run, f, { kept, almost }))]));
  return { query, again, kept, facets };
});
console.log(JSON.stringify({ results, diffs: pairs.map(([a, b]) => E.diff.diff(a, b)), cells: pairs.flat().map(E.exporter.cell), intervals: samples.map(E.compare.interval) }));
