"""docs/guide/migrating.md: both names of each row exist, and its code is a run."""

import ast
import dataclasses
import importlib.util
import pathlib
import re
import types

import pytest

from elenchus.configs import defaults
from elenchus.sampling import slots
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings

PAGE = (pathlib.Path(__file__).parents[2] / 'docs/guide/migrating.md').read_text(encoding='utf-8')
TUNIX = {
    'GRPOConfig': 'rl/grpo/grpo_learner.py',
    'RLTrainingConfig': 'rl/rl_cluster.py',
    'RolloutConfig': 'rl/rollout/base_rollout.py',
    'DPOTrainingConfig': 'sft/dpo/dpo_trainer.py',
    'TrainingConfig': 'sft/peft_trainer.py',
}
"""Class -> its file in the package `tunix`."""


def tables():
    """Yields (library, classes, rows) of each table; a row is its two names."""
    for library, head, body in re.findall(
        r'^\| (TRL|Tunix), (.*?) \| here \| remark \|\n\|---.*\n((?:\|.*\n)+)', PAGE, re.MULTILINE
    ):
        cells = [line.strip('|').split('|')[:2] for line in body.splitlines()]
        rows = [[cell.strip().strip('`') for cell in row] for row in cells]
        yield library, re.findall(r'`(\w+)`', head), rows


def test_every_field_of_ours_exists():
    config, count = defaults.get_config(), 0
    for _, _, rows in tables():
        for _, name in rows:
            value = config
            for part in name.split('.') if name else ():
                assert part in value, name
                value = value[part]
            count += bool(name)
    assert count > 50


def test_every_field_of_trl_exists():
    trl = pytest.importorskip('trl')
    for library, classes, rows in tables():
        if library == 'TRL':
            names = {field.name for c in classes for field in dataclasses.fields(getattr(trl, c))}
            assert not {name for name, _ in rows} - names


def test_every_field_of_tunix_exists():
    spec = importlib.util.find_spec('tunix')
    if spec is None:
        pytest.skip("tunix is missing: pip install -e '.[tunix]'")
    folder = pathlib.Path(next(iter(spec.submodule_search_locations)))
    for library, classes, rows in tables():
        if library == 'Tunix':
            names = set()
            for name in [*classes, 'TrainingConfig', 'GRPOConfig'] if rows else ():
                tree = ast.parse((folder / TUNIX[name]).read_text(encoding='utf-8'))
                (owner,) = [n for n in tree.body if getattr(n, 'name', '') == name]
                names |= {ast.unparse(n.target) for n in owner.body if isinstance(n, ast.AnnAssign)}
            assert not {name for name, _ in rows} - names


def test_the_code_is_a_config_and_a_reward(tmp_path):
    config, reward = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
    for text in (config, reward):
        (tmp_path / re.match(r'# (\S+)', text)[1].rpartition('/')[2]).write_text(text)
    config_of_page = slots.load(f'{tmp_path / "from_trl.py"}:get_config').function()
    settings = build.build(RunSettings, config_of_page)
    assert settings.reinforce.objective.clip_high == 0.2
    assert settings.reinforce.optimizer.learning_rate == 1e-6
    turn = types.SimpleNamespace(text='x' * 500, problem=types.SimpleNamespace(question='?'))
    brief = slots.load(f'{tmp_path / "rewards.py"}:brief').function
    assert brief([turn]) == [-0.5]
