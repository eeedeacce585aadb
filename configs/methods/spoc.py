"""SPOC: one model proposes and verifies in turn, and each message has a reward of its own.

A talk is solution, verdict, solution, ... Solutions are compared with the group's solutions at the
same place, verdicts with verdicts: a verdict is paid for being right, whatever it says.

Formula: A = (r - mean_k) / std_k, r = [answer right] or [verdict = answer right], k = role, place.
Source: arXiv 2506.06923, its RLOO variant with the table "Corr".
Differs: remarks on lines are a part of the solution; answers are compared as texts; no KL by role.
"""

import collections

import numpy as np

from elenchus.configs import method


def messages(lines, answer):
    """Returns (role, place, first line, end, reward) of each message of a talk."""
    parts, start, right = [], 0, False
    for i, line in enumerate(lines):
        is_solution, is_answer = len(parts) % 2 == 0, '####' in line
        says = line.lower().rstrip('.').split()[-1:]
        if is_solution and is_answer:
            right = line.split('####')[1].replace(',', '').strip() == answer
            reward = right
        elif not is_solution and says in (['correct'], ['wrong']):
            reward = (says == ['correct']) == right
        else:
            continue
        role = 'solution' if is_solution else 'verdict'
        parts.append((role, len(parts) // 2, start, i + 1, float(reward)))
        start = i + 1
    # A solution that never comes to an answer is wrong.
    is_open = len(parts) % 2 == 0 and start < len(lines)
    return parts + [('solution', len(parts) // 2, start, len(lines), 0.0)] * is_open


def by_message(scores, context):
    """Advantages of the lines of each talk; 0 on a verdict that was not given."""
    talks = [messages(turn.lines, turn.problem.answer) for turn in context.turns[0]]
    rewards = collections.defaultdict(list)
    for role, place, _, _, reward in (message for talk in talks for message in talk):
        rewards[role, place].append(reward)
    values = [np.zeros(len(steps)) for steps in scores]
    for row, talk in zip(values, talks, strict=True):
        for role, place, start, end, reward in talk:
            group = rewards[role, place]
            row[start:end] = (reward - np.mean(group)) / (np.std(group) + context.settings.epsilon)
    return values


by_message.reads_scores = False
CHANGES = method.TALKS | {
    'reinforce.start': 'self_talk',
    **{f'reinforce.advantage.{n}_coef': x for n, x in (('outcome', 0.0), ('step', 1.0))},
    'reinforce.advantage.steps': 'elenchus.configs.methods.spoc:by_message',
}
get_config = method.of(CHANGES, stages=(*method.CRITIC, 'self_talk', 'reinforce'))
