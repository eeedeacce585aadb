"""The lab's tail form: two-digit arithmetic in the head, and constants that only the critic knows.

configs/tail.py                 the default run, from the shipped base model
configs/tail.py:base            trains the shipped base model from scratch: single turns ...
configs/tail.py:conversations   ... and then, from runs/tail_base, conversations
"""

from ml_collections import ConfigDict

from elenchus.configs import defaults, derive, lab


def get_config(arg: str = 'default') -> ConfigDict:
    """Returns a variant of the run."""
    variants = {
        'default': lambda config: config,
        'base': base,
        'conversations': conversations,
    }
    derive.check_variant('tail', arg, variants)
    return variants[arg](default())


def default() -> ConfigDict:
    """Returns the default run, from the shipped base model."""
    config = lab.default()
    config.data.update(form='tail')
    derive.set_lengths(config, question=76, attempt=152, critique=416, refinement=152, multiple=8)
    config.sampling.engine.update(
        prompt_buckets=(80, 232, 440, 648),
        decode_batch_sizes=(32,),
        decode_cache_lengths=(160, 320, 520),
    )
    config.sampling.score.lengths = (320, 648)
    config.base.update(checkpoint='data/lab/tail_checkpoint')
    config.actor.update(teacher_error_rate=0.0, level_decay=0.75)
    return config


def base(config: ConfigDict) -> ConfigDict:
    """Trains the base model on drills and single turns."""
    config.stages = ('base',)
    config.base.checkpoint = ''
    config.base.shares = defaults.shares(drill=0.4, worked=0.25, attempt=0.35)
    config.base.fit.num_steps = 700
    config.train.update(rows=12, length=416)
    return config


def conversations(config: ConfigDict) -> ConfigDict:
    """Trains the base model further on conversations."""
    config.stages = ('base',)
    config.base.checkpoint = 'runs/tail_base/stages/00-base/model'
    config.base.shares = defaults.shares(
        drill=0.05, worked=0.05, attempt=0.3, critique=0.3, refinement=0.3
    )
    config.base.fit.num_steps = 400
    config.train.update(rows=8, length=800)
    return config
