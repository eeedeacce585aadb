"""Adapter folders of PEFT, in and out: the same sum; what is no plain LoRA is refused."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from elenchus.model import lora
from elenchus.model.huggingface import peft_files
from elenchus.train.checkpoints import convert, model_store, saved_models
from tests.scripts import test_convert
from tests.support import hf_models as peers
from tests.support import tiny_model

MODULES = {'query': 'self_attn.q_proj', 'key': 'self_attn.k_proj', 'value': 'self_attn.v_proj',
           'out': 'self_attn.o_proj', 'gate': 'mlp.gate_proj', 'up': 'mlp.up_proj',
           'down': 'mlp.down_proj'}  # fmt: skip
CONFIG = {'peft_type': 'LORA', 'task_type': 'CAUSAL_LM', 'r': 3, 'lora_alpha': 6,
          'target_modules': 'all-linear', 'bias': 'none', 'lora_dropout': 0.1,
          'init_lora_weights': True, 'rank_pattern': {}, 'alpha_pattern': {},
          'fan_in_fan_out': False, 'modules_to_save': None, 'use_dora': False, 'use_rslora': False,
          'base_model_name_or_path': 'Qwen/Qwen2.5', 'inference_mode': True, 'revision': None,
          'loftq_config': {}, 'megatron_config': None, 'megatron_core': 'megatron.core',
          'layers_to_transform': None, 'layers_pattern': None, 'auto_mapping': None,
          'trainable_token_indices': None, 'corda_config': None, 'eva_config': None,
          'exclude_modules': None, 'lora_bias': False, 'layer_replication': None,
          'qalora_group_size': 16, 'use_qalora': False, 'target_parameters': None}  # fmt: skip


def write_base(folder, name):
    """Writes and imports a base; returns its tensors and our folder."""
    tensors = test_convert.write(folder / 'base', name)
    convert.import_model(
        folder / 'base', folder / 'base_ours', dtype=None, mesh=tiny_model.one_device()
    )
    return tensors, folder / 'base_ours'


@pytest.fixture(scope='module')
def qwen2(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp('qwen2'), 'qwen2')


def factors(tensors, targets, rank=3):
    """Random factors in the names of PEFT for targets of every layer."""
    found = {}
    for name, values in tensors.items():
        if any(name.endswith(f'{MODULES[target]}.weight') for target in targets):
            rng = np.random.default_rng(len(name) + int(name.split('.')[2]))
            stem = f'base_model.model.{name.removesuffix(".weight")}'
            out, inner = values.shape
            found[f'{stem}.lora_A.weight'] = rng.standard_normal((rank, inner), np.float32)
            found[f'{stem}.lora_B.weight'] = rng.standard_normal((out, rank), np.float32)
    return found


def write_adapters(folder, tensors, **changes):
    folder.mkdir(exist_ok=True)
    (folder / peft_files.CONFIG).write_text(json.dumps(CONFIG | changes))
    safetensors.numpy.save_file(tensors, folder / peft_files.WEIGHTS)
    return folder


def imported(source, target, base):
    return convert.import_model(source, target, dtype=None, mesh=tiny_model.one_device(), base=base)


def loaded(folder):
    config, fingerprint = saved_models.read_description(folder)
    store = model_store.ModelStore(
        config, tiny_model.one_device(), tokenizer_fingerprint=fingerprint, quantize='none'
    )
    return store, store.load(folder)


def exported(source, target, **options):
    return convert.export_model(
        source, target, files=options.pop('files', None), mesh=tiny_model.one_device(),
        file_bytes=10**9, **options,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'targets', 'rslora'),
    [('qwen2', tuple(MODULES), True),
     ('llama3', ('query', 'value'), False),
     ('gemma3', ('out', 'down'), True),
     ('qwen3', ('key', 'up', 'gate'), False),
     ('mistral', ('value', 'out'), False)],
)  # fmt: skip
def test_merged_adapters_are_the_sum_that_peft_documents(tmp_path, name, targets, rslora):
    tensors, base = write_base(tmp_path, name)
    added = factors(tensors, targets)
    source = write_adapters(tmp_path / 'peft', added, use_rslora=rslora)
    summary = imported(source, tmp_path / 'adapters', base)
    assert 'adapters of rank 3' in summary
    store, model = loaded(tmp_path / 'adapters')
    store.save(tmp_path / 'merged', lora.merge(model))
    exported(tmp_path / 'merged', tmp_path / 'back', files=base)
    back = safetensors.numpy.load_file(tmp_path / 'back' / 'model.safetensors')
    scale = 6 / 3**0.5 if rslora else 2.0
    for key, values in tensors.items():
        stem = f'base_model.model.{key.removesuffix(".weight")}'
        change = 0.0
        if f'{stem}.lora_A.weight' in added:
            change = scale * (added[f'{stem}.lora_B.weight'] @ added[f'{stem}.lora_A.weight'])
        np.testing.assert_allclose(back[key], values + change, atol=2e-5)

    note = exported(tmp_path / 'adapters', tmp_path / 'peft_back', base='Qwen/Qwen2.5')
    assert 'base Qwen/Qwen2.5' in note
    again = safetensors.numpy.load_file(tmp_path / 'peft_back' / peft_files.WEIGHTS)
    test_convert.assert_same_tensors(again, added)
    written = json.loads((tmp_path / 'peft_back' / peft_files.CONFIG).read_text())
    modules = sorted(MODULES[target].split('.')[1] for target in targets)
    assert written['target_modules'] == modules and written['r'] == 3
    assert written['lora_alpha'] == pytest.approx(scale * 3) and not written['use_rslora']
    assert written['base_model_name_or_path'] == 'Qwen/Qwen2.5'
    assert (tmp_path / 'peft_back' / 'tokenizer.json').exists()
    assert not (tmp_path / 'peft_back' / 'config.json').exists()


@pytest.mark.slow
def test_adapters_of_our_own_are_exported_and_come_back(tmp_path):
    _, base = write_base(tmp_path, 'qwen2')
    store, _ = loaded(base)
    settings = lora.LoraSettings(2, 5.0, ('query', 'down'))
    store.save(tmp_path / 'mine', store.load_to_train(base, settings, seed=3))
    assert 'base not named (--base)' in exported(tmp_path / 'mine', tmp_path / 'peft', files=base)
    imported(tmp_path / 'peft', tmp_path / 'again', base)
    for one, two in zip(
        jax.tree.leaves(loaded(tmp_path / 'again')[1]),
        jax.tree.leaves(loaded(tmp_path / 'mine')[1]),
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)
    assert saved_models.saved_adaptation(tmp_path / 'again') == saved_models.saved_adaptation(
        tmp_path / 'mine'
    )


REFUSED = {
    'peft_type': ('IA3', "nearest: 'LORA'"), 'use_dora': (True, 'merge the adapters'),
    'bias': ('all', "nearest: 'none'"), 'modules_to_save': (['lm_head'], 'merge the adapters'),
    'rank_pattern': ({'q_proj': 4}, 'merge'), 'alpha_pattern': ({'q_proj': 4}, 'merge'),
    'fan_in_fan_out': (True, 'merge'), 'layers_to_transform': ([0], 'merge'),
    'layer_replication': ([[0, 1]], 'merge'), 'lora_bias': (True, 'merge'),
    'trainable_token_indices': ([1], 'merge'), 'target_parameters': (['x'], 'merge'),
    'init_lora_weights': ('pissa_niter_4', 'changes the base'), 'a_new_key': (1, 'merge'),
    'r': (0, 'positive integer'), 'lora_alpha': (-1, 'positive number'),
}  # fmt: skip


@pytest.mark.parametrize('key', REFUSED)
def test_anything_but_plain_lora_is_refused_by_key(tmp_path, qwen2, key):
    value, message = REFUSED[key]
    tensors, base = qwen2
    source = write_adapters(tmp_path / 'peft', factors(tensors, ['query']), **{key: value})
    with pytest.raises(ValueError, match=f'{key}=.*is not supported; .*{message}'):
        imported(source, tmp_path / 'out', base)
    assert not (tmp_path / 'out').exists()


def drop(name):
    return lambda tensors: {n: v for n, v in tensors.items() if name not in n}


DAMAGE = {
    'a missing factor': (drop('layers.1.self_attn.q_proj.lora_B'), r'missing: .*layers\.1.*lora_B'),
    'a missing layer': (drop('layers.0.'), r'missing: .*layers\.0\.self_attn\.q_proj\.lora_A'),
    'an adapted head': (
        lambda t: t | {'base_model.model.lm_head.lora_A.weight': np.ones((3, 24), np.float32)},
        'lm_head.lora_A.weight and 0 more are no LoRA factors',
    ),
    'a layer too many': (
        lambda t: t | {'base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight':
                       np.ones((3, 24), np.float32)}, r'the base has no matrix for .*layers\.7',
    ),
    'another width': (lambda t: {n: v[:, :2] if 'lora_A' in n else v for n, v in t.items()},
                      r'misshaped for the base: .*lora_A.weight \(3, 2\), not \(3, 24\)'),
    'another rank': (lambda t: {n: v[:2] if 'lora_A' in n else v[:, :2] for n, v in t.items()},
                     r'\(2, 24\), not \(3, 24\)'),
    'NaN': (lambda t: {n: v * np.float32('nan') for n, v in t.items()}, 'NaN or infinite'),
    'integers': (lambda t: {n: v.astype(np.int8) for n, v in t.items()}, 'dtype I8'),
}  # fmt: skip


@pytest.mark.parametrize('damage', DAMAGE)
def test_adapters_that_do_not_fit_their_base_are_named(tmp_path, qwen2, damage):
    edit, message = DAMAGE[damage]
    tensors, base = qwen2
    source = write_adapters(tmp_path / 'peft', edit(factors(tensors, ['query'])))
    with pytest.raises(ValueError, match=message) as error:
        imported(source, tmp_path / 'out', base)
    assert peft_files.WEIGHTS in str(error.value) and not (tmp_path / 'out').exists()


def test_a_base_is_needed_for_adapters_alone(tmp_path):
    tensors, base = write_base(tmp_path, 'qwen2')
    source = write_adapters(tmp_path / 'peft', factors(tensors, ['query']))
    with pytest.raises(ValueError, match='has adapters of PEFT: import their base first'):
        imported(source, tmp_path / 'out', None)
    with pytest.raises(ValueError, match='has no adapter_config.json; leave --base out'):
        imported(tmp_path / 'base', tmp_path / 'out', base)
    with pytest.raises(ValueError, match='--dtype=bfloat16: adapters are stored in float32'):
        convert.import_model(source, tmp_path / 'out', dtype='bfloat16', mesh=None, base=base)
    named = {n.replace('.weight', '.default.weight'): v
             for n, v in factors(tensors, ['query']).items()}  # fmt: skip
    imported(write_adapters(tmp_path / 'live', named), tmp_path / 'out', base)
    (source / peft_files.WEIGHTS).unlink()
    with pytest.raises(ValueError, match='file not found: .*adapter_model.safetensors'):
        imported(source, tmp_path / 'none', base)


@pytest.mark.filterwarnings('default')
@pytest.mark.parametrize('name', ['qwen2', 'llama3', 'gemma3', 'qwen3'])
def test_peft_loads_what_is_exported_and_gives_the_same_logits(tmp_path, name):
    """Runs where `peft` is installed (it is no dependency)."""
    for module in ('torch', 'transformers', 'peft'):
        pytest.importorskip(module, exc_type=ImportError)
    import peft

    from tests.golden import make_families_golden as peer
    from tests.model import test_huggingface as families

    theirs = peer.make_peer(peers.CASES[name])
    theirs.save_pretrained(tmp_path / 'base')
    base = tmp_path / 'base_ours'
    convert.import_model(tmp_path / 'base', base, dtype=None, mesh=tiny_model.one_device())
    tensors = {n: t.detach().numpy() for n, t in peer.parameters_of(theirs).items()}
    source = write_adapters(tmp_path / 'peft', factors(tensors, tuple(MODULES)))
    imported(source, tmp_path / 'adapters', base)
    exported(tmp_path / 'adapters', tmp_path / 'back', files=base)
    tokens = peers.tokens()
    positions = np.broadcast_to(np.arange(peers.LENGTH, dtype=np.int32), tokens.shape)
    _, model = loaded(tmp_path / 'adapters')
    ours = families.logits_of(model, tokens.astype(np.int32), positions, np.ones_like(tokens))
    for folder in (source, tmp_path / 'back'):
        adapted = peft.PeftModel.from_pretrained(peer.load(tmp_path / 'base'), folder).eval()
        expected = peer.logits_of(adapted, tokens)
        np.testing.assert_allclose(ours, expected, atol=1e-4 * np.abs(expected).max(), rtol=0)
