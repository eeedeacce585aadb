"""Training and evaluation called from Python: no flags, no config file, no work directory."""

import jax
import numpy as np
import pytest

from elenchus.configs import lab
from elenchus.data.files import episode_files
from elenchus.data.grading import verify
from elenchus.model import transformer
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.run.directory import StageFolder
from elenchus.train.run.inputs import load_inputs
from elenchus.train.run.samplers import Samplers
from elenchus.train.sft import perplexities
from elenchus.train.stages.actor import actor_examples
from elenchus.train.stages.evaluate import evaluate
from elenchus.train.stages.improve import improve
from elenchus.train.stages.reinforce import grpo
from elenchus.train.stages.sft import sft
from tests.support import fake_run

CONFIG = lab.get_config('smoke')
CONFIG.model.num_layers = 1
CONFIG.evaluate.update(num_problems=4)
CONFIG.evaluate.uptake.num_problems = 1
CONFIG.evaluate.beam.num_problems = 1
S = build.build(RunSettings, CONFIG)


@pytest.fixture(scope='module')
def samplers():
    """Samplers on the problems, tokenizer and judge of the lab."""
    with verify.Verifier(num_workers=1, timeout_s=5.0) as verifier:
        yield Samplers(S.sampling, load_inputs(S, verifier))


def make_model(seed):
    return transformer.init_model(S.model, jax.random.key(seed))


def make_pair(samplers):
    return samplers.pair(actor=make_model(seed=0), critic=make_model(seed=1))


def examples_of(samplers):
    return actor_examples(S.actor, samplers.inputs.chat, samplers.inputs.train_problems)


def are_equal(one, other):
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(x, y) for x, y in leaves)


def is_unchanged(model, *, seed):
    return are_equal(model, make_model(seed))


def perplexity(model, examples):
    return np.mean(perplexities(model, examples, rows=S.train.rows))


@pytest.mark.slow
def test_sft_lowers_the_perplexity_of_a_copy(samplers):
    start, examples = make_model(seed=0), examples_of(samplers)
    actor, totals = sft(start, examples, settings=S.actor.fit, loop=S.train, seed=0)
    assert perplexity(actor, examples) < 0.9 * perplexity(start, examples)
    assert totals['examples'] == len(examples)
    assert is_unchanged(start, seed=0)


def test_grpo_trains_the_actor_and_not_the_critic(samplers):
    pair, problems = make_pair(samplers), samplers.inputs.train_problems
    options = {'settings': S.reinforce, 'loop': S.train, 'samplers': samplers}
    trained, totals = grpo(pair, problems, seed=0, **options)
    assert set(trained) == {'actor'}
    assert totals['updates'] == {'actor': S.reinforce.num_steps}
    assert not are_equal(trained['actor'], pair.actor)
    assert is_unchanged(pair.actor, seed=0) and is_unchanged(pair.critic, seed=1)


@pytest.mark.slow
def test_improve_trains_a_copy_of_the_actor_that_explored(samplers):
    pair, problems = make_pair(samplers), samplers.inputs.train_problems
    examples = examples_of(samplers)
    options = {'settings': S.improve, 'loop': S.train, 'samplers': samplers, 'seed': 0}
    actor, totals, figures = improve(
        pair, problems, explorer='vanilla', demonstrations=examples, **options
    )
    assert totals['examples'] == len(examples) + figures['kept']
    assert figures['tokens_sampled'] == figures['exploration']['tokens'] > 0
    assert perplexity(actor, examples) < 0.9 * perplexity(pair.actor, examples)
    assert is_unchanged(pair.actor, seed=0)


@pytest.mark.slow
def test_evaluate_returns_the_figures_of_its_episodes(samplers):
    pair, problems = make_pair(samplers), samplers.inputs.test_problems
    options = {'settings': S.evaluate, 'samplers': samplers, 'seed': 0}
    stage = StageFolder.temporary()
    summary = evaluate(pair, problems, stage=stage, **options)
    episodes = list(episode_files.read_episodes(stage.path / 'episodes'))
    assert len(episodes) == S.evaluate.num_problems * S.evaluate.num_attempts
    lengths = [len(episode.turn('attempt').tokens) for episode in episodes]
    assert summary['tokens_per_answer']['attempt'] == pytest.approx(np.mean(lengths))
    with fake_run.undrawn():
        assert evaluate(pair, problems, **options) == summary
