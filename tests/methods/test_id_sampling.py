"""ID-Sampling: triggers behind budgets that double, in turns that go on as they were."""

import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.configs.methods import id_sampling
from elenchus.data.text.tokenizer import encode_continuation
from elenchus.sampling import paused_turns
from elenchus.sampling.engine import token_rules
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from tests.support.fake_engine import TOKENIZER


@pytest.mark.parametrize(
    ('rule', 'first'), [(id_sampling.at_budgets, 512), (id_sampling.at_lab_budgets, 24)]
)
def test_a_turn_pauses_behind_b_2b_4b_tokens(rule, first):
    place = jnp.arange(40 * first, dtype='int32')
    where = token_rules.Where(place, place, {}, ())
    paused = np.flatnonzero(rule(place, jnp.zeros((*place.shape, 3)), where)) + 1
    assert paused.tolist() == [first * 2**i for i in range(6)]


def test_the_rules_are_those_of_the_run_and_the_vocabulary_has_the_trigger():
    settings = build.build(RunSettings, id_sampling.get_config('default')).sampling
    rule = token_rules.pause_rule(settings.pause, TOKENIZER, TOKENIZER.vocab_size)
    assert rule.roles == ('attempt', 'refinement')
    function = paused_turns.AFTER_PAUSES.find(settings.after_pause, paused_turns.FIELD)
    text = function('eve 7', paused_turns.Pause('attempt', 24, ()))
    assert TOKENIZER.decode(encode_continuation(TOKENIZER, text)).split() == ['?']
    other = build.build(RunSettings, id_sampling.get_config('gsm8k:tiny')).sampling
    assert other.pause.endswith(':at_budgets') and other.after_pause.endswith(':trigger')
    assert 'Wait' in id_sampling.trigger('', None)


def test_without_the_method_nothing_pauses():
    base = build.build(RunSettings, id_sampling.method.lab.get_config('default')).sampling
    assert (base.pause, base.after_pause) == ('none', 'stop')
