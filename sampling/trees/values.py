"""Values of nodes of a tree: how good an attempt so far is (the slot `sampling.tree.values`).

A function gets one node. Its attributes (READS) say what must be sampled before: a critique with
step scores, or continuations to the end. It may also ask a player in words, as a guide does.
"""

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from elenchus.data.records import Episode, Problem
from elenchus.sampling import user_functions, writing
from elenchus.sampling.engine.generator import Generator
from elenchus.sampling.engine.requests import Completion
from elenchus.sampling.engine.sampling_methods import Method
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.seeds import derive_seed
from elenchus.sampling.slots import Slot
from elenchus.sampling.step_scores import StepScorer
from elenchus.sampling.test_time import partial_attempts, votes
from elenchus.sampling.test_time.partial_attempts import Cost
from elenchus.sampling.trees.tree import checked_value

FIELD = 'sampling.tree.values'


class Rollout(NamedTuple):
    """A continuation of a node to the end; for a finished attempt, the attempt itself."""

    text: str
    answer: str | None
    score: float | None  # the critic's, of the answer; None also if the function does not read it
    right: bool | None  # None unless the function reads labels


class NodeNotes(NamedTuple):
    """What a function gets of a node, besides the problem."""

    text: str  # of the attempt so far
    ended: bool
    step_scores: tuple[float | None, ...] = ()  # the critic's
    score: float | None = None  # the critic's, of the answer
    critique: str = ''
    verdict: bool | None = None  # of that critique
    rollouts: tuple[Rollout, ...] = ()
    written: tuple[str, ...] = ()  # the answers to its requests


READS = ('reads_scores', 'reads_rollouts', 'scores_rollouts', 'reads_labels')
"""Attributes of a function of values that say what it reads; off where absent."""

Value = Callable[[Problem, NodeNotes], Any]
"""(problem, notes) -> a number in [0, 1], or [a request].

Attributes: those of READS; `num_requests`, how often it asks at most, and `writer`, whom."""


def _of_steps(how: votes.Aggregate) -> Value:
    """The critic's step scores, reduced to one; an unknown score counts as 0."""

    def value(problem: Problem, notes: NodeNotes) -> float:
        return votes.aggregate(notes.step_scores, how)

    value.reads_scores = True
    return value


def _verdict(problem: Problem, notes: NodeNotes) -> float:
    """1 if the critique ends with "correct", which is an evaluation in words; else 0."""
    return float(notes.verdict is True)


def _rollouts(problem: Problem, notes: NodeNotes) -> float:
    """The share of continuations that are right; it reads labels."""
    return sum(bool(r.right) for r in notes.rollouts) / len(notes.rollouts)


def _rollout_scores(problem: Problem, notes: NodeNotes) -> float:
    """The mean of the critic's scores of the continuations' answers."""
    return math.fsum(r.score or 0.0 for r in notes.rollouts) / len(notes.rollouts)


def _agreement(problem: Problem, notes: NodeNotes) -> float:
    """The share of continuations with the most frequent answer."""
    counts = collections.Counter(r.answer for r in notes.rollouts if r.answer is not None)
    return max(counts.values(), default=0) / len(notes.rollouts)


_verdict.reads_scores = True
for _function in (_rollouts, _rollout_scores, _agreement):
    _function.reads_rollouts = True
_rollouts.reads_labels = _rollout_scores.scores_rollouts = True

VALUES = Slot(
    '(problem, notes) -> a number in [0, 1] or [a request]',
    {
        **{how: _of_steps(how) for how in ('min', 'product', 'last')},
        'verdict': _verdict,
        'rollouts': _rollouts,
        'rollout_scores': _rollout_scores,
        'agreement': _agreement,
    },
)


class Weighted(NamedTuple):
    """A function of VALUES and its weight."""

    function: Value
    weight: float

    def asks_for(self, name: str) -> bool:
        """Returns whether the function has an attribute of READS."""
        return bool(getattr(self.function, name, False))

    @property
    def num_requests(self) -> int:
        """Largest number of requests that the function puts to a player."""
        return int(getattr(self.function, 'num_requests', 0))


def find_values(named: Sequence[tuple[str, float]]) -> tuple[Weighted, ...]:
    """Returns the functions that are named with a weight above 0."""
    return tuple(Weighted(VALUES.find(name, FIELD), weight) for name, weight in named if weight)


@dataclasses.dataclass(frozen=True)
class Valuation:
    """How nodes are valued: the weighted mean of some functions."""

    functions: tuple[Weighted, ...]
    num_rollouts: int  # of a node, where a function reads them
    scorer: StepScorer
    always_scores: bool  # nodes get a critique even if no function reads it
    room: int | None  # tokens of a request's prompt, at most; None: any

    def asks_for(self, name: str) -> bool:
        """Returns whether any function has an attribute of READS."""
        return any(f.asks_for(name) for f in self.functions)

    @property
    def scores(self) -> bool:
        """Whether nodes get a critique."""
        return self.always_scores or self.asks_for('reads_scores')


def most_tokens(
    functions: Sequence[Weighted],
    *,
    limits: Mapping[str, int],
    num_rollouts: int,
    always_scores: bool,
) -> int:
    """Returns the most tokens that the valuation of one node may sample.

    `limits` are the longest turns, by role.
    """
    reads = {name for f in functions for name in READS if f.asks_for(name)}
    most = limits['critique'] if always_scores or 'reads_scores' in reads else 0
    if 'reads_rollouts' in reads:
        scored = limits['critique'] if 'scores_rollouts' in reads else 0
        most += num_rollouts * (limits['attempt'] + scored)
    return most + limits['attempt'] * sum(f.num_requests for f in functions)


class New(NamedTuple):
    """A node that has no value yet."""

    problem: Problem
    episode: Episode
    ended: bool
    id: int  # of its sample
    cost: Cost


def value_nodes(
    valuation: Valuation, models: ModelPair, new: Sequence[New], *, method: Method, seed: int
) -> list[tuple[Episode, float]]:
    """Returns the nodes' attempts, with the critique if they got one, and their values."""
    episodes, costs = [node.episode for node in new], [node.cost for node in new]
    if valuation.scores:
        options = {'scorer': valuation.scorer, 'method': method, 'costs': costs}
        episodes = partial_attempts.score_attempts(models, episodes, **options)
    rollouts = [()] * len(new)
    if valuation.asks_for('reads_rollouts'):
        rollouts = sample_rollouts(valuation, models, new, method=method, seed=seed)
    values = [0.0] * len(new)
    for number, (function, weight) in enumerate(valuation.functions):
        items = [
            (node.problem, _notes(models, function, episode, rollouts=continued))
            for node, episode, continued in zip(new, episodes, rollouts, strict=True)
        ]
        spec = SampleSpec(1, method, derive_seed(seed, 'value', number), [n.id for n in new])
        costs_by_id = {node.id: node.cost for node in new}
        options = {'spec': spec, 'costs': costs_by_id, 'room': valuation.room}
        more = _ask(models, function, items, **options)
        values = [v + weight * x for v, x in zip(values, more, strict=True)]
    total = math.fsum(weight for _, weight in valuation.functions)
    return [(e, min(1.0, value / total)) for e, value in zip(episodes, values, strict=True)]


def sample_rollouts(
    valuation: Valuation, models: ModelPair, new: Sequence[New], *, method: Method, seed: int
) -> list[tuple[Rollout, ...]]:
    """Samples, judges and, where a function reads it, scores continuations of nodes to the end."""
    count = valuation.num_rollouts
    unended = [node for node in new if not node.ended]
    groups = iter(
        partial_attempts.continue_attempts(
            models.sampler,
            models,
            [node.episode for node in unended],
            spec=SampleSpec(
                count, method, derive_seed(seed, 'rollout'), [n.id * count for n in unended]
            ),
            costs=[node.cost for node in unended],
        )
    )
    groups = [[node.episode] if node.ended else next(groups) for node in new]
    owners = [node for node, group in zip(new, groups, strict=True) for _ in group]
    ends = [episode for group in groups for episode in group]
    if valuation.asks_for('scores_rollouts'):
        costs = [node.cost for node in owners]
        options = {'scorer': valuation.scorer, 'method': method, 'costs': costs}
        bare = [partial_attempts.without_critique(episode) for episode in ends]
        ends = partial_attempts.score_attempts(models, bare, **options)
    judged = iter(partial_attempts.judge_attempts(models, ends, [node.problem for node in owners]))
    return [tuple(_rollout(models, next(judged)) for _ in group) for group in groups]


def _rollout(models: ModelPair, episode: Episode) -> Rollout:
    facts = episode.attempt.facts
    text = models.sampler.chat.text(episode.attempt)
    return Rollout(text, facts.answer, facts.score, facts.correct)


def _notes(
    models: ModelPair, function: Value, episode: Episode, *, rollouts: Sequence[Rollout]
) -> NodeNotes:
    text, attempt = models.sampler.chat.text, episode.attempt
    notes = NodeNotes(text(attempt), models.sampler.chat.is_finished(attempt))
    if episode.turns[-1].role == 'critique' and getattr(function, 'reads_scores', False):
        critique = episode.critique
        notes = notes._replace(
            step_scores=attempt.step_scores,
            score=attempt.facts.score,
            critique=text(critique),
            verdict=critique.facts.verdict,
        )
    if getattr(function, 'reads_rollouts', False):
        labels = getattr(function, 'reads_labels', False)
        shown = [r if labels else r._replace(right=None) for r in rollouts]
        notes = notes._replace(rollouts=tuple(shown))
    return notes


def _ask(
    models: ModelPair,
    function: Value,
    items: Sequence[tuple[Problem, NodeNotes]],
    *,
    spec: SampleSpec,
    costs: Mapping[int, Cost],
    room: int | None,
) -> list[float]:
    """Calls a function for each node, and a player where it asks; None, for no room, is 0."""
    most = int(getattr(function, 'num_requests', 0))

    def limited(problem: Problem, notes: NodeNotes) -> Any:
        result = function(problem, notes)
        if writing.is_request(result) and len(notes.written) >= most:
            wanted = f'a number after {most} requests, its attribute `num_requests`'
            user_functions.refuse(function, result, wanted, field=FIELD)
        return result

    limited.writer = getattr(function, 'writer', 'actor')
    limited.function, limited.field = getattr(function, 'function', function), FIELD
    counted = CountedEngine(models.sampler.engine, costs)
    sampler = dataclasses.replace(models.sampler, engine=counted)
    results = writing.write(
        dataclasses.replace(models, sampler=sampler),
        limited,
        items,
        spec=spec,
        room=room,
        field=FIELD,
        must_fit=False,  # a few nodes, perhaps one, whose attempts may all be long
    )
    return [0.0 if r is None else checked_value(r, function, FIELD) for r in results]


@dataclasses.dataclass(frozen=True)
class CountedEngine:
    """An engine that adds the cost of each request, a critique, to the node that it is about."""

    engine: Generator
    costs: Mapping[int, Cost]  # by the id of the request

    def generate(self, model, requests, *, method, seed) -> list[Completion]:
        """Samples like the engine."""
        completions = self.engine.generate(model, requests, method=method, seed=seed)
        for request, done in zip(requests, completions, strict=True):
            cost = self.costs[request.id]
            cost.add('critique', prompt=len(request.prompt), tokens=len(done.tokens))
        return completions
