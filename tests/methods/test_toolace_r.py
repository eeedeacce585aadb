"""ToolACE-R: a question is trained iff its pass rate is in the window."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import toolace_r
from elenchus.data import records
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.response_weights import response_weights
from elenchus.train.stages import improve
from tests.support.fake_engine import CHAT
from tests.support.rollout_cases import PROBLEMS

NAME = toolace_r.CHANGES['improve.weighting']


@pytest.mark.parametrize(
    ('rate', 'is_admitted'), [(0.0, False), (0.2, True), (0.8, True), (0.81, False), (1.0, False)]
)
def test_the_window(rate, is_admitted):
    turn = CHAT.text_turn('attempt', '#### 3')
    weights = response_weights(turn, weighting=NAME, success_rate=rate)
    assert weights.shape == (len(turn.tokens),)
    assert (weights == 1).all() if is_admitted else np.isnan(weights).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_what_is_not_admitted_is_not_trained_in_the_round(rates):
    settings = build.build(RunSettings, toolace_r.get_config('default')).improve
    question = CHAT.question_turns(PROBLEMS[0].question)
    turn = CHAT.text_turn('attempt', '#### 3')
    kept = [
        records.Episode('p', 1, (*question, turn)).with_facts(success_rate=rate) for rate in rates
    ]
    examples = improve.response_examples(CHAT, kept, settings=settings)
    assert len(examples) == sum(0 < rate <= 0.8 for rate in rates)
    # As better models solve more, the same question comes and goes.
    plain = dataclasses.replace(settings, weighting='keep')
    assert len(improve.response_examples(CHAT, kept, settings=plain)) == len(rates)
