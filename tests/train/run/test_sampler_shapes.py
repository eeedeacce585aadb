"""Sampler shapes that do not divide over the mesh are refused when a run opens, by name."""

import dataclasses

import pytest

from elenchus.model import memory_estimate
from elenchus.train.run import checks
from tests.support.shipped_configs import settings_of

ONLY = ('base', 'actor')


def settings(*, rows=64, stages=('base', 'evaluate'), model=None, **engine):
    """The default settings with some fields changed."""
    s = settings_of('lab:default')
    sampling = dataclasses.replace(
        s.sampling,
        engine=dataclasses.replace(s.sampling.engine, **engine),
        score=dataclasses.replace(s.sampling.score, rows=rows),
    )
    model = dataclasses.replace(s.model, **(model or {}))
    return dataclasses.replace(s, sampling=sampling, stages=stages, model=model)


@pytest.mark.parametrize(
    ('changes', 'shape', 'message'),
    [
        ({'num_slots': 130}, (8, 1, 1), r'sampling\.engine\.num_slots=130: .* 8 .*nearest: 128'),
        ({'prefill_batch_sizes': (8, 36)}, (2, 4, 1), r'prefill_batch_sizes=.*: 36 .*nearest: 32'),
        ({'decode_batch_sizes': (30,)}, (1, 8, 1), r'decode_batch_sizes=.*: 30 .*nearest: 32'),
        ({}, (1, 64, 1), r'prefill_batch_sizes=\(8, 32\): 8 .* 64 .*nearest: 64'),
        ({'rows': 20}, (8, 1, 1), r'sampling\.score\.rows=20: 20 .* 8 .*nearest: (16|24)'),
        ({'tensor_shards': 3}, (8, 1, 1), r'tensor_shards=3 must divide the 8 .*nearest: (2|4)'),
        (
            {'tensor_shards': 8, 'model': {'mlp_dim': 356}},
            (8, 1, 1),
            r'tensor_shards=8 does not divide model\.mlp_dim=356; nearest: 4',
        ),
        (
            {'dtype': 'float32', 'model': {'attention': 'cudnn', 'dtype': 'bfloat16'}},
            (1, 1, 1),
            r"sampling\.engine\.dtype='float32' has no .*'cudnn'.*; nearest: 'bfloat16'",
        ),
    ],
    ids=str,
)
def test_a_shape_that_does_not_divide_is_refused_with_the_nearest(changes, shape, message):
    mesh = memory_estimate.abstract_mesh(shape)
    with pytest.raises(ValueError, match=message):
        checks.check_sampling(settings(**changes), mesh)
    checks.check_sampling(settings(**changes, stages=ONLY), mesh)


@pytest.mark.parametrize('shape', [(1, 1, 1), (8, 1, 1), (1, 8, 1), (2, 2, 2)], ids=str)
def test_the_default_shapes_divide_over_eight_devices(shape):
    checks.check_sampling(settings(), memory_estimate.abstract_mesh(shape))


def test_the_samplers_own_tensor_axis_decides_how_many_shards_there_are():
    mesh = memory_estimate.abstract_mesh((1, 256, 1))
    big = settings_of('released.llama3_8b_mathcritique:default')
    checks.check_sampling(big, mesh)
    engine = dataclasses.replace(big.sampling.engine, tensor_shards=0)
    sampling = dataclasses.replace(big.sampling, engine=engine)
    with pytest.raises(ValueError, match=r'prefill_batch_sizes=\(8,\): 8 .* 256 .*nearest: 256'):
        checks.check_sampling(dataclasses.replace(big, sampling=sampling), mesh)
