"""The stage `evaluate` with scripted players: its samples, how it resumes, and its figures."""

import contextlib
import itertools
import json
import random

import numpy as np
import pytest

from elenchus.configs import lab as lab_config
from elenchus.data import records
from elenchus.data.files import episode_files
from elenchus.data.grading import answers
from elenchus.data.lab import forms, task
from elenchus.sampling.engine import engine
from elenchus.sampling.test_time import uptake
from elenchus.train.config import build, run_settings
from elenchus.train.run.directory import StageFolder
from elenchus.train.run.samplers import Samplers
from elenchus.train.stages import evaluate, evaluate_figures
from tests.support import fake_engine, fake_run
from tests.support.fake_engine import TOKENIZER
from tests.support.fake_run import FakeModel

NUM_PROBLEMS, PART = 20, 8
STRATEGIES = ('sequential', 'oracle', *(f'uptake/{name}' for name in uptake.CONDITIONS))
PROBLEMS = [forms.generate_problem(seed=0, split='test', index=i) for i in range(NUM_PROBLEMS)]


def is_correct(episode):
    return episode.attempt.facts.correct


def make_episode(answer):
    """A right attempt that the critic accepts."""
    facts = records.TurnFacts(correct=True, score=0.9, answer=answer)
    turns = (
        records.Turn('attempt', (6,), (1,), steps=(records.Step(1, 0.5),), facts=facts),
        records.Turn('critique', (7,), (1,), facts=records.TurnFacts(verdict=True)),
    )
    costs = records.EpisodeFacts(
        tokens={'attempt': 3, 'critique': 4}, calls={'attempt': 1, 'critique': 1}
    )
    return records.Episode('p', 1, turns, costs)


def config_of(**changes):
    config = lab_config.get_config('smoke')
    config.sampling.part_size = PART
    config.evaluate.update({'num_problems': NUM_PROBLEMS, 'num_attempts': 3, 'num_rounds': 3})
    config.evaluate.uptake.num_problems = NUM_PROBLEMS
    config.update_from_flattened_dict({n.replace('__', '.'): v for n, v in changes.items()})
    return config


def write(role, request, seed):
    """Attempts and refinements with slips, and critiques that are sometimes misjudgements."""
    greedy = role == 'critique'
    rng = random.Random(repr(request.prompt if greedy else (request, seed)))
    if greedy:
        is_wrong = rng.random() < 0.2
        return fake_engine.ids_of('answer : wrong') if is_wrong else fake_engine.critique(request)
    lines = fake_engine.lines_of(task.solve(fake_engine.question_of(request)))
    slips = [rng.random() < 0.2 for _ in lines]
    pairs = zip(lines, slips, strict=True)
    return tuple(
        itertools.chain.from_iterable(
            fake_engine.change_last_digit(line) if slip else line for line, slip in pairs
        )
    )


def solve(role, request, seed):
    """Attempts without mistakes, and the oracle's critiques."""
    if role == 'critique':
        return fake_engine.critique(request)
    return fake_engine.ids_of(task.solve(fake_engine.question_of(request)))


class Evaluation:
    """A run in `workdir` and the arguments of its stage `evaluate`, with engines of its own."""

    def __init__(self, workdir, *, rule=write, **changes):
        self.run = fake_run.make_run(
            config_of(**changes),
            workdir,
            fake_run.make_inputs(test_problems=PROBLEMS),
            whole=fake_engine.RuleEngine(rule),
            line=fake_engine.RuleEngine(fake_engine.careless),
        )
        self.options = {
            'settings': self.run.settings.evaluate,
            'samplers': self.run.samplers,
            'seed': self.run.settings.seed,
        }

    def evaluate(self, folder, *, drawn=False):
        pair = self.run.samplers.pair(FakeModel('actor'), FakeModel('critic'))
        with contextlib.nullcontext() if drawn else fake_run.undrawn():
            return evaluate.evaluate(pair, PROBLEMS, stage=self.stage(folder), **self.options)

    def evaluate_actor(self, folder):
        actor, stage = FakeModel('actor'), self.stage(folder)
        return evaluate.evaluate_actor(actor, PROBLEMS, stage=stage, **self.options)

    def stage(self, folder):
        return StageFolder(folder, self.run.directory)

    @property
    def tokens(self):
        """Tokens that both engines have generated."""
        return self.run.samplers.whole.tokens + self.run.samplers.line.tokens


@pytest.fixture(scope='module')
def evaluated(tmp_path_factory):
    """(evaluation, its stage's folder, summary) of a whole evaluation; only read by the tests."""
    workdir = tmp_path_factory.mktemp('run')
    evaluation, folder = Evaluation(workdir), workdir / 'stage'
    folder.mkdir()
    return evaluation, folder, evaluation.evaluate(folder, drawn=True)


def parts(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob('*.array_record'))


# Sampling


@pytest.mark.slow
def test_each_strategy_has_its_own_folder_of_parts(evaluated):
    _, folder, _ = evaluated
    names = [f'episodes/part-{i:05d}.array_record' for i in range(3)]
    expected = [*names, *(f'{s}/{n}' for s in STRATEGIES for n in names), f'beam/{names[0]}']
    assert [str(path) for path in parts(folder)] == sorted(expected)


def test_all_that_was_generated_is_counted(evaluated):
    evaluation, _, summary = evaluated
    assert summary['tokens_sampled'] == evaluation.tokens


@pytest.mark.parametrize(
    'lost',
    [
        ['episodes/part-00001', 'sequential/episodes/part-00001', 'oracle/episodes/part-00001'],
        ['sequential/episodes/part-00000', 'beam/episodes/part-00000'],
        ['uptake/shuffled/episodes/part-00001', 'uptake/own/episodes/part-00002'],
    ],
)
def test_a_stage_that_was_stopped_samples_what_is_missing_and_no_more(evaluated, tmp_path, lost):
    evaluation, folder, summary = evaluated
    missing = 0
    for path in parts(folder):
        copy = tmp_path / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        tokens = path.with_suffix('.tokens')
        if str(path.with_suffix('')) in lost:
            missing += int((folder / tokens).read_text())
        else:
            copy.write_bytes((folder / path).read_bytes())
            (tmp_path / tokens).write_text((folder / tokens).read_text())
    again = Evaluation(evaluation.run.directory.path)
    assert again.evaluate(tmp_path) == summary
    assert again.tokens == missing > 0
    for name in {path.parent for path in parts(folder)}:
        whole = list(episode_files.read_episodes(folder / name))
        assert list(episode_files.read_episodes(tmp_path / name)) == whole


def test_what_is_off_is_neither_sampled_nor_in_the_summary(tmp_path):
    off = {
        'evaluate__num_rounds': 1,
        'evaluate__oracle': False,
        'evaluate__beam__width': 0,
        'evaluate__uptake__num_problems': 0,
    }
    summary = Evaluation(tmp_path, **off).evaluate(tmp_path, drawn=True)
    assert {path.parts[0] for path in parts(tmp_path)} == {'episodes'}
    assert not [arm for arm in summary['curves'] if arm.startswith(('seq', 'oracle', 'beam'))]
    assert 'uptake' not in summary


def test_where_the_critic_need_not_and_the_oracle_cannot_help_parts_are_empty(tmp_path):
    changes = {'evaluate__num_problems': 4, 'evaluate__beam__width': 0}
    summary = Evaluation(tmp_path, rule=solve, **changes).evaluate(tmp_path)
    assert summary['accuracy']['refined']['all'] == [1.0, None, None]
    assert list(episode_files.read_episodes(tmp_path / 'oracle' / 'episodes')) == []
    assert summary['uptake']['due'] == 0 and not (tmp_path / 'uptake').exists()
    assert summary['uptake']['warning'] == (
        'no comparison: only 0 attempts at 0 questions are refined'
    )


# Figures


def test_the_summary_is_plain_json_and_every_curve_has_every_level(evaluated):
    _, folder, summary = evaluated
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    for arm, points in summary['curves'].items():
        for point in points:
            levels = {'all'} | {str(n) for n in range(1, 6)}
            levels = levels if arm != 'beam search' else {'all', '1', '2', '3', '4'}
            assert set(point['accuracy']) == set(point['tokens']) == levels, arm
            # 20 questions are too few for an interval.
            mean, *ends = point['accuracy']['all']
            assert 0 <= mean <= 1 and ends == [None, None]
    assert (folder / 'curves.png').read_bytes().startswith(b'\x89PNG')


def test_every_way_to_answer_has_its_curve(evaluated):
    curves = evaluated[2]['curves']
    sizes = {arm: [point['size'] for point in points] for arm, points in curves.items()}
    scored = [f'{way} ({how})' for way in ('best of n', 'weighted majority')
              for how in ('min', 'product', 'last')]  # fmt: skip
    votes = ['majority', 'refined majority', 'oracle majority (upper bound)', *scored]
    sequential = {f'sequential {x} ({y})' for x in ('majority', 'rounds') for y in ('last', 'all')}
    assert set(sizes) == {*votes, *sequential, 'beam search'}
    assert all(sizes[arm] == [1, 2, 3] for arm in {*votes, *sequential})
    assert sizes['beam search'] == [2]


def test_curves_cost_more_with_size_and_calls_are_by_role(evaluated):
    curves = evaluated[2]['curves']
    for points in curves.values():
        spent = [point['tokens']['all'] for point in points]
        assert spent == sorted(spent)
    assert curves['majority'][2]['calls'] == {'attempt': 3}
    assert set(curves['best of n (min)'][0]['calls']) == {'attempt', 'critique'}
    assert curves['refined majority'][0]['calls']['critique'] == 1
    assert set(curves['beam search'][0]['calls']) == {'attempt', 'critique'}


def test_a_critic_that_is_mostly_right_helps(evaluated):
    accuracy = {arm: levels['all'][0] for arm, levels in evaluated[2]['accuracy'].items()}
    assert accuracy['refined'] > accuracy['attempt']
    curves = evaluated[2]['curves']
    oracle = curves['oracle majority (upper bound)'][0]['accuracy']['all'][0]
    assert oracle >= accuracy['refined']


def test_the_fields_of_old_are_there(evaluated):
    summary = evaluated[2]
    arms = {
        'attempt',
        'refined',
        *(f'{m}majority@{k}' for m in ('', 'refined ') for k in (2, 3)),
    }
    assert set(summary['accuracy']) == {*arms, 'pass@3'}
    assert set(summary['tokens_per_answer']) == arms
    assert 'refined-attempt' in summary['difference'] and len(summary['difference']) == 2
    assert len(summary['critic']['discriminability']) == 3
    assert summary['critic']['discriminability'][0] == pytest.approx(
        summary['measures']['critic']['all']['discriminability']
    )
    assert (summary['questions'], summary['attempts_per_question']) == (20, 3)


def test_measures_are_of_all_levels_and_of_each(evaluated):
    measures = evaluated[2]['measures']
    for name, by_level in measures.items():
        assert list(by_level) == ['all', '1', '2', '3', '4', '5'], name
    kinds = measures['detection']['all']
    assert set(kinds) <= set(task.MISTAKE_KINDS) and kinds
    bins = measures['uncertainty']['all']
    assert sum(b['questions'] for b in bins) == NUM_PROBLEMS


def test_comparisons_are_at_the_nearest_cost_of_the_same_questions(evaluated):
    _, _, summary = evaluated
    one = summary['curves']['majority'][0]['tokens']['all']
    for name, row in summary['equal_tokens'].items():
        size = int(row['against'].partition('@')[2])
        spent, plain = row['tokens']
        if row['questions'] == NUM_PROBLEMS:
            assert plain == pytest.approx(size * one)
        per_attempt = plain / size
        gaps = [abs(k * per_attempt - spent) for k in (1, 2, 3)]
        assert gaps[size - 1] == pytest.approx(min(gaps)), name
    assert summary['equal_tokens']['beam search@2']['questions'] == 4
    assert 'majority@1' not in summary['equal_tokens']


def test_a_difference_is_that_of_the_two_arms(evaluated):
    _, _, summary = evaluated
    row = summary['equal_tokens']['refined majority@1']
    against = summary['accuracy'][row['against']]
    for level, (mean, _, _) in row['difference'].items():
        expected = summary['accuracy']['refined'][level][0] - against[level][0]
        assert mean == pytest.approx(expected)


def test_a_majority_is_right_however_the_reference_spells_its_number():
    problem = records.Problem('p', '?', '0.50', '#### 0.50', 1, 'jsonl')
    episodes = tuple(make_episode(answers.canonical(text)) for text in ('1/2', '.5'))
    group = records.RolloutGroup(problem, episodes)
    config = config_of(evaluate__num_attempts=2, evaluate__num_rounds=1, evaluate__oracle=False)
    settings = build.build(run_settings.RunSettings, config).evaluate
    right = evaluate_figures.right_answers([group], rounds={}, oracle={})
    episodes = evaluate_figures.EvaluationEpisodes([group], {}, {}, [], [], right)
    summary = evaluate_figures.summarise(settings, episodes)
    for arm in ('attempt', 'refined', 'majority@2', 'refined majority@2', 'pass@2'):
        assert summary['accuracy'][arm]['all'][0] == 1.0, arm


def test_the_accuracy_of_an_actor_alone_is_by_level(tmp_path):
    summary = Evaluation(tmp_path).evaluate_actor(tmp_path)
    assert set(summary['accuracy']['attempt']) == {'all', '1', '2', '3', '4', '5'}
    episodes = list(episode_files.read_episodes(tmp_path / 'test' / 'episodes'))
    assert summary['accuracy']['attempt']['all'][0] == pytest.approx(
        np.mean([is_correct(e) for e in episodes])
    )


def test_an_actor_alone_makes_the_attempts_that_critique_begins_with(evaluated, tmp_path):
    _, folder, _ = evaluated
    Evaluation(tmp_path).evaluate_actor(tmp_path)
    alone, with_critique = (
        [e.turn('attempt').tokens for e in episode_files.read_episodes(where / 'episodes')]
        for where in (tmp_path / 'test', folder)
    )
    assert alone == with_critique


def test_the_line_sampler_stops_at_line_breaks_too():
    settings = build.build(run_settings.RunSettings, config_of())
    samplers = Samplers(settings.sampling, fake_run.make_inputs())
    assert samplers.whole_turns().engine.stop_ids == (TOKENIZER.eos_id,)
    stop_ids = set(samplers.lines().engine.stop_ids)
    assert stop_ids == {TOKENIZER.eos_id, TOKENIZER.newline_id}
    assert isinstance(samplers.lines().engine, engine.Engine)


def test_accuracies_at_each_question_are_stored_beside_the_summary(evaluated, tmp_path):
    _, folder, summary = evaluated
    values = json.loads((folder / 'questions.json').read_text())
    assert values['levels'] == [str(problem.level) for problem in PROBLEMS]
    assert set(values['accuracy']) == set(summary['accuracy'])
    for arm, by_question in values['accuracy'].items():
        assert np.mean(by_question) == pytest.approx(summary['accuracy'][arm]['all'][0]), arm
    assert 'by_question' not in summary
    Evaluation(tmp_path).evaluate_actor(tmp_path)
    alone = json.loads((tmp_path / 'questions.json').read_text())
    assert alone['digest'] == values['digest']
    assert alone['accuracy'] == {'attempt': pytest.approx(values['accuracy']['attempt'])}
    others = evaluate_figures.by_question(PROBLEMS[1:], {})
    assert others['digest'] != values['digest']
