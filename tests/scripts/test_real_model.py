"""scripts.evaluate, scripts.judge and scripts.chat as commands, with the lab's pretrained model."""

import json
import signal
import subprocess
import sys

import pytest

from tests.support import multi_process

LAB = str(multi_process.ROOT / 'data/lab/checkpoint')
SHORT = (
    '--config.sampling.attempt_tokens=16',
    '--config.sampling.critique_tokens=16',
    '--config.sampling.refinement_tokens=16',
    '--config.sampling.part_size=2',
    '--config.sampling.engine.num_slots=2',
    '--config.sampling.engine.prefill_batch_sizes=(2,)',
    '--config.sampling.engine.decode_batch_sizes=()',
)


@pytest.fixture
def evaluate(fork):
    def run(out, *arguments, kill_at=''):
        wanted = (f'--model={LAB}', f'--out={out}', *SHORT, *arguments)
        return fork('elenchus.scripts.evaluate', multi_process.ROOT, wanted, kill_at=kill_at)

    return run


@pytest.fixture
def judge(fork):
    def run(*arguments):
        wanted = (f'--critic={LAB}', *SHORT, *arguments)
        return fork('elenchus.scripts.judge', multi_process.ROOT, wanted)

    return run


@pytest.mark.slow
def test_an_evaluation_that_is_killed_continues_and_ends_as_if_it_was_not(tmp_path, evaluate):
    lab = ('--data=lab', '--num_problems=6', '--greedy_only')
    first, whole = tmp_path / 'killed', tmp_path / 'whole'
    part = first / 'stages/00-lab/greedy/episodes/part-00000.array_record'
    assert evaluate(first, *lab, kill_at=part).code == -signal.SIGKILL
    written = part.stat().st_mtime_ns
    continued = evaluate(first, *lab)
    assert continued.code == 0, continued.errors[-3000:]
    assert part.stat().st_mtime_ns == written
    assert evaluate(whole, *lab).code == 0
    results = [json.loads((folder / 'results.json').read_text()) for folder in (first, whole)]
    for figures in results:
        figures['lab'] = {
            name: figures['lab'][name]
            for name in ('accuracy', 'tokens_per_answer', 'tokens_sampled', 'questions')
        }
    assert results[0] == results[1]
    assert results[0]['lab']['questions'] == 6


@pytest.mark.slow
def test_attempts_without_a_critic_have_majorities_and_pass_at_k(tmp_path, evaluate):
    few = ('--data=lab', '--num_problems=2', '--config.evaluate.num_attempts=2')
    result = evaluate(tmp_path / 'out', *few)
    assert result.code == 0, result.errors[-3000:]
    figures = json.loads((tmp_path / 'out/results.json').read_text())['lab']
    assert {'attempt', 'majority@2', 'pass@2', 'greedy'} <= set(figures['accuracy'])
    assert 'refined' not in figures['accuracy']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--data=gsm9k',), 'nearest: gsm8k'),
        (('--data=lab', '--model=none'), 'folder not found: --model='),
        (('--data=lab', '--config.sampling.atempt_tokens=8'), 'sampling.attempt_tokens'),
    ],
)
def test_a_wrong_name_is_an_error_of_one_line(tmp_path, evaluate, arguments, message):
    result = evaluate(tmp_path / 'out', *arguments)
    assert result.code == 2
    (line,) = result.errors.strip().splitlines()[-1:]
    assert line.startswith('error: ') and message in line and 'Traceback' not in result.errors
    assert not (tmp_path / 'out').exists()


def test_an_empty_file_of_problems_is_refused(tmp_path, evaluate):
    (tmp_path / 'own.jsonl').write_text('')
    result = evaluate(tmp_path / 'out', f'--data={tmp_path / "own.jsonl"}')
    assert result.code == 2 and 'own.jsonl' in result.errors
    assert 'Traceback' not in result.errors


def solutions(path, *, num_steps=1):
    rows = [
        {
            'id': str(i), 'problem': 'ben 3 ; eve : ben + 4 ; eve ?',
            'steps': ['eve : ben + 4 = 7'] * num_steps,
            'final_answer_correct': True, 'label': label, 'generator': 'x',
        }
        for i, label in enumerate((-1, 0))
    ]  # fmt: skip
    path.write_text(json.dumps(rows))
    return path


def test_a_critic_is_judged_beside_constant_ones(tmp_path, judge):
    data, out = solutions(tmp_path / 'own.json'), tmp_path / 'out'
    result = judge(f'--data=processbench={data}', f'--out={out}')
    assert result.code == 0, result.errors[-3000:]
    (summary,) = json.loads((out / 'results.json').read_text()).values()
    assert summary['critics']['always right']['passed'][0] == 1.0
    assert summary['critics']['always right']['found'][0] == 0.0
    assert 'greedy' in summary['critics']
    again = judge(f'--data=processbench={data}', f'--out={out}')
    assert again.code == 0 and 'tokens/s' not in again.output


def test_solutions_longer_than_in_training_are_judged_if_one_says_so(tmp_path, judge):
    long = f'--data=processbench={solutions(tmp_path / "own.json", num_steps=80)}'
    out = f'--out={tmp_path / "out"}'
    refused = judge(long, out)
    assert refused.code == 2 and 'allow it with --max_length=' in refused.errors
    result = judge(long, out, '--max_length=2048')
    assert result.code == 0, result.errors[-3000:]
    (summary,) = json.loads((tmp_path / 'out/results.json').read_text()).values()
    assert 'greedy' in summary['critics']


@pytest.mark.slow
def test_a_chat_answers_each_line_that_is_piped(tmp_path):
    command = [sys.executable, '-m', 'elenchus.scripts.chat', f'--model={LAB}', f'--critic={LAB}']
    done = subprocess.run(
        [*command, *SHORT[:3], '--question_tokens=32'],
        input='ben 3 ; eve : ben + 4 ; eve ?\n\n' + 'ben 3 ; ' * 40 + '\n',
        capture_output=True, text=True, timeout=300, check=False,
        cwd=multi_process.ROOT, env=multi_process.environment(1),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    titles = [line for line in done.stdout.splitlines() if line in ('attempt', 'critique')]
    assert titles == ['attempt', 'critique']
    assert '[verdict: ' in done.stdout and '[answer: ' in done.stdout
    assert 'more than 32: raise --question_tokens]' in done.stdout
