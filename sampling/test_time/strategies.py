"""Critique at test time: in parallel, in sequential rounds, and of what an oracle points at.

A strategy takes judged attempts, asks the critic and the actor for more turns, and returns the
episodes that it made and how many tokens it sampled. What an episode has already is not sampled
again, and noise goes by the attempt's id, so strategies share samples: where two of them refine
the same attempt after the same critique, they get the same refinement.
"""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

from elenchus.data.records import Episode, Problem
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling import step_scores as step_lib
from elenchus.sampling.engine.sampling_methods import Greedy, Method
from elenchus.sampling.exploration.context import Players, as_attempt
from elenchus.sampling.step_scores import StepScorer

Refine = Literal['always', 'wrong']


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What the strategies of a comparison share; critiques are greedy, refinements by `method`.

    refine='wrong' leaves alone what the critic calls right; a garbled critique is no such call.
    """

    players: Players
    scorer: StepScorer
    method: Method
    refine: Refine
    num_rounds: int  # of critique and refinement; the first is that of `parallel`
    seed: int


Strategy = Callable[..., tuple[list[Episode], int]]
"""(conditions, judged episodes, their problems, *, first_id) -> (episodes, sampled tokens).

Episode i has the id first_id + i. The outcome of every episode made counts what all its sampled
turns cost, `tokens` and model `calls` by role, whoever asked for them.
"""


def parallel(
    conditions: Conditions,
    attempts: Sequence[Episode],
    problems: Sequence[Problem],
    *,
    first_id: int,
) -> tuple[list[Episode], int]:
    """Each attempt with its critique and step scores and, where due, one refinement."""
    ids = range(first_id, first_id + len(attempts))
    return _play(conditions, attempts, problems, ids, number=1, due=_due(conditions))


def sequential(
    conditions: Conditions,
    first_round: Sequence[Episode],
    problems: Sequence[Problem],
    *,
    first_id: int,
) -> tuple[list[Episode], int]:
    """Rounds 2 to `num_rounds` of chains whose first round `parallel` has played.

    Rounds are memoryless: the refinement becomes the attempt, and the next critique sees nothing
    else. A chain ends when a round brings no refinement. An episode a round and chain; the outcome
    tells its `round` and `chain`, the id of the attempt that the chain began with.
    """
    sampler = conditions.players.sampler
    chains = dict(enumerate(zip(first_round, problems, strict=True), first_id))
    made, tokens = [], 0
    for number in range(2, conditions.num_rounds + 1):
        going = {i: pair for i, pair in chains.items() if pair[0].turns[-1].role == 'refinement'}
        if not going:
            break
        starts, asked = zip(*going.values(), strict=True)
        answers = [_shown(as_attempt(sampler, episode)) for episode in starts]
        played, more = _play(
            conditions, answers, asked, list(going), number=number, due=_due(conditions)
        )
        tokens += more
        noted = [_noted(e, chain=i, round=number) for i, e in zip(going, played, strict=True)]
        made += noted
        chains = dict(zip(going, zip(noted, asked, strict=True), strict=True))
    return made, tokens


def oracle(
    conditions: Conditions,
    episodes: Sequence[Episode],
    problems: Sequence[Problem],
    *,
    first_id: int,
) -> tuple[list[Episode], int]:
    """Critique and refinement of the truly wrong attempts alone, whatever the critic calls them.

    An upper bound, not a method: it needs the truth. `episodes` are attempts, bare or played by
    `parallel`. Returned are those of wrong attempts; `chain` in the outcome is the attempt's id.
    """
    wrong = [i for i, episode in enumerate(episodes) if not episode.outcome['correct']]
    ids = [first_id + i for i in wrong]
    played, tokens = _play(
        conditions,
        [episodes[i] for i in wrong],
        [problems[i] for i in wrong],
        ids,
        number=1,
        due=lambda episode: True,
    )
    return [_noted(e, chain=i) for i, e in zip(ids, played, strict=True)], tokens


def score_steps(
    players: Players, episodes: Sequence[Episode], *, scorer: StepScorer, greedy: Greedy, seed: int
) -> list[Episode]:
    """Episodes with a critique, the attempt's step_scores from it, and its final score.

    Where the critique has no verdict at all, every step scores 0 and `score` is None.
    """
    criticised = episode_lib.critiques(
        players.sampler,
        players.critic,
        episodes,
        grammar=players.grammar,
        method=greedy,
        seed=seed,
        first_id=0,
    )
    scores = step_lib.step_rewards(
        players.critic,
        criticised,
        scorer.shapes,
        grammar=players.grammar,
        chat=players.sampler.chat,
        **scorer.verdict_ids,
    )
    result = []
    for episode, score in zip(criticised, scores, strict=True):
        *given, attempt, critique = episode.turns
        steps = score.steps or (0.0,) * len(attempt.step_ends)
        attempt = dataclasses.replace(attempt, step_scores=steps)
        scored = dataclasses.replace(episode, turns=(*given, attempt, critique))
        result.append(_noted(scored, score=score.final))
    return result


def _play(
    conditions: Conditions,
    episodes: Sequence[Episode],
    problems: Sequence[Problem],
    ids: Sequence[int],
    *,
    number: int,
    due: Callable[[Episode], bool],
) -> tuple[list[Episode], int]:
    """One round: a critique of each episode that has none, a refinement of each that is due."""
    players, seed = conditions.players, conditions.seed
    played = list(episodes)
    bare = [i for i, e in enumerate(played) if e.turns[-1].role == 'attempt']
    greedy = Greedy(conditions.method.banned)
    criticised = score_steps(
        players, [played[i] for i in bare], scorer=conditions.scorer, greedy=greedy, seed=seed
    )
    for i, episode in zip(bare, criticised, strict=True):
        played[i] = episode
    chosen = [i for i, e in enumerate(played) if e.turns[-1].role == 'critique' and due(e)]
    refined = episode_lib.refinements(
        players.sampler,
        players.actor,
        [played[i] for i in chosen],
        [problems[i] for i in chosen],
        judge=players.judge,
        num_samples=1,
        method=conditions.method,
        seed=seed + number,
        first_id=[ids[i] for i in chosen],
    )
    for i, (episode,) in zip(chosen, refined, strict=True):
        played[i] = episode
    tokens = episode_lib.sampled_tokens(played) - episode_lib.sampled_tokens(episodes)
    return [counted(episode) for episode in played], tokens


def counted(episode: Episode) -> Episode:
    """The episode with what it cost: `tokens` and model `calls` by role.

    A turn without log-probabilities was not sampled for this episode and costs nothing.
    """
    tokens, calls = collections.Counter(), collections.Counter()
    for turn in episode.turns:
        if turn.logprobs:
            tokens[turn.role] += len(turn.tokens)
            calls[turn.role] += 1
    return _noted(episode, tokens=dict(tokens), calls=dict(calls))


def _due(conditions: Conditions) -> Callable[[Episode], bool]:
    """Whether the critic's verdict asks for a refinement."""
    if conditions.refine == 'always':
        return lambda episode: True
    return lambda episode: episode.outcome['verdict'] is not True


def _shown(episode: Episode) -> Episode:
    """The episode with its last turn as one that is shown here, and was sampled elsewhere."""
    *given, last = episode.turns
    return dataclasses.replace(episode, turns=(*given, dataclasses.replace(last, logprobs=())))


def _noted(episode: Episode, **facts) -> Episode:
    return dataclasses.replace(episode, outcome=episode.outcome | facts)
