"""B-STaR: every round balances exploration against exploitation.

Before a round, a few problems are attempted at several temperatures. The temperature, and the least
score of a response that is kept, are those that leave the most right and few wrong responses.

Formula: the mean over questions of min(n' / n*, 1) n' / n; n responses kept, n' right, n* = 8.
Source: arXiv 2412.17256; train_code/determine_hyper.py of github.com/hkust-nlp/B-STaR, 05c0e3f.
Differs: the score is the critic's, where the authors add correctness and a process reward model's
least step score; the reference is not added as a response.
"""

from elenchus.configs import method

CHANGES = {
    'improve.controller': 'balance',
    'improve.num_rounds': 3,
    'improve.restart': 'last',
    'improve.candidates.target': 8,
    'improve.candidates.num_attempts': 16,
}
LAB = {'improve.candidates.target': 2, 'improve.candidates.num_attempts': 4}
get_config = method.of(CHANGES, stages=(*method.CRITIC, 'vanilla', 'evaluate'), lab_changes=LAB)
