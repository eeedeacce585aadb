"""Documents of the lab's base model."""

import dataclasses
import random

import numpy as np
import pytest

from elenchus.configs import lab
from elenchus.data import records
from elenchus.data.lab import conversations, forms
from elenchus.train.config import base_settings, build, run_settings
from elenchus.train.stages import actor, base_model
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
    settings = dataclasses.replace(SETTINGS.base, shares=base_settings.BaseShares(**shares))
    data = dataclasses.replace(SETTINGS.data, form=form)
    example = base_model.lab_document(settings, fake_engine.CHAT, 7, data=data)
    trained = example.loss_mask > 0
    assert {records.ROLES[role] for role in example.roles[trained]} == {KINDS[kind]}
    weighed = fake_engine.TOKENIZER.decode(example.tokens[trained & (example.weights > 0)].tolist())
    words = set(weighed.split())
    digits = words & set('0123456789')
    if kind == 'drill':
        assert words == digits
    else:
        assert words > digits


def test_lazy_examples_are_built_when_they_are_read():
    read = []
    examples = LazyExamples(10**9, lambda i: read.append(i) or i)
    assert len(examples) == 10**9 and examples[np.int64(7)] == 7 and read == [7]


def test_a_refinement_is_trained_on_no_constant_that_its_critique_does_not_tell():
    form, encode = forms.FORMS['tail'], fake_engine.TOKENIZER.encode
    for index in range(7, 160, 8):
        problem = forms.generate_problem(seed=0, split='train', index=index, form=form)
        talk = conversations.converse(problem, rng=random.Random(index))
        example = actor.refinement_example(fake_engine.CHAT, talk)
        unknown = np.isin(example.tokens, [encode(name)[0] for name in talk.unknown])
        refined = example.roles == records.ROLES.index('refinement')
        after = np.roll(unknown, 1) & refined
        trained = (example.loss_mask > 0) & (example.weights > 0)
        assert not (trained & after).any()
        assert (trained | after)[refined & (example.loss_mask > 0)].all()
