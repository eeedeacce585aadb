"""The table of sections that stages read is what their code reads."""

import ast
import inspect

import pytest

from elenchus.train import stages
from elenchus.train.config import stage_fields
from elenchus.train.config.run_settings import RunSettings

SECTIONS = set(RunSettings.__dataclass_fields__)
ARGUMENTS = {name: stage.arguments for name, stage in stages.STAGES.items()}


def functions_of(module):
    tree = ast.parse(inspect.getsource(module))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def sections_read(name, functions, seen):
    """Sections of `run.settings` that a function names, with those of the functions it calls."""
    if name in seen or name not in functions:
        return set()
    seen.add(name)
    result, aliases = set(), {'run.settings'}
    for node in ast.walk(functions[name]):
        if isinstance(node, ast.Assign):  # s = run.settings; s, other = run.settings, ...
            sides = (node.targets[0], node.value)
            targets, values = (getattr(side, 'elts', [side]) for side in sides)
            for target, value in zip(targets, values, strict=False):
                aliases |= {ast.unparse(target)} if ast.unparse(value) == 'run.settings' else set()
    for node in ast.walk(functions[name]):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in aliases:
            result |= {node.attr} & SECTIONS
        if isinstance(node, ast.Attribute) and ast.unparse(node) == 'run.samplers':
            result.add('sampling')
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            result |= sections_read(node.func.id, functions, seen)
    return result


@pytest.mark.parametrize('stage', stages.STAGES)
def test_the_arguments_of_a_stage_read_only_its_sections(stage):
    function = getattr(ARGUMENTS[stage], 'func', ARGUMENTS[stage]).__name__
    functions = functions_of(stages)
    read = sections_read(function, functions, set())
    allowed = {name.partition('.')[0] for name in stage_fields.ALL_STAGES}
    allowed |= set(stage_fields.SECTIONS[stage]) | {'stages'}
    # Read only with improve.retrain_critic, which `reads` knows.
    allowed |= {'critic', 'critique'} if function == 'improve_arguments' else set()
    assert read and read <= allowed, read - allowed


def test_every_stage_has_its_sections():
    assert set(stage_fields.SECTIONS) == set(stages.STAGES)
    assert {name for names in stage_fields.SECTIONS.values() for name in names} <= SECTIONS
