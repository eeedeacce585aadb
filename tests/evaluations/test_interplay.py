"""The edge of competence: solved sometimes, neither always nor never."""

import dataclasses

from elenchus.configs.evaluations import interplay
from tests.support import method_cases


def test_figures_by_level():
    rows = [[True, True], [True, False], [False, False], [False, False]]
    groups = method_cases.groups(*([{'correct': c} for c in row] for row in rows))
    for place, level in enumerate((1, 1, 1, 2)):
        problem = dataclasses.replace(groups[place].problem, level=level)
        groups[place] = dataclasses.replace(groups[place], problem=problem)
    figures = interplay.edge(groups, str)
    assert figures['level 1: pass@1'] == 0.5
    assert (figures['level 1: pass@n'], figures['level 1: at the edge']) == (2 / 3, 1 / 3)
    assert figures['level 2: pass@n'] == figures['level 2: at the edge'] == 0.0
