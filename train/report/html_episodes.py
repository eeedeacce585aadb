"""Episodes of the report: a varied selection, shown turn by turn with the critic's scores."""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from elenchus.data import records
from elenchus.train.report.html_elements import escape

Decode = Callable[[Sequence[int]], str]
"""Token ids -> text."""


def choose_episodes(episodes: Iterable[records.Episode], count: int) -> list[records.Episode]:
    """Chooses `count` episodes, alternating between transitions and, within each, between levels.

    A transition is what refinement does to correctness; i2c: an incorrect attempt is corrected.
    """
    queues = {change: collections.defaultdict(list) for change in ('i2c', 'c2c', 'i2i', 'c2i')}
    for episode in episodes:
        queue = queues[_transition(episode)][episode.level]
        if len(queue) < count:
            queue.append(episode)
    orders = []
    for shift, by_level in enumerate(queues.values()):
        levels = sorted(by_level)
        # Each transition starts at another level, or a short selection would be of level 1 alone.
        start = shift % len(levels) if levels else 0
        rotated = levels[start:] + levels[:start]
        orders.append(_round_robin(by_level[level] for level in rotated))
    return list(itertools.islice(_round_robin(orders), count))


def _transition(episode: records.Episode) -> str:
    before, after = (bool(t.facts.correct) for t in (episode.attempt, episode.response))
    return 'ic'[before] + '2' + 'ic'[after]


def _round_robin(groups: Iterable[Iterable]) -> Iterator:
    """Yields the first items of all groups, then the second ones, and so on."""
    absent = object()
    rounds = itertools.zip_longest(*groups, fillvalue=absent)
    return (item for row in rounds for item in row if item is not absent)


def episode_details(episode: records.Episode, decode: Decode) -> str:
    """HTML of an episode: all of its turns and the known facts about them."""
    judged = [turn for turn in episode.turns if turn.facts.correct is not None]
    tags = ''.join(_tag(turn.role, turn.facts.correct) for turn in judged)
    head = f'<summary>level {escape(episode.level)} · {escape(episode.problem_id)}{tags}</summary>'
    body = ''.join(_turn(turn, decode) for turn in episode.turns)
    return f'<details open>{head}{body}{_facts(episode.facts)}</details>'


def _turn(turn: records.Turn, decode: Decode) -> str:
    cuts = [0, *turn.step_ends, len(turn.tokens)]
    texts = [decode(turn.tokens[a:b]).strip() for a, b in itertools.pairwise(cuts)]
    # Tokens after the last step have no score, nor has any step of a turn without a critic.
    scores = [*(step.score for step in turn.steps), None]
    pairs = zip(texts, scores, strict=True)
    lines = ''.join(_step(text, score) for text, score in pairs if text)
    return f'<h4>{escape(turn.role)}</h4><div class="text">{lines}</div>{_facts(turn.facts)}'


def _facts(facts: records.TurnFacts | records.EpisodeFacts) -> str:
    """A line with all known facts; '' if there are none."""
    known = [f'{n}: {v}' for n, v in dataclasses.asdict(facts).items() if v is not None]
    return f'<p class="soft">{escape(", ".join(known))}</p>' if known else ''


def _step(text: str, score: float | None) -> str:
    if score is None:
        return f'<div><span>{escape(text)}</span></div>'
    verdict = 'right' if score >= 0.5 else 'wrong'
    sign = '✓' if score >= 0.5 else '✗'
    label = f'<span>{sign} {verdict} {score:.2f}</span>'
    return f'<div class="{verdict}"><span>{escape(text)}</span>{label}</div>'


def _tag(role: str, right: bool) -> str:
    kind, sign = ('right', '✓') if right else ('wrong', '✗')
    return f'<span class="tag {kind}">{sign} {escape(role)} {kind}</span>'
