"""Opening a run whose tokenizer, template and test problems are not the house's own."""

import json
import typing

import pytest

from elenchus.configs import gsm8k, lab
from elenchus.data.grading import verify
from elenchus.data.problems import loading
from elenchus.data.text import chat_templates
from elenchus.data.text import tokenizer as tokenizers
from elenchus.train.config import build, checks, run_settings
from elenchus.train.run import workspace
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


def config_of(folder, *, file='tokenizer.json', template='chatml', **data):
    config = gsm8k.get_config('smoke')
    config.mesh = (8, 1, 1)
    config.tokenizer.update({'kind': 'file', 'path': str(folder / file), 'template': template})
    config.data.update({'path': str(folder / 'gsm8k'), 'data_dir': str(folder / 'data'), **data})
    return config


def opened(folder, **changes):
    with verify.Verifier(num_workers=1, timeout_s=1.0) as verifier:
        return workspace.Workspace(config_of(folder, **changes), folder / 'run', verifier=verifier)


def test_a_tokenizer_json_is_read_saved_and_sampled_with_its_own_end(folder):
    run = opened(folder)
    tokenizer = run.tokenizer
    assert tokenizers.find_tokenizer_file(folder / 'run') is None  # opening alone writes nothing
    with run:
        assert (
            tokenizers.load_tokenizer(tokenizers.find_tokenizer_file(folder / 'run')) == tokenizer
        )
    end = tokenizer.special('<|im_end|>')
    assert run.sampler().engine.stop_ids == (end,)
    assert set(run.line_sampler().engine.stop_ids) == {end, *tokenizer.newline_ids}
    others = tokenizer.special_ids - {end}
    unused = set(range(tokenizer.vocab_size, run.settings.model.vocab_size))
    assert set(run.banned) == others | unused
    with pytest.raises(ValueError, match='same token'):  # so small a one has only their space
        assert run.verdict_ids


@pytest.mark.parametrize(('drafts', 'told'), [(0, None), (3, 2.5)])
def test_a_stage_tells_its_own_tokens_a_step_where_it_drafts(folder, drafts, told):
    def body(run, _):
        engine = run.sampler().engine
        engine.tokens, engine.steps = engine.tokens + 30, engine.steps + 12
        return {}

    config = config_of(folder)
    config.sampling.engine.update({'draft_tokens': drafts, 'draft_ngram': min(drafts, 2)})
    with (
        verify.Verifier(num_workers=1, timeout_s=1.0) as verifier,
        workspace.Workspace(config, folder / 'run', verifier=verifier) as run,
    ):
        engine = run.sampler().engine
        engine.tokens, engine.steps = 100, 1  # before the stage
        assert run.run_stage('evaluate', body).get('tokens_per_step') == told


def test_a_model_file_is_read_under_another_family_s_template(folder):
    run = opened(folder, file='tokenizer.model', template='gemma')
    assert run.tokenizer.special('<end_of_turn>') == run.chat.end_id


def test_the_test_problems_may_be_of_another_set(folder):
    given = {'test_source': 'svamp', 'test_path': str(folder / 'svamp')}
    run = opened(folder, **given)
    assert {p.source for p in run.train_problems} == {'gsm8k'}
    assert {p.source for p in run.test_problems} == {'svamp'}


def test_a_template_that_the_tokenizer_cannot_spell_is_refused_before_anything_is_written(folder):
    with pytest.raises(ValueError, match="template 'llama3'"):
        opened(folder, template='llama3')
    assert not (folder / 'run').exists()


def test_a_kernel_of_other_hardware_is_refused_before_anything_is_written(folder):
    config = config_of(folder)
    config.model.attention = 'splash'
    message = r"model\.attention='splash' runs on tpu .*'einsum'"
    with (
        verify.Verifier(num_workers=1, timeout_s=1.0) as verifier,
        pytest.raises(ValueError, match=message),
    ):
        workspace.Workspace(config, folder / 'run', verifier=verifier)
    assert not (folder / 'run').exists()


def test_settings_name_every_template_and_source():
    assert typing.get_args(run_settings.TemplateName) == tuple(chat_templates.TEMPLATES)
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


def test_lengths_count_what_stands_between_turns():
    s = build.build(run_settings.RunSettings, lab.get_config('smoke'))
    checks.check_lengths(s, 10, overhead=1)
    with pytest.raises(ValueError, match='must be at least'):
        checks.check_lengths(s, 10, overhead=100)
