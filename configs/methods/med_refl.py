"""Med-REFL: preference for reflections that put a wrong path right over those that do not.

Paths of reasoning are scored, and so is what a reflection on a wrong one leads to. Pairs of
reflections on the same path, a successful and a failed one, teach to reflect.

Formula: DPO on (refinement that is right, refinement that is wrong) behind (x, attempt, critique).
Source: arXiv 2506.13793.
Differs: paths are independent attempts in place of a tree of thoughts; the reflection is the
refinement after the critic's critique; a step's score is not read.
"""

import collections
import itertools

from elenchus.configs import method


def reflections(groups):
    """Right against wrong refinements of one attempt, each once at most."""
    of_attempt = collections.defaultdict(lambda: ([], []))
    for episode in itertools.chain.from_iterable(groups):
        last = episode.turns[-1]
        if last.role == 'refinement' and last.facts.correct is not None:
            prompt = (episode.problem_id, *(turn.tokens for turn in episode.turns[:-1]))
            of_attempt[prompt][bool(last.facts.correct)].append(episode)
    return [
        (right, wrong, 0.0)
        for wrongs, rights in of_attempt.values()
        for right, wrong in zip(rights, wrongs, strict=False)
    ]


CHANGES = {
    'prefer.pairs': 'elenchus.configs.methods.med_refl:reflections',
    'prefer.prompt': 'conversation',
}
get_config = method.of(CHANGES, stages=method.PREFER)
