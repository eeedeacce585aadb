"""Rules of selection: which node of a tree gets its next children. The slot `sampling.tree.select`.

A rule is a pure function of the nodes: its noise is one number in [0, 1), which it is given.
"""

import itertools
import math
from collections.abc import Callable, Sequence

from elenchus.sampling import user_functions
from elenchus.sampling.slots import Slot
from elenchus.sampling.trees.tree import Node

FIELD = 'sampling.tree.select'

Select = Callable[[Sequence[Node], float, float], int]
"""(nodes, the root first; the constant of exploration; a number in [0, 1)) -> index of a node.

The node must be open; at least one is."""


def uct(nodes: Sequence[Node], exploration: float, draw: float) -> int:
    """Goes down from the root to the child of the highest `upper_bound`, up to an open node.

    Source: Kocsis and Szepesvari 2006.
    """
    return descend(nodes, lambda i: upper_bound(nodes, i, exploration))


def puct(nodes: Sequence[Node], exploration: float, draw: float) -> int:
    """Goes down as `uct` by Q + c P sqrt(N of the parent) / (1 + N), with the actor's prior P.

    Source: Silver et al. 2017 (AlphaGo Zero).
    """

    def bound(i: int) -> float:
        node = nodes[i]
        explored = math.sqrt(nodes[node.parent].visits) / (1 + node.visits)
        return node.value + exploration * node.prior * explored

    return descend(nodes, bound)


def greedy(nodes: Sequence[Node], exploration: float, draw: float) -> int:
    """Takes the open node of the whole tree that has the highest `upper_bound`."""
    return max(open_nodes(nodes), key=lambda i: upper_bound(nodes, i, exploration))


def importance(nodes: Sequence[Node], exploration: float, draw: float) -> int:
    """Draws an open node with a probability in proportion to its `upper_bound`."""
    candidates = open_nodes(nodes)
    return candidates[pick([upper_bound(nodes, i, exploration) for i in candidates], draw)]


def pairwise(nodes: Sequence[Node], exploration: float, draw: float) -> int:
    """Draws a pair of open nodes in proportion to the difference of their `upper_bound`.

    Returns the better node of the pair.
    """
    candidates = open_nodes(nodes)
    bounds = {i: upper_bound(nodes, i, exploration) for i in candidates}
    pairs = list(itertools.combinations(candidates, 2)) or [(candidates[0], candidates[0])]
    chosen = pairs[pick([abs(bounds[i] - bounds[j]) for i, j in pairs], draw)]
    return max(chosen, key=bounds.__getitem__)


SELECTIONS = Slot(
    '(nodes, exploration, draw) -> the index of an open node',
    {f.__name__: f for f in (uct, puct, greedy, importance, pairwise)},
)


def select(rule: Select, nodes: Sequence[Node], *, exploration: float, draw: float) -> int:
    """Returns what a rule selects. Raises ValueError, naming it, unless that is an open node."""
    index = rule(nodes, exploration, draw)
    is_index = hasattr(index, '__index__') and not isinstance(index, bool)
    is_index = is_index and not getattr(index, 'shape', ())
    if not is_index or not 0 <= index < len(nodes) or not nodes[index].is_open:
        wanted = f'the index of an open node, one of {open_nodes(nodes)}'
        user_functions.refuse(rule, index, wanted, field=FIELD)
    return int(index)


def upper_bound(nodes: Sequence[Node], index: int, exploration: float) -> float:
    """Q + c sqrt(ln N of the parent / N); infinite without visits. The root is its own parent."""
    node = nodes[index]
    above = nodes[0 if node.parent is None else node.parent]
    if not node.visits:
        return math.inf
    return node.value + exploration * math.sqrt(math.log(above.visits) / node.visits)


def descend(nodes: Sequence[Node], bound: Callable[[int], float]) -> int:
    """Returns the first open node on the way down by the best live child, the first of equals."""
    at = 0
    while not nodes[at].is_open:
        at = max((i for i in nodes[at].children if nodes[i].is_live), key=bound)
    return at


def open_nodes(nodes: Sequence[Node]) -> list[int]:
    """Returns the indices of the open nodes."""
    return [i for i, node in enumerate(nodes) if node.is_open]


def pick(weights: Sequence[float], draw: float) -> int:
    """Returns an index with a probability in proportion to its weight; uniform if all are 0.

    Infinite weights share the whole.
    """
    if math.inf in weights:
        weights = [float(weight == math.inf) for weight in weights]
    sums = list(itertools.accumulate(weights))
    if not sums[-1] > 0:
        return int(draw * len(weights))
    # Rounding may lift the product to the sum itself.
    return next((i for i, s in enumerate(sums) if draw * sums[-1] < s), len(weights) - 1)
