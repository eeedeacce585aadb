// Texts whose contrast with what is behind them is below 4.5 (WCAG 2.2, AA).
() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255); };
  const over = (top, under) => top.slice(0, 3).map((v, n) => v * top[3] + under[n] * (1 - top[3]));
  const light = (c) => c.map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const bad = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest(':disabled, #status, .hidden, noscript, script, option')) continue;
    const chain = [];
    for (let p = e; p; p = p.parentElement) chain.unshift(rgba(getComputedStyle(p).backgroundColor));
    const under = chain.reduce((c, top) => over(top, c), [1, 1, 1]);
    const style = getComputedStyle(e), ink = over(rgba(e.closest('svg') ? style.fill : style.color), under);
    const [a, b] = [light(ink), light(under)].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) bad.push([e.className, e.textContent.trim().slice(0, 30), ((a + 0.05) / (b + 0.05)).toFixed(2)]);
  }
  return bad;
}
