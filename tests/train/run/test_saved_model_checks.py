"""Saved models that a config names: checked when a run opens, by the stages that need them."""

import dataclasses

import pytest

from elenchus.configs import lab
from elenchus.train.checkpoints import saved_models
from elenchus.train.config import build, run_settings
from elenchus.train.run import checks
from tests.support import fake_engine, fake_run, tiny_model

FIELDS = {'improve.teacher': 'vanilla', 'reinforce.teacher': 'reinforce'}
"""Field -> a stage that reads it."""


def check(field, path, *, stages=('base', 'actor', 'critique', 'critic', 'evaluate')):
    config = lab.get_config('smoke')
    config.stages = stages
    config.base.checkpoint = ''
    config.model.vocab_size = tiny_model.CONFIG.vocab_size
    config.reinforce.objective.update(kl='k2', kl_coef=1.0)
    config.update_from_flattened_dict({field: str(path)})
    settings = build.build(run_settings.RunSettings, config)
    checks.check_saved_models(settings, 'abc')


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp('stage') / 'model'
    config = dataclasses.replace(tiny_model.CONFIG, mlp_dim=8)
    saved_models.save_model(folder, tiny_model.make_model(config), tokenizer_fingerprint='abc')
    return folder


@pytest.mark.parametrize(('field', 'stage'), FIELDS.items())
def test_a_teacher_is_checked_where_a_stage_reads_it(tmp_path, saved, field, stage):
    stages = ('base', 'actor', 'critique', 'critic', stage)
    check(field, saved, stages=stages)
    check(field, tmp_path / 'none')  # no stage reads it
    with pytest.raises(ValueError, match=f'folder not found: {field}='):
        check(field, tmp_path / 'none', stages=stages)
    with pytest.raises(
        ValueError, match=rf"{field}=.* is no saved model; nearest: '.*stage\d/model'"
    ):
        check(field, saved.parent, stages=stages)
    (tmp_path / 'config.json').write_text('{}')
    with pytest.raises(ValueError, match=rf'{field}=.*; import it \(scripts.convert import\)'):
        check(field, tmp_path, stages=stages)
    other = tmp_path / 'other'
    small = dataclasses.replace(tiny_model.CONFIG, vocab_size=tiny_model.CONFIG.vocab_size - 8)
    saved_models.save_model(other, tiny_model.make_model(small), tokenizer_fingerprint='abc')
    with pytest.raises(ValueError, match=f"{field}='.*other': model.vocab_size="):
        check(field, other, stages=stages)


def test_verdicts_that_begin_alike_are_refused_before_a_stage_runs(monkeypatch):
    inputs = fake_run.make_inputs(fake_engine.problems(2))
    inputs.check_verdicts()
    monkeypatch.setattr(
        'elenchus.train.run.inputs.tokenizers.encode_continuation', lambda *_: [5, 6]
    )
    with pytest.raises(ValueError, match='begins the verdicts .* with the same token'):
        inputs.check_verdicts()
    for stage in ('evaluate', 'vanilla', 'reinforce'):
        config = lab.get_config('smoke')
        config.stages = ('base', 'actor', 'critique', 'critic', stage)
        with pytest.raises(ValueError, match='begins the verdicts'):
            checks.check_run(build.build(run_settings.RunSettings, config), inputs)
