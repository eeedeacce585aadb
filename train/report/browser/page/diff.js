// Words of two texts that only one of them has: the longest common subsequence.
(function (E) {
  'use strict';

  const MAX_CELLS = 4e6; // of the table; longer texts are compared line by line

  const words = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) || [];

  // Returns, for each text, its pieces as [text, isOnlyHere].
  function diff(first, second) {
    let a = words(first), b = words(second);
    if (a.length * b.length > MAX_CELLS) [a, b] = [first, second].map((text) => text.match(/[^\n]*\n|[^\n]+$/g) || []);
    if (a.length * b.length > MAX_CELLS) return null;
    let start = 0, end = 0;
    while (start < a.length && start < b.length && a[start] === b[start]) start++;
    while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
    const [left, right] = common(a.slice(start, a.length - end), b.slice(start, b.length - end));
    const same = (list) => list.map((word) => [word, false]);
    const join = (list, middle) => merge([...same(list.slice(0, start)), ...middle, ...same(end ? list.slice(-end) : [])]);
    return [join(a, left), join(b, right)];
  }

  function common(a, b) {
    const width = b.length + 1, lengths = new Uint16Array((a.length + 1) * width);
    for (let i = a.length - 1; i >= 0; i--) {
      for (let j = b.length - 1; j >= 0; j--) {
        lengths[i * width + j] = a[i] === b[j]
          ? lengths[(i + 1) * width + j + 1] + 1
          : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
      }
    }
    const left = a.map((word) => [word, true]), right = b.map((word) => [word, true]);
    for (let i = 0, j = 0; i < a.length && j < b.length;) {
      if (a[i] === b[j]) { left[i++][1] = false; right[j++][1] = false; }
      else if (lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]) i++;
      else j++;
    }
    return [left, right];
  }

  // Neighbours of one kind become one piece; a space between two that differ differs too.
  function merge(pieces) {
    const result = [];
    for (let n = 0; n < pieces.length; n++) {
      let [text, only] = pieces[n];
      if (!only && /^[ \t]+$/.test(text) && pieces[n - 1]?.[1] && pieces[n + 1]?.[1]) only = true;
      const last = result[result.length - 1];
      if (last && last[1] === only) last[0] += text;
      else result.push([text, only]);
    }
    return result;
  }

  // Cuts pieces at the line feeds between the lines that were joined before the comparison.
  function lines(pieces, sizes) {
    const result = sizes.map(() => []);
    let line = 0, room = sizes[0];
    for (let [text, only] of pieces) {
      while (text && line < sizes.length) {
        const part = text.slice(0, room);
        if (part) result[line].push([part, only]);
        text = text.slice(part.length);
        room -= part.length;
        if (text) { text = text.slice(1); room = sizes[++line]; } // the line feed itself
      }
    }
    return result;
  }

  E.diff = { diff, lines };
})(elenchus);
