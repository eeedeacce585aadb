"""Inserts one mistake into a reference solution and recomputes the rest from it.

For refinement data without an actor's attempts, and for measuring what the calculator locates.
Kinds of mistakes: 'value', a false result; 'operand', another number of the question or an invented
one; 'operation', another sign. Later lines are recomputed, so the answer is wrong.
"""

import dataclasses
import random
import re
from collections.abc import Mapping, Sequence

from elenchus.data.critiques.calculator import chains, expressions, sources, wording
from elenchus.data.critiques.calculator.chains import Computation
from elenchus.data.critiques.calculator.expressions import Fraction
from elenchus.data.records import Problem

KINDS = ('value', 'operand', 'operation')
_NUMBER = re.compile(r'(?<![\d.,])(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d*\.\d+|\d+)(?![\d:%])')


@dataclasses.dataclass(frozen=True)
class Falsified:
    """A solution in which one line was changed and the later lines recomputed."""

    text: str
    line: int
    result: Fraction  # the true result there


def falsify(problem: Problem, kind: str, *, rng: random.Random) -> Falsified | None:
    """Returns the solution with one mistake; None if no mistake of this kind is possible."""
    lines = problem.solution.split('\n')
    chain = chains.read(lines[:-1])
    places = [place for place in range(len(chain)) if _is_only_equation(chain, place)]
    for place in rng.sample(places, len(places)):
        line = _false_line(problem, chain[place], lines[chain[place].line], kind=kind, rng=rng)
        if line is not None:
            text, new = line
            changed = _changed(lines, chain, place, text=text, new=new)
            if changed is not None:
                return changed
    return None


def restate(problem: Problem, line: int, result: Fraction) -> Falsified | None:
    """Returns the solution with another result of a line, and all that follows from it.

    Returns None unless the line has exactly one equation and the answer depends on it.
    """
    lines = problem.solution.split('\n')
    chain = chains.read(lines[:-1])
    places = [
        i for i, item in enumerate(chain) if item.line == line and _is_only_equation(chain, i)
    ]
    if not places:
        return None
    text = _after_equals(lines[line], {chain[places[0]].equation.result: result})
    return None if text is None else _changed(lines, chain, places[0], text=text, new=result)


def _is_only_equation(chain: Sequence[Computation], place: int) -> bool:
    """Whether a computation is true and the only one of its line."""
    line = chain[place].line
    return chain[place].equation.holds is True and sum(c.line == line for c in chain) == 1


def _changed(
    lines: Sequence[str], chain: Sequence[Computation], place: int, *, text: str, new: Fraction
) -> Falsified | None:
    """Returns the solution with another text of a computation's line, whose result is `new`."""
    rest = _carry_on(lines, chain, place, new=new)
    if rest is None:
        return None
    at = chain[place].line
    return Falsified('\n'.join([*lines[:at], text, *rest]), at, chain[place].equation.result)


def _false_line(problem, item: Computation, line: str, *, kind: str, rng: random.Random):
    """Returns the line with the mistake, and the result that it then has."""
    old, computed = item.equation.result, item.computed
    if kind == 'value':
        new = old + rng.choice((1, 2, 10, -1, 5))
        text = _after_equals(line, {old: new})
        return (text, new) if text and new > 0 else None
    if kind == 'operand':
        index = rng.randrange(len(computed.leaves))
        value = computed.values[index]
        others = sorted(
            v for v in sources.numbers_of(problem.question) | {Fraction(rng.randrange(13, 98))}
            if v not in computed.values and v.denominator == 1 and v > 1
        )  # fmt: skip
        if value in (1, 100) or not others or computed.values.count(value) > 1 or value == old:
            return None
        replaced = rng.choice(others)
        values = [replaced if i == index else v for i, v in enumerate(computed.values)]
        return _restated(line, item, values=values, changed={value: replaced}, node=computed.node)
    if len(computed.leaves) != 2 or isinstance(computed.node, int) or computed.node[0] == 'neg':
        return None
    operator = rng.choice([sign for sign in '+-*/' if sign != computed.node[0]])
    match = _SIGN.search(line)
    if not match or len(_SIGN.findall(line)) != 1:
        return None
    node = (operator, *computed.node[1:])
    line = line[: match.start(1)] + operator + line[match.end(1) :]
    return _restated(line, item, values=list(computed.values), changed={}, node=node)


_SIGN = re.compile(r'(?<=[\d.%])\s*([-+*/x×])\s*(?=\$?[\d.])')


def _restated(line: str, item: Computation, *, values, changed, node):
    new = expressions.evaluate(node, values)
    old = item.equation.result
    if new is None or new <= 0 or new == old or (new * 100).denominator != 1:
        return None
    before, sign, after = line.partition('=')
    if not sign:
        return None
    text = _after_equals(_with(before, changed) + sign + after, {old: new})
    return None if text is None else (text, new)


def _after_equals(line: str, changed: Mapping[Fraction, Fraction]) -> str | None:
    before, sign, after = line.partition('=')
    text = before + sign + _with(after, changed)
    return text if text != line else None


def _with(text: str, changed: Mapping[Fraction, Fraction]) -> str:
    def new(match: re.Match) -> str:
        value = Fraction(match[0].replace(',', ''))
        return wording.show(changed[value]) if value in changed else match[0]

    return _NUMBER.sub(new, text)


def _carry_on(lines, chain, place: int, *, new: Fraction) -> list[str] | None:
    """Returns the later lines, recomputed; None if the answer does not change."""
    results = chains.recompute(chain, {}, {place: new})
    changed: dict[Fraction, Fraction] = {}
    for item, result in zip(chain, results, strict=True):
        if result == item.equation.result:
            continue
        if result is None or result <= 0 or (result * 100).denominator != 1:
            return None
        if changed.setdefault(item.equation.result, result) != result:
            return None
    at = chain[place].line
    unchanged = {v for item in chain if item.line <= at for v in item.computed.values}
    if unchanged & changed.keys():
        return None
    rest = [_with(line, changed) for line in lines[at + 1 :]]
    return rest if rest[-1] != lines[-1] else None
