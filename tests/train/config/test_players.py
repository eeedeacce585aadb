"""From which stage's model every stage starts: the setting, its default, and what is refused."""

import dataclasses
import itertools
import types

import pytest

from elenchus.configs import lab
from elenchus.sampling.seeds import derive_seed
from elenchus.train.config import build, checks, players, stage_fields
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.config.stage_names import phase
from elenchus.train.stages import STAGES, reinforce
from tests.support import shipped_configs

SFT = ('base', 'actor', 'critique', 'critic')


def settings_of(*stages, **changes):
    config = lab.get_config('smoke')
    config.stages = (*SFT, *stages)
    for name, value in changes.items():
        config.update_from_flattened_dict({name.replace('__', '.'): value})
    return build.build(RunSettings, config)


def refusal_of(*stages, **changes):
    with pytest.raises(ValueError) as error:
        players.check_stages(settings_of(*stages, **changes))
    assert '\n' not in str(error.value)
    return str(error.value)


def starts_of(s, stage):
    return [players.start_of(s, stage, player) for player in players.players_read(stage)]


def test_the_default_order_starts_every_stage_from_the_fine_tuned_players():
    """Unless a run of reinforcement names another actor."""
    for name in shipped_configs.ALL:
        with shipped_configs.Naming(name):
            s = shipped_configs.settings_of(name)
            players.check_stages(s)
            for stage in set(s.stages) - {'evaluate'}:  # which reads the newest
                expected = {'actor': ['base'], 'critic': ['base'], 'self_talk': ['base']}
                expected['critic'] = [''] if s.critic.checkpoint else ['base']
                actor = s.reinforce.start or 'actor' if stage == 'reinforce' else 'actor'
                pair = [actor, 'critic'] if players.players_read(stage) else []
                assert starts_of(s, stage) == expected.get(stage, pair), stage


def test_reinforcement_after_self_talk_must_say_whose_model_it_trains():
    error = refusal_of('self_talk', 'reinforce')
    assert "stage 'reinforce' would start from the actor of stage 'actor'" in error
    assert "set reinforce.start='self_talk'" in error
    for value, start in (('newest', 'self_talk'), ('self_talk', 'self_talk'), ('actor', 'actor')):
        s = settings_of('self_talk', 'reinforce', reinforce__start=value)
        players.check_stages(s)
        assert starts_of(s, 'reinforce') == [start, 'critic']
    players.check_stages(settings_of('reinforce', 'self_talk'))


def test_a_mean_of_models_that_talk_to_themselves_talks_too():
    s = settings_of('self_talk', 'average', average__stages=('self_talk',))
    assert players.attempt_tokens(s, 'evaluate') == players.attempt_tokens(
        settings_of('self_talk'), 'evaluate'
    )
    plain = settings_of('self_talk', 'average', average__stages=('actor',))
    assert players.attempt_tokens(plain, 'evaluate') == plain.sampling.attempt_tokens


@pytest.mark.parametrize('stage', ['vanilla', 'interactive', 'reinforce_critic', 'reinforce_both'])
def test_every_reader_of_an_actor_after_self_talk_is_refused_by_its_own_setting(stage):
    section = players.SECTION_OF[stage]
    assert f"set {section}.start='self_talk'" in refusal_of('self_talk', stage)
    players.check_stages(settings_of('self_talk', stage, **{f'{section}__start': 'newest'}))


def test_stages_that_start_alike_are_arms_and_newest_makes_them_a_chain():
    arms = settings_of('vanilla', 'critique_in_the_loop', 'reinforce')
    players.check_stages(arms)
    assert starts_of(arms, 'reinforce') == ['actor', 'critic']
    chain = {'improve__start': 'newest', 'reinforce__start': 'newest'}
    s = settings_of('vanilla', 'critique_in_the_loop', 'reinforce', **chain)
    players.check_stages(s)
    assert starts_of(s, 'vanilla') == ['actor', 'critic']
    assert starts_of(s, 'critique_in_the_loop') == ['vanilla', 'critic']
    assert starts_of(s, 'reinforce') == ['critique_in_the_loop', 'critic']
    # Half a chain: the last stage starts from the actor that the second one has left behind.
    error = refusal_of('vanilla', 'critique_in_the_loop', 'reinforce', improve__start='newest')
    assert "set reinforce.start='critique_in_the_loop'" in error


@pytest.mark.parametrize('stage', ['reinforce_2', 'reinforce_3', 'vanilla_2'])
def test_a_stage_that_is_run_again_needs_another_start(stage):
    first, section = stage[:-2], players.SECTION_OF[stage]
    error = refusal_of(first, stage)
    assert f"{section}.start=''" in error and f'repeat {first!r}' in error
    s = settings_of(first, stage, **{f'{section}__start': 'newest'})
    checks.check_settings(s)
    assert starts_of(s, first) == ['actor', 'critic'] and starts_of(s, stage) == [first, 'critic']
    assert players.start_of(s, 'evaluate', 'actor') == stage
    assert stage_fields.SECTIONS[stage] == stage_fields.SECTIONS[first]


def test_a_stage_that_is_run_again_has_noise_of_its_own(tmp_path):
    def seed_of(stage):
        folder = types.SimpleNamespace(path=tmp_path / f'05-{stage}')
        samplers = types.SimpleNamespace(scorer=int, method=int)
        return reinforce.trainer_arguments(samplers, folder, seed=3)['seed']

    seeds = [seed_of(f'reinforce{suffix}') for suffix in ('', '_2', '_3')]
    assert seeds[0] == derive_seed(3, 'reinforce') and len(set(seeds)) == 3
    assert [phase(name) for name in ('reinforce', '05-vanilla_2', 'prefer')] == ['', '_2', '']


def test_the_critic_has_a_start_of_its_own():
    order = ('reinforce', 'reinforce_critic', 'evaluate')
    assert starts_of(settings_of(*order), 'evaluate') == ['reinforce', 'reinforce_critic']
    s = settings_of(*order, reinforce__start='newest', reinforce__critic_start='newest')
    players.check_stages(s)
    assert starts_of(s, 'reinforce_critic') == ['reinforce', 'critic']
    both = settings_of('reinforce_both', 'evaluate')
    assert starts_of(both, 'evaluate') == ['reinforce_both', 'reinforce_both']


def test_a_start_beside_a_checkpoint_is_refused():
    changes = {'critic__start': 'actor', 'critic__checkpoint': 'somewhere'}
    assert "critic.start='actor' is not read with critic.checkpoint" in refusal_of(**changes)


@pytest.mark.parametrize(
    ('stages', 'changes', 'words'),
    [
        ((), {'stages': ()}, 'config.stages=() has no stage'),
        ((), {'stages': ('base', 'base')}, "has 'base' twice"),
        ((), {'stages': ('base', 'reinforce')}, "reads stage 'actor', which is not before it"),
        (('evaluate',), {'stages': ('base', 'evaluate')}, "add 'actor' before 'evaluate'"),
        (('reinforce',), {'reinforce__start': 'vanilla'}, "reinforce.start='vanilla' may be one"),
        (('reinforce',), {'reinforce__start': 'critic'}, "reinforce.start='critic' makes no actor"),
        (('reinforce',), {'reinforce__start': 'critique'}, 'makes no actor; use one of'),
        (('reinforce',), {'reinforce__critic_start': 'reinforce'}, 'critic_start='),
        (('self_talk',), {'self_talk__start': 'reinforce'}, "self_talk.start='reinforce'"),
    ],
)
def test_a_start_that_is_no_model_before_the_stage_is_refused(stages, changes, words):
    assert words in refusal_of(*stages, **changes)


@pytest.mark.slow
def test_every_pair_of_later_stages_is_accepted_or_names_the_setting():
    later = [name for name in STAGES if name not in SFT and not phase(name)]
    whole = settings_of()
    for pair in itertools.permutations(later, 2):
        s = dataclasses.replace(whole, stages=(*SFT, *pair))
        try:
            players.check_stages(s)
        except ValueError as error:
            assert '.start=' in str(error) or 'critic_start=' in str(error), (pair, error)
            assert pair[0] == 'self_talk', pair


def test_attempts_of_an_actor_that_learnt_self_talk_are_whole_talks():
    s = settings_of('self_talk', 'reinforce', reinforce__start='newest')
    assert players.attempt_tokens(s, 'reinforce') == s.self_talk.tokens
    assert players.attempt_tokens(s, 'self_talk') == s.sampling.attempt_tokens
    assert players.attempt_tokens(settings_of('reinforce'), 'reinforce') == 120
    with pytest.raises(ValueError, match=r'reinforce\.length=192 must be at least 501'):
        checks.check_lengths(s, 60)


# Fields that a stage reads


def test_a_stage_reads_its_sections_and_those_of_the_stages_before_it():
    s = settings_of('evaluate', 'reinforce')
    for stage, read, unread in (
        ('base', 'base.fit.num_steps', 'actor.fit.num_steps'),
        ('base', 'seed', 'sampling.top_k'),
        ('actor', 'base.fit.num_steps', 'sampling.top_k'),
        ('critique', 'sampling.top_k', 'critic.fit.num_steps'),
        ('critic', 'sampling.top_k', 'evaluate.num_problems'),
        ('critic', 'data.num_train', 'data.num_test'),
        ('evaluate', 'data.num_test', 'reinforce.num_steps'),
        ('reinforce', 'critique.num_attempts', 'improve.num_rounds'),
        ('reinforce', 'evaluate.num_attempts', 'self_talk.tokens'),
        ('reinforce', 'evaluate.num_resamples', 'evaluate.adapt.fit.num_steps'),
        ('evaluate', 'evaluate.adapt.fit.num_steps', 'reinforce.start'),
        ('actor', 'base.quantize', 'mesh'),
        ('base', 'base.num_documents', 'base.checkpoint'),  # whose content is compared
        ('base', 'base.num_documents', 'base.quantize'),
    ):
        assert stage_fields.reads(s, stage, read), (stage, read)
        assert not stage_fields.reads(s, stage, unread), (stage, unread)


def test_a_chain_reads_what_the_stage_before_it_read():
    chain = settings_of('vanilla', 'reinforce', reinforce__start='newest')
    assert stage_fields.reads(chain, 'reinforce', 'improve.num_rounds')
    assert not stage_fields.reads(settings_of('vanilla', 'reinforce'), 'reinforce', 'improve.start')


def test_every_field_is_read_by_a_stage_or_may_change():
    """So that a new section cannot be forgotten."""
    later = ('evaluate', 'self_talk', 'tree_search', 'reinforce', 'prefer', 'average')
    s = settings_of(*later, reinforce__start='actor')
    flat = build.diff({}, lab.get_config('smoke'))
    unread = {
        field
        for field in flat
        if not any(stage_fields.reads(s, stage, field) for stage in s.stages)
    }
    assert unread == {'stages', *stage_fields.MAY_CHANGE, *stage_fields.ENGINE_CACHES}


def test_the_base_may_stand_for_a_critic_that_no_stage_trains():
    s = settings_of('reinforce')
    s = dataclasses.replace(s, stages=('base', 'actor', 'reinforce'))
    with pytest.raises(
        ValueError, match=r"before 'reinforce', or set reinforce\.critic_start='base'"
    ):
        players.check_stages(s)
    started = dataclasses.replace(s.reinforce, critic_start='base')
    players.check_stages(dataclasses.replace(s, reinforce=started))
