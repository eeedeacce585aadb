"""Tree search over attempts: nodes, rules of selection, values, and the search itself."""
