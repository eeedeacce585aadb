"""The stage `evaluate` on scripted players: what is sampled, resumed, compared and told."""

import itertools
import json
import random
import types

import numpy as np
import pytest

from elenchus.configs import lab as lab_config
from elenchus.data import records
from elenchus.data.critiques import grammars
from elenchus.data.files import episode_files
from elenchus.data.grading import answers
from elenchus.data.lab import task
from elenchus.sampling import episodes
from elenchus.sampling.engine import engine
from elenchus.sampling.test_time import strategies
from elenchus.train.config import build, run_settings
from elenchus.train.run import workspace
from elenchus.train.stages import evaluate
from tests.support import fake_engine, fake_workspace
from tests.support.fake_engine import CHAT, TOKENIZER

NUM_PROBLEMS, PART = 20, 8
STRATEGIES = ('sequential', 'oracle', 'beam')


def config_of(**changes):
    config = lab_config.get_config('smoke')
    config.sampling.part_size = PART
    config.evaluate.update({'num_problems': NUM_PROBLEMS, 'num_attempts': 3, 'num_rounds': 3})
    config.update_from_flattened_dict({n.replace('__', '.'): v for n, v in changes.items()})
    return config


class Stand(workspace.Workspace):
    """A workspace whose players follow a script: an actor that slips, a critic that misjudges."""

    def __init__(self, workdir, **changes):
        fake_workspace.furnish(self, config_of(**changes), workdir)
        self.test_problems = [
            task.generate_problem(seed=0, split='test', index=i) for i in range(NUM_PROBLEMS)
        ]
        self.tokenizer, self.chat, self.grammar = TOKENIZER, CHAT, grammars.LAB
        self.judge = fake_engine.judge
        self.whole = fake_engine.RuleEngine(self.write)
        self.lines = fake_engine.RuleEngine(fake_engine.careless)

    def load_model(self, stage):
        return None

    def sampler(self):
        return episodes.Sampler(self.whole, CHAT, fake_engine.LIMITS)

    def line_sampler(self):
        return episodes.Sampler(self.lines, CHAT, fake_engine.LIMITS)

    def write(self, role, request, seed):
        greedy = role == 'critique'
        rng = random.Random(repr(request.prompt if greedy else (request, seed)))
        if greedy:
            wrong = rng.random() < 0.2
            return fake_engine.ids_of('answer : wrong') if wrong else fake_engine.critique(request)
        lines = fake_engine.lines_of(task.solve(fake_engine.question_of(request)))
        slips = [rng.random() < 0.2 for _ in lines]
        pairs = zip(lines, slips, strict=True)
        return tuple(
            itertools.chain.from_iterable(
                fake_engine.change_last_digit(l) if s else l for l, s in pairs
            )
        )

    @property
    def tokens(self):
        return self.whole.tokens + self.lines.tokens


@pytest.fixture(autouse=True, scope='module')
def scored():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strategies.step_scores, 'step_rewards', fake_engine.step_rewards)
        yield


@pytest.fixture(scope='module')
def evaluated(tmp_path_factory):
    """(workspace, its stage's folder, summary) of a whole evaluation; only read by the tests."""
    stand = Stand(tmp_path_factory.mktemp('run'))
    folder = stand.workdir / 'stage'
    folder.mkdir()
    return stand, folder, evaluate.evaluate(stand, folder)


def parts(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob('*.array_record'))


# Sampling


def test_each_strategy_has_its_own_folder_of_parts(evaluated):
    _, folder, _ = evaluated
    names = [f'episodes/part-{i:05d}.array_record' for i in range(3)]
    expected = [*names, *(f'{s}/{n}' for s in STRATEGIES[:2] for n in names), f'beam/{names[0]}']
    assert [str(path) for path in parts(folder)] == sorted(expected)


def test_all_that_was_generated_is_counted(evaluated):
    stand, _, summary = evaluated
    assert summary['tokens_sampled'] == stand.tokens


@pytest.mark.parametrize(
    'lost',
    [
        ['episodes/part-00001', 'sequential/episodes/part-00001', 'oracle/episodes/part-00001'],
        ['sequential/episodes/part-00000', 'sequential/episodes/part-00002'],
        ['oracle/episodes/part-00002', 'beam/episodes/part-00000'],
    ],
)
def test_a_stage_that_was_stopped_samples_what_is_missing_and_no_more(evaluated, tmp_path, lost):
    stand, folder, summary = evaluated
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
    again = Stand(stand.workdir)
    assert evaluate.evaluate(again, tmp_path) == summary
    assert again.tokens == missing > 0
    for name in {path.parent for path in parts(folder)}:
        whole = list(episode_files.read_episodes(folder / name))
        assert list(episode_files.read_episodes(tmp_path / name)) == whole


def test_what_is_off_is_neither_sampled_nor_told(tmp_path):
    stand = Stand(tmp_path, evaluate__num_rounds=1, evaluate__oracle=False, evaluate__beam__width=0)
    summary = evaluate.evaluate(stand, tmp_path)
    assert {path.parts[0] for path in parts(tmp_path)} == {'episodes'}
    assert not [arm for arm in summary['curves'] if arm.startswith(('seq', 'oracle', 'beam'))]


def test_where_the_critic_need_not_and_the_oracle_cannot_help_parts_are_empty(tmp_path):
    stand = Stand(tmp_path, evaluate__num_problems=4, evaluate__beam__width=0)
    stand.whole.rule = lambda role, request, seed: (
        fake_engine.critique(request)
        if role == 'critique'
        else fake_engine.ids_of(task.solve(fake_engine.question_of(request)))
    )
    summary = evaluate.evaluate(stand, tmp_path)
    assert summary['accuracy']['refined']['all'] == [1.0, 1.0, 1.0]
    assert list(episode_files.read_episodes(tmp_path / 'oracle' / 'episodes')) == []


# Figures


def test_the_summary_is_plain_json_and_every_curve_has_every_level(evaluated):
    _, folder, summary = evaluated
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    for arm, points in summary['curves'].items():
        for point in points:
            levels = {'all'} | {str(n) for n in range(1, 6)}
            levels = levels if arm != 'beam search' else {'all', '1', '2', '3', '4'}
            assert set(point['accuracy']) == set(point['tokens']) == levels, arm
            low, high = point['accuracy']['all'][1:]
            assert 0 <= low <= point['accuracy']['all'][0] <= high <= 1
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
    for name, told in summary['equal_tokens'].items():
        size = int(told['against'].partition('@')[2])
        spent, plain = told['tokens']
        if told['questions'] == NUM_PROBLEMS:
            assert plain == pytest.approx(size * one)
        per_attempt = plain / size
        gaps = [abs(k * per_attempt - spent) for k in (1, 2, 3)]
        assert gaps[size - 1] == pytest.approx(min(gaps)), name
    assert summary['equal_tokens']['beam search@2']['questions'] == 4
    assert 'majority@1' not in summary['equal_tokens']


def test_a_difference_is_that_of_the_two_arms(evaluated):
    _, _, summary = evaluated
    told = summary['equal_tokens']['refined majority@1']
    against = summary['accuracy'][told['against']]
    for level, (mean, _, _) in told['difference'].items():
        expected = summary['accuracy']['refined'][level][0] - against[level][0]
        assert mean == pytest.approx(expected)


def test_a_majority_is_right_however_the_reference_spells_its_number():
    problem = records.Problem('p', '?', '0.50', '#### 0.50', 1, 'jsonl')
    costs = {'tokens': {'attempt': 3, 'critique': 4}, 'calls': {'attempt': 1, 'critique': 1}}
    turns = (records.Turn('attempt', (6,), (1,), step_scores=(0.5,)),)
    said = {'correct': True, 'verdict': True, 'score': 0.9} | costs
    group = [
        records.Episode('p', 1, turns, said | {'answer': answers.canonical(text)})
        for text in ('1/2', '.5')
    ]
    config = config_of(evaluate__num_attempts=2, evaluate__num_rounds=1, evaluate__oracle=False)
    s = build.build(run_settings.RunSettings, config)
    right = evaluate.right_answers([problem], [group], {}, {})
    played = evaluate.Played([problem], [group], {}, {}, [], right)
    told = evaluate.summarise(
        types.SimpleNamespace(settings=s), played, evaluate.curves(s.evaluate, played)
    )
    for arm in ('attempt', 'refined', 'majority@2', 'refined majority@2', 'pass@2'):
        assert told['accuracy'][arm]['all'][0] == 1.0, arm


def test_an_actor_alone_is_told_by_level(tmp_path):
    told = evaluate.attempts_only(Stand(tmp_path), tmp_path, None)
    assert set(told['accuracy']['attempt']) == {'all', '1', '2', '3', '4', '5'}
    found = list(episode_files.read_episodes(tmp_path / 'test' / 'episodes'))
    assert told['accuracy']['attempt']['all'][0] == pytest.approx(
        np.mean([e.outcome['correct'] for e in found])
    )


def test_an_actor_alone_makes_the_attempts_that_critique_begins_with(evaluated, tmp_path):
    _, folder, _ = evaluated
    evaluate.attempts_only(Stand(tmp_path), tmp_path, None)
    alone, played = (
        [e.turn('attempt').tokens for e in episode_files.read_episodes(where / 'episodes')]
        for where in (tmp_path / 'test', folder)
    )
    assert alone == played


def test_the_line_sampler_stops_at_line_breaks_too(tmp_path):
    stand = fake_workspace.furnish(object.__new__(workspace.Workspace), config_of(), tmp_path)
    stand.tokenizer, stand.chat = TOKENIZER, CHAT
    assert stand.sampler().engine.stop_ids == (TOKENIZER.eos_id,)
    assert set(stand.line_sampler().engine.stop_ids) == {TOKENIZER.eos_id, TOKENIZER.newline_id}
    assert isinstance(stand.line_sampler().engine, engine.Engine)
