"""On-policy distillation: the KL term holds a player to a teacher."""

import jax
import numpy as np
import pytest

from elenchus.train import objective
from tests.support import tiny_model
from tests.train.rl.test_trainer import CONFIG, PLAIN, run, settings_of

DISTILL = {
    'teacher': 'saved',
    'objective__preset': 'reinforce',
    'objective__kl': 'k2',
    'objective__kl_coef': 1.0,
    'rewards__correct': 0.0,
    'rewards__length': 0.0,
    **PLAIN,
}


def test_a_teacher_weighs_each_token_by_the_difference_of_the_log_probabilities():
    """On-policy distillation: the weight of a sampled token is log p_teacher - log p_student."""
    rng = np.random.default_rng(0)
    batch = tiny_model.random_batch(0)
    student = rng.normal(-3, 1, batch.tokens.shape).astype(np.float32)
    batch = batch._replace(
        weights=np.zeros_like(batch.weights),
        ref_logprobs=rng.normal(-3, 1, student.shape).astype(np.float32),
    )
    o = settings_of(**DISTILL).objective

    def value(logprobs):
        sums = objective.loss(o, batch, logprobs=logprobs, entropy=0 * logprobs)
        return sums.total / sums.weight

    sequences = sum(
        len(set(s[m > 0])) for s, m in zip(batch.segments, batch.loss_mask, strict=True)
    )
    weights = (batch.ref_logprobs - student) * batch.loss_mask
    np.testing.assert_allclose(-jax.grad(value)(student), weights / sequences, atol=1e-6)


@pytest.mark.slow
def test_a_student_comes_closer_to_its_teacher_and_no_reward_is_read(tmp_path):
    teacher = tiny_model.make_model(CONFIG, 7)
    changes = DISTILL | {'num_steps': 12, 'optimizer__learning_rate': 0.02}
    _, _, rows = run(tmp_path, ('actor',), teacher_model=teacher, **changes)
    kl = [row['loss/kl'] for row in rows]
    assert kl[0] > 0.01 and np.mean(kl[-2:]) < 0.7 * np.mean(kl[:2])


def test_a_teacher_needs_the_term_that_reads_it():
    with pytest.raises(ValueError, match=r"reinforce.teacher='saved' is read by the KL term"):
        settings_of(**{k: v for k, v in DISTILL.items() if 'kl' not in k})
