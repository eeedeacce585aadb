"""CorrectBench: is correction worth its tokens against plain attempts?

Correction is compared with sampling more attempts at the same number of tokens, where plain voting
often wins.

Formula: accuracy of a strategy minus that of the majority at equal sampled tokens, with intervals.
Source: the essence of "CorrectBench"; figures `equal_tokens` and `curves` of the stage evaluate.
Differs: mathematics alone; trained correction (a critic), or intrinsic with
evaluate.critic_start='actor'; no external tools.
"""

from elenchus.configs import method

CHANGES = {'evaluate.num_attempts': 4, 'evaluate.num_rounds': 2, 'evaluate.refine': 'wrong'}
get_config = method.of(CHANGES, stages=method.EVALUATE)
