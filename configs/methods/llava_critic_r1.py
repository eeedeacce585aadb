"""LLaVA-Critic-R1: to judge between two answers is a problem with an answer, so it can be rewarded.

Preferences between two responses are put as problems: question, both responses, which is better?
Reinforcement on them makes a critic, and since it is the same model in the same form, it makes a
better actor too.

Formula: r = [the preferred response is named], by GRPO, on one model that also solves problems.
Source: arXiv 2509.00676 (abstract and the authors' page); weights of its format reward not found.
Differs: text without images; the preferences are the reference against itself with another result,
where the authors have labelled pairs of models' responses (as problems in JSONL they need no
rewriting); half of the problems are judged, half solved; the lab has no words for it and stays.
"""

import dataclasses
import random
import re

from elenchus.configs import method

ASK = 'Which response is better, 1 or 2?'


def flawed(text, rng):
    """A solution with another result, in its last two lines; None if the last has no number."""
    *before, line, last = ['', *text.split('\n')]
    numbers = re.findall(r'\d+', last)
    if not numbers:
        return None
    wrong = str(int(numbers[-1]) + rng.choice([-2, -1, 1, 2, 10]))
    end = re.sub(rf'\b{numbers[-1]}\b', wrong, f'{line}\n{last}')
    return '\n'.join([*before, end]).strip('\n')


def preference(problem):
    """A problem put as a judgement, if its id says so; its solution names the reference."""
    rng = random.Random(problem.id)
    rejected = flawed(problem.solution, rng)
    if problem.source == 'lab' or rejected is None or rng.random() < 0.5:
        return problem
    place, pair = rng.randrange(2), [rejected]
    pair.insert(place, problem.solution)
    shown = '\n\n'.join(f'Response {i}:\n{text}' for i, text in enumerate(pair, 1))
    return dataclasses.replace(
        problem,
        question=f'{problem.question}\n\n{shown}\n\n{ASK}',
        answer=str(place + 1),
        solution=f'{problem.solution}\nThis is response {place + 1}.\n#### {place + 1}',
    )


CHANGES = {
    'data.rewrite': 'elenchus.configs.methods.llava_critic_r1:preference',
    'data.too_long': 'drop',  # where there is no room for two responses
    'reinforce.advantage.step_coef': 0.0,
}
get_config = method.of(CHANGES, stages=method.REINFORCE)
