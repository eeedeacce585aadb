"""Corrections: the vector lowers its loss, moves one token, and leaves everything else alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.sampling import corrections, episodes
from elenchus.sampling.corrections import Correction, Paused
from elenchus.sampling.engine import engine, sampling_methods, token_rules
from elenchus.sampling.engine.shapes import EngineSettings
from elenchus.sampling.sample_spec import SampleSpec
from tests.support import tiny_model
from tests.support.fake_engine import CHAT, TOKENIZER

CONFIG = dataclasses.replace(
    tiny_model.CONFIG, vocab_size=TOKENIZER.vocab_size, num_layers=1, max_length=128
)
MODEL = tiny_model.make_model(CONFIG)
GREEDY = sampling_methods.Greedy(())
SAMPLING = sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, banned=())
QUESTION = CHAT.question_turns('eve 7 ; ben : eve - 4 ; ben ?')
PROMPT = tuple(CHAT.context(QUESTION, 'attempt'))


def towards(token):
    """A loss that asks for one token."""

    def loss(logits, targets, last):
        return -jax.nn.log_softmax(logits[last])[token]

    return loss


def likelihood(logits, targets, last):
    """A loss of the context alone."""
    logp = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[:, None], axis=1)[:, 0]
    return -jnp.where(jnp.arange(len(targets)) < last, logp, 0.0).sum() / last


def draw(loss, *, steps=3, rate=1.0, method=GREEDY, sequences=None, seed=0):
    sequences = sequences or [Paused(PROMPT, 4, 0)]
    correction = Correction(loss, steps, rate)
    return corrections.draw_again(MODEL, sequences, correction=correction, method=method, seed=seed)


@pytest.mark.slow
def test_the_vector_is_adamw_and_lowers_its_loss():
    tokens = np.array([PROMPT])
    hidden = MODEL(tokens, np.arange(len(PROMPT))[None])[0][0]
    arguments = {'targets': jnp.roll(tokens[0], -1), 'last': len(PROMPT) - 1}

    def value(vector):
        return likelihood(MODEL.logits(hidden + vector), **arguments)

    losses = []
    for steps in (1, 3, 9):
        correction = Correction(likelihood, steps, 0.01)
        vector = corrections.fit_vector(MODEL, hidden, correction, **arguments)
        losses.append(float(value(vector)))
    assert float(value(jnp.zeros(CONFIG.embed_dim))) > losses[0] > losses[1] > losses[2]
    gradient = jax.grad(value)(jnp.zeros(CONFIG.embed_dim))  # AdamW's first step: its sign
    first = corrections.fit_vector(MODEL, hidden, Correction(likelihood, 1, 0.01), **arguments)
    np.testing.assert_allclose(first, -0.01 * gradient / (jnp.abs(gradient) + 1e-5), atol=1e-6)


@pytest.mark.parametrize('other', [5, pytest.param(11, marks=pytest.mark.slow)])
def test_the_drawn_token_is_the_one_that_the_loss_asks_for(other):
    (plain,) = draw(towards(9), rate=1e-9)
    hidden, _ = MODEL(np.array([PROMPT]), np.arange(len(PROMPT))[None])
    assert plain.token == int(MODEL.logits(hidden[0, -1]).argmax())
    token = (plain.token + other) % 40 + 9
    (moved,) = draw(towards(token), steps=50)
    assert moved.token == token != plain.token and len(moved.entropies) == 1
    np.testing.assert_allclose(moved.entropies, plain.entropies, rtol=1e-5)


@pytest.mark.slow
def test_the_entropies_are_the_models_at_each_token_of_the_turn():
    turn = (9, 17, 23)
    sequence = Paused((*PROMPT, *turn), 4, len(turn))
    hidden, _ = MODEL(np.array([sequence.tokens]), np.arange(len(sequence.tokens))[None])
    p = np.asarray(jax.nn.softmax(MODEL.logits(hidden[0])), np.float64)
    expected = -(p * np.log(p)).sum(axis=1)[len(PROMPT) - 1 :]
    (drawn,) = draw(likelihood, sequences=[sequence])
    np.testing.assert_allclose(drawn.entropies, expected, rtol=1e-4)


def test_sequences_do_not_touch_each_other():
    sequences = [Paused(PROMPT[: 4 + i], i, i % 3) for i in range(11)]
    together = draw(likelihood, sequences=sequences, method=SAMPLING)
    alone = [draw(likelihood, sequences=[s], method=SAMPLING)[0] for s in sequences]
    assert [d.token for d in together] == [d.token for d in alone]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a.entropies, b.entropies, rtol=1e-5)


# In a turn


@pytest.fixture(scope='module')
def write():
    """write(after_pause, limit) -> a turn that pauses after every token."""
    shapes = EngineSettings(
        num_slots=2, max_length=64, chunk_steps=4, prompt_buckets=(64,), prefill_batch_sizes=(1,),
        decode_batch_sizes=(), decode_cache_lengths=(),
    )  # fmt: skip
    sampler = episodes.Sampler(engine.Engine(shapes, stop_ids=(CHAT.end_id,)), CHAT, {})
    rule = token_rules.TokenRule(
        lambda token, logits, where: jnp.ones(token.shape, bool), 'sampling.pause', ('attempt',)
    )
    pausing = sampling_methods.with_rules(SAMPLING, None, rule)

    def write(after_pause, *, limit=8, method=pausing):
        limited = dataclasses.replace(
            sampler, max_tokens={'attempt': limit}, after_pause=after_pause
        )
        spec = SampleSpec(1, method, 7, 3)
        ((turn,),) = limited.sample_turns(MODEL, [QUESTION], 'attempt', spec=spec)
        return turn

    return write


def make(function, *, loss=None, steps=3, rate=1e-9):
    """A function of `sampling.after_pause` with a loss."""
    function.loss, function.steps, function.learning_rate = loss or likelihood, steps, rate
    return function


@pytest.mark.slow
def test_a_turn_without_a_correction_is_the_turn_that_never_paused(write):
    whole = write(None, method=SAMPLING)
    for going_on in (lambda t, p: True, make(lambda t, p: True, loss=towards(9), rate=1.0)):
        turn = write(going_on)
        assert turn.tokens == whole.tokens and turn.forced == ()
        np.testing.assert_allclose(turn.logprobs, whole.logprobs, rtol=1e-5)


@pytest.mark.slow
def test_a_vector_of_nothing_draws_the_same_tokens_with_their_own_noise(write):
    whole, again = write(None, method=SAMPLING), write(make(lambda text, pause: None))
    assert again.tokens == whole.tokens and len(whole.tokens) == 8
    assert again.forced == tuple(range(7))  # the last one is at the limit
    assert again.num_sampled == 1 and again.logprobs[:-1] == (0.0,) * 7


@pytest.mark.slow
def test_one_token_is_replaced_and_the_rest_follows_from_it(write):
    seen = []

    def third(text, pause):
        seen.append(pause)
        return None if pause.num_tokens == 3 else True

    whole = write(None, method=SAMPLING)
    token = (whole.tokens[2] + 7) % 30 + 9
    turn = write(make(third, loss=towards(token), steps=60, rate=1.0))
    assert turn.tokens[:2] == whole.tokens[:2] and turn.tokens[2] == token
    np.testing.assert_allclose(turn.logprobs[:2], whole.logprobs[:2], rtol=1e-5)
    assert turn.forced == (2,) and turn.logprobs[2] == 0.0
    assert [len(p.entropies) for p in seen] == [p.num_tokens for p in seen]
    assert [p.redrawn for p in seen] == [int(p.num_tokens > 3) for p in seen]


def test_an_end_token_that_is_drawn_ends_the_turn(write):
    turn = write(make(lambda text, pause: None, loss=towards(CHAT.end_id), steps=80, rate=1.0))
    assert turn.tokens == (CHAT.end_id,) and CHAT.is_finished(turn)


def test_none_without_a_loss_and_bad_numbers_are_errors_of_one_line(write):
    with pytest.raises(ValueError, match=r'sampling\.after_pause.*True to go on'):
        write(lambda text, pause: None)
    for changes, message in (({'steps': 0}, 'steps=0'), ({'rate': 0.0}, 'learning_rate=0.0')):
        with pytest.raises(ValueError, match=rf'sampling\.after_pause: .*{message}') as error:
            Correction.of(make(lambda text, pause: None, **changes))
        assert '\n' not in str(error.value)
    assert Correction.of(None) is None and Correction.of(len) is None
