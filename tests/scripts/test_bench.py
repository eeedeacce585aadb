"""Benchmark: bounds of the cases, workers, and the summary of their answers."""

import ast
import dataclasses
import json
import pathlib
import sys
import textwrap
import tomllib

import pytest

from elenchus.model.config import num_parameters
from elenchus.scripts.bench import cases, ours, peers, report, run, tunix
from elenchus.scripts.bench.cases import CONTENDERS, SIZES, Machine
from elenchus.train.config import build
from tests.support import tiny_model

ALL_CASES = [case for size in SIZES for work in CONTENDERS for case in cases.cases(size, work)]


def config_of(case):
    return dataclasses.replace(tiny_model.CONFIG, **case.model, max_length=1024)


def bound(case, **machine):
    speeds = {'flops': 1e11, 'bandwidth': 1e10} | machine
    return cases.bound_seconds(case, config_of(case), Machine(**speeds))


def case_of(work, **shape):
    case = cases.cases('1m', work)[0]
    return dataclasses.replace(case, shape=case.shape | shape)


@pytest.mark.parametrize('case', ALL_CASES, ids=lambda case: case.name)
def test_the_bound_falls_with_either_speed_and_never_below_both(case):
    assert bound(case, flops=2e11) <= bound(case) <= bound(case, flops=5e10)
    assert bound(case, bandwidth=2e10) <= bound(case) <= bound(case, bandwidth=5e9)
    assert bound(case, flops=2e11, bandwidth=2e10) == pytest.approx(bound(case) / 2)


def test_one_sequence_is_written_at_the_speed_that_weights_are_read():
    case = case_of('decode', batch=1, prompt=1, new=100)
    weights = 4 * num_parameters(config_of(case))
    assert bound(case) == pytest.approx(101 * weights / 1e10, rel=0.15)


def test_a_training_step_is_three_passes_of_all_parameters():
    case = case_of('sft', batch=16, length=2)
    assert bound(case) == pytest.approx(6 * 32 * num_parameters(config_of(case)) / 1e11, rel=0.01)


def test_requests_of_one_length_are_decoded_as_a_batch():
    ragged = case_of('ragged', batch=64, prompt=16, lengths=[100] * 64)
    batch = case_of('decode', batch=64, prompt=16, new=100)
    assert bound(ragged) == pytest.approx(bound(batch), rel=0.01)


def test_every_contender_has_a_worker():
    works = ours.WORKS.keys() | peers.WORKS.keys() | tunix.WORKS.keys()
    assert works == {(work, name) for work, names in CONTENDERS.items() for name in names}


@pytest.mark.parametrize('worker', [peers, tunix])
def test_the_workers_of_peers_import_only_the_standard_library_at_the_top(worker):
    tree = ast.parse(pathlib.Path(worker.__file__).read_text())
    top = {n for node in tree.body if isinstance(node, ast.Import) for n in (node.names[0].name,)}
    assert top <= sys.stdlib_module_names
    modules = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert modules <= {'collections.abc', 'scripts.bench.peers'}


def test_every_peer_has_an_extra_and_a_worker_named_after_it():
    extras = {run.extra_of(n) for names in CONTENDERS.values() for n in names if 'ours' not in n}
    project = tomllib.loads((build.ROOT / 'pyproject.toml').read_text())['project']
    assert extras <= project['optional-dependencies'].keys()
    assert all((build.ROOT / 'scripts' / 'bench' / f'{extra}.py').exists() for extra in extras)


def test_ids_are_read_as_they_are_written():
    ids = tunix.IdTokenizer(100)
    assert ids.encode(ids.decode([5, 99, 2])) == [5, 99, 2]
    assert ids.eos_id() == 100


def test_a_worker_answers_each_line_and_prints_nothing_else(tmp_path):
    script = tmp_path / 'worker.py'
    folder = str(pathlib.Path(peers.__file__).parent)
    script.write_text(
        textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {folder!r})
        import peers
        def make(contender, case):
            print('noise')
            def run():
                print('more noise')
                time.sleep(0.6)
                return len(contender) * case['times']
            return run
        peers.serve(make, lambda: {{'compilations': 7}})
        """)
    )
    worker = run.Worker([sys.executable, str(script), 'four', json.dumps({'times': 3}), 'wall'])
    assert worker.first['compilations'] == 7 and worker.first['first_s'] >= 0
    results = [worker.run() for _ in range(2)]
    assert [answer['tokens'] for answer in results] == [12, 12]
    assert all(0.6 <= answer['seconds'] < 1.2 for answer in results), 'seconds are those of one run'
    worker.stop()
    with pytest.raises(RuntimeError, match='has stopped'):
        run.Worker([sys.executable, '-c', ''])


def answers(*seconds, compilations=3):
    return [
        {'seconds': s, 'tokens': 100, 'peak_bytes': 5e6, 'compilations': compilations}
        for s in seconds
    ]


def test_ratios_are_medians_of_rounds_so_that_a_busy_machine_cancels():
    ours, theirs = answers(1.0, 10.0, 1.0), answers(2.0, 20.0, 2.0)
    row = run.summary(theirs, ours, first={'first_s': 4.0, 'compilations': 2}, bound=0.5)
    assert row['times_ours'] == pytest.approx(0.5)
    assert row['tokens_per_s'] == 50 and row['of_bound'] == 0.25
    assert row['recompilations'] == 1


def test_table_and_plot_show_every_row(tmp_path):
    common = {'work': 'decode', 'size': '1m', 'machine': {'flops': 1e11, 'bandwidth': 1e10}}
    rows = [
        common
        | {'case': f'decode 1m B{b}', 'contender': name}
        | run.summary(answers(b), answers(1), first={'first_s': 1.0}, bound=0.1)
        for b in (1, 16)
        for name in ('ours', 'hf')
    ]
    report.write(tmp_path, {'about': {'cores': 2}, 'rounds': 1, 'rows': rows})
    text = (tmp_path / 'bench.md').read_text()
    assert all(f'| {row["case"]} | {row["contender"]} |' in text for row in rows)
    assert (tmp_path / 'bench.png').stat().st_size > 1000


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match='--only=deocde is unknown; use decode, prefill'):
        run.check_names('only', ['deocde', 'sft'], list(CONTENDERS))
