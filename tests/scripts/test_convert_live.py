"""Conversion against `transformers` itself, if it is installed (extra `peers`).

A model saved by `transformers` gives the same logits and greedy text after import; an exported
model loads there and is the same model.
"""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from elenchus.model.huggingface import rope
from elenchus.sampling.engine import engine, sampling_methods
from elenchus.train.checkpoints import convert, saved_models
from tests.support import hf_models as peers
from tests.support import tiny_model

pytestmark = pytest.mark.filterwarnings('default')  # warnings of other libraries are no errors here


@pytest.fixture(scope='module')
def peer():
    """The module that drives `transformers`."""
    for name in ('torch', 'transformers'):
        pytest.importorskip(name, exc_type=ImportError)
    from tests.golden import make_families_golden

    return make_families_golden


@tiny_model.jit
def logits_of(model, tokens, positions):
    hidden, _ = model(tokens, positions)
    return model.logits(hidden)


def loaded(folder):
    config, fingerprint = saved_models.read_description(folder)
    return saved_models.load_model(
        folder, config, mesh=tiny_model.one_device(), tokenizer_fingerprint=fingerprint
    )


def continued(model, prompts):
    requests = [
        engine.Request(i, tuple(map(int, p)), peers.GENERATED) for i, p in enumerate(prompts)
    ]
    shapes = engine.EngineSettings(
        num_slots=2, max_length=peers.PROMPT + peers.GENERATED, chunk_steps=peers.GENERATED,
        prompt_buckets=(12,), prefill_batch_sizes=(2,), decode_batch_sizes=(),
        decode_cache_lengths=(),
    )  # fmt: skip
    sampler = engine.Engine(shapes, stop_ids=(peers.VOCAB,))
    completions = sampler.generate(model, requests, method=sampling_methods.Greedy(()), seed=0)
    return [list(completion.tokens) for completion in completions]


def read(folder):
    files = folder.glob('*.safetensors')
    return {k: v for path in files for k, v in safetensors.numpy.load_file(path).items()}


@pytest.mark.parametrize('name', peers.CASES)
def test_a_saved_model_is_the_same_model_here_and_there_again(peer, tmp_path, name):
    theirs, tokens = peer.make_peer(peers.CASES[name]), peers.tokens()
    prompts = tokens[:, : peers.PROMPT]
    expected = peer.logits_of(theirs, tokens)
    text = peer.generate_greedily(theirs, prompts, peers.GENERATED)
    theirs.save_pretrained(tmp_path / 'theirs', max_shard_size='20KB')
    mesh = tiny_model.one_device()
    convert.import_model(tmp_path / 'theirs', tmp_path / 'ours', dtype=None, mesh=mesh)

    ours = loaded(tmp_path / 'ours')
    positions = np.broadcast_to(np.arange(peers.LENGTH, dtype=np.int32), tokens.shape)
    logits = np.asarray(logits_of(ours, tokens.astype(np.int32), positions))
    np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=0)
    assert continued(ours, prompts) == text.tolist()

    export = {'files': None, 'mesh': mesh, 'file_bytes': 20_000}
    convert.export_model(tmp_path / 'ours', tmp_path / 'back', **export)
    before, after = read(tmp_path / 'theirs'), read(tmp_path / 'back')
    assert before.keys() == after.keys()
    assert all(before[key].tobytes() == after[key].tobytes() for key in before)
    again = peer.load(tmp_path / 'back')
    np.testing.assert_array_equal(peer.logits_of(again, tokens), expected)
    np.testing.assert_array_equal(peer.generate_greedily(again, prompts, peers.GENERATED), text)
    was, now = theirs.config.to_dict(), again.config.to_dict()
    ignored = {'_name_or_path', 'architectures', 'transformers_version'}
    differing = {key for key in was.keys() | now.keys() if was.get(key) != now.get(key)}
    if name.endswith('-yarn'):  # the values that missing keys stand for are written
        differing -= {'rope_parameters'}
        assert rope.read_rope(was) == rope.read_rope(now)
    assert not differing - ignored, {
        key: (was.get(key), now.get(key)) for key in differing - ignored
    }


@pytest.mark.parametrize('name', ['llama3', 'qwen3', 'gemma3', 'qwen3-moe'])
def test_a_model_without_their_config_is_exported_from_ours_alone(peer, tmp_path, name):
    theirs, tokens = peer.make_peer(peers.CASES[name]), peers.tokens()
    theirs.save_pretrained(tmp_path / 'theirs')
    mesh = tiny_model.one_device()
    convert.import_model(tmp_path / 'theirs', tmp_path / 'ours', dtype=None, mesh=mesh)
    (tmp_path / 'ours' / 'config.json').unlink()
    export = {'files': None, 'mesh': mesh, 'file_bytes': 10**9}
    convert.export_model(tmp_path / 'ours', tmp_path / 'back', **export)
    hf_config = json.loads((tmp_path / 'back' / 'config.json').read_text())
    assert hf_config['model_type'] == peers.CASES[name]['model_type']
    again = peer.load(tmp_path / 'back')
    np.testing.assert_array_equal(peer.logits_of(again, tokens), peer.logits_of(theirs, tokens))


def test_bfloat16_is_close_to_theirs(peer, tmp_path):
    """The weights are equal; only rounding differs."""
    theirs, tokens = peer.make_peer(peers.CASES['gemma3']), peers.tokens()
    exact = peer.logits_of(theirs, tokens)
    theirs.bfloat16().save_pretrained(tmp_path / 'theirs')
    mesh = tiny_model.one_device()
    convert.import_model(tmp_path / 'theirs', tmp_path / 'ours', dtype=None, mesh=mesh)
    ours = loaded(tmp_path / 'ours')
    assert {leaf.dtype.name for leaf in jax.tree.leaves(ours)} == {'bfloat16'}
    positions = np.broadcast_to(np.arange(peers.LENGTH, dtype=np.int32), tokens.shape)
    logits = np.asarray(logits_of(ours, tokens.astype(np.int32), positions))
    rounded = peer.logits_of(peer.load(tmp_path / 'theirs'), tokens).astype(np.float32)
    theirs_off, ours_off = (np.linalg.norm(x - exact) for x in (rounded, logits))
    assert ours_off < 1.5 * theirs_off
