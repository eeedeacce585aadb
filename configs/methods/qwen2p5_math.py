"""Qwen2.5-Math's reward: the critic ranks responses, the verifier decides.

The reward model's score shapes the reward of responses of equal correctness, and no right
response earns less than a wrong one. The reward model, here the critic, also chooses what the actor
is trained on in rounds before, and is retrained on the attempts of each round's actor.

Formula: r = sigmoid(0.5 r_m) + (r_v - 1), r_v 1 if the answer is right, else 0.
Source: arXiv 2409.12122, section 3.4; formula in public re-implementations.
Differs: r_m is the logit of the critic's probability that the answer is right, where the authors
train a scalar reward model on a ranking loss; retrained critics serve the next round alone, and
reinforcement has the one before the rounds.
"""

import math

from elenchus.configs import method


def shaped(turns):
    """sigmoid of half the critic's logit, minus 1 for a wrong answer; no score is one of 1/2."""
    facts = [turn.turn.facts for turn in turns]
    scores = [0.5 if fact.score is None else fact.score for fact in facts]
    return [
        half_sigmoid(score) + float(fact.correct) - 1.0
        for score, fact in zip(scores, facts, strict=True)
    ]


def half_sigmoid(probability):
    """sigmoid(0.5 logit(p)), which is sqrt(p) / (sqrt(p) + sqrt(1 - p))."""
    return math.sqrt(probability) / (math.sqrt(probability) + math.sqrt(1.0 - probability))


shaped.reads_scores = True

CHANGES = {
    'improve.retrain_critic': True,
    'improve.weighting': 'threshold',
    'reinforce.start': 'newest',
    'reinforce.rewards.correct': 0.0,
    'reinforce.rewards.functions': (('elenchus.configs.methods.qwen2p5_math:shaped', 1.0),),
    'reinforce.advantage.step_coef': 0.0,
}
get_config = method.of(CHANGES, stages=(*method.CRITIC, 'vanilla', 'reinforce', 'evaluate'))
