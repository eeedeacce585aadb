"""Converts rows of step-labelled data (ProcessBench, PRM800K, TRL) to fields of critique records.

A label says only whether a step is right. So the critique made from a row, in the released grammar,
has no explanations and stops at the first wrong step. What a row does not say stays unknown.
docs/tools.md has a table of the fields.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from elenchus.data.critiques import grammars
from elenchus.data.critiques.grammars import Critique, StepVerdict

Fields = dict[str, Any]


class RowForm(NamedTuple):
    """A format of rows: its name, the fields that it needs, and their conversion."""

    name: str
    needed: tuple[str, ...]
    fields: Callable[[Mapping[str, Any]], Fields]


def of_processbench(row: Mapping[str, Any]) -> Fields:
    """Converts a row of ProcessBench (arXiv 2412.06559): `label` is the first wrong step, or -1.

    `correct` and the final verdict are `final_answer_correct`: an answer may be right although a
    step is wrong.
    """
    steps = _texts(row, 'steps')
    label = _whole(row['label'], 'label')
    if not -1 <= label < len(steps):
        raise ValueError(f'label={label} must be in -1 (no error) to {len(steps) - 1}')
    right = row['final_answer_correct']
    if not isinstance(right, bool):
        raise ValueError(f'final_answer_correct={right!r} must be true or false')
    verdicts = [True] * len(steps) if label < 0 else [True] * label + [False]
    return _fields(
        _text(row, 'problem'),
        steps,
        verdicts,
        final_correct=right,
        correct=right,
        problem_id=str(row['id']) if row.get('id') is not None else None,
    )


def of_prm800k(row: Mapping[str, Any]) -> Fields:
    """Converts a row of PRM800K (arXiv 2305.20050): the steps that labellers chose or rated -1.

    A neutral rating (0) counts as right, as in the paper. A step whose chosen completion has no
    rating has no verdict. The response is the solution that was generated as a whole (phase 2),
    although labels end at its first error; without one, it is the labelled steps. The answer is
    known to be right if labelling ended with 'solution' and no step is wrong. If a step is wrong,
    the final verdict is "wrong", as that of the oracle.
    """
    question, label = _section(row, 'question'), _section(row, 'label')
    texts, verdicts = [], []
    for i, step in enumerate(_list(label, 'steps')):
        text, correct = _chosen(step, f'label.steps[{i}]')
        texts.append(text)
        verdicts.append(correct)
        if correct is False:
            break
    whole = question.get('pre_generated_steps')
    if whole is not None:
        whole = _texts(question, 'pre_generated_steps')
        texts = whole if whole[: len(texts)] == tuple(texts) else tuple(texts)
    solved = label.get('finish_reason') == 'solution' and False not in verdicts
    return _fields(
        _text(question, 'problem'),
        tuple(texts),
        verdicts,
        final_correct=False if False in verdicts else True if solved else None,
        correct=True if solved else None,
        problem_id=None,
    )


def of_trl(row: Mapping[str, Any]) -> Fields:
    """Converts a row for TRL's process reward models: `labels[i]` says if completion i is right.

    The final verdict is "correct" if all steps are. Whether the answer is right stays unknown.
    """
    steps, labels = _texts(row, 'completions'), _list(row, 'labels')
    if len(labels) != len(steps):
        raise ValueError(f'{len(labels)} labels for {len(steps)} completions')
    for label in labels:
        if not isinstance(label, bool) and label not in (0, 1):
            raise ValueError(f'labels has {label!r}, which is neither true nor false')
    verdicts = [bool(label) for label in labels]
    if False in verdicts:
        verdicts = verdicts[: verdicts.index(False) + 1]
    return _fields(
        _text(row, 'prompt'),
        steps,
        verdicts,
        final_correct=False not in verdicts,
        correct=None,
        problem_id=None,
    )


FORMS = (
    RowForm('ProcessBench', ('problem', 'steps', 'final_answer_correct', 'label'), of_processbench),
    RowForm('PRM800K', ('question', 'label'), of_prm800k),
    RowForm('TRL', ('prompt', 'completions', 'labels'), of_trl),
)


def _fields(
    question: str,
    steps: Sequence[str],
    verdicts: Sequence[bool | None],
    *,
    final_correct: bool | None,
    correct: bool | None,
    problem_id: str | None,
) -> Fields:
    """Returns the fields of a critique record whose critique has these verdicts."""
    judged = tuple(
        StepVerdict(step.strip(), verdict, '')
        for step, verdict in zip(steps, verdicts, strict=False)
    )
    critique = grammars.RELEASED.write(Critique(judged, final_correct, ''))
    fields = {
        'question': question,
        'response': '\n'.join(steps),
        'steps': list(steps),
        'critique': critique,
        'problem_id': problem_id,
        'correct': correct,
        'location': list(verdicts).index(False) if False in verdicts else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _chosen(step: Any, place: str) -> tuple[str, bool | None]:
    """Returns the text of a step of PRM800K and its verdict.

    The step is the chosen completion, else the labeller's own, which is right, else the first:
    then none was right.
    """
    if not isinstance(step, Mapping) or not isinstance(step.get('completions'), list):
        raise ValueError(f'{place} has no list of completions')
    chosen, human = step.get('chosen_completion'), step.get('human_completion')
    candidates = step['completions']
    if chosen is None and human is not None:
        text = human.get('text') if isinstance(human, Mapping) else human
        completion = {'text': text, 'rating': 1}
    else:
        index = 0 if chosen is None else _whole(chosen, f'{place}.chosen_completion')
        if not 0 <= index < len(candidates):
            raise ValueError(f'{place} has no completion {index}')
        completion = candidates[index]
    if not isinstance(completion, Mapping) or not isinstance(completion.get('text'), str):
        raise ValueError(f'{place}: a completion has no text')
    rating = completion.get('rating')
    if rating not in (-1, 0, 1, None):
        raise ValueError(f'{place}: rating={rating!r} must be -1, 0, 1 or null')
    return completion['text'], None if rating is None else rating >= 0


def _text(row: Mapping[str, Any], name: str) -> str:
    if not isinstance(row.get(name), str):
        raise ValueError(f'{name}={str(row.get(name))[:60]!r} is not text')
    return row[name]


def _list(row: Mapping[str, Any], name: str) -> list:
    if not isinstance(row.get(name), list) or not row[name]:
        raise ValueError(f'{name}={str(row.get(name))[:60]!r} must be a list that is not empty')
    return row[name]


def _texts(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = _list(row, name)
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f'{name} must be a list of texts')
    return tuple(values)


def _section(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if not isinstance(row.get(name), Mapping):
        raise ValueError(f'{name}={str(row.get(name))[:60]!r} must be an object')
    return row[name]


def _whole(value: Any, name: str) -> int:
    if type(value) is not int:
        raise ValueError(f'{name}={value!r} must be a whole number')
    return value
