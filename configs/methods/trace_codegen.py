"""TraceCodegen: learn from one's own samples, also from the right beginnings of wrong ones.

One reference solution is few. Right samples of the model are further targets, and so is the part of
a wrong sample before it goes wrong.

Formula: max log pi(right sample) and log pi(longest right prefix of a wrong one), weight 1 each.
Source: arXiv 2205.14318; github.com/microsoft/TraceCodegen, 92bada8.
Differs: a prefix is right if its lines are (the lab's judge), where the authors compare program
states; a right sample, too, is cut at a wrong line; where lines are not judged, wrong samples are
left out, and so are turns that were cut off. MLE only, as they shipped it.
"""

import math

from elenchus.configs import method


def right_prefix(turn, success_rate):
    """1 on a right response and before the first wrong line of a wrong one, untrained after it."""
    size, wrong = len(turn.tokens), turn.facts.first_error
    if turn.facts.correct and wrong is None:
        return [1.0] * size
    ends = [0, *(step.end for step in turn.steps)]
    known = 0 if wrong is None else ends[min(wrong, len(ends) - 1)]
    return [1.0] * known + [math.nan] * (size - known)


right_prefix.trains_wrong = True
CHANGES = {'improve.weighting': 'elenchus.configs.methods.trace_codegen:right_prefix'}
get_config = method.of(CHANGES, stages=(*method.CRITIC, 'vanilla', 'evaluate'))
