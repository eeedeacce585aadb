"""RL on incorrect synthetic data: wrong responses teach by the steps at which they went wrong.

A step's weight is what it changes in the probability of success, so that the good steps of a wrong
response are learnt and its first bad step is unlearnt. Training on such weights equals
advantage-weighted reinforcement learning.

Formula: A(y_i) = Q(x, y_<=i) - Q(x, y_<i), with the question's success rate as Q(x).
Source: arXiv 2406.14532, equation 3 and theorem 6.1.
Differs: Q is the critic's score of the prefix, where the authors sample continuations of the
fine-tuned model (best of 5); weights on the likelihood in place of their DPO on prefix pairs.
"""

from elenchus.configs import method

CHANGES = {'improve.weighting': 'advantage', 'improve.num_rounds': 1}
get_config = method.of(CHANGES, stages=(*method.CRITIC, 'vanilla', 'evaluate'))
