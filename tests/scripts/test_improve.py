"""Rounds of self-improvement: a round goes through all of its parts, and a complete one is kept."""

import json
import types

import pytest

from elenchus.configs.studies import findings
from elenchus.data.files import episode_files
from elenchus.data.text.chat import Chat
from elenchus.sampling import episodes
from elenchus.sampling import step_scores as step_lib
from elenchus.sampling.exploration import explorers
from elenchus.train import sft
from elenchus.train.checkpoints import saved_models
from elenchus.train.config import build, run_settings
from elenchus.train.run import study_runner, workspace
from elenchus.train.stages import evaluate, improve
from elenchus.train.stages import supervised as train_stages
from tests.support import fake_engine, fake_workspace

CONFIG = findings.get_config('smoke')


def opened(workdir, explorer, **changes):
    """A workspace with real settings and problems, whose models are None."""
    arm = {'stages': (*findings.SHARED, explorer), 'improve': changes}
    config = study_runner.arm_config(CONFIG, 0, arm)
    made = fake_workspace.furnish(object.__new__(workspace.Workspace), config, workdir)
    made.tokenizer, made.chat = fake_engine.TOKENIZER, Chat(fake_engine.TOKENIZER)
    made.grammar, made.judge = fake_engine.players(None).grammar, fake_engine.judge
    made.train_problems = fake_engine.problems(20)
    return made


@pytest.fixture
def fitted(monkeypatch):
    """Replaces models, training and evaluation; gives the examples of every fit."""
    seen = []

    def fit(made, folder, model, examples, *, settings, name):
        seen.append((model, examples))
        path = folder / 'model' / 'weights'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        return {'tokens_trained': 10, 'examples': len(examples)}

    inner = fake_engine.RuleEngine(careless)
    sampler = episodes.Sampler(inner, fake_engine.CHAT, fake_engine.LIMITS)
    made = workspace.Workspace
    monkeypatch.setattr(made, 'sampler', lambda self: sampler)
    monkeypatch.setattr(made, 'load_model', lambda self, stage: stage)
    monkeypatch.setattr(
        made, 'model_folder', lambda self, stage: self.stage_folder(stage) / 'model'
    )
    monkeypatch.setattr(made, 'load_checkpoint', lambda self, path: path.parent.name)
    monkeypatch.setattr(made, 'load_to_train', lambda self, path, *_, stage: path.parent.name)
    monkeypatch.setattr(saved_models, 'saved_adaptation', lambda folder: None)
    monkeypatch.setattr(train_stages, 'fit', fit)
    monkeypatch.setattr(evaluate, 'attempts_only', lambda *_: {'coverage': {'all': [1, 1, 1]}})
    monkeypatch.setattr(step_lib, 'step_rewards', fake_engine.step_rewards)
    monkeypatch.setattr(sft, 'perplexities', lambda _, some, **__: [2.0] * len(some))
    return seen


def careless(role, request, seed):
    """Whole attempts whose answer is wrong as often as right; refinements that are right."""
    if role == 'critique':
        return fake_engine.critique(request)
    whole = fake_engine.rest_of_solution(request, role)
    slipped = role == 'attempt' and request.id % 2
    return (*fake_engine.change_last_digit(whole),) if slipped else whole


@pytest.mark.parametrize('explorer', explorers.EXPLORERS)
def test_every_explorers_rounds_leave_all_their_parts(tmp_path, fitted, explorer):
    made = opened(tmp_path, explorer)
    told = made.run_stage(explorer, improve.STAGES[explorer])
    stage = made.stage_folder(explorer)
    assert [r['tokens_sampled'] > 0 for r in told['rounds']] == [True, True]
    assert told['tokens_sampled'] == sum(r['tokens_sampled'] for r in told['rounds'])
    for number, (trained, examples) in enumerate(fitted, 1):
        place = stage / f'round-{number}'
        kept = list(episode_files.read_episodes(place / 'episodes'))
        assert trained == '00-base'
        assert len(kept) == told['rounds'][number - 1]['kept'] > 0
        assert len(examples) == len(train_stages.actor_examples(made)) + len(kept)
        assert all(e.outcome['correct'] for e in kept)
    assert (stage / 'model/weights').samefile(stage / 'round-2/model/weights')
    assert json.loads((stage / 'round-2/summary.json').read_text()) == told['rounds'][-1]


def test_a_complete_round_is_not_run_again(tmp_path, fitted):
    whole = opened(tmp_path / 'whole', 'vanilla')
    told = whole.run_stage('vanilla', improve.STAGES['vanilla'])
    made = opened(tmp_path / 'stopped', 'vanilla')
    first = made.stage_folder('vanilla') / 'round-1'
    made.complete(first, lambda *_: told['rounds'][0])
    (first / 'model').mkdir()
    before = len(fitted)
    again = made.run_stage('vanilla', improve.STAGES['vanilla'])
    assert len(fitted) == before + 1
    clocked = {'seconds'}
    strip = lambda summary: {k: v for k, v in summary.items() if k not in clocked}  # noqa: E731
    assert [*map(strip, again['rounds'])] == [*map(strip, told['rounds'])]


def test_a_round_may_go_on_from_the_last_one(tmp_path, fitted):
    made = opened(tmp_path, 'vanilla', restart='last', demonstrations=False)
    made.run_stage('vanilla', improve.STAGES['vanilla'])
    assert [trained for trained, _ in fitted] == ['01-actor', 'round-1']
    conversations = train_stages.actor_examples(made, plain=False)
    assert len(conversations) < len(train_stages.actor_examples(made))
    assert len(fitted[0][1]) < len(train_stages.actor_examples(made))


@pytest.mark.parametrize('weighting', ['score', 'steps', 'advantage'])
def test_weights_come_from_the_critic(tmp_path, fitted, weighting):
    made = opened(tmp_path, 'vanilla', weighting=weighting, balance='question', num_rounds=1)
    made.run_stage('vanilla', improve.STAGES['vanilla'])
    own = fitted[0][1][len(train_stages.actor_examples(made)) :]
    weights = [e.weights[e.loss_mask > 0] for e in own]
    assert all(w.any() for w in weights)
    assert any((w < 0).any() for w in weights) == (weighting == 'advantage')


def test_a_controller_chooses_each_rounds_knobs_and_says_why(tmp_path, fitted):
    made = opened(tmp_path, 'vanilla', controller='balance')
    told = made.run_stage('vanilla', improve.STAGES['vanilla'])
    stage, candidates = made.stage_folder('vanilla'), made.settings.improve.candidates
    for number, figures in enumerate(told['rounds'], 1):
        tried, knobs = figures['candidates'], figures['knobs']
        assert len(tried) == len(candidates.temperatures) * len(candidates.thresholds)
        best = max(tried, key=lambda candidate: candidate['balance'])
        assert knobs == {name: best[name] for name in ('temperature', 'threshold')}
        assert knobs['threshold'] > 0  # the scripted critic is never wrong
        place = stage / f'round-{number}'
        assert len(list((place / 'candidates').iterdir())) == len(candidates.temperatures)
        kept = list(episode_files.read_episodes(place / 'episodes'))
        assert kept and all(e.outcome['score'] >= knobs['threshold'] for e in kept)
        assert figures['tokens_sampled'] > figures['exploration']['tokens']
    plain = opened(tmp_path / 'plain', 'vanilla')
    (first, _) = plain.run_stage('vanilla', improve.STAGES['vanilla'])['rounds']
    assert first['knobs'] == {'temperature': 0.7, 'threshold': 0.0} and not first['candidates']


@pytest.mark.parametrize(('restart', 'trained'), [('base', '00-base'), ('last', 'critic')])
def test_a_round_explores_with_the_critic_of_the_round_before(tmp_path, fitted, restart, trained):
    made = opened(tmp_path, 'critique_in_the_loop', retrain_critic=True, restart=restart)
    begun = []
    explored = improve.exploration
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            improve,
            'exploration',
            lambda w, f, players, **known: (
                begun.append(players.critic) or explored(w, f, players, **known)
            ),
        )
        told = made.run_stage('critique_in_the_loop', improve.STAGES['critique_in_the_loop'])
    assert begun == ['03-critic', 'critic']  # saved in round-1/critic
    first, second = made.stage_folder('critique_in_the_loop').glob('round-*/critic/episodes')
    one, other = (
        [e.turns[-1].role for e in episode_files.read_episodes(data)] for data in (first, second)
    )
    assert set(one) == set(other) == {'critique'}
    start, examples = fitted[-1]
    assert start == trained and len(examples) == told['retrained_critic']['examples']
    assert told['tokens_sampled'] > sum(r['exploration']['tokens'] for r in told['rounds'])


# Guided demonstrations


def test_guided_examples_come_on_top_and_leave_the_others_as_they_were(tmp_path):
    made = opened(tmp_path, 'vanilla')
    guided = list(train_stages.actor_conversations(made))
    without = types.SimpleNamespace(
        chat=made.chat,
        train_problems=made.train_problems,
        settings=types.SimpleNamespace(
            actor=build.build(
                run_settings.ActorSettings, CONFIG.run.actor.to_dict() | {'guided_per_problem': 0}
            )
        ),
    )
    plain = list(train_stages.actor_conversations(without))
    given = lambda turns: any(turn.role == 'guide' for turn in turns)  # noqa: E731
    assert [turns for turns in guided if not given(turns)] != [] and not any(map(given, plain))
    assert len([turns for turns in guided if given(turns)]) == 2 * made.settings.actor.num_problems
    first = [turns for turns in guided if not given(turns)][: len(plain)]
    assert [len(turns) for turns in first] == [len(turns) for turns in plain]
    for turns in filter(given, guided):
        guide, response = (made.chat.text(turn) for turn in turns[1:])
        assert response == guide or response.endswith(guide)
