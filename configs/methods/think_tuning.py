"""ThinkTuning: feedback inside the rollouts teaches a model to think again by itself.

A teacher of the same size reads the student's attempt and gives feedback, and the student goes on.
Both parts of the student are reinforced by the outcome. At test time there is no teacher.

Formula: GRPO on attempt and continuation; the attempt's return includes its continuation's.
Source: arXiv 2508.07616; the shaping of feedback tokens and the share of rollouts were not found.
Differs: every rollout gets feedback, where the authors give it to a share; the feedback is read but
not trained, where they train it with an advantage-aware weight.
"""

from elenchus.configs import method

CHANGES = {
    'reinforce.turns.episode': 'critique',
    'reinforce.turns.discount': 1.0,
    'reinforce.advantage.step_coef': 0.0,
    'reinforce.length': lambda config: config.train.length,
}
get_config = method.of(CHANGES, stages=method.REINFORCE)
