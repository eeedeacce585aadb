"""The notebook of the first run: its commands exist, its outputs are those of one execution."""

import json
import pathlib
import re

import pytest

from tests import test_readme

ROOT = pathlib.Path(__file__).parents[2]
PATH = ROOT / 'docs/guide/first_run.ipynb'
CELLS = json.loads(PATH.read_text(encoding='utf-8'))['cells']
CODE = [cell for cell in CELLS if cell['cell_type'] == 'code']


def outputs_of(cell):
    """All text of the outputs of a cell."""
    return json.dumps(cell['outputs'])


def failed(cells) -> list[str]:
    """Sources of the cells of which a command ended with an error: it is no exception."""
    texts = {
        ''.join(cell['source']): ''.join(''.join(o.get('text', '')) for o in cell['outputs'])
        for cell in cells
    }
    return [source for source, text in texts.items() if re.search('^error: ', text, re.MULTILINE)]


def test_its_commands_name_scripts_configs_and_flags_that_exist():
    sources = ''.join(''.join(cell['source']) + '\n' for cell in CODE)
    lines = [line for line in test_readme.joined_lines(sources) if line.startswith('!')]
    assert len(lines) >= 4
    assert not [fault for line in lines for fault in test_readme.check_command(line)]


def test_its_outputs_are_of_one_whole_execution_or_there_are_none():
    counts = [cell['execution_count'] for cell in CODE]
    is_executed = any(counts)
    assert counts == (list(range(1, len(CODE) + 1)) if is_executed else [None] * len(CODE))
    for cell in CODE:
        assert 'Traceback' not in outputs_of(cell) and '"error"' not in outputs_of(cell)
        if '!python' in ''.join(cell['source']):
            assert bool(cell['outputs']) == is_executed, cell['source']
    assert not failed(CODE)


def test_its_outputs_name_no_machine():
    for cell in CODE:
        assert not re.search(r'/(home|root|work|tmp|Users)/', outputs_of(cell))


@pytest.mark.slow
def test_it_runs():
    nbformat = pytest.importorskip('nbformat', reason="pip install -e '.[docs]'")
    nbclient = pytest.importorskip('nbclient', reason="pip install -e '.[docs]'")
    notebook = nbformat.read(PATH, as_version=4)
    place = {'metadata': {'path': str(PATH.parent)}}
    nbclient.NotebookClient(notebook, timeout=900, resources=place).execute()
    assert not failed([cell for cell in notebook.cells if 'outputs' in cell])
    texts = ''.join(json.dumps(cell['outputs']) for cell in notebook.cells if 'outputs' in cell)
    assert '07-reinforce' in texts and '[answer: ' in texts and 'browser/index.html' in texts
