"""Decides which model each stage starts from, and which stages make models of a player.

A player is the actor or the critic. The setting `start` of a section names the stage whose model
its stages begin with: a stage, 'newest' (the last one before it that made this player), or '' for
the stage that the player is named after. Stages of one run may be arms that are compared, each
from the same start, or a chain; '' is refused where a reader could not tell which.
"""

from collections.abc import Mapping

from elenchus.sampling.exploration.explorers import EXPLORERS
from elenchus.train.config.run_settings import PREFERRED, REINFORCED, RunSettings
from elenchus.train.config.stage_names import phase
from elenchus.train.rl.settings import Player

MAKERS: Mapping[Player, tuple[str, ...]] = {
    'actor': (
        *('actor', 'self_talk', *EXPLORERS, 'prefer', 'average'),
        *(stage for stage, trained in REINFORCED.items() if 'actor' in trained),
    ),
    'critic': (
        *('critic', 'prefer_critic'),
        *(stage for stage, trained in REINFORCED.items() if 'critic' in trained),
    ),
}
"""Player -> the stages that end with a new model of it."""

SECTION_OF: Mapping[str, str] = {
    'actor': 'actor',
    'evaluate': 'evaluate',
    'self_talk': 'self_talk',
    'critic': 'critic',
    **dict.fromkeys(EXPLORERS, 'improve'),
    **dict.fromkeys(REINFORCED, 'reinforce'),
    **dict.fromkeys(PREFERRED, 'prefer'),
}
"""Stage that starts from a player's model -> its section, which has the setting `start`."""


def start_of(s: RunSettings, stage: str, player: Player) -> str:
    """Returns the stage whose model of a player another stage starts from.

    A critic that starts from a checkpoint of its own starts from ''. Raises ValueError, naming the
    setting, if there is no such stage before it.
    """
    if stage == 'critic' and s.critic.checkpoint:
        return ''
    player = _start_player(s, stage, player)
    field, value = start_setting(s, stage, player)
    if value == 'newest':
        makers = [name for name in before(s, stage) if name in MAKERS[player]]
        return makers[-1] if makers else ('base' if stage in ('actor', 'critic') else player)
    return value or player


def start_setting(s: RunSettings, stage: str, player: Player) -> tuple[str, str]:
    """Returns the field, and its value, that says where a player of a stage starts from."""
    section = SECTION_OF[stage]
    name = 'start' if player == 'actor' or section == 'critic' else 'critic_start'
    return f'{section}.{name}', getattr(getattr(s, section), name)


def is_one_model(s: RunSettings, stage: str) -> bool:
    """Returns whether a stage trains one model as both players."""
    return s.reinforce.one_model and len(REINFORCED.get(stage, ())) == 2


def _start_player(s: RunSettings, stage: str, player: Player) -> Player:
    """The player whose start counts: the critic, of one model that is both."""
    return 'critic' if is_one_model(s, stage) else player


def before(s: RunSettings, stage: str) -> tuple[str, ...]:
    """Returns the stages before a stage; all of them for one that the run does not have."""
    return s.stages[: s.stages.index(stage)] if stage in s.stages else s.stages


def players_read(stage: str) -> tuple[Player, ...]:
    """Returns the players whose start a stage has a setting for."""
    if stage in ('actor', 'self_talk'):
        return ('actor',)
    if stage == 'critic':
        return ('critic',)
    return ('actor', 'critic') if stage in SECTION_OF else ()


def stages_read(s: RunSettings, stage: str) -> tuple[str, ...]:
    """Returns the stages whose models, data or figures a stage reads, without their own."""
    earlier = before(s, stage)
    names = [start_of(s, stage, player) for player in players_read(stage)]
    if stage in ('critique', 'self_talk'):
        names.append('actor')
        on_lab = s.data.source == 'lab'
        names += ['base'] * (s.critique.annotator == 'monte_carlo' and on_lab)
    if stage in ('critic', 'self_talk'):
        names.append('critique')
    if stage in EXPLORERS:
        names.append('base')
    if stage == 'average':
        names += s.average.stages
    # These two read an earlier stage only if there is one.
    optional = {'evaluate': 'base', 'self_talk': 'evaluate'}.get(stage)
    names += [optional] if optional in earlier else []
    return tuple(dict.fromkeys(name for name in names if name))


def descends_from(s: RunSettings, stage: str, *, ancestor: str) -> bool:
    """Returns whether the actor that a stage reads was made by `ancestor`, or trained from it."""
    seen, stages = set(), [stage]
    while stages:
        stage = stages.pop()
        if stage in seen:
            continue
        seen.add(stage)
        players = players_read(stage)
        starts = [start_of(s, stage, players[0])] if players else []
        parents = s.average.stages if stage == 'average' else starts
        if ancestor in parents:
            return True
        stages += filter(None, parents)
    return False


def searching_stages(s: RunSettings) -> tuple[str, ...]:
    """Returns the stages of a run that search trees."""
    searches = {
        'tree_search': True,
        'prefer': s.prefer.explorer == 'tree_search',
        'evaluate': s.evaluate.tree_problems > 0,
    }
    return tuple(stage for stage in s.stages if searches.get(stage))


def attempt_tokens(s: RunSettings, stage: str) -> int:
    """Returns the token limit of a stage's attempts; that of talks if its actor learnt these."""
    if descends_from(s, stage, ancestor='self_talk'):
        return max(s.sampling.attempt_tokens, s.self_talk.tokens)
    return s.sampling.attempt_tokens


def check_stages(s: RunSettings) -> None:
    """Raises ValueError if a stage is twice in the run, or comes before one that it reads."""
    if not s.stages:
        raise ValueError("config.stages=() has no stage; nearest: ('base',)")
    check_average(s)
    for i, stage in enumerate(s.stages):
        if stage in s.stages[:i]:
            raise ValueError(f'config.stages={s.stages} has {stage!r} twice: leave one out')
        for name in stages_read(s, stage):
            if name not in s.stages[:i]:
                raise ValueError(
                    f'stage {stage!r} reads stage {name!r}, which is not before it in '
                    f'config.stages={s.stages}{_remedy(s, stage, name)}'
                )
        for player in players_read(stage):
            check_start(s, stage, player)


def check_average(s: RunSettings) -> None:
    """Raises ValueError if `average` names a stage that makes no actor, or none at all."""
    valid = [name for name in before(s, 'average') if name in (*MAKERS['actor'], 'base')]
    wrong = [name for name in s.average.stages if name not in valid]
    if 'average' in s.stages and (wrong or not s.average.stages):
        raise ValueError(
            f'average.stages={s.average.stages} must be stages before it that make an actor: '
            f'one or more of {valid}'
        )


def check_start(s: RunSettings, stage: str, player: Player) -> None:
    """Raises ValueError if a stage starts from another model than the order of stages suggests.

    That is so where its start is not set and a stage before it made the player from another start:
    an arm that is compared has the same start, so anything else looks like a link of a chain.
    """
    if (
        is_one_model(s, stage)
        and s.reinforce.start
        and REINFORCED.keys() & set(s.stages) == {stage}
    ):
        raise ValueError(
            f'reinforce.start={s.reinforce.start!r} is not read with reinforce.one_model=True, '
            "which begins as the critic: set reinforce.critic_start; nearest: start=''"
        )
    player = _start_player(s, stage, player)
    field, value = start_setting(s, stage, player)
    start = start_of(s, stage, player)
    if not start:
        if value != 'base':
            raise ValueError(
                f'{field}={value!r} is not read with critic.checkpoint='
                f"{s.critic.checkpoint!r}: set one of them; nearest: 'base'"
            )
        return
    if value and start != 'base' and player not in _roles(start, reader=stage):
        valid = [name for name in before(s, stage) if player in _roles(name, reader=stage)]
        raise ValueError(f'{field}={value!r} makes no {player}; use one of {valid}')
    if value:
        return
    if phase(stage) and player == 'actor':
        raise ValueError(
            f"{field}='' would make stage {stage!r} repeat {stage[:-2]!r} from the same actor: set "
            f"{field}; nearest: 'newest'"
        )
    for maker in reversed(before(s, stage)):
        # An average starts from several models: what reads it names it.
        if maker == start or maker not in MAKERS[player] or maker == 'average':
            continue
        if start_of(s, maker, player) != start:
            raise ValueError(
                f'stage {stage!r} would start from the {player} of stage {start!r}, although '
                f'{maker!r} before it makes a newer one: set {field}={maker!r} to train that one, '
                f'or {field}={start!r}'
            )


def _roles(stage: str, *, reader: str) -> tuple[Player, ...]:
    """Players that the model of a stage may be for another stage.

    A model of either player may become a critic, and may be evaluated as either.
    """
    if reader == 'evaluate' and any(stage in makers for makers in MAKERS.values()):
        return ('actor', 'critic')
    roles = tuple(player for player, makers in MAKERS.items() if stage in makers)
    return ('actor', 'critic') if stage in ('actor', 'base') else roles


def _remedy(s: RunSettings, stage: str, name: str) -> str:
    for player in players_read(stage):
        field, value = start_setting(s, stage, player)
        if value == name:
            valid = [
                n for n in before(s, stage) if n == 'base' or player in _roles(n, reader=stage)
            ]
            if valid:
                return f'; {field}={value!r} may be one of {valid}'
        elif not value and start_of(s, stage, player) == name and 'base' in before(s, stage):
            return f": add {name!r} before {stage!r}, or set {field}='base'"
    return f': add {name!r} before {stage!r}'
