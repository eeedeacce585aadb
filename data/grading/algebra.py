"""Compares answers with math-verify. It may hang, so it is used in worker processes only."""

import functools
import logging
import re

from elenchus.data.grading.spelling import read_unicode


class _ErrorLog(logging.Handler):
    """Remembers whether math-verify, which catches its errors and logs them, had one."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.has_error = False

    def emit(self, record: logging.LogRecord) -> None:
        """Notes a record that has an exception."""
        self.has_error |= bool(record.exc_info)


_LOG = _ErrorLog()


def math_equal(answer: str, reference: str) -> bool | None:
    """Compares two answers algebraically; None if one cannot be read or the comparison fails.

    Only the LaTeX grammar is used: math-verify's plain-expression reader passes its input to
    sympy's `parse_expr`, which evaluates it as Python. The numerals of the LaTeX grammar also go
    through that function, so `eval` is replaced in its module by a parser of numerals.
    """
    import math_verify

    _disable_eval()
    gold, target = _parse(read_unicode(reference)), _parse(read_unicode(answer))
    if not gold or not target:
        return None
    _LOG.has_error = False
    same = math_verify.verify(
        list(gold), list(target), allow_set_relation_comp=True, timeout_seconds=None
    )
    return same or (None if _LOG.has_error else False)


@functools.lru_cache(maxsize=5000)
def _parse(text: str) -> tuple:
    """Returns math-verify's reading of a text, empty if it has none.

    Its fallback, the text itself, is left out: it is compared before.
    """
    import math_verify

    return tuple(
        math_verify.parse(
            rf'\boxed{{{text}}}',
            [math_verify.LatexExtractionConfig()],
            fallback_mode='no_fallback',
            parsing_timeout=None,
        )
    )


def _disable_eval() -> None:
    """Imports math-verify and sympy and replaces sympy's `eval`; see `math_equal`.

    sympy imports its units lazily and parses them with `eval`, so they are imported before it is
    replaced.
    """
    import math_verify  # noqa: F401
    import sympy.physics.units  # noqa: F401
    from sympy.parsing import sympy_parser

    sympy_parser.eval = _parse_numeral
    logger = logging.getLogger('math_verify')
    if _LOG not in logger.handlers:
        logger.addHandler(_LOG)
        logger.propagate = False
        logger.setLevel(logging.DEBUG)


class EvaluationRefused(BaseException):
    """Raised if sympy evaluates more than a numeral.

    A BaseException, so that no library catches it.
    """


def _parse_numeral(code: str, names: dict, _: dict):
    match = re.fullmatch(r"\s*(Integer|Float) ?\('?([0-9.eE+-]+)'? ?\)\s*", code)
    if not match:
        raise EvaluationRefused(f'refused to evaluate {code[:50]!r}: it is not a numeral')
    return names[match[1]](match[2])
