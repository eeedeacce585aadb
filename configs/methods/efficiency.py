"""Self-rewarded efficiency: among right responses of a group, the shorter one earns more.

A reward for brevity alone makes a model terse and wrong. Here it is paid to right responses only,
and grows with the share of right ones: where the group is unsure, length costs nothing.

Formula: r_i = [right] (1 + share * (longest - length_i) / longest / 2), longest of the right ones.
Source: the essence of "Self-Rewarded Efficiency RL"; its formula was not found, this one is ours.
Differs: no steering of activations, the paper's other half; the balance of accuracy and brevity is
the group's share of right responses.
"""

from elenchus.configs import method


def brevity(turns):
    """What a right response saves against the longest right one, by the group's success."""
    right = [bool(turn.turn.facts.correct) for turn in turns]
    lengths = [len(turn.turn.tokens) for turn in turns]
    longest = max((n for n, ok in zip(lengths, right, strict=True) if ok), default=1)
    share = sum(right) / len(right)
    return [
        0.5 * share * (longest - n) / longest if ok else 0.0
        for n, ok in zip(lengths, right, strict=True)
    ]


CHANGES = {
    'reinforce.rewards.functions': (('elenchus.configs.methods.efficiency:brevity', 1.0),),
    'reinforce.advantage.step_coef': 0.0,
}
get_config = method.of(CHANGES, stages=method.REINFORCE)
