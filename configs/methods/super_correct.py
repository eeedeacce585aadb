"""SuperCorrect: preference for a corrected thought over the wrong one, from where they part.

A student imitates a teacher's thought templates. Then the teacher locates the wrong thought of the
student's solution and corrects it; the correction is preferred to the student's own continuation.

Formula: DPO on (corrected, wrong) behind the right steps that both begin with.
Source: arXiv 2410.09008.
Differs: the teacher is the critic, whose critique the actor follows; only refinements with a right
answer are taken. Stage 1 is the actor's fine-tuning: templates are the solutions of your JSONL.
"""

from elenchus.configs import method

CHANGES = {'prefer.pairs': 'refined', 'prefer.mask_common': True}
get_config = method.of(CHANGES, stages=method.PREFER)
