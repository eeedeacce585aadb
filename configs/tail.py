"""The lab's tail form: longer chains, and constants of which the rare ones only the critic knows.

configs/tail.py                 the default run, from the shipped base model
configs/tail.py:base            trains the shipped base model from scratch: drills, single turns ...
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
    config.model.vocab_size = 96
    config.data.update(form='tail', num_test=400)
    derive.set_lengths(config, question=64, attempt=120, critique=256, refinement=120, multiple=8)
    config.sampling.engine.update(
        prompt_buckets=(64, 192, 320, 448),
        decode_batch_sizes=(32,),
        decode_cache_lengths=(128, 256, 384),
    )
    config.sampling.score.lengths = (192, 448)
    config.train.rows = 10
    config.base.update(checkpoint='data/lab/tail_checkpoint')
    config.actor.update(teacher_error_rate=0.0, level_decay=0.75)
    config.evaluate.num_problems = 400
    config.improve.num_problems = 480
    return config


def base(config: ConfigDict) -> ConfigDict:
    """Trains the base model on drills and single turns."""
    config.stages = ('base',)
    config.base.checkpoint = ''
    config.base.shares = defaults.shares(drill=0.3, worked=0.35, attempt=0.35)
    config.base.fit.num_steps = 650
    config.train.update(rows=16, length=320)
    return config


def conversations(config: ConfigDict) -> ConfigDict:
    """Trains the base model further on conversations."""
    config.stages = ('base',)
    config.base.checkpoint = 'runs/tail_base/stages/00-base/model'
    config.base.shares = defaults.shares(
        drill=0.05, worked=0.05, attempt=0.2, critique=0.35, refinement=0.35
    )
    config.base.fit.num_steps = 350
    return config
