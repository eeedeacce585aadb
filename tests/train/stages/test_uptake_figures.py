"""Figures of the uptake conditions: computed by hand, and of refiners that read or do not."""

import dataclasses
import random
import re
import types

import pytest

from elenchus.configs import lab as lab_config
from elenchus.data import records
from elenchus.data.critiques.counterfactual import Falsified
from elenchus.data.lab import forms, task
from elenchus.data.records import Episode, EpisodeFacts, Turn, TurnFacts
from elenchus.sampling.test_time import uptake
from elenchus.train.config import build, run_settings
from elenchus.train.run.directory import StageFolder
from elenchus.train.stages import evaluate, uptake_figures
from tests.support import fake_engine, fake_run
from tests.support.fake_engine import CHAT
from tests.support.fake_run import FakeModel

PROBLEMS = [forms.generate_problem(seed=0, split='test', index=i) for i in range(60)]


# Refiners


def solve(question, override=types.MappingProxyType({})):
    """The solution of a question, carried on from these values of some quantities."""
    statements, target = task.parse_question(question)
    values, lines = {}, []
    for s in statements.values():
        values[s.name] = s.digit if s.base is None else s.value(values[s.base])
        values[s.name] = override.get(s.name, values[s.name])
        if s.base is not None:
            lines.append(s.step(values[s.base], values[s.name]).text())
    return '\n '.join([*lines, f'#### {values[target]}'])


def write_attempt(role, request, seed):
    """In two of three attempts the sum of the last quantity of the chain is wrong."""
    if role == 'critique':
        return fake_engine.critique(request)
    question = fake_engine.last_text(request, 'question')
    target = task.parse_question(question)[1]
    value = (task.known_values(question)[target] + request.id % 3) % 10
    return fake_engine.ids_of(solve(question, {target: value}))


def read(role, request, seed):
    """A refiner that takes over what the critique derives, and else keeps the attempt."""
    if role != 'refinement':
        return write_attempt(role, request, seed)
    question = fake_engine.last_text(request, 'question')
    critique = fake_engine.last_text(request, 'critique') if has_critique(request) else ''
    derived = re.search(r'= (\d) ; (\w+) \d - \1 = \d ; wrong', critique)
    names = task.parse_question(question)[0]
    if derived and derived[2] in names:
        return fake_engine.ids_of(solve(question, {derived[2]: int(derived[1])}))
    return fake_engine.ids_of(fake_engine.last_text(request, 'attempt'))


def ignore(role, request, seed):
    """A refiner that solves half of the questions, whatever the critique says."""
    if role != 'refinement':
        return write_attempt(role, request, seed)
    question = fake_engine.last_text(request, 'question')
    if random.Random(repr((request.id, seed))).random() < 0.5:
        return fake_engine.ids_of(solve(question))
    return fake_engine.ids_of(fake_engine.last_text(request, 'attempt'))


def has_critique(request):
    return CHAT.header('critique')[0] in request.prompt


def config_of(**changes):
    config = lab_config.get_config('smoke')
    config.evaluate.update(num_attempts=3, num_problems=60, num_rounds=1, oracle=False)
    config.evaluate.beam.width = 0
    config.evaluate.uptake.update({'num_samples': 2, 'num_problems': 60} | changes)
    return config


def evaluated(workdir, rule, **changes):
    """The summary of the conditions with scripted players."""
    run = fake_run.make_run(
        config_of(**changes),
        workdir,
        fake_run.make_inputs(test_problems=PROBLEMS),
        whole=fake_engine.RuleEngine(rule),
    )
    pair = run.samplers.pair(FakeModel('actor'), FakeModel('critic'))
    options = {'settings': run.settings.evaluate, 'samplers': run.samplers, 'seed': 0}
    stage = StageFolder(workdir / 'stage', run.directory)
    with fake_run.undrawn():
        return evaluate.evaluate(pair, PROBLEMS, stage=stage, **options)['uptake']


def test_a_refiner_that_reads_uses_every_false_value(tmp_path, capsys):
    summary = evaluated(tmp_path, read)
    assert summary['uptake']['all'] == [1.0, 1.0, 1.0]
    assert summary['accuracy']['own']['all'] == [1.0, 1.0, 1.0]
    words, low, _ = summary['difference']['words']['all']
    assert words > low > 0.3
    assert summary['warning'] is None and 'warning' not in capsys.readouterr().out
    # Without its critique it keeps the attempt, of which the false value makes a wrong one.
    assert summary['accuracy']['no_critique'] == summary['accuracy']['attempt']
    assert summary['right_after']['counterfactual']['wrong'] == [0.0, 0.0, 0.0]
    assert summary['due'] == summary['counterfactuals'] == 2 * len(PROBLEMS)


@pytest.mark.slow
def test_a_refiner_that_does_not_read_has_no_words_and_a_warning(tmp_path, capsys):
    summary = evaluated(tmp_path, ignore)
    assert summary['uptake']['all'] == [0.0, 0.0, 0.0]
    assert summary['difference']['words']['all'] == [0.0, 0.0, 0.0]
    accuracy = summary['accuracy']
    for name in ('shuffled', 'fixed', 'counterfactual', 'no_critique'):
        assert accuracy[name] == accuracy['own'], name
    assert accuracy['own']['all'][0] > accuracy['attempt']['all'][0]
    cause = 'the refiner does not read critiques (uptake 0.0 %)'
    assert summary['warning'].endswith(cause)
    (line,) = (x for x in capsys.readouterr().out.split('\n') if x.startswith('warning'))
    assert line == f'warning: {summary["warning"]}'


def test_only_so_many_problems_are_sampled(tmp_path):
    summary = evaluated(tmp_path, read, num_problems=7)
    assert summary['questions'] == 7 and summary['due'] == 14


def test_settings_name_the_field_that_is_out_of_range():
    for field, value in (('num_samples', 0), ('num_problems', -1)):
        with pytest.raises(ValueError, match=f'evaluate.uptake.{field}={value} must be at least'):
            build.build(run_settings.RunSettings, config_of(**{field: value}))


# By hand: two questions with two attempts each, two samples of each condition

RIGHT = (False, False, True, False)  # attempts
VERDICTS = (False, None, True, False)
FINAL = {
    # Attempt -> is the answer right in sample 0 and 1.
    'own': {0: (1, 1), 1: (0, 1), 3: (1, 0)},
    'shuffled': {0: (0, 1), 1: (0, 0), 3: (0, 0)},
    'fixed': {0: (0, 0), 1: (0, 0), 3: (0, 0)},
    'counterfactual': {0: (0, 1), 3: (0, 0)},
    'blanked': {0: (0, 1), 1: (0, 0)},
    'fresh_attempt': {0: (1, 0), 1: (0, 0), 3: (0, 0)},
    'no_critique': {0: (1, 1), 1: (1, 1), 3: (1, 1)},
    'always': {2: (0, 1)},
    'annotated': {0: (1, 1), 1: (0, 1)},
}
USED = {(0, 0): True, (0, 1): False, (3, 0): True, (3, 1): True}


def turn(role, length, **facts):
    logprobs = (-1.0,) * length
    return Turn(role, CHAT.header(role), (9,) * length, logprobs, facts=TurnFacts(**facts))


def make_sources():
    problems = [records.Problem(f'p{i // 2}', '?', '1', '', 1 + i // 2, 'lab') for i in range(4)]
    question = Turn('question', CHAT.header('question'), (9,) * 5)
    episodes = [
        Episode(
            problems[i].id,
            problems[i].level,
            (
                question,
                turn('attempt', 10, correct=RIGHT[i], steps_correct=RIGHT[i]),
                turn('critique', 20, verdict=VERDICTS[i]),
            ),
        )
        for i in range(4)
    ]
    players = fake_engine.players(fake_engine.RuleEngine(write_attempt))
    setup = types.SimpleNamespace(models=players, seed=0)
    sources = uptake.Sources(setup, episodes, problems)
    # Overwrites cached properties: these turns have no text.
    sources.__dict__['falsified'] = {i: Falsified('', '1', 0) for i in (0, 3)}
    sources.__dict__['annotated'] = dict.fromkeys((0, 1))
    return sources


def make_sampled(sources):
    sampled = {}
    for name, outcomes in FINAL.items():
        role = 'attempt' if name == 'fresh_attempt' else 'refinement'
        sampled[name] = [
            Episode(
                sources.episodes[i].problem_id,
                sources.episodes[i].level,
                (
                    dataclasses.replace(sources.episodes[i].turns[0]),
                    turn(
                        role,
                        4,
                        correct=bool(right),
                        steps_correct=False,
                        uses_value=USED.get((i, j)) if name == 'counterfactual' else None,
                    ),
                ),
                EpisodeFacts(chain=i, sample=j),
            )
            for i, pair in outcomes.items()
            for j, right in enumerate(pair)
        ]
    return sampled


@pytest.fixture(scope='module')
def summary():
    settings = build.build(run_settings.RunSettings, config_of()).evaluate
    sources = make_sources()
    return uptake_figures.summarise(settings, sources, make_sampled(sources))


def means(tables):
    return {name: [levels[n][0] for n in ('1', '2', 'all')] for name, levels in tables.items()}


def test_accuracy_by_hand(summary):
    assert means(summary['accuracy']) == {
        'attempt': [0, 1 / 2, 1 / 4],
        'own': [3 / 4, 3 / 4, 3 / 4],
        'shuffled': [1 / 4, 1 / 2, 3 / 8],
        'fixed': [0, 1 / 2, 1 / 4],
        'counterfactual': [2 / 4, 1 / 2, 1 / 2],  # attempt 1 as under `own`
        'blanked': [1 / 4, 3 / 4, 1 / 2],  # attempt 3 as under `own`
        'fresh_attempt': [1 / 4, 1 / 2, 3 / 8],
        'no_critique': [1, 1, 1],
        'always': [3 / 4, 2 / 4, 5 / 8],  # the due ones as under `own`
        'annotated': [3 / 4, 1 / 2, 5 / 8],  # attempts 2 and 3 stay
    }
    assert means(summary['steps_correct'])['no_critique'] == [0, 1 / 2, 1 / 4]


def test_differences_by_hand(summary):
    assert means(summary['difference']) == {
        'words': [1 / 2, 1 / 4, 3 / 8],
        'gate': [0, 1 / 4, 1 / 8],
        'turn': [0, 0, 0],
        'explanation': [1 / 2, 0, 1 / 4],
        'rival': [1 / 2, 1 / 4, 3 / 8],
        'headroom': [0, -1 / 4, -1 / 8],
    }


def test_uptake_and_transitions_by_hand(summary):
    assert means({'uptake': summary['uptake']})['uptake'] == [1 / 2, 1, 3 / 4]
    after = summary['right_after']
    assert after['own']['wrong'][0] == pytest.approx(4 / 6)
    assert after['own']['right'] is None  # no right attempt is refined
    assert after['always']['right'][0] == 1 / 2
    assert after['annotated']['wrong'][0] == 3 / 4
    assert after['counterfactual']['wrong'][0] == pytest.approx(2 / 6)


def test_counts_and_tokens_by_hand(summary):
    counts = {name: summary[name] for name in ('questions', 'due', 'due_questions')}
    assert counts == {'questions': 2, 'due': 3, 'due_questions': 2}
    assert summary['counterfactuals'] == 2
    generated = summary['tokens_per_answer']
    assert generated['own'] == generated['counterfactual'] == 30 + 3 / 4 * 4
    assert generated['always'] == 30 + 4
    # Bodies of 5, 10 and 20 tokens, each with its header of one.
    attempt, critique, response = 6 + 11, 6 + 11 + 21, 6 + 5
    assert summary['processed_per_answer']['own'] == attempt + critique + 3 / 4 * response


# The warning

COUNTS = {'due': 9, 'due_questions': 5}
MANY = {'due': 900, 'due_questions': 300}


@pytest.mark.parametrize(
    ('words', 'rate', 'counts', 'cause'),
    [
        ([0.2, 0.1, 0.3], [0.0, 0.0, 0.0], COUNTS, None),
        ([0.2, 0.0, 0.3], [0.0, 0.0, 0.1], COUNTS, 'does not read critiques (uptake 0.0 %)'),
        ([0.2, -0.1, 0.3], [0.5, 0.2, 0.8], COUNTS, 'only 9 attempts at 5 questions are refined'),
        ([0.2, -0.1, 0.3], [0.9, 0.8, 1.0], MANY, "no better than another question's"),
        ([0.2, None, None], [0.9, None, None], COUNTS, 'only 9 attempts at 5 questions'),
        ([0.2, -0.1, 0.3], None, MANY, 'no critique derives a value'),
    ],
)
def test_the_warning_names_the_cause(words, rate, counts, cause):
    text = uptake_figures.warning(words, rate, counts)
    assert (text is None) if cause is None else (cause in text and '+20.0' in text)
