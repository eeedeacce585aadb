"""Answer extraction and equivalence; whatever may hang runs in a process that can be killed."""

import collections
import contextlib
import enum
import fractions
import importlib
import logging
import math
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from multiprocessing import connection

MAX_ANSWER = 1000  # characters; a longer answer is compared as text
STARTUP_S = 120.0  # a worker imports sympy, on a busy machine
WORKER_BYTES = 4 << 30  # address space of a worker

_MARKER = re.compile(r'(?<!#)####(?!#)|\bthe (?:final )?answer is\b:?|\\boxed\s*\{', re.IGNORECASE)
_SENTENCE_END = re.compile(r'[.!?](?=\s|$)')

_INTEGER = r'(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)'
_DECIMAL = rf'(?:{_INTEGER}(?:\.[0-9]*)?|\.[0-9]+)'
_NUMBER = re.compile(
    rf'(?P<sign>[-+]?)\s*(?:(?P<whole>{_INTEGER})\s+(?={_INTEGER}\s*/))?(?P<top>{_DECIMAL})'
    rf'(?:\s*/\s*(?P<bottom>-?{_DECIMAL})|[eE](?P<exponent>[-+]?[0-9]{{1,3}}))?'
)
NUMBER_IN_TEXT = re.compile(rf'{_INTEGER}(?:\.[0-9]+)?|\.[0-9]+')
"""A number as it stands in a sentence: `1,234.50`, `.5`; a full stop after it is not its own."""

_FRACTION = re.compile(rf'\\frac\s*\{{\s*(-?{_DECIMAL})\s*\}}\s*\{{\s*({_DECIMAL})\s*\}}')
_TEXT = re.compile(r'\\(?:text|textbf|mbox|mathrm)\s*\{([^{}]*)\}')
_REPLACED = [
    ('\u2212', '-'),
    ('\u2013', '-'),
    ('\u00a0', ' '),
    ('\u202f', ' '),
    ('{,}', ','),
    (r'\!', ''),
    (r'\,', ' '),
    (r'\ ', ' '),
    ('~', ' '),
    (r'\$', ''),
    ('$', ''),
    ('£', ''),
    ('€', ''),
    (r'\%', ''),
    ('%', ''),
    (r'^{\circ}', ''),
    (r'^\circ', ''),
    ('°', ''),
    (r'\left', ''),
    (r'\right', ''),
    (r'\(', ''),
    (r'\)', ''),
    (r'\[', ''),
    (r'\]', ''),
    (r'\dfrac', r'\frac'),
    (r'\tfrac', r'\frac'),
]

_SHORT_UNITS = frozenset(
    {
        'a',
        'cm',
        'ft',
        'gb',
        'hr',
        'hrs',
        'in',
        'kb',
        'kg',
        'kgs',
        'km',
        'lb',
        'lbs',
        'mb',
        'mg',
        'mi',
        'ml',
        'mm',
        'mph',
        'ms',
        'of',
        'oz',
        'sq',
        'tb',
        'yd',
        'yds',
    }
)
_NOT_UNITS = frozenset(
    {
        'alpha',
        'and',
        'base',
        'beta',
        'billion',
        'choose',
        'cosine',
        'cubed',
        'delta',
        'dozen',
        'eta',
        'factorial',
        'gamma',
        'half',
        'halves',
        'hundred',
        'infinity',
        'into',
        'iota',
        'lambda',
        'less',
        'log',
        'million',
        'minus',
        'mod',
        'more',
        'nor',
        'not',
        'omega',
        'over',
        'phi',
        'plus',
        'power',
        'root',
        'sigma',
        'sine',
        'squared',
        'than',
        'theta',
        'thousand',
        'times',
        'trillion',
        'zeta',
    }
)
_UNIT = re.compile(r"(?=[^ ]*[aeiouy])[a-z]{3,}(?:[-'][a-z]+)*")


class Outcome(enum.StrEnum):
    """What became of one check; only `RIGHT` and `WRONG` are judgements of the answer."""

    RIGHT = enum.auto()
    WRONG = enum.auto()
    NO_ANSWER = enum.auto()
    TIMEOUT = enum.auto()
    ERROR = enum.auto()


def extract_answer(text: str) -> str | None:
    r"""The answer after the last `####`, `The answer is` or `\boxed{`.

    None where there is no such marker, or where the last one is empty or never closed: an earlier
    answer does not stand in for it.
    """
    markers = collections.deque(_MARKER.finditer(text), maxlen=1)
    if not markers:
        return None
    (last,) = markers
    if last[0].endswith('{'):
        return _balanced(text, last.end())
    line = text[last.end() :].split('\n', 1)[0]
    if last[0] != '####':
        line = _SENTENCE_END.split(line, maxsplit=1)[0]
    return line.strip() or None


def _balanced(text: str, start: int) -> str | None:
    """The text from `start` to the brace that closes the one before it."""
    depth = 1
    for place in re.finditer(r'\\.|[{}]', text[start:], re.DOTALL):
        depth += {'{': 1, '}': -1}.get(place[0], 0)
        if not depth:
            return text[start : start + place.start()].strip() or None
    return None


def parse_number(text: str) -> fractions.Fraction | None:
    r"""The exact value of one number: `-1,234.50`, `$3`, `50\%`, `3 1/2`, `1e3`, `18 dollars`.

    A percent sign is dropped, not divided out, as the data sets' own answers have it. None for
    all else: expressions, lists, several numbers, non-ASCII digits.
    """
    if len(text) > MAX_ANSWER:
        return None
    text = _clean(text)
    match = _NUMBER.match(text)
    if not match or not _is_unit(text[match.end() :]):
        return None
    top, bottom, whole = (
        match[name] and fractions.Fraction(match[name].replace(',', ''))
        for name in ('top', 'bottom', 'whole')
    )
    if bottom == 0:
        return None
    value = (whole or 0) + (top if bottom is None else top / bottom)
    value *= fractions.Fraction(10) ** int(match['exponent'] or 0)
    return -value if match['sign'] == '-' else value


def canonical(answer: str | None) -> str | None:
    """One spelling of equal numbers, so that votes can be counted; other answers as they are."""
    number = None if answer is None else parse_number(answer)
    return answer if number is None else str(number)


def _clean(text: str) -> str:
    for old, new in _REPLACED:
        text = text.replace(old, new)
    text = _FRACTION.sub(r' \1/\2', _TEXT.sub(r' \1', text))
    text = re.sub(r'\\frac\s*([0-9])\s*([0-9])', r' \1/\2', text)
    text = ' '.join(text.split()).strip('*').strip()
    return text.removesuffix('.').rstrip()


def _is_unit(rest: str) -> bool:
    """Whether what follows a number only names what it counts (or nothing does)."""
    words = re.sub(r'\^\{?[23]\}?', '', rest).replace('/', ' ').lower().split()
    if not words or not rest.startswith(' '):
        return not rest or len(words) == 1 and words[0] in _SHORT_UNITS - {'a'}
    return len(words) <= 5 and all(
        word in _SHORT_UNITS or word not in _NOT_UNITS and _UNIT.fullmatch(word) for word in words
    )


def compare(answer: str, reference: str) -> bool | None:
    """Equality of numbers and of equal texts; None where only algebra could tell."""
    value, expected = parse_number(answer), parse_number(reference)
    if value is not None and expected is not None:
        return value == expected
    if max(len(answer), len(reference)) > MAX_ANSWER:
        return answer.strip() == reference.strip()
    answer, reference = (''.join(_clean(text).split()).casefold() for text in (answer, reference))
    if not answer or not reference or answer == reference:
        return bool(answer) and answer == reference
    wordy = next(
        (text for text, number in [(answer, expected), (reference, value)] if number is not None),
        None,
    )
    if wordy is not None and not re.search(r'[0-9\\]', wordy):
        return False
    return None


def equivalent(answer: str, reference: str) -> bool:
    """Whether two answers are surely the same: numbers by exact value, all else by its text."""
    return compare(answer, reference) is True


def numbers(text: str) -> list[str]:
    """The numbers that a text holds, as they are written, without signs."""
    return NUMBER_IN_TEXT.findall(text)


def passes_barrier(refined: str, reference: str, attempt: str) -> bool:
    """The shortcut barrier: a refinement must not hold many fewer numbers than its models.

    `#numbers(refined) >= min(#numbers(reference), #numbers(attempt)) - 2` (METHODS, 2).
    """
    return len(numbers(refined)) >= min(len(numbers(reference)), len(numbers(attempt))) - 2


def math_equal(answer: str, reference: str) -> bool:
    """Algebraic equality by math-verify. May hang: for workers only.

    Only the LaTeX grammar is used: math-verify's plain-expression reader hands its input to sympy's
    `parse_expr`, which evaluates it as Python. The grammar's numerals end there too, so `eval` is
    replaced in that module by a reader of numerals.
    """
    import math_verify
    from sympy.parsing import sympy_parser

    sympy_parser.eval = _read_numeral
    logging.getLogger('math_verify').setLevel(logging.ERROR)
    config = [math_verify.LatexExtractionConfig()]
    gold, target = (
        math_verify.parse(rf'\boxed{{{text}}}', config, parsing_timeout=None, raise_on_error=True)
        for text in (reference, answer)
    )
    return math_verify.verify(gold, target, timeout_seconds=None, raise_on_error=True)


def _read_numeral(code: str, names: dict, _: dict):
    match = re.fullmatch(r"\s*(Integer|Float) ?\('?([0-9.eE+-]+)'? ?\)\s*", code)
    if not match:
        raise ValueError(f'{code[:50]!r} is no numeral')
    return names[match[1]](match[2])


_READY = 'ready'


class _Worker:
    """A child process with one pair in flight; its clock starts once it has imported."""

    def __init__(self, comparator: str, timeout_s: float):
        self._timeout_s = timeout_s
        self.connection, theirs = connection.Pipe()
        call = (
            'from data import verify; '
            f'verify.serve({theirs.fileno()}, {comparator!r}, {timeout_s!r})'
        )
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, '-c', call],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=os.environ | {'PYTHONPATH': paths},
        )
        theirs.close()
        self._ready = False
        self.pair = None
        self.deadline = math.inf

    def send(self, pair: tuple[str, str]) -> None:
        self.pair = pair
        self.deadline = time.monotonic() + (self._timeout_s if self._ready else STARTUP_S)
        with contextlib.suppress(BrokenPipeError):  # it died idle: receive() finds the pipe ended
            self.connection.send(pair)

    def receive(self) -> Outcome | None:
        """The outcome of the pair in flight; None where the worker only said it is ready."""
        try:
            message = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._require_ready('died')
            return Outcome.ERROR
        if message == _READY:
            self._ready = True
            self.deadline = time.monotonic() + self._timeout_s
            return None
        return Outcome.RIGHT if message else Outcome.WRONG

    def expire(self) -> Outcome:
        self._require_ready(f'took more than {STARTUP_S:.0f} s')
        return Outcome.TIMEOUT

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self.connection.close()

    def _require_ready(self, what: str) -> None:
        if not self._ready:
            raise RuntimeError(
                f'a verifier worker {what} while it started; is math-verify installed?'
            )


def serve(descriptor: int, comparator: str, timeout_s: float) -> None:
    """A worker's loop: pairs in, booleans out, until the parent closes the pipe.

    A comparator that raises ends the process, which the parent counts as an error. The alarm ends
    a worker whose parent is gone.
    """
    resource.setrlimit(resource.RLIMIT_AS, (WORKER_BYTES, WORKER_BYTES))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    module, name = comparator.split(':')
    compare_pair = getattr(importlib.import_module(module), name)
    if compare_pair is math_equal:
        importlib.import_module('math_verify')
    pipe = connection.Connection(descriptor)
    pipe.send(_READY)
    while True:
        try:
            pair = pipe.recv()
        except EOFError:
            return
        signal.alarm(math.ceil(timeout_s) + 5)
        pipe.send(bool(compare_pair(*pair)))
        signal.alarm(0)


class Verifier:
    """Checks responses against reference answers; a context manager that owns its workers.

    Numbers and equal texts are settled here. All else goes to at most `num_workers` child
    processes, started when first needed, each killed when one pair takes more than `timeout_s`.
    `comparator` names their function as 'module:function'. `counts` adds up outcomes.
    """

    def __init__(
        self, *, num_workers: int, timeout_s: float, comparator: str = 'data.verify:math_equal'
    ):
        if num_workers < 1 or not timeout_s > 0:
            raise ValueError(f'num_workers={num_workers}, timeout_s={timeout_s}: both must be > 0')
        self._num_workers, self._timeout_s, self._comparator = num_workers, timeout_s, comparator
        self._idle, self._running = [], []
        self.counts = collections.Counter()

    def __enter__(self) -> 'Verifier':
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Kills the workers; a later check starts new ones."""
        for worker in self._idle + self._running:
            worker.kill()
        self._idle, self._running = [], []

    def check(self, pairs: Iterable[tuple[str, str]]) -> list[Outcome]:
        """The outcome of every (response, reference answer), in order.

        Raises RuntimeError where workers cannot start at all.
        """
        cases = [(extract_answer(response), reference) for response, reference in pairs]
        settled = {case: _settle(*case) for case in cases}
        hard = [case for case, outcome in settled.items() if outcome is None]
        try:
            settled |= self._work(hard)
        finally:
            while self._running:  # only after an error
                self._running.pop().kill()
        outcomes = [settled[case] for case in cases]
        self.counts.update(outcomes)
        return outcomes

    def _work(self, pairs: list[tuple[str, str]]) -> dict[tuple[str, str], Outcome]:
        waiting, outcomes = collections.deque(pairs), {}
        while waiting or self._running:
            while waiting and len(self._running) < self._num_workers:
                worker = (
                    self._idle.pop() if self._idle else _Worker(self._comparator, self._timeout_s)
                )
                self._running.append(worker)
                worker.send(waiting.popleft())
            for worker, outcome in self._wait():
                outcomes[worker.pair] = outcome
                self._running.remove(worker)
                if outcome in (Outcome.RIGHT, Outcome.WRONG):
                    self._idle.append(worker)
                else:
                    worker.kill()
        return outcomes

    def _wait(self) -> list[tuple[_Worker, Outcome]]:
        """Waits for the next news; returns the workers that are done with their pair."""
        patience = min(worker.deadline for worker in self._running) - time.monotonic()
        news = connection.wait([worker.connection for worker in self._running], max(0, patience))
        done = []
        for worker in self._running:
            if worker.connection in news:
                outcome = worker.receive()
            elif time.monotonic() >= worker.deadline:
                outcome = worker.expire()
            else:
                continue
            if outcome is not None:
                done.append((worker, outcome))
        return done


def _settle(answer: str | None, reference: str) -> Outcome | None:
    """The outcome where no worker is needed."""
    if answer is None:
        return Outcome.NO_ANSWER
    same = compare(answer, reference)
    return None if same is None else Outcome.RIGHT if same else Outcome.WRONG
