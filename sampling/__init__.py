"""How text is made and judged."""
