"""The table of stages, and where their arguments come from."""

import pytest

from elenchus.configs import lab
from elenchus.data.lab import task
from elenchus.train import stages
from elenchus.train.config import build, run_settings
from elenchus.train.stages import STAGES, base_model
from tests.support import fake_engine, fake_run
from tests.support.fake_run import FakeModel

PROBLEMS = fake_engine.problems(60)


def test_every_stage_of_the_settings_can_be_run():
    assert set(lab.get_config().stages) < set(STAGES) == set(run_settings.StageName.__args__)


@pytest.mark.parametrize(
    ('names', 'complete', 'base'),
    [
        (
            ('base', 'actor', 'critic', 'evaluate'),
            ('base', 'actor', 'critic'),
            FakeModel('00-base'),
        ),
        (('base', 'actor', 'critic', 'evaluate'), ('actor', 'critic'), None),
        (('actor', 'critic', 'evaluate'), ('actor', 'critic'), None),
    ],
)
def test_evaluation_compares_with_the_base_that_the_run_has(tmp_path, names, complete, base):
    config = lab.get_config('smoke')
    config.stages = names
    run = fake_run.make_run(config, tmp_path, fake_run.make_inputs(), complete=complete)
    arguments = stages.evaluate_arguments(run)
    assert arguments['base'] == base
    assert arguments['pair'].actor == FakeModel(f'{names.index("actor"):02d}-actor')


ORDER = ('base', 'actor', 'critique', 'critic', 'self_talk', 'vanilla', 'reinforce')


def arguments_of(workdir, stage, order=ORDER, **changes):
    """Arguments of a stage whose models are named after the folders that they are loaded from."""
    config = lab.get_config('smoke')
    config.stages = order
    for name, value in changes.items():
        config.update_from_flattened_dict({name.replace('__', '.'): value})
    inputs = fake_run.make_inputs(PROBLEMS, PROBLEMS)
    run = fake_run.make_run(config, workdir, inputs, complete=[s for s in order if s != 'critique'])
    return STAGES[stage].arguments(run)


@pytest.mark.parametrize(
    ('start', 'actor'),
    [
        ('', '01-actor'),
        ('newest', '05-vanilla'),
        ('self_talk', '04-self_talk'),
        ('base', '00-base'),
    ],
)
def test_reinforcement_trains_the_model_that_its_start_names(tmp_path, start, actor):
    arguments = arguments_of(tmp_path, 'reinforce', reinforce__start=start)
    assert arguments['pair'].actor == FakeModel(actor)
    assert arguments['pair'].critic == FakeModel('03-critic')


def test_an_explorer_explores_with_the_model_that_its_start_names(tmp_path):
    for start, actor in (('', '01-actor'), ('newest', '04-self_talk')):
        pair = arguments_of(tmp_path, 'vanilla', improve__start=start)['start']
        assert pair.actor.parent.name == actor and pair.critic.parent.name == '03-critic'


def test_a_critic_may_start_from_the_actor(tmp_path, monkeypatch):
    monkeypatch.setattr(stages.critic, 'critic_examples', lambda chat, folder: [])
    for start, name in (('base', '00-base'), ('actor', '01-actor'), ('newest', '00-base')):
        assert arguments_of(tmp_path, 'critic', critic__start=start)['model'] == FakeModel(name)


def test_a_critic_may_be_the_newest_too(tmp_path):
    order = ('base', 'actor', 'critique', 'critic', 'reinforce_critic', 'reinforce')
    arguments = arguments_of(tmp_path, 'reinforce', order, reinforce__critic_start='newest')
    assert arguments['pair'].critic == FakeModel('04-reinforce_critic')


def test_attempts_after_self_talk_are_judged_as_talks_and_may_be_as_long(tmp_path):
    """A talk's answer is that of its corrected lines, and it is longer than an attempt."""
    problem = PROBLEMS[0]
    right = task.solve(problem.question)
    first, *rest = right.split('\n')
    wrong = '\n'.join([first[:-1] + str((int(first[-1]) + 1) % 10), *rest])
    remark = task.judge(problem.question, wrong).critique.partition('\n')[0]
    talk = f'{wrong.partition(chr(10))[0]}\n {remark}\n {right}'
    for start, is_talk in (('self_talk', True), ('actor', False)):
        arguments = arguments_of(tmp_path, 'reinforce', reinforce__start=start)
        (facts,) = arguments['pair'].judge([(problem, talk)])
        limit = arguments['samplers'].settings.attempt_tokens
        assert facts.steps_correct == is_talk and limit == (440 if is_talk else 120)


def test_the_actor_replays_evenly_spaced_documents_of_the_base(tmp_path):
    assert arguments_of(tmp_path / 'off', 'actor')['replay'] is None
    replay = arguments_of(tmp_path / 'on', 'actor', actor__replay__num_documents=5)['replay']
    documents = {tuple(row[row > 0]) for n in range(9) for row in replay.batch(n, rows=3).tokens}
    # 200 documents in the smoke run: every fortieth.
    inputs = fake_run.make_inputs(PROBLEMS, PROBLEMS)
    config = build.build(run_settings.RunSettings, lab.get_config('smoke'))
    base = base_model.base_examples(config.base, inputs, data=config.data)
    assert documents == {tuple(base[i].tokens) for i in range(0, 200, 40)}
    everything = arguments_of(tmp_path / 'all', 'actor', actor__replay__num_documents=10**6)
    assert everything['replay'].batch(0, rows=200).tokens.shape[0] == 200
