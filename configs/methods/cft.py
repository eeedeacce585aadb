"""Critique fine-tuning (CFT): learn to criticise noisy responses, then solve.

Imitation teaches what a solution looks like. A model that must say what is wrong with a solution
has to work the question out. So the model is trained on critiques alone, of right and of wrong
responses, and is then asked the questions themselves.

Formula: max log P(c | x, y); afterwards the same model samples y | x.
Source: arXiv 2501.17703, section 2; one epoch, 56 % of the responses right (a summary of its data).
Differs: the responses are sampled by the run's fine-tuned actor and criticised by its annotator,
where the authors take responses from the web and critiques of GPT-4o; the number of steps is the
config's. Imitation, their comparison, is the same run with evaluate.start='actor', with as many
steps for the actor as for the critic, but the actor's own data and learning rate.
"""

from elenchus.configs import method

CHANGES = {
    'critic.start': 'base',
    'critique.correct_share': 0.56,
    'evaluate.start': 'critic',
    'evaluate.critic_start': 'critic',
}
get_config = method.of(CHANGES, stages=method.EVALUATE)
