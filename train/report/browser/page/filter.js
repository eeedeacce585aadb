// The one filter. filters.py has the same definition, and the data bring its fields.
(function (E) {
  'use strict';

  const RANGE = /^(-?\d*\.?\d+(?:e[+-]?\d+)?)?\.\.(-?\d*\.?\d+(?:e[+-]?\d+)?)?$/;

  const normalised = (text) =>
    text.replace(/[ \t\n]+/g, ' ').replace(/^ +| +$/g, '').toLowerCase();

  // Percent-encoding as Python reads it: what is no UTF-8 becomes a replacement character.
  const decoded = (text) => text.replace(/(?:%[0-9a-f]{2})+/gi, (run) =>
    new TextDecoder('utf-8', { ignoreBOM: true }).decode(
      Uint8Array.from(run.slice(1).split('%'), (pair) => parseInt(pair, 16))));

  function* items(address) {
    for (const item of address.replace(/^#/, '').split('&')) {
      const at = item.indexOf('=');
      if (at > 0 && at < item.length - 1) yield [item.slice(0, at), item.slice(at + 1)];
    }
  }

  // What an address states: name of a field -> values listed, [low, high], or words.
  function parse(fields, address) {
    const kinds = new Map(fields.map((field) => [field.name, field.kind]));
    const query = {};
    for (const [name, value] of items(address)) {
      const kind = kinds.get(name);
      if (kind === 'range') {
        const match = RANGE.exec(decoded(value));
        if (match && (match[1] || match[2])) {
          query[name] = [match[1], match[2]].map((end) => (end ? Number(end) : null));
        }
      } else if (kind === 'text') {
        const words = normalised(decoded(value));
        if (words) query[name] = words;
      } else if (kind) {
        query[name] = value.split(',').map(decoded);
      }
    }
    return query;
  }

  // The address of a filter; `others` are settings of the page, such as its view.
  function format(fields, query, others) {
    const parts = Object.entries(others).filter(([, value]) => E.known(value) && value !== '')
      .map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
    for (const field of fields) {
      const value = query[field.name];
      if (!value || !value.length) continue;
      if (field.kind === 'range') parts.push(`${field.name}=${value.map((end) => end ?? '').join('..')}`);
      else if (field.kind === 'text') parts.push(`${field.name}=${encodeURIComponent(value)}`);
      else parts.push(`${field.name}=${value.map(encodeURIComponent).join(',')}`);
    }
    return `#${parts.join('&')}`;
  }

  // Returns index -> whether one field of a query keeps the episode.
  function test(run, field, wanted) {
    const { columns, sources, problems } = run;
    if (field.kind === 'text') return (i) => run.says(i, wanted);
    if (field.kind === 'range') {
      const column = columns[field.column], [low, high] = wanted;
      return (i) => E.known(column[i]) && (low === null || column[i] >= low) && (high === null || column[i] <= high);
    }
    if (field.column === 'problem') {
      const numbers = new Set(problems.flatMap((problem, n) => (wanted.includes(problem.id) ? [n] : [])));
      return (i) => numbers.has(columns.problem[i]);
    }
    if (field.column === 'source') {
      const good = sources.map((s) => E.known(s[field.name]) && wanted.includes(String(s[field.name])));
      return (i) => good[columns.source[i]];
    }
    const column = columns[field.column];
    const numbers = wanted.map((value) => field.values.indexOf(value)).filter((n) => n >= 0);
    if (field.kind === 'flags') {
      const bits = numbers.reduce((sum, n) => sum | (1 << n), 0);
      return (i) => (column[i] & bits) !== 0;
    }
    const good = new Set(numbers);
    return (i) => good.has(column[i]);
  }

  // Runs a query over a run: the episodes kept, and how many each value of a choice would keep.
  // The text comes last: only what all other fields keep is read.
  function select(run, query) {
    const fields = run.fields.filter((field) => field.name in query);
    const tests = fields.map((field) => test(run, field, query[field.name]));
    const order = tests.map((_, n) => n).sort((a, b) => (fields[a].kind === 'text') - (fields[b].kind === 'text'));
    const kept = [], unread = [], almost = new Map(fields.map((field) => [field.name, []]));
    for (let i = 0; i < run.size; i++) {
      let failed = -1, failures = 0;
      for (const n of order) {
        if (failures && fields[n].kind === 'text') break;
        const result = tests[n](i);
        if (result === null) { unread.push(i); failures = 2; break; }
        if (!result && ++failures > 1) break;
        if (!result) failed = n;
      }
      if (!failures) kept.push(i);
      else if (failures === 1) almost.get(fields[failed].name).push(i);
    }
    return { kept, unread, almost };
  }

  // Number of episodes by value of a choice or flag, were this field to keep all values.
  function facet(run, field, { kept, almost }) {
    const counts = new Map();
    const column = field.column === 'source' ? run.columns.source : run.columns[field.column];
    const add = (value) => counts.set(value, (counts.get(value) || 0) + 1);
    for (const list of [kept, almost.get(field.name) || []]) {
      for (const i of list) {
        if (field.kind === 'flags') {
          for (let n = 0; n < field.values.length; n++) if ((column[i] >> n) & 1) add(field.values[n]);
        } else if (field.column === 'source') {
          const value = run.sources[column[i]][field.name];
          if (E.known(value)) add(String(value));
        } else if (E.known(column[i])) add(field.values[column[i]]);
      }
    }
    return counts;
  }

  E.filter = { parse, format, items, decoded, select, facet, normalised };
})(elenchus);
