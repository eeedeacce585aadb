import dataclasses

import jax
import pytest

from elenchus.model import config as config_lib
from elenchus.model import transformer
from tests.support import tiny_model


@pytest.mark.parametrize('tie_embeddings', [True, False])
@pytest.mark.parametrize('qkv_bias', [True, False])
@pytest.mark.parametrize('qk_norm', [True, False])
@pytest.mark.parametrize('post_norms', [True, pytest.param(False, marks=pytest.mark.slow)])
def test_num_parameters_is_the_size_of_the_model(tie_embeddings, qkv_bias, qk_norm, post_norms):
    config = dataclasses.replace(
        tiny_model.CONFIG,
        tie_embeddings=tie_embeddings,
        qkv_bias=qkv_bias,
        qk_norm=qk_norm,
        post_norms=post_norms,
    )
    model = jax.eval_shape(lambda: transformer.init_model(config, jax.random.key(0)))
    size = sum(leaf.size for leaf in jax.tree.leaves(model))
    assert config_lib.num_parameters(config) == size


def test_every_parameter_names_one_axis_a_dimension_beyond_layers():
    model = jax.eval_shape(lambda: transformer.init_model(tiny_model.EVERYTHING, jax.random.key(0)))
    is_variable = lambda x: hasattr(x, 'get_metadata')  # noqa: E731
    for path, leaf in jax.tree_util.tree_leaves_with_path(model, is_leaf=is_variable):
        stacked = 'blocks' in jax.tree_util.keystr(path)
        assert len(leaf.shape) == len(leaf.get_metadata()['axes']) + stacked, path


def test_forward_flops_are_those_xla_counts():
    """XLA also counts masked scores: every token attends to T keys."""
    rows, length = 2, 64
    config = dataclasses.replace(
        tiny_model.EVERYTHING,
        windows=(0,),
        embed_dim=32,
        head_dim=16,
        mlp_dim=64,
        scan_layers=False,
    )
    model = jax.eval_shape(lambda: transformer.init_model(config, jax.random.key(0)))
    tokens = jax.ShapeDtypeStruct((rows, length), 'int32')

    def logits(model, tokens, positions):
        return model.logits(model(tokens, positions)[0])

    compiled = tiny_model.jit(logits).lower(model, tokens, tokens).compile()
    counted = compiled.cost_analysis()['flops']
    ours = config_lib.forward_flops(config, tokens=rows * length, length=length)
    assert ours == pytest.approx(counted, rel=0.15)


@pytest.mark.parametrize('name', ['vocab_size', 'num_layers', 'head_dim', 'logits_chunk'])
def test_a_size_below_one_is_refused_by_name(name):
    with pytest.raises(ValueError, match=rf'model\.{name}=0'):
        dataclasses.replace(tiny_model.CONFIG, **{name: 0})


def test_heads_that_do_not_divide_are_refused_with_the_nearest_that_do():
    with pytest.raises(ValueError, match=r'model\.num_kv_heads=5.*num_heads=12.*: [46]'):
        dataclasses.replace(tiny_model.CONFIG, num_heads=12, num_kv_heads=5)
    with pytest.raises(ValueError, match=r'model\.head_dim=7.*even.*8'):
        dataclasses.replace(tiny_model.CONFIG, head_dim=7)


def test_a_window_bounds_the_cost_of_attention():
    def attention(windows, length):
        config = dataclasses.replace(tiny_model.CONFIG, windows=windows)
        return config_lib.forward_flops(config, tokens=1, length=length)

    assert attention((8,), 5) == attention((0,), 5)
    assert attention((8,), 50) == attention((0,), 8)
    assert 2 * attention((8, 0), 50) == attention((0,), 50) + attention((0,), 8)


@pytest.mark.parametrize(
    ('name', 'value'), [('windows', ()), ('windows', (4, -1)), ('attention_soft_cap', -1.0)]
)
def test_windows_and_caps_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf'model\.{name}(\[1\])?=.*nearest: .?0'):
        dataclasses.replace(tiny_model.CONFIG, **{name: value})
