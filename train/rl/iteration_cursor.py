"""The progress of reinforcement learning that a checkpoint stores beside the players' states."""

import collections
from collections.abc import Mapping
from typing import Any

from elenchus.data.batching import packing
from elenchus.train.loop import Updates


class IterationCursor:
    """Tokens so far, states of advantage functions, and players done with a begun iteration."""

    def __init__(self):
        self.counters = collections.Counter(tokens_sampled=0, tokens_trained=0, tokens_padding=0)
        self.row: dict[str, dict[str, Any]] = {}  # player -> its metrics of this iteration
        self.advantage_states: dict[str, Mapping[str, Any]] = {}  # by player
        self.replay: dict[str, list[Mapping[str, Any]]] = {}  # by player: groups to replay

    def add(
        self, player: str, state: Mapping[str, Any], sampled_tokens: int, *, updates: Updates
    ) -> None:
        """Adds what a player's part of an iteration sampled and trained."""
        self.advantage_states[player] = state
        self.counters['tokens_sampled'] += sampled_tokens
        for update in updates:
            self.counters.update(packing.token_counts(update.batch))

    def take_row(self) -> dict[str, Any]:
        """Returns the metrics of all players of an iteration, which ends with it."""
        row = {name: value for metrics in self.row.values() for name, value in metrics.items()}
        self.row = {}
        return row | {'sampled/tokens': self.counters['tokens_sampled']}

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON; `players` only of an iteration that was interrupted."""
        rows = {p: {n: float(x) for n, x in row.items()} for p, row in self.row.items()}
        states = {p: dict(state) for p, state in self.advantage_states.items() if state}
        values = {'players': rows, 'advantage_states': states, 'replay': self.replay}
        return dict(self.counters) | {name: value for name, value in values.items() if value}

    def restore(self, values: dict[str, Any]) -> None:
        """Continues from what `to_json` returned."""
        self.row = dict(values.get('players', {}))
        self.advantage_states = dict(values.get('advantage_states', {}))
        self.replay = dict(values.get('replay', {}))
        self.counters.update({n: x for n, x in values.items() if isinstance(x, int)})

    def has_spent(self, budget: int) -> bool:
        """Returns whether a budget of sampled tokens, 0 for none, is spent before an iteration."""
        return not self.row and 0 < budget <= self.counters['tokens_sampled']
