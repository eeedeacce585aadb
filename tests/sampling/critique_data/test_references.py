"""Right paths from references, kept or rewritten by the actor."""

import dataclasses

import pytest

from elenchus.data import records
from elenchus.data.critiques.calculator import annotator
from elenchus.data.critiques.oracle import ConstructedAttempt, NoCritique
from elenchus.data.grading import judge, verify
from elenchus.data.lab import forms
from elenchus.sampling.critique_data import constructions, filters, references
from elenchus.sampling.engine import sampling_methods
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.train.stages import critique_data
from tests.support import fake_engine
from tests.support.fake_engine import CHAT

PROBLEMS = [forms.generate_problem(seed=0, split='train', index=i) for i in range(4)]
SPEC = SampleSpec(1, sampling_methods.TemperatureSampling(0.7, 0, 1.0, 0.0, banned=()), 3, 0)


@pytest.fixture(scope='module')
def judging():
    with verify.Verifier(num_workers=1, timeout_s=5.0) as verifier:
        yield judge.make_judge('x', verifier)


def solved(request):
    """The actor solves question 0, and with the reference before it also question 1."""
    numbers = {problem.question: i for i, problem in enumerate(PROBLEMS)}
    number = numbers[request.texts['question']]
    text = PROBLEMS[number].solution
    if number == 0 or ('guide' in request.texts and number == 1):
        return text
    return f'{text[:-1]}{(int(text[-1]) + 1) % 10}'


def paths(judging, kind, problems=PROBLEMS):
    sampler = fake_engine.make_sampler(solved)
    groups = constructions.sample_from_scratch(sampler, None, problems, judge=judging, spec=SPEC)
    return references.right_paths(sampler, None, groups, kind=kind, judge=judging, spec=SPEC)


def test_kept_references_stand_for_problems_without_a_right_attempt(judging):
    episodes = paths(judging, 'kept')
    assert [e.problem_id for e in episodes] == [p.id for p in PROBLEMS[1:]]
    assert [CHAT.text(e.attempt) for e in episodes] == [p.solution for p in PROBLEMS[1:]]
    assert all(e.attempt.facts.correct for e in episodes)
    assert not any(filters.reject_correct(episodes))


def test_rewritten_references_are_the_actors_own_and_only_right_ones(judging):
    (episode,) = paths(judging, 'rewritten')
    assert episode.problem_id == PROBLEMS[1].id
    assert [turn.role for turn in episode.turns] == ['question', 'attempt']  # without the guide


def test_without_a_solution_or_without_the_setting_there_is_none(judging):
    assert paths(judging, 'none') == []
    bare = [dataclasses.replace(p, solution='') for p in PROBLEMS]
    assert paths(judging, 'kept', bare) == []


def test_the_reason_of_the_annotator_is_that_of_the_data_card(judging):
    (episode,) = paths(judging, 'kept', PROBLEMS[1:2])
    clips = records.Problem('c', 'Half of 48?', '24', '48/2 = 24\n#### 24', 1, 'gsm8k')
    wrong = ConstructedAttempt(clips, 'It is large.\n#### 9', 'RG1', None, None)
    reason = annotator.annotate(wrong, form='mixed', seed=0)
    assert reason == NoCritique('not_located')
    dropped = episode.with_facts(rejection=reason.reason)
    assert critique_data.reject_unreadable([dropped, episode]) == ['not_located', 'no_critique']
