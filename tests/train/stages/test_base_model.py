"""Documents of the lab's base model."""

import dataclasses

import numpy as np
import pytest

from elenchus.configs import lab
from elenchus.data import records
from elenchus.data.lab import forms
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


@pytest.mark.parametrize('form', forms.FORMS)
@pytest.mark.parametrize('kind', KINDS)
def test_a_base_document_of_each_kind_trains_the_words_of_its_role(kind, form):
    shares = {other: float(other == kind) for other in KINDS}
    settings = dataclasses.replace(SETTINGS.base, shares=run_settings.BaseShares(**shares))
    data = dataclasses.replace(SETTINGS.data, form=form)
    example = base_model.lab_document(settings, fake_engine.CHAT, 7, data=data)
    trained = example.loss_mask > 0
    assert {records.ROLES[role] for role in example.roles[trained]} == {KINDS[kind]}
    weighed = fake_engine.TOKENIZER.decode(example.tokens[trained & (example.weights > 0)].tolist())
    words = set(weighed.split())
    digits = words & set('0123456789')
    if kind == 'drill' and form == 'digits':
        assert words == digits
    else:
        assert words > digits


def test_lazy_examples_are_built_when_they_are_read():
    read = []
    examples = LazyExamples(10**9, lambda i: read.append(i) or i)
    assert len(examples) == 10**9 and examples[np.int64(7)] == 7 and read == [7]


def test_a_drill_of_the_tail_form_trains_all_that_its_lines_do_not_choose():
    example = base_model.tail_drill(fake_engine.CHAT, 7)
    trained = (example.loss_mask > 0) & (example.weights > 0)
    decode = fake_engine.TOKENIZER.decode
    lines = decode(example.tokens[example.roles == records.ROLES.index('critique')].tolist())
    words = decode(example.tokens[trained].tolist())
    for line in lines.split('\n'):
        choice, *rest = line.strip().split(' ; ')
        assert ' ; '.join(rest) in words and choice not in words
