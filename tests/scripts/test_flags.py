"""Mistakes in the flags of scripts: one line that names the flag, before anything is read."""

import pytest

BENCH = ['--data=own.jsonl', '--out=out']
MIX = ['--out=out', '--train=asdiv:1', '--test=svamp:1']
STEPS = ['--config=small.py', '--topology=v5e-8']
MISTAKES = [
    ('evaluate', ['--model=m', *BENCH, '--num_problems=-1'], 'flag --num_problems=-1'),
    ('judge', ['--critic=m', *BENCH, '--num_rows=-2'], 'flag --num_rows=-2'),
    ('judge', ['--critic=m', *BENCH, '--num_votes=-1'], 'flag --num_votes=-1'),
    ('methods', ['--studies=a', 'b'], "unexpected argument 'b'"),
    ('tools.mix_problems', [*MIX, 'gsm8k:3'], "unexpected argument 'gsm8k:3'"),
    ('tools.mix_problems', [*MIX, '--sets=none'], '--sets=none: folder not found'),
    ('tools.check_verifier', ['--source=jsonl', 'own.jsonl'], "unexpected argument 'own.jsonl'"),
    ('tools.show_tokens', ['--tokenizer=t', 'own.jsonl'], "unexpected argument 'own.jsonl'"),
    ('tools.hardware_table', ['v5e-8'], "unexpected argument 'v5e-8'"),
    ('tools.roofline', ['512'], "unexpected argument '512'"),
    ('tools.roofline', ['--slots=0'], 'flag --slots=0'),
    ('tools.compare_steps', [*STEPS, '--vary=train.rows'], 'is no FIELD=VALUE'),
    ('tools.compare_steps', [*STEPS, 'train.rows=16'], "unexpected argument 'train.rows=16'"),
]  # fmt: skip


@pytest.mark.parametrize(('script', 'arguments', 'words'), MISTAKES)
def test_a_mistake_is_one_line_that_names_the_flag(fork, tmp_path, script, arguments, words):
    code, errors, _ = fork(f'elenchus.scripts.{script}', tmp_path, arguments)
    assert code == 2, errors
    assert errors.startswith('error: ') and errors.count('\n') == 1 and words in errors
    assert not list(tmp_path.iterdir())
