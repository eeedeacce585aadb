"""docs/metrics.md names every metric that the code writes, no other, and the ranges of warnings."""

import ast
import functools
import json
import math
import pathlib
import re

import pytest

from elenchus.train.rl import diagnostics

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / 'docs/metrics.md').read_text(encoding='utf-8')
ROWS = {
    name: healthy.strip()
    for name, healthy in re.findall(r'^\| `([a-z]+/[\w/]+)` \| .* \|(.*) \|$', PAGE, re.MULTILINE)
}
GROUPS = sorted({name.partition('/')[0] for name in ROWS})
NAME = re.compile(rf'({"|".join(GROUPS)})/(?=.)[A-Za-z_{{}}]*(/[a-z_{{}}]+)*')
COMPUTED = {'time/{}', 'implicit/{}', 'loss/{}'}
"""Texts that build names which the tests take from elsewhere, or that read them."""
BUILT = {
    *('implicit/loss', 'implicit/accuracy', 'implicit/margin'),
    'reward/{}/{}_unknown',
}
"""Names that the code puts together from parts."""
BUILDERS = {
    'train/metrics/speed.py': ('sampling_speed', 'row'),
    'train/run/runner.py': ('write_speeds',),
}
"""Functions whose dicts have names without their group `time/`."""


def pattern(name):
    """Regular expression of a documented name, whose words in capitals stand for several."""
    return re.sub(r'[A-Z]+', r'[\\w{}]+', name)


def text_of(node):
    """A string with {} for what is computed, None of anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return ''.join(p.value if isinstance(p, ast.Constant) else '{}' for p in node.values)
    return None


def keys_of(tree):
    """Texts that are keys of dicts, that index them, or that are assigned to a variable."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            yield from node.keys
        elif isinstance(node, ast.DictComp):
            yield node.key
        elif isinstance(node, ast.Subscript):
            yield node.slice
        elif isinstance(node, ast.Assign):
            yield from node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]


@functools.cache
def metrics_of_the_code():
    """Names of metrics in the source of train/."""
    names = set()
    for path in sorted((ROOT / 'train').rglob('*.py')):
        tree = ast.parse(path.read_text(encoding='utf-8'))
        texts = filter(None, map(text_of, keys_of(tree)))
        names |= {text for text in texts if NAME.fullmatch(text)}
        functions = BUILDERS.get(path.relative_to(ROOT).as_posix(), ())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name in functions:
                words = filter(None, map(text_of, keys_of(node)))
                names |= {f'time/{word}' for word in words if re.fullmatch(r'[a-z_]+', word)}
    return frozenset(names - {'time/tensor'})


def test_every_metric_of_the_code_is_explained():
    names = metrics_of_the_code()
    assert {'loss/nll', 'reward/{}', 'grads/{}', 'time/mfu', 'levels/reward{}_std'} <= names
    known = [re.compile(pattern(name)) for name in ROWS]
    missing = {n for n in names if not any(p.fullmatch(n) for p in known)}
    assert not missing - COMPUTED


def test_every_explained_metric_is_in_the_code():
    names = metrics_of_the_code() | BUILT
    assert not [n for n in ROWS if not any(re.fullmatch(pattern(n), name) for name in names)]


def test_ranges_are_those_that_the_trainer_warns_of():
    for name, healthy in diagnostics.HEALTHY.items():
        low, high = f'{healthy.low:g}', f'{healthy.high:g}'
        text = f'above {low}' if math.isinf(healthy.high) else f'{low} to {high}'
        assert ROWS[name] == text, name


@pytest.mark.slow
def test_every_metric_of_a_run_is_explained(fork, tmp_path):
    stages = "--config.stages=('base','actor','critique','critic','reinforce_both','prefer')"
    # Of these sizes no attempt is right.
    pairs = '--config.prefer.pairs=random'
    words = ['--config=lab:smoke', '--workdir=run', stages, pairs]
    result = fork('elenchus.scripts.run', tmp_path, words)
    assert result.code == 0, result.errors
    names = set()
    for path in tmp_path.glob('run/stages/**/*.jsonl'):
        if path.name in ('metrics.jsonl', 'timing.jsonl'):
            names |= {name for line in path.read_text().splitlines() for name in json.loads(line)}
    names = {re.sub('/(actor|critic)/', '/', name) for name in names - {'step', 'wall'}}
    known = [pattern(name) for name in ROWS]
    assert len(names) > 40
    assert not {n for n in names if not any(re.fullmatch(p, n) for p in known)}
