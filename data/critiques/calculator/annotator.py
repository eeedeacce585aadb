"""The annotator `calculator`: critiques of real text by calculation, without a stronger model."""

import random
from collections.abc import Sequence
from typing import Literal

from elenchus.data.critiques.calculator import review as reviews
from elenchus.data.critiques.calculator.wording import Writer
from elenchus.data.critiques.calculator.working import WorkedWriter
from elenchus.data.critiques.grammars import RELEASED, WORKED, Grammar
from elenchus.data.critiques.oracle import Annotator, ConstructedAttempt, NoCritique

Form = Literal['first_error', 'full_pass', 'mixed']
"""Where a critique stops: at the first wrong step, nowhere, or half of them at each."""


def annotate(
    attempt: ConstructedAttempt, *, form: Form, seed: int, grammar: Grammar = RELEASED
) -> str | NoCritique:
    """Returns the critique of an attempt in the grammar, or the reason for none.

    The wording depends on the seed, the problem, the attempt and the grammar only. In another
    grammar than WORKED the explanation says what is wrong with a step; in WORKED it works out what
    the step should be.
    """
    result = reviews.review(attempt.problem, attempt.attempt, location=attempt.location)
    if isinstance(result, str):
        return NoCritique(result)
    rng = random.Random(f'{seed}/{attempt.problem.id}/{attempt.attempt}')
    full_pass = form == 'full_pass' or (form == 'mixed' and rng.random() < 0.5)
    writer = WorkedWriter if grammar is WORKED else Writer
    critique = writer(result, rng=rng).critique(full_pass=full_pass)
    text = grammar.write(critique)
    # A step that spells the grammar's own labels would be read as another critique.
    return text if grammar.parse(text) == critique else NoCritique('ambiguous_text')


def calculator(*, form: Form, seed: int, grammar: Grammar) -> Annotator:
    """Returns the annotator."""

    def annotate_by_calculation(attempts: Sequence[ConstructedAttempt]) -> list:
        """Returns the critiques' texts, or why there is none."""
        return [annotate(a, form=form, seed=seed, grammar=grammar) for a in attempts]

    return annotate_by_calculation
