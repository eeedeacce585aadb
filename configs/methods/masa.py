"""MASA: what a model says about its own chances is rewarded by what its rollouts show.

A response first predicts how often the problem will be solved, how long a solution is, and which
notions it needs. The group says what is true: its share of right responses, their lengths, and the
notions that right ones use and wrong ones do not.

Formula: r_meta = (0.01^|acc - p / 8| + [shortest < length < longest right response] + share of the
notions that stand in more right than wrong responses) / 3; r = [right] + r_meta.
Source: arXiv 2510.03259; verl/utils/reward_score/meta_cog.py, github.com/akatigre/MASA-RL 80b3cfa.
Differs: the prediction stands in the response that it is about, where the authors sample it by
itself, as a group of its own; it gates no prompts and cuts no rollouts off; plurals are not made
singular. To ask for the JSON object is the user's (prompts.attempt.instruction).
"""

import json
import re

from elenchus.configs import method

OBJECT = re.compile(r'\{[^{}]*\}')


def prediction(text):
    """The last JSON object of a text, {} without one, and the text without objects."""
    predicted = {}
    for match in OBJECT.findall(text):
        try:
            predicted = json.loads(match)
        except ValueError:
            continue
    return predicted, OBJECT.sub('', text)


def meta(turns):
    """Mean of three scores of what each response predicts; what is not predicted scores 0."""
    pairs = [prediction(turn.text) for turn in turns]
    right = [bool(turn.turn.facts.correct) for turn in turns]
    lengths = [len(turn.turn.tokens) for turn, ok in zip(turns, right, strict=True) if ok]
    signs = [(1 if ok else -1, text) for (_, text), ok in zip(pairs, right, strict=True)]
    rewards = []
    for (values, _), turn in zip(pairs, turns, strict=True):
        rate, length = values.get('pass_rate'), values.get('solution_length')
        stated = str(values.get('math_notion', '')).strip('[]').split(',')
        names = [n for n in (n.strip(' \'"') for n in stated) if n not in turn.problem.question]
        useful = [sum(sign for sign, text in signs if name in text) > 0 for name in names]
        score = sum(useful) / len(names) if names else 0.0
        if type(rate) is int and 0 <= rate <= 8:
            score += 0.01 ** abs(sum(right) / len(right) - rate / 8)
        if type(length) is int and lengths:
            score += min(lengths) < length < max(lengths)
        rewards.append(score / 3)
    return rewards


CHANGES = {
    'reinforce.rewards.functions': (('elenchus.configs.methods.masa:meta', 1.0),),
    'reinforce.advantage.step_coef': 0.0,
}
get_config = method.of(CHANGES, stages=method.REINFORCE)
