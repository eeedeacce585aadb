"""Metrics files: exact after a kill and a resume, written one step late."""

import json

import jax.numpy as jnp
import pytest

from elenchus.train.metrics import writers


@pytest.fixture
def make_writer(tmp_path):
    def make(name='stage'):
        return writers.Writer(tmp_path / name, tensorboard=tmp_path / 'tensorboard' / name)

    return make


def write_steps(writer, steps):
    for step in steps:
        writer.write(step, {'loss/actor': 1 / (step + 1), 'time/step': 0.1})


def test_the_clock_stays_out_of_the_metrics_file(make_writer, tmp_path):
    with make_writer() as writer:
        write_steps(writer, range(2))
    assert (tmp_path / 'stage/metrics.jsonl').read_text() == (
        '{"step":0,"loss/actor":1.0}\n{"step":1,"loss/actor":0.5}\n'
    )
    timing = writers.read_rows(tmp_path / 'stage/timing.jsonl')
    assert [row['time/step'] for row in timing] == [0.1, 0.1]
    assert all(row['wall'] > 0 for row in timing)


def test_a_resumed_run_has_the_same_bytes_as_an_uninterrupted_one(make_writer, tmp_path):
    with make_writer('whole') as writer:
        write_steps(writer, range(8))
    with make_writer('resumed') as writer:
        write_steps(writer, range(6))
    path = tmp_path / 'resumed/metrics.jsonl'
    path.write_text(path.read_text() + '{"step":6,"lo')  # killed in the middle of a write
    with make_writer('resumed') as writer:
        writer.truncate(3)
        write_steps(writer, range(4, 8))
    assert path.read_bytes() == (tmp_path / 'whole/metrics.jsonl').read_bytes()
    assert len(writers.read_rows(tmp_path / 'resumed/timing.jsonl')) == 8


@pytest.mark.parametrize('damage', [lambda rows: rows[:2], lambda rows: rows[::2], lambda rows: []])
def test_rows_that_a_checkpoint_relies_on_and_that_are_gone_are_a_warning(
    make_writer, tmp_path, capsys, damage
):
    with make_writer() as writer:
        write_steps(writer, range(6))
        written = writer.written()
        write_steps(writer, range(6, 8))  # after the checkpoint
    with make_writer() as writer:
        writer.truncate(5)
        writer.check(5, written)
    assert not capsys.readouterr().err
    path = tmp_path / 'stage/metrics.jsonl'
    path.write_text(''.join(damage(path.read_text().splitlines(keepends=True))))
    with make_writer() as writer:
        writer.truncate(5)
        writer.check(5, written)
    rows = len(damage([''] * 6))
    assert f'metrics.jsonl has {rows} rows up to step 5, not the 6' in capsys.readouterr().err


def test_starting_over_leaves_no_earlier_row(make_writer, tmp_path):
    with make_writer() as writer:
        write_steps(writer, range(3))
        writer.truncate(-1)
    assert writers.read_rows(tmp_path / 'stage/metrics.jsonl') == []


def test_tensorboard_gets_the_scalars(make_writer, tmp_path):
    with make_writer() as writer:
        write_steps(writer, range(2))
    (events,) = (tmp_path / 'tensorboard/stage').iterdir()
    assert b'loss/actor' in events.read_bytes()


def test_a_metric_that_is_not_a_scalar_is_an_error_with_its_name(make_writer):
    with make_writer() as writer, pytest.raises(ValueError, match=r"'loss/all' has shape \(2,\)"):
        writer.write(0, {'loss/all': [1.0, 2.0]})


def test_a_step_is_written_when_the_next_is_pushed(make_writer, tmp_path):
    with make_writer() as writer:
        delayed = writers.Delayed(writer)
        assert delayed.push(0, {'loss': jnp.float32(2.5)}) is None
        assert not (tmp_path / 'stage/metrics.jsonl').exists()
        assert delayed.push(1, {'loss': jnp.float32(1.5)}) == (0, {'loss': 2.5})
        assert delayed.flush() == (1, {'loss': 1.5})
        assert delayed.flush() is None
    rows = writers.read_rows(tmp_path / 'stage/metrics.jsonl')
    assert rows == [{'step': 0, 'loss': 2.5}, {'step': 1, 'loss': 1.5}]


def test_rows_are_strict_json(make_writer, tmp_path):
    with make_writer() as writer:
        writer.write(jnp.int32(3), {'loss': jnp.float32(0.1)})
    row = json.loads((tmp_path / 'stage/metrics.jsonl').read_text())
    assert row == {'step': 3, 'loss': pytest.approx(0.1, abs=1e-7)}
