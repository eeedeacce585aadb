"""STILL-2: imitate, explore, self-improve.

The model first imitates worked solutions. Then it explores: several rollouts of each problem, of
which right and different ones join the data. The base is trained anew on the larger data, and the
new model explores again.

Formula: D_t = demonstrations + right responses of rounds 1..t; pi_t is the base fine-tuned on D_t.
Source: arXiv 2412.09413.
Differs: a round trains on its own responses, not on those of all rounds; the demonstrations are the
reference solutions, where the authors distil long thoughts of another model.
"""

from elenchus.configs import method

CHANGES = {
    'improve.num_rounds': 3,
    'improve.restart': 'base',
    'improve.demonstrations': True,
    'improve.deduplicate': True,
}
get_config = method.of(CHANGES, stages=(*method.CRITIC, 'uniform', 'evaluate'))
