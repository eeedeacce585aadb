"""The stage `self_talk` with scripted players: its training data, and its comparison."""

import dataclasses
import functools
import random

import pytest

from elenchus.configs import lab as lab_config
from elenchus.data import records
from elenchus.data.critiques import mistakes, oracle
from elenchus.data.critiques import self_talk as talk_text
from elenchus.data.critiques.grammars import LAB
from elenchus.data.files import episode_files
from elenchus.data.lab import forms, task
from elenchus.train.run import directory, runner
from elenchus.train.stages import self_talk, self_talk_data
from elenchus.train.stages import sft as sft_stages
from tests.support import fake_engine, fake_run
from tests.support.fake_engine import CHAT
from tests.support.fake_run import FakeModel

STAGES = ('base', 'actor', 'critique', 'critic', 'evaluate', 'self_talk')
PROBLEMS = fake_engine.problems(20)
TEST_PROBLEMS = [forms.generate_problem(seed=0, split='test', index=i) for i in range(10)]


def is_correct(episode):
    return episode.attempt.facts.correct


def is_finished(episode):
    return CHAT.is_finished(episode.attempt)


def token_counts(episode):
    return episode.facts.tokens


def rejection_of(talk):
    return talk.facts.rejection


def corrections_of(talk):
    return talk.attempt.facts.corrections


def write(role, request, seed, *, slip_share=0.3):
    """Refinements of which one in three slips at once; talks of which every other is right."""
    if role == 'refinement':
        lines = fake_engine.lines_of(task.solve(fake_engine.question_of(request)))
        lines = lines[fake_engine.last_text(request, role).count('\n') :]
        slips = random.Random(repr((request.id, seed))).random() < slip_share
        return (
            *(fake_engine.change_last_digit(lines[0]) if slips else lines[0]),
            *sum(lines[1:], ()),
        )
    question = fake_engine.question_of(request)
    solution = task.solve(question)
    lines = talk_text.lines_with_remarks(
        solution, LAB.parse(task.judge(question, solution).critique), LAB
    )
    if request.id % 2:
        wrong = '#### 9' if solution[-1] != '9' else '#### 8'
        lines = [*lines[:-1], lines[-1]._replace(line=wrong)]
    return fake_engine.ids_of(talk_text.join(lines, LAB))


def criticised(problem, seed):
    """An attempt with the oracle's critique: the solution if seed=0, else one with a mistake."""
    text = problem.solution if not seed else mistakes.corrupt(problem, rng=random.Random(seed))
    (facts,) = fake_engine.judge([(problem, text)])
    turns = (
        *CHAT.question_turns(problem.question),
        dataclasses.replace(CHAT.text_turn('attempt', text), facts=facts),
        CHAT.text_turn('critique', oracle.annotate(problem, text)),
    )
    return records.Episode(problem.id, problem.level, turns)


def make_run(workdir, rule=write, unread=()):
    """A run with critique data, whose models are names; `unread` critiques say nothing."""
    config = lab_config.get_config('smoke')
    config.stages, config.self_talk.num_examples = STAGES, 40
    config.sampling.engine.prompt_buckets = (352,)
    inputs = fake_run.make_inputs(PROBLEMS, TEST_PROBLEMS)
    engine = fake_engine.RuleEngine(rule)
    run = fake_run.make_run(config, workdir, inputs, whole=engine, complete=('base', 'actor'))
    episodes = [criticised(problem, i % 4) for i, problem in enumerate(PROBLEMS)]
    for i in unread:
        nothing = CHAT.text_turn('critique', 'answer : correct')
        episodes[i] = dataclasses.replace(episodes[i], turns=(*episodes[i].turns[:-1], nothing))
    run.directory.stage('critique').write_episodes(episodes)
    return run


@pytest.fixture
def trained_on(monkeypatch):
    """Replaces training; gives the examples."""
    trained_on = []

    def train(model, examples, *, stage, **_):
        assert (model.name, stage.path.name) == ('00-base', '05-self_talk')
        trained_on.extend(examples)
        totals = {'tokens_trained': 10, 'examples': len(examples), 'examples_too_long': 0}
        return FakeModel(stage.path.name), totals

    monkeypatch.setattr(sft_stages, 'sft', train)
    return trained_on


def point(size, right, tokens):
    levels = ('all', '1', '2', '3', '4', '5')
    return {
        'size': size,
        'questions': 10,
        'accuracy': {level: [right, right, right] for level in levels},
        'tokens': dict.fromkeys(levels, tokens),
    }


def test_it_is_trained_on_talks_that_come_to_a_right_answer(tmp_path, trained_on):
    run = make_run(tmp_path)
    summary = runner.run_stage(run, 'self_talk')
    folder = run.directory.stage('self_talk').path
    talks = list(episode_files.read_episodes(folder / 'talks' / 'episodes'))
    by_id = {problem.id: problem for problem in PROBLEMS}
    kept = [talk for talk in talks if rejection_of(talk) is None]
    assert len(talks) == summary['talks'] == 20
    assert len(kept) == len(trained_on) == summary['examples']
    assert set(summary['left_out']) <= {'never_right', 'too_long'}
    assert sum(summary['left_out'].values()) == len(talks) - len(kept)
    for talk in kept:
        text = CHAT.text(talk.turns[-1])
        problem = by_id[talk.problem_id]
        assert talk_text.corrected_attempt(text, LAB) == problem.solution
        assert talk_text.count_corrections(text, LAB) == corrections_of(talk)
    counts = [corrections_of(talk) for talk in kept]
    assert counts.count(0) == 5 and max(counts) == 2
    assert summary['corrected_talks'] == len(kept) - 5
    assert summary['tokens_sampled'] > 0


@pytest.mark.parametrize('learn', [True, False])
def test_lines_called_wrong_are_learnt_only_if_the_settings_say_so(tmp_path, learn):
    run = make_run(tmp_path)
    settings = dataclasses.replace(run.settings.self_talk, learn_mistakes=learn)
    attempt = mistakes.corrupt(PROBLEMS[3], rng=random.Random(0))
    critique = task.judge(PROBLEMS[3].question, attempt).critique
    *right, wrong = talk_text.lines_with_remarks(attempt, LAB.parse(critique), LAB)
    turn = CHAT.text_turn('attempt', talk_text.join([*right, wrong], LAB))
    turns = (*CHAT.question_turns(PROBLEMS[3].question), turn)
    talk = records.Episode('p', 1, turns, {})
    example = self_talk_data.talk_example(run.samplers, talk, settings=settings)
    unlearnt = example.tokens[(example.loss_mask > 0) & (example.weights == 0)]
    assert fake_engine.TOKENIZER.decode(unlearnt.tolist()).strip() == ('' if learn else wrong.line)


def test_a_talk_is_rejected_if_no_round_puts_it_right(tmp_path, trained_on):
    run = make_run(tmp_path, rule=functools.partial(write, slip_share=1.0))
    summary = runner.run_stage(run, 'self_talk')
    assert summary['left_out'] == {'never_right': 15} and len(trained_on) == 5


def test_an_attempt_whose_critique_does_not_fit_it_has_no_talk(tmp_path, trained_on):
    run = make_run(tmp_path, unread=(0, 1))
    summary = runner.run_stage(run, 'self_talk')
    talks = run.directory.stage('self_talk').path / 'talks' / 'episodes'
    empty = [talk for talk in episode_files.read_episodes(talks) if not CHAT.text(talk.attempt)]
    assert [rejection_of(talk) for talk in empty] == ['unread'] * summary['left_out']['unread']
    assert len(empty) == 2 and len(trained_on) == summary['examples']


def test_it_is_compared_with_the_arms_of_evaluate_at_the_nearest_cost(tmp_path, trained_on):
    run = make_run(tmp_path)
    arms = {
        'majority': [point(1, 0.4, 30.0), point(2, 0.45, 60.0), point(8, 0.3, 1000.0)],
        'refined majority': [point(1, 0.6, 100.0)],
        'another': [],
    }
    run.directory.stage('evaluate').write_json(directory.SUMMARY, {'curves': arms})
    summary = runner.run_stage(run, 'self_talk')
    assert summary['accuracy']['self-talk']['all'][0] == pytest.approx(0.5)
    assert summary['finished'] == 1.0
    assert summary['corrections'] == 0.0 and summary['spurious'] == 0.0
    assert set(summary['curves']) == {'self-talk majority', 'majority', 'refined majority'}
    row = summary['equal_tokens']['self-talk majority@1, majority']
    assert row['against'] == 'majority@2' and row['questions'] == 10
    assert row['tokens'] == [summary['tokens_per_answer']['self-talk'], 60.0]
    assert row['difference']['all'] == pytest.approx(0.05)


def test_without_an_evaluation_it_is_compared_with_nothing(tmp_path, trained_on):
    summary = runner.run_stage(make_run(tmp_path), 'self_talk')
    assert list(summary['curves']) == ['self-talk majority'] and summary['equal_tokens'] == {}


def test_a_text_that_is_cut_off_has_no_answer(tmp_path):
    run = make_run(tmp_path, rule=lambda *request: write(*request)[:-1])
    (answer, *_) = self_talk.sample_self_talk(
        FakeModel('self_talk'),
        TEST_PROBLEMS[:1],
        num_samples=run.settings.evaluate.num_attempts,
        first=0,
        max_tokens=run.settings.self_talk.tokens,
        samplers=run.samplers,
        seed=run.settings.seed,
    )
    assert not is_correct(answer) and not is_finished(answer)
    assert token_counts(answer) == {'attempt': len(answer.turns[-1].tokens)}
