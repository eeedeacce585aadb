"""DR. SAF: say how hard a problem is, and be brief only where it is easy.

A response states whether the problem is within reach (CFRB) or needs to be worked out (PFRB). It
earns something for stating what its group's success says. Where nearly all of a group are right,
short right responses earn more; where nearly all are wrong, long wrong ones do, so that the model
goes on trying. In between, length earns nothing.

Formula: r = [right] + 0.01 ([one is stated] + 2 [it is the group's] + L), the group's being CFRB if
acc >= 0.95, else PFRB; L = 5 [right, length <= median] if acc >= 0.95, 5 [wrong, length >= median]
if acc < 0.3, else 0; median of right responses, of all if none is.
Source: arXiv 2508.11582; verl_drsaf/verl/utils/reward_score/__init__.py and
workers/reward_manager/naive.py of github.com/sfasfaffa/DR_SAF, 83232c5.
Differs: the authors' prompt, which asks for the statement, is the user's to set
(prompts.attempt.instruction); the lab has no words for it, so that there only length is rewarded.
"""

import re

import numpy as np

from elenchus.configs import method

EASY, HARD = 0.95, 0.3


def stated(text):
    """The boundary that a response states in its thinking, or None."""
    marks = re.findall(r'\b(CFRB|PFRB)\b', text.split('</think>')[0])
    return marks[0] if marks else None


def boundary(turns):
    """What a response earns beside its correctness, by its group's share of right ones."""
    right = np.array([bool(turn.turn.facts.correct) for turn in turns])
    lengths = np.array([len(turn.turn.tokens) for turn in turns])
    accuracy = right.sum() / (len(turns) + 1e-3)
    median = np.median(lengths[right] if right.any() else lengths)
    bonus = np.zeros(len(turns))
    if accuracy >= EASY:
        bonus = 5.0 * (right & (lengths <= median))
    elif accuracy < HARD:
        bonus = 5.0 * (~right & (lengths >= median))
    wanted = 'CFRB' if accuracy >= EASY else 'PFRB'
    marks = [stated(turn.text) for turn in turns]
    said = np.array([(mark is not None) + 2 * (mark == wanted) for mark in marks])
    return 0.01 * (said + bonus)


CHANGES = {
    'reinforce.rewards.functions': (('elenchus.configs.methods.dr_saf:boundary', 1.0),),
    'reinforce.advantage.step_coef': 0.0,
}
get_config = method.of(CHANGES, stages=method.REINFORCE)
