"""SPOC: each message of a talk has its own reward, compared with messages at its place."""

import types

import numpy as np
import pytest

from elenchus.configs.methods import spoc
from elenchus.data import records
from elenchus.train.config import build, checks
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.rl import advantages, credit, rewards
from tests.support.fake_engine import CHAT

LINES = {
    'line': 'ben : eve 7 - 4 = 3 ; ben 3',
    'remark': 'ben : eve - 4 ; eve 7 ; 7 - 4 = 3 ; ben 3 - 3 = 0 ; correct',
    'right': '#### 3',
    'wrong': '#### 4',
    'yes': 'answer : ben 3 - 3 = 0 ; correct',
    'no': 'answer : ben 3 - 4 = 9 ; wrong',
}
PROBLEM = records.Problem('p', 'eve 7 ; ben : eve - 4 ; ben ?', '3', '', 1, 'lab')


def lines_of(talk):
    return [LINES[name] for name in talk.split()]


@pytest.mark.parametrize(
    ('talk', 'expected'),
    [
        ('line remark right yes', [('solution', 0, 0, 3, 1.0), ('verdict', 0, 3, 4, 1.0)]),
        ('right no', [('solution', 0, 0, 1, 1.0), ('verdict', 0, 1, 2, 0.0)]),
        (
            'wrong no line right yes',
            [
                *(('solution', 0, 0, 1, 0.0), ('verdict', 0, 1, 2, 1.0)),
                *(('solution', 1, 2, 4, 1.0), ('verdict', 1, 4, 5, 1.0)),
            ],
        ),
        ('line remark', [('solution', 0, 0, 2, 0.0)]),
        (
            'right yes line',
            [('solution', 0, 0, 1, 1.0), ('verdict', 0, 1, 2, 1.0), ('solution', 1, 2, 3, 0.0)],
        ),
        ('right line', [('solution', 0, 0, 1, 1.0)]),
        ('wrong', [('solution', 0, 0, 1, 0.0)]),
    ],
)
def test_a_talk_is_its_messages(talk, expected):
    assert spoc.messages(lines_of(talk), '3') == expected


def group_of(*talks):
    """A group of talks, sampled as attempts."""
    episodes = []
    for talk in talks:
        turn = CHAT.text_turn('attempt', '\n '.join(lines_of(talk)))
        turn = turn.with_facts(correct=talk.endswith('right yes'))
        episodes.append(records.Episode('p', 1, (*CHAT.question_turns(PROBLEM.question), turn)))
    return records.RolloutGroup(PROBLEM, tuple(episodes))


def test_the_advantages_are_those_of_the_paper_through_the_slot_without_scores():
    settings = build.build(RunSettings, spoc.get_config('default')).reinforce
    rules = settings.reward_rules('actor')
    assert not rules.needs_step_scores  # no critique is sampled
    group = group_of('line right yes', 'line wrong yes', 'line wrong no right yes')
    values = credit.assign_credit(
        group,
        rules,
        limits={'attempt': 90},
        read=CHAT.text,
        first_phase=False,
        penalties=None,
        seed=0,
    )
    first, second, third = (episode[2] for episode in values.advantages)
    high, low = np.sqrt(2), -np.sqrt(0.5)
    # Solutions at place 0: right, wrong, wrong; verdicts there: right, wrong, right.
    np.testing.assert_allclose(first, [high, high, -low], atol=1e-3)
    np.testing.assert_allclose(second, [low, low, -high], atol=1e-3)
    # The messages at place 1 are alone: nothing to compare them with.
    np.testing.assert_allclose(third, [low, low, -low, 0, 0], atol=1e-3)


def test_every_token_of_a_message_carries_its_advantage():
    (episode,) = group_of('line remark wrong no right yes')
    turn = episode.attempt
    assert len(turn.steps) == 6
    judged = rewards.JudgedTurn(turn, turn, PROBLEM, 90, 4, CHAT.text)
    assert judged.lines == lines_of('line remark wrong no right yes')
    context = types.SimpleNamespace(turns=[[judged]], settings=types.SimpleNamespace(epsilon=1.0))
    (values,) = spoc.by_message([[None] * 6], context)
    assert values.shape == (6,)


def test_a_function_that_reads_scores_has_them_sampled():
    assert advantages.reads_scores('normalised') and advantages.reads_scores('difference')
    assert not advantages.reads_scores('elenchus.configs.methods.spoc:by_message')


@pytest.mark.parametrize('variant', ['default', 'smoke'])
def test_talks_fit_wherever_attempts_did(variant):
    """The lab's longest question has 63 tokens."""
    settings = build.build(RunSettings, spoc.get_config(variant))
    checks.check_lengths(settings, 63)
    with pytest.raises(ValueError, match='must be at least'):
        checks.check_lengths(settings, 300)
