"""Mistakes in the flags of scripts: one line that names the flag, before anything is read."""

import pytest

BENCH = ['--data=own.jsonl', '--out=out']
MISTAKES = [
    ('evaluate', ['--model=m', *BENCH, '--num_problems=-1'], 'flag --num_problems=-1'),
    ('judge', ['--critic=m', *BENCH, '--num_rows=-2'], 'flag --num_rows=-2'),
    ('judge', ['--critic=m', *BENCH, '--num_votes=-1'], 'flag --num_votes=-1'),
]  # fmt: skip


@pytest.mark.parametrize(('script', 'arguments', 'words'), MISTAKES)
def test_a_mistake_is_one_line_that_names_the_flag(fork, tmp_path, script, arguments, words):
    code, errors, _ = fork(f'elenchus.scripts.{script}', tmp_path, arguments)
    assert code == 2, errors
    assert errors.startswith('error: ') and errors.count('\n') == 1 and words in errors
    assert not list(tmp_path.iterdir())
