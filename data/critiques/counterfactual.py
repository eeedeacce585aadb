"""Counterfactual critiques: a derived value is replaced by a false one, to test if it is used.

A refinement that states the false value must have read the critique, because question and attempt
do not lead to it. A refinement that states the true value ignores critiques, or checks them.
"""

import dataclasses
import decimal
import random
import re
from typing import NamedTuple

from elenchus.data.critiques import grammars
from elenchus.data.critiques.grammars import Critique, Grammar
from elenchus.data.grading import answers
from elenchus.data.lab import task


class Falsified(NamedTuple):
    """A critique with one false value."""

    text: str  # of the whole critique
    value: str  # the false value, as written in it
    step: int  # index of the step that it belongs to, the first that the critique calls wrong


def falsify(
    critique: str,
    *,
    grammar: Grammar,
    rng: random.Random,
    avoid: str = '',
    question: str | None = None,
) -> Falsified | None:
    """Replaces the value that the explanation of the first wrong step derives by a false one.

    Whatever follows from the value in the critique changes with it; nothing else does, except that
    the text is rewritten in its grammar's form. Returns None if the critique calls no step wrong or
    derives no value there.

    Args:
        avoid: text with numbers that the false value must differ from, such as question and
            attempt. Not needed on the lab, where the quantity's line shows which value is used.
        question: on the lab, the question. For a critique that misquotes it the result is None,
            because a good refinement would not use its value.
    """
    parsed = grammar.parse(critique)
    step = grammars.first_error(parsed)
    if step is None:
        return None
    if grammar is grammars.LAB:
        if question is not None and parsed.steps[step].sentence not in question.split(' ; '):
            return None
        name = parsed.steps[step].sentence.split()[0] if parsed.steps[step].sentence else ''
        true = task.known_values(question).get(name) if question is not None else None
        changed = _falsify_lab(parsed.steps[step], rng, true_value=true)
        if changed is None:
            return None
        explanation, value = changed
        return Falsified(grammar.write(_explained(parsed, {step: explanation})), value, step)
    true = _derived_number(parsed.steps[step])
    if grammar is grammars.WORKED and true != _last_number(parsed.steps[step].explanation):
        return None  # it is an operand or a result on the way
    if true is None:
        return None
    false = _false_number(true, rng, avoid=f'{critique}\n{avoid}')
    later = {
        i: _replace_number(parsed.steps[i].explanation, true, false)
        for i in range(step, len(parsed.steps))
    }
    final = _replace_number(parsed.final_explanation, true, false)
    changed = dataclasses.replace(_explained(parsed, later), final_explanation=final)
    return Falsified(grammar.write(changed), false, step)


def without_explanation(critique: str, *, grammar: Grammar) -> str | None:
    """Returns a critique that still says which step is wrong, but no longer why.

    Returns None if it calls no step wrong.
    """
    parsed = grammar.parse(critique)
    step = grammars.first_error(parsed)
    return None if step is None else grammar.write(_explained(parsed, {step: ''}))


def uses_value(
    refinement: str, falsified: Falsified, *, grammar: Grammar, question: str, attempt: str
) -> bool:
    """Returns whether a refinement after the counterfactual critique uses its false value.

    On the lab: the refinement's line about the same quantity ends with the value. In free text: the
    value is a number of the refinement, and of neither question nor attempt.
    """
    if grammar is not grammars.LAB:
        value = answers.parse_number(falsified.value)
        has_value = [
            value in map(answers.parse_number, answers.numbers(text))
            for text in (refinement, question, attempt)
        ]
        return has_value == [True, False, False]
    name = grammar.parse(falsified.text).steps[falsified.step].sentence.split()[:1]
    lines = (line.split() for line in refinement.split('\n'))
    line = next((words for words in lines if words[:1] == name), [])
    statement = [*name, *falsified.value.split()]
    return bool(name) and line[-len(statement) :] == statement


# The lab

_STATEMENT = re.compile(r'(\w+) : (\w+) [-+] \w+')
_LOOKED_UP = re.compile(r'(\w+) (\d) ; (?:(\w+) (\d) ; )?')
"""Start of an explanation, with or without a constant: `ada 3 ; gold 4 ; 3 - 4 = 9 ; ...`."""


def _falsify_lab(
    step: grammars.StepVerdict, rng: random.Random, *, true_value: int | None
) -> tuple[str, str] | None:
    """Returns an explanation with another derived value, and that value; None if it has none.

    The value differs from the derived one, the true one and the attempt's, so that only a reader of
    the critique states it. A constant in the explanation gets the digit from which the false value
    follows. An explanation that does not derive its value has none.
    """
    sentence = _STATEMENT.fullmatch(step.sentence)
    words = _LOOKED_UP.match(step.explanation)
    if not sentence or not words or sentence[2] != words[1]:
        return None
    name, base_value = sentence[1], int(words[2])
    facts = [f'{words[3]} {words[4]}'] if words[3] else []
    question = ' ; '.join([f'{words[1]} {base_value}', *facts, step.sentence, f'{name} ?'])
    try:
        statement = task.parse_question(question)[0][name]
    except ValueError:  # neither a digit nor a constant
        return None
    check = step.explanation.rsplit(' ; ', 1)[-1]
    for stated in (None, *map(int, re.findall(r'\d', check)[:1])):
        whole = task.explain(statement, base_value, stated=stated)
        if whole == f'{step.sentence} ; {step.explanation}':
            avoided = (statement.value(base_value), stated, true_value)
            false = rng.choice([v for v in range(10) if v not in avoided])
            if statement.constant:
                digit = next(d for d in range(10) if _with_digit(statement, d, base_value) == false)
                statement = dataclasses.replace(statement, digit=digit)
            changed = task.explain(statement, base_value, stated=stated, result=false)
            return changed.removeprefix(f'{step.sentence} ; '), str(false)
    return None


def _with_digit(statement: task.Statement, digit: int, base_value: int) -> int:
    """Returns the value of a statement with another last digit."""
    return dataclasses.replace(statement, digit=digit).value(base_value)


# Free text


def _derived_number(step: grammars.StepVerdict) -> str | None:
    """Returns the last number of the explanation that the step itself does not state."""
    stated = set(map(answers.parse_number, answers.numbers(step.sentence)))
    derived = [
        n for n in answers.numbers(step.explanation) if answers.parse_number(n) not in stated
    ]
    return derived[-1] if derived else None


def _last_number(text: str) -> str | None:
    return next(reversed(answers.numbers(text)), None)


def _false_number(true: str, rng: random.Random, *, avoid: str) -> str:
    """Returns another number near `true`, of the same form, that is not in `avoid`."""
    avoided = set(map(answers.parse_number, answers.numbers(avoid)))
    number = decimal.Decimal(true.replace(',', ''))
    distance = rng.sample(range(1, 10), 9)
    # There are more distances than numbers to avoid, so one of them is free.
    distance += range(10, 11 + len(avoided))
    candidates = (f'{number + d:,}' if ',' in true else f'{number + d}' for d in distance)
    return next(n for n in candidates if answers.parse_number(n) not in avoided)


def _replace_number(text: str, old: str, new: str) -> str:
    """Replaces every occurrence of a number, in any spelling."""
    value = answers.parse_number(old)
    return answers.NUMBER_IN_TEXT.sub(
        lambda match: new if answers.parse_number(match[0]) == value else match[0], text
    )


def _explained(critique: Critique, explanations: dict[int, str]) -> Critique:
    """Returns the critique with other explanations of some steps."""
    steps = [
        dataclasses.replace(step, explanation=explanations.get(i, step.explanation))
        for i, step in enumerate(critique.steps)
    ]
    return dataclasses.replace(critique, steps=tuple(steps))
