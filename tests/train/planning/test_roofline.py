"""Bounds from shapes: an iteration of GRPO by turns and on two sets of chips, and the tables."""

import pathlib

import pytest

from elenchus.configs import gsm8k
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.planning import roofline

SIZES = {'rows': 2048, 'length': 1024}
PAGE = pathlib.Path(__file__).parents[3] / 'docs' / 'scale.md'


@pytest.fixture(scope='module')
def small():
    return build.build(RunSettings, gsm8k.get_config()).model


def test_the_tables_of_the_page_are_those_of_the_code(small):
    tables = roofline.table(small, slots=2048, rows=256, length=1024)
    tables += roofline.overlap_table(small, **SIZES)
    lines = set(PAGE.read_text(encoding='utf-8').splitlines())
    assert len(tables) == 2 * 2 + 9 + 8  # 70B on 8 chips needs them all to sample
    assert set(tables) <= lines


def test_sampling_that_waits_for_the_weights_takes_as_long_on_fewer_chips(small):
    """8B on v5e-256: 8 tensor shards read 2 GB each a step, at 819 GB/s, 1024 times."""
    c, m = roofline.models(small)['8B'], roofline.MACHINES['v5e-256']
    whole, update = roofline.iteration_seconds(c, m, **SIZES)
    half, longer = roofline.iteration_seconds(c, m, **SIZES, share=0.5)
    assert whole == half == pytest.approx(1024 * 2 * 8.03e9 / 8 / 819e9, rel=0.02)
    assert longer == pytest.approx(2 * 4 / 3 * update, rel=0.01)  # of half of the chips


def test_sampling_that_computes_takes_twice_as_long_on_half_of_the_chips(small):
    c, m = roofline.models(small)['8B'], roofline.MACHINES['v5e-256']
    whole, _ = roofline.iteration_seconds(c, m, rows=2**20, length=1024)
    half, _ = roofline.iteration_seconds(c, m, rows=2**20, length=1024, share=0.5)
    assert half == pytest.approx(2 * whole, rel=0.01)
