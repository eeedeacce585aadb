"""Parses, evaluates and writes arithmetic expressions over the numbers of a line."""

import fractions
from collections.abc import Sequence
from typing import NamedTuple

from elenchus.data.critiques.calculator.tokens import Token

Fraction = fractions.Fraction
MAX_POWER = 12
MAX_DIGITS = 40


class Leaf(NamedTuple):
    """A number of an expression, as written."""

    value: Fraction
    text: str  # without currency and unit
    decimals: int
    percent: bool


Node = int | tuple
"""The index of a leaf, or (operator, node, node), or ('neg', node)."""


class Expression(NamedTuple):
    """A tree of operations and its leaves, from left to right."""

    node: Node
    leaves: tuple[Leaf, ...]

    @property
    def is_number(self) -> bool:
        """Whether the expression is a single number, perhaps negative, without any operation."""
        return len(self.leaves) == 1

    @property
    def is_fraction(self) -> bool:
        """Whether it is one whole number over another, such as `2/3`: a number or a division."""
        whole = all(leaf.value.denominator == 1 and not leaf.percent for leaf in self.leaves)
        return self.node == ('/', 0, 1) and whole

    @property
    def value(self) -> Fraction | None:
        """The exact value; None if there is none, as for a division by zero."""
        return evaluate(self.node, [leaf.value for leaf in self.leaves])

    @property
    def values(self) -> tuple[Fraction, ...]:
        """The numbers of the leaves."""
        return tuple(leaf.value for leaf in self.leaves)

    @property
    def text(self) -> str:
        """The expression in canonical spelling: `50-21+16`; `20% of 50` becomes `20%*50`."""
        return write(self.node, [leaf.text for leaf in self.leaves])

    @property
    def operators(self) -> tuple[str, ...]:
        """The operators from left to right."""
        return tuple(_operators(self.node))

    def with_leaf(self, index: int, leaf: Leaf) -> 'Expression':
        """Returns the expression with leaf `index` replaced."""
        return Expression(self.node, (*self.leaves[:index], leaf, *self.leaves[index + 1 :]))

    def key(self) -> tuple:
        """Returns a key of the computation that ignores the order of summands and factors."""
        return canonical(self.node, self.values)


def evaluate(node: Node, values: Sequence[Fraction]) -> Fraction | None:
    """Computes a tree exactly; None for a division by zero or a power that is too large."""
    if isinstance(node, int):
        return values[node]
    operator, *parts = node
    numbers = [evaluate(part, values) for part in parts]
    if None in numbers:
        return None
    if operator == 'neg':
        return -numbers[0]
    first, second = numbers
    if operator == '+':
        return first + second
    if operator == '-':
        return first - second
    if operator == '*':
        return first * second
    if operator == '/':
        return first / second if second else None
    return _power(first, second)


def _power(base: Fraction, exponent: Fraction) -> Fraction | None:
    small = exponent.denominator == 1 and abs(exponent) <= MAX_POWER
    digits = len(str(base.numerator)) + len(str(base.denominator))
    if not small or digits > MAX_DIGITS or (base == 0 and exponent < 0):
        return None
    return base ** int(exponent)


_RANK = {'+': 1, '-': 1, '*': 2, '/': 2, 'neg': 3, '^': 4}


def write(node: Node, texts: Sequence[str], *, space: str = '') -> str:
    """Writes a tree with the brackets that it needs, and `space` around operators."""
    if isinstance(node, int):
        return texts[node]
    operator, *parts = node
    written = []
    for place, part in enumerate(parts):
        text = write(part, texts, space=space)
        inner = 9 if isinstance(part, int) else _RANK[part[0]]
        rank = _RANK[operator]
        needs = inner < rank or (inner == rank and place == 1) or (operator == '^' and inner < 9)
        negative = isinstance(part, tuple) and part[0] == 'neg' and (place == 1 or operator == '^')
        fraction = isinstance(part, int) and '/' in text and operator in '/^'
        written.append(f'({text})' if needs or negative or fraction else text)
    return f'-{written[0]}' if operator == 'neg' else f'{space}{operator}{space}'.join(written)


def _operators(node: Node):
    if isinstance(node, int):
        return
    operator, *parts = node
    yield from _operators(parts[0])
    yield operator
    for part in parts[1:]:
        yield from _operators(part)


def canonical(node: Node, values: Sequence[Fraction]) -> tuple:
    """Returns a form that does not depend on the order of summands and factors."""
    if isinstance(node, int):
        return ('number', values[node])
    sums, products = node[0] in ('+', '-', 'neg'), node[0] in ('*', '/')
    if not sums and not products:
        return (node[0], *(canonical(part, values) for part in node[1:]))
    terms = sorted(_terms(node, values, sums=sums), key=repr)
    return ('sum' if sums else 'product', *terms)


def _terms(node: Node, values: Sequence[Fraction], *, sums: bool, sign: int = 1):
    """Yields (sign, form) of the summands of a sum, or of the factors of a product."""
    same = ('+', '-', 'neg') if sums else ('*', '/')
    if isinstance(node, int) or node[0] not in same:
        yield sign, canonical(node, values)
        return
    operator, *parts = node
    first = -sign if operator == 'neg' else sign
    yield from _terms(parts[0], values, sums=sums, sign=first)
    for part in parts[1:]:
        after = -sign if operator in '-/' else sign
        yield from _terms(part, values, sums=sums, sign=after)


def _follows(tokens: Sequence[Token], at: int, *kinds: str) -> bool:
    return at < len(tokens) and tokens[at].kind in kinds


STOP_WORDS = frozenset(
    [
        *('and', 'or', 'but', 'then', 'so', 'if', 'when', 'because', 'since', 'which', 'that'),
        *('than', 'from', 'to', 'who', 'while', 'after', 'before', 'has', 'have', 'had', 'does'),
        *('do', 'did', 'be', 'been', 'will', 'would', 'can', 'could', 'should', 'we', 'he', 'she'),
        *('they', 'it', 'i', 'there', 'this', 'these', 'those', 'as', 'at', 'by', 'with'),
        *('without', 'only', 'also'),
    ]
)
"""Words that end a unit: in `5 apples and 3 + 2`, `apples and` is no unit of the 5."""
MAX_UNIT_WORDS = 5


class Parser:
    """Recursive-descent parser of one expression; `at` is the index of the token after it.

    Precedence is as in mathematics; operators of equal precedence associate to the left. A fraction
    or a percentage before `of` is a factor: `20% of 50`, `2/3 of 12`.
    """

    def __init__(self, tokens: Sequence[Token], at: int):
        """Starts at a token."""
        self.tokens, self.at, self.leaves = tokens, at, []
        self.unit_places: list[tuple[int, int]] = []

    def expression(self) -> Expression | None:
        """Returns the longest expression from here, or None if none begins here."""
        node = self._sum()
        return None if node is None else Expression(node, tuple(self.leaves))

    def _operator(self, signs: str) -> str | None:
        if _follows(self.tokens, self.at, 'operator') and self.tokens[self.at].text in signs:
            return self.tokens[self.at].text
        return None

    def _binary(self, operand, sign) -> Node | None:
        """Parses operators of one precedence; stops before one that no operand follows."""
        node = operand()
        while node is not None and (operator := sign()):
            place, leaves, units = self.at, len(self.leaves), len(self.unit_places)
            self.at += operator in ('+', '-', '*', '/', 'of')
            other = operand()
            if other is None:
                self.at, self.leaves = place, self.leaves[:leaves]
                self.unit_places = self.unit_places[:units]
                break
            node = ('*' if operator in ('of', '()') else operator, node, other)
        return node

    def _sum(self) -> Node | None:
        return self._binary(self._product, lambda: self._operator('+-'))

    def _product(self) -> Node | None:
        return self._binary(self._signed, self._factor_sign)

    def _factor_sign(self) -> str | None:
        if operator := self._operator('*/'):
            return operator
        last = self.tokens[self.at - 1]
        if _follows(self.tokens, self.at, '('):
            closed = last.kind == ')' or (
                last.kind == 'number' and last.end == self.tokens[self.at].start
            )
            return '()' if closed else None
        part = last.percent or last.kind == ')' or self._ends_fraction()
        if part and _follows(self.tokens, self.at, 'word') and self.tokens[self.at].text == 'of':
            return 'of'
        return None

    def _ends_fraction(self) -> bool:
        """Whether the last three tokens are a fraction such as 2/3."""
        last = self.tokens[max(self.at - 3, 0) : self.at]
        kinds = [token.kind for token in last]
        return kinds == ['number', 'operator', 'number'] and last[1].text == '/'

    def _signed(self) -> Node | None:
        if self._operator('-'):
            place = self.at
            self.at += 1
            node = self._power()
            if node is None:
                self.at = place
                return None
            return ('neg', node)
        return self._power()

    def _power(self) -> Node | None:
        node = self._operand()
        if node is not None and self._operator('^'):
            place = self.at
            self.at += 1
            exponent = self._operand()
            if exponent is None:
                self.at = place
                return node
            return ('^', node, exponent)
        return node

    def _operand(self) -> Node | None:
        if _follows(self.tokens, self.at, '('):
            place, leaves = self.at, len(self.leaves)
            self.at += 1
            node = self._sum()
            if node is not None and _follows(self.tokens, self.at, ')'):
                self.at += 1
                self._skip_unit()
                return node
            self.at, self.leaves = place, self.leaves[:leaves]
            return None
        if not _follows(self.tokens, self.at, 'number'):
            return None
        token = self.tokens[self.at]
        self.at += 1
        self.leaves.append(Leaf(token.value, plain(token.text), token.decimals, token.percent))
        self._skip_unit()
        return len(self.leaves) - 1

    def _skip_unit(self) -> None:
        """Skips a unit, such as `apples per bag` or `miles/hour`.

        Does nothing unless an operator, an equality, a verb or a bracket follows the words.
        """
        place = self.at
        while self.at - place < 2 * MAX_UNIT_WORDS and self.at < len(self.tokens):
            token = self.tokens[self.at]
            slash = token.kind == 'operator' and token.text == '/'
            if slash and _follows(self.tokens, self.at + 1, 'word'):
                self.at += 2
            elif token.kind == 'word' and token.text.lower() not in STOP_WORDS:
                self.at += 1
            else:
                break
        ends = not _follows(self.tokens, self.at, 'operator', 'equals', 'verb', ')')
        of_part = _follows(self.tokens, place, 'word') and self.tokens[place].text == 'of'
        if ends or of_part:
            self.at = place
        elif self.at > place:
            self.unit_places.append((place, self.at))


def plain(text: str) -> str:
    """Returns a number without currency and spaces."""
    return text.lstrip('$€£¥ ').replace(' ', '')
