"""Attribution: complete, the same in packed rows, and zero for what cannot matter."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.data.batching import packing
from elenchus.sampling.step_scores import ScoreShapes
from elenchus.sampling.test_time import attribution
from tests.support import fake_engine, tiny_model
from tests.support.fake_engine import CHAT, TOKENIZER

END = np.int32(1)
MODEL = tiny_model.make_model(tiny_model.CONFIG)
LAB = dataclasses.replace(tiny_model.CONFIG, vocab_size=TOKENIZER.vocab_size, max_length=256)


@pytest.fixture(scope='module')
def lab_model():
    return tiny_model.make_model(LAB)


def example(seed, length, targets):
    """A random sequence whose last tokens are the answer."""
    (sequence,) = tiny_model.random_examples(seed, [length])
    mask = np.zeros(length, np.float32)
    mask[-targets:] = 1
    return sequence._replace(loss_mask=mask, weights=mask / targets)


def attributed(examples, *, steps, rows=1, length=16):
    batch = packing.pack(examples, rows=rows, length=length)
    return batch, *map(np.asarray, attribution.attributions(MODEL, batch, END, steps=steps))


@pytest.mark.slow
def test_the_attributions_add_up_to_what_the_answer_gained():
    errors = []
    for steps in (2, 16, 128):
        _, values, gains = attributed([example(0, 14, 2)], steps=steps)
        errors.append(abs(values.sum() - gains.sum()))
    assert errors[2] < 1e-3 * abs(gains.sum()) and errors[2] < errors[1] < errors[0]
    assert abs(gains.sum()) > 0.01


@pytest.mark.slow
def test_one_step_is_the_gradient_in_the_middle_times_the_input():
    batch, values, _ = attributed([example(1, 9, 1)], steps=1)
    start = MODEL.embed(np.full_like(batch.tokens, END))
    along = np.asarray(MODEL.embed(batch.tokens) - start)

    @jax.jit
    def value(t):  # a token a little further along the line, the others in the middle
        def at(share):
            shares = np.full((16, 1), 0.5, np.float32)
            shares = jnp.asarray(shares).at[t].add(share)
            hidden, _ = MODEL(
                batch.tokens, batch.positions, segments=batch.segments,
                embedded=start + shares * along,
            )  # fmt: skip
            return jax.nn.log_softmax(MODEL.logits(hidden[0, 7]))[batch.tokens[0, 8]]

        return (at(0.02) - at(-0.02)) / 0.04

    for t in (0, 3, 7):
        assert values[0, t] == pytest.approx(float(value(t)), rel=0.02, abs=2e-4)


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(3, 7), st.integers(1, 2)), min_size=2, max_size=4))
@settings(max_examples=4)
def test_a_packed_sequence_has_the_attributions_that_it_has_alone(shapes):
    examples = [example(i, length, targets) for i, (length, targets) in enumerate(shapes)]
    batch, packed, _ = attributed(examples, steps=4, rows=2)
    assert not packed[batch.segments == 0].any()
    alone = [attributed([e], steps=4)[1][0, : len(e.tokens)] for e in examples]
    found = [
        packed[r][batch.segments[r] == segment]
        for r in range(2)
        for segment in range(1, batch.segments[r].max() + 1)
    ]
    for values, expected in zip(sorted(found, key=list), sorted(alone, key=list), strict=True):
        np.testing.assert_allclose(values, expected, atol=2e-6)


def test_the_last_token_and_later_ones_cannot_matter():
    sequence = example(3, 12, 3)
    mask = np.zeros(12, np.float32)
    mask[5] = 1
    _, values, _ = attributed([sequence._replace(loss_mask=mask, weights=mask)], steps=4)
    assert values[0, :5].all() and not values[0, 5:].any()


def episode(problem, attempt, answer):
    turn = CHAT.text_turn('attempt', attempt).with_facts(answer=answer)
    critique = CHAT.text_turn('critique', 'answer : wrong')
    turns = (*CHAT.question_turns(problem.question), turn, critique)
    return records.Episode(problem.id, 1, turns)


def words_of(model, episodes, *, rows=2, lengths=(64, 128), steps=2):
    models = dataclasses.replace(fake_engine.players(None), actor=model)
    shapes = ScoreShapes(rows, lengths)
    return attribution.question_words(models, episodes, shapes=shapes, steps=steps)


@pytest.mark.slow
def test_every_word_of_the_question_is_named_once_in_order(lab_model):
    problems = fake_engine.problems(3)
    episodes = [episode(p, p.solution, p.answer) for p in problems]
    found = words_of(lab_model, episodes)
    for problem, words in zip(problems, found, strict=True):
        assert [word for word, _ in words] == problem.question.split()
        assert any(score for _, score in words)
    again = words_of(lab_model, episodes[::-1], rows=1, lengths=(128,))[::-1]
    for first, second in zip(found, again, strict=True):
        np.testing.assert_allclose([s for _, s in first], [s for _, s in second], atol=1e-5)


def test_the_answer_is_where_it_last_stands_or_else_the_last_step(lab_model):
    problem = fake_engine.problems(1)[0]
    attempt = 'ben : 3 + 4 = 7 ; ben 7\n #### 7'
    turn = episode(problem, attempt, '7').attempt
    for answer, text in (('7', '7'), ('7.0', '#### 7')):
        sequence = attribution.sequence_of(CHAT, episode(problem, attempt, answer).turns)
        target = sequence.tokens[sequence.weights > 0]
        assert TOKENIZER.decode(target.tolist()).strip() == text
        assert sequence.weights.sum() == pytest.approx(1)
        assert (np.flatnonzero(sequence.weights > 0) >= len(sequence.tokens) - 4).all()
    assert len(sequence.tokens) == len(CHAT.context(
        CHAT.question_turns(problem.question), 'attempt')) + len(turn.tokens)  # fmt: skip


def test_an_attempt_without_an_answer_has_no_words_and_a_long_one_is_an_error(lab_model):
    problem = fake_engine.problems(1)[0]
    assert words_of(lab_model, [episode(problem, 'ben', None)]) == [()]
    with pytest.raises(ValueError, match=r'sampling\.score\.lengths=\(8,\) must end with'):
        words_of(lab_model, [episode(problem, '#### 7', '7')], lengths=(8,))
