// A list of any length: only the rows in sight are elements.
(function (E) {
  'use strict';

  const MARGIN = 6; // rows above and below those in sight

  // options: height of a row in pixels, label, render(item) -> children, choose(item).
  class List {
    constructor(options) {
      this.options = options;
      this.items = [];
      this.chosen = null;
      this.space = E.h('div', { class: 'space' });
      this.element = E.h('div', { class: 'list', role: 'listbox', tabindex: '0', 'aria-label': options.label,
        onscroll: () => this.draw() }, this.space);
      this.rows = new Map();
      new ResizeObserver(() => this.draw()).observe(this.element);
    }

    show(items, chosen) {
      this.items = items;
      this.chosen = chosen;
      this.space.style.setProperty('height', `${items.length * this.options.height}px`);
      this.space.replaceChildren();
      this.rows.clear();
      this.draw();
    }

    // Marks an item and brings it into sight.
    mark(item) {
      this.chosen = item;
      const at = this.items.indexOf(item), { height } = this.options;
      if (at >= 0) {
        const top = at * height, { scrollTop, clientHeight } = this.element;
        if (top < scrollTop) this.element.scrollTop = top;
        if (top + height > scrollTop + clientHeight) this.element.scrollTop = top + height - clientHeight;
      }
      for (const [n, row] of this.rows) row.setAttribute('aria-selected', String(this.items[n] === item));
      this.draw();
    }

    draw() {
      const { height, render, choose } = this.options;
      const first = Math.max(0, Math.floor(this.element.scrollTop / height) - MARGIN);
      const last = Math.min(this.items.length, Math.ceil((this.element.scrollTop + this.element.clientHeight) / height) + MARGIN);
      for (const [n, row] of this.rows) {
        if (n < first || n >= last) { row.remove(); this.rows.delete(n); }
      }
      for (let n = first; n < last; n++) {
        if (this.rows.has(n)) continue;
        const item = this.items[n];
        const row = E.h('div', { class: 'row', role: 'option', id: `${this.options.id}-${n}`,
          'aria-selected': String(item === this.chosen), 'aria-setsize': this.items.length, 'aria-posinset': n + 1,
          vars: { transform: `translateY(${n * height}px)`, height: `${height}px` }, onclick: () => choose(item) }, render(item));
        this.rows.set(n, row);
        this.space.append(row);
      }
      const at = this.items.indexOf(this.chosen);
      if (this.rows.has(at)) this.element.setAttribute('aria-activedescendant', `${this.options.id}-${at}`);
      else this.element.removeAttribute('aria-activedescendant');
    }
  }

  E.List = List;
})(elenchus);
