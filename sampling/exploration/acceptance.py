"""Which responses of an exploration count as right: by their labels, or as a function says.

The slot `improve.explore.accept`. What counts as right is not refined or sampled again, and may be
trained on. Where a function decides, no label is read: neither the facts of the judge nor the
reference solution, with which the shortcut barrier compares a response.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from elenchus.data.grading import answers
from elenchus.data.records import Episode, Problem, Turn
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling import user_functions
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.slots import Slot

FIELD = 'improve.explore.accept'


class Response(NamedTuple):
    """A response to a problem, as a function sees it."""

    problem: Problem
    turn: Turn  # its answer as the judge reads it is turn.facts.answer
    text: str
    verdict: bool | None  # the critic's; None also if the function does not read it


Accept = Callable[[Sequence[Response]], Sequence[bool | None]]
"""(responses to one problem so far) -> for each, whether it counts as right; None: unknown, not.

Attribute, off where absent: `reads_verdicts`, the critic criticises every response first."""


def _by_verdict(responses: Sequence[Response]) -> list[bool]:
    """Accepts what the critic calls correct."""
    return [response.verdict is True for response in responses]


def _by_label(responses: Sequence[Response]) -> list[bool]:
    """Accepts what is right."""
    return [bool(response.turn.facts.correct) for response in responses]


_by_verdict.reads_verdicts = True

ACCEPTS = Slot(
    '(responses to a problem) -> a boolean for each', {'right': _by_label, 'critic': _by_verdict}
)


class Accepted(NamedTuple):
    """Responses that have the fact `accepted`."""

    episodes: list[Episode]
    criticised: list[Episode] | None  # the same with critiques, if these were read


def accept(
    models: ModelPair,
    episodes: Sequence[Episode],
    problems: Mapping[str, Problem],
    *,
    rule: str,
    spec: SampleSpec,
    earlier: Mapping[str, Sequence[Episode]],
) -> Accepted:
    """Adds the fact `accepted` to the responses of `episodes`; rule='right' leaves it unset.

    `earlier` has the previous responses to each problem, which the function sees first; their facts
    do not change. Critiques are greedy.
    """
    if rule == 'right':
        return Accepted(list(episodes), None)
    function, criticised = ACCEPTS.find(rule, FIELD), None
    if getattr(function, 'reads_verdicts', False):
        criticised = episode_lib.sample_critiques(
            models.sampler,
            models.critic,
            [episode_lib.as_attempt(models.sampler, e) for e in episodes],
            grammar=models.grammar,
            spec=SampleSpec.greedy(spec.method),
        )
    verdicts = [e.critique.facts.verdict for e in criticised or ()] or [None] * len(episodes)
    places: dict[str, list[int]] = {}
    for i, episode in enumerate(episodes):
        places.setdefault(episode.problem_id, []).append(i)
    result: list[Episode] = list(episodes)
    for problem_id, indices in places.items():
        problem, before = problems[problem_id], earlier.get(problem_id, ())
        known = [(e, e.response.facts.verdict) for e in before]
        known += [(episodes[i], verdicts[i]) for i in indices]
        responses = [_response(models, problem, e, verdict=verdict) for e, verdict in known]
        decisions = _decisions(function, responses)[len(before) :]
        for i, decision in zip(indices, decisions, strict=True):
            result[i] = _decided(models, episodes[i], decision, verdict=verdicts[i])
    return Accepted(result, criticised)


def _response(
    models: ModelPair, problem: Problem, episode: Episode, *, verdict: bool | None
) -> Response:
    turn = episode.response
    return Response(problem, turn, models.sampler.chat.text(turn), verdict)


def _decisions(function: Accept, responses: Sequence[Response]) -> list[bool]:
    """Returns a boolean for each response. Raises ValueError, naming the function, otherwise."""
    returned = function(list(responses))
    is_list = isinstance(returned, Sequence | np.ndarray) and not isinstance(returned, str)
    values = list(returned) if is_list else []
    if len(values) != len(responses) or not all(
        value is None or isinstance(value, bool | np.bool_) for value in values
    ):
        wanted = f'True, False or None for each of {len(responses)} responses'
        user_functions.refuse(function, returned, wanted, field=FIELD)
    return [bool(value) for value in values]


def _decided(
    models: ModelPair, episode: Episode, decision: bool, *, verdict: bool | None
) -> Episode:
    """Returns the episode with the decision; its shortcut barrier reads no reference solution."""
    last, text = episode.turns[-1], models.sampler.chat.text
    passes = True
    if last.role == 'refinement':
        attempt = text(episode.attempt)
        passes = answers.passes_barrier(text(last), attempt, attempt)
    facts = {'accepted': decision, 'passes_barrier': passes, 'verdict': verdict}
    turns = (*episode.turns[:-1], last.with_facts(**facts))
    return dataclasses.replace(episode, turns=turns)
