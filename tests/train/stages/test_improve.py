"""Rounds of self-improvement: a round goes through all of its parts, and a complete one is kept."""

import collections
import dataclasses
import json
import os

import pytest

from elenchus.configs.studies import findings
from elenchus.data import records
from elenchus.data.files import episode_files
from elenchus.data.lab import forms
from elenchus.sampling.exploration import explorers
from elenchus.train import sft
from elenchus.train.run import runner, study_runner
from elenchus.train.stages import actor, improve, unsampled
from elenchus.train.stages import sft as sft_stages
from tests.support import fake_engine, fake_run, slow_cases
from tests.support.fake_engine import CHAT
from tests.support.fake_run import FakeModel

CONFIG = findings.get_config('smoke')


def is_correct(episode):
    return episode.attempt.facts.correct


def score_of(episode):
    return episode.attempt.facts.score


def careless(role, request, seed):
    """Whole attempts whose answer is wrong as often as right; refinements that are right."""
    if role == 'critique':
        return fake_engine.critique(request)
    solution = fake_engine.rest_of_solution(request, role)
    is_wrong = role == 'attempt' and request.id % 2
    return (*fake_engine.change_last_digit(solution),) if is_wrong else solution


@dataclasses.dataclass
class CarelessEngine(fake_engine.RuleEngine):
    """Engine of careless players that records the models of its requests, by role."""

    rule: object = careless
    models: list[tuple[str, FakeModel]] = dataclasses.field(default_factory=list)

    def generate(self, model, requests, *, method, seed):
        start = len(self.requests)
        completions = super().generate(model, requests, method=method, seed=seed)
        self.models += [(role, model) for role, _ in self.requests[start:]]
        return completions


def make_run(workdir, explorer, **changes):
    """A run with real settings and problems, whose models are names."""
    arm = {'stages': (*findings.SHARED, explorer), 'improve': changes}
    config = study_runner.arm_config(CONFIG, 0, arm)
    problems = fake_engine.problems(20)
    inputs = fake_run.make_inputs(problems, problems)
    engine = CarelessEngine()
    lines = fake_engine.RuleEngine(fake_engine.careless)
    return fake_run.make_run(
        config, workdir, inputs, whole=engine, line=lines, complete=findings.SHARED
    )


def actor_examples(run, **options):
    return actor.actor_examples(run.settings.actor, CHAT, run.inputs.train_problems, **options)


@pytest.fixture
def fits(monkeypatch):
    """Replaces training: every fit adds (name of the model it starts from, examples)."""
    calls = []

    def train(model, examples, *, stage, **_):
        calls.append((model.name, examples))
        totals = {'tokens_trained': 10, 'examples': len(examples), 'examples_too_long': 0}
        return FakeModel(stage.path.name), totals

    for module in (improve, sft_stages):  # both call it by this name
        monkeypatch.setattr(module, 'sft', train)
    monkeypatch.setattr(sft, 'perplexities', lambda _, examples, **__: [2.0] * len(examples))
    return calls


@slow_cases.combinations(
    {('vanilla',), ('critique_in_the_loop',)}, explorer=list(explorers.EXPLORERS)
)
def test_every_explorers_rounds_leave_all_their_parts(tmp_path, fits, explorer):
    run = make_run(tmp_path, explorer)
    summary = runner.run_stage(run, explorer)
    stage = run.directory.stage(explorer).path
    assert [r['tokens_sampled'] > 0 for r in summary['rounds']] == [True, True]
    assert summary['tokens_sampled'] == sum(r['tokens_sampled'] for r in summary['rounds'])
    for number, (start, examples) in enumerate(fits, 1):
        folder = stage / f'round-{number}'
        kept = list(episode_files.read_episodes(folder / 'episodes'))
        assert start == '00-base'
        assert len(kept) == summary['rounds'][number - 1]['kept'] > 0
        assert len(examples) == len(actor_examples(run)) + len(kept)
        assert all(map(is_correct, kept))
        # The last turn is what is trained on.
        assert {e.turns[-1].role for e in kept} <= {'attempt', 'refinement'}
    assert len(fits) == 2
    assert os.path.samefile(stage / 'model/weights', stage / 'round-2/model/weights')
    assert json.loads((stage / 'round-2/summary.json').read_text()) == summary['rounds'][-1]


def test_a_complete_round_is_not_run_again(tmp_path, fits):
    summary = runner.run_stage(make_run(tmp_path / 'whole', 'vanilla'), 'vanilla')
    stopped = make_run(tmp_path / 'stopped', 'vanilla')
    first = stopped.directory.stage('vanilla').child('round-1')
    with first.recorded() as recorded:
        recorded |= summary['rounds'][0]
    stopped.store.save(first.path / 'model', FakeModel('round-1'))
    before = len(fits)
    resumed = runner.run_stage(stopped, 'vanilla')
    assert len(fits) == before + 1
    strip = lambda summary: {k: v for k, v in summary.items() if k != 'seconds'}  # noqa: E731
    assert [*map(strip, resumed['rounds'])] == [*map(strip, summary['rounds'])]


def test_a_round_may_go_on_from_the_last_one(tmp_path, fits):
    run = make_run(tmp_path, 'vanilla', restart='last', demonstrations=False)
    runner.run_stage(run, 'vanilla')
    assert [start for start, _ in fits] == ['01-actor', 'round-1']
    conversations = actor_examples(run, plain=False)
    assert len(conversations) < len(actor_examples(run))
    for example, trained in zip(conversations, fits[0][1], strict=False):
        assert example.tokens.tolist() == trained.tokens.tolist()
    responses = fits[0][1][len(conversations) :]
    assert all(e.roles.max() == records.ROLES.index('attempt') for e in responses)


@pytest.mark.parametrize(('restart', 'trained'), [('base', '00-base'), ('last', '01-actor')])
def test_a_teacher_responds_and_the_actor_is_trained(tmp_path, fits, restart, trained):
    run = make_run(tmp_path, 'vanilla', teacher='larger/model', restart=restart)
    runner.run_stage(run, 'vanilla')
    tested = run.settings.evaluate.num_problems * run.settings.evaluate.num_attempts
    writers = [model.name for role, model in run.samplers.whole.models if role == 'attempt']
    assert set(writers) == {'larger', 'round-1', 'round-2'}
    assert writers.count('round-1') == writers.count('round-2') == tested  # tests alone
    assert [start for start, _ in fits] == [trained, trained if restart == 'base' else 'round-1']
    assert all(len(examples) > len(actor_examples(run)) for _, examples in fits)


@pytest.mark.parametrize('weighting', ['score', 'steps', 'advantage'])
def test_weights_come_from_the_critic(tmp_path, fits, weighting):
    run = make_run(tmp_path, 'vanilla', weighting=weighting, balance='question', num_rounds=1)
    runner.run_stage(run, 'vanilla')
    responses = fits[0][1][len(actor_examples(run)) :]
    weights = [e.weights[e.loss_mask > 0] for e in responses]
    assert all(w.any() for w in weights)
    assert any((w < 0).any() for w in weights) == (weighting == 'advantage')


def test_a_controller_chooses_each_rounds_knobs_and_says_why(tmp_path, fits):
    run = make_run(tmp_path, 'vanilla', controller='balance')
    summary = runner.run_stage(run, 'vanilla')
    stage, settings = run.directory.stage('vanilla').path, run.settings.improve.candidates
    for number, figures in enumerate(summary['rounds'], 1):
        candidates, knobs = figures['candidates'], figures['knobs']
        assert len(candidates) == len(settings.temperatures) * len(settings.thresholds)
        best = max(candidates, key=lambda candidate: candidate['balance'])
        assert knobs == {name: best[name] for name in ('temperature', 'threshold')}
        assert knobs['threshold'] > 0  # the scripted critic is never wrong
        folder = stage / f'round-{number}'
        assert len(list((folder / 'candidates').iterdir())) == len(settings.temperatures)
        kept = list(episode_files.read_episodes(folder / 'episodes'))
        assert kept and all(score_of(e) >= knobs['threshold'] for e in kept)
        assert figures['tokens_sampled'] > figures['exploration']['tokens']
    plain = make_run(tmp_path / 'plain', 'vanilla')
    (first, _) = runner.run_stage(plain, 'vanilla')['rounds']
    assert first['knobs'] == {'temperature': 0.7, 'threshold': 0.0} and not first['candidates']


@pytest.mark.parametrize(('restart', 'trained'), [('base', '00-base'), ('last', 'critic')])
def test_a_round_explores_with_the_critic_of_the_round_before(tmp_path, fits, restart, trained):
    run = make_run(tmp_path, 'critique_in_the_loop', retrain_critic=True, restart=restart)
    summary = runner.run_stage(run, 'critique_in_the_loop')
    critics = [model.name for role, model in run.samplers.whole.models if role == 'critique']
    assert list(dict.fromkeys(critics)) == ['03-critic', 'critic']  # saved in round-1/critic
    assert critics == sorted(critics)  # the first is not used again
    first, second = run.directory.stage('critique_in_the_loop').path.glob('round-*/critic/episodes')
    one, other = (
        [e.turns[-1].role for e in episode_files.read_episodes(data)] for data in (first, second)
    )
    assert set(one) == set(other) == {'critique'}
    start, examples = fits[-1]
    assert start == trained and len(examples) == summary['retrained_critic']['examples']
    assert summary['tokens_sampled'] > sum(r['exploration']['tokens'] for r in summary['rounds'])


def test_all_that_an_arm_sampled_is_in_its_cost(tmp_path, fits):
    """Attempts, critiques, dropped responses, scores, the controller's trials, critique data."""
    changes = {'weighting': 'score', 'controller': 'balance', 'retrain_critic': True}
    run = make_run(tmp_path, 'critique_in_the_loop', **changes)
    summary = runner.run_stage(run, 'critique_in_the_loop')
    folder = run.directory.stage('critique_in_the_loop').path
    tests = sum(int(path.read_text()) for path in folder.glob('round-*/test/episodes/*.tokens'))
    counted = summary['tokens_sampled'] + summary['tokens_monitored'] + tests
    assert counted == run.samplers.whole.tokens and summary['tokens_monitored'] > 0
    # The accuracies by question are those of the last round, as the figures are.
    last = (folder / 'round-2/questions.json').read_text()
    assert (folder / 'questions.json').read_text() == last


# Controls


def folder_of(run, stage, *names):
    return run.directory.stage(stage).path.joinpath('round-1', *names)


def uncertain(role, request, seed):
    """Right attempts; critiques that call them right for every second request."""
    if role != 'critique':
        return fake_engine.rest_of_solution(request, role)
    return fake_engine.ids_of(f'answer : {"wrong" if request.id % 2 else "correct"}')


def test_a_threshold_keeps_responses_that_the_critic_thinks_right_with_weight_one(tmp_path, fits):
    """The critic scores every second response 0.9 and the others 0.1."""
    kept = {}
    for threshold in (0.05, 0.5, 0.95):
        run = make_run(
            tmp_path / str(threshold),
            'vanilla',
            weighting='threshold',
            threshold=threshold,
            num_rounds=1,
        )
        run.samplers.whole.rule = uncertain
        summary = runner.run_stage(run, 'vanilla')
        kept[threshold] = list(episode_files.read_episodes(folder_of(run, 'vanilla', 'episodes')))
        assert summary['knobs'] == {'temperature': 0.7, 'threshold': threshold}
        assert summary['tokens_sampled'] > summary['exploration']['tokens']
        assert all(score_of(e) >= threshold for e in kept[threshold])
        responses = fits[-1][1][len(actor_examples(run)) :]
        assert len(responses) == len(kept[threshold])
        assert all((e.weights[e.loss_mask > 0] == 1).all() for e in responses)
    assert len(kept[0.05]) > len(kept[0.5]) > len(kept[0.95]) == 0
    rights = [e for e in kept[0.05] if score_of(e) >= 0.5]
    assert [e.problem_id for e in rights] == [e.problem_id for e in kept[0.5]]


def test_without_deduplication_every_right_response_is_trained_on(tmp_path, fits):
    counts = {}
    for deduplicate in (True, False):
        run = make_run(
            tmp_path / str(deduplicate), 'vanilla', deduplicate=deduplicate, num_rounds=1
        )
        run.samplers.whole.rule = lambda role, request, seed: fake_engine.rest_of_solution(
            request, role
        )
        counts[deduplicate] = runner.run_stage(run, 'vanilla')['kept']
    s = run.settings.improve
    assert counts[True] == s.num_problems
    assert counts[False] == s.num_problems * s.explore.num_attempts > counts[True]


@pytest.mark.parametrize('explorer', ['vanilla', 'critique_in_the_loop'])
def test_demonstrations_alone_and_references_sample_nothing(tmp_path, fits, explorer):
    for responses, count in (('none', 0), ('references', 4)):
        run = make_run(
            tmp_path / responses, explorer, responses=responses, num_references=count, num_rounds=2
        )
        summary = runner.run_stage(run, explorer)
        assert run.samplers.whole.num_requests('critique') == 0
        assert summary['tokens_sampled'] == summary['tokens_monitored'] == 0
        assert summary['kept'] == count == sum(summary['kept_by_level'].values())
        assert summary['exploration'] is summary['problems_solved'] is None
        start, examples = fits[-1]
        assert start == '00-base' and len(examples) == len(actor_examples(run)) + count
        kept = list(episode_files.read_episodes(folder_of(run, explorer, 'episodes')))
        problems = {p.id: p for p in run.inputs.train_problems[: run.settings.improve.num_problems]}
        assert len({e.problem_id for e in kept}) == len(kept) == count
        for episode in kept:
            assert CHAT.text(episode.attempt) == problems[episode.problem_id].solution
            assert is_correct(episode)
    assert summary['found_by'] == {'reference': 4} and summary['kept_spurious'] == 0


def test_references_are_trained_on_as_the_sampled_responses_are(tmp_path, fits):
    run = make_run(tmp_path, 'vanilla', responses='references', num_references=4, num_rounds=1)
    runner.run_stage(run, 'vanilla')
    for example in fits[-1][1][len(actor_examples(run)) :]:
        assert (example.weights[example.loss_mask > 0] == 1).all()
        trained = example.tokens[example.loss_mask > 0].tolist()
        assert CHAT.tokenizer.decode(trained[:-1]) in {
            p.solution for p in run.inputs.train_problems
        }


def test_more_references_than_there_are_solutions_are_an_error(tmp_path, fits):
    run = make_run(tmp_path, 'vanilla', responses='references', num_references=4)
    problems = [dataclasses.replace(p, solution='') for p in run.inputs.train_problems]
    inputs = dataclasses.replace(run.inputs, train_problems=problems)
    with pytest.raises(ValueError, match=r'num_references=4 must be at most 0'):
        unsampled.unsampled_responses(
            run.samplers.pair(None, None),
            inputs.train_problems,
            settings=run.settings.improve,
            stage=run.directory.stage('vanilla'),
        )


# Guided demonstrations


def test_guided_examples_come_on_top_and_leave_the_plain_ones_as_they_were(tmp_path):
    run = make_run(tmp_path, 'vanilla')
    settings = dataclasses.replace(run.settings.actor, guided_per_problem=2, level_decay=1.0)
    problems = run.inputs.train_problems[: settings.num_problems]
    guided = list(actor.generate_examples(settings, CHAT, problems))
    unguided = dataclasses.replace(settings, guided_per_problem=0)
    plain = list(actor.generate_examples(unguided, CHAT, problems))
    assert len(guided) - len(plain) == 2 * settings.num_problems
    guide = records.ROLES.index('guide')
    assert sum(bool((example.roles == guide).any()) for _, example in guided) == 2 * len(problems)
    for examples in (guided, plain):
        assert sum(is_plain for is_plain, _ in examples) == settings.num_problems
    first = [next(e for is_plain, e in examples if is_plain) for examples in (guided, plain)]
    assert first[0].tokens.tolist() == first[1].tokens.tolist()


def test_demonstrations_become_fewer_with_the_level_and_refinements_do_not(tmp_path):
    run = make_run(tmp_path, 'vanilla')
    settings = dataclasses.replace(
        run.settings.actor,
        num_problems=400,
        level_decay=0.5,
        refinements_per_problem=1,
        guided_per_problem=0,
    )
    form = forms.FORMS['tail']
    problems = [
        forms.generate_problem(seed=0, split='train', index=i, form=form) for i in range(400)
    ]
    counts = {True: collections.Counter(), False: collections.Counter()}
    for problem in problems:
        for is_plain, _ in actor.generate_examples(settings, CHAT, [problem]):
            counts[is_plain][problem.level] += 1
    assert set(counts[False].values()) == {50}
    assert counts[True][1] == 50 and 15 < counts[True][2] < 35 and counts[True][8] < 4
