"""ReFIne: traces that are structured, disclose what they rest on, and say how sure they are.

The reward adds to correctness three terms: the sections stand in their order, the thinking refers
to them by name, and the stated confidence is honest. The last is a proper score: the best
confidence to state is the true probability.

Formula: (correct + tags in order + refs + conf) / 4; refs 1/3 for each of three names that <think>
mentions; conf = 1 - (p - correct)^2, p stated out of 10; none stated: p = 0.5, less 1.
Source: arXiv 2510.09062; train/grpo_ReFIne.py:38 of the authors' repository, 7e9de86.
Differs: demonstrations in this form are the user's (JSONL solutions); the sections are those below.
"""

import re

from elenchus.configs import method

SECTIONS = ('understanding', 'facts', 'plan')
TAGS = [f'<{end}{name}>' for name in (*SECTIONS, 'think') for end in ('', '/')]
STATED = re.compile(r'confidence\s*:?\s*(\d+(?:\.\d+)?)\s*/\s*10\b', re.IGNORECASE)


def in_order(text):
    """1 if every tag stands once, each behind the one before."""
    places = [text.find(tag) for tag in TAGS]
    return float(places == sorted(places) and all(text.count(tag) == 1 for tag in TAGS))


def references(text):
    """Share of the sections' names that the thinking mentions."""
    thinking = ''.join(re.findall(r'<think>(.*?)</think>', text, re.DOTALL)).lower()
    return sum(bool(re.search(rf'\b{name}\b', thinking)) for name in SECTIONS) / len(SECTIONS)


def honesty(text, correct):
    """Quadratic score of the stated confidence; without one that of 0.5, less 1."""
    stated = STATED.findall(text)
    if not stated or float(stated[-1]) > 10:
        return 1 - (0.5 - correct) ** 2 - 1
    return 1 - (float(stated[-1]) / 10 - correct) ** 2


def traces(turns):
    """The mean of the four terms."""
    values = [(turn.text, float(turn.turn.facts.correct)) for turn in turns]
    return [(c + in_order(t) + references(t) + honesty(t, c)) / 4 for t, c in values]


CHANGES = {
    'reinforce.rewards.correct': 0.0,
    'reinforce.rewards.functions': (('elenchus.configs.methods.refine_traces:traces', 1.0),),
    'reinforce.advantage.step_coef': 0.0,
}
get_config = method.of(CHANGES, stages=method.REINFORCE)
