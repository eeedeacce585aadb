"""Generation against multiple choice: how self-correction moves answers in each format.

Open answers drift over rounds of refinement, chosen options stay. The matrix of moves tells it: of
all answers that were right (or wrong) before, how many are right after, and how many changed.

Formula: P(right after | right), P(right after | wrong), P(answer changed), by format of the answer.
Source: the essence of "Generation vs Multiple Choice" (self-correction dynamics by answer format).
Differs: the format is that of the reference, a letter or not; problems are not rewritten into
options.
"""

import collections
import re

from elenchus.configs import method


def moves(groups, read):
    """The moves of answers from attempt to refinement, for each format that occurs."""
    counts = collections.defaultdict(list)
    for group in groups:
        is_letter = re.fullmatch(r'\(?[A-Ja-j]\)?', group.problem.answer.strip())
        form = 'choice' if is_letter else 'open'
        for episode in group:
            before, after = episode.attempt.facts, episode.response.facts
            counts[f'{form}: changed'].append(before.answer != after.answer)
            was = 'right' if before.correct else 'wrong'
            counts[f'{form}: right after {was}'].append(bool(after.correct))
    return {name: sum(values) / len(values) for name, values in sorted(counts.items())}


CHANGES = {
    'evaluate.measures': ('elenchus.configs.evaluations.generation_or_choice:moves',),
    'evaluate.refine': 'always',
}
get_config = method.of(CHANGES, stages=method.EVALUATE)
