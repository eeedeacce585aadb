"""Rounds of self-improvement: a round goes through all of its parts, and a complete one is kept."""

import dataclasses
import json
import os

import pytest

from elenchus.configs.studies import findings
from elenchus.data.files import episode_files
from elenchus.sampling.exploration import explorers
from elenchus.train import sft
from elenchus.train.run import runner, study_runner
from elenchus.train.stages import actor, improve
from elenchus.train.stages import sft as sft_stages
from tests.support import fake_engine, fake_run
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
    return fake_run.make_run(config, workdir, inputs, whole=engine, complete=findings.SHARED)


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


@pytest.mark.parametrize('explorer', explorers.EXPLORERS)
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
    assert len(fits[0][1]) < len(actor_examples(run))


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


# Guided demonstrations


def test_guided_examples_come_on_top_and_leave_the_others_as_they_were(tmp_path):
    run = make_run(tmp_path, 'vanilla')
    settings, problems = run.settings.actor, run.inputs.train_problems
    conversations = list(actor.actor_conversations(settings, CHAT, problems))
    unguided = dataclasses.replace(settings, guided_per_problem=0)
    plain = list(actor.actor_conversations(unguided, CHAT, problems))
    is_guided = lambda turns: any(turn.role == 'guide' for turn in turns)  # noqa: E731
    others = [turns for turns in conversations if not is_guided(turns)]
    assert others != [] and not any(map(is_guided, plain))
    assert len(conversations) - len(others) == 2 * settings.num_problems
    assert [len(turns) for turns in others[: len(plain)]] == [len(turns) for turns in plain]
    for turns in filter(is_guided, conversations):
        guide, response = (CHAT.text(turn) for turn in turns[1:])
        assert response == guide or response.endswith(guide)
