"""docs/hardware.md has the tables that the code makes."""

import pathlib

import pytest

from elenchus.train.planning import hardware_table

PAGE = (pathlib.Path(__file__).parents[2] / 'docs/hardware.md').read_text(encoding='utf-8')
LINES = PAGE.splitlines()
MODELS = list(hardware_table.MODELS)


def column(model, topology):
    """The cell of a model on a machine in the page."""
    (row,) = [line for line in LINES if line.startswith(f'| {topology}, ')]
    return row.strip('|').split(' | ')[MODELS.index(model) + 1].strip()


@pytest.mark.parametrize(
    ('model', 'topology'),
    [
        ('SmolLM2 135M', 'v5e-8'),
        ('Qwen3 0.6B', 'v5e-8'),
        ('Gemma 3 1B, adapters', 'v5e-256'),
        ('Llama 3 8B', '8xh100'),
    ],
)
def test_a_cell_and_its_note_are_those_of_the_dry_run(model, topology):
    head, _, row, *notes = hardware_table.table([model], [topology])
    assert head == f'| machine, GiB a chip | {model} |'
    assert row.strip('|').split(' | ')[1].strip() == column(model, topology)
    for note in notes[3:]:
        assert note in LINES
    assert bool(notes[3:]) == (
        column(model, topology).endswith('*') or column(model, topology) == '-'
    )


@pytest.mark.slow
def test_all_tables_are_those_of_the_dry_run():
    assert '\n'.join(hardware_table.table()) in PAGE
