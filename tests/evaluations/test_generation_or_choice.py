"""Moves of answers by format: rows of the matrix, and a refinement that changes nothing."""

import dataclasses

from elenchus.configs.evaluations import generation_or_choice
from tests.support import method_cases


def move(before, after):
    return {'answer': before, 'correct': before == '1'}, {'answer': after, 'correct': after == '1'}


def test_moves_by_format():
    (numbers,) = method_cases.groups([move('1', '1'), move('1', '2'), move('3', '1')])
    (letters,) = method_cases.groups([move('2', '2'), move('2', '2')])
    letters = dataclasses.replace(
        letters, problem=dataclasses.replace(letters.problem, answer='(B)')
    )
    assert generation_or_choice.moves([numbers, letters], str) == {
        'choice: changed': 0.0, 'choice: right after wrong': 0.0,
        'open: changed': 2 / 3, 'open: right after right': 0.5, 'open: right after wrong': 1.0,
    }  # fmt: skip
