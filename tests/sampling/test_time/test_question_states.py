"""States behind questions: those of the model alone, in batches of any size."""

import dataclasses

import numpy as np
import pytest

from elenchus.sampling.step_scores import ScoreShapes
from elenchus.sampling.test_time import question_states
from tests.support import fake_engine, tiny_model
from tests.support.fake_engine import CHAT, TOKENIZER

CONFIG = dataclasses.replace(
    tiny_model.CONFIG, vocab_size=TOKENIZER.vocab_size, num_layers=1, max_length=128
)
MODEL = tiny_model.make_model(CONFIG)
PROBLEMS = fake_engine.problems(3)
MODELS = dataclasses.replace(fake_engine.players(None), actor=MODEL)


@pytest.mark.slow
def test_a_state_is_the_models_at_the_last_token_of_the_prompt():
    shapes = ScoreShapes(2, (16, 96))
    states = question_states.question_states(MODELS, PROBLEMS, shapes=shapes)
    for problem, state in zip(PROBLEMS, states, strict=True):
        prompt = np.array([CHAT.context(CHAT.question_turns(problem.question), 'attempt')])
        hidden, _ = MODEL(prompt, np.arange(prompt.shape[1])[None])
        np.testing.assert_allclose(state, hidden[0, -1], atol=1e-5)


def test_a_question_that_is_too_long_is_an_error():
    with pytest.raises(ValueError, match=r'sampling\.score\.lengths=\(8,\) must end with'):
        question_states.question_states(MODELS, PROBLEMS, shapes=ScoreShapes(2, (8,)))
