"""SRGen: the published threshold and loss, worked; where the host looks; and at most 20 tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import srgen
from elenchus.data.text import tokenizer
from elenchus.sampling.corrections import Correction
from elenchus.sampling.engine import token_rules
from elenchus.sampling.paused_turns import AFTER_PAUSES, FIELD, Pause


def redraws(entropies, *, redrawn=0, function=srgen.reflect):
    pause = Pause('attempt', len(entropies), (), tuple(entropies), redrawn)
    return function('', pause) is None


def test_the_threshold_is_the_authors():
    assert not redraws([0.1] * 24 + [2.9]) and redraws([0.1] * 24 + [3.1])  # fixed: 3.0
    assert not redraws([0.1] * 25 + [2.0]) and redraws([0.1] * 25 + [2.2])  # 0.1 + 4 * 0.5
    pause = Pause('attempt', 26, (), (0.0,) * 25 + (2.2,))
    assert srgen.reflect('', pause) is None and srgen.reflect('', pause, least=2.5) is True
    recent = [0.0, 2.0] * 12 + [0.0]
    limit = np.mean(recent) + 4 * np.std(recent, ddof=1)
    assert limit > 4 and redraws([9.0, *recent, limit + 0.01])  # the first is out of the window
    assert not redraws([9.0, *recent, limit - 0.01])


def test_at_most_twenty_tokens_are_drawn_again():
    assert redraws([5.0], redrawn=19) and not redraws([5.0], redrawn=20)


def test_the_lab_has_its_own_numbers():
    assert redraws([0.0, 0.4], function=srgen.lab_reflect) and not redraws([0.0, 0.4])
    assert not redraws([0.0] * 8 + [0.45], function=srgen.lab_reflect)  # 0 + 1 * 0.5


@pytest.mark.slow
def test_the_loss_weighs_context_and_the_next_token():
    p = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.3, 0.5]])
    targets = jnp.array([0, 1, 2])
    expected = 0.95 * -(np.log(0.5) + np.log(0.8)) / 2
    expected += 0.05 * -(p[2] * np.log(p[2])).sum()
    assert srgen.loss(jnp.log(p), targets, 2) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@given(
    st.sampled_from((2, 5, 9)).flatmap(
        lambda n: st.lists(st.floats(-20, 20), min_size=n, max_size=n)  # each length compiles
    ),
    st.floats(-50, 50),
)
def test_entropy_is_between_0_and_log_v_and_shifts_do_not_matter(logits, shift):
    values = jnp.array([logits, [x + shift for x in logits]])
    found = np.asarray(srgen.entropy(values))
    assert -1e-6 <= found[0] <= np.log(len(logits)) + 1e-5
    assert found[1] == pytest.approx(found[0], abs=2e-3)


@pytest.mark.slow
def test_the_device_looks_wherever_the_host_may_draw_again():
    sharp, flat = jnp.array([9.0, 0, 0, 0]), jnp.zeros(4)
    token, logits = jnp.zeros(2, 'int32'), jnp.stack([sharp, flat])
    assert srgen.unsure(token, logits, None).tolist() == [False, True]  # ln 4 = 1.39 > 0.3
    wide = jnp.zeros((1, 2000)).at[0, :4].set(20.0)  # again ln 4, of a large vocabulary
    assert not srgen.unsure(token[:1], wide, None)[0]
    assert srgen.LEAST <= 3.0 and srgen.LAB_LEAST < srgen.LEAST


def test_the_run_reads_the_rule():
    lab = tokenizer.lab_tokenizer()
    rule = token_rules.pause_rule(f'{srgen.HERE}:unsure', lab, lab.vocab_size)
    assert rule.roles == ('attempt', 'refinement')


@pytest.mark.slow
@pytest.mark.parametrize('name', [pytest.param('reflect', marks=pytest.mark.slow), 'lab_reflect'])
def test_the_run_reads_the_loss(name):
    function = AFTER_PAUSES.find(f'{srgen.HERE}:{name}', FIELD)
    correction = Correction.of(function)
    assert (correction.steps, correction.learning_rate) == (3, 0.01)
    assert Correction.of(function) is correction  # one compiled program
    arguments = (jnp.array([1, 0]), 1)
    value, gradient = jax.value_and_grad(lambda x: correction.loss(x, *arguments))(
        jnp.zeros((2, 4))
    )
    assert value == pytest.approx(float(np.log(4)))
    np.testing.assert_allclose(gradient[0], 0.95 * np.array([0.25, -0.75, 0.25, 0.25]), atol=1e-6)
    np.testing.assert_allclose(gradient[1], 0, atol=1e-6)  # of the entropy at its maximum
