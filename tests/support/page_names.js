// Controls that a screen reader could not name.
() => [...document.querySelectorAll('button, input, select, a, [role=option], svg[role], [role=button]')]
  .filter((e) => e.checkVisibility() && !(e.ariaLabel || e.textContent.trim() || e.title || e.labels?.length))
  .map((e) => e.outerHTML.slice(0, 120))
