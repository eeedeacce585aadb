"""The train step: microbatches, packing, padding, donation, and training that works."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elenchus.data.batching import packing
from elenchus.data.text import chat as chat_lib
from elenchus.data.text import tokenizer
from elenchus.train import state as state_lib
from elenchus.train import step as step_lib
from tests.support import tiny_model

OPTIMIZER = optax.adam(0.03)
GRPO = dataclasses.replace(
    tiny_model.SFT, surrogate='clip', clip_low=0.2, clip_high=0.2, average='sequence'
)


@pytest.fixture(scope='module')
def model():
    return tiny_model.make_model(tiny_model.FLAT)


def first_state():
    return state_lib.init_state(tiny_model.make_model(tiny_model.FLAT), OPTIMIZER)


logprobs_of = functools.partial(tiny_model.jit, static_argnums=2)(step_lib.batch_logprobs)


@functools.cache
def make_step(objective):
    return step_lib.make_train_step(
        objective=objective,
        optimizer=OPTIMIZER,
        transform=tiny_model.untouched,
        num_microbatches=1,
        skip_nonfinite=False,
    )


@functools.cache
def compiled_step(objective):
    shapes = jax.eval_shape(first_state)
    return make_step(objective).lower(shapes, tiny_model.random_batch(0)).compile(tiny_model.QUICK)


def take_steps(objective, batch, *, count):
    """(state, [metrics of each step])."""
    state, history = first_state(), []
    for _ in range(count):
        state, metrics = compiled_step(objective)(state, batch)
        history.append({name: float(value) for name, value in metrics.items()})
    return state, history


# One loss for every split


@pytest.fixture(scope='module')
def whole(model):
    """The batch, and its loss, gradients and metrics in one microbatch."""
    batch = tiny_model.random_batch(1, rows=8)
    return batch, tiny_model.loss_and_grads(model, batch, objective=tiny_model.GSPO)


@pytest.mark.parametrize('num_microbatches', [8])
def test_the_number_of_microbatches_changes_nothing(model, whole, num_microbatches):
    """Rows hold unequal numbers of sequences and tokens, so a mean of means would show."""
    batch, expected = whole
    assert len(set(batch.loss_mask.sum(axis=1))) > 1 and len(set(batch.segments.max(axis=1))) > 1
    actual = tiny_model.loss_and_grads(
        model, batch, objective=tiny_model.GSPO, num_microbatches=num_microbatches
    )
    assert float(actual[0]) == pytest.approx(float(expected[0]), rel=1e-6)
    tiny_model.assert_trees_close(actual, expected, relative=2e-6)  # gradients round more


def test_packing_padding_and_the_order_of_rows_change_nothing(model):
    examples = tiny_model.random_examples(2, (9, 5, 7, 3, 6, 4, 8, 5))
    examples[1].loss_mask[0] = 1  # a first token, which nothing predicts, not even a neighbour
    backwards = examples[::-1]
    batches = [
        packing.pad(examples, length=16),
        packing.pack(examples, rows=8, length=16),
        packing.pack(backwards, rows=8, length=16),
        packing.pack(examples, rows=8, length=16, decreasing=True),
    ]
    order = np.random.default_rng(2).permutation(8)
    batches.append(type(batches[1])(*(x[order] for x in batches[1])))
    expected, *others = (
        tiny_model.loss_and_grads(model, b, objective=tiny_model.GSPO) for b in batches
    )
    for other in others:
        tiny_model.assert_trees_close(other, expected, relative=1e-6)


def test_values_in_padding_change_no_bit(model, whole):
    batch, expected = whole
    changed = tiny_model.with_padding(batch, np.random.default_rng(3))
    actual = tiny_model.loss_and_grads(model, changed, objective=tiny_model.GSPO)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_rows_that_the_microbatches_do_not_divide_are_refused(model):
    with pytest.raises(ValueError, match='num_microbatches=3 does not divide 8 rows'):
        tiny_model.loss_and_grads(
            model, tiny_model.random_batch(1), objective=tiny_model.GSPO, num_microbatches=3
        )


# Tokens without gradient


def test_a_batch_that_trains_nothing_has_zero_gradients_and_no_nan(model, whole):
    batch = whole[0]._replace(loss_mask=np.zeros_like(whole[0].loss_mask))
    value, grads, metrics = tiny_model.loss_and_grads(model, batch, objective=tiny_model.GSPO)
    assert value == 0 and metrics['loss/tokens'] == 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads))
    assert all(np.isfinite(metric) for metric in metrics.values())


def keep_top_three(logits):
    return jnp.where(logits >= jax.lax.top_k(logits, 3)[0][..., -1:], logits, -jnp.inf)


def test_tokens_truncated_away_before_the_response_leave_the_loss_finite(model):
    """Under top-k the prompt's own tokens have a log-probability of minus infinity."""
    batch = tiny_model.random_batch(4, rows=8)
    logprobs, _ = logprobs_of(model, batch, keep_top_three)
    likely = np.isfinite(logprobs) & (batch.loss_mask > 0)
    assert likely.any() and np.isneginf(logprobs).any()
    batch = batch._replace(loss_mask=likely.astype(np.float32))
    results = tiny_model.loss_and_grads(
        model, batch, objective=tiny_model.GSPO, transform=keep_top_three
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(results))


# The step


def test_supervised_training_overfits_a_batch():
    _, history = take_steps(
        tiny_model.SFT, tiny_model.random_batch(5)._replace(weights=ones()), count=150
    )
    losses = [metrics['loss/total'] for metrics in history]
    assert losses[0] > 3 and losses[-1] < 0.1
    assert losses[-1] == pytest.approx(history[-1]['loss/nll'], rel=1e-5)


def ones():
    return np.ones((8, 16), np.float32)


def test_self_training_weights_are_data_and_select_the_sequences_to_learn():
    """Sequences of weight 0 are not learnt, by the same compiled step as in supervised training."""
    batch = tiny_model.random_batch(6)
    kept = (np.arange(8) < 4).astype(np.float32)[:, None] * ones()
    state, history = take_steps(tiny_model.SFT, batch._replace(weights=kept), count=100)
    logprobs, _ = logprobs_of(state.model, batch, tiny_model.untouched)
    trained = batch.loss_mask > 0
    assert np.mean(logprobs[trained & (kept > 0)]) > -0.2
    assert np.mean(logprobs[trained & (kept == 0)]) < -3
    assert history[0]['loss/weight'] == pytest.approx(kept[trained].mean(), rel=1e-5)


def test_reinforcement_raises_good_and_lowers_bad_sequences():
    batch = tiny_model.random_batch(7)
    good = (np.arange(8) % 2 == 0)[:, None] & (ones() > 0)
    batch = batch._replace(weights=np.where(good, 1, -1).astype(np.float32))
    means = []
    for count in (0, 3):
        state, history = take_steps(GRPO, batch, count=count)
        logprobs, _ = logprobs_of(state.model, batch, tiny_model.untouched)
        trained = batch.loss_mask > 0
        means.append((np.mean(logprobs[trained & good]), np.mean(logprobs[trained & ~good])))
    assert means[1][0] > means[0][0] + 0.1 and means[1][1] < means[0][1] - 0.1
    assert history[0]['loss/ratio'] == pytest.approx(1, abs=1e-6)


def test_metrics_are_finite_scalars_and_the_step_counts():
    state, history = take_steps(tiny_model.SFT, tiny_model.random_batch(8), count=2)
    assert state.step == 2
    assert {'loss/total', 'loss/nll', 'loss/tokens', 'grads/norm', 'params/norm'} <= set(history[0])
    assert np.isfinite([value for metrics in history for value in metrics.values()]).all()
    assert history[0]['loss/tokens'] == tiny_model.random_batch(8).loss_mask.sum()
    squares = [
        np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tiny_model.make_model(tiny_model.FLAT))
    ]
    assert history[0]['params/norm'] == pytest.approx(sum(squares) ** 0.5, rel=0.1)


def test_the_state_is_donated_and_the_batch_is_not():
    state = first_state()
    batch = jax.device_put(tiny_model.random_batch(9))
    after, _ = compiled_step(tiny_model.SFT)(state, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.model, state.opt_state)))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((after, batch)))


def test_a_step_leaves_structure_shapes_and_types_as_they_were():
    """The next step then runs the same compiled program, and a checkpoint fits."""
    state = jax.eval_shape(first_state)
    after, _ = jax.eval_shape(make_step(tiny_model.SFT), state, tiny_model.random_batch(0))
    assert jax.tree.structure(state) == jax.tree.structure(after)
    for before, now in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (before.shape, before.dtype) == (now.shape, now.dtype)
        assert before.weak_type == now.weak_type


def test_every_finished_turn_trains_its_end_token_exactly_once():
    """Padding differs from the end token, and the batch has one end token per turn."""
    lab = tokenizer.lab_tokenizer()
    assert lab.pad_id != lab.eos_id
    chat = chat_lib.Chat(lab)
    question = chat.question_turns('eve 7 ; ben : eve - 4 ; ben ?')
    attempt = chat.text_turn('attempt', 'ben : eve - 4 ; ben 3\n #### 3')
    critique = chat.text_turn('critique', 'ben : eve - 4 ; 7 - 4 = 3 ; correct')
    refinement = chat.text_turn('refinement', 'ben : eve - 4 ; ben 3\n #### 3')
    example = functools.partial(chat.example, weights=None, last_only=False)
    examples = [
        example((*question, attempt), trained=('attempt',)),
        example((*question, attempt, critique), trained=('critique',)),
        example((*question, attempt, critique, refinement), trained=('attempt', 'refinement')),
    ]
    batch = packing.pack(examples, rows=2, length=128)
    ends = (batch.tokens == lab.eos_id) & (batch.loss_mask > 0)
    turns = zip(*(x[ends].tolist() for x in (batch.roles, batch.turns)), strict=True)
    assert sorted(turns) == [(3, 2), (3, 2), (4, 3), (5, 4)]
    assert (batch.roles[ends] > 0).all() and ends.sum() == 4
    for row, place in zip(*np.nonzero(ends), strict=True):
        following = place + 1
        is_last = following == 128 or batch.turns[row, following] != batch.turns[row, place]
        assert is_last and batch.loss_mask[row, place - 1] == 1
