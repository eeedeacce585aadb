"""Tree search: all questions side by side, one expansion of each at a time.

An iteration selects a node in every tree that has budget left, samples the children of all trees in
one batch, computes values of the new nodes in another, and backs the values up. The samples of a
question depend on the seed and its own ids, not on the other questions.
"""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

from elenchus.data.records import Episode, Problem
from elenchus.model.ranges import Coefficient, NonNegativeInt, Range, SampleCount, checked
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.engine.sampling_methods import Method
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.seeds import derive_seed
from elenchus.sampling.step_scores import StepScorer
from elenchus.sampling.test_time import partial_attempts
from elenchus.sampling.trees import selection
from elenchus.sampling.trees.selection import SELECTIONS, Select
from elenchus.sampling.trees.tree import BACKUP_FIELD, BACKUPS, Grown, Tree
from elenchus.sampling.trees.values import (
    VALUES,
    New,
    Valuation,
    find_values,
    most_tokens,
    value_nodes,
)


@dataclasses.dataclass(frozen=True)
@checked('sampling.tree')
class TreeSettings:
    """How a tree grows, and when it stops."""

    grow: Literal['line', 'refinement']  # a child: one more line, or a refinement of the attempt
    select: Annotated[str, SELECTIONS]  # which node gets children
    exploration: Coefficient  # constant of the rule of selection
    values: tuple[tuple[Annotated[str, VALUES], Coefficient], ...]  # mean of these, by weight
    backup: Annotated[str, BACKUPS]  # value of a node from those below it
    num_rollouts: SampleCount  # continuations that value a node, where a function reads them
    expansions: SampleCount  # children sampled at once
    children: SampleCount  # of a node, at most
    max_depth: SampleCount  # lines of an attempt, or refinements
    num_nodes: Annotated[int, Range(1, 100_000)]  # of a question, at most
    num_tokens: NonNegativeInt  # sampled for a question, at most; 0: no limit

    def __post_init__(self):
        if not sum(weight for _, weight in self.values):
            raise ValueError(
                f'sampling.tree.values={self.values} must have a weight above 0; '
                "nearest: (('min', 1.0),)"
            )

    @property
    def reads_labels(self) -> bool:
        """Whether a value reads labels, that is, the right answer."""
        return any(f.asks_for('reads_labels') for f in find_values(self.values))

    @property
    def always_scores(self) -> bool:
        """Whether nodes get a critique even if no value reads it: refinements follow it."""
        return self.grow == 'refinement'

    def child_tokens(self, limits: Mapping[str, int]) -> int:
        """Returns the most tokens that a child may take, with its value."""
        turn = 'attempt' if self.grow == 'line' else 'refinement'
        valued = most_tokens(
            find_values(self.values),
            limits=limits,
            num_rollouts=self.num_rollouts,
            always_scores=self.always_scores,
        )
        return max(limits['attempt'], limits[turn]) + valued

    def least_tokens(self, limits: Mapping[str, int]) -> int:
        """Returns the least `num_tokens` with which a tree has a child, and an attempt an end."""
        return self.child_tokens(limits) + limits['attempt']


@dataclasses.dataclass(frozen=True)
class TreeSearch:
    """Settings of a search, and what samples and scores its nodes."""

    settings: TreeSettings
    lines: Sampler | None  # stops at line breaks too; None where no lines are grown
    scorer: StepScorer
    room: int | None = None  # tokens of a request's prompt, at most; None: any

    @property
    def valuation(self) -> Valuation:
        """How nodes are valued."""
        s, functions = self.settings, find_values(self.settings.values)
        return Valuation(functions, s.num_rollouts, self.scorer, s.always_scores, self.room)

    @property
    def line_tokens(self) -> int:
        """Tokens that the sampler of lines has sampled so far."""
        return self.lines.engine.tokens if self.lines else 0


class _Expansion(NamedTuple):
    """A node that gets children."""

    tree: Tree
    node: int
    ids: Sequence[int]  # of the children


class SearchResult(NamedTuple):
    """The result of a search."""

    tree: Tree
    best: Episode  # the best attempt, judged, with its end; the facts have the cost of the search


def search_trees(
    search: TreeSearch,
    models: ModelPair,
    problems: Sequence[Problem],
    *,
    method: Method,
    seed: int,
    first_ids: Sequence[int],
) -> list[SearchResult]:
    """Searches for an attempt at each question. Question i uses `num_nodes` ids from first_ids[i].

    A search ends when no node is open, or when one more child could exceed `num_nodes` or
    `num_tokens` if its turns had full length; so neither is ever exceeded. If no attempt of the
    tree has ended then, the best one is continued to its end.
    """
    models = dataclasses.replace(models, sampler=models.sampler.with_prefix_cache())
    if search.lines is not None:
        search = dataclasses.replace(search, lines=search.lines.with_prefix_cache())
    s, options = search.settings, {'method': method, 'seed': seed}
    rule, backup = SELECTIONS.find(s.select, selection.FIELD), BACKUPS.find(s.backup, BACKUP_FIELD)
    pairs = zip(problems, first_ids, strict=True)
    trees = [_new_tree(s, models, problem, first_id=i) for problem, i in pairs]
    selects = {'limits': models.sampler.max_tokens, 'rule': rule, 'seed': seed}
    while chosen := [e for tree in trees if (e := _select(s, tree, **selects))]:
        grow = _grow_lines if s.grow == 'line' else _grow_refinements
        grown = grow(search, models, chosen, **options)
        new = _add_children(models.sampler, chosen, grown)
        valued = value_nodes(search.valuation, models, [n for *_, n in new], **options)
        for (tree, index, _), (episode, value) in zip(new, valued, strict=True):
            tree.nodes[index].episode = episode
            tree.back_up(index, value, backup)
    best = partial_attempts.judge_attempts(models, _best(models, trees, **options), problems)
    return [
        SearchResult(tree, episode.with_facts(**tree.cost.facts()))
        for tree, episode in zip(trees, best, strict=True)
    ]


def ended_attempts(models: ModelPair, tree: Tree) -> list[Episode]:
    """Returns all finished attempts of a tree, judged, the best first."""
    ended = [i for i, node in enumerate(tree.nodes) if node.ended]
    ended.sort(key=lambda i: -tree.nodes[i].value)
    episodes = [tree.episode_of(i) for i in ended]
    return partial_attempts.judge_attempts(models, episodes, [tree.problem] * len(episodes))


def _new_tree(s: TreeSettings, models: ModelPair, problem: Problem, *, first_id: int) -> Tree:
    root = Grown(None, 0, partial_attempts.empty_attempt(models.sampler, problem), ended=False)
    return Tree(
        problem,
        first_id,
        [root],
        max_children=s.children,
        max_depth=s.max_depth,
        grows_ended=s.grow == 'refinement',
    )


def _select(
    s: TreeSettings, tree: Tree, *, limits: Mapping[str, int], rule: Select, seed: int
) -> _Expansion | None:
    """Returns the node of a tree that gets children, and how many; None if the search is over."""
    nodes = tree.view()
    count = min(s.expansions, s.num_nodes - tree.samples)
    if s.num_tokens:
        has_end = any(node.ended for node in tree.nodes)
        remaining = s.num_tokens - tree.tokens - (0 if has_end else limits['attempt'])
        count = min(count, remaining // s.child_tokens(limits))
    if count < 1 or not nodes[0].is_live:
        return None
    # One number for each expansion, by the question's own ids: companions do not change it.
    draw = random.Random(f'{seed}/{tree.first_id}/{tree.samples}').random()
    index = selection.select(rule, nodes, exploration=s.exploration, draw=draw)
    count = min(count, s.children - tree.nodes[index].samples)
    first = tree.first_id + tree.samples
    return _Expansion(tree, index, range(first, first + count))


def _grow_lines(
    search: TreeSearch,
    models: ModelPair,
    chosen: Sequence[_Expansion],
    *,
    method: Method,
    seed: int,
) -> list[Episode]:
    """Samples the next lines of the chosen nodes, in order."""
    return _continued(search.lines, models, chosen, method=method, seed=seed)


def _grow_refinements(
    search: TreeSearch,
    models: ModelPair,
    chosen: Sequence[_Expansion],
    *,
    method: Method,
    seed: int,
) -> list[Episode]:
    """Samples whole attempts as children of roots, and refinements of the other nodes, in order.

    A refinement follows the node's critique, and is an attempt from then on.
    """
    roots = [e for e in chosen if e.node == 0]
    attempts = iter(_continued(models.sampler, models, roots, method=method, seed=seed))
    others = [(e.tree, e.tree.nodes[e.node].episode, i) for e in chosen if e.node for i in e.ids]
    groups = models.sampler.sample_turns(
        models.actor,
        [episode.turns for _, episode, _ in others],
        'refinement',
        spec=SampleSpec(1, method, derive_seed(seed, 'refinement'), [i for *_, i in others]),
    )
    refined = []
    for (tree, episode, _), (turn,) in zip(others, groups, strict=True):
        prompt = models.sampler.chat.context(episode.turns, 'refinement')
        tree.cost.add_turn(turn, prompt=len(prompt))
        refined.append(episode_lib.as_attempt(models.sampler, episode_lib.add_turn(episode, turn)))
    refinements = iter(refined)
    return [next(refinements if e.node else attempts) for e in chosen for _ in e.ids]


def _continued(
    sampler: Sampler,
    models: ModelPair,
    chosen: Sequence[_Expansion],
    *,
    method: Method,
    seed: int,
) -> list[Episode]:
    """Samples continuations of the chosen nodes, as far as the sampler writes."""
    places = [(e.tree, e.tree.nodes[e.node].episode, i) for e in chosen for i in e.ids]
    groups = partial_attempts.continue_attempts(
        sampler,
        models,
        [episode for _, episode, _ in places],
        spec=SampleSpec(1, method, seed, [i for *_, i in places]),
        costs=[tree.cost for tree, *_ in places],
    )
    return [episode for group in groups for episode in group]


def _add_children(
    sampler: Sampler, chosen: Sequence[_Expansion], grown: Sequence[Episode]
) -> list[tuple[Tree, int, New]]:
    """Adds what was sampled to the trees; returns (tree, index, node) of what is new there."""
    episodes, added = iter(grown), []
    for expansion in chosen:
        tree = expansion.tree
        for number in expansion.ids:
            episode = next(episodes)
            # A refinement stands for itself even if it was cut off.
            ended = tree.grows_ended or partial_attempts.has_ended(sampler, episode.attempt)
            index = tree.add(expansion.node, episode, ended=ended)
            if index is not None:
                new = New(tree.problem, episode, ended, number, tree.cost)
                added.append((tree, index, new))
    return added


def _best(models: ModelPair, trees: Sequence[Tree], *, method: Method, seed: int) -> list[Episode]:
    """Returns the best attempt of each tree, continued to its end if no attempt has ended."""
    best = [tree.best() for tree in trees]
    episodes = [tree.episode_of(i) for tree, i in zip(trees, best, strict=True)]
    due = [
        k for k, (tree, i) in enumerate(zip(trees, best, strict=True)) if not tree.nodes[i].ended
    ]
    groups = partial_attempts.continue_attempts(
        models.sampler,
        models,
        [episodes[k] for k in due],
        spec=SampleSpec(1, method, derive_seed(seed, 'end'), [trees[k].first_id for k in due]),
        costs=[trees[k].cost for k in due],
    )
    for k, (episode,) in zip(due, groups, strict=True):
        episodes[k] = trees[k].with_values(best[k], episode)
    return episodes
