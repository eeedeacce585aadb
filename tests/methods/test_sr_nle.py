"""SR-NLE: the words that moved the answer stand behind the critique; edits tell if it has them."""

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import sr_nle
from elenchus.data.lab import forms, task
from elenchus.sampling.test_time import strategies
from elenchus.sampling.writing import Notes
from tests.support import fake_engine
from tests.train.stages import test_evaluate

(PROBLEM,) = fake_engine.problems(1)
TEXT = dataclasses.replace(
    PROBLEM, source='jsonl', question='Is the lion, the king, or a cat ruling?'
)


def test_the_five_largest_words_are_named_once_without_stop_words():
    scores = {'The': 9, 'lion,': -4, 'the': 8, 'Lion': 1, 'a': 7, 'cat': 2, 'king': 3, 'or': 0.1,
              'rules': 0.5, '?': 5, 'here': 0.25}  # fmt: skip
    notes = Notes(words=tuple(scores.items()))
    assert sr_nle.important(TEXT, notes) == '\n Important words: lion, king, cat, rules, here'
    assert sr_nle.important(PROBLEM, notes) == '\n lion king cat rules here'
    assert sr_nle.important(TEXT, Notes()) == ''  # an attempt without an answer
    assert sr_nle.important.attribution_steps > 0


@given(st.integers(0, 10**6))
def test_a_lab_edit_changes_one_digit_and_nothing_else(index):
    problem = forms.generate_problem(seed=0, split='test', index=index)
    before, after = problem.question.split(' '), sr_nle.edited(problem).split(' ')
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert len(pairs) == 1 and all(word.isdigit() for word in pairs[0])
    assert task.solve(sr_nle.edited(problem))  # another question of the lab; perhaps a distractor


@given(st.text('abc', min_size=1))
def test_a_text_has_one_word_more_behind_an_article(name):
    problem = dataclasses.replace(TEXT, id=name)
    before, after = TEXT.question.split(' '), sr_nle.edited(problem).split(' ')
    (i,) = [i for i, word in enumerate(after) if word in sr_nle.INSERTED]
    assert after[:i] + after[i + 1 :] == before and after[i - 1] in ('the', 'a')
    assert sr_nle.edited(problem) == sr_nle.edited(problem)


def test_a_question_without_an_article_is_not_edited():
    assert sr_nle.edited(dataclasses.replace(TEXT, question='Is 3 prime? The')) == ''


def evaluated(tmp_path, monkeypatch, name, **changes):
    """The stage `evaluate` with scripted players; attributions are of the words' lengths."""

    def words(models, episodes, *, shapes, steps):
        return [tuple((w, len(w)) for w in ('dan', 'cal', '+', '4')) for _ in episodes]

    monkeypatch.setattr(strategies, 'question_words', words)
    (tmp_path / name / 'stage').mkdir(parents=True)
    play = test_evaluate.Evaluation(
        tmp_path / name, rule=write, evaluate__num_rounds=2, evaluate__uptake__num_problems=0,
        evaluate__beam__width=0, evaluate__num_attempts=1, **changes,
    )  # fmt: skip
    summary = play.evaluate(tmp_path / name / 'stage')
    return summary, play.run.samplers.whole.requests


def write(role, request, seed):
    """Attempts that name no step, and refinements that do in half of the cases."""
    if role == 'critique':
        return fake_engine.ids_of('answer : wrong')
    solution = task.solve(fake_engine.question_of(request))
    names_steps = role == 'refinement' and random.Random(repr(request.prompt)).random() < 0.5
    return fake_engine.ids_of(solution if names_steps else solution.splitlines()[-1])


@pytest.mark.slow
def test_edits_are_played_beside_an_evaluation_that_stays_as_it_was(tmp_path, monkeypatch):
    plain, before = evaluated(tmp_path, monkeypatch, 'plain', evaluate__refine='always')
    changes = {n.replace('.', '__'): v for n, v in sr_nle.CHANGES.items() if 'num' not in n}
    edits = {n: v for n, v in changes.items() if 'feedback' not in n}
    edited, after = evaluated(tmp_path, monkeypatch, 'edited', **edits)
    assert after[: len(before)] == before and len(after) > len(before)
    figures = edited.pop('own_measures')['unfaithful']
    for own in ('conditions', 'tokens_sampled'):
        edited.pop(own)
        plain.pop(own, None)
    assert edited == plain
    assert 0 < figures['changed answers'] <= 1 and figures['unfaithful attempts'] == 1.0
    assert 0 < figures['unfaithful responses'] < 1

    _, shown = evaluated(tmp_path, monkeypatch, 'shown', **changes)
    texts = [fake_engine.TOKENIZER.decode(r.prompt) for role, r in shown if role == 'refinement']
    assert texts and all('answer : wrong\n cal dan + 4' in text for text in texts)
