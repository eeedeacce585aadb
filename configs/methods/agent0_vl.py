"""Agent0-VL: one model solves and verifies, and its own verification is the only reward.

As a solver it writes steps; as a verifier it judges each of them, and the whole. The solver is paid
by these judgements, the verifier for judging as most of its other judgements of the same solution
do. No label is read.

Formula: r(solution) = mean_t P(step t correct) + P(answer correct); r(verification) = share of the
others in its group with its verdict.
Source: arXiv 2511.19900; github.com/aiming-lab/Agent0, 3cf8bfe, whose folder Agent0-VL has no code.
Differs: a probability of the verdict stands for score times confidence; the reward of the verifier
is ours, since theirs was not found; no tools, which ground both roles there, no repair of steps
below a confidence, no images. The model first learns both tasks by imitation.
"""

from elenchus.configs import method


def consistent(turns):
    """Share of the other critiques of an attempt with the same verdict; 0 without a verdict."""
    verdicts = [turn.turn.facts.verdict for turn in turns]
    others = max(1, len(verdicts) - 1)
    return [0.0 if v is None else (verdicts.count(v) - 1) / others for v in verdicts]


CHANGES = {
    'critic.start': 'actor',
    'reinforce.one_model': True,
    'reinforce.rewards.correct': 0.0,
    'reinforce.rewards.steps': 1.0,
    'reinforce.rewards.verdict': 1.0,
    'reinforce.advantage.step_coef': 0.0,
    'reinforce.critic_rewards.verdict': 0.0,
    'reinforce.critic_rewards.helpful': 0.0,
    'reinforce.critic_rewards.functions': (('elenchus.configs.methods.agent0_vl:consistent', 1.0),),
}
LAB = {'reinforce.critic_start': 'base'}  # which does both; a critic has forgotten to solve
get_config = method.of(CHANGES, stages=method.REINFORCE_BOTH, lab_changes=LAB)
