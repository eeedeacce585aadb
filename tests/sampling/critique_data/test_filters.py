"""Filters: what each leaves out and why; the soft filter counts only refinements that are right."""

import collections

import hypothesis
import pytest
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.data.grading import judge, verify
from elenchus.data.lab import forms
from elenchus.sampling import episodes
from elenchus.sampling.critique_data import filters
from elenchus.sampling.engine import sampling_methods
from elenchus.sampling.sample_spec import SampleSpec
from tests.support import fake_engine
from tests.support.fake_engine import CHAT

PROBLEM = forms.generate_problem(seed=0, split='train', index=4)
SAMPLING = sampling_methods.TemperatureSampling(0.7, 0, 1.0, 0.0, banned=())
WRONG = f'{PROBLEM.solution[:-1]}{(int(PROBLEM.solution[-1]) + 1) % 10}'
BARE = PROBLEM.solution.split('\n')[-1].strip()


def make_episode(tokens=(1,), problem='p', level=1, construction='RG1', **facts):
    facts = records.TurnFacts(**facts)
    steps = (records.Step(len(tokens)),)
    turn = records.Turn('attempt', (6,), tuple(tokens), steps=steps, facts=facts)
    return records.Episode(problem, level, (turn,), records.EpisodeFacts(construction))


def criticised(attempt):
    turns = (
        *CHAT.question_turns(PROBLEM.question),
        CHAT.text_turn('attempt', attempt).with_facts(correct=False),
        CHAT.text_turn('critique', 'answer : wrong').with_facts(verdict=False),
    )
    return records.Episode(PROBLEM.id, PROBLEM.level, turns)


@pytest.mark.parametrize(
    ('refinements', 'successes', 'first'),
    [
        ([PROBLEM.solution, WRONG, PROBLEM.solution], 2, PROBLEM.solution),
        ([WRONG, BARE, PROBLEM.solution], 1, PROBLEM.solution),
        ([BARE, BARE, WRONG], 0, None),
        ([f'{PROBLEM.solution}...'] * 3, 0, None),
    ],
)
def test_right_refinements_are_counted_but_no_bare_answers(refinements, successes, first):
    remaining = list(refinements)
    sampler = fake_engine.make_sampler(lambda request: remaining.pop(0))
    with verify.Verifier(num_workers=1, timeout_s=5.0) as verifier:
        results = filters.sample_refinement_results(
            sampler,
            None,
            [criticised(WRONG)],
            problems=[PROBLEM],
            judge=judge.make_judge('lab', verifier),
            spec=SampleSpec(3, SAMPLING, 0, 0),
        )
    assert results == [(successes, first)]
    assert all(request.texts['critique'] == 'answer : wrong' for request in sampler.engine.requests)


@pytest.mark.parametrize(
    ('correct', 'verdict', 'successes', 'reason'),
    [
        (False, False, 3, None),
        (False, False, 2, 'refinements'),
        (False, True, 3, None),
        (True, True, None, None),
        (True, False, None, 'verdict'),
    ],
)
def test_the_soft_filter(correct, verdict, successes, reason):
    facts = records.TurnFacts(verdict=verdict, refinement_successes=successes)
    critique = records.Turn('critique', (7,), (), facts=facts)
    episode = episodes.add_turn(make_episode(correct=correct), critique)
    assert filters.reject_unhelpful([episode], least=3) == [reason]


def test_attempts_constructed_to_be_flawed_must_be():
    episodes = [
        make_episode(construction=construction, correct=correct)
        for construction in ('RG1', 'RG2', 'RG3')
        for correct in (True, False)
    ]
    assert filters.reject_correct(episodes) == [None, None, 'came_right', None, 'came_right', None]


def test_no_path_is_taught_twice_but_at_another_problem():
    episodes = [
        make_episode(t, p) for t, p in (((3, 4), 'p'), ((3, 4), 'q'), ((3,), 'p'), ((3, 4), 'p'))
    ]
    assert filters.reject_duplicates(episodes) == [None, None, None, 'repeated']


def apply_balance(episodes, **options):
    reasons = filters.reject_for_balance(episodes, **options)
    assert len(reasons) == len(episodes)
    return [e for e, reason in zip(episodes, reasons, strict=True) if reason is None], reasons


def counts_of(episodes):
    return collections.Counter((e.level, e.attempt.facts.correct) for e in episodes)


@pytest.mark.parametrize(
    ('flawed', 'right', 'share', 'kept_right'),
    [(10, 50, 0.5, 10), (10, 5, 0.5, 5), (10, 50, 0.2, 2), (10, 50, 0.0, 0), (0, 9, 0.5, 0)],
)
def test_every_flawed_path_is_kept_and_a_share_of_right_ones(flawed, right, share, kept_right):
    episodes = [make_episode((i,), correct=i >= flawed) for i in range(flawed + right)]
    chosen, reasons = apply_balance(episodes, correct_share=share, level_balance=0.0)
    assert counts_of(chosen) == collections.Counter({(1, False): flawed, (1, True): kept_right})
    assert set(reasons) <= {None, 'share'}


def test_right_paths_are_as_many_as_flawed_ones_of_their_level():
    """Otherwise the level alone would reveal most verdicts."""
    episodes = [make_episode((i,), level=1, correct=i > 2) for i in range(40)]
    episodes += [make_episode((i,), level=5, correct=i > 30) for i in range(40)]
    chosen, _ = apply_balance(episodes, correct_share=0.5, level_balance=0.0)
    assert counts_of(chosen) == {(1, False): 3, (1, True): 3, (5, False): 31, (5, True): 9}


def test_what_stays_is_spread_over_what_there_was():
    episodes = [make_episode((i,), correct=i >= 4) for i in range(104)]
    chosen, _ = apply_balance(episodes, correct_share=0.5, level_balance=0.0)
    assert [e.turns[0].tokens[0] for e in chosen[4:]] == [4, 29, 54, 79]


@hypothesis.given(
    sizes=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=5),
    share=st.floats(0, 0.9),
    balance=st.floats(0, 1),
)
def test_balance_keeps_its_word(sizes, share, balance):
    episodes = [
        make_episode((level, correct, i), level=level, correct=correct)
        for level, pair in enumerate(sizes)
        for correct, count in zip((False, True), pair, strict=True)
        for i in range(count)
    ]
    chosen, reasons = apply_balance(episodes, correct_share=share, level_balance=balance)
    before, after = counts_of(episodes), counts_of(chosen)
    flawed = [after[level, False] for level in range(len(sizes)) if before[level, False]]
    if flawed:
        assert min(flawed) >= balance * max(flawed) - 1e-9
        assert min(flawed) == min(pair[0] for pair in sizes if pair[0])
    for level in range(len(sizes)):
        total = after[level, False] + after[level, True]
        assert after[level, True] <= share * total + 1
    for episode, reason in zip(episodes, reasons, strict=True):
        assert reason in ((None, 'share') if episode.attempt.facts.correct else (None, 'level'))
    assert apply_balance(chosen, correct_share=share, level_balance=balance)[0] == chosen
