"""Texts that a fit replays: which, what they add to a step, and that nothing else changes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.configs import lab
from elenchus.data import records
from elenchus.model import lora
from elenchus.train import optimizer, replayed_texts, step
from elenchus.train.config import build, checks
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.loop import init_train_state, to_device
from elenchus.train.objective import SFT
from tests.support import tiny_model
from tests.support.fake_engine import CHAT

HERE = 'tests.train.test_replayed_texts'
CONFIG = dataclasses.replace(tiny_model.FLAT, vocab_size=64, max_length=96)
TEXTS = [
    CHAT.example(
        (*CHAT.question_turns('eve 7 ; eve ?'), CHAT.text_turn('attempt', f'#### {i}')),
        trained=('attempt',),
        weights=None,
        last_only=True,
    )
    for i in range(8)
]


def squares(hidden, before, mask):
    return jnp.square(hidden - before).mean(-1)


def whole(hidden, before, mask):
    return jnp.square(hidden - before).mean()


def listed(hidden, before, mask):
    return [0.0]


def replay_of(hidden='none', coef=1.0, texts=TEXTS):
    settings = replayed_texts.ReplaySettings(len(texts), hidden, coef)
    return replayed_texts.Replay(settings, texts, seed=3)


@pytest.fixture(scope='module')
def model():
    with jax.set_mesh(tiny_model.one_device()):
        return tiny_model.make_model(CONFIG, 1)


def take_step(model, replay, *, frozen=None, before=None):
    """(new model, metrics) of one step of plain gradient descent."""
    settings = optimizer.OptimizerSettings(
        'adamw', 0.01, 0.01, 'constant', 0.0, 0.0, 0.9, 0.95, 1.0
    )
    rule = optimizer.make_optimizer(settings, num_steps=3)
    with jax.set_mesh(tiny_model.one_device()):
        train_step = step.make_train_step(
            objective=SFT,
            optimizer=rule,
            transform=step.IDENTITY,
            num_microbatches=1,
            skip_nonfinite=False,
            extra_loss=replay and replay.loss,
        )
        batch = to_device(replay_of().batch(9, rows=2))
        more = {}
        if replay:
            texts = to_device(replay.batch(0, rows=2))
            more = {'extra': replayed_texts.Replayed(texts, before or model)}
        state = init_train_state(model, rule)
        state, metrics = train_step(state, batch, frozen, **more)
        return state.model, jax.device_get(metrics)


def test_texts_of_a_step_depend_on_seed_and_step_alone():
    batches = [replay_of().batch(number, rows=4) for number in (0, 1, 0)]
    assert (batches[0].tokens == batches[2].tokens).all()
    assert (batches[0].tokens != batches[1].tokens).any()
    rows = {tuple(row) for row in batches[0].tokens.tolist()}
    assert len(rows) == 4  # none twice, while there are enough
    assert replay_of(texts=TEXTS[:1]).batch(0, rows=4).tokens.shape[0] == 4


@pytest.mark.slow
def test_the_loss_is_that_of_the_texts_and_the_penalty_starts_at_zero(model):
    with jax.set_mesh(tiny_model.one_device()):
        replay = replay_of(f'{HERE}:squares', 100.0)
        batch = to_device(replay.batch(0, rows=2))
        loss, metrics = replay.loss(model, replayed_texts.Replayed(batch, model), None)
        logprobs, _ = step.batch_logprobs(model, batch, step.IDENTITY)
        nll = -(logprobs * batch.loss_mask).sum() / batch.loss_mask.sum()
        other = tiny_model.make_model(CONFIG, 2)
        moved, more = replay.loss(model, replayed_texts.Replayed(batch, other), None)
    assert float(loss) == pytest.approx(float(nll), rel=1e-6)
    assert metrics['replay/hidden'] == 0.0 < more['replay/hidden']
    assert float(moved) == pytest.approx(float(nll + 100 * more['replay/hidden']), rel=1e-5)


@pytest.mark.slow
def test_without_replay_a_step_is_what_it_was_and_with_it_its_gradient_is_added(model):
    plain, metrics = take_step(model, None)
    replayed, more = take_step(model, replay_of())
    assert set(more) - set(metrics) == {'replay/nll'}
    assert more['loss/total'] == pytest.approx(metrics['loss/total'] + more['replay/nll'])
    assert more['loss/nll'] == metrics['loss/nll']
    assert any(
        np.any(a != b)
        for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(replayed), strict=True)
    )


@pytest.mark.slow
def test_under_adapters_the_base_stays_and_the_penalty_reads_the_model_before(model):
    adaptation = lora.Adaptation(lora.LoraSettings(2, 4.0, ('query', 'down')), '', 0, 'none')
    with jax.set_mesh(tiny_model.one_device()):
        adapters = lora.init_adapters(CONFIG, adaptation, jax.random.key(0))
        joined = lora.attach(model, adapters)
        trained, frozen = lora.split(joined)
    replay = replay_of(f'{HERE}:squares', 10.0)
    _, metrics = take_step(trained, replay, frozen=frozen, before=joined)
    _, other = take_step(trained, replay, frozen=frozen, before=tiny_model.make_model(CONFIG, 2))
    # Two passes of one program may differ in the last bits, whose squares these are.
    assert metrics['replay/hidden'] < 1e-11 < 1e-3 < other['replay/hidden']
    assert metrics['grads/norm'] > 0


def test_a_penalty_of_another_shape_is_refused():
    ones = jnp.ones((2, 3, 4))
    for name in ('whole', 'listed'):
        with pytest.raises(ValueError, match=rf'^actor\.replay\.hidden: {name} .*\[2, 3\]'):
            replayed_texts.penalties(f'{HERE}:{name}', ones, ones, mask=jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r'num_documents above 0'):
        replayed_texts.ReplaySettings(0, f'{HERE}:squares', 1.0)


def test_figures_are_perplexities_of_all_texts(model):
    with jax.set_mesh(tiny_model.one_device()):
        values = replay_of().figures(model, model, rows=4)
    assert values['documents'] == 8 and values['perplexity_before'] > 1
    assert values['perplexity_before'] == values['perplexity_after']
    assert isinstance(TEXTS[0], records.Example)


def test_it_is_an_error_before_the_run():
    config = lab.get_config('smoke')
    config.actor.replay.update(num_documents=4, hidden=f'{HERE}:squares')
    checks.check_settings(build.build(RunSettings, config))
    config.actor.replay.hidden = f'{HERE}:whole'
    with pytest.raises(ValueError, match=r'^actor\.replay\.hidden: whole .*\[2, 16\]'):
        checks.check_settings(build.build(RunSettings, config))
