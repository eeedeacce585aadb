"""Opening a run with another family's tokenizer and template, and with other test problems."""

import json
import pathlib
import typing
from unittest import mock

import jax
import pytest
from etils import epath

from elenchus.configs import gsm8k, lab
from elenchus.data.grading import verify
from elenchus.data.lab import task
from elenchus.data.problems import loading
from elenchus.data.text import auto_chat
from elenchus.data.text import tokenizer as tokenizers
from elenchus.train.checkpoints import saved_models
from elenchus.train.config import build, run_settings
from elenchus.train.run import inputs, runner, session
from elenchus.train.run import problems as problem_lib
from elenchus.train.run.directory import RunDirectory
from elenchus.train.stages import Stage
from tests.support import hf_tokenizers

QUESTION = {'question': 'Ann has 3 pens and buys 4. How many?', 'answer': '3 + 4 = 7 pens.\n#### 7'}
SVAMP = {
    'Body': 'Ann has 3 pens and buys 4.',
    'Question': 'How many?',
    'Equation': '( 3.0 + 4.0 )',
    'Answer': 7.0,
}


@pytest.fixture
def folder(tmp_path):
    for name, record in (('gsm8k', QUESTION), ('svamp', SVAMP)):
        (tmp_path / name).mkdir()
        for split in ('train', 'test'):
            lines = (json.dumps(record) + '\n') * (60 if split == 'train' else 10)
            (tmp_path / name / f'{split}.jsonl').write_text(lines)
    files = hf_tokenizers.files(hf_tokenizers.golden()['merges'])
    (tmp_path / 'tokenizer.json').write_text(files['chatml'])
    (tmp_path / 'tokenizer.model').write_bytes(files['gemma.model'])
    return tmp_path


@pytest.fixture(autouse=True)
def unscored(monkeypatch):
    """The tokenizers here are too small to tell verdicts apart, and no test scores any."""
    monkeypatch.setattr(inputs.RunInputs, 'check_verdicts', lambda _: None)


def config_of(folder, *, file='tokenizer.json', template='chatml', **data):
    config = gsm8k.get_config('smoke')
    config.mesh = (8, 1, 1)
    config.tokenizer.update({'kind': 'file', 'path': str(folder / file), 'template': template})
    config.data.update({'path': str(folder / 'gsm8k'), 'data_dir': str(folder / 'data'), **data})
    return config


def opened(folder, **changes):
    with verify.Verifier(num_workers=1, timeout_s=1.0) as verifier:
        return session.open_run(config_of(folder, **changes), folder / 'run', verifier=verifier)


def test_a_tokenizer_json_is_read_saved_and_sampled_with_its_own_end(folder):
    run = opened(folder)
    tokenizer = run.inputs.tokenizer
    assert tokenizers.find_tokenizer_file(folder / 'run') is None  # opening alone writes nothing
    with run.started():
        assert (
            tokenizers.load_tokenizer(tokenizers.find_tokenizer_file(folder / 'run')) == tokenizer
        )
    end = tokenizer.special('<|im_end|>')
    assert run.samplers.whole_turns().engine.stop_ids == (end,)
    assert set(run.samplers.lines().engine.stop_ids) == {end, *tokenizer.newline_ids}
    others = tokenizer.special_ids - {end}
    unused = set(range(tokenizer.vocab_size, run.settings.model.vocab_size))
    assert set(run.inputs.banned_ids) == others | unused
    with pytest.raises(ValueError, match='same token'):  # so small a one has only their space
        assert run.inputs.verdict_ids


@pytest.mark.parametrize(('drafts', 'tokens_per_step'), [(0, None), (3, 2.5)])
def test_a_stage_reports_its_own_tokens_per_step_if_it_drafts(
    folder, monkeypatch, drafts, tokens_per_step
):
    def body(stage, samplers):
        engine = samplers.whole_turns().engine
        engine.tokens, engine.steps = engine.tokens + 30, engine.steps + 12
        return {}

    stage = Stage(body, lambda run: {'samplers': run.samplers})
    monkeypatch.setattr(runner, 'STAGES', {'evaluate': stage})
    config = config_of(folder)
    config.sampling.engine.update({'draft_tokens': drafts, 'draft_ngram': min(drafts, 2)})
    with (
        verify.Verifier(num_workers=1, timeout_s=1.0) as verifier,
        session.open_run(config, folder / 'run', verifier=verifier).started() as run,
    ):
        engine = run.samplers.whole_turns().engine
        engine.tokens, engine.steps = 100, 1  # before the stage
        assert runner.run_stage(run, 'evaluate').get('tokens_per_step') == tokens_per_step


def test_a_model_file_is_read_under_another_family_s_template(folder):
    run = opened(folder, file='tokenizer.model', template='gemma')
    assert run.inputs.tokenizer.special('<end_of_turn>') == run.inputs.chat.end_id


def test_the_test_problems_may_be_of_another_set(folder):
    data = {'test_source': 'svamp', 'test_path': str(folder / 'svamp')}
    run = opened(folder, **data)
    assert {p.source for p in run.inputs.train_problems} == {'gsm8k'}
    assert {p.source for p in run.inputs.test_problems} == {'svamp'}


def test_what_is_tuned_is_evaluated_on_validation_problems(folder):
    with pytest.raises(ValueError) as error:
        opened(folder, test_split='validation')
    assert str(error.value).endswith(
        "validation-00000-of-00001.parquet); put one there; or set data.test_split='test'"
    )
    assert '\n' not in str(error.value) and not (folder / 'run').exists()
    path = pathlib.Path(config_of(folder).data.path)
    (path / 'validation.jsonl').write_bytes((path / 'test.jsonl').read_bytes())
    run = opened(folder, test_split='validation')
    assert all(problem.id.startswith('gsm8k/validation/') for problem in run.inputs.test_problems)


@pytest.mark.parametrize('split', ['validation', 'test'])
def test_the_labs_splits_share_no_problem(tmp_path, split):
    config = lab.get_config('smoke')
    config.data.update({'test_split': split, 'data_dir': str(tmp_path)})
    settings = build.build(run_settings.RunSettings, config)
    problems = [row.problem for row in problem_lib.load_rows(settings, 'test')]
    assert len(problems) == config.data.num_test
    assert {task.split_of(problem.question) for problem in problems} == {split}
    train = problem_lib.load_rows(settings, 'train')
    assert not {p.question for p in problems} & {row.problem.question for row in train}


def test_a_template_that_the_tokenizer_cannot_spell_is_refused_before_anything_is_written(folder):
    with pytest.raises(ValueError, match="template 'llama3'"):
        opened(folder, template='llama3')
    assert not (folder / 'run').exists()


@pytest.mark.slow
def test_a_system_message_of_the_settings_is_read_saved_and_refused_by_field(folder, tmp_path):
    def opened_with(template, system, **reinforce):
        config = config_of(folder, template=template)
        config.tokenizer.system = system
        config.reinforce.turns.update(reinforce)
        if reinforce:
            config.stages = ('base', 'actor', 'critique', 'critic', 'evaluate', 'reinforce')
        with verify.Verifier(num_workers=1, timeout_s=1.0) as verifier:
            return session.open_run(config, folder / 'run', verifier=verifier)

    run = opened_with('qwen2.5-math', 'Be brief.')
    prompt = run.inputs.chat.context(run.inputs.chat.question_turns('Why?'), 'attempt')
    assert 'Be brief.' in run.inputs.tokenizer.decode(prompt)
    run.store.save(tmp_path / 'saved', run.init_model())
    assert saved_models.saved_chat(tmp_path / 'saved') == {
        'template': 'qwen2.5-math', 'system': 'Be brief.',
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"tokenizer\.system='x': template 'gemma' has no system"):
        config = config_of(folder, file='tokenizer.model', template='gemma')
        config.tokenizer.system = 'x'
        with verify.Verifier(num_workers=1, timeout_s=1.0) as verifier:
            session.open_run(config, folder / 'run', verifier=verifier)
    opened_with('qwen3', 'published', episode='attempt')
    opened_with('chatml', 'published', episode='correction')
    with pytest.raises(ValueError, match=r"episode='correction' trains two turns, .*'qwen3' only"):
        opened_with('qwen3', 'published', episode='correction')


def test_a_kernel_of_other_hardware_is_refused_before_anything_is_written(folder):
    config = config_of(folder)
    config.model.attention = 'splash'
    message = r"model\.attention='splash' runs on tpu .*'einsum'"
    with (
        verify.Verifier(num_workers=1, timeout_s=1.0) as verifier,
        pytest.raises(ValueError, match=message),
    ):
        session.open_run(config, folder / 'run', verifier=verifier)
    assert not (folder / 'run').exists()


@pytest.mark.parametrize(('name', 'spelt'), [('float32', 'HIGHEST'), ('bfloat16', 'DEFAULT')])
def test_float32_products_have_the_precision_of_the_config(folder, name, spelt):
    """On a TPU, JAX would multiply float32 arrays in bfloat16."""
    config = config_of(folder)
    config.matmul_precision = name
    with verify.Verifier(num_workers=1, timeout_s=1.0) as verifier:
        session.open_run(config, folder / 'run', verifier=verifier)
    x = jax.ShapeDtypeStruct((4, 4), 'float32')
    assert spelt in jax.jit(lambda x: x @ x).lower(x).as_text()


def test_settings_name_every_template_and_source():
    assert typing.get_args(run_settings.TemplateName) == auto_chat.template_names()
    hints = typing.get_type_hints(run_settings.DataSettings)
    assert set(typing.get_args(hints['source'])) == set(loading.SOURCES)
    assert set(typing.get_args(hints['test_source'])) == {'', *loading.SOURCES} - {'lab'}


@pytest.mark.parametrize(
    'name, data, message',
    [
        ('lab', {'test_source': 'svamp'}, r"test_source='svamp' must be ''"),
        ('gsm8k', {'test_path': 'somewhere'}, r"test_path='somewhere' needs data\.test_source"),
    ],
)
def test_test_problems_that_cannot_be_used_are_refused(name, data, message):
    config = {'lab': lab, 'gsm8k': gsm8k}[name].get_config('smoke')
    config.data.update(data)
    with pytest.raises(ValueError, match=message):
        build.build(run_settings.RunSettings, config)


# Players


@pytest.mark.parametrize(
    ('between', 'actor', 'critic'),
    [
        ((), '00-actor/model', '01-critic/model'),
        (('reinforce',), '02-reinforce/model', '01-critic/model'),
        (('vanilla', 'reinforce_critic'), '02-vanilla/model', '03-reinforce_critic/model'),
        (('reinforce_both',), '02-reinforce_both/actor/model', '02-reinforce_both/critic/model'),
    ],
)
def test_evaluation_loads_the_latest_actor_and_critic_before_it(tmp_path, between, actor, critic):
    config = lab.get_config('smoke')
    config.stages = ('actor', 'critic', *between, 'evaluate', 'critique_in_the_loop')
    directory = RunDirectory(epath.Path(tmp_path), '{}', config.stages, 1)
    for path in (actor, critic):
        (tmp_path / 'stages' / path).mkdir(parents=True)
    store = mock.Mock()
    store.load = lambda folder: folder.relative_to(tmp_path / 'stages').as_posix()
    settings = build.build(run_settings.RunSettings, config)
    run = session.Run(settings, directory, inputs=None, samplers=None, store=store, mesh=None)
    assert run.load_latest('actor', before='evaluate') == actor
    assert run.load_latest('critic', before='evaluate') == critic


def test_the_instruction_of_corrections_counts_in_the_lengths_when_a_run_opens(folder):
    """A later instruction of the user must fit: the run is refused before anything is sampled."""
    config = config_of(folder)
    config.reinforce.turns.episode = 'correction'
    config.reinforce.length = config.train.length = config.model.max_length

    def run_with(text):
        config.reinforce.turns.correction = text
        with verify.Verifier(num_workers=1, timeout_s=1.0) as verifier:
            return session.open_run(config, folder / 'run', verifier=verifier)

    with pytest.raises(ValueError, match=r'=\d+ must be at least \d+') as error:
        run_with('Look again. ' * 300)
    assert '\n' not in str(error.value)
    run = run_with('Look again.')
    assert run.inputs.chat.correction == 'Look again.'


@pytest.mark.parametrize('episode', ['correction', 'critique'])
def test_two_trained_turns_are_refused_where_a_template_trains_only_the_last(folder, episode):
    config = config_of(folder, template='qwen3')
    config.reinforce.turns.episode = episode
    config.reinforce.length = config.train.length = config.model.max_length
    with (
        verify.Verifier(num_workers=1, timeout_s=1.0) as verifier,
        pytest.raises(ValueError, match=rf"episode='{episode}' trains two turns.*'qwen3'") as error,
    ):
        session.open_run(config, folder / 'run', verifier=verifier)
    assert '\n' not in str(error.value)
