"""Models of a run: those of other sizes, and of a vocabulary with more padding."""

import dataclasses

import jax
import numpy as np
import pytest

from elenchus.model import lora, sharding
from elenchus.train.checkpoints import saved_models
from elenchus.train.checkpoints.model_store import ModelStore
from tests.support import tiny_model

SIZE, PADDED = tiny_model.CONFIG.vocab_size, tiny_model.CONFIG.vocab_size + 16
ADAPTERS = lora.LoraSettings(2, 4.0, ('query', 'down'))


def store_on(shape):
    mesh = sharding.make_mesh(shape)
    options = {'tokenizer_fingerprint': 'abc', 'quantize': 'none'}
    return mesh, ModelStore(tiny_model.CONFIG, mesh, **options)


def padded(folder, *, tie):
    """Saves a model with a larger vocabulary; returns it."""
    config = dataclasses.replace(tiny_model.CONFIG, vocab_size=PADDED, tie_embeddings=tie)
    model = tiny_model.make_model(config)
    saved_models.save_model(folder, model, tokenizer_fingerprint='abc')
    return model


def logits_of(model):
    tokens = np.arange(2 * 6).reshape(2, 6) % SIZE
    positions = np.broadcast_to(np.arange(6), tokens.shape)
    return np.asarray(model.logits(model(tokens, positions)[0]))


@pytest.mark.parametrize('tie', [True, False])
@pytest.mark.parametrize('shape', [(8, 1, 1), (2, 2, 2)])
def test_ids_beyond_the_runs_vocabulary_are_cut_off(tmp_path, tie, shape):
    model = padded(tmp_path / 'model', tie=tie)
    expected = logits_of(model)[..., :SIZE]
    mesh, store = store_on(shape)
    with jax.set_mesh(mesh):
        loaded = store.load(tmp_path / 'model')
        assert loaded.config == dataclasses.replace(model.config, vocab_size=SIZE)
        np.testing.assert_allclose(logits_of(loaded), expected, atol=1e-5)
        wanted = jax.tree.leaves(sharding.shardings(loaded, mesh))
        for leaf, place in zip(jax.tree.leaves(loaded), wanted, strict=True):
            assert leaf.sharding.is_equivalent_to(place, leaf.ndim)


def test_adapters_on_a_padded_base_are_loaded_again(tmp_path):
    padded(tmp_path / 'base', tie=False)
    mesh, store = store_on((8, 1, 1))
    with jax.set_mesh(mesh):
        player = store.load_to_train(tmp_path / 'base', ADAPTERS, seed=0)
        trained, frozen = lora.split(player)
        player = lora.attach(frozen, jax.tree.map(lambda x: x + 0.1, trained))
        store.save(tmp_path / 'player', player)
        _, again = store_on((8, 1, 1))
        loaded = again.load(tmp_path / 'player')
        assert player.config.vocab_size == loaded.config.vocab_size == SIZE
        np.testing.assert_array_equal(logits_of(loaded), logits_of(player))


def test_a_vocabulary_that_is_too_small_is_refused(tmp_path):
    config = dataclasses.replace(tiny_model.CONFIG, vocab_size=SIZE - 8)
    folder = tmp_path / 'model'
    saved_models.save_model(folder, tiny_model.make_model(config), tokenizer_fingerprint='abc')
    with pytest.raises(ValueError, match=f'vocab_size={SIZE}, but .* vocab_size={SIZE - 8}'):
        store_on((8, 1, 1))[1].load(folder)
