"""A run whose metrics.jsonl has lost rows goes on, and says so."""

import pytest

from elenchus.train.checkpoints import saved_models
from tests.support import small_run


def test_a_run_says_that_rows_of_its_checkpoint_are_gone(tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise OSError('the disk is full')

    monkeypatch.setattr(saved_models, 'save_model', fail)
    with pytest.raises(OSError, match='the disk is full'):
        small_run.run(tmp_path)
    (path,) = tmp_path.glob('stages/*/metrics.jsonl')
    whole = path.read_text()
    monkeypatch.undo()
    path.write_text(''.join(whole.splitlines(keepends=True)[1:]))
    capsys.readouterr()
    small_run.run(tmp_path)
    warnings = [line for line in capsys.readouterr().err.splitlines() if 'warning' in line]
    assert len(warnings) == 1 and 'has 1 rows up to step 2, not the 2 that the' in warnings[0]
    assert path.read_text() == ''.join(whole.splitlines(keepends=True)[1:])
