"""Groups of judged turns for the cases of methods: plain values, no models."""

import types

import numpy as np

from elenchus.data import records
from elenchus.train.rl import advantages, rewards

PROBLEM = records.Problem('p', 'question', '1', '1', 1, 'lab')


def turns(*facts, role='attempt', texts=None, tokens=4, limit=100):
    """Judged turns of one group, with these facts; `tokens`: their length, or a list of them."""
    texts = texts or [''] * len(facts)
    sizes = [tokens] * len(facts) if isinstance(tokens, int) else tokens
    group = []
    for values, text, size in zip(facts, texts, sizes, strict=True):
        turn = records.Turn(role, (6,), (5,) * size, facts=records.TurnFacts(**values))
        group.append(rewards.JudgedTurn(turn, turn, PROBLEM, limit, 4, lambda turn, t=text: t))
    return group


def outcome(function, returns, *, state=None, roles=('attempt',), rewards_=None, discount=0.0):
    """(advantages [G, K], context) of returns [G, K] of turns of these roles."""
    returns = np.asarray(returns, np.float64)
    settings = types.SimpleNamespace(epsilon=1e-6)
    columns = [turns(*[{}] * len(returns), role=role) for role in roles]
    before = returns if rewards_ is None else np.asarray(rewards_, np.float64)
    context = advantages.GroupContext(settings, columns, before, discount, state or {})
    return function(returns, context), context
