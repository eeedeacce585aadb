"""CYCLE: refinements are trained behind the flawed attempt and what is wrong with it."""

import random

from elenchus.configs.methods import cycle
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.stages import actor
from tests.support.fake_engine import CHAT, TOKENIZER
from tests.support.rollout_cases import PROBLEMS


def test_the_faulty_attempt_is_read_and_the_right_one_trained():
    settings = build.build(RunSettings, cycle.get_config('default'))
    assert settings.actor.refinements_per_problem == 2 and settings.evaluate.num_rounds == 3
    assert settings.critique.filter_successes == 1  # with 0 the filter keeps every critique
    for number, problem in enumerate(PROBLEMS):
        example = actor.refinement(CHAT, problem, rng=random.Random(number))
        trained = TOKENIZER.decode(example.tokens[example.loss_mask > 0].tolist())
        context = TOKENIZER.decode(example.tokens[example.loss_mask == 0].tolist())
        assert problem.question.strip() in context and problem.question.strip() not in trained
        # Tokens that the refinement cannot know have weight 0; the others are the new attempt.
        assert example.weights[example.loss_mask == 0].sum() == 0
        assert example.weights.sum() > 0
