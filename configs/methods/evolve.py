"""EVOLVE: answering and refining are preferred together, on what the model itself refined.

A round trains one model to answer a question and to refine an answer. Then it answers and refines,
and what it wrote, filtered, makes the pairs of the next round.

Formula: DPO on right against wrong answers behind x, and on right against wrong refinements behind
(x, answer, critique), with an NLL of the chosen ones.
Source: arXiv 2502.05605; the weights of its loss were not found.
Differs: the verifier filters, where the authors rank by a reward model; a critique stands between
the answer and its refinement, where they give an instruction; weights are those of a plain sum.
"""

import collections
import itertools

from elenchus.configs import method


def answers_and_refinements(groups):
    """Right against wrong among the turns behind one prompt, each once at most."""
    behind = collections.defaultdict(lambda: ([], []))
    for episode in itertools.chain.from_iterable(groups):
        *before, last = episode.turns
        if last.facts.correct is not None:
            prompt = (episode.problem_id, *(turn.tokens for turn in before))
            behind[prompt][bool(last.facts.correct)].append(episode)
    return [
        (right, wrong, 0.0)
        for wrongs, rights in behind.values()
        for right, wrong in zip(rights, wrongs, strict=False)
    ]


CHANGES = {
    'prefer.pairs': 'elenchus.configs.methods.evolve:answers_and_refinements',
    'prefer.prompt': 'conversation',
    'prefer.num_rounds': 2,
    'prefer.loss.nll_coef': 1.0,
}
get_config = method.of(CHANGES, stages=method.PREFER)
