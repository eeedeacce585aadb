"""Rows of every table of evaluation: every step right, processed tokens, and the base model."""

import collections
import dataclasses
import random

import numpy as np
import pytest

from elenchus.configs import lab as lab_config
from elenchus.data import records
from elenchus.data.files import episode_files
from elenchus.data.lab import forms, task
from elenchus.train.run.directory import StageFolder
from elenchus.train.stages import evaluate, evaluate_figures, evaluate_rows
from tests.support import fake_engine, fake_run
from tests.support.fake_run import FakeModel

NUM_PROBLEMS, N = 10, 2  # questions, attempts at each
PROBLEMS = [forms.generate_problem(seed=0, split='test', index=i) for i in range(NUM_PROBLEMS)]
TABLES = ('accuracy', 'steps_correct', 'tokens_per_answer', 'processed_per_answer')


def write(role, request, seed):
    """The oracle's critiques; solutions with a slip in a line that is not carried on."""
    if role == 'critique':
        return fake_engine.critique(request)
    first, *lines = fake_engine.lines_of(task.solve(fake_engine.question_of(request)))
    if random.Random(repr((request, seed))).random() < 0.5:
        first = fake_engine.change_last_digit(first)
    return tuple(token for line in (first, *lines) for token in line)


def evaluated(workdir, *, judge=fake_engine.judge, **options):
    """(run, summary) of a stage `evaluate`."""
    config = lab_config.get_config('smoke')
    config.evaluate.update(num_problems=NUM_PROBLEMS, num_attempts=N, num_rounds=1)
    config.evaluate.uptake.num_problems = config.evaluate.beam.width = 0
    run = fake_run.make_run(
        config,
        workdir,
        fake_run.make_inputs(test_problems=PROBLEMS, judge=judge),
        whole=fake_engine.RuleEngine(write),
    )
    pair = run.samplers.pair(FakeModel('actor'), FakeModel('critic'))
    options |= {'settings': run.settings.evaluate, 'samplers': run.samplers, 'seed': 0}
    stage = StageFolder(workdir / 'stage', run.directory)
    with fake_run.undrawn():
        return run, evaluate.evaluate(pair, PROBLEMS, stage=stage, **options)


@pytest.fixture(scope='module')
def without_base(tmp_path_factory):
    """(folder of the stage, summary)."""
    folder = tmp_path_factory.mktemp('run')
    return folder / 'stage', evaluated(folder)[1]


def test_the_base_model_is_a_row_of_every_table(without_base, tmp_path):
    run, summary = evaluated(tmp_path, base=FakeModel('base'))
    assert summary['tokens_sampled'] == run.samplers.whole.tokens
    # The script does not look at the model, so the base attempts what the actor does: the problems
    # and the noise are the same.
    for table in TABLES:
        assert summary[table].pop('base') == summary[table]['attempt'], table
    difference = summary['difference'].pop('refined-base')
    assert difference == summary['difference']['refined-attempt']
    before = dict(without_base[1])
    more = summary.pop('tokens_sampled') - before.pop('tokens_sampled')
    assert more == NUM_PROBLEMS * N * before['tokens_per_answer']['attempt']
    assert summary == before


def test_steps_and_processed_tokens_are_those_of_the_episodes(without_base):
    folder, summary = without_base
    episodes = list(episode_files.read_episodes(folder / 'episodes'))
    for arm, turns in (
        ('attempt', [e.attempt for e in episodes]),
        ('refined', [e.response for e in episodes]),
    ):
        share = np.mean([turn.facts.steps_correct for turn in turns])
        assert summary['steps_correct'][arm]['all'][0] == pytest.approx(share)
    # A slip is not carried on, so every answer is right.
    assert summary['accuracy']['attempt']['all'][0] == 1.0
    assert 0 < summary['steps_correct']['attempt']['all'][0] < 1
    lengths = collections.Counter()  # of all calls, by role
    for episode in episodes:
        end = 0
        for turn in episode.turns:
            end += len(turn.header) + len(turn.tokens)
            lengths[turn.role] += end
    attempt = lengths['attempt'] / len(episodes)
    whole = sum(lengths[role] for role in records.PLAYER_OF_ROLE) / len(episodes)
    processed = summary['processed_per_answer']
    assert set(processed) == set(summary['tokens_per_answer'])
    assert processed['attempt'] == pytest.approx(attempt)
    assert processed['majority@2'] == pytest.approx(2 * attempt)
    assert processed['refined'] == pytest.approx(whole)
    assert processed['refined majority@2'] == pytest.approx(2 * whole)


def test_steps_are_unknown_where_the_judge_reads_answers_alone(tmp_path):
    def judge(pairs):
        return [
            dataclasses.replace(fact, steps_correct=None, first_error=None, kind=None)
            for fact in fake_engine.judge(pairs)
        ]

    _, summary = evaluated(tmp_path, judge=judge, base=FakeModel('base'))
    assert summary['steps_correct'] is None
    assert set(summary['accuracy']) >= {'attempt', 'refined', 'base'}


def test_turns_that_reach_their_limit_are_counted_and_named(capsys):
    chat = fake_engine.CHAT
    turns = [chat.text_turn('attempt', 'a 1'), chat.text_turn('critique', 'ok')]
    turns = [dataclasses.replace(turn, logprobs=(-1.0,) * len(turn.tokens)) for turn in turns]
    question = chat.question_turns(PROBLEMS[0].question)
    short = chat.sampled_turn('attempt', (5, 6), (-1.0, -1.0))
    groups = [
        [records.Episode('p', 1, (*question, *rest), records.EpisodeFacts())]
        for rest in (turns, [short])
    ]
    shares = evaluate_rows.cut_off(groups, chat=chat)
    assert shares == {'attempt': 0.5, 'critique': 0.0}
    evaluate_rows.warn_cut_off(shares)
    printed = capsys.readouterr().out
    assert printed == 'warning: 50% of attempts are cut off at sampling.attempt_tokens: raise it\n'


def test_tables_by_level_have_a_row_for_each_of_several_sets():
    rows = [('asdiv/test/0', 1), ('svamp/test/7', 1), ('asdiv/test/3', 2)]
    problems = [records.Problem(name, 'q', '1', '', level, 'jsonl') for name, level in rows]
    groups = evaluate_figures.indices_by_level(problems)
    assert groups == {'1': [0, 1], '2': [2], 'all': [0, 1, 2], 'asdiv': [0, 2], 'svamp': [1]}
    assert set(evaluate_figures.indices_by_level(problems[::2])) == {'1', '2', 'all'}
    unnamed = [dataclasses.replace(problem, id=str(i)) for i, problem in enumerate(problems)]
    assert set(evaluate_figures.indices_by_level(unnamed)) == {'1', '2', 'all'}


@pytest.mark.parametrize('first', ['2', 'all'])
def test_a_set_with_the_name_of_a_level_is_not_counted_with_it(first):
    rows = [(f'{first}/1', 1), ('3/1', 2), ('3/2', 1)]
    problems = [records.Problem(name, 'q', '1', '', level, 'jsonl') for name, level in rows]
    groups = evaluate_figures.indices_by_level(problems)
    assert groups == {'1': [0, 2], '2': [1], 'all': [0, 1, 2]}
