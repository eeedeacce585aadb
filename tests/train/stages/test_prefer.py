"""Preference optimisation: rounds, groups of both players, resume, and what a round leaves."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from elenchus.configs import lab
from elenchus.data.files import episode_files
from elenchus.train import pair_rules, preferences
from elenchus.train.config import build, checks, run_settings
from elenchus.train.pairs import PairedExamples
from elenchus.train.planning import dry_run
from elenchus.train.run import runner
from elenchus.train.run.directory import StageFolder
from elenchus.train.stages import prefer
from tests.support import fake_engine, fake_run, small_run, tiny_model
from tests.support.fake_run import FakeModel
from tests.train.stages.test_improve import CarelessEngine

STAGES = ('base', 'actor', 'critique', 'critic')


def make_run(workdir, stage='prefer', **changes):
    """A run with real settings and problems, whose models are names."""
    config = lab.get_config('smoke')
    config.stages = (*STAGES, stage)
    config.sampling.part_size = 4
    config.prefer.update(num_problems=10)
    for name, value in changes.items():
        config.update_from_flattened_dict({f'prefer.{name.replace("__", ".")}': value})
    problems = fake_engine.problems(20)
    inputs = fake_run.make_inputs(problems, problems)
    lines = fake_engine.RuleEngine(fake_engine.careless)
    return fake_run.make_run(
        config, workdir, inputs, whole=CarelessEngine(), line=lines, complete=STAGES
    )


def test_attempts_of_a_tree_are_groups_with_the_values_of_their_steps(tmp_path, fits):
    run = make_run(tmp_path, num_rounds=1, explorer='tree_search')
    runner.run_stage(run, 'prefer')
    folder = run.directory.stage('prefer').path / 'round-1' / 'explored' / 'episodes'
    episodes = list(episode_files.read_episodes(folder))
    found = [e for e in episodes if e.attempt.facts.origin == 'tree_search']
    assert {e.problem_id for e in found} == {e.problem_id for e in episodes}
    assert all(0 <= score <= 1 for e in found for score in e.attempt.step_scores[:1])
    assert run.samplers.line.tokens and fits


@pytest.fixture
def fits(monkeypatch):
    """Replaces training: every round adds (name of the model it trains, pairs with offsets)."""
    calls = []

    def train(model, examples, *, stage, **_):
        calls.append((model.name, examples))
        return FakeModel(stage.path.name), {'tokens_trained': 10, 'tokens_padding': 1}

    monkeypatch.setattr(prefer, 'train_on_pairs', train)
    return calls


def text_of(example):
    return fake_engine.TOKENIZER.decode(example.tokens[example.loss_mask > 0].tolist())


def test_an_actor_prefers_right_responses_to_wrong_ones(tmp_path, fits):
    run = make_run(tmp_path)
    with fake_run.undrawn():
        summary = runner.run_stage(run, 'prefer')
    assert [name for name, _ in fits] == ['01-actor', 'round-1']
    folder = run.directory.stage('prefer').path / 'round-1'
    sides = list(episode_files.read_episodes(folder / 'episodes'))
    assert [e.attempt.facts.correct for e in sides] == [True, False] * (len(sides) // 2)
    assert all([turn.role for turn in e.turns] == ['question', 'attempt'] for e in sides)
    assert len(sides) == 2 * summary['rounds'][0]['pairs'] == 2 * len(fits[0][1]) > 8
    assert summary['tokens_sampled'] == sum(r['tokens_sampled'] for r in summary['rounds']) > 0
    assert summary['accuracy']['attempt']['all'] and (tmp_path / 'stages').exists()
    assert (run.directory.stage('prefer').path / 'model/weights').read_text() == 'round-2'


def test_rounds_may_start_anew_and_a_complete_one_is_not_run_again(tmp_path, fits):
    run = make_run(tmp_path, restart='start')
    whole = runner.run_stage(run, 'prefer')
    assert [name for name, _ in fits] == ['01-actor', '01-actor']
    stage = run.directory.stage('prefer').path
    (stage / 'summary.json').unlink()
    (stage / 'round-2' / 'summary.json').unlink()
    again = runner.run_stage(make_run(tmp_path, restart='start'), 'prefer')
    assert len(fits) == 3
    strip = lambda summary: {k: v for k, v in summary.items() if k != 'seconds'}  # noqa: E731
    assert [*map(strip, again['rounds'])] == [*map(strip, whole['rounds'])]


@pytest.mark.parametrize('prompt', ['question', 'conversation'])
def test_a_refinement_is_trained_behind_the_question_or_in_its_conversation(tmp_path, fits, prompt):
    rule = 'refined' if prompt == 'question' else 'random'
    run = make_run(tmp_path, num_rounds=1, pairs=rule, explorer='critique_in_the_loop')
    if prompt == 'conversation':
        run = make_run(tmp_path, num_rounds=1, pairs=rule, prompt=prompt)
        with pytest.raises(ValueError, match="answer different prompts; use prefer.prompt='ques"):
            runner.run_stage(run, 'prefer')
        return
    runner.run_stage(run, 'prefer')
    folder = run.directory.stage('prefer').path / 'round-1'
    sides = list(episode_files.read_episodes(folder / 'episodes'))
    assert sides and all(e.turns[-1].role == 'attempt' for e in sides)
    assert [e.attempt.facts.origin for e in sides[:2]] == ['refinement', 'attempt']


def test_scores_are_the_critics_if_the_rule_reads_them(tmp_path, fits):
    run = make_run(tmp_path, num_rounds=1, pairs='best_worst', explorer='vanilla')
    runner.run_stage(run, 'prefer')
    folder = run.directory.stage('prefer').path / 'round-1'
    sides = list(episode_files.read_episodes(folder / 'episodes'))
    scores = [e.attempt.facts.score for e in sides]
    assert sides and all(a > b for a, b in zip(scores[::2], scores[1::2], strict=True))
    assert (folder / 'considered').exists()


def test_a_critic_prefers_critiques_that_help(tmp_path, fits, monkeypatch):
    seen = []

    def mine(groups):
        seen.extend(groups)
        return pair_rules.at_random(groups)

    monkeypatch.setitem(pair_rules.PAIR_RULES.functions, 'mine', mine)
    run = make_run(tmp_path, 'prefer_critic', num_rounds=1, pairs='mine')
    with fake_run.undrawn():
        summary = runner.run_stage(run, 'prefer_critic')
    assert [name for name, _ in fits] == ['03-critic']
    assert len(seen) == 10 * 2 == summary['groups']
    for group in seen:
        assert len(group) == 2 and len({e.attempt.tokens for e in group}) == 1
        assert all(e.turns[-1].facts.helpful is not None for e in group)
    chosen = fits[0][1][0][0].chosen
    assert 'wrong' in text_of(chosen) or 'correct' in text_of(chosen)
    assert summary['accuracy'].keys() == {'attempt', 'refined'}


def test_no_pair_is_an_error_that_says_what_helps(tmp_path, fits, monkeypatch):
    monkeypatch.setitem(pair_rules.PAIR_RULES.functions, 'none', lambda groups: [])
    with pytest.raises(ValueError, match='round-1: no pair to train on among 10 groups: 0 pairs'):
        runner.run_stage(make_run(tmp_path / 'a', pairs='none'), 'prefer')
    with pytest.raises(ValueError, match=r'alike and \d+ too long for a row of 20'):
        runner.run_stage(make_run(tmp_path / 'b', length=20), 'prefer')


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'prefer.num_refinements': 0}, 'prefer.num_refinements=0 leaves'),
        ({'prefer.pairs': 'right_wrongs'}, "prefer.pairs='right_wrongs' must be one of"),
        ({'prefer.num_problems': 61}, 'prefer.num_problems=61 must be in [1, 60]; nearest: 60'),
        ({'prefer.start': 'critic'}, "prefer.start='critic'"),
        ({'prefer.lora.rank': 4, 'actor.lora.rank': 2}, 'prefer.lora='),
    ],
)
def test_mistakes_are_refused_by_name_before_anything_runs(changes, words):
    config = lab.get_config('smoke')
    config.stages = (*STAGES, 'prefer')
    config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError) as error:
        checks.check_settings(build.build(run_settings.RunSettings, config))
    assert words in str(error.value) and '\n' not in str(error.value)


def test_a_plan_has_the_training_on_pairs_and_the_pass_that_scores_them():
    config = lab.get_config('smoke')
    config.stages = (*STAGES, 'prefer', 'prefer_critic')
    config.prefer.update(length=1200)
    settings = build.build(run_settings.RunSettings, config)
    plan = dry_run.plan_of(settings)
    loads = {load.name: load for load in plan.trainings}
    for name in ('prefer', 'prefer_critic'):
        assert loads[name].objective.pairs == settings.prefer.loss
        assert loads[name].logprobs and loads[name].length == 1200
    assert not loads['actor'].logprobs and loads['actor'].length == settings.train.length
    assert plan.sampling is not None


# Training


def settings_of(kind, num_steps=4):
    config = lab.get_config('smoke')
    config.prefer.loss.kind = kind
    config.prefer.fit.num_steps = num_steps
    config.prefer.fit.optimizer.update(name='adamw', learning_rate=0.02)
    return build.build(run_settings.RunSettings, config).prefer


def data_of(kind, num_pairs=8):
    examples = tiny_model.random_examples(4, (6, 5) * num_pairs)
    examples = [e._replace(weights=np.ones_like(e.weights)) for e in examples]
    pairs = [PairedExamples(*examples[i : i + 2]) for i in range(0, 2 * num_pairs, 2)]
    if kind == 'kto':
        pairs = [p._replace(others=tuple(pairs[i - 1][:2])) for i, p in enumerate(pairs)]
    return [(pair, 0.0) for pair in pairs]


def fit(kind, stage, model=None):
    return prefer.train_on_pairs(
        model or tiny_model.make_model(tiny_model.FLAT),
        data_of(kind),
        settings=settings_of(kind),
        loop=dataclasses.replace(small_run.LOOP, length=22),
        seed=3,
        stage=stage,
    )


def result_of(model, stage):
    rows = (stage.path / 'metrics.jsonl').read_text()
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(model)], rows


@pytest.mark.slow
@pytest.mark.parametrize('kind', preferences.PUBLISHED)
def test_training_widens_the_margin_and_goes_on_where_it_was_killed(kind, monkeypatch):
    whole_stage, stage = StageFolder.temporary(), StageFolder.temporary()
    model, figures = fit(kind, whole_stage)
    before, after = figures['preference']['before'], figures['preference']['after']
    assert after['margin'] > before['margin']
    assert after['accuracy'] > 0.5 or kind == 'simpo'
    if kind in ('dpo', 'ipo', 'kto'):
        assert before['margin'] == 0 and before['accuracy'] == 0.5
    calls = []
    to_device = prefer.to_device

    def killed(batch):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return to_device(batch)

    monkeypatch.setattr(prefer, 'to_device', killed)
    with pytest.raises(KeyboardInterrupt):
        fit(kind, stage)
    reference = (stage.path / 'reference.npz').read_bytes()
    monkeypatch.setattr(prefer, 'to_device', to_device)
    resumed, again = fit(kind, stage)
    assert (stage.path / 'reference.npz').read_bytes() == reference
    assert result_of(resumed, stage) == result_of(model, whole_stage)
    assert again == figures
    rows = [json.loads(line) for line in result_of(model, whole_stage)[1].splitlines()]
    assert {'loss/margin', 'loss/preferred', 'reward/chosen'} <= rows[-1].keys()


def test_the_stage_names_no_method_in_the_train_step():
    text = (pathlib.Path(prefer.__file__).parents[1] / 'step.py').read_text().lower()
    methods = (*preferences.PUBLISHED, 'grpo', 'rloo', 'dapo', 'step-apo', 'gkd', 'ppo')
    assert not [name for name in methods if name in text]
