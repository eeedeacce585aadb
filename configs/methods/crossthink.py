"""Nemotron-CrossThink: reinforcement on a blend of fields, put so that answers can be checked.

Rewards can be verified beyond mathematics too, if the space of answers is narrow. So problems of
several sets are blended by weight, and each is put by its kind: a choice asks for a letter, an open
question for a few words.

Formula: n_i = num_train w_i / sum_j w_j problems of set i; GRPO with r = [right].
Source: arXiv 2504.13941; no code was found. The words of the templates are ours.
Differs: the further sets are the user's, as in data.blend=(('jsonl', 'science.jsonl', 2.0),), with
the weights; without them only the templates act. Answers that cannot be checked, and questions that
a small model solves, are not filtered out. The lab has no words for a template, and stays as it is.
"""

import dataclasses
import re

from elenchus.configs import method

LETTER = re.compile(r'\(?[A-J]\)?')
OPTION = re.compile(r'^\s*\(?[A-J][).:]\s', re.MULTILINE)
CHOICE = 'Answer with the letter of one option.'
OPEN = 'Answer with a number or a few words.'


def template(problem):
    """The problem with a line that says what an answer may be."""
    if problem.source == 'lab':
        return problem
    has_options = len(OPTION.findall(problem.question)) > 1
    is_choice = has_options and LETTER.fullmatch(problem.answer.strip())
    line = CHOICE if is_choice else OPEN
    return dataclasses.replace(problem, question=f'{problem.question}\n{line}')


CHANGES = {
    'data.rewrite': 'elenchus.configs.methods.crossthink:template',
    'data.too_long': 'drop',  # where there is no room for the line
    'reinforce.advantage.step_coef': 0.0,
}
get_config = method.of(CHANGES, stages=method.REINFORCE)
