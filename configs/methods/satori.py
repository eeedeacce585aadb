"""Satori (COAT): reinforcement of a model that talks to itself, restarted in the middle of talks.

A small fine-tuning teaches the form of talks that reflect and correct. Reinforcement then also
starts from the middle of the model's own talks, right and wrong ones: to get right from a wrong
state earns a bonus, and to go wrong from a right one costs it.

Formula: r = [right] - 1 + b / 2; b = 1 if restarted from a wrong talk and right, -1 if restarted
from a right one and wrong, else 0.
Source: arXiv 2502.02508; experience_maker.py:321 of github.com/satori-reasoning/Satori, af1ef94.
Differs: GRPO among all samples of a problem, where the authors have PPO with a value model; states
are of this iteration's samples, not of a buffer; no token asks to reflect, since a talk has a
remark on each line; no outcome reward model.
"""

from elenchus.configs import method


def middles(group, rng):
    """The second half of the samples begin with some lines of one of the first half."""
    first, restarts = len(group) // 2, []
    for _ in range(len(group) - first):
        source = int(rng.integers(first)) if first else 0
        ends = group[source].attempt.step_ends[:-1]
        restarts.append((source, ends[int(rng.integers(len(ends)))], '') if ends else None)
    return [None] * first + restarts


def bonus(turns):
    """Plus or minus 1 for what a restart changed; 0 for talks from the beginning."""
    facts = [turn.turn.facts for turn in turns]
    return [
        0.0 if f.restarted is None or f.restarted == bool(f.correct) else 1.0 - 2.0 * f.restarted
        for f in facts
    ]


HERE = 'elenchus.configs.methods.satori'
CHANGES = method.TALKS | {
    'reinforce.start': 'self_talk',
    'reinforce.turns.restart': f'{HERE}:middles',
    'reinforce.rewards.functions': ((f'{HERE}:bonus', 0.5),),
    'reinforce.advantage.step_coef': 0.0,
}
get_config = method.of(CHANGES, stages=(*method.CRITIC, 'self_talk', 'reinforce', 'evaluate'))
