"""Compares answers with math-verify, in worker processes only: it may hang."""

import logging
import re

def math_equal(answer: str, reference: str) -> bool:
    """Compares two answers algebraically with math-verify. May hang: for worker processes only.

    Only the LaTeX grammar is used: math-verify's plain-expression reader passes its input to
    sympy's `parse_expr`, which evaluates it as Python. The numerals of the LaTeX grammar also go
    through that function, so `eval` is replaced in its module by a parser of numerals.
    """
    import math_verify

    _disable_eval()
    config = [math_verify.LatexExtractionConfig()]
    gold, target = (
        math_verify.parse(rf'\boxed{{{text}}}', config, parsing_timeout=None, raise_on_error=True)
        for text in (reference, answer)
    )
    return math_verify.verify(
        gold, target, allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True
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
    logging.getLogger('math_verify').setLevel(logging.ERROR)


class EvaluationRefused(BaseException):
    """Raised if sympy evaluates more than a numeral.

    A BaseException, so that no library catches it and the worker process ends.
    """


def _parse_numeral(code: str, names: dict, _: dict):
    match = re.fullmatch(r"\s*(Integer|Float) ?\('?([0-9.eE+-]+)'? ?\)\s*", code)
    if not match:
        raise EvaluationRefused(f'refused to evaluate {code[:50]!r}: it is not a numeral')
    return names[match[1]](match[2])
