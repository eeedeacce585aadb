"""A run's reflection: ids of its vocabulary, room for a step, and where it is refused."""

import dataclasses

import pytest

from elenchus.configs import lab
from elenchus.configs.methods import reflective_verification
from elenchus.model import memory_estimate
from elenchus.sampling.engine.prompt_lookup import PromptLookup
from elenchus.train.config import build, checks, stage_fields
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.planning import dry_run, sampling_memory
from elenchus.train.run.inputs import with_reflection
from elenchus.train.run.samplers import Samplers
from tests.support import fake_run


def settings_of(**fields):
    config = reflective_verification.get_config('smoke')
    config.sampling.engine.update(fields)
    return build.build(RunSettings, config)


def inputs_of(settings):
    return dataclasses.replace(fake_run.make_inputs(), vocab_size=settings.model.vocab_size)


def encoded(**fields):
    settings = settings_of(**fields)
    return with_reflection(settings, inputs_of(settings).tokenizer)


def test_a_text_becomes_ids_of_the_vocabulary_in_every_sampler():
    settings = settings_of()
    s, inputs = encoded(), inputs_of(settings)
    ids = s.sampling.engine.reflection
    assert [inputs.tokenizer.decode([i]) for i in ids] == ['answer', ':', 'correct', '?']
    samplers = Samplers(s.sampling, inputs).checked()
    for sampler in (samplers.whole_turns(), samplers.lines()):
        assert sampler.engine.settings.lookup.ids == ids
    assert samplers.settings.prompt_room == min(
        s.sampling.engine.prompt_buckets[-1],
        s.sampling.engine.max_length - (2 * 6 + 4 - 1) - s.sampling.attempt_tokens,
    )


def test_without_weight_nothing_is_encoded():
    config = lab.get_config('smoke')
    config.sampling.engine.reflection = 'no word of the lab'
    settings = build.build(RunSettings, config)
    assert with_reflection(settings, inputs_of(settings).tokenizer) is settings
    assert settings.sampling.engine.lookup == PromptLookup(0, 0)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'reflection': ' wait'}, r"reflection=' wait' must be .* this one would be '.*⁇.*'"),
        ({'reflection': 'answer :'}, r"'answer :' must be .* behind a space or a line break"),
        ({'reflection': ''}, r'set sampling\.engine\.reflection; nearest: reflection_weig'),
        ({'draft_tokens': 0, 'draft_ngram': 0}, r'sampling\.engine\.draft_tokens=0 drafts none'),
        ({'reflection_weight': -0.1}, r'sampling\.engine\.reflection_weight=-0\.1 must be at lea'),
    ],
)
def test_what_does_not_fit_is_named_before_a_run_starts(fields, message):
    with pytest.raises(ValueError, match=message) as error:
        encoded(**fields)
    assert '\n' not in str(error.value)


def test_the_longest_conversation_leaves_room_for_a_step():
    s = encoded()
    checks.check_lengths(s, 40)
    tight = dataclasses.replace(s.sampling.engine, max_length=lab_length(s))
    sampling = dataclasses.replace(s.sampling, engine=tight)
    with pytest.raises(ValueError, match=r'sampling\.engine\.max_length=\d+ must be at least'):
        checks.check_lengths(dataclasses.replace(s, sampling=sampling), 64)


def lab_length(settings):
    return settings.sampling.engine.max_length - 2 * 6 - len(reflective_verification.TEXT)


def test_stages_that_train_on_the_samplers_log_probabilities_refuse_it():
    config = reflective_verification.get_config('smoke')
    config.stages = ('base', 'actor', 'critique', 'critic', 'reinforce')
    with pytest.raises(ValueError, match=r"weight=0\.3 changes .* stage 'reinforce' trains on"):
        checks.check_settings(build.build(RunSettings, config))
    config.sampling.engine.reflection_weight = 0.0
    checks.check_settings(build.build(RunSettings, config))


def test_drafts_bind_a_stage_only_behind_a_reflection():
    drafting = 'sampling.engine.draft_tokens'
    assert stage_fields.reads(settings_of(), 'evaluate', drafting)
    assert not stage_fields.reads(settings_of(reflection_weight=0.0), 'evaluate', drafting)
    assert stage_fields.reads(settings_of(), 'evaluate', 'sampling.engine.reflection_weight')
    assert not stage_fields.reads(settings_of(), 'evaluate', 'sampling.engine.prefill_chunk')


def test_the_dry_run_plans_the_wider_step_without_a_tokenizer():
    plans = [
        dry_run.plan_of(settings_of(**changed)) for changed in ({}, {'reflection_weight': 0.0})
    ]
    wide, plain = (plan.sampling.engine for plan in plans)
    assert wide.step_tokens == 2 * 6 + len(reflective_verification.LAB_TEXT)
    assert plain.step_tokens == 1 + 6
    plans = [dataclasses.replace(plan, mesh=(1, 1, 1)) for plan in plans]
    mesh = memory_estimate.abstract_mesh((1, 1, 1))
    logits = [sampling_memory.decode_phase(plan, mesh)['logits'] for plan in plans]
    assert logits[0] * 7 == logits[1] * 13
