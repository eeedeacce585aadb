"""Depth of the call chain: a reader needs few steps from scripts/run.py to a jitted function."""

import collections
import contextlib
import pathlib
import sys
import traceback
import types

import pytest

from elenchus.configs import lab
from elenchus.data.grading import verify
from elenchus.sampling.engine import decode
from elenchus.scripts import run as script
from elenchus.train import sft
from elenchus.train.config import build
from elenchus.train.rl import trainer
from elenchus.train.run import runner, session

FEW = ('base', 'actor', 'critique')
STAGES = (*FEW, 'critic', 'vanilla', 'reinforce', 'evaluate')
TRAINED = ('base', 'actor', 'critic', 'vanilla', 'reinforce')
SAMPLED = ('critique', 'evaluate', 'vanilla', 'reinforce')
CASES = {('train step', s) for s in TRAINED} | {('decode loop', s) for s in SAMPLED}
MAX_FRAMES = {'train step': 8, 'decode loop': 12}
INLINED = {'<listcomp>', '<dictcomp>', '<setcomp>', '<genexpr>'}  # no calls of their own


def tiny_config(folder, stages):
    """A run of these stages, each with as little work as possible."""
    config = lab.get_config('smoke')
    config.stages = stages
    config.mesh = (8, 1, 1)
    config.data.update(num_train=16, num_test=4, data_dir=str(folder / 'data'))
    config.model.update(num_layers=1, embed_dim=16, mlp_dim=16)
    for stage in (config.base, config.actor, config.critic, config.improve):
        stage.fit.num_steps = 1
    config.base.num_documents = 32
    config.actor.num_problems = 8
    config.critique.update(num_problems=2, num_attempts=1, num_relocated=1, num_inserted=1)
    config.evaluate.update(num_problems=2, num_attempts=1, refine='always')
    config.evaluate.beam.num_problems = 1
    config.improve.update(num_problems=2, num_rounds=1, num_monitored=2)
    config.reinforce.update(num_steps=1, num_problems=4)
    return config


def chain_to_main() -> tuple[str, tuple[str, ...]]:
    """(stage, our own frames from main of scripts/run.py to the caller of the function)."""
    chain, stage = [], None
    for frame, _ in traceback.walk_stack(sys._getframe(2)):
        path = pathlib.Path(frame.f_code.co_filename)
        if not path.is_relative_to(build.ROOT) or frame.f_code.co_name in INLINED:
            continue
        chain.append(f'{path.relative_to(build.ROOT)}:{frame.f_code.co_name}')
        if frame.f_code is runner.run_stage.__code__:
            stage = frame.f_locals['name']
        if frame.f_code is script.main.__code__:
            return stage, tuple(reversed(chain))
    raise AssertionError('not called by main of scripts/run.py')


@pytest.fixture(scope='module', params=[FEW, pytest.param(STAGES, marks=pytest.mark.slow)], ids=len)
def chains(request, tmp_path_factory):
    """{(kind of jitted function, stage): all chains of calls to it} of one tiny run."""
    folder, recorded = tmp_path_factory.mktemp('frames'), collections.defaultdict(set)

    def recording(kind, function):
        def call(*args, **kwargs):
            stage, chain = chain_to_main()
            recorded[kind, stage].add(chain)
            return function(*args, **kwargs)

        return call

    def step_maker(make_train_step):
        return lambda **options: recording('train step', make_train_step(**options))

    flags = types.SimpleNamespace(describe=False, dry_run=False)
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setattr(decode, 'decode_chunk', recording('decode loop', decode.decode_chunk))
        for module in (sft, trainer):
            patch.setattr(module, 'make_train_step', step_maker(module.make_train_step))
        verifier = stack.enter_context(verify.Verifier(num_workers=1, timeout_s=1.0))
        config = tiny_config(folder, request.param)
        run = session.open_run(config, folder / 'run', verifier=verifier)
        patch.setattr(runner, 'run_of_flags', lambda: run.started())
        patch.setattr(runner, 'report', lambda run: None)
        patch.setattr(script, 'flags', types.SimpleNamespace(FLAGS=flags))
        script.main([])
    return recorded, request.param


@pytest.mark.slow
def test_few_frames_lie_between_the_script_and_a_jitted_function(chains):
    for (kind, stage), recorded in chains[0].items():
        longest = max(recorded, key=len)
        num_frames = 1 + len(longest)  # the first is the module scripts/run.py, which calls main
        print(f'{kind} of {stage}: {num_frames} frames')
        assert num_frames <= MAX_FRAMES[kind], '\n'.join(longest)


@pytest.mark.slow
def test_each_stage_calls_the_jitted_functions_of_its_kind(chains):
    recorded, stages = chains
    assert set(recorded) == {(kind, stage) for kind, stage in CASES if stage in stages}
