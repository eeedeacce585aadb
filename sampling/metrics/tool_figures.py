"""Figures about the calls of tools in turns."""

import collections
from collections.abc import Iterable
from typing import get_args

from elenchus.data.records import Turn
from elenchus.data.tools.answer import ToolOutcome


def tool_figures(turns: Iterable[Turn]) -> dict[str, float]:
    """Returns calls a sampled turn, the share of turns that call, and that of each outcome.

    {} if no turn calls a tool.
    """
    sampled = [turn for turn in turns if turn.logprobs]
    tools = [tool for turn in sampled for tool in turn.tools]
    if not tools:
        return {}
    outcomes = collections.Counter(tool.outcome for tool in tools)
    return {
        'calls_per_turn': len(tools) / len(sampled),
        'turns_that_call': sum(bool(turn.tools) for turn in sampled) / len(sampled),
    } | {name: outcomes[name] / len(tools) for name in get_args(ToolOutcome)}
