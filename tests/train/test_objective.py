"""Every method against a plain float64 reference, written from the table in docs/methods.md."""

import dataclasses
import doctest
import functools

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st
from ml_collections import ConfigDict

from elenchus.configs import sections
from elenchus.data.batching import packing
from elenchus.model import sharding
from elenchus.train import objective as objective_lib
from elenchus.train import preferences
from elenchus.train.config import build
from tests.support import objective_reference, tiny_model

clipped = functools.partial(dataclasses.replace, tiny_model.SFT, surrogate='clip', on_policy=False)
GRPO = clipped(clip_low=0.2, clip_high=0.2, average='sequence')
METHODS = {
    'sft': tiny_model.SFT,
    'rloo': dataclasses.replace(tiny_model.SFT, average='constant'),
    'grpo': GRPO,
    'grpo-k2': dataclasses.replace(GRPO, kl='k2', kl_coef=0.3),
    'grpo-k3': dataclasses.replace(GRPO, kl='k3', kl_coef=0.3),
    'dr-grpo': dataclasses.replace(GRPO, average='constant', constant_length=20),
    'dapo': clipped(clip_low=0.2, clip_high=0.28, average='token'),
    'gspo': clipped(clip_low=0.05, clip_high=0.08, average='sequence', ratio='sequence'),
    'cispo': clipped(surrogate='cispo', clip_low=0.2, clip_high=0.28),
    'rloo-product': clipped(clip_low=0.2, clip_high=0.2, average='sequence', ratio='product'),
    'score': dataclasses.replace(GRPO, kl='k3', attempt_kl_coef=0.3),
    'entropy': dataclasses.replace(tiny_model.SFT, entropy_coef=0.2),
}


def make_case(seed, *, rows=3, length=24):
    """(batch, logprobs, entropy); one sequence of the batch has no trained token."""
    examples = tiny_model.random_examples(seed, (9, 5, 12, 3, 7, 6, 4))
    examples[3].loss_mask[:] = 0
    batch = packing.pack(examples, rows=rows, length=length)
    rng = np.random.default_rng(seed)
    logprobs = batch.old_logprobs + rng.normal(0, 0.5, batch.tokens.shape).astype(np.float32)
    entropy = rng.random(batch.tokens.shape).astype(np.float32)
    return batch, logprobs, entropy


@functools.partial(tiny_model.jit, static_argnames='objective')
def loss_and_grads(objective, batch, logprobs, entropy):
    """(loss, weight, metric sums) and the gradient with respect to the log-probabilities."""

    def loss(logprobs):
        sums = objective_lib.loss(objective, batch, logprobs=logprobs, entropy=entropy)
        return sums.total / sums.weight, (sums.weight, sums.metrics)

    (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(logprobs)
    return value, *aux, grads


@pytest.mark.parametrize('method', METHODS)
def test_loss_and_gradient_are_those_of_the_plain_reference(method):
    for seed in range(3):
        case = make_case(seed)
        value, _, _, grads = loss_and_grads(METHODS[method], *case)
        frozen = [s for s, _ in objective_reference.sequences_of(*case)]
        np.testing.assert_allclose(
            value, objective_reference.reference(method, frozen, frozen), rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(
            grads, objective_reference.reference_grads(method, *case), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize('method', ['grpo', 'dapo', 'gspo', 'cispo'])
def test_the_cases_above_are_clipped_on_both_sides(method):
    _, _, metrics, _ = loss_and_grads(METHODS[method], *make_case(0))
    assert metrics['loss/clipped_low'] >= 2 and metrics['loss/clipped_high'] >= 2


@pytest.mark.parametrize('method', ['grpo', 'gspo', 'cispo'])
def test_on_policy_data_has_ratio_one_and_the_exact_policy_gradient(method):
    """The batch's old_logprobs are not read."""
    objective = dataclasses.replace(METHODS[method], on_policy=True, average='token')
    batch, logprobs, entropy = make_case(1)
    # GSPO has one advantage per sequence; with one, every method is the policy gradient.
    batch = batch._replace(weights=np.where(batch.segments == 1, 1.5, -0.5).astype(np.float32))
    value, weight, metrics, grads = loss_and_grads(objective, batch, logprobs, entropy)
    expected = -batch.weights * batch.loss_mask / batch.loss_mask.sum()
    np.testing.assert_allclose(grads, expected, rtol=1e-6)
    np.testing.assert_allclose(metrics['loss/ratio'], weight, rtol=1e-6)
    changed = batch._replace(old_logprobs=batch.old_logprobs - 7)
    assert loss_and_grads(objective, changed, logprobs, entropy)[0] == value


@pytest.mark.parametrize('kl', ['k2', 'k3'])
def test_the_kl_pulls_every_token_towards_the_reference(kl):
    objective = dataclasses.replace(tiny_model.SFT, kl=kl, kl_coef=1.0)
    batch, logprobs, entropy = make_case(2)
    batch = batch._replace(weights=np.zeros_like(batch.weights))
    off = logprobs - batch.ref_logprobs
    value, _, metrics, grads = loss_and_grads(objective, batch, logprobs, entropy)
    trained = batch.loss_mask > 0
    assert value > 0 and metrics['loss/kl'] > 0
    assert (np.sign(grads) == np.sign(off))[trained].all()  # descent lowers values above
    at, _, _, still = loss_and_grads(objective, batch, batch.ref_logprobs, entropy)
    assert at == 0 and not np.any(still)


def test_the_entropy_bonus_descends_towards_more_entropy():
    objective = dataclasses.replace(tiny_model.SFT, entropy_coef=0.5)
    batch, logprobs, entropy = make_case(3)

    def loss(entropy):
        sums = objective_lib.loss(objective, batch, logprobs=logprobs, entropy=entropy)
        return sums.total / sums.weight

    grads = tiny_model.jit(jax.grad(loss))(entropy)
    np.testing.assert_allclose(grads, -0.5 * batch.loss_mask / batch.loss_mask.sum(), rtol=1e-6)


@pytest.mark.parametrize('method', METHODS)
def test_values_at_untrained_tokens_change_nothing(method):
    """For example a truncated prompt token has a log-probability of -inf."""
    batch, logprobs, entropy = make_case(4)
    rng = np.random.default_rng(4)
    unread = batch.loss_mask == 0

    def scrambled(values):
        noise = rng.choice(np.float32([np.nan, np.inf, -np.inf, 1e30]), values.shape)
        return np.where(unread, noise, values)

    names = ('weights', 'old_logprobs', 'ref_logprobs')
    changed = batch._replace(**{name: scrambled(getattr(batch, name)) for name in names})
    before = loss_and_grads(METHODS[method], batch, logprobs, entropy)
    after = loss_and_grads(METHODS[method], changed, scrambled(logprobs), scrambled(entropy))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert np.isfinite(before[0]) and not before[-1][unread].any()


@functools.partial(tiny_model.jit, static_argnums=0)
def loss_sums(objective, batch, logprobs, entropy):
    return objective_lib.loss(objective, batch, logprobs=logprobs, entropy=entropy)


@hypothesis.settings(max_examples=5)
@hypothesis.given(st.randoms(use_true_random=False))
@pytest.mark.parametrize('method', ['dapo', 'dr-grpo', 'gspo'])
def test_sums_and_weights_add_up_over_any_split_packing_and_order(method, random):
    """One batch of all sequences against one sequence a batch, in any order."""
    batch, logprobs, entropy = make_case(5)
    together = loss_sums(METHODS[method], batch, logprobs, entropy)
    alone = [
        (row, batch.segments[row] == segment)
        for row in range(len(batch.tokens))
        for segment in range(1, batch.segments[row].max() + 1)
    ]
    random.shuffle(alone)
    parts = []
    for row, own in alone:

        def cut(values, row=row, own=own):
            return np.pad(values[row, own], (0, 24 - own.sum()))[None]

        one = type(batch)(*map(cut, batch))
        one = one._replace(segments=(one.segments > 0).astype(np.int32))
        parts.append(loss_sums(METHODS[method], one, cut(logprobs), cut(entropy)))
    added = jax.tree.map(lambda *xs: np.sum(np.asarray(xs, np.float64)), *parts)
    largest = jax.tree.map(lambda *xs: np.max(xs), *(part.maxima for part in parts))
    added = added._replace(maxima=largest)
    for got, want in zip(jax.tree.leaves(added), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-6)


DPO = objective_lib.of_pairs(preferences.published('dpo', beta=0.3))
SPLIT = {name: METHODS[name] for name in ('grpo-k3', 'dapo', 'gspo', 'rloo-product')} | {'dpo': DPO}


def eight_rows(seed, *, paired_only):
    """Eight rows of sequences of any length, or of pairs only."""
    rng = np.random.default_rng(seed)
    examples = tiny_model.random_examples(seed, rng.integers(3, 8, 60))
    pairs = list(zip(examples[::2], examples[1::2], strict=True))
    batch = tiny_model.pack_pairs(pairs, rows=None, length=16) if paired_only else (
        packing.pack(examples, rows=None, length=16)
    )  # fmt: skip
    batch = type(batch)(*(x[:8] for x in batch))
    logprobs = batch.old_logprobs + rng.normal(0, 0.3, batch.tokens.shape).astype(np.float32)
    return batch, logprobs, rng.random(batch.tokens.shape).astype(np.float32)


@hypothesis.settings(max_examples=5)
@hypothesis.given(st.integers(0, 1000))
@pytest.mark.parametrize('method', SPLIT)
def test_one_two_four_or_eight_microbatches_have_the_same_loss(method, seed):
    """Also if the rows are on eight devices."""
    case = eight_rows(seed, paired_only=method == 'dpo')
    whole = loss_sums(SPLIT[method], *case)
    expected = whole.total / whole.weight
    for count in (2, 4, 8):
        parts = [
            loss_sums(SPLIT[method], *jax.tree.map(lambda x, i=i, n=count: x[i::n], case))
            for i in range(count)
        ]
        total, weight = (sum(float(getattr(p, n)) for p in parts) for n in ('total', 'weight'))
        np.testing.assert_allclose(total / weight, expected, rtol=1e-6, atol=1e-6)
    place = tiny_model.batch_sharding(sharding.make_mesh((8, 1, 1)))
    spread = loss_sums(SPLIT[method], *jax.device_put(case, place))
    np.testing.assert_allclose(spread.total / spread.weight, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('method', ['sft', 'grpo', 'gspo', 'cispo', 'dr-grpo'])
def test_rows_of_weight_zero_have_the_gradient_of_untrained_rows(method):
    """The gradients are equal once each is multiplied by its divisor."""
    batch, logprobs, entropy = make_case(6)
    kept = np.array([1, 0, 1], np.float32)[:, None]
    pulls = []
    for name in ('weights', 'loss_mask'):
        changed = batch._replace(**{name: getattr(batch, name) * kept})
        _, weight, _, grads = loss_and_grads(METHODS[method], changed, logprobs, entropy)
        pulls.append(np.asarray(grads) * float(weight))
    np.testing.assert_allclose(*pulls, rtol=1e-6)
    assert pulls[0][0].any() and not pulls[0][1].any()


# Pairs


def paired(seed):
    """(batch, logprobs, entropy) of rows with two pairs, one, and a sequence without its pair."""
    batch, logprobs, entropy = make_case(seed)
    lengths = [[3, 4, 5, 2], [6, 7], [8]]
    segments = np.zeros_like(batch.segments)
    for row, sizes in enumerate(lengths):
        segments[row, : sum(sizes)] = np.repeat(np.arange(len(sizes)) + 1, sizes)
    mask = np.where(segments > 0, 1, 0).astype(np.float32)
    mask[:, 0] = 0
    return batch._replace(segments=segments, loss_mask=mask), logprobs, entropy


def dpo_reference(batch, logprobs):
    """(mean over pairs of -log sigmoid(margin), its gradient), in float64."""
    losses, grads = [], np.zeros(logprobs.shape)
    for row in range(len(batch.segments)):
        for first in range(1, batch.segments[row].max(), 2):
            sides = [
                (batch.segments[row] == first + k) & (batch.loss_mask[row] > 0) for k in (0, 1)
            ]
            distance = (np.float64(logprobs[row]) - batch.ref_logprobs[row]) * batch.weights[row]
            margin = 0.3 * (distance[sides[0]].sum() - distance[sides[1]].sum())
            losses.append(np.log1p(np.exp(-margin)))
            pull = 0.3 / (1 + np.exp(margin)) * batch.weights[row]
            grads[row] += pull * sides[1] - pull * sides[0]
    return np.mean(losses), grads / len(losses)


def test_dpo_is_a_weight_on_the_log_likelihood_of_each_side():
    for seed in range(3):
        batch, logprobs, entropy = paired(seed)
        value, weight, metrics, grads = loss_and_grads(DPO, batch, logprobs, entropy)
        expected, slopes = dpo_reference(batch, logprobs)
        assert weight == pytest.approx(3)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        np.testing.assert_allclose(grads, slopes, rtol=1e-5, atol=1e-6)
        assert not grads[2].any() and np.isfinite(metrics['loss/margin'])


def test_step_dpo_trains_only_the_tokens_of_the_two_steps():
    """arXiv 2406.18629: the common beginning of the responses is context."""
    batch, logprobs, entropy = paired(4)
    shared = (np.arange(24) % 4 == 1) & (batch.segments < 3)
    batch = batch._replace(loss_mask=np.where(shared, 0, batch.loss_mask))
    value, _, _, grads = loss_and_grads(DPO, batch, logprobs, entropy)
    expected, slopes = dpo_reference(batch, logprobs)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(grads, slopes, rtol=1e-5, atol=1e-6)
    assert not grads[shared].any()


def resolved(**fields):
    """The objective of a config's section with these fields set."""
    return build.build(
        objective_lib.ObjectiveSettings, ConfigDict(sections.objective() | fields)
    ).resolve()


def test_a_preset_in_a_config_is_that_objective():
    for name, preset in objective_lib.PRESETS.items():
        assert resolved(preset=name) == preset, name
    assert resolved(preset='dr_grpo', constant_length=76) == objective_lib.dr_grpo(76)


def test_fields_beside_a_preset_override_it():
    changed = resolved(preset='dapo', clip_high=0.4, kl='k3', kl_coef=0.01)
    assert changed == dataclasses.replace(objective_lib.DAPO, clip_high=0.4, kl='k3', kl_coef=0.01)
    with pytest.raises(ValueError, match=r'objective\.constant_length'):
        resolved(preset='dr_grpo')


def test_sequence_sum_adds_within_a_sequence_and_is_zero_on_padding():
    segments = np.array([[1, 1, 2, 2, 2, 0], [1, 2, 3, 3, 0, 0]])
    values = np.arange(1.0, 13.0, dtype=np.float32).reshape(2, 6)
    expected = [[3, 3, 12, 12, 12, 0], [7, 8, 19, 19, 0, 0]]
    actual = tiny_model.jit(objective_lib.sequence_sum)(values, segments)
    np.testing.assert_array_equal(actual, expected)


def test_contradictory_settings_are_refused_by_name():
    with pytest.raises(ValueError, match=r'constant_length'):
        dataclasses.replace(tiny_model.SFT, average='constant', constant_length=0)
    with pytest.raises(ValueError, match=r"kl='k3'.*kl_coef=0"):
        dataclasses.replace(tiny_model.SFT, kl='k3')
    with pytest.raises(ValueError, match=r"kl='none'.*kl_coef=0\.1"):
        dataclasses.replace(tiny_model.SFT, kl_coef=0.1)
    with pytest.raises(ValueError, match=r"attempt_kl_coef is part of the loss: use kl='k2'"):
        dataclasses.replace(tiny_model.SFT, kl='k1', attempt_kl_coef=0.1)
    for changes in ({'surrogate': 'pair'}, {'average': 'pair'}, {'pairs': DPO.pairs}):
        with pytest.raises(ValueError, match='and a loss of pairs go together'):
            dataclasses.replace(tiny_model.SFT, **changes)


def test_k1_is_measured_but_is_not_part_of_the_loss():
    batch, logprobs, entropy = make_case(7)
    objective = dataclasses.replace(GRPO, kl='k1', kl_coef=0.5)
    value, _, metrics, grads = loss_and_grads(objective, batch, logprobs, entropy)
    plain, _, _, slopes = loss_and_grads(GRPO, batch, logprobs, entropy)
    assert value == plain and metrics['loss/kl'] != 0
    np.testing.assert_array_equal(grads, slopes)


def test_the_examples_of_the_docstrings_run():
    assert doctest.testmod(objective_lib) == doctest.TestResults(failed=0, attempted=3)
