"""Restarts: samples of a group that begin anew behind a part of a sample of the group.

The slot `reinforce.turns.restart`. What such a sample begins with was not sampled for it, so those
tokens are not trained; a function may say otherwise. docs/extending.md has what it may return.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from elenchus.data.records import Episode, RolloutGroup, Turn
from elenchus.data.text.chat import Chat
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling import paused_turns, user_functions
from elenchus.sampling.engine.sampling_methods import Method
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.seeds import derive_seed
from elenchus.sampling.slots import Slot

FIELD = 'reinforce.turns.restart'


class Restart(NamedTuple):
    """What a sample begins with."""

    source: int  # number of the sample in its group
    num_tokens: int  # of its attempt, from the first; an end token is left out
    text: str  # behind them; '' for none


RESTARTS = Slot(
    '(group, rng) -> for each sample None or (source, tokens, text)',
    {'none': lambda group, rng: [None] * len(group)},
)
"""(group of judged attempts, generator) -> for each None, which stays, or (source, tokens, text).

Attributes, off where absent: `trains_beginning`, the tokens of a sample's own attempt stay trained
where it begins with them; `keeps_right`, a new sample whose answer is not right is dropped, and the
first one stays."""


def restart(
    models: ModelPair, method: Method, groups: Sequence[RolloutGroup], *, name: str, seed: int
) -> tuple[list[RolloutGroup], int]:
    """Samples again what a function of RESTARTS says; returns (groups, newly sampled tokens).

    New attempts have the fact `restarted`: whether the sample was right that they begin with. One
    whose beginning leaves no room for a further token stays as it was. Raises ValueError if the
    function returns something else.
    """
    function, sampler = RESTARTS.find(name, FIELD), models.sampler
    trains = getattr(function, 'trains_beginning', False)
    openings: dict[tuple[int, int], tuple[Turn, bool]] = {}
    for i, group in enumerate(groups):
        rng = np.random.default_rng(derive_seed(seed, 'restart', group.problem.id))
        for j, item in enumerate(_restarts(function, group, rng)):
            if item is not None:
                source = group[item.source].attempt
                kept = trains and item.source == j
                opening = _opening(sampler.chat, source, item, kept=kept, function=function)
                if len(opening.tokens) < sampler.max_tokens['attempt']:
                    openings[i, j] = (opening, bool(source.facts.correct))
    tokens_before = sampler.engine.tokens
    turns = _continue(models, method, groups, openings=openings, seed=seed)
    only_right = getattr(function, 'keeps_right', False)
    changed = [list(group) for group in groups]
    for (i, j), turn in turns.items():
        if turn.facts.correct or not only_right:
            changed[i][j] = _with_attempt(changed[i][j], turn)
    new = [RolloutGroup(g.problem, tuple(row)) for g, row in zip(groups, changed, strict=True)]
    return new, sampler.engine.tokens - tokens_before


def _restarts(
    function: Callable, group: RolloutGroup, rng: np.random.Generator
) -> list[Restart | None]:
    """Returns what the function says of each sample; ValueError for what is no restart."""
    returned = function(group, rng)
    items = list(returned) if isinstance(returned, list | tuple) else []
    valid = [item is None or _is_restart(item, group) for item in items]
    if len(items) != len(group) or not all(valid):
        wanted = (
            f'for each of {len(group)} samples None, or (source, tokens, text): the number of a '
            'sample, how many of its tokens, and a text'
        )
        user_functions.refuse(function, returned, wanted, field=FIELD)
    return [None if item is None else Restart(*item) for item in items]


def _is_restart(item: object, group: RolloutGroup) -> bool:
    if not isinstance(item, tuple) or len(item) != 3 or not isinstance(item[2], str):
        return False
    numbers = [x for x in item[:2] if isinstance(x, int | np.integer) and not isinstance(x, bool)]
    if len(numbers) != 2 or not 0 <= numbers[0] < len(group):
        return False
    return 0 <= numbers[1] <= len(group[numbers[0]].attempt.tokens)


def _opening(chat: Chat, source: Turn, item: Restart, *, kept: bool, function: Callable) -> Turn:
    """Returns the beginning of a turn; all is forced but, if `kept`, what was sampled.

    It ends before a tool's answer that it does not have whole.
    """
    tools = tuple(tool for tool in source.tools if tool.end <= item.num_tokens)
    cut = [tool.start for tool in source.tools[len(tools) :]]
    tokens = source.tokens[: min([item.num_tokens, *cut])]
    if tokens[-1:] == (chat.end_id,):
        tokens = tokens[:-1]
    text = item.text and paused_turns.appended_ids(chat, item.text, function, field=FIELD)
    size, whole = len(tokens), (*tokens, *text)
    logprobs, forced = (0.0,) * size, range(size)
    if kept:
        logprobs, forced = source.logprobs[:size], [i for i in source.forced if i < size]
    return dataclasses.replace(
        source,
        tokens=whole,
        logprobs=(*logprobs, *(0.0 for _ in text)),
        steps=(),
        tools=tools,
        forced=(*forced, *range(size, len(whole))),
    )


def _continue(
    models: ModelPair,
    method: Method,
    groups: Sequence[RolloutGroup],
    *,
    openings: dict[tuple[int, int], tuple[Turn, bool]],
    seed: int,
) -> dict[tuple[int, int], Turn]:
    """Samples and judges the attempts with these beginnings, by group and sample."""
    if not openings:
        return {}
    size, problems = len(groups[0]), [groups[i].problem for i, _ in openings]
    sampled = models.sampler.continue_turns(
        models.actor,
        [models.sampler.chat.question_turns(problem.question) for problem in problems],
        [opening for opening, _ in openings.values()],
        spec=SampleSpec(
            1, method, derive_seed(seed, 'restart'), [i * size + j for i, j in openings]
        ),
    )
    texts = [models.sampler.text(turn) for (turn,) in sampled]
    facts = models.judge(list(zip(problems, texts, strict=True)))
    return {
        place: dataclasses.replace(turn, facts=dataclasses.replace(judged, restarted=was_right))
        for (place, (_, was_right)), (turn,), judged in zip(
            openings.items(), sampled, facts, strict=True
        )
    }


def _with_attempt(episode: Episode, attempt: Turn) -> Episode:
    """Returns the episode with another attempt at its end."""
    return episode_lib.add_turn(dataclasses.replace(episode, turns=episode.turns[:-1]), attempt)
