"""Functions of a user's own, in a folder of their own, through `scripts.run`."""

import json
import signal

import pytest

CONFIG = '''
"""A reward, an advantage with a memory, weights in the loss, and a figure."""

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


def half(logprobs, entropy, batch):
    return jnp.full_like(logprobs, 0.5)


def lengths(groups, read):
    texts = [read(e.attempt) for group in groups for e in group]
    return {'episodes': len(texts), 'mean characters': sum(map(len, texts)) / len(texts)}


def get_config(arg='default'):
    config = lab.get_config('smoke')
    config.stages = ('base', 'actor', 'critique', 'critic', 'reinforce', 'evaluate')
    config.reinforce.rewards.functions = ((f'{__file__}:digits', 2.0),)
    config.reinforce.advantage.outcome = f'{__file__}:remembered'
    config.reinforce.advantage.step_coef = 0.0
    config.actor.fit.reweigh = f'{__file__}:half'
    config.evaluate.measures = (f'{__file__}:lengths',)
    return config
'''


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
    place = first / 'run/stages/04-reinforce/checkpoints/2'
    assert start(first, kill_at=place).code == -signal.SIGKILL
    for folder in (first, whole):
        result = start(folder)
        assert result.code == 0, result.errors[-3000:]
    assert rows_of(first) == rows_of(whole)  # the memory was in the checkpoint
    assert rows_of(whole)[0]['reward/digits'] <= 0.5
    (summary,) = (whole / 'run/stages').glob('05-evaluate/summary.json')
    assert json.loads(summary.read_text())['own_measures']['lengths']['episodes'] == 20
    for old, new in (
        ('BONUS = 0.5', 'BONUS = 0.6'),
        ("'groups', 0) + 1", "'groups', 0) + 2"),
        ('logprobs, 0.5', 'logprobs, 0.4'),
        ('map(len, texts)', 'map(len, texts[:9])'),
    ):
        (first / 'mine.py').write_text(CONFIG.replace(old, new))
        result = start(first)
        assert result.code == 2, result.errors[-3000:]
        (line,) = result.errors.strip().splitlines()[-1:]
        assert "another function 'mine.py:" in line
    (first / 'mine.py').write_text('# The same functions.\n' + CONFIG)
    assert start(first).code == 0
    moved = first.rename(tmp_path / 'moved')
    result = start(moved)
    assert result.code == 0, result.errors[-3000:]
