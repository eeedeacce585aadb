"""Train steps of DPO on packed pairs of responses."""

import functools

import jax
import numpy as np
import optax
import pytest

from elenchus.train import objective, preferences
from elenchus.train import state as state_lib
from elenchus.train import step as step_lib
from tests.support import tiny_model


@pytest.mark.slow
def test_the_train_step_of_every_method_widens_the_margin_of_pairs():
    examples = tiny_model.random_examples(1, (7,) * 16)
    pairs = list(zip(examples[::2], examples[1::2], strict=True))
    batch = tiny_model.pack_pairs(pairs, rows=8, length=14)
    batch = batch._replace(weights=np.ones_like(batch.weights))
    reference = tiny_model.make_model(tiny_model.FLAT)
    logprobs = functools.partial(tiny_model.jit, static_argnums=2)(step_lib.batch_logprobs)
    batch = batch._replace(
        ref_logprobs=np.asarray(logprobs(reference, batch, tiny_model.untouched)[0])
    )
    optimizer = optax.adam(0.01)
    state = state_lib.init_state(tiny_model.make_model(tiny_model.FLAT), optimizer)
    take = step_lib.make_train_step(
        objective=objective.of_pairs(preferences.published('dpo', beta=0.5)),
        optimizer=optimizer,
        transform=tiny_model.untouched,
        num_microbatches=4,
        skip_nonfinite=False,
    )
    take = take.lower(jax.eval_shape(lambda: state), batch).compile(tiny_model.QUICK)
    history = []
    for _ in range(20):
        state, metrics = take(state, batch)
        history.append({name: float(value) for name, value in metrics.items()})
    assert history[0]['loss/total'] == pytest.approx(np.log(2), rel=1e-5)
    assert abs(history[0]['loss/margin']) < 1e-5
    assert history[-1]['loss/total'] < 0.3 and history[-1]['loss/preferred'] > 0.95
