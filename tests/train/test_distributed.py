"""Two processes as one: weights, samples, broadcasts, consistency checks, preemption.

Tests that start several processes are slow and not run in CI, among them the whole tiny run on 1, 2
and 4 processes: `python -m pytest -m slow tests/train/test_distributed.py`.
"""

import json
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from elenchus.data.files import episode_files
from elenchus.model import sharding
from elenchus.model.placement import Placement
from elenchus.train import distributed, preemption
from elenchus.train.checkpoints import saved_models
from elenchus.train.metrics import writers
from tests.support import multi_process, process_worker, tiny_model


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    """(folder, results of each of two processes with two devices)."""
    folder = tmp_path_factory.mktemp('two')
    address = f'localhost:{multi_process.free_port()}'
    started = [
        subprocess.Popen(
            [
                sys.executable,
                '-m',
                'tests.support.process_worker',
                str(folder),
                address,
                '2',
                str(i),
            ],
            cwd=multi_process.ROOT,
            env=multi_process.environment(2),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    for process in started:
        output, _ = process.communicate(timeout=900)
        assert process.returncode == 0, output[-3000:]
    return folder, [json.loads((folder / f'{i}.json').read_text()) for i in range(2)]


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """(folder, model, totals, samples) of this process with eight devices."""
    folder = tmp_path_factory.mktemp('alone')
    with jax.set_mesh(sharding.make_mesh(process_worker.MESH)):
        model, totals = process_worker.fit(folder / 'fit', num_steps=4)
        return folder, model, totals, process_worker.sample(model)


def load(folder):
    mesh = sharding.make_mesh(process_worker.MESH)
    with jax.set_mesh(mesh):
        return saved_models.load_model(
            folder / 'model', tiny_model.FLAT, mesh=mesh, tokenizer_fingerprint='abc'
        )


@pytest.mark.slow
def test_two_processes_train_what_one_trains(two, alone):
    tiny_model.assert_trees_close((load(two[0]),), (alone[1],), relative=1e-6)
    assert two[1][0]['totals'] == pytest.approx(alone[2], rel=1e-6)


@pytest.mark.slow
def test_two_processes_write_each_row_of_metrics_once(two, alone):
    rows = [
        writers.read_rows(folder / 'fit/stages/00-fit' / writers.METRICS)
        for folder in (two[0], alone[0])
    ]
    assert [row['step'] for row in rows[0]] == [1, 2, 3, 4]
    for mine, other in zip(*rows, strict=True):
        assert mine == pytest.approx(other, rel=1e-5)


@pytest.mark.slow
def test_two_processes_sample_what_one_samples(two, alone):
    assert two[1][0]['samples'] == two[1][1]['samples'] == alone[3]


@pytest.mark.slow
def test_values_and_errors_of_the_first_process_reach_all(two):
    for results in two[1]:
        assert results['broadcast'] == {'process': 0, 'long': 'x' * 5000}
        assert results['error'] == 'only the first process knew'


@pytest.mark.slow
def test_a_process_with_other_values_is_named(two):
    for results in two[1]:
        assert results['mismatch'].startswith('a number: process 1 on ')


@pytest.mark.slow
def test_preemption_of_one_process_stops_all_and_one_process_continues(two):
    folder, results = two
    assert [r['code'] for r in results] == [preemption.EXIT_CODE] * 2
    saved = [int(path.name) for path in (folder / 'preempted/stages/00-fit/checkpoints').iterdir()]
    assert len(saved) == 1 and 1 <= saved[0] < process_worker.PREEMPTED_STEPS
    with jax.set_mesh(sharding.make_mesh((8, 1, 1))):
        process_worker.fit(folder / 'preempted', num_steps=saved[0] + 1)
    rows = writers.read_rows(folder / 'preempted/stages/00-fit' / writers.METRICS)
    assert [row['step'] for row in rows] == list(range(1, saved[0] + 2))


@pytest.fixture(scope='module')
def failures():
    """Outcomes of calls that fail on the first process, on both processes."""
    address = f'localhost:{multi_process.free_port()}'
    command = [sys.executable, '-m', 'tests.support.failing_worker', address]
    started = [
        subprocess.Popen(
            [*command, str(i)], cwd=multi_process.ROOT, env=multi_process.environment(1),
            stderr=subprocess.PIPE, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def test_every_exception_of_the_first_process_is_raised_on_all_within_seconds(failures):
    first, second = failures
    for name, (text, seconds) in second.items():
        assert seconds < 5, name
        if name == 'after all':
            assert text is None and first[name][0] is None
        elif name in ('value', 'file'):
            assert (
                text
                == {'value': 'ValueError', 'file': 'OSError'}[name]
                + ': '
                + (first[name][0].partition(': ')[2])
            )
        else:
            assert text == f'RuntimeError: the first process failed with {first[name][0]}'
    kinds = {text.partition(':')[0] for text, _ in first.values() if text}
    assert {'KeyError', 'KeyboardInterrupt', 'SystemExit', 'TypeError', 'MemoryError'} <= kinds


@pytest.mark.parametrize('failing', [0, 1])
def test_a_process_that_waits_for_a_failed_one_ends_with_its_message(failing):
    """The failure is between two collectives, where the other process cannot raise anything."""
    address = f'localhost:{multi_process.free_port()}'
    command = [sys.executable, '-m', 'tests.support.lonely_failure', address]
    started = [
        subprocess.Popen(
            [*command, str(i), str(failing)], cwd=multi_process.ROOT,
            env=multi_process.environment(1), stderr=subprocess.PIPE, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [1, 1]
    name = 'the first process' if failing == 0 else 'process 1'
    line = f'error: {name} failed with ZeroDivisionError: a worker divided by zero'
    assert line in outputs[1 - failing] and 'ZeroDivisionError' in outputs[failing]


def test_a_process_number_out_of_range_is_an_error():
    with pytest.raises(ValueError, match=r'--process_id=2 must be in \[0, 2\).*nearest: 1'):
        distributed.initialize(coordinator='x:1', num_processes=2, process_id=2, detect=False)


@pytest.mark.parametrize('shape', [(8, 1, 1), (1, 4, 2)])
def test_a_fingerprint_depends_on_the_values_and_not_on_the_sharding(shape):
    mesh, model = sharding.make_mesh(shape), tiny_model.make_model(tiny_model.FLAT)
    changed = jax.tree.map(np.array, model)
    changed.embedding[...][3, 2] *= 1 + 1e-6
    placed = [Placement(mesh).place(m) for m in (model, changed)]
    prints = [distributed.fingerprint(m) for m in (model, *placed)]
    assert prints[0] == prints[1] != prints[2]


def test_a_fingerprint_detects_a_permutation_and_reads_every_type():
    values = np.arange(1, 5)
    for dtype in ('float32', 'bfloat16', 'int32', 'uint8'):
        forward, reverse = (jax.numpy.asarray(x, dtype) for x in (values, values[::-1]))
        assert distributed.fingerprint(forward) != distributed.fingerprint(reverse)
    assert distributed.fingerprint(np.array([True, False])) != 0


# The whole tiny run, by the command that a pod runs


def tokens(workdir):
    paths = sorted(pathlib.Path(workdir).glob('stages/**/*.array_record'))
    return {
        str(path.relative_to(workdir)): [
            [turn.tokens for turn in e.turns] for e in episode_files.read_episode_file(path)
        ]
        for path in paths
    }


def assert_same_run(workdir, other):
    assert tokens(workdir) == tokens(other)
    with jax.set_mesh(sharding.make_mesh((-1, 1, 1))):
        actual, expected = map(multi_process.load_stage_models, (workdir, other))
    assert actual.keys() == expected.keys() and len(actual) == 5
    for stage in expected:
        pairs = zip(*map(jax.tree.leaves, (actual[stage], expected[stage])), strict=True)
        for one, two in pairs:
            np.testing.assert_allclose(one, two, rtol=0, atol=1e-6, err_msg=stage)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The run on one process of four devices."""
    workdir = tmp_path_factory.mktemp('whole') / 'run'
    multi_process.finish(multi_process.start(1, workdir, multi_process.TINY, devices=4), workdir)
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize(
    ('count', 'mesh'), [(2, (-1, 1, 1)), (4, (-1, 1, 1)), (4, (1, 2, 2)), (2, (2, 1, 2))]
)
def test_a_run_on_several_processes_equals_the_one_on_one(whole, tmp_path, count, mesh):
    workdir = tmp_path / 'run'
    arguments = (*multi_process.TINY, f'--config.mesh={mesh}')
    multi_process.finish(
        multi_process.start(count, workdir, arguments, devices=4 // count), workdir
    )
    assert_same_run(workdir, whole)


@pytest.mark.slow
def test_adapters_and_the_prefix_cache_give_the_same_on_two_processes(tmp_path):
    one, two = tmp_path / 'one', tmp_path / 'two'
    for workdir, count in ((one, 1), (two, 2)):
        arguments = (*multi_process.TINY, *multi_process.ADAPTED)
        multi_process.finish(
            multi_process.start(count, workdir, arguments, devices=4 // count), workdir
        )
    assert_same_run(two, one)


@pytest.mark.slow
def test_one_of_four_is_preempted_all_stop_and_two_continue(whole, tmp_path):
    workdir = tmp_path / 'run'
    started = multi_process.start(4, workdir, multi_process.TINY, devices=1)
    while not (workdir / 'stages' / '02-critique' / 'config.json').exists():
        time.sleep(0.1)
    started[2].send_signal(signal.SIGTERM)
    multi_process.finish(started, workdir, codes=(preemption.EXIT_CODE,))
    multi_process.finish(multi_process.start(2, workdir, multi_process.TINY, devices=2), workdir)
    assert_same_run(workdir, whole)
