"""Documents of the lab's base model."""

import dataclasses

import numpy as np
import pytest

from elenchus.configs import lab
from elenchus.data import records
from elenchus.train.config import build, run_settings
from elenchus.train.stages import base_model
from elenchus.train.stages.sft import LazyExamples
from tests.support import fake_engine

SETTINGS = build.build(run_settings.RunSettings, lab.get_config('smoke'))
KINDS = {
    'drill': 'critique',
    'worked': 'critique',
    'attempt': 'attempt',
    'critique': 'critique',
    'refinement': 'refinement',
}


@pytest.mark.parametrize('kind', KINDS)
def test_a_base_document_of_each_kind_trains_the_words_of_its_role(kind):
    shares = {other: float(other == kind) for other in KINDS}
    settings = dataclasses.replace(SETTINGS.base, shares=run_settings.BaseShares(**shares))
    data_seed = SETTINGS.data.seed
    example = base_model.lab_document(settings, fake_engine.CHAT, 7, data_seed=data_seed)
    trained = example.loss_mask > 0
    assert {records.ROLES[role] for role in example.roles[trained]} == {KINDS[kind]}
    weighed = fake_engine.TOKENIZER.decode(example.tokens[trained & (example.weights > 0)].tolist())
    words = set(weighed.split())
    digits = words & set('0123456789')
    if kind == 'drill':
        assert words == digits
    else:
        assert words > digits


def test_lazy_examples_are_built_when_read():
    read = []
    examples = LazyExamples(10**9, lambda i: read.append(i) or i)
    assert len(examples) == 10**9 and examples[np.int64(7)] == 7 and read == [7]
