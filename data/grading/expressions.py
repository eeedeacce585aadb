r"""Parses LaTeX expressions into syntax trees, without evaluating any text.

It knows numbers, letters, `\pi`, `e`, `i`, the four operations, powers, `\frac`, `\sqrt`, absolute
values, factorials, `\binom`, and the elementary functions. Everything else, and every form with two
readings (`1/2x`, `\sin x(x+1)`, `f(x)`, `\log x`), gives None; math-verify then decides.
"""

import fractions
import functools
import re

MAX_LENGTH = 400  # characters
MAX_DEPTH = 40  # of brackets

Tree = tuple
"""('number', Fraction), ('variable', name), ('constant', name) or (operation, tree, ...)."""

_TOKEN = re.compile(
    r'\s+|[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3}(?![0-9]))?|\.[0-9]+|\\[A-Za-z]+|[A-Za-z]|[-+*/^_!(){}|\[\]]'
)
_FUNCTIONS = {
    'sin', 'cos', 'tan', 'cot', 'sec', 'csc', 'arcsin', 'arccos', 'arctan', 'sinh', 'cosh', 'tanh',
    'ln', 'exp', 'log',
}  # fmt: skip
_GREEK = frozenset(
    [
        'alpha',
        'beta',
        'gamma',
        'delta',
        'epsilon',
        'theta',
        'lambda',
        'mu',
        'rho',
        'sigma',
        'tau',
        'phi',
        'omega',
        'Delta',
        'Omega',
    ]
)
_LONG_WORD = re.compile(r'(?<![\\A-Za-z])[A-Za-z]{3,}')
_CALLED = re.compile(r'(?<![A-Za-z\\])[fghFGHPQpq]\s*\(')


class _Unread(Exception):
    """The text is no expression that this grammar reads with certainty."""


@functools.lru_cache(maxsize=20_000)
def parse(text: str) -> Tree | None:
    """Returns the syntax tree of an expression in one spelling; None if it is not understood."""
    if len(text) > MAX_LENGTH or not text:
        return None
    text = re.sub(r'(?<![\\A-Za-z])(sqrt|pi|sin|cos|tan|ln|log(?=\s*_))(?![A-Za-z])', r'\\\1', text)
    if _LONG_WORD.search(text) or _CALLED.search(text):
        return None
    try:
        parser = _Parser(_tokens(text))
        tree = parser.sum()
        return None if parser.peek() else tree
    except (_Unread, RecursionError, ValueError):
        return None


def _tokens(text: str) -> list[str]:
    tokens, place = [], 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if not match:
            raise _Unread
        place = match.end()
        if not match[0].isspace():
            tokens.append(match[0])
        elif (
            tokens
            and tokens[-1][0].isdigit()
            and text[place : place + 1].isdigit()
            and tokens[-2:-1] != ['_']
        ):
            raise _Unread  # two numbers beside each other
    return tokens


class _Parser:
    """A parser by recursive descent over the tokens of one expression."""

    def __init__(self, tokens: list[str]):
        self._tokens, self._place, self._depth = tokens, 0, 0
        self._in_absolute = 0
        self._in_function = 0

    def peek(self) -> str:
        """Returns the next token, '' at the end."""
        return self._tokens[self._place] if self._place < len(self._tokens) else ''

    def _next(self) -> str:
        token = self.peek()
        if not token:
            raise _Unread
        self._place += 1
        return token

    def _expect(self, token: str) -> None:
        if self._next() != token:
            raise _Unread

    def sum(self) -> Tree:
        """Reads terms with signs between them."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _Unread
        terms = [self._signed()]
        while self.peek() in ('+', '-'):
            sign = self._next()
            term = self._signed()
            terms.append(('negative', term) if sign == '-' else term)
        self._depth -= 1
        return ('sum', *terms) if len(terms) > 1 else terms[0]

    def _signed(self) -> Tree:
        signs = 0
        while self.peek() in ('+', '-'):
            signs += self._next() == '-'
        term = self._product()
        return ('negative', term) if signs % 2 else term

    def _product(self) -> Tree:
        result, divided = self._power(), False
        while True:
            token = self.peek()
            if token in ('*', r'\cdot', r'\times'):
                self._next()
                divided = False
                result = ('product', result, self._negatable())
            elif token == '/':
                if divided:
                    raise _Unread  # a/b/c
                self._next()
                result, divided = ('quotient', result, self._negatable()), True
            elif self._begins_factor(token):
                if divided:
                    raise _Unread  # 1/2x
                result = self._implicit(result)
            else:
                return result

    def _negatable(self) -> Tree:
        if self.peek() == '-':
            self._next()
            return ('negative', self._power())
        return self._power()

    def _implicit(self, first: Tree) -> Tree:
        """Reads a factor without an operator before it; a number before a fraction is mixed."""
        token = self.peek()
        right = self._power()
        if first[0] == 'number' and token[0].isdigit():
            raise _Unread
        if first[0] == 'number' and token == r'\frac' and _is_plain(right):
            if self._begins_factor(self.peek()) or first[1].denominator != 1:
                raise _Unread
            return ('sum', first, right)
        return ('product', first, right)

    def _begins_factor(self, token: str) -> bool:
        if not token or token == '|':
            return token == '|' and not self._in_absolute
        name = token[1:]
        return (
            token[0].isalnum()
            or token[0] == '.'
            or token in ('(', '{', '[')
            or token[0] == '\\'
            and name in _FUNCTIONS | _GREEK | {'frac', 'sqrt', 'pi', 'binom'}
        )

    def _power(self) -> Tree:
        base = self._postfix(self._atom())
        if self.peek() == '^':
            self._next()
            base = self._postfix(('power', base, self._exponent()))
            if self.peek() == '^':
                raise _Unread
        return base

    def _postfix(self, tree: Tree) -> Tree:
        while self.peek() in ('!', r'\degree'):
            token = self._next()
            if token == r'\degree':
                if not self._in_function:
                    raise _Unread
                tree = ('product', tree, ('quotient', ('constant', 'pi'), _number('180')))
            else:
                if self.peek() == '!':
                    raise _Unread
                tree = ('factorial', tree)
        return tree

    def _exponent(self) -> Tree:
        if self.peek() in ('-', '+'):
            sign = self._next()
            tree = self._atom()
            return ('negative', tree) if sign == '-' else tree
        return self._power() if self.peek() not in ('{', '(') else self._atom()

    def _atom(self) -> Tree:
        token = self._next()
        if token[0].isdigit() or token[0] == '.':
            return _number(token)
        if token in ('(', '{', '['):
            return self._bracket({'(': ')', '{': '}', '[': ']'}[token])
        if token == '|':
            self._in_absolute += 1
            tree = self.sum()
            self._in_absolute -= 1
            self._expect('|')
            return ('absolute', tree)
        if token.isalpha():
            return self._letter(token)
        name = token[1:]
        if token[0] != '\\':
            raise _Unread
        if name in _GREEK:
            return self._letter(token)
        if name in _FUNCTIONS:
            return self._function(name)
        return self._command(name)

    def _command(self, name: str) -> Tree:
        if name == 'pi':
            return ('constant', 'pi')
        if name in ('frac', 'binom'):
            top, bottom = self._argument(), self._argument()
            return ('quotient' if name == 'frac' else 'binomial', top, bottom)
        if name == 'sqrt':
            index = None
            if self.peek() == '[':
                self._next()
                index = self._bracket(']')
            content = self._atom() if self.peek() == '(' else self._argument()
            return ('root', content, index or _number('2'))
        raise _Unread

    def _bracket(self, closing: str) -> Tree:
        saved, self._in_absolute = self._in_absolute, 0
        tree = self.sum()
        self._in_absolute = saved
        self._expect(closing)
        return tree

    def _argument(self) -> Tree:
        r"""Reads the argument of a command: a group, or one digit or letter (`\frac12`)."""
        token = self.peek()
        if token == '{':
            self._next()
            return self._bracket('}')
        if token[:1].isdigit() and len(token) > 1:
            if not token.isdigit():
                raise _Unread
            self._tokens[self._place : self._place + 1] = [token[0], token[1:]]
        if not token or not (token[0].isalnum() or token == r'\pi' or token == r'\sqrt'):
            raise _Unread
        return self._atom()

    def _letter(self, token: str) -> Tree:
        if self.peek() == '_':
            self._next()
            part = self._next()
            if part == '{':
                inner = []
                while self.peek() not in ('}', ''):
                    inner.append(self._next())
                self._expect('}')
                part = ''.join(inner)
            return ('variable', f'{token}_{part}')
        return ('constant', token) if token in ('e', 'i') else ('variable', token)

    def _function(self, name: str) -> Tree:
        power = None
        if self.peek() == '^':
            self._next()
            power = self._atom()
            if power[0] != 'number' or power[1] < 0:
                raise _Unread  # the inverse function, or nested signs
        if name == 'log':
            self._expect('_')
            base = self._argument()
        self._in_function += 1
        argument = self._function_argument()
        self._in_function -= 1
        tree = (name, argument)
        if name == 'log':
            tree = ('quotient', ('ln', argument), ('ln', base))
        return ('power', tree, power) if power else tree

    def _function_argument(self) -> Tree:
        """Reads a bracket, or the factors up to the next operator, function or bracket."""
        if self.peek() in ('(', '{', '['):
            tree = self._power() if self.peek() != '{' else self._atom()
            if self.peek() == '!' or self.peek() == '^':
                raise _Unread
            return tree
        tree = self._power()
        while self._begins_factor(self.peek()):
            token = self.peek()
            if token[1:] in _FUNCTIONS:
                break
            if token in ('(', '{', '[', '|'):
                raise _Unread  # sin x(x+1)
            tree = self._implicit(tree)
        if self.peek() == '/':
            raise _Unread  # sin x/2
        return tree


def _is_plain(tree: Tree) -> bool:
    return tree[0] == 'quotient' and tree[1][0] == tree[2][0] == 'number'


def _number(token: str) -> Tree:
    return ('number', fractions.Fraction(token))


def long_words(text: str) -> list[str]:
    """Returns the words of three letters or more, which are no products of variables."""
    known = _FUNCTIONS | {'sqrt', 'pmatrix', 'bmatrix', 'matrix', 'array', 'begin', 'end', 'cases'}
    return [word for word in _LONG_WORD.findall(text) if word not in known]
