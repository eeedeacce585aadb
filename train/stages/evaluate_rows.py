"""Rows of every table of evaluation: right in every step, tokens processed, and the base model."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from elenchus.data.records import Episode, RolloutGroup, Turn
from elenchus.data.text.chat import Chat
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.metrics import critic_metrics
from elenchus.sampling.metrics.tool_figures import tool_figures
from elenchus.train.config.run_settings import EvaluateSettings
from elenchus.train.stages.evaluate_figures import by_level

RESPONSES: Mapping[str, Callable[[Episode], Turn]] = {
    'attempt': lambda episode: episode.attempt,
    'refined': lambda episode: episode.response,
}
"""Arm -> the turn that answers the question."""
OFTEN_CUT_OFF = 0.05
"""Share of turns without an end above which the stage prints a warning."""


def rows(
    s: EvaluateSettings, groups: Sequence[RolloutGroup], arms: Sequence[str], *, chat: Chat
) -> dict:
    """Returns `steps_correct` by arm and level, and `processed_per_answer` by arm.

    The first is the share of responses whose every step is right, of `attempt` and `refined` where
    they are among the arms; None if the judge does not know steps (only that of the lab does).
    """
    episodes = [episode for group in groups for episode in group]
    steps = {
        arm: by_level(s, [g.problem for g in groups], _means(groups, arm, 'steps_correct'))
        for arm in RESPONSES
        if arm in arms and critic_metrics.knows_steps(episodes)
    }
    processed = processed_per_answer(groups, arms, chat=chat)
    summary = {'steps_correct': steps or None, 'processed_per_answer': processed}
    calls = tool_figures(turn for e in episodes for turn in e.turns if turn.role != 'critique')
    return summary | ({'tools': calls} if calls else {})


def cut_off(groups: Sequence[RolloutGroup], *, chat: Chat) -> dict[str, float]:
    """Returns the share of turns without an end, by role: they reached the limit of their length.

    Such an attempt mostly has no answer, such a critique no verdict.
    """
    turns = [turn for group in groups for e in group for turn in e.turns if turn.logprobs]
    roles = dict.fromkeys(turn.role for turn in turns)
    return {
        role: float(np.mean([not chat.is_finished(turn) for turn in turns if turn.role == role]))
        for role in roles
    }


def warn_cut_off(shares: Mapping[str, float]) -> None:
    """Prints which turns are often cut off, and the setting that gives them more room."""
    for role, share in shares.items():
        if share > OFTEN_CUT_OFF:
            setting = f'sampling.{role}_tokens'
            print(f'warning: {share:.0%} of {role}s are cut off at {setting}: raise it')


def processed_per_answer(
    groups: Sequence[RolloutGroup], arms: Sequence[str], *, chat: Chat
) -> dict[str, float]:
    """Returns the tokens an answer that models read and wrote: each call's prompt and its turn.

    `majority@k` has k attempts, `refined majority@k` also their critiques and refinements.
    """
    counts = [episode_lib.processed_tokens(chat, e) for group in groups for e in group]
    attempt = float(np.mean([count['attempt'] for count in counts]))
    refined = float(np.mean([sum(count.values()) for count in counts]))
    processed = {}
    for arm in arms:
        name, _, size = arm.partition('@')
        processed[arm] = int(size or 1) * (refined if name.startswith('refined') else attempt)
    return processed


def with_base(
    s: EvaluateSettings,
    summary: dict,
    groups: Sequence[RolloutGroup],
    *,
    base: Sequence[RolloutGroup],
    chat: Chat,
) -> dict:
    """Adds the row `base`, the base model's attempts, to the tables of a summary.

    `groups` are the episodes of actor and critic, whose final answers are compared with it.
    """
    table = rows(s, base, ['attempt'], chat=chat)
    alone = [episode for group in base for episode in group]
    right, refined = _means(base, 'attempt', 'correct'), _means(groups, 'refined', 'correct')
    problems = [group.problem for group in groups]
    added = {
        'accuracy': {'base': by_level(s, problems, right)},
        'difference': {'refined-base': by_level(s, problems, refined, baseline=right)},
        'tokens_per_answer': {'base': episode_lib.sampled_tokens(alone) / len(alone)},
        'processed_per_answer': {'base': table['processed_per_answer']['attempt']},
    }
    if table['steps_correct']:
        added['steps_correct'] = {'base': table['steps_correct']['attempt']}
    return summary | {name: summary[name] | row for name, row in added.items()}


def _means(groups: Sequence[RolloutGroup], arm: str, fact: str) -> list[float]:
    """Share of a question's responses of which a fact is true."""
    return [
        float(np.mean([bool(getattr(RESPONSES[arm](e).facts, fact)) for e in group]))
        for group in groups
    ]
