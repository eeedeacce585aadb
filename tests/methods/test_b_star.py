"""B-STaR: the balance score of the authors' code."""

import dataclasses

import pytest

from elenchus.configs.methods import b_star
from elenchus.data import records
from elenchus.sampling.exploration import controller
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings


def attempts(num_right, num_wrong, score=1.0):
    rights = [True] * num_right + [False] * num_wrong
    return [
        records.Episode(
            'p',
            1,
            (
                records.Turn('question', (5,), (1,)),
                records.Turn(
                    'attempt', (6,), (i,), facts=records.TurnFacts(correct=r, score=score)
                ),
            ),
        )
        for i, r in enumerate(rights)
    ]


@pytest.mark.parametrize(
    ('num_right', 'num_wrong', 'balance'),
    [
        (8, 0, 1.0),
        (8, 8, 0.5),
        (4, 0, 0.5),
        (4, 4, 0.25),
        (0, 8, 0.0),
        (16, 0, 1.0),
        (2, 6, 0.0625),
    ],
)
def test_balance_with_the_published_target_of_eight(num_right, num_wrong, balance):
    target = b_star.CHANGES['improve.candidates.target']
    score = controller.balance_score(attempts(num_right, num_wrong), threshold=0.0, target=target)
    assert score == pytest.approx(balance)


def test_a_controller_chooses_in_each_of_three_rounds():
    settings = build.build(RunSettings, b_star.get_config('default')).improve
    assert (settings.controller, settings.num_rounds, settings.restart) == ('balance', 3, 'last')
    assert dataclasses.asdict(settings.candidates)['target'] == 2  # few responses on the lab
