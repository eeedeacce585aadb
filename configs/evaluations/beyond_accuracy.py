"""Beyond Accuracy: what a supplied plan, or supplied knowledge, adds.

The same questions are attempted plainly, after a plan (the reference's steps without their values)
and after the whole reference. What a plan adds is what planning lacked.

Formula: accuracy under a condition minus plain accuracy, with the same noise.
Source: the essence of "Beyond Accuracy" (ablation by supplied plan, decomposition or knowledge).
Differs: the plan is the reference with its numbers taken out, where the authors write plans; no
knowledge is supplied apart from it.
"""

import re

from elenchus.configs import method


def plan(problem):
    """The reference solution without numbers, and without the line of the answer."""
    lines = [line for line in problem.solution.split('\n') if not re.search(r'####|boxed', line)]
    return '\n'.join(re.sub(r' ?-?\d+(?:[.,]\d+)*', '', line) for line in lines)


CHANGES = {
    'evaluate.conditions': ('elenchus.configs.evaluations.beyond_accuracy:plan', 'solution'),
}
get_config = method.of(CHANGES, stages=method.EVALUATE)
