"""What counts as right without labels: decisions, what they change, and that no label is read."""

import dataclasses
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import mc_cot
from elenchus.sampling.exploration import acceptance, explorers, selection
from elenchus.sampling.trees.search import TreeSearch
from tests.sampling.exploration.test_explorers import SETTINGS, TREE
from tests.support import fake_engine
from tests.support.fake_engine import CHAT
from tests.support.rollout_cases import METHOD

PROBLEMS = fake_engine.problems(6)
VOTES = 'elenchus.configs.methods.mc_cot:votes'
UNLABELLED = (
    *('vanilla', 'critique_in_the_loop', 'interactive', 'uniform', 'self_guided', 'tree_search'),
)
"""Explorers that show nobody the reference."""


def play(role, request, seed):
    """Digits by noise; the critic calls even answers correct."""
    if role == 'critique':
        text = fake_engine.last_text(request, 'attempt')
        return fake_engine.ids_of(f'answer : {"correct" if int(text[-1]) % 2 == 0 else "wrong"}')
    digit = zlib.crc32(f'{request.id} {seed} {role}'.encode()) % 3
    return fake_engine.ids_of(f'#### {digit}')


def explore(explorer, *, accept, judge=fake_engine.judge, problems=PROBLEMS):
    engine = fake_engine.RuleEngine(play)
    models = dataclasses.replace(fake_engine.players(engine), judge=judge)
    settings = dataclasses.replace(SETTINGS, accept=accept)
    tree = dataclasses.replace(TREE, values=(('agreement', 1.0),))
    lines = fake_engine.RuleEngine(play)
    trees = TreeSearch(tree, fake_engine.players(lines).sampler, fake_engine.SCORER)
    options = {'method': METHOD, 'seed': 1, 'first_id': 0, 'trees': trees}
    episodes, tokens = explorers.explore(settings, models, problems, explorer=explorer, **options)
    assert tokens == engine.tokens + lines.tokens
    return engine, settings, episodes


def blind(pairs):
    """A judge that knows answers, and says the same of all of them."""
    return [dataclasses.replace(f, correct=True, outcome=None) for f in fake_engine.judge(pairs)]


def decided(episodes):
    """What is decided, and what is trained on."""
    kept = selection.curate(
        episodes, dataclasses.replace(SETTINGS, keep=99), wrong=False, deduplicate=False
    )
    chosen = [(e.problem_id, e.turns[-1].tokens) for e in kept]
    return [e.turns for e in episodes if e.response.facts.accepted], chosen


@pytest.mark.parametrize('explorer', UNLABELLED)
@pytest.mark.parametrize('accept', ['critic', VOTES])
def test_no_label_is_read(explorer, accept):
    """Other labels and other references change no turn, no decision and nothing that is trained."""
    other = [dataclasses.replace(p, answer='99', solution='') for p in PROBLEMS]
    plain = lambda episodes: [  # noqa: E731
        (tuple((t.role, t.tokens) for t in e.turns), e.response.facts.accepted) for e in episodes
    ]
    *_, first = explore(explorer, accept=accept)
    *_, second = explore(explorer, accept=accept, judge=blind, problems=other)
    assert plain(first) == plain(second)
    assert decided(first)[1] == decided(second)[1] != []


@pytest.mark.parametrize('explorer', explorers.EXPLORERS)
def test_labels_leave_the_facts_as_they_were(explorer):
    *_, episodes = explore(explorer, accept='right')
    assert all(turn.facts.accepted is None for e in episodes for turn in e.turns)


@pytest.mark.parametrize('explorer', explorers.EXPLORERS)
def test_a_rule_sees_the_attempts_before_the_responses_of_any_explorer(explorer, tmp_path):
    path = tmp_path / 'mine.py'
    rule = f'[i >= {SETTINGS.num_attempts} for i in range(len(responses))]'
    path.write_text(f'def mine(responses):\n    return {rule}\n')
    *_, episodes = explore(explorer, accept=f'{path}:mine')
    for episode in episodes:
        facts = episode.response.facts
        assert facts.accepted == (facts.origin != 'attempt')


def test_the_critic_decides_what_is_refined_and_each_attempt_is_criticised_once():
    engine, _, episodes = explore('critique_in_the_loop', accept='critic')
    even = [int(CHAT.text(e.attempt)[-1]) % 2 == 0 for e in episodes]
    for episode, is_even in zip(episodes, even, strict=True):
        last = episode.turns[-1]
        if last.role == 'refinement':
            assert not is_even and episode.critique.facts.verdict is False
        assert last.facts.accepted == (int(CHAT.text(last)[-1]) % 2 == 0)
    attempts = 3 * len(PROBLEMS)
    refinements = len(episodes) - attempts
    assert refinements == 2 * sum(not e for e in even[:attempts])
    assert engine.num_requests('critique') == attempts + refinements


def test_a_question_that_is_accepted_gets_no_more_responses():
    *_, settings, episodes = explore('uniform', accept='critic')
    for problem in PROBLEMS:
        accepted = [e.response.facts.accepted for e in episodes if e.problem_id == problem.id]
        assert sum(accepted[:-1]) < max(settings.min_correct, sum(accepted[:3]) + 1)
        assert all(isinstance(value, bool) for value in accepted)


def responses(answers, correct=False):
    problem, rows = PROBLEMS[0], []
    for answer in answers:
        text = 'ben ?' if answer is None else f'#### {answer}'
        turn = CHAT.text_turn('attempt', text).with_facts(answer=answer, correct=correct)
        rows.append(acceptance.Response(problem, turn, text, None))
    return rows


ANSWERS = st.lists(st.sampled_from(['1', '2', '3', None]), max_size=8)


@given(ANSWERS, st.booleans())
def test_votes_are_for_one_answer_that_nobody_has_more_of(answers, correct):
    flags = mc_cot.votes(responses(answers, correct))
    chosen = {a for a, flag in zip(answers, flags, strict=True) if flag}
    assert len(flags) == len(answers) and len(chosen) <= 1 and None not in chosen
    counts = {a: answers.count(a) for a in answers if a is not None}
    if max(counts.values(), default=0) > 1:
        (answer,) = chosen
        assert counts[answer] == max(counts.values())
        assert flags == [a == answer for a in answers]
    else:
        assert not chosen


RETURNED = {
    'None': None,
    'a text': 'yes',
    'too few': [True],
    'numbers': [1, 0, 1],
    'one value': True,
}


@pytest.mark.parametrize('returned', RETURNED.values(), ids=RETURNED)
def test_what_is_no_decision_is_an_error_of_one_line(tmp_path, returned):
    path = tmp_path / 'mine.py'
    path.write_text(f'def mine(responses):\n    return {returned!r}\n')
    with pytest.raises(ValueError, match='it must return True, False or None for each of 3') as e:
        explore('vanilla', accept=f'{path}:mine')
    assert str(e.value).startswith('improve.explore.accept: mine (') and '\n' not in str(e.value)


def test_a_function_that_empties_its_argument_is_named(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text('def mine(responses):\n    responses.clear()\n    return []\n')
    with pytest.raises(ValueError, match=r'accept: mine \(.*True, False or None for each of 3'):
        explore('vanilla', accept=f'{path}:mine')


def test_unknown_does_not_count_as_right(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text('def mine(responses):\n    return [None] * len(responses)\n')
    *_, episodes = explore('critique_in_the_loop', accept=f'{path}:mine')
    assert decided(episodes) == ([], [])
