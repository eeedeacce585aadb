"""Reinforcement of turns that call tools: the trainer recomputes what the sampler recorded."""

import dataclasses
from unittest import mock

import jax
import pytest

from elenchus.data import records
from elenchus.data.tools.answer import Answer
from elenchus.data.tools.call_forms import Call
from elenchus.sampling.engine import sampling_methods, token_rules
from elenchus.sampling.tools import ToolUse
from elenchus.train.metrics import writers
from elenchus.train.rl import trainer, update_batch
from tests.support import tiny_model
from tests.train.rl.test_trainer import (
    LOOP,
    METHOD,
    PLAIN,
    PROBLEMS,
    SCORER,
    SHARED,
    settings_of,
    tiny_models,
)

TOOL = records.ROLES.index('tool')
ANSWERS = ('wrong 7', 'correct', '4 - 3 = 1')
CORRECTION = {'turns__episode': 'correction', **PLAIN}


def third(token, logits, where):
    return where.turn_position % 3 == 2


PAUSE = token_rules.TokenRule(third, 'sampling.tools', ('attempt', 'refinement'))


class EveryThird:
    """A form of calls that a random model writes: each third token is one."""

    form, is_plain = 'tags', False
    roles = ('attempt', 'refinement')

    def find(self, text):
        return Call('sum', text, before=' ')


def train(folder, *, calls=None, num_steps=2, **changes):
    """(rows of metrics, batches) of a run whose actor calls tools twice a turn."""

    def answer(batch_of_calls):
        if calls is not None:
            calls.extend(batch_of_calls)
        return [Answer(ANSWERS[len(call.text) % 3]) for call in batch_of_calls]

    batches, weigh = [], update_batch.batch_without_weights

    def keep(*args):
        batches.append((args[0], weigh(*args)))
        return batches[-1][1]

    pair = tiny_models()
    use = ToolUse(EveryThird(), answer, 2)
    limits = {'attempt': 22, 'critique': 8, 'refinement': 22}
    pair = dataclasses.replace(
        pair, sampler=dataclasses.replace(pair.sampler, tools=use, max_tokens=limits)
    )
    writer = writers.Writer(folder, tensorboard=folder / 'board')
    patches = mock.patch.multiple(trainer, **SHARED)
    watch = mock.patch.object(update_batch, 'batch_without_weights', keep)
    with jax.set_mesh(tiny_model.one_device()), writer, patches, watch:
        trainer.reinforce(
            pair,
            PROBLEMS,
            trained=('actor',),
            settings=settings_of(num_steps=num_steps, **changes),
            loop=LOOP,
            scorer=SCORER,
            method=sampling_methods.with_rules(METHOD, None, PAUSE),
            folder=folder,
            writer=writer,
            seed=3,
        )
    return writers.read_rows(folder / writers.METRICS), batches


def worst_gap(rows):
    return max(value for row in rows for name, value in row.items() if name.endswith('gap_max'))


@pytest.mark.slow
def test_the_trainer_recomputes_turns_with_tools(tmp_path):
    calls = []
    rows, batches = train(tmp_path, calls=calls, samples_per_row=2, num_minibatches=2, **CORRECTION)
    assert len(calls) > 30 and worst_gap(rows) < 1e-5
    assert any(row['grads/norm'] > 0 for row in rows)
    for episodes, batch in batches:
        assert any(turn.tools for episode in episodes for turn in episode.turns)
        assert (batch.roles == TOOL).any()
        for row, episode in enumerate(episodes):
            count = sum(turn.is_of_tool().sum() for turn in episode.turns)
            assert (batch.roles[row] == TOOL).sum() == count
            assert not batch.loss_mask[row][batch.roles[row] == TOOL].any()
            assert not batch.weights[row][batch.roles[row] == TOOL].any()
        # Without the tools' tokens in what is read, the trainer would see other probabilities.
        assert batch.old_logprobs[batch.roles == TOOL].max(initial=0.0) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize('changes', [PLAIN, CORRECTION, {'num_minibatches': 2, **PLAIN}], ids=str)
@pytest.mark.parametrize('samples_per_row', [1, 4])
def test_in_every_layout_of_rows(tmp_path, samples_per_row, changes):
    rows, _ = train(tmp_path, samples_per_row=samples_per_row, **changes)
    assert worst_gap(rows) < 1e-5


@pytest.mark.slow
def test_a_run_that_stops_and_goes_on_has_the_same_result(tmp_path):
    whole, _ = train(tmp_path / 'whole', **PLAIN)
    train(tmp_path / 'parts', num_steps=1, **PLAIN)
    parts, _ = train(tmp_path / 'parts', **PLAIN)
    assert parts == whole
