"""What int8 changes, on a tiny model: nothing in int8 changes nothing."""

import jax.numpy as jnp
import numpy as np

from elenchus.sampling.engine.sampling_methods import Greedy
from elenchus.scripts.tools import compare_int8
from tests.support import tiny_model


def test_models_in_int8_are_compared_with_the_model_as_it_is():
    model, method = tiny_model.make_model(tiny_model.FLAT), Greedy(banned=(0,))
    tokens = np.random.default_rng(0).integers(1, 48, (3, 12), dtype=np.int32)
    logits = model.logits(model(tokens, jnp.broadcast_to(jnp.arange(12), tokens.shape))[0])
    best = np.asarray(method.transform(logits).argmax(-1))
    written = np.zeros(tokens.shape, bool)
    written[:, 6:9] = True
    tokens[:2, 8] = best[:2, 7]  # two of nine tokens are the most likely, if no others are
    found = compare_int8.compare(model, tokens, written, method=method)
    assert found['as it is'][:2] == (0, 0)
    assert found['as it is'].tokens == (best[:, 5:8] == tokens[:, 6:9]).mean() >= 2 / 9
    for name in ('cache', 'weights', 'cache and weights'):
        assert 0 < found[name].mean < found[name].largest < 2
    assert compare_int8.table(found).count('\n') == 5
