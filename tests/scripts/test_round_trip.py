"""Round trip of a `transformers` model: import, adapters trained on GSM8K, merge, export.

Not run in CI, where other tests cover the parts: `python -m pytest -m slow` with this file.
"""

import json
import types

import jax
import numpy as np
import pytest
import safetensors.numpy

from elenchus.configs import gsm8k
from elenchus.data.grading import verify
from elenchus.data.text import tokenizer as tokenizers
from elenchus.model import huggingface, lora, sharding, transformer
from elenchus.sampling import episodes
from elenchus.sampling.engine.sampling_methods import Greedy
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.train.checkpoints import convert, saved_models
from elenchus.train.run import runner
from elenchus.train.run.session import open_run
from tests.support import hf_models as peers
from tests.support import hf_tokenizers

pytestmark = pytest.mark.slow

NEW_TOKENS = 24


def write_model(folder):
    """Writes a Qwen 2 with random weights and a tokenizer of the Qwen format."""
    text = hf_tokenizers.files(hf_tokenizers.golden()['merges'])['qwen2.5']
    folder.mkdir(parents=True)
    (folder / 'tokenizer.json').write_text(text)
    size = -(-tokenizers.load_tokenizer(folder / 'tokenizer.json').vocab_size // 64) * 64
    hf_config = peers.CASES['qwen2'] | {'vocab_size': size, 'max_position_embeddings': 1024}
    config = convert.imported_config(huggingface.family_of(hf_config), hf_config, 'float32')
    model = jax.eval_shape(lambda: transformer.init_model(config, jax.random.key(0)))
    shapes = {name: leaf.shape for name, leaf in saved_models.parameters(model).items()}
    tensors = huggingface.family_of(hf_config).tensors(shapes)
    values = peers.weights({t.name: t.shape for t in tensors}, model_type='qwen2')
    safetensors.numpy.save_file(values, folder / 'model.safetensors', metadata={'format': 'pt'})
    (folder / 'config.json').write_text(json.dumps(hf_config))
    return values


def write_problems(folder):
    """Writes files in the format of GSM8K."""
    folder.mkdir()
    for split, count in (('train', 12), ('test', 2)):
        sums = [(i % 7 + 1, i % 5 + 2) for i in range(count)]
        problems = [
            {
                'question': f'{a} and {b}?',
                'answer': f'{a} + {b} = <<{a}+{b}>>{a + b}.\n#### {a + b}',
            }
            for a, b in sums
        ]
        (folder / f'{split}.jsonl').write_text('\n'.join(map(json.dumps, problems)))


def config_of(models, data, data_dir):
    config = gsm8k.get_config('smoke')
    config.model.update(json.loads((models / 'model_config.json').read_text())['model'])
    config.model.update({'remat': 'none', 'scan_layers': True})
    path = str(models / 'tokenizer.json')
    config.tokenizer.update({'kind': 'file', 'path': path, 'template': 'qwen2.5'})
    config.base.update({'checkpoint': str(models)})
    config.base.fit.num_steps = 0
    config.stages = ('base', 'actor')
    config.data.update({'path': str(data), 'data_dir': str(data_dir)})
    config.data.update({'num_train': 12, 'num_test': 2})
    for stage in (config.critique, config.improve, config.evaluate):
        stage.num_problems = 2
    config.evaluate.beam.num_problems = config.improve.candidates.num_problems = 2
    config.actor.num_problems = 12
    config.actor.lora.update({'rank': 2, 'targets': ('query', 'down')})
    return config


@pytest.fixture(scope='module')
def trip(tmp_path_factory):
    """The models, and their answers, at every step of the trip."""
    folder = tmp_path_factory.mktemp('trip')
    before = write_model(folder / 'theirs')
    write_problems(folder / 'data')
    mesh = sharding.make_mesh((1, 8, 1))
    convert.import_model(folder / 'theirs', folder / 'ours', dtype=None, mesh=mesh)
    config = config_of(folder / 'ours', folder / 'data', folder / 'prepared')
    with verify.Verifier(num_workers=1, timeout_s=5.0) as verifier:
        run = open_run(config, folder / 'run', verifier=verifier)
        for stage in ('base', 'actor'):
            runner.run_stage(run, stage)
        adapted = answered(run, run.load_model('actor'))
        merged = folder / 'merged' / 'model'
        run.store.save(merged, lora.merge(run.load_model('actor')))  # as scripts/merge.py does
        whole = answered(run, run.store.load(merged))
    convert.export_model(
        merged, folder / 'back', files=folder / 'ours', mesh=mesh, file_bytes=10**9
    )
    return types.SimpleNamespace(
        folder=folder, before=before, run=run, adapted=adapted, whole=whole, mesh=mesh
    )


def answered(run, model):
    """(prompt, tokens) of the greedy attempt at each test problem."""
    attempts = episodes.sample_attempts(
        run.samplers.whole_turns(), model, run.inputs.test_problems, judge=run.inputs.judge,
        spec=SampleSpec(1, Greedy(()), 0, 0)
    )  # fmt: skip
    context = run.inputs.chat.context
    return [(context(e.turns[:-1], 'attempt'), list(e.turns[-1].tokens)) for e in attempts]


def test_only_the_adapted_matrices_have_changed(trip):
    after = safetensors.numpy.load_file(trip.folder / 'back' / 'model.safetensors')
    assert after.keys() == trip.before.keys()
    for name, values in trip.before.items():
        adapted = 'q_proj.weight' in name or 'down_proj' in name
        assert np.array_equal(after[name], values) != adapted, name


def test_the_merged_model_writes_the_same_text_as_the_adapted_one(trip):
    assert trip.whole == trip.adapted
    prompt, tokens = trip.whole[0]
    assert 0 < len(tokens) <= NEW_TOKENS
    assert trip.run.inputs.tokenizer.decode(prompt).endswith('user\n1 and 2?\nassistant\n')


def test_the_tokenizer_and_the_config_are_exported_with_it(trip):
    theirs, back = trip.folder / 'theirs', trip.folder / 'back'
    assert (back / 'tokenizer.json').read_bytes() == (theirs / 'tokenizer.json').read_bytes()
    was, now = (json.loads((folder / 'config.json').read_text()) for folder in (theirs, back))
    assert now.pop('torch_dtype') == 'float32' and now.pop('architectures') == ['Qwen2ForCausalLM']
    assert huggingface.family_of(now).read_config(now) == huggingface.family_of(was).read_config(
        was
    )


@pytest.mark.filterwarnings('default')
def test_transformers_writes_the_same_text(trip):
    for name in ('torch', 'transformers'):
        pytest.importorskip(name, exc_type=ImportError)
    from tests.golden import make_families_golden as peer

    model = peer.load(trip.folder / 'back')
    for prompt, tokens in trip.whole:
        continued = peer.generate_greedily(model, np.array([prompt]), NEW_TOKENS)[0].tolist()
        assert continued[: len(tokens)] == tokens
