"""MC-CoT: the answer with most votes is trained, each question by how united they are."""

import numpy as np
import pytest

from elenchus.configs.methods import mc_cot
from elenchus.data import records
from elenchus.sampling.exploration import selection
from elenchus.sampling.exploration.acceptance import Response
from elenchus.train import response_weights
from tests.support.method_cases import PROBLEM, talk, written

ANSWERS = ['1', '2', '1', None, '1']


def responses(answers):
    turns = [written('attempt', (1, 2), answer=a, correct=a == '2') for a in answers]
    return [Response(PROBLEM, turn, '', None) for turn in turns]


def test_three_of_five_votes():
    flags = mc_cot.votes(responses(ANSWERS))
    assert flags == [True, False, True, False, True]  # and not the right one
    episodes = [
        talk(written('attempt', (1, 2), answer=a, origin='attempt', accepted=flag, correct=False))
        for a, flag in zip(ANSWERS, flags, strict=True)
    ]
    (share,) = selection.success_rates(episodes).values()
    assert share == pytest.approx(0.6)
    weights = response_weights.response_weights(
        episodes[0].attempt, weighting=mc_cot.CHANGES['improve.weighting'], success_rate=share
    )
    np.testing.assert_allclose(weights, [0.6, 0.6])


@pytest.mark.parametrize(
    ('answers', 'flags'),
    [
        (['1', '2'], [False, False]),  # nobody agrees
        (['2', '1', '1', '2'], [True, False, False, True]),  # the first of equals
        ([None, None], [False, False]),
        ([], []),
    ],
)
def test_without_a_second_vote_nothing_is_accepted(answers, flags):
    assert mc_cot.votes(responses(answers)) == flags


def test_names_of_answers_do_not_matter():
    renamed = [a and {'1': '7', '2': '1'}[a] for a in ANSWERS]
    assert mc_cot.votes(responses(renamed)) == mc_cot.votes(responses(ANSWERS))
    assert records.TurnFacts().accepted is None
