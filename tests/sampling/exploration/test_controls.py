"""Controls of exploration: other questions' critiques, a teacher that knows, and duplicates."""

import dataclasses

import pytest

from elenchus.data.critiques import grammars
from elenchus.data.lab import forms, task
from elenchus.sampling.critique_data import annotators
from elenchus.sampling.engine import sampling_methods
from elenchus.sampling.exploration import context, explorers, proposals, selection
from tests.support import fake_engine
from tests.support.fake_engine import CHAT

# Two questions of level 1, two of level 2, and one of level 3.
PROBLEMS = [forms.generate_problem(seed=0, split='train', index=i) for i in (0, 5, 1, 6, 2)]
SAMPLING = sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, banned=())
SETTINGS = context.ExploreSettings(
    num_attempts=3,
    num_refinements=2,
    num_guided_rounds=2,
    num_uniform_rounds=5,
    min_correct=2,
    token_budget=0,
    keep=5,
    keep_refined=1,
    critiques='own',
    guides='own',
    teacher='critic',
    refine='wrong',
    accept='right',
    player_guide='none',
    opening='none',
)


def wrong(problem):
    return f'{problem.solution[:-1]}{(int(problem.solution[-1]) + 1) % 10}'


def hopeless(role, request, seed):
    """Wrong attempts and refinements; the oracle's critique of each."""
    question = fake_engine.last_text(request, 'question')
    problem = next(p for p in PROBLEMS if p.question == question)
    return fake_engine.ids_of(critique_of(problem) if role == 'critique' else wrong(problem))


def explore(explorer, *, problems=PROBLEMS, rule=hopeless, grammar=grammars.LAB, **changed):
    """(engine, episodes) of an explorer."""
    engine = fake_engine.RuleEngine(rule)
    results, tokens = explorers.explore(
        dataclasses.replace(SETTINGS, **changed),
        dataclasses.replace(fake_engine.players(engine), grammar=grammar),
        problems,
        explorer=explorer,
        method=SAMPLING,
        seed=7,
        first_id=0,
    )
    assert tokens == engine.tokens
    return engine, results


def refined(results):
    return [e for e in results if e.turns[-1].role == 'refinement']


def critique_of(problem):
    return task.judge(problem.question, wrong(problem)).critique


# Critiques of other questions


def test_shuffled_critiques_are_of_another_question_of_the_level():
    own_engine, own = explore('critique_in_the_loop')
    engine, results = explore('critique_in_the_loop', critiques='shuffled')
    by_critique = {critique_of(p): p for p in PROBLEMS}
    assert len(by_critique) == len(PROBLEMS)
    source = lambda e: by_critique[CHAT.text(e.critique)]  # noqa: E731
    assert all(source(e).id == e.problem_id for e in refined(own))
    assert len(refined(results)) == len(refined(own)) == 5 * 3 * 2
    for episode in refined(results):
        assert source(episode).id != episode.problem_id
        # The question of level 3 has no other of its level.
        assert (source(episode).level == episode.level) == (episode.level < 3)
    # All that precedes the refinements, and their noise, are the same.
    sampled = lambda engine: [(role, r.id) for role, r in engine.requests]  # noqa: E731
    assert sampled(engine) == sampled(own_engine)
    assert explore('critique_in_the_loop', critiques='shuffled')[1] == results


def test_without_another_question_nothing_is_refined():
    engine, results = explore('critique_in_the_loop', problems=PROBLEMS[:1], critiques='shuffled')
    assert len(results) == 3 and not refined(results)
    assert engine.num_requests('critique') == 3


@pytest.mark.parametrize('teacher', ['critic', 'reference'])
def test_a_teacher_of_another_question_is_a_control_of_revisions_too(teacher):
    own_engine, own = explore('interactive', teacher=teacher)
    engine, results = explore('interactive', teacher=teacher, critiques='shuffled')
    by_critique = {critique_of(p): p.id for p in PROBLEMS}
    assert all(by_critique[CHAT.text(e.critique)] == e.problem_id for e in refined(own))
    assert all(by_critique[CHAT.text(e.critique)] != e.problem_id for e in refined(results))
    assert len(refined(results)) == len(refined(own))
    ids = lambda engine: [(role, r.id) for role, r in engine.requests]  # noqa: E731
    assert ids(engine) == ids(own_engine)
    _, alone = explore('interactive', teacher=teacher, critiques='shuffled', problems=PROBLEMS[:1])
    assert not refined(alone)


@pytest.mark.parametrize('explorer', ['answer_driven', 'rationale_driven'])
def test_shuffled_guides_are_of_another_question_of_the_level(explorer):
    own_engine, own = explore(explorer)
    engine, results = explore(explorer, guides='shuffled')
    guides = [proposals.GUIDES[explorer](p) for p in PROBLEMS]
    levels = {p.id: p.level for p in PROBLEMS}
    guided = [e for e in results if e.turns[1].role == 'guide']
    assert len(guided) == len([e for e in own if e.turns[1].role == 'guide']) == 2 * len(PROBLEMS)
    for episode in guided:
        guide = CHAT.text(episode.turn('guide'))
        problem = next(p for p in PROBLEMS if p.id == episode.problem_id)
        assert guide in guides
        if levels[problem.id] < 3:  # the question of level 3 has no other of its level
            others = [proposals.GUIDES[explorer](p) for p in PROBLEMS if p.level == problem.level]
            assert guide in others
            assert explorer == 'answer_driven' or guide != proposals.GUIDES[explorer](problem)
    ids = lambda engine: [(role, r.id) for role, r in engine.requests]  # noqa: E731
    assert ids(engine) == ids(own_engine)
    assert explore(explorer, guides='shuffled')[1] == results
    _, alone = explore(explorer, guides='shuffled', problems=PROBLEMS[:1])
    assert not [e for e in alone if e.turns[1].role == 'guide']


# A teacher that knows the reference


def test_on_the_lab_the_teacher_with_the_reference_is_the_oracle():
    engine, results = explore('interactive', teacher='reference')
    assert engine.num_requests('critique') == 0
    assert len(refined(results)) == 2 * len(PROBLEMS)
    problems = {p.id: p for p in PROBLEMS}
    for episode in refined(results):
        assert CHAT.text(episode.critique) == critique_of(problems[episode.problem_id])
        assert episode.critique.facts.verdict is False
        assert [t.role for t in episode.turns] == ['question', 'attempt', 'critique', 'refinement']
    _, by_critic = explore('interactive')
    assert [e.turns[-1].tokens for e in by_critic] == [e.turns[-1].tokens for e in results]


def test_elsewhere_the_critic_reads_the_reference_in_a_guide(monkeypatch):
    """The lab's tokens stand for text: the words of guide and critique are replaced."""
    monkeypatch.setattr(annotators, 'guidance', lambda item, grammar: item.problem.solution)
    other = dataclasses.replace(grammars.LAB, name='other')
    engine, results = explore('interactive', teacher='reference', grammar=other)
    guide = CHAT.header('guide')[0]
    critiques = [r for role, r in engine.requests if role == 'critique']
    assert len(critiques) == 2 * len(PROBLEMS) and all(guide in r.prompt for r in critiques)
    refinements = [r for role, r in engine.requests if role == 'refinement']
    assert len(refinements) == len(critiques) and not any(guide in r.prompt for r in refinements)
    assert len(refined(results)) == len(refinements)


def test_a_response_that_the_teacher_cannot_criticise_is_not_revised(monkeypatch):
    longest = len(CHAT.text_turn('critique', critique_of(PROBLEMS[0])).tokens)
    monkeypatch.setitem(fake_engine.LIMITS, 'critique', longest)
    _, results = explore('interactive', teacher='reference')
    lengths = {p.id: len(CHAT.text_turn('critique', critique_of(p)).tokens) for p in PROBLEMS}
    short = {id for id, length in lengths.items() if length <= longest}
    assert {e.problem_id for e in refined(results)} == short
    assert 0 < len(short) < len(PROBLEMS)
    assert proposals.TEACHERS.keys() == {'critic', 'reference'}


# Duplicates


@pytest.mark.parametrize(('keep', 'count'), [(5, 3), (2, 2)])
def test_equal_responses_are_kept_up_to_the_limit_unless_they_count_once(keep, count):
    problem = PROBLEMS[0]
    rule = lambda role, request, seed: fake_engine.ids_of(problem.solution)  # noqa: E731
    _, results = explore('vanilla', problems=[problem], rule=rule)
    rules = dataclasses.replace(SETTINGS, keep=keep)
    assert len(selection.curate(results, rules, wrong=False, deduplicate=True)) == 1
    assert len(selection.curate(results, rules, wrong=False, deduplicate=False)) == count
