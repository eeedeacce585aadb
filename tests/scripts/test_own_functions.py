"""Functions of a user's own, in a folder of their own, through `scripts.run`."""

import json
import signal

import pytest

CONFIG = '''
"""A reward, an advantage with a memory, weights in the loss, a rule of logits, and a figure."""

import jax.numpy as jnp
import numpy as np

from elenchus.configs import lab

BONUS = 0.5


def digits(turns):
    return [BONUS * any(c.isdigit() for c in turn.text) - 0.01 * i for i, turn in enumerate(turns)]


def remembered(returns, context):
    return np.round(returns - context.state.get('mean', 0.0), 6)


def update(returns, context):
    groups = context.state.get('groups', 0) + 1
    return {'mean': float(returns.mean()), 'groups': groups}


remembered.update = update


def tilt(logits, where):
    bias = jnp.where(where.turn_position % 7 < 3, 0.5, -0.5)
    return logits.at[..., jnp.array(where.ids['wrong'])].add(bias[..., None])


tilt.words = ('wrong',)
tilt.roles = ('attempt', 'critique', 'refinement')


def until_two(text, pause):
    return text.count('####') < 2


def half(logprobs, entropy, batch):
    return jnp.full_like(logprobs, 0.5)


def get_config(arg='default'):
    config = lab.get_config('smoke')
    config.stages = ('base', 'actor', 'critique', 'critic', 'reinforce', 'evaluate')
    config.reinforce.rewards.functions = ((f'{__file__}:digits', 2.0),)
    config.reinforce.advantage.outcome = f'{__file__}:remembered'
    config.reinforce.advantage.step_coef = 0.0
    config.actor.fit.reweigh = f'{__file__}:half'
    config.sampling.logits = f'{__file__}:tilt'
    config.sampling.pause = 'line'
    config.sampling.after_pause = f'{__file__}:until_two'
    config.evaluate.measures = (__file__.replace('mine.py', 'figures.py') + ':lengths',)
    return config
'''
FIGURES = """
def lengths(groups, read):
    texts = [read(e.attempt) for group in groups for e in group]
    return {'episodes': len(texts), 'mean characters': sum(map(len, texts)) / len(texts)}
"""


@pytest.fixture
def start(fork):
    return lambda folder, **options: fork(
        'elenchus.scripts.run', folder, (f'--config={folder}/mine.py', '--workdir=run'), **options
    )


def rows_of(folder):
    lines = (folder / 'run/stages/04-reinforce/metrics.jsonl').read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_a_folder_of_ones_own_runs_resumes_and_is_not_continued_with_another_function(
    tmp_path, start
):
    first, whole = tmp_path / 'first', tmp_path / 'whole'
    for folder in (first, whole):
        folder.mkdir()
        (folder / 'mine.py').write_text(CONFIG)
        (folder / 'figures.py').write_text(FIGURES)
    place = first / 'run/stages/04-reinforce/checkpoints/2'
    assert start(first, kill_at=place).code == -signal.SIGKILL
    for folder in (first, whole):
        result = start(folder)
        assert result.code == 0, result.errors[-3000:]
    assert rows_of(first) == rows_of(whole)  # the memory was in the checkpoint
    assert rows_of(whole)[0]['reward/digits'] <= 0.5
    assert all(row['sampler/gap'] < 1e-5 for row in rows_of(whole))
    (summary,) = (whole / 'run/stages').glob('05-evaluate/summary.json')
    assert json.loads(summary.read_text())['own_measures']['lengths']['episodes'] == 20
    for old, new in (
        ('BONUS = 0.5', 'BONUS = 0.6'),
        ("'groups', 0) + 1", "'groups', 0) + 2"),
        ('logprobs, 0.5', 'logprobs, 0.4'),
        ('% 7 < 3', '% 7 < 4'),
        ("count('####') < 2", "count('####') < 3"),
    ):
        (first / 'mine.py').write_text(CONFIG.replace(old, new))
        result = start(first)
        assert result.code == 2, result.errors[-3000:]
        (line,) = result.errors.strip().splitlines()[-1:]
        assert "another function 'mine.py:" in line
    (first / 'mine.py').write_text(CONFIG)
    (first / 'figures.py').write_text(FIGURES.replace('texts)) /', 'texts[:9])) /'))
    result = start(first)
    assert result.code == 2 and "another function 'figures.py:" in result.errors
    (first / 'figures.py').write_text(FIGURES)
    (first / 'mine.py').write_text('# The same functions.\n' + CONFIG)
    assert start(first).code == 0
    moved = first.rename(tmp_path / 'moved')
    result = start(moved)
    assert result.code == 0, result.errors[-3000:]


@pytest.mark.slow
def test_errors_in_functions_are_one_line_and_a_run_goes_on_once_they_are_repaired(tmp_path, start):
    """At the start before anything is written, and in the middle of a stage."""
    for old, new, expected in (
        ('tilt.words', '1 / 0\ntilt.words', 'line 33: ZeroDivisionError'),
        ("where.ids['wrong']", "where.ids['right']", "raised KeyError: 'right'"),
        ("('wrong',)", "('rong',)", "'rong' is no single token"),
        (
            'return logits.at',
            'return bias\n    return logits.at',
            'it must return numbers of shape [2',
        ),
    ):
        (tmp_path / 'mine.py').write_text(CONFIG.replace(old, new))
        (tmp_path / 'figures.py').write_text(FIGURES)
        result = start(tmp_path)
        assert result.code == 2 and expected in result.errors, result.errors[-3000:]
        assert 'Traceback' not in result.errors and not (tmp_path / 'run').exists()
    short = CONFIG.replace("'reinforce', ", '')
    (tmp_path / 'mine.py').write_text(short)
    (tmp_path / 'figures.py').write_text(FIGURES.replace('read(e.attempt)', 'read(e.atempt)'))
    result = start(tmp_path)
    assert result.code == 2 and 'Traceback' not in result.errors, result.errors[-3000:]
    (line,) = [line for line in result.errors.splitlines() if line.startswith('error:')]
    assert 'evaluate.measures: lengths (' in line and 'figures.py:3) raised AttributeError' in line
    folder = tmp_path / 'run/stages/04-evaluate'
    assert not (folder / 'summary.json').exists()
    (tmp_path / 'figures.py').write_text(FIGURES)
    result = start(tmp_path)
    assert result.code == 0, result.errors[-3000:]
    assert json.loads((folder / 'summary.json').read_text())['own_measures']
