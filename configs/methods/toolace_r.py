"""ToolACE-R: each round trains on what the model of that round can just do.

Samples that the model always solves teach nothing, and those that it never solves cannot be learnt
yet. Before each round its pass rate is measured anew, so that samples come and go as it gets
better. At test time it refines its answers, and decides by itself when to stop.

Formula: a sample is admitted iff 0 < pass rate of the last model <= 0.8.
Source: arXiv 2504.01400 (abstract and summaries); the authors' bounds were not found, 0.8 is ours.
Differs: mathematics and not tool calls; right responses of the model itself are trained on, where
the authors have gold calls; it stops when the critic calls the answer correct, where theirs stops
when a refinement changes nothing; refinement is taught by the actor's demonstrations.
"""

import numpy as np

from elenchus.configs import method

MOST = 0.8


def admitted(turn, success_rate):
    """Weight 1 if the question's pass rate is in the window, else not trained."""
    return np.full(len(turn.tokens), 1.0 if 0 < success_rate <= MOST else np.nan, np.float32)


CHANGES = {
    'improve.weighting': 'elenchus.configs.methods.toolace_r:admitted',
    'improve.num_rounds': 3,
    'evaluate.refine': 'wrong',
    'evaluate.num_rounds': 3,
}
get_config = method.of(CHANGES, stages=(*method.CRITIC, 'vanilla', 'evaluate'))
