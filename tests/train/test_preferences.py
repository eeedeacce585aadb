"""Losses of pairs: values and gradients against formulas in float64, and what must not matter."""

import dataclasses

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from ml_collections import ConfigDict

from elenchus.configs import sections
from elenchus.train import objective as objective_lib
from elenchus.train import pairs, preferences
from elenchus.train.config import build
from tests.support import tiny_model

LOSSES = {
    'dpo': preferences.published('dpo', beta=0.3, gamma=0.2),
    'dpo-nll': preferences.published('dpo', beta=0.3, nll_coef=0.5),
    'ipo': preferences.published('ipo', beta=0.7),
    'kto': preferences.published('kto', beta=0.3, desirable=1.5, undesirable=0.5),
    'orpo': preferences.published('orpo', beta=0.4),
    'simpo': preferences.published('simpo'),
}


def case(seed):
    """(batch of pairs of different lengths in five rows, log-probabilities, entropies)."""
    rng = np.random.default_rng(seed)
    examples = tiny_model.random_examples(seed, rng.integers(3, 9, 10))
    examples = [e._replace(weights=np.ones_like(e.weights)) for e in examples]
    pairs_of = list(zip(examples[::2], examples[1::2], strict=True))
    batch = tiny_model.pack_pairs(pairs_of, rows=5, length=18)
    logprobs = -0.2 - rng.random(batch.tokens.shape).astype(np.float32)
    return batch, logprobs, rng.random(batch.tokens.shape).astype(np.float32)


@tiny_model.jit
def compute(batch, logprobs, entropy, totals):
    """Loss -> (its sums, gradient of its value), of one shape: one compilation."""

    def value(logprobs, loss):
        o = objective_lib.of_pairs(loss)
        sums = objective_lib.loss(o, batch, logprobs=logprobs, entropy=entropy, totals=totals)
        return sums.total / jnp.maximum(sums.weight, 1e-8), sums

    results = {}
    for name, loss in LOSSES.items():
        (_, sums), grads = jax.value_and_grad(value, has_aux=True)(logprobs, loss)
        results[name] = sums, grads
    return results


totals_of = tiny_model.jit(preferences.pair_totals)


def results_of(batch, logprobs, entropy, totals=None):
    """Sums and gradients by loss; as a part of a whole, if its totals are given."""
    return compute(batch, logprobs, entropy, totals_of(batch) if totals is None else totals)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(loss, batch, logprobs):
    """The mean loss of a pair, written from the table, in float64."""
    losses, chosen_logprobs, logprobs = [], [], np.float64(logprobs)
    for row in range(len(batch.tokens)):
        for first in range(1, batch.segments[row].max(), 2):
            sides = [
                (batch.segments[row] == first + k) & (batch.loss_mask[row] > 0) for k in (0, 1)
            ]
            ref = batch.ref_logprobs[row] if loss.kind in ('dpo', 'ipo', 'kto') else 0.0
            gaps = logprobs[row] - ref
            total = [gaps[side].sum() for side in sides]
            mean = [gaps[side].mean() for side in sides]
            chosen_logprobs += logprobs[row, sides[0]].tolist()
            losses.append(pair_loss(loss, total, mean))
    return np.mean(losses) - loss.nll_coef * np.mean(chosen_logprobs)


def pair_loss(loss, total, mean):
    if loss.kind == 'dpo':
        return -np.log(sigmoid(loss.beta * (total[0] - total[1]) - loss.gamma))
    if loss.kind == 'simpo':
        return -np.log(sigmoid(loss.beta * (mean[0] - mean[1]) - loss.gamma))
    if loss.kind == 'ipo':
        return (mean[0] - mean[1] - 1 / (2 * loss.beta)) ** 2
    if loss.kind == 'kto':
        desirable = loss.desirable * (1 - sigmoid(loss.beta * total[0]))
        return 0.5 * (desirable + loss.undesirable * (1 - sigmoid(-loss.beta * total[1])))
    odds = [np.exp(x) / (1 - np.exp(x)) for x in mean]
    return -loss.beta * np.log(sigmoid(np.log(odds[0] / odds[1])))


def test_losses_and_gradients_are_those_of_the_formulas():
    batch, logprobs, entropy = case(3)
    results = results_of(batch, logprobs, entropy)
    places = list(zip(*np.nonzero(batch.segments), strict=True))
    for name, loss in LOSSES.items():
        sums, grads = results[name]
        assert sums.weight == pytest.approx(5)
        value = float(sums.total / sums.weight)
        assert value == pytest.approx(reference(loss, batch, logprobs), rel=1e-5), name
        for place in places[::7]:
            ends = []
            for step in (1e-5, -1e-5):
                moved = np.float64(logprobs)
                moved[place] += step
                ends.append(reference(loss, batch, moved))
            slope = (ends[0] - ends[1]) / 2e-5
            assert grads[place] == pytest.approx(slope, rel=1e-4, abs=1e-6), (name, place)


def rows_of(case, first):
    """Every second row of a case; the others are empty."""
    kept = np.arange(5) % 2 == first
    return jax.tree.map(lambda x: x * kept[:, None].astype(x.dtype), case)


@hypothesis.settings(max_examples=10)
@hypothesis.given(st.integers(0, 1000))
def test_no_split_of_a_batch_changes_a_loss_or_a_metric(seed):
    whole = case(seed)
    totals, expected = totals_of(whole[0]), results_of(*whole)
    parts = [results_of(*rows_of(whole, first), totals) for first in (0, 1)]
    for name, (sums, _) in expected.items():
        first, second = (part[name][0] for part in parts)
        for total in ('total', 'weight', 'tokens'):
            added = float(getattr(first, total) + getattr(second, total))
            assert added == pytest.approx(float(getattr(sums, total)), rel=1e-5, abs=1e-5)
        for metric in ('loss/margin', 'loss/preferred', 'reward/chosen', 'loss/rejected'):
            added = float(first.metrics[metric] + second.metrics[metric])
            assert added == pytest.approx(float(sums.metrics[metric]), rel=1e-4, abs=1e-4)


def test_metrics_are_means_over_pairs():
    batch, logprobs, entropy = case(5)
    sums, _ = results_of(batch, logprobs, entropy)['dpo']
    means = {name: float(x / sums.tokens) for name, x in sums.metrics.items()}
    sides = np.zeros((2, 5))
    number = 0
    for row in range(len(batch.tokens)):
        for first in range(1, batch.segments[row].max(), 2):
            for k in (0, 1):
                is_side = (batch.segments[row] == first + k) & (batch.loss_mask[row] > 0)
                sides[k, number] = (logprobs[row] - batch.ref_logprobs[row])[is_side].sum()
            number += 1
    assert means['loss/margin'] == pytest.approx(0.3 * (sides[0] - sides[1]).mean() - 0.2, rel=1e-4)
    assert means['loss/preferred'] == pytest.approx((sides[0] > sides[1]).mean(), rel=1e-5)
    assert means['reward/rejected'] == pytest.approx(0.3 * sides[1].mean(), rel=1e-4)


def test_only_dpo_ipo_and_kto_read_a_reference():
    batch, logprobs, entropy = case(6)
    other = batch._replace(ref_logprobs=batch.ref_logprobs - 1.7 * (np.arange(18) % 3))
    before, after = (results_of(b, logprobs, entropy) for b in (batch, other))
    for name, loss in LOSSES.items():
        is_same = float(before[name][0].total) == float(after[name][0].total)
        assert is_same != loss.reads_reference
        assert objective_lib.of_pairs(loss).reads_reference == loss.reads_reference


def test_a_sequence_without_its_pair_and_certain_tokens_stay_finite():
    batch, logprobs, entropy = case(7)
    alone = batch._replace(loss_mask=batch.loss_mask * (batch.segments != 2))
    for changed, values in ((alone, logprobs), (batch, np.zeros_like(logprobs))):
        results = results_of(changed, values, entropy)
        for name, (sums, grads) in results.items():
            assert np.isfinite(sums.total) and np.isfinite(grads).all(), name
            assert changed is batch or not np.asarray(grads)[alone.segments == 1].any(), name


@pytest.mark.parametrize('kind', ['dpo', 'ipo'])
def test_an_offset_is_what_the_margin_must_exceed(kind):
    """Step-APO: - log sigmoid(beta D + alpha (q_rejected - q_chosen))."""
    loss = preferences.published(kind, beta=0.3)
    examples = tiny_model.random_examples(2, (6, 8))
    examples = [e._replace(weights=np.ones_like(e.weights)) for e in examples]
    plain = pairs.PairedExamples(*examples)
    shifted = pairs.with_offset(plain, 0.9, loss)
    margins = []
    for pair in (plain, shifted):
        values = [np.linspace(-3, -1, len(e.tokens)) for e in pair[:2]]
        scores = [pairs.log_ratio(e, v) for e, v in zip(pair[:2], values, strict=True)]
        if loss.is_mean:
            scores = [s / e.loss_mask.sum() for s, e in zip(scores, pair[:2], strict=True)]
        margins.append(loss.beta * (scores[0] - scores[1]))
    assert margins[0] - margins[1] == pytest.approx(0.9, rel=1e-4)
    assert np.array_equal(shifted.rejected.ref_logprobs, plain.rejected.ref_logprobs)


def resolved(**fields):
    section = ConfigDict(sections.loss() | fields)
    return build.build(preferences.PairLossSettings, section, 'config.prefer.loss').resolve()


def test_a_kind_alone_has_the_published_constants():
    expected = {
        'dpo': (0.1, 0.0, 0.0),
        'ipo': (0.1, 0.0, 0.0),
        'kto': (0.1, 0.0, 0.0),
        'orpo': (0.1, 0.0, 1.0),
        'simpo': (2.0, 1.0, 0.0),
    }
    for kind, constants in expected.items():
        loss = resolved(kind=kind)
        assert (loss.beta, loss.gamma, loss.nll_coef) == constants
        assert (loss.desirable, loss.undesirable) == (1.0, 1.0)
    assert resolved(kind='dpo', beta=0.5, nll_coef=1.0) == dataclasses.replace(
        resolved(kind='dpo'), beta=0.5, nll_coef=1.0
    )


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        ({'kind': 'dpp'}, "config.prefer.loss.kind='dpp' must be one of"),
        ({'kind': 'kto', 'gamma': 0.5}, 'prefer.loss.gamma=0.5 is read by kind='),
        ({'kind': 'simpo', 'undesirable': 0.5}, 'prefer.loss.undesirable=0.5 is read by kind='),
        ({'beta': 0.0}, 'prefer.loss.beta=0.0 must be at least 1e-06'),
        ({'nll_coef': -1.0}, 'prefer.loss.nll_coef=-1.0 must be at least 0.0'),
    ],
)
def test_constants_that_a_loss_does_not_read_are_refused_by_name(fields, words):
    with pytest.raises(ValueError) as error:
        resolved(**fields)
    assert words in str(error.value) and '\n' not in str(error.value)
