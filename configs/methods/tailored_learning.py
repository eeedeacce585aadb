"""Tailored Learning: a student shows its mistakes, and a teacher's lesson is about those.

In each round the student attempts the problems. A teacher that knows the answers criticises what is
wrong, and the student learns the corrected solution: behind the question, and behind its own
attempt and the lesson. Then it reflects: it learns to prefer the correction to its mistake.

Formula: max log pi(y' | x) + log pi(y' | x, y, c), y wrong, y' right; then DPO on (y', y).
Source: arXiv 2310.13332; trainer.py and data.py of github.com/Raibows/Learn-to-Reason, 6417bf8.
Differs: the teacher criticises and the student corrects itself, where the authors' teacher writes
the corrected solution; DPO in place of their triplet loss on hidden states (cosine distance to a
right and to a wrong solution), which is one term of the same fit there.
"""

from elenchus.configs import method

CHANGES = {
    'improve.num_rounds': 2,
    'improve.restart': 'last',
    'improve.explore.teacher': 'reference',
    'improve.explore.min_correct': 1,
    'improve.trains': ('response', 'refinement'),
    'prefer.start': 'interactive',
    'prefer.critic_start': 'critic',
    'prefer.pairs': 'refined',
}
get_config = method.of(CHANGES, stages=(*method.CRITIC, 'interactive', 'prefer', 'evaluate'))
