"""Groups of judged turns for the cases of methods: plain values, no models."""

import types

import numpy as np

from elenchus.data import records
from elenchus.train.rl import advantages, rewards

ROLES = records.ROLES
PROBLEM = records.Problem('p', 'question', '1', '1', 1, 'lab')


def undo(config, base, fields):
    """Gives a config the stages of another one, and its values of these fields."""
    config.stages = base.stages
    for field in fields:
        section, _, name = field.rpartition('.')
        node, original = config, base
        for part in section.split('.'):
            node, original = node[part], original[part]
        node[name] = original[name]


def turns(*facts, role='attempt', texts=None, tokens=4, limit=100):
    """Judged turns of one group, with these facts; `tokens`: their length, or a list of them."""
    texts = texts or [''] * len(facts)
    sizes = [tokens] * len(facts) if isinstance(tokens, int) else tokens
    group = []
    for values, text, size in zip(facts, texts, sizes, strict=True):
        turn = records.Turn(role, (6,), (5,) * size, facts=records.TurnFacts(**values))
        group.append(rewards.JudgedTurn(turn, turn, PROBLEM, limit, 4, lambda turn, t=text: t))
    return group


def written(role, tokens, *, scores=(), ends=None, **facts):
    """A turn of these tokens; `scores` are those of its steps, of one token each by default."""
    ends = ends or range(1, len(scores) + 1)
    steps = tuple(records.Step(end, score) for end, score in zip(ends, scores, strict=True))
    facts = records.TurnFacts(**facts)
    return records.Turn(role, (ROLES.index(role),), tuple(tokens), steps=steps, facts=facts)


def talk(*turns, problem='p'):
    """An episode: a question and these turns."""
    return records.Episode(problem, 1, (written('question', (1,)), *turns))


def group(*episodes):
    """A group of these episodes of one problem."""
    return records.RolloutGroup(PROBLEM, tuple(episodes))


def last_tokens(pairs):
    """(tokens of the chosen, of the rejected turn) of each pair."""
    return [tuple(side.turns[-1].tokens for side in pair[:2]) for pair in pairs]


def outcome(function, returns, *, state=None, roles=('attempt',), rewards_=None, discount=0.0):
    """(advantages [G, K], context) of returns [G, K] of turns of these roles."""
    returns = np.asarray(returns, np.float64)
    settings = types.SimpleNamespace(epsilon=1e-6)
    columns = [turns(*[{}] * len(returns), role=role) for role in roles]
    before = returns if rewards_ is None else np.asarray(rewards_, np.float64)
    context = advantages.GroupContext(settings, columns, before, discount, state or {})
    return function(returns, context), context


def groups(*rows):
    """Groups of episodes for measures: each attempt is a dict of facts, or (attempt, after).

    `after` is a dict of the critique's facts, or of the refinement's if it has 'correct'. The text
    of a turn is its number: `reader(texts)` reads it.
    """
    return [
        records.RolloutGroup(PROBLEM, tuple(_episode(cell, i) for i, cell in enumerate(row)))
        for row in rows
    ]


def _episode(cell, number):
    attempt, *after = cell if isinstance(cell, tuple) else (cell,)
    turns = [records.Turn('question', (5,), (1,))]
    turns.append(records.Turn('attempt', (6,), (number,), facts=records.TurnFacts(**attempt)))
    for facts in after:
        role = 'refinement' if 'correct' in facts else 'critique'
        turns.append(records.Turn(role, (7,), (number,), facts=records.TurnFacts(**facts)))
    return records.Episode('p', 1, tuple(turns))


def reader(texts):
    """Function that reads the text of an attempt by its place in its group."""
    return lambda turn: texts[turn.tokens[0]]
