// Tokens of an episode, coloured by one of the numbers that are stored of them.
(function (E) {
  'use strict';

  const { h } = E;
  const CHANNELS = {
    logprob: { title: 'log-probability', note: 'of the sampler; coloured: unlikely when it was sampled', low: -4, high: 0 },
    mismatch: { title: 'trainer − sampler', note: 'log-probability by the trainer less that by the sampler, nats', size: 0.05, diverging: true },
    weight: { title: 'weight', note: 'advantage of the token in the loss', diverging: true },
    entropy: { title: 'entropy', note: 'of the distribution that the token was drawn from, nats', low: 0, high: 2, up: true },
  };

  // The share of the full colour of a value, and its side.
  function shade(channel, value, top) {
    if (channel.diverging) return [Math.min(1, Math.abs(value) / (Math.max(top, channel.size || 1e-9))), value < 0 ? 'minus' : 'plus'];
    const x = (value - channel.low) / (channel.high - channel.low);
    return [Math.max(0, Math.min(1, channel.up ? x : 1 - x)), 'dark'];
  }

  function legend(channel, top) {
    const ends = channel.diverging ? [-Math.max(top, channel.size || 0), 0, Math.max(top, channel.size || 0)] : [channel.low, (channel.low + channel.high) / 2, channel.high];
    return h('p', { class: 'legend soft' }, channel.note, ' ', ends.map((value) => {
      const [x, side] = shade(channel, value, top);
      return h('span', { class: `token ${side}`, vars: { '--x': x } }, E.number(value));
    }));
  }

  // turns: of the text. tokens: by turn, null where nothing is stored.
  function draw(run, text, { turns, chosen, onchoose }) {
    const stored = [...new Set(turns.flatMap((turn) => (turn ? Object.keys(turn.channels) : [])))];
    if (!stored.length) return h('p', { class: 'soft none' }, 'No numbers of the tokens of this episode are stored: no turn of it was sampled here.');
    const name = stored.includes(chosen) ? chosen : stored[0], channel = CHANNELS[name] || { title: name, note: name, diverging: true };
    const all = turns.flatMap((turn) => turn?.channels[name] || []).filter(E.known);
    const top = all.reduce((most, value) => Math.max(most, Math.abs(value) / 1000), 0);
    const absent = Object.entries(CHANNELS).filter(([key]) => !stored.includes(key)).map(([, c]) => c.title);
    return h('div', { class: 'heat' },
      E.choice('Number of the tokens', stored.map((key) => [key, CHANNELS[key]?.title || key]), name, onchoose),
      legend(channel, top),
      text.turns.map((turn, n) => h('section', { class: `turn ${turn.role}` }, h('h4', null, turn.role, mean(turns[n], name)),
        turns[n]?.channels[name] ? pieces(run, turns[n], { channel, name, top }) : h('p', { class: 'soft' }, 'not stored: this turn was not sampled here'))),
      absent.length ? h('p', { class: 'soft' }, `Not stored of this episode: ${absent.join(', ')}.`) : null);
  }

  function mean(turn, name) {
    const values = (turn?.channels[name] || []).filter(E.known);
    return values.length ? h('small', { class: 'soft' }, ` mean ${E.number(values.reduce((a, b) => a + b, 0) / values.length / 1000, 3)} over ${E.plural(values.length, 'token')}`) : null;
  }

  function pieces(run, turn, { channel, name, top }) {
    const values = turn.channels[name];
    return h('pre', { class: 'tokens' }, turn.ids.map((id, n) => {
      const piece = run.pieces[id], value = E.known(values[n]) ? values[n] / 1000 : null;
      const shown = piece === '' ? '∎' : piece.replace(/\n/g, '⏎\n');
      const [x, side] = value === null ? [0, 'none'] : shade(channel, value, top);
      return h('span', { class: `token ${side}`, vars: { '--x': x.toFixed(3) }, title: `${JSON.stringify(piece)} ${channel.title} ${value === null ? 'unknown' : E.number(value, 3)}` }, shown);
    }));
  }

  E.heat = { draw, shade, CHANNELS };
})(elenchus);
