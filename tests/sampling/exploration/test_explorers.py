"""Explorers, selection and coverage, with engines that answer by a script."""

import collections
import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.data.lab import forms
from elenchus.sampling import episodes
from elenchus.sampling.engine import sampling_methods
from elenchus.sampling.exploration import context, coverage, explorers, proposals, selection
from elenchus.sampling.trees import search
from tests.support import fake_engine
from tests.support.fake_engine import CHAT, EOS, TOKENIZER

PROBLEMS = [forms.generate_problem(seed=0, split='train', index=i) for i in range(3)]
PROBLEM = PROBLEMS[1]
SETTINGS = context.ExploreSettings(
    num_attempts=3,
    num_refinements=2,
    num_guided_rounds=2,
    num_uniform_rounds=5,
    min_correct=2,
    token_budget=0,
    keep=2,
    keep_refined=1,
    critiques='own',
    guides='own',
    teacher='critic',
    refine='wrong',
    accept='right',
    player_guide='none',
    opening='none',
)
TREE = search.TreeSettings(
    grow='line', select='uct', exploration=0.3, values=(('rollouts', 1.0),), backup='mean',
    num_rollouts=2, expansions=2, children=2, max_depth=12, num_nodes=12, num_tokens=0,
)  # fmt: skip
SAMPLING = sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, banned=())
RIGHT = PROBLEM.solution
STEP, WRONG = RIGHT.split('\n')[0], RIGHT[:-1] + str((int(RIGHT[-1]) + 1) % 10)
LONGER = f'{STEP}\n {RIGHT}'  # a step twice: right, and another response
PLAIN = ('vanilla', 'vanilla_2', 'critique_in_the_loop', 'tree_search')
GUIDED = [name for name in explorers.EXPLORERS if name not in PLAIN]


def wrong(problem):
    return f'{problem.solution[:-1]}{(int(problem.solution[-1]) + 1) % 10}'


def explore_scripted(explorer, attempts, refinements=(), *, problems=(PROBLEM,), **changed):
    """(all episodes, tokens) of an explorer whose models write these texts, in order."""
    texts = {
        'attempt': list(attempts),
        'critique': ['answer : wrong'] * 99,
        'refinement': list(refinements),
    }
    return explorers.explore(
        dataclasses.replace(SETTINGS, **changed),
        fake_engine.players(fake_engine.ScriptedEngine(texts)),
        problems,
        explorer=explorer,
        method=SAMPLING,
        seed=0,
        first_id=0,
    )


def kept_texts(explorer, attempts, refinements=(), **changed):
    results, _ = explore_scripted(explorer, attempts, refinements, **changed)
    return texts_of(
        selection.curate(
            results, dataclasses.replace(SETTINGS, **changed), wrong=False, deduplicate=True
        )
    )


def texts_of(episodes):
    return [CHAT.text(episode.turns[-1]) for episode in episodes]


def hopeless(role, request, seed):
    """Attempts and refinements that are wrong whatever the prompt is; a right critique."""
    if role == 'critique':
        return fake_engine.critique(request)
    question = TOKENIZER.decode(request.prompt[1 : turn_starts(request)[1]])
    problem = next(p for p in PROBLEMS if p.question == question)
    opening = fake_engine.last_text(request, role)
    lines = wrong(problem).split('\n')
    return fake_engine.ids_of('\n'.join(lines[opening.count('\n') :]).lstrip())


def turn_starts(request):
    headers = {CHAT.header(role)[0] for role in records.TURN_ROLES}
    return [i for i, token in enumerate(request.prompt) if token in headers]


def explore_ruled(explorer, rule, **changed):
    """(requests, episodes) of an explorer on all problems."""
    engine, lines = fake_engine.RuleEngine(rule), fake_engine.RuleEngine(rule)
    settings = dataclasses.replace(SETTINGS, **changed)
    trees = search.TreeSearch(TREE, fake_engine.players(lines).sampler, fake_engine.SCORER)
    results, tokens = explorers.explore(
        settings, fake_engine.players(engine), PROBLEMS, explorer=explorer, method=SAMPLING,
        seed=7, first_id=100, trees=trees,
    )  # fmt: skip
    assert tokens == engine.tokens + lines.tokens
    return engine.requests, results


# What is sampled


@pytest.mark.parametrize('explorer', explorers.EXPLORERS)
def test_every_explorer_begins_with_the_same_attempts(explorer):
    requests, results = explore_ruled(explorer, hopeless)
    first = [request for _, request in requests[: 3 * len(PROBLEMS)]]
    assert first == [request for _, request in explore_ruled('vanilla', hopeless)[0]]
    assert [e.response.facts.origin for e in results].count('attempt') == 3 * len(PROBLEMS)


@pytest.mark.parametrize('explorer', GUIDED)
def test_in_a_round_each_question_with_too_few_right_ones_gets_one_response(explorer):
    _, results = explore_ruled(explorer, hopeless)
    more = collections.Counter(e.problem_id for e in results if e.response.facts.origin == explorer)
    rounds = SETTINGS.num_uniform_rounds if explorer == 'uniform' else SETTINGS.num_guided_rounds
    assert more == {problem.id: rounds for problem in PROBLEMS}


@pytest.mark.parametrize('explorer', GUIDED)
def test_a_question_with_enough_right_ones_gets_no_more(explorer):
    results, _ = explore_scripted(explorer, [RIGHT, WRONG, RIGHT])
    assert texts_of(results) == [RIGHT, WRONG, RIGHT]


def test_rounds_end_when_there_are_enough_right_ones():
    results, _ = explore_scripted('uniform', [RIGHT, WRONG, WRONG, WRONG, LONGER, WRONG])
    assert texts_of(results) == [RIGHT, WRONG, WRONG, WRONG, LONGER]


@pytest.mark.parametrize('explorer', proposals.GUIDES)
def test_a_guide_is_in_the_prompt_and_not_trained_on(explorer):
    requests, results = explore_ruled(explorer, hopeless)
    guides = [CHAT.text(e.turn('guide')) for e in results if e.response.facts.origin == explorer]
    guided_problems = [p for _ in range(SETTINGS.num_guided_rounds) for p in PROBLEMS]
    assert guides == [proposals.GUIDES[explorer](p) for p in guided_problems]
    guide = CHAT.header('guide')[0]
    assert sum(guide in request.prompt for _, request in requests) == len(guides)
    answers = [episodes.as_attempt(fake_engine.players(None).sampler, e) for e in results]
    assert {tuple(t.role for t in e.turns) for e in answers} == {('question', 'attempt')}


def test_state_reset_begins_with_the_references_lines_by_turns():
    _, results = explore_ruled('state_reset', hopeless, num_guided_rounds=3)
    for problem in PROBLEMS:
        reset = [e for e in results if e.response.facts.origin == 'state_reset']
        texts = [CHAT.text(e.turns[-1]) for e in reset if e.problem_id == problem.id]
        lines = problem.solution.split('\n')
        assert len(texts) == 3
        for number, text in enumerate(texts):
            count = 1 + number % (len(lines) - 1)
            assert text.split('\n')[:count] == lines[:count]
            assert text == wrong(problem)


def test_interaction_is_one_critique_and_one_revision_a_round():
    requests, results = explore_ruled('interactive', hopeless)
    roles = collections.Counter(role for role, _ in requests)
    rounds = SETTINGS.num_guided_rounds * len(PROBLEMS)
    assert (roles['critique'], roles['refinement']) == (rounds, rounds)
    loop = collections.Counter(
        role for role, _ in explore_ruled('critique_in_the_loop', hopeless)[0]
    )
    wrong_attempts = SETTINGS.num_attempts * len(PROBLEMS)
    assert loop['critique'] == wrong_attempts
    assert loop['refinement'] == wrong_attempts * SETTINGS.num_refinements


def test_right_attempts_are_refined_too_where_all_are():
    texts = [RIGHT, WRONG, RIGHT]
    results, _ = explore_scripted('critique_in_the_loop', texts, [LONGER] * 6, refine='always')
    refined = [e for e in results if e.turns[-1].role == 'refinement']
    assert [e.facts.attempt_index for e in refined] == [0, 0, 1, 1, 2, 2]
    assert [e.attempt.facts.correct for e in refined[::2]] == [True, False, True]
    only, _ = explore_scripted('critique_in_the_loop', texts, [LONGER] * 2)
    assert [e.facts.attempt_index for e in only if e.turns[-1].role == 'refinement'] == [1, 1]


def test_no_two_samples_share_their_noise():
    for explorer in explorers.EXPLORERS:
        seeds = collections.Counter()

        def noisy(role, request, seed, seeds=seeds):
            seeds[seed, role, request.id] += role != 'critique'
            return hopeless(role, request, seed)

        explore_ruled(explorer, noisy)
        assert max(seeds.values()) == 1


@pytest.mark.parametrize('explorer', ['vanilla', 'uniform'])
def test_with_a_budget_resampling_goes_on_until_it_is_spent(explorer):
    one = np.mean([len(fake_engine.ids_of(wrong(p))) for p in PROBLEMS])
    _, without = explore_ruled(explorer, hopeless, num_uniform_rounds=0)
    _, results = explore_ruled(
        explorer, hopeless, num_uniform_rounds=50, token_budget=int(10 * one)
    )
    assert len(without) == 3 * len(PROBLEMS) and len(results) == 10 * len(PROBLEMS)


def test_vanilla_never_asks_the_critic_and_all_tokens_are_counted():
    _, vanilla = explore_scripted('vanilla', [WRONG] * 3)
    assert vanilla == 3 * (len(TOKENIZER.encode(WRONG)) + 1)
    _, both = explore_scripted('critique_in_the_loop', [WRONG] * 3, [WRONG] * 6)
    critique = len(TOKENIZER.encode('answer : wrong')) + 1
    assert both == 3 * vanilla + 3 * critique


# What is kept


def test_vanilla_keeps_different_correct_attempts():
    assert kept_texts('vanilla', [RIGHT, RIGHT, WRONG]) == [RIGHT]
    assert kept_texts('vanilla', [RIGHT, WRONG, LONGER]) == [RIGHT, LONGER]


def test_no_more_are_kept_than_allowed():
    assert kept_texts('vanilla', [RIGHT, LONGER, WRONG], keep=1) == [RIGHT]
    refinements = [f'{STEP}\n {LONGER}', WRONG]
    assert kept_texts('critique_in_the_loop', [RIGHT, LONGER, WRONG], refinements) == [
        RIGHT,
        LONGER,
    ]


def test_a_correct_refinement_becomes_an_answer_with_the_same_ids():
    results, _ = explore_scripted(
        'critique_in_the_loop', [WRONG, WRONG, RIGHT], [LONGER, RIGHT] + [WRONG] * 2
    )
    sampler = fake_engine.players(None).sampler
    chosen = [
        episodes.as_attempt(sampler, e)
        for e in selection.curate(results, SETTINGS, wrong=False, deduplicate=True)
    ]
    attempt, refined = chosen
    assert (attempt.response.facts.origin, refined.response.facts.origin) == (
        'attempt',
        'refinement',
    )
    assert [turn.role for turn in refined.turns] == ['question', 'attempt']
    assert refined.turns[-1].header == CHAT.header('attempt')
    assert refined.turns[-1].tokens == (*TOKENIZER.encode(LONGER), EOS)
    assert refined.attempt.facts.correct and refined.attempt.facts.verdict is None


def test_of_one_attempts_refinements_only_so_many_are_kept():
    attempts, refinements = [WRONG] * 3, [LONGER, RIGHT] + [WRONG] * 4
    assert kept_texts('critique_in_the_loop', attempts, refinements) == [LONGER]
    assert kept_texts('critique_in_the_loop', attempts, refinements, keep_refined=2) == [
        LONGER,
        RIGHT,
    ]


@pytest.mark.parametrize('explorer', ['answer_driven', 'interactive', 'critique_in_the_loop'])
def test_a_bare_answer_is_not_kept(explorer):
    answer = RIGHT.split('\n')[-1].strip()
    attempts = [WRONG] * 3 + [answer] * 2
    results, _ = explore_scripted(explorer, attempts, [answer] * 6)
    assert any(e.response.facts.correct for e in results)
    assert selection.curate(results, SETTINGS, wrong=False, deduplicate=True) == []
    assert not coverage.exploration_summary(results)['coverage']['all']


def test_wrong_responses_are_kept_where_they_have_a_weight():
    results, _ = explore_scripted('vanilla', [WRONG, RIGHT, WRONG])
    chosen = selection.curate(results, SETTINGS, wrong=True, deduplicate=True)
    assert texts_of(chosen) == [WRONG, RIGHT]
    assert selection.success_rates(results) == {PROBLEM.id: pytest.approx(1 / 3)}


drawn_responses = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=30)


def responses(pairs):
    """A different response for each (question, right)."""
    facts = records.TurnFacts(origin='attempt', passes_barrier=True, steps_correct=True)
    turn = records.Turn('attempt', (6,), (), facts=facts)
    return [
        records.Episode(
            f'p{question}',
            1 + question,
            (dataclasses.replace(turn, tokens=(i, 1)).with_facts(correct=right),),
        )
        for i, (question, right) in enumerate(sorted(pairs))
    ]


@given(drawn_responses)
def test_shares_make_every_question_count_the_same(pairs):
    chosen = responses(pairs)
    totals = collections.Counter()
    shares = selection.question_weights(chosen)
    for episode, share in zip(chosen, shares, strict=True):
        totals[episode.problem_id] += share
    np.testing.assert_allclose(list(totals.values()), len(chosen) / len(totals))
    assert np.mean(shares) == pytest.approx(1)


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=5))
def test_measures_of_an_exploration_agree_with_each_other(rights):
    results = responses([(i, right) for i, group in enumerate(rights) for right in group])
    measured = coverage.exploration_summary(results)
    counts, covered = measured['correct_counts'], measured['coverage']['all']
    assert sum(counts) == len(rights) and len(counts) == 4
    assert covered == pytest.approx(1 - counts[0] / len(rights))
    assert covered == pytest.approx(measured['pass_at_k']['3'])
    assert list(measured['pass_at_k'].values()) == sorted(measured['pass_at_k'].values())
    assert measured['distinct']['all'] == pytest.approx(np.mean([sum(g) for g in rights]))
    chosen = selection.curate(
        results, dataclasses.replace(SETTINGS, keep=9), wrong=False, deduplicate=True
    )
    summary = coverage.kept_summary(chosen, results)
    assert summary['kept'] == sum(map(sum, rights)) == sum(summary['kept_by_level'].values())
    assert set(summary['kept_share']) == {str(1 + i) for i in range(len(rights))}


@given(st.lists(st.floats(1, 50), min_size=1), st.lists(st.floats(1, 50)))
def test_histograms_share_their_bins_and_lose_nothing(one, other):
    summary = coverage.histograms({'one': one, 'other': other})
    assert len(summary['edges']) == coverage.NUM_BINS + 1
    assert sum(summary['shares']['one']) == pytest.approx(1)
    assert sum(summary['shares']['other']) == pytest.approx(float(bool(other)))
    assert set(summary['mean']) == {'one', *(['other'] if other else [])}


def test_exploitation_is_what_the_critics_scores_pick():
    results = responses([(0, False), (0, True), (1, False), (1, True)])
    scores = iter([0.1, 0.9, None, 0.0])
    scored = [e.with_turn_facts('attempt', score=next(scores)) for e in results]
    summary = coverage.exploitation_summary(scored)
    assert summary == {'attempt': 0.5, 'best_of_n': 0.5, 'questions': 2}
