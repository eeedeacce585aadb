// The data: files are loaded when they are needed, as scripts, and the oldest are forgotten.
(function (E) {
  'use strict';

  const MAX_TOKENS = 40; // files of tokens that stay in memory; texts stay, for the search

  const loading = new Map();

  function load(name) {
    if (!loading.has(name)) {
      loading.set(name, new Promise((resolve, reject) => {
        const script = E.h('script', { src: `data/${name}.js` });
        script.onload = () => {
          script.remove();
          const value = E.received.get(name);
          E.received.delete(name);
          if (value === undefined) reject(new Error(`data/${name}.js has no data`));
          else resolve(value);
        };
        script.onerror = () => reject(new Error(`data/${name}.js is missing: write the folder again`));
        document.head.append(script);
      }));
    }
    return loading.get(name);
  }

  class Run {
    constructor(key, about, index) {
      Object.assign(this, { key, about, ...index });
      this.size = about.episodes;
      this.texts = [];      // by file
      this.haystacks = [];  // by episode
      this.tokenFiles = [];
      this.empty = this.size === 0;
      this.bySource = new Map();
      if (!this.empty) this.group();
    }

    // Episodes by source and by question.
    group() {
      this.byProblem = this.problems.map(() => []);
      for (let i = 0; i < this.size; i++) this.byProblem[this.columns.problem[i]].push(i);
      this.lowered = this.problems.map((p) => E.filter.normalised(`${p.id} ${p.question}`));
    }

    field(name) { return this.fields.find((field) => field.name === name); }

    problem(i) { return this.problems[this.columns.problem[i]]; }

    source(i) { return this.sources[this.columns.source[i]]; }

    level(i) { return this.field('level').values[this.columns.level[i]]; }

    transition(i) { return this.field('transition').values[this.columns.transition[i]]; }

    flags(i) {
      return this.field('flag').values.filter((_, n) => (this.columns.flags[i] >> n) & 1);
    }

    // The samples of an episode's question in the same stage, round and part.
    groupOf(i) {
      const { source, problem } = this.columns;
      return this.byProblem[problem[i]].filter((j) => source[j] === source[i]);
    }

    sourceName(n) {
      const { stage, round, part } = this.sources[n];
      return [stage, E.known(round) && `round ${round}`, part !== 'main' && part].filter(Boolean).join(' · ');
    }

    async textFile(n) {
      if (!this.texts[n]) this.texts[n] = await load(`${this.key}-text-${String(n).padStart(4, '0')}`);
      return this.texts[n];
    }

    async text(i) {
      return (await this.textFile(Math.floor(i / this.about.chunk)))[i % this.about.chunk];
    }

    async tokens(i) {
      this.pieces ||= await load(`${this.key}-pieces`);
      const n = Math.floor(i / this.about.chunk), name = `${this.key}-tokens-${String(n).padStart(4, '0')}`;
      const file = await load(name);
      this.tokenFiles = [...this.tokenFiles.filter((other) => other !== name), name];
      if (this.tokenFiles.length > MAX_TOKENS) loading.delete(this.tokenFiles.shift());
      return file[i % this.about.chunk];
    }

    // Whether an episode says words that `normalised` gave; null if its text is not loaded yet.
    says(i, words) {
      if (this.lowered[this.columns.problem[i]].includes(words)) return true;
      this.haystacks[i] ??= this.haystack(i);
      return this.haystacks[i] === null ? null : this.haystacks[i].includes(words);
    }

    haystack(i) {
      const file = this.texts[Math.floor(i / this.about.chunk)];
      if (!file) return null;
      const { turns } = file[i % this.about.chunk];
      return E.filter.normalised([this.problem(i).id, this.problem(i).question, ...turns.map(E.turnText)].join(' '));
    }
  }

  E.turnText = (turn) => (turn.steps ? turn.steps.map((step) => step.text).join('\n') : turn.text);

  E.turnOf = (text, role) => text.turns.findLast((turn) => turn.role === role);

  async function open() {
    const setup = await load('all-setup');
    const runs = await Promise.all(setup.runs.map(async (key) => new Run(key,
      ...(await Promise.all([load(`${key}-run`), load(`${key}-index`)])))));
    return { runs, setup };
  }

  E.store = { load, open, Run };
})(elenchus);
