"""Tool-Star: several tools in one turn, and a reward for a right answer that needed more than one.

Formula: r = -1 without the form; 0 for a wrong answer; 1 for a right one, and 0.1 more if two
kinds of tools answered. The form: <think> in pairs, each call followed by its <result>, and one
<answer> with a \\boxed{}.
Source: arXiv 2505.16410; re_search.py of github.com/threegold116/Tool-Star-OCT, 0ac7f61.
Differs: the tools are Python and a calculator; search is a function of yours in sampling.tools.use.
Cold start is on the user's solutions, whose synthesis by hints is not here, nor are the tools of
inference alone. The lab has no words for tags: there all lack the form alike, its one tool is
CoSC's, and the answer is rewarded by itself.
"""

import re

from elenchus.configs import method
from elenchus.configs.methods.cosc import last_digit as last_digit

TOOLS = ('python', 'calculator')
CALL = re.compile(rf'<({"|".join(TOOLS)})>.*?</\1>(\s*<result>.*?</result>)?', re.DOTALL)
ANSWER = re.compile(r'<answer>((?:(?!</?answer>).)*)</answer>', re.DOTALL)


def has_form(text):
    """Whether a turn has the form."""
    thoughts, answer = text.count('<think>'), ANSWER.search(text)
    calls = [match[2] is not None for match in CALL.finditer(text)]
    opened = sum(text.count(f'<{name}>') + text.count(f'</{name}>') for name in TOOLS)
    return (
        0 < thoughts == text.count('</think>')
        and text.count('<answer>') == text.count('</answer>') == 1
        and bool(answer and re.search(r'\\boxed\{.*\}', answer[1], re.DOTALL))
        and all(calls)
        and opened == 2 * len(calls)
    )


def hierarchical(turns):
    """The reward of each turn."""
    rewards = []
    for turn in turns:
        kinds = {tool.name for tool in turn.turn.tools if tool.outcome == 'answered'}
        right = 1.0 + 0.1 * (len(kinds) > 1) if turn.turn.facts.correct else 0.0
        rewards.append(right if has_form(turn.text) else -1.0)
    return rewards


CHANGES = {
    'sampling.tools.use': TOOLS,
    'sampling.tools.form': 'tags',
    'reinforce.rewards.correct': 0.0,
    'reinforce.rewards.functions': (('elenchus.configs.methods.tool_star:hierarchical', 1.0),),
    'reinforce.advantage.step_coef': 0.0,
}
LAB = {'sampling.tools.use': ('elenchus.configs.methods.tool_star:last_digit',)}
LAB |= {'sampling.tools.form': 'equation', 'sampling.tools.max_calls': 20}
LAB['reinforce.rewards.correct'] = 1.0
get_config = method.of(CHANGES, stages=method.REINFORCE, lab_changes=LAB)
