"""Finds the equations of a line: a computation, the result that the line states, and if it is true.

An equation is judged false only if it is unambiguous. If the words or signs around it allow another
reading, it is not judged: `holds` is None.
"""

import dataclasses
import functools
import itertools
from collections.abc import Collection, Iterator, Sequence

from elenchus.data.critiques.calculator import comparison, expressions, tokens, units
from elenchus.data.critiques.calculator.expressions import Expression, Fraction
from elenchus.data.critiques.calculator.tokens import Token


@dataclasses.dataclass(frozen=True)
class Equation:
    """A computation and the result that the line states for it.

    `holds` is None if it cannot be judged. A chain `a = b = c` is two equations; if `c` is a
    number, it may be the `result` of the first one too.
    """

    computed: Expression  # with at least one operation
    right: Expression
    holds: bool | None

    @property
    def result(self) -> Fraction | None:
        """The result that the line states."""
        return self.right.value

    @property
    def exact(self) -> Fraction | None:
        """The true result, in the unit of the right side: a percentage if that is one."""
        value = self.computed.value
        if value is None:
            return None
        if comparison.in_percent(self.right) and not any(
            leaf.percent for leaf in self.computed.leaves
        ):
            # Solutions write both `20/50*100 = 40%` and `20/50 = 40%`: takes the nearer reading.
            return min(value, value / 100, key=lambda v: abs(v - self.right.value))
        return value

    @property
    def may_be_false(self) -> bool:
        """Whether it is not judged, but its sides differ if it is taken literally."""
        return self.holds is None and self.exact != self.result


def find(line: str, *, exact_values: Collection[Fraction] | None = None) -> list[Equation]:
    """Returns the distinct equations of a line in order; those in `<<48/2=24>>` come last.

    Args:
        line: A line of a solution.
        exact_values: Numbers that are certainly not rounded, such as those of the question; other
            decimals may be rounded. None: no number is rounded.
    """
    result: list[Equation] = []
    for text in (tokens.prose(line), *tokens.ANNOTATION.findall(line)):
        for segment in _segments(tokens.tokenize(text)):
            for equation in _equations(segment, exact_values):
                if not any(_same(equation, other) for other in result):
                    result.append(equation)
    return result


def _same(first: Equation, second: Equation) -> bool:
    return first.computed.key() == second.computed.key() and first.result == second.result


def _segments(line: Sequence[Token]) -> Iterator[list[Token]]:
    """Yields the clauses of a line.

    If a break cuts an operation or a number such as `1,000`, the next clause begins with the break
    as a token of kind 'other', so that no equation is judged there.
    """
    segment: list[Token] = []
    for place, token in enumerate(line):
        if token.kind != 'break':
            segment.append(token)
            continue
        yield segment
        before, after = line[place - 1 : place], line[place + 1 : place + 2]
        segment = []
        cut = before and before[0].kind in ('operator', 'equals') and place
        thousands = before and after and token.text == ',' and before[0].kind == 'number'
        if cut or (thousands and len(after[0].text) == 3):
            segment.append(token._replace(kind='other'))
    yield segment


def _equations(segment: list[Token], exact_values) -> Iterator[Equation]:
    at = 1 if segment and _is_bullet(segment) else 0
    while at < len(segment):
        parser = expressions.Parser(segment, at)
        first = parser.expression()
        if first is None or parser.at == at:
            at += 1
            continue
        chain = [first]
        start, at, about = at, parser.at, False
        while sign := _equality(segment, at, first=chain[0], length=len(chain)):
            parser = expressions.Parser(segment, sign[0])
            following = parser.expression()
            if following is None:
                break
            is_verb = segment[at].kind == 'verb'
            if is_verb and (not following.is_number or _goes_on(segment, parser.at)):
                break
            about = about or sign[1]
            chain.append(following)
            at = parser.at
        if len(chain) > 1 and not _is_broken(segment, start, at):
            doubtful = about or _is_doubtful(segment, start)
            doubtful = doubtful or _is_range(segment[start : start + 3], chain)
            judged = _judge_chain(chain, exact_values, doubtful=doubtful)
            yield from map(_without_conversion, judged) if units.has_two(segment) else judged


def _is_bullet(segment: list[Token]) -> bool:
    """Whether the segment begins with a dash before a space."""
    first = segment[0]
    return (
        first.kind == 'operator'
        and first.text in '-*'
        and len(segment) > 1
        and segment[1].start > first.end
    )


def _equality(
    segment: list[Token], at: int, *, first: Expression, length: int
) -> tuple[int, bool] | None:
    """Returns the index after an equality sign or verb, and whether it says `about equal`.

    Returns None if there is none at `at`.
    """
    if at >= len(segment):
        return None
    if segment[at].kind == 'equals':
        return at + 1, segment[at].text == '~'
    if segment[at].kind != 'verb' or first.is_number or length > 1:
        return None
    at += 1
    about = False
    while at < len(segment) and segment[at].kind in ('verb', 'word'):
        word = segment[at].text.lower()
        if word not in _AFTER_VERB:
            return None
        about = about or word in _ABOUT
        at += 1
    return at, about


_ABOUT = {'about', 'approximately', 'roughly', 'around', 'nearly', 'almost', 'over'}
_AFTER_VERB = _ABOUT | {'equal', 'to', 'exactly', 'just', 'a', 'total', 'of'}
_GOES_ON = {
    *('more', 'less', 'fewer', 'times', 'than', 'percent', 'of', 'as', 'and', 'or', 'to'),
}


def _goes_on(segment: list[Token], at: int) -> bool:
    """Whether the words after `is 10` may change its meaning, as in `is 10 more than`."""
    return any(
        token.text.lower() in _GOES_ON or token.kind not in ('word', ')') for token in segment[at:]
    )


def _is_broken(segment: list[Token], start: int, end: int) -> bool:
    """Whether the tokens around an equation may make it part of another one.

    Such a token is an operator before it, with or without words between, or a number, an operator
    or an unknown sign next to it.
    """
    before = segment[start - 1] if start else None
    after = segment[end] if end < len(segment) else None
    if after and after.kind in ('operator', 'number', 'other', 'equals', '('):
        return True
    if units.has_compound(segment, start, end) or units.has_clock_time(segment, start, end):
        return True
    bullet = start == 1 and _is_bullet(segment)
    signs = [token for token in segment[:start] if token.kind not in ('word', 'verb')]
    if signs and signs[-1].kind == 'operator' and not bullet:
        return True
    if before and before.kind == '(':
        return after is None or after.kind != ')'
    return bool(before) and before.kind in ('number', 'other', ')')


def _is_range(span: Sequence[Token], chain: Sequence[Expression]) -> bool:
    """Whether two numbers may be a range, as in `pages 10-15 = 6 pages`, and no difference."""
    computed, result = chain[0], chain[1].value
    if computed.node != ('-', 0, 1) or computed.values[0] >= computed.values[1]:
        return False
    adjacent = all(token.end == after.start for token, after in itertools.pairwise(span))
    return adjacent and (result is None or result >= 0)


_DOUBTFUL = frozenset(
    {*tokens.MULTIPLES, *tokens.PARTS, *tokens.SCALES, 'percent', 'remainder', 'remainders'}
    | {f'{word}s' for word in (*tokens.PARTS, *tokens.SCALES)}
    | {'mod', 'modulo', 'squared', 'cubed', 'square', 'root', 'log', 'sqrt', 'lcm', 'gcd', 'gcf'}
    | {'approximately', 'about', 'roughly', 'rounded', 'rounding', 'round', 'around', 'almost'}
    | {
        'not',
        'instead',
        'wrong',
        'incorrect',
        'mistake',
        'should',
        'max',
        'min',
        'average',
        'mean',
        'median',
    }
)
_LINKING = frozenset(['of', 'times', 'per', 'each', 'every', 'by', 'than', 'for', 'and'])
_LABELS = {
    *('day', 'step', 'week', 'hour', 'month', 'year', 'group', 'number', 'page', 'room'),
    *('grade', 'level'),
}


def _is_doubtful(segment: list[Token], start: int) -> bool:
    """Whether the words of the clause may mean another computation than its numbers and signs."""
    words = {token.text.lower() for token in segment if token.kind == 'word'}
    if words & _DOUBTFUL or any(token.kind == 'other' for token in segment):
        return True
    before = list(itertools.takewhile(lambda t: t.kind != 'equals', reversed(segment[:start])))
    if any(token.kind == 'operator' for token in before) and not _is_bullet(segment):
        return True
    word = before[0].text.lower() if before else ''
    linked = word in _LINKING and any(token.kind == 'number' for token in before)
    attached = any(
        token.kind == 'number' and after.kind == 'word' and after.start == token.end + 3
        for token, after in itertools.pairwise(segment)
    )
    return linked or attached or word in _LABELS


def _without_conversion(equation: Equation) -> Equation:
    """Returns a false equation as not judged if a conversion factor may explain the difference."""
    if equation.holds is not False:
        return equation
    exact, result = equation.computed.value, equation.result
    near = exact * result > 0 and 0.45 < exact / result < 1.9
    return equation if near else dataclasses.replace(equation, holds=None)


def _judge_chain(chain: list[Expression], exact_values, *, doubtful: bool) -> Iterator[Equation]:
    """Yields an equation for each computation of a chain and the expression after it."""
    judge = functools.partial(_equation, exact_values=exact_values)
    if len(chain) == 2 and chain[0].is_number and not chain[1].is_number:
        # `24 = 48/2`; but `$15/hour = 15*7` states no equality.
        yield judge(chain[1], chain[0], doubtful=True)
        return
    for computed, right in itertools.pairwise(chain):
        if computed.is_number:
            continue
        if computed.is_fraction and computed is not chain[0]:
            # In `(30-12)/2 = 18/2 = 9`, `18/2` is a number or a division: only a different number
            # is noted, as not judged.
            if right.is_number and computed.value != right.value:
                yield from _open(judge(computed, right, doubtful=True))
            continue
        runs_on = computed.value == right.leaves[0].value and computed.value != right.value
        if right.is_number or (right.is_fraction and not runs_on):
            yield judge(computed, right, doubtful=doubtful)
        elif computed.value == right.value and chain[-1].is_number:
            # `2*3+4 = 6+4 = 10`: the second computation is the first one, simplified.
            yield judge(computed, chain[-1], doubtful=doubtful)
        elif runs_on:
            # `5+3 = 8*2 = 16`: the next computation begins with this result.
            yield judge(computed, Expression(0, right.leaves[:1]), doubtful=True)
        else:
            yield Equation(computed, right, None)


def _open(equation: Equation) -> Iterator[Equation]:
    """Yields the equation only if it cannot be judged."""
    if equation.holds is None:
        yield equation


def _equation(computed: Expression, right: Expression, *, exact_values, doubtful: bool) -> Equation:
    holds = comparison.compare(computed, right, exact_values)
    doubtful = doubtful or _has_other_reading(computed, right)
    return Equation(computed, right, None if doubtful and holds is False else holds)


def _has_other_reading(computed: Expression, right: Expression) -> bool:
    """Whether signs may have another sense, as in `25 / 1/3`, `1/2 = 4 ounces`, `5*3 = 15,000`."""
    divisions = [sign for sign in computed.operators if sign == '/']
    if computed.is_fraction and computed.leaves[0].value < computed.leaves[1].value:
        return right.value is None or right.value >= 1
    in_thousands = (
        computed.value and right.value and right.value / computed.value in (100, 1000, 10**6)
    )
    return len(divisions) > 1 or bool(in_thousands)
