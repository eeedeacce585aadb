"""Training and evaluation called from Python: no flags, no config file, no work directory."""

import jax
import numpy as np
import pytest

from elenchus.configs import lab
from elenchus.data.grading import verify
from elenchus.model import transformer
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.run.inputs import load_inputs
from elenchus.train.run.samplers import Samplers
from elenchus.train.sft import perplexities
from elenchus.train.stages.actor import actor_examples
from elenchus.train.stages.evaluate import evaluate
from elenchus.train.stages.improve import improve
from elenchus.train.stages.reinforce import grpo
from elenchus.train.stages.sft import sft

S = build.build(RunSettings, lab.get_config('smoke'))


@pytest.fixture(scope='module')
def samplers():
    with verify.Verifier(num_workers=1, timeout_s=5.0) as verifier:
        yield Samplers(S.sampling, load_inputs(S, verifier))


def make_model(seed):
    return transformer.init_model(S.model, jax.random.key(seed))


def are_equal(one, other):
    return all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other)))


def test_sft_lowers_the_loss_of_a_copy(samplers):
    start = make_model(seed=0)
    examples = actor_examples(S.actor, samplers.inputs.chat, samplers.inputs.train_problems)
    actor, totals = sft(start, examples, settings=S.actor.fit, loop=S.train, seed=0)
    before, after = (np.mean(perplexities(m, examples, rows=S.train.rows)) for m in (start, actor))
    assert after < before
    assert totals['examples'] == len(examples)
    assert are_equal(start, make_model(seed=0))


def test_grpo_changes_the_actor_and_not_the_critic(samplers):
    pair = samplers.pair(make_model(seed=0), make_model(seed=1))
    problems = samplers.inputs.train_problems
    trained, totals = grpo(
        pair, problems, settings=S.reinforce, loop=S.train, samplers=samplers, seed=0
    )
    assert set(trained) == {'actor'} and totals['updates']['actor'] > 0
    assert not are_equal(trained['actor'], pair.actor)
    assert are_equal(pair.actor, make_model(seed=0))
    assert are_equal(pair.critic, make_model(seed=1))


def test_improve_trains_on_what_the_actor_explores(samplers):
    pair = samplers.pair(make_model(seed=0), make_model(seed=1))
    problems, chat = samplers.inputs.train_problems, samplers.inputs.chat
    demonstrations = actor_examples(S.actor, chat, problems)
    actor, totals, figures = improve(
        pair,
        lambda: pair.actor,
        problems,
        explorer='vanilla',
        settings=S.improve,
        demonstrations=demonstrations,
        loop=S.train,
        samplers=samplers,
        seed=0,
    )
    assert totals['examples'] == len(demonstrations) + figures['kept']
    assert not are_equal(actor, pair.actor)
    assert are_equal(pair.actor, make_model(seed=0))


def test_evaluate(samplers):
    pair = samplers.pair(make_model(seed=0), make_model(seed=1))
    summary = evaluate(
        pair, samplers.inputs.test_problems, settings=S.evaluate, samplers=samplers, seed=0
    )
    assert summary['questions'] == S.evaluate.num_problems
