"""Mistakes of the user in flags, config and data: each is one line, before anything is written."""

import pytest

from elenchus.configs import lab
from elenchus.train.config import build
from tests.support import multi_process

SMOKE = 'configs/lab.py:smoke'

MISTAKES = {
    'unknown field': (['--config.train.bogus=1'], ['train.bogus', 'did you mean --config.train.']),
    'wrong type': (['--config.train.rows=many'], ['train.rows', 'many']),
    'missing GSM8K': (
        ['--config=configs/gsm8k.py:smoke', '--config.data.path=/nowhere'],
        ['config.data: ', "path='/nowhere'", 'train.jsonl', 'put one there'],
    ),
    'missing problems': (
        ['--config.data.source=jsonl', '--config.data.path=/nowhere.jsonl'],
        ['config.data: ', "path='/nowhere.jsonl'", 'expected a file of problems'],
    ),
    'mesh': (['--config.mesh=(3, 1, 1)'], ['mesh=(3, 1, 1)', '1 devices', '(1, 1, 1)']),
    'vocabulary': (['--config.model.vocab_size=32'], ['model.vocab_size=32', '87 ids']),
    'tokenizer file': (
        ['--config.tokenizer.kind=file', '--config.tokenizer.path=no.model'],
        ["tokenizer.path='no.model'", 'tokenizer.py'],
    ),
    'stage': (["--config.stages=('base', 'critik')"], ['stages[1]', "did you mean 'critic'?"]),
    'rows': (['--config.train.num_microbatches=3'], ['train.rows=8', 'nearest: 6']),
    'lengths': (
        ['--config.sampling.attempt_tokens=500'],
        ['reinforce.length=192', 'lower self_talk.tokens and sampling.*_tokens'],
    ),
    'base model': (
        ['--config.base.checkpoint=nowhere'],
        ["base.checkpoint='nowhere'", "or ''"],
    ),
    'critic of its own': (
        ['--config.critic.checkpoint=nowhere'],
        ["critic.checkpoint='nowhere'", "or ''"],
    ),
    'annotator': (
        ['--config.critique.annotator=monte'],
        ["critique.annotator='monte'", "did you mean 'monte_carlo'?"],
    ),
    'missing critiques': (
        ['--config.critique.annotator=file', '--config.critique.annotator_path=nowhere.jsonl'],
        ["critique.annotator_path='nowhere.jsonl'", 'it must be a file of critiques'],
    ),
    'annotating model': (
        ['--config.critique.annotator=model'],
        ["critique.annotator_path=''", 'must be a saved model'],
    ),
    'grammar of free text': (
        ['--config.prompts.grammar=worked'],
        ["prompts.grammar='worked'", "the lab has its own: set it to ''"],
    ),
    'unused path': (
        ['--config.critique.annotator_path=nowhere.jsonl'],
        ["critique.annotator='oracle'", "set it to ''"],
    ),
    'objective': (
        ['--config.reinforce.objective.preset=dr_grpo'],
        ["objective.preset='dr_grpo'", 'objective.constant_length'],
    ),
    'stray argument': (['config.seed=5'], ["unexpected argument 'config.seed=5'"]),
    'heads': (['--config.model.num_kv_heads=3'], ['num_kv_heads=3', 'nearest divisor']),
    'another config': (
        ['--config.seed=5'],
        ["stage '00-base'", 'field seed was 0, now 5', 'new --workdir'],
    ),
    'temperature': (
        ['--config.sampling.temperature=0.0'],
        ['sampling.temperature=0.0 must be at least 0.01', 'nearest: 0.01'],
    ),
    'top k': (['--config.sampling.top_k=-1'], ['sampling.top_k=-1', 'nearest: 0']),
    'top p': (['--config.sampling.top_p=2'], ['sampling.top_p=2', 'nearest: 1.0']),
    'rows of metrics': (['--config.train.log_every=0'], ['train.log_every=0', 'nearest: 1']),
    'rate': (
        ['--config.critic.fit.optimizer.learning_rate=nan'],
        ['critic.fit.optimizer.learning_rate=nan must be a number', 'nearest: 1e-12'],
    ),
    'a group of one': (
        ['--config.reinforce.num_samples=1', '--config.reinforce.samples_per_row=1'],
        ['reinforce.num_samples=1 leaves', 'nearest: 2'],
    ),
    'epsilon': (
        ['--config.reinforce.advantage.epsilon=0'],
        ['reinforce.advantage.epsilon=0.0 must be at least 1e-12'],
    ),
    'an actor that nobody trains': (
        ["--config.stages=('base','actor','critique','critic','self_talk','reinforce')"],
        ["'self_talk' before it makes a newer one", "set reinforce.start='self_talk'"],
    ),
    'a stage without what it reads': (
        ["--config.stages=('base','reinforce')"],
        ["stage 'reinforce' reads stage 'actor'", "add 'actor' before 'reinforce'"],
    ),
}


@pytest.fixture(scope='module')
def mistakes(tmp_path_factory, fork):
    """name -> (workdir, exit code, stderr) of every mistake."""
    folder = tmp_path_factory.mktemp('mistakes')
    workdirs = {name: folder / str(i) for i, name in enumerate(MISTAKES)}
    started = workdirs['another config'] / 'stages' / '00-base'
    started.mkdir(parents=True)
    (started / 'config.json').write_text(build.to_json(lab.get_config('smoke')))
    results = {}
    for name, (changes, _) in MISTAKES.items():
        smoke = [f'--config={SMOKE}'] * (not changes[0].startswith('--config='))
        arguments = [*smoke, *changes, '--workdir', str(workdirs[name])]
        result = fork('elenchus.scripts.run', multi_process.ROOT, arguments)
        results[name] = (workdirs[name], result.code, result.errors)
    return results


@pytest.mark.parametrize('name', MISTAKES)
def test_a_mistake_is_one_line_that_names_field_and_remedy(mistakes, name):
    _, code, errors = mistakes[name]
    assert code == 2, errors
    assert errors.startswith('error: ') and errors.count('\n') == 1, errors
    assert all(word in errors for word in MISTAKES[name][1]), errors


@pytest.mark.parametrize('name', MISTAKES)
def test_a_mistake_writes_nothing(mistakes, name):
    workdir = mistakes[name][0]
    written = [path.name for path in workdir.rglob('*')] if workdir.exists() else []
    expected = ['stages', '00-base', 'config.json'] if name == 'another config' else []
    assert written == expected
