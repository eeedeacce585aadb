"""How a file of configs/methods or configs/evaluations changes a base config.

    CHANGES = {'reinforce.rewards.functions': (('elenchus.configs.methods.empo:agreement', 1.0),)}
    get_config = method.of(CHANGES, stages=method.REINFORCE)

makes these configs of a file configs/methods/empo.py:

    empo.py                      the method on the lab
    empo.py:smoke                with the tiny numbers of the lab's smoke run, and its length reward
    empo.py:gsm8k                on another config, by its name in configs/ or configs/released/
    empo.py:gsm8k:tiny           on a variant of one
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from elenchus.configs import lab

CRITIC = ('base', 'actor', 'critique', 'critic')
"""Stages that make an actor and a critic."""
EVALUATE = (*CRITIC, 'evaluate')
REINFORCE = (*CRITIC, 'reinforce', 'evaluate')
REINFORCE_CRITIC = (*CRITIC, 'reinforce_critic', 'evaluate')
REINFORCE_BOTH = (*CRITIC, 'reinforce_both', 'evaluate')
PREFER = (*CRITIC, 'prefer', 'evaluate')
PREFER_CRITIC = (*CRITIC, 'prefer_critic', 'evaluate')


def _talk(config: ConfigDict) -> int:
    """Returns by how many tokens a talk is longer than an attempt."""
    return max(0, config.self_talk.tokens - config.sampling.attempt_tokens)


TALKS = {
    'model.max_length': lambda c: max(c.model.max_length, c.sampling.engine.max_length + _talk(c)),
    'sampling.engine.max_length': lambda c: c.sampling.engine.max_length + _talk(c),
    'sampling.engine.prompt_buckets': lambda c: (
        *c.sampling.engine.prompt_buckets[:-1],
        c.sampling.engine.prompt_buckets[-1] + _talk(c),
    ),
    'sampling.score.lengths': lambda c: tuple(n + _talk(c) for n in c.sampling.score.lengths),
    'reinforce.length': lambda c: c.reinforce.length + _talk(c),
    'reinforce.critic_length': lambda c: c.reinforce.critic_length + _talk(c),
}
"""Changes that make room for talks wherever there is room for attempts."""


def of(
    changes: Mapping[str, Any], *, stages: Sequence[str], lab_changes: Mapping[str, Any] = {}
) -> Callable[[str], ConfigDict]:
    """Returns `get_config` of a method: a base config with these stages and changed fields.

    A change may be a function of the base config, such as a length that depends on another one.
    `lab_changes` are of the lab alone, where a method needs other sizes.
    """

    def get_config(arg: str = 'default') -> ConfigDict:
        """Returns the method on the base config that `arg` names."""
        on_lab = arg in ('default', 'smoke')
        config = lab.get_config(arg) if on_lab else base_config(arg)
        more = lab_changes if on_lab else {}
        config.stages = tuple(stages)
        if arg == 'smoke' and 'self_talk' in stages:
            # Its actor is never right; talks that end right are then those of the references.
            config.critique.update(references='kept', rollout_threshold=0.0)
        values = {
            field: value(config) if callable(value) else value
            for field, value in {**changes, **more}.items()
        }
        config.update_from_flattened_dict(values)
        return config

    return get_config


def base_config(arg: str) -> ConfigDict:
    """Returns a shipped config by the name of its file and, after ':', its variant.

    Raises ValueError if there is none.
    """
    name, _, variant = arg.partition(':')
    for package in ('elenchus.configs', 'elenchus.configs.released'):
        if name.isidentifier() and importlib.util.find_spec(f'{package}.{name}') is not None:
            get_config = importlib.import_module(f'{package}.{name}').get_config
            return get_config(variant) if variant else get_config()
    raise ValueError(
        f"{arg!r}: no such variant; there are ['default', 'smoke'] on the lab, and the names of "
        "the files in configs/ and configs/released/, such as 'gsm8k:tiny'"
    )
