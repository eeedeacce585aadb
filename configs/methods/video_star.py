"""Video-STaR: an answer counts if it contains the label, whatever the label was made for.

Many data have labels that are no answers. The model answers freely; what contains the label is
kept. Where no answer does, the model is shown the label and asked for the reasons, and these are
filtered in the same way. The first model is trained anew on what was kept, in cycles.

Formula: D = {(x, y): label in y}, y ~ pi(x), else y ~ pi(x, label); max log pi_0 on D; 3 cycles.
Source: arXiv 2407.06189; videostar/data_generation.py of github.com/orrzohar/Video-STaR, 191559d.
Differs: a label is found as a text between other words, where the authors' verifier also compares
numbers, boxes and times with a tolerance; questions are given and not generated. No videos.
"""

import re

from elenchus.configs import method


def contains_label(responses):
    """Accepts what has the label in it, as whole words, in any case."""
    labels = [re.escape(' '.join(response.problem.answer.split())) for response in responses]
    return [
        re.search(rf'(?<!\w){label}(?!\w)', ' '.join(response.text.split()), re.I) is not None
        for label, response in zip(labels, responses, strict=True)
    ]


CHANGES = {
    'actor.guided_per_problem': 1,
    'improve.num_rounds': 3,
    'improve.restart': 'base',
    'improve.explore.num_attempts': 1,
    'improve.explore.num_guided_rounds': 1,
    'improve.explore.min_correct': 1,
    'improve.explore.keep': 1,
    'improve.explore.accept': 'elenchus.configs.methods.video_star:contains_label',
}
LAB = {'improve.num_rounds': 2}
STAGES = (*method.CRITIC, 'answer_driven', 'evaluate')
get_config = method.of(CHANGES, stages=STAGES, lab_changes=LAB)
