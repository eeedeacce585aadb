"""Refinements in free text after critiques of the annotator `calculator`.

The attempt is the reference solution with one mistake, from which its answer follows. Half of the
critiques, where the answer follows from it, name a false value: the refinement takes it over, so
what it should be can be read off the critique only. See text_refinements.py for critiques that
state nothing but a number.
"""

import fractions
import random

from elenchus.data.critiques import counterfactual, grammars, mistakes
from elenchus.data.critiques.calculator import annotator, falsification
from elenchus.data.critiques.grammars import Grammar
from elenchus.data.critiques.oracle import ConstructedAttempt, NoCritique
from elenchus.data.critiques.text_refinements import FALSE_SHARE, Refinement
from elenchus.data.grading import answers
from elenchus.data.records import Problem


def refine(
    problem: Problem, *, rng: random.Random, grammar: Grammar = grammars.RELEASED
) -> Refinement:
    """Puts one mistake into the reference solution, and corrects it as the critique says.

    Raises mistakes.NoMistakeError if no mistake is possible that the calculator locates.
    """
    for kind in rng.sample(falsification.KINDS, len(falsification.KINDS)):
        false = falsification.falsify(problem, kind, rng=rng)
        if false is None:
            continue
        attempt = ConstructedAttempt(problem, false.text, 'RG3', false.line, None)
        # In a full pass, later steps would compute on from the true value.
        states_false = rng.random() < FALSE_SHARE
        form = 'first_error' if states_false else 'mixed'
        critique = annotator.annotate(
            attempt, form=form, seed=rng.randrange(1 << 30), grammar=grammar
        )
        if isinstance(critique, NoCritique):
            continue
        if grammars.first_error(grammar.parse(critique)) != _step(false):
            continue
        right = Refinement(false.text, critique, problem.solution)
        other = states_false and _with_false_value(problem, false, right, rng=rng, grammar=grammar)
        return other or right
    raise mistakes.NoMistakeError(f'{problem.id}: no mistake that can be calculated')


def _step(false: falsification.Falsified) -> int:
    """Returns the number of the critique's step about the mistake: empty lines have none."""
    return sum(bool(line.strip()) for line in false.text.split('\n')[: false.line])


def _with_false_value(
    problem: Problem,
    false: falsification.Falsified,
    right: Refinement,
    *,
    rng: random.Random,
    grammar: Grammar,
) -> Refinement | None:
    """Returns the conversation with a false value in the critique, and what follows from it.

    None if the critique names another value than the result of the step, or nothing follows.
    """
    changed = counterfactual.falsify(
        right.critique,
        grammar=grammar,
        rng=rng,
        avoid=f'{problem.question}\n{false.text}\n{problem.solution}',
    )
    value = None if changed is None else answers.parse_number(changed.value)
    if value is None or value <= 0 or _replaces(right.critique, changed.text) != false.result:
        return None
    followed = falsification.restate(problem, false.line, value)
    if followed is None:
        return None
    return Refinement(false.text, changed.text, followed.text)


def _replaces(before: str, after: str) -> fractions.Fraction | None:
    """Returns the first number of a text that another one replaces."""
    pairs = zip(answers.numbers(before), answers.numbers(after), strict=False)
    return next((answers.parse_number(a) for a, b in pairs if a != b), None)
