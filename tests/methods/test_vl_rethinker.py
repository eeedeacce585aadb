"""VL-Rethinker: which responses think again, and that replay is on."""

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import vl_rethinker
from elenchus.data.text.tokenizer import encode_continuation
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.rl import restarts
from tests.support.fake_engine import TOKENIZER
from tests.support.method_cases import group, talk, written


def group_of(answers):
    return group(*(talk(written('attempt', (5,) * 3, answer=answer)) for answer in answers))


@given(st.lists(st.sampled_from(['7', None]), min_size=1, max_size=9), st.integers(0, 99))
def test_at_most_two_responses_that_have_an_answer_think_again(answers, seed):
    plan = vl_rethinker.rethink(group_of(answers), np.random.default_rng(seed))
    chosen = [i for i, item in enumerate(plan) if item is not None]
    assert len(plan) == len(answers) and len(chosen) <= 2
    assert all(answers[i] is not None for i in chosen)
    assert all(plan[i] == (i, 3, '\n\nWait, does it seem right?') for i in chosen)


def test_the_share_of_responses():
    rng = np.random.default_rng(0)
    count = sum(vl_rethinker.rethink(group_of(['7']), rng) != [None] for _ in range(2000))
    assert abs(count / 2000 - 0.65) < 3 * (0.65 * 0.35 / 2000) ** 0.5


def test_the_rule_keeps_what_was_sampled_and_only_right_ones():
    for variant, trigger in (('default', 'answer :'), ('gsm8k:tiny', 'Wait,')):
        settings = build.build(RunSettings, vl_rethinker.get_config(variant)).reinforce
        rule = restarts.RESTARTS.find(settings.turns.restart, restarts.FIELD)
        assert rule.trains_beginning and rule.keeps_right
        plan = rule(group_of(['7']), np.random.default_rng(1))
        assert trigger in plan[0][2]
        assert settings.replay_groups == 2 * settings.num_problems
        assert not settings.reuses_update_logprobs
    ids = encode_continuation(TOKENIZER, '\n answer :')
    assert TOKENIZER.decode(ids).split() == ['answer', ':']


def test_off_the_settings_are_those_of_reinforcement():
    plain = build.build(RunSettings, vl_rethinker.method.lab.get_config('default')).reinforce
    assert (plain.turns.restart, plain.replay_groups) == ('none', 0)
    changed = build.build(RunSettings, vl_rethinker.get_config('default')).reinforce
    fields = {f.name for f in dataclasses.fields(plain)}
    differ = {n for n in fields if getattr(plain, n) != getattr(changed, n)}
    assert differ == {'start', 'turns', 'replay_groups', 'advantage', 'length', 'critic_length'}
