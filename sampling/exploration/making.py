"""Makes new problems from given ones before a round explores them: the slot `improve.make`.

    def renamed(problem, notes):
        if not notes.written:
            return [f'Write a problem like this one, and solve it: {problem.question}']
        question, _, solution = notes.written[-1].partition('Solution:')
        return [(question, solution)]

A made problem has the level and source of the one that it is made of. Its answer is that of its
solution, which nobody has checked; on the lab the lab's solver gives both.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from elenchus.data.grading import answers
from elenchus.data.lab import task
from elenchus.data.records import Problem
from elenchus.data.text.chat import Chat
from elenchus.sampling import user_functions
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.slots import Slot
from elenchus.sampling.writing import Notes, write

FIELD = 'improve.make'

Make = Callable[[Problem, Notes], Any]
"""(problem, notes) -> a list of one text, which a player is asked; or the new problems."""

MAKES = Slot(
    '(problem, notes) -> [(question, solution), ...] or [a request]',
    {'none': lambda problem, notes: []},
)


def make_problems(
    models: ModelPair,
    items: Sequence[tuple[Problem, Notes]],
    *,
    reference: str,
    spec: SampleSpec,
    room: int | None,
) -> tuple[list[Problem], dict[str, int]]:
    """Returns the problems that a function of MAKES makes, and counts of what was left out.

    Left out are questions that were there before, those without an answer, and those that are
    longer than every given one, for which lengths are checked. Raises ValueError, naming the
    function, for anything but pairs of texts.
    """
    function = MAKES.find(reference, FIELD)
    results = write(models, function, items, spec=spec, room=room, field=FIELD)
    chat = models.sampler.chat
    seen = {problem.question.strip() for problem, _ in items}
    longest = max((_num_tokens(chat, problem.question) for problem, _ in items), default=0)
    derived, counts = [], collections.Counter(new=0, repeated=0, without_answer=0, too_long=0)
    for (problem, notes), result in zip(items, results, strict=True):
        for question, solution in pairs_of(function, result, field=FIELD):
            new = derive_problem(problem, question, solution, name=f'{notes.number}-{len(derived)}')
            if question.strip() in seen:
                counts['repeated'] += 1
            elif new is None:
                counts['without_answer'] += 1
            elif _num_tokens(chat, new.question) > longest:
                counts['too_long'] += 1
            else:
                counts['new'] += 1
                seen.add(new.question)
                derived.append(new)
    return derived, dict(counts)


def derive_problem(problem: Problem, question: str, solution: str, *, name: str) -> Problem | None:
    """Returns `problem` with another question, solution and answer; None if there is no answer."""
    question, solution = question.strip(), solution.strip()
    if problem.source == 'lab':
        try:
            solution = task.solve(question)
        except (KeyError, ValueError, IndexError):
            return None
    answer = answers.extract_answer(solution)
    if not question or not answer:
        return None
    changes = {'question': question, 'solution': solution, 'answer': answer}
    return dataclasses.replace(problem, id=f'{problem.id}/derived/{name}', **changes)


def _num_tokens(chat: Chat, question: str) -> int:
    return len(chat.question_turns(question)[-1].tokens)


def pairs_of(function: Make, result: Any, *, field: str) -> list[tuple[str, str]]:
    """Returns the pairs of question and solution that a function has returned.

    Raises ValueError, naming the function, for anything else; None is no pair.
    """
    items = [] if result is None else result
    is_list = isinstance(items, Iterable) and not isinstance(items, str | Mapping)
    pairs = list(items) if is_list else [None]
    for pair in pairs:
        is_pair = isinstance(pair, tuple | list) and len(pair) == 2
        if not is_pair or not all(isinstance(text, str) for text in pair):
            wanted = '[(question, solution), ...] of texts, or [a request]'
            user_functions.refuse(function, result, wanted, field=field)
    return [tuple(pair) for pair in pairs]
