"""Speeds and traces of stages: counted work, shares of peaks, and what goes to which file."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from elenchus.data.records import Batch
from elenchus.model.config import forward_flops, num_parameters
from elenchus.sampling.engine import engine
from elenchus.sampling.engine.requests import Request
from elenchus.sampling.engine.sampling_methods import Greedy
from elenchus.sampling.engine.shapes import EngineSettings
from elenchus.sampling.engine.work import Work, chunk_work
from elenchus.train.metrics import profiling, progress, speed, writers
from elenchus.train.planning import machines
from tests.support import tiny_model

CONFIG = dataclasses.replace(tiny_model.CONFIG, max_length=32)
V5E = machines.CHIPS['v5e'].peaks


def test_an_engine_counts_its_work():
    """Five requests of three tokens on two slots, of which one prompt is shared."""
    settings = EngineSettings(2, 32, 2, (8,), (2,), (), ())
    sampler, chunks = engine.Engine(settings, stop_ids=()), []
    sampler.on_chunk = lambda: chunks.append(sampler.work)
    prompts = [(3, 4), (3, 4), (5,), (6, 7, 8), (9,)]
    requests = [Request(i, prompt, max_tokens=3) for i, prompt in enumerate(prompts)]
    with jax.set_mesh(tiny_model.one_device()):
        sampler.generate(tiny_model.make_model(CONFIG), requests, method=Greedy(()), seed=0)
    work = sampler.work
    assert work.sampled == 15 == sampler.tokens
    assert work.prompt_tokens == 2 + 1 + 3 + 1  # the shared prompt is read once
    assert work.prefilled % 16 == 0 and 0 < work.padded_prefill < 1
    assert work.slot_steps == 2 * work.steps >= 18 and work.slot_use == 15 / work.slot_steps
    assert work.cache_positions == work.slot_steps * 32 and work.seconds > 0
    assert len(chunks) >= 5 and chunks == sorted(chunks, key=lambda w: w.sampled)


def test_drafts_take_fewer_steps_than_tokens():
    work = chunk_work([8, 3], slots=4, length=16, tokens_per_step=3)
    assert (work.sampled, work.steps, work.slot_steps) == (11, 3, 12)


def test_without_work_nothing_is_known():
    assert Work().slot_use is Work().padded_prefill is Work().tokens_per_s is None
    options = {'cache_dtype': 'model', 'tensor': 1}
    assert speed.sampling_speed(Work(), CONFIG, **options) == {}


def test_the_share_of_the_bandwidth_is_known_on_known_chips_only(monkeypatch):
    work = Work(sampled=10, steps=10, slot_steps=20, cache_positions=640, seconds=2.0)
    options = {'cache_dtype': 'model', 'tensor': 2}
    assert set(speed.sampling_speed(work, CONFIG, **options)) == {
        'sampled_tokens_per_s', 'slot_use',
    }  # fmt: skip
    monkeypatch.setattr(machines, 'peaks_of', lambda kind: V5E)
    weights = 10 * num_parameters(CONFIG) * 4 / 2
    caches = 640 * 2 * CONFIG.num_layers * CONFIG.num_kv_heads * CONFIG.head_dim * 4
    share = (weights + caches / jax.device_count()) / V5E.memory_bytes_per_s / 2.0
    assert speed.sampling_speed(work, CONFIG, **options)['bandwidth_share'] == pytest.approx(share)


def test_layers_with_a_window_read_what_they_keep(monkeypatch):
    monkeypatch.setattr(machines, 'peaks_of', lambda kind: V5E)
    config = dataclasses.replace(CONFIG, windows=(5, 0))
    work = Work(sampled=10, steps=10, slot_steps=20, cache_positions=640, seconds=2.0)
    options = {'cache_dtype': 'model', 'tensor': 1}
    whole = speed.sampling_speed(work, config, **options)['bandwidth_share']
    short = speed.sampling_speed(work, config, **options, step_tokens=3)['bandwidth_share']
    local = sum(window > 0 for window in config.layer_windows)
    # Of 32 positions on average, such a layer keeps 5 + 3 - 1.
    saved = 20 * local * (32 - 7) * 2 * config.num_kv_heads * config.head_dim * 4
    seconds = saved / jax.device_count() / V5E.memory_bytes_per_s
    assert whole - short == pytest.approx(seconds / work.seconds)


@pytest.mark.parametrize(
    ('kind', 'chip'),
    [
        ('TPU v5 lite', 'v5e'), ('TPU v5p', 'v5p'), ('TPU v5', 'v5p'), ('TPU v6 lite', 'v6e'),
        ('NVIDIA H100 80GB HBM3', 'h100'), ('NVIDIA A100-SXM4-80GB', 'a100'), ('cpu', None),
        ('TPU v9', None),
    ],
)  # fmt: skip
def test_chips_are_known_by_what_jax_calls_them(kind, chip):
    assert machines.peaks_of(kind) == (machines.CHIPS[chip].peaks if chip else None)


def batch(segments):
    empty = np.zeros_like(segments)
    return Batch(**dict.fromkeys(Batch._fields, empty) | {'segments': segments})


def test_training_speed_leaves_out_padding_and_starts_again_with_each_row(monkeypatch):
    clock = [0.0]
    meter = speed.TrainingSpeed(1e6, clock=lambda: clock[0])
    meter.push([batch(np.array([[1, 1, 0, 0], [1, 2, 2, 0]]))])
    clock[0] = 2.0
    assert meter.row() == {'tokens_per_s': 2.5}
    monkeypatch.setattr(machines, 'peaks_of', lambda kind: V5E)
    meter.push([batch(np.ones((2, 4), int))] * 2)
    clock[0] = 3.0
    row = meter.row()
    assert row['tokens_per_s'] == 16
    assert row['mfu'] == pytest.approx(16e6 / V5E.flops_per_s / jax.device_count())


def test_adapters_cost_a_pass_less():
    model = jax.eval_shape(lambda: tiny_model.make_model(CONFIG))
    whole = speed.training_flops_per_token(model, length=32)
    assert whole == 3 * forward_flops(CONFIG, tokens=1, length=16)
    model.adaptation = object()
    assert speed.training_flops_per_token(model, length=32) == whole * 2 / 3


def test_speeds_go_to_the_timing_file_only(tmp_path):
    with writers.Writer(tmp_path / 'stage', tensorboard=tmp_path / 'board') as writer:
        writer.write(1, {'loss': 1.0, 'time/tokens_per_s': 9.0})
    writers.append_timing(tmp_path / 'stage', {'time/slot_use': 0.5})
    read = lambda name: writers.read_rows(tmp_path / 'stage' / name)  # noqa: E731
    assert read('metrics.jsonl') == [{'step': 1, 'loss': 1.0}]
    assert [row.get('time/slot_use') for row in read('timing.jsonl')] == [None, 0.5]


def test_sampling_shows_its_speed_in_the_line_around_it(monkeypatch, capsys):
    monkeypatch.setattr(progress, 'SHOW_INTERVAL', 0.0)
    monkeypatch.setattr(progress, 'PLAIN_INTERVAL', 0.0)
    work = [Work()]
    show = speed.SamplingProgress(lambda: work[0])
    show()  # outside of any display: nothing to show it in
    with progress.progress(4, unit='problems', description='evaluate'):
        work[0] = Work(sampled=50, slot_steps=100, prompt_tokens=10, prefilled=40, seconds=2.0)
        show()
    line = capsys.readouterr().err.splitlines()[0]
    assert line.startswith('evaluate 0/4 problems')
    for field in ('sampled 50', 'tokens/s 25', 'slots 0.5', 'padded prefill 0.75'):
        assert field in line


def test_a_few_steps_are_traced_if_profiling_is_on(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(jax.profiler, 'start_trace', lambda folder: events.append(folder))
    monkeypatch.setattr(jax.profiler, 'stop_trace', lambda: events.append('stop'))

    def run(name, steps):
        with profiling.StepTrace(name) as trace, profiling.StepTrace('inner') as inner:
            for _ in range(steps):
                trace.tick()
                inner.tick()  # one trace at a time

    run('off', 10)
    monkeypatch.setattr(profiling, '_folder', None)  # and again after the test
    profiling.turn_on(tmp_path)
    run('actor', 10)
    run('short', profiling.FIRST)  # ends while it is traced
    assert events == [str(tmp_path / 'actor'), 'stop', str(tmp_path / 'short'), 'stop']


TRACE = """
import sys, jax
from elenchus.train.metrics import profiling
profiling.turn_on(sys.argv[1])
with profiling.StepTrace('actor') as trace:
    for i in range(profiling.FIRST + profiling.COUNT):
        jax.block_until_ready(jax.numpy.ones(8) * i)
        trace.tick()
"""


@pytest.mark.slow
def test_a_trace_is_written(tmp_path):
    """In a process of its own: libtpu, loaded by other tests, breaks the profiler of a CPU."""
    subprocess.run([sys.executable, '-c', TRACE, str(tmp_path)], check=True)
    assert list((tmp_path / 'actor').rglob('*.xplane.pb'))


def test_rows_of_timing_can_be_read_as_json(tmp_path):
    writers.append_timing(tmp_path, {'time/sampled': 3})
    assert json.loads((tmp_path / 'timing.jsonl').read_text())['time/sampled'] == 3
