// Charts of the overview: every bar and cell is a button that sets the filter.
(function (E) {
  'use strict';

  const { h, svg } = E;

  // A chart in its frame, with the numbers it is drawn from in words.
  const card = (title, note, ...children) => h('figure', { class: 'card' },
    h('figcaption', null, h('h3', null, title), note && h('p', { class: 'soft' }, note)), ...children);

  // A table of counts; a cell's shade is its share of the greatest.
  function matrix({ rows, columns, cells, rowTitle, columnTitle, onpick, picked }) {
    const top = Math.max(1, ...cells.flat().map((cell) => cell.count));
    const total = cells.flat().reduce((sum, cell) => sum + cell.count, 0);
    return h('table', { class: 'matrix' },
      h('caption', null, columnTitle),
      h('thead', null, h('tr', null, h('td', null, ''), columns.map((c) => h('th', { scope: 'col' }, c)))),
      h('tbody', null, rows.map((name, r) => h('tr', null, h('th', { scope: 'row' }, r === 0 && h('small', null, rowTitle), name),
        cells[r].map((cell, c) => h('td', null, cell.empty ? '' : E.button([h('b', null, E.count(cell.count)),
          h('small', null, E.percent(cell.count, total))], () => onpick(cell), {
          class: `cell ${cell.kind || ''}`, vars: { '--x': cell.count / top }, 'aria-pressed': String(picked(cell)),
          'aria-label': `${rowTitle} ${name}, ${columnTitle} ${columns[c]}: ${E.plural(cell.count, 'episode')}; show them`,
        })))))));
  }

  // Horizontal bars: [{label, share, count, note, mark, onpick}].
  function bars(items, { unit = '' } = {}) {
    return h('ul', { class: 'bars' }, items.map((item) => h('li', null, h(item.onpick ? 'button' : 'div', {
      type: item.onpick && 'button', class: 'bar', onclick: item.onpick,
      'aria-label': `${item.label}: ${item.text}${unit}, ${E.plural(item.count, 'episode')}`,
      'aria-pressed': item.onpick ? String(Boolean(item.picked)) : null,
    }, h('span', { class: 'label' }, item.label), h('span', { class: 'track' },
      h('span', { class: `fill ${item.kind || ''}`, vars: { '--x': item.share || 0 } }),
      E.known(item.before) && h('span', { class: 'tick', vars: { '--x': item.before }, title: 'attempt' })),
    h('span', { class: 'value' }, item.text), h('span', { class: 'soft n' }, E.count(item.count))))));
  }

  // Vertical bars of a histogram: [{low, high, count}].
  function histogram(bins, { label, onpick }) {
    const top = Math.max(1, ...bins.map((bin) => bin.count));
    return h('div', { class: 'histogram', role: 'group', 'aria-label': label }, bins.map((bin) =>
      E.button([h('span', { class: 'fill', vars: { '--x': bin.count / top } }), h('small', null, E.number(bin.low))],
        () => onpick(bin), { disabled: !bin.count,
          title: `${E.number(bin.low)} to ${E.number(bin.high)}: ${E.plural(bin.count, 'episode')}`,
          'aria-label': `${label} ${E.number(bin.low)} to ${E.number(bin.high)}: ${E.plural(bin.count, 'episode')}; show them` })));
  }

  // Reliability: share right against score. [{score, right, count}], one dot a bin.
  function reliability(bins, { onpick, unit }) {
    const size = 220, pad = 26, x = (v) => pad + v * (size - pad - 6), y = (v) => size - pad - v * (size - pad - 6);
    const top = Math.max(1, ...bins.map((bin) => bin.count));
    const ticks = [0, 0.5, 1];
    return svg('svg', { viewBox: `0 0 ${size} ${size}`, class: 'plot', role: 'group', 'aria-label': `Share right by score, ${unit}` },
      ticks.map((t) => [svg('line', { class: 'grid', x1: x(0), x2: x(1), y1: y(t), y2: y(t) }),
        svg('text', { x: x(0) - 4, y: y(t) + 3, 'text-anchor': 'end' }, t),
        svg('text', { x: x(t), y: size - pad + 13, 'text-anchor': 'middle' }, t)]),
      svg('line', { class: 'diagonal', x1: x(0), y1: y(0), x2: x(1), y2: y(1) }),
      bins.map((bin) => svg('circle', { class: 'dot', tabindex: 0, role: 'button', cx: x(bin.score), cy: y(bin.right),
        r: 3 + 8 * Math.sqrt(bin.count / top), onclick: () => onpick(bin),
        onkeydown: (event) => { if (event.key === 'Enter') onpick(bin); },
        'aria-label': `score ${E.number(bin.score)}: ${E.number(bin.right)} right, ${bin.count} ${unit}; show them` },
      svg('title', null, `score ${E.number(bin.score)}, right ${E.number(bin.right)}, ${E.count(bin.count)} ${unit}`))),
      svg('text', { x: x(0.5), y: size - 1, 'text-anchor': 'middle' }, "critic's score"),
      svg('text', { x: 2, y: y(0.5), 'text-anchor': 'middle', transform: `rotate(-90 2 ${y(0.5)})` }, 'share right'));
  }

  // A line over steps with the healthy range behind it; [[step, value]].
  function spark(points, { low, high, label }) {
    const known = points.filter(([, value]) => E.known(value));
    const width = 220, height = 40, xs = known.map((p) => p[0]), ys = known.map((p) => p[1]);
    if (!known.length) return h('span', { class: 'soft' }, 'no finite value');
    const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const x = (v) => 3 + ((v - x0) / (x1 - x0 || 1)) * (width - 6), y = (v) => height - 4 - ((v - y0) / (y1 - y0 || 1)) * (height - 8);
    const clamp = (v) => Math.max(0, Math.min(height, y(v)));
    const top = E.known(high) ? clamp(high) : 0, bottom = E.known(low) ? clamp(low) : height;
    return svg('svg', { viewBox: `0 0 ${width} ${height}`, class: 'spark', role: 'img', 'aria-label': label },
      svg('rect', { class: 'healthy', x: 0, width, y: top, height: Math.max(0, bottom - top) }),
      svg('polyline', { points: known.map(([s, v]) => `${x(s).toFixed(1)},${y(v).toFixed(1)}`).join(' ') }),
      svg('circle', { cx: x(xs.at(-1)), cy: y(ys.at(-1)), r: 2.5 }));
  }

  E.charts = { card, matrix, bars, histogram, reliability, spark };
})(elenchus);
