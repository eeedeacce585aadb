"""M-STaR: the temperature of exploration is the one at which the reward model finds right answers.

Self-evolution saturates as samples become alike. So the balance is measured as it goes on: how
often one of the two best samples by reward is right falls if samples are too alike, and if the
reward model can no longer tell them apart. Its best temperature is the next round's.

Formula: T = argmax_T mean over x of [one of the 2 best samples at T by reward is right].
Source: arXiv 2412.17451; github.com/hkust-nlp/mstar, 46eda49, has no code yet.
Differs: the reward is the critic's score of the answer, in place of a trained process reward model;
optimizer and schedule begin anew each round; problems are training problems. No images.
The definition of the figure is from memory.
"""

from elenchus.configs import method


def reward_pass(groups, k=2):
    """Share of questions with a right attempt among the k of the highest score."""
    best = [sorted(g, key=lambda e: -(e.attempt.facts.score or 0.0))[:k] for g in groups]
    return sum(any(e.attempt.facts.correct for e in group) for group in best) / len(best)


def balance(rounds, context):
    """The temperature with the best figure, the first of equals."""
    best = max(context.candidates, key=lambda candidate: candidate['worth'])
    return {'sampling.temperature': best['temperature']}


balance.tries_candidates = True
balance.worth = reward_pass
CHANGES = {
    'improve.num_rounds': 3,
    'improve.restart': 'last',
    'improve.controller': 'elenchus.configs.methods.m_star:balance',
    'improve.candidates.temperatures': (0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5),
    'improve.candidates.thresholds': (0.0,),
    'improve.candidates.num_attempts': 16,
}
LAB = {
    'improve.num_rounds': 2,
    'improve.candidates.temperatures': (0.5, 0.7, 1.0),
    'improve.candidates.num_attempts': 4,
}
get_config = method.of(CHANGES, stages=(*method.CRITIC, 'vanilla', 'evaluate'), lab_changes=LAB)
