"""Critique fine-tuning: critiques alone are trained, and the critic then solves by itself."""

import numpy as np
import pytest

from elenchus.configs import method
from elenchus.configs.methods import cft
from elenchus.data import records
from elenchus.data.files import episode_files
from elenchus.train.config import build, players, stage_fields
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.stages import actor, critic
from tests.support.fake_engine import CHAT, TOKENIZER
from tests.support.rollout_cases import PROBLEMS


def settings(*, stages=None, **changes):
    config = cft.get_config('default')
    config.stages = stages or config.stages
    config.update_from_flattened_dict({k.replace('__', '.'): v for k, v in changes.items()})
    return build.build(RunSettings, config)


def test_the_solver_is_the_model_that_learnt_critiques_from_the_base():
    s = settings()
    players.check_stages(s)
    assert [players.start_of(s, 'evaluate', p) for p in ('actor', 'critic')] == ['critic'] * 2
    assert players.start_of(s, 'critic', 'critic') == 'base'
    # The control is imitation: the actor, fine-tuned on solutions of the same problems.
    control = settings(evaluate__start='actor')
    players.check_stages(control)
    assert players.start_of(control, 'evaluate', 'actor') == 'actor'
    assert stage_fields.reads(s, 'evaluate', 'critic.fit.num_steps')


def test_the_likelihood_is_that_of_the_critique_behind_question_and_response(tmp_path):
    folder = tmp_path / 'episodes'
    folder.mkdir()
    turns = [actor.criticised_attempt(CHAT, p, p.solution) for p in PROBLEMS]
    episodes = [records.Episode(p.id, p.level, t) for p, t in zip(PROBLEMS, turns, strict=True)]
    episode_files.write_episodes(folder / 'part-00000.array_record', episodes)
    examples = critic.critic_examples(CHAT, folder)
    for episode, example in zip(episodes, examples, strict=True):
        trained = example.tokens[example.loss_mask > 0].tolist()
        assert trained == list(episode.critique.tokens) and set(example.weights) == {0.0, 1.0}
        context = TOKENIZER.decode(example.tokens[example.loss_mask == 0].tolist())
        assert CHAT.text(episode.attempt) in context


def test_by_default_the_newest_player_is_evaluated():
    of_lab = method.lab.get_config('default')
    of_lab.stages = (*method.CRITIC, 'reinforce', 'evaluate')
    s = build.build(RunSettings, of_lab)
    assert [players.start_of(s, 'evaluate', p) for p in ('actor', 'critic')] == [
        'reinforce',
        'critic',
    ]


@pytest.mark.parametrize('start', ['base', 'actor', 'critic', 'reinforce', 'reinforce_critic'])
def test_any_model_before_it_may_be_evaluated_as_either_player(start):
    stages = (*method.CRITIC, 'reinforce', 'reinforce_critic', 'evaluate')
    s = settings(stages=stages, evaluate__start=start, evaluate__critic_start=start)
    players.check_stages(s)
    assert players.start_of(s, 'evaluate', 'actor') == start


@pytest.mark.parametrize(('start', 'words'), [('critique', 'makes no actor'), ('vanilla', 'reads')])
def test_a_stage_without_a_model_is_refused(start, words):
    with pytest.raises(ValueError, match=words) as error:
        players.check_stages(settings(evaluate__start=start))
    assert 'evaluate.start' in str(error.value)


def test_who_is_evaluated_binds_that_stage_alone():
    s = settings(stages=(*method.REINFORCE,))
    for field in ('evaluate.start', 'evaluate.critic_start'):
        assert stage_fields.reads(s, 'evaluate', field)
        assert not stage_fields.reads(s, 'reinforce', field)
        assert stage_fields.EARLIER[field] == 'newest'


def test_its_changes_are_four_fields():
    base = build.build(RunSettings, method.lab.get_config('default'))
    changed = settings(stages=base.stages)
    neutral = settings(
        stages=base.stages,
        evaluate__start='newest',
        evaluate__critic_start='newest',
        critique__correct_share=base.critique.correct_share,
        critic__start=base.critic.start,
    )
    assert neutral == base != changed
    assert np.isclose(changed.critique.correct_share, 0.56)
