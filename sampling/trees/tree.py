"""The tree of one question: its nodes, and how the value of a new node reaches those above it.

A node is an attempt so far, as sampled ids; the root has none. Its visits are the nodes of its
subtree that were valued, itself included.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from elenchus.data.records import Episode, Problem, Step
from elenchus.sampling import user_functions
from elenchus.sampling.slots import Slot
from elenchus.sampling.test_time.partial_attempts import Cost

BACKUP_FIELD = 'sampling.tree.backup'


class Node(NamedTuple):
    """What rules of selection and of backup know of a node."""

    parent: int | None  # index in the tree; None of the root
    children: tuple[int, ...]
    depth: int  # 0 of the root
    visits: int
    value: float  # as backed up
    own: float  # of the node itself, when it was made
    prior: float  # probability among its siblings, by the actor
    is_open: bool  # may get another child
    is_live: bool  # it, or a node below it, is open


Backup = Callable[[Node, Sequence[Node], float], float]
"""(a node above the new one, its children, the new node's value) -> the node's value in [0, 1].

It is called from the new node's parent up to the root; visits count the new node already."""


def _mean(node: Node, children: Sequence[Node], new: float) -> float:
    """The mean of the own values of all nodes of the subtree, but the root's, which has none."""
    return node.value + (new - node.value) / node.visits


def _max(node: Node, children: Sequence[Node], new: float) -> float:
    """The value of the best child."""
    return max(child.value for child in children)


BACKUPS = Slot('(node, children, new) -> the value of the node', {'mean': _mean, 'max': _max})


@dataclasses.dataclass
class Grown:
    """A node as the search changes it."""

    parent: int | None
    depth: int
    episode: Episode  # the attempt so far, and its critique if there is one
    ended: bool  # the attempt has its end, or its greatest length
    logprob: float = 0.0  # of what it adds to its parent
    visits: int = 0
    value: float = 0.0
    own: float = 0.0
    samples: int = 0  # of children, equal ones included
    children: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Tree:
    """The tree of one question, what it has cost, and the rules by which it grows."""

    problem: Problem
    first_id: int  # of its requests
    nodes: list[Grown]
    max_children: int
    max_depth: int
    grows_ended: bool  # an attempt that has ended may have children: its refinements
    cost: Cost = dataclasses.field(default_factory=Cost)

    @property
    def samples(self) -> int:
        """Number of children sampled so far, equal ones included."""
        return sum(node.samples for node in self.nodes)

    @property
    def tokens(self) -> int:
        """Number of tokens sampled so far, of all roles."""
        return sum(self.cost.tokens.values())

    def view(self) -> tuple[Node, ...]:
        """Returns the nodes as rules see them, the root first."""
        live = [self._is_open(node) for node in self.nodes]
        for i in range(len(self.nodes) - 1, 0, -1):  # a child has a higher index than its parent
            live[self.nodes[i].parent] |= live[i]
        return tuple(self._view(i, is_live) for i, is_live in enumerate(live))

    def add(self, parent: int, episode: Episode, *, ended: bool) -> int | None:
        """Adds a sampled child; returns its index, or None if an equal child is there."""
        above = self.nodes[parent]
        above.samples += 1
        tokens = episode.attempt.tokens
        if any(self.nodes[i].episode.attempt.tokens == tokens for i in above.children):
            return None
        new = episode.attempt.logprobs
        if not self.grows_ended:
            new = new[len(above.episode.attempt.tokens) :]
        self.nodes.append(Grown(parent, above.depth + 1, episode, ended, math.fsum(new)))
        above.children.append(len(self.nodes) - 1)
        return above.children[-1]

    def back_up(self, index: int, value: float, rule: Backup) -> None:
        """Gives a new node its value, and updates the nodes above it by the rule."""
        node = self.nodes[index]
        node.value, node.own, node.visits = value, value, 1
        for above in self.ancestors(index):
            grown = self.nodes[above]
            grown.visits += 1
            # Children whose values are not known yet have no visits.
            children = [self._view(i, True) for i in grown.children if self.nodes[i].visits]
            result = rule(self._view(above, True), children, value)
            grown.value = checked_value(result, rule, BACKUP_FIELD)

    def ancestors(self, index: int) -> Iterator[int]:
        """Yields the indices of the nodes above one, from its parent to the root."""
        while (index := self.nodes[index].parent) is not None:
            yield index

    def best(self) -> int:
        """Returns the index of the best node: one that has ended, then the value, then the first.

        The root stands for itself only where it is alone.
        """
        ranks = [(node.ended, node.value) for node in self.nodes[1:]]
        return 1 + max(range(len(ranks)), key=ranks.__getitem__) if ranks else 0

    def episode_of(self, index: int) -> Episode:
        """Returns a node's attempt, with values (`with_values`)."""
        return self.with_values(index, self.nodes[index].episode)

    def with_values(self, index: int, episode: Episode) -> Episode:
        """Returns an attempt that begins with a node's: the score of a step is its node's value.

        Steps that no node ends with have none. Refinements keep the critic's scores.
        """
        if self.grows_ended:
            return episode
        path = (index, *self.ancestors(index))
        values = {len(self.nodes[i].episode.attempt.tokens): self.nodes[i].value for i in path}
        steps = tuple(Step(s.end, values.get(s.end)) for s in episode.attempt.steps)
        turns = tuple(
            dataclasses.replace(turn, steps=steps) if turn is episode.attempt else turn
            for turn in episode.turns
        )
        return dataclasses.replace(episode, turns=turns)

    def _is_open(self, node: Grown) -> bool:
        is_root = node.parent is None
        may_grow = node.ended == self.grows_ended or is_root
        return may_grow and node.samples < self.max_children and node.depth < self.max_depth

    def _view(self, index: int, is_live: bool) -> Node:
        node = self.nodes[index]
        return Node(
            parent=node.parent,
            children=tuple(node.children),
            depth=node.depth,
            visits=node.visits,
            value=node.value,
            own=node.own,
            prior=self._prior(index),
            is_open=self._is_open(node),
            is_live=is_live,
        )

    def _prior(self, index: int) -> float:
        parent = self.nodes[index].parent
        if parent is None:
            return 1.0
        siblings = [self.nodes[i].logprob for i in self.nodes[parent].children]
        highest = max(siblings)
        total = math.fsum(math.exp(x - highest) for x in siblings)
        return math.exp(self.nodes[index].logprob - highest) / total


def checked_value(result: object, function: Callable, field: str) -> float:
    """Returns a value. Raises ValueError, naming the function, if it is no number in [0, 1]."""
    try:
        value = user_functions.as_float(result)
    except (TypeError, ValueError):
        value = math.nan
    if not 0.0 <= value <= 1.0:
        user_functions.refuse(function, result, 'a number in [0, 1]', field=field)
    return value
