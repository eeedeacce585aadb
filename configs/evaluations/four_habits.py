"""Four Habits: how often a model verifies, backtracks, sets subgoals and reasons backwards.

The rates of the four behaviours before reinforcement predict what it gains.

Formula: share of attempts that show a behaviour.
Source: arXiv 2503.01307.
Differs: patterns of words, where the authors ask a language model to find the behaviours; so the
rates compare models with each other and are no absolute counts.
"""

import re

from elenchus.configs import method

HABITS = {
    'verifies': r"\b(let'?s|let me|to) (check|verify|double.check)|\bcheck(ing)? (that|this)",
    'backtracks': r"\b(wait|actually|instead|that'?s (not|wrong)|wrong|try again)\b",
    'sets subgoals': r'\b(first|next|then|step \d+|to do this|we need to|finally)\b',
    'reasons backwards': r'\b(work(ing)? backwards?|in order to (get|reach)|so that it is)\b',
}
PATTERNS = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in HABITS.items()}


def habits(groups, read):
    """Share of attempts with each behaviour."""
    texts = [read(episode.attempt) for group in groups for episode in group]
    return {
        name: sum(bool(pattern.search(text)) for text in texts) / len(texts)
        for name, pattern in PATTERNS.items()
    }


CHANGES = {'evaluate.measures': ('elenchus.configs.evaluations.four_habits:habits',)}
get_config = method.of(CHANGES, stages=method.EVALUATE)
