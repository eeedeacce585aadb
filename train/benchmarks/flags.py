"""Flags that the commands of a bench share, defined before JAX is imported."""

import pathlib
import sys
from collections.abc import Sequence

from absl import flags
from ml_collections.config_flags import config_flags

from elenchus.train.config.script_flags import COMPILATION_CACHE

CONFIG = pathlib.Path(__file__).parents[2] / 'configs' / 'evaluate.py'


def define(*, critic_help: str, needs_critic: bool = False) -> None:
    """Defines the flags of models and --config, whose default is CONFIG."""
    config_flags.DEFINE_config_file(
        'config',
        help_string='Settings: configs/evaluate.py, also with prompts, as in '
        'configs/evaluate.py:mathcritique; override any field with --config.section.field=value.',
    )
    flags.DEFINE_string(
        'model',
        None,
        'Model: OUT of scripts.convert import, or a stage such as runs/lab/stages/01-actor.',
        required=not needs_critic,
    )
    flags.DEFINE_string('critic', None, critic_help, required=needs_critic)
    flags.DEFINE_string('template', '', 'Chat template, if the model does not say its own.')
    flags.DEFINE_string('dtype', '', 'float32 or bfloat16; default: float32 on a CPU.')
    flags.DEFINE_integer(
        'max_length',
        0,
        'Most tokens that the model may read; 0: max_length in its model_config.json.',
        lower_bound=0,
    )
    own = ('config', 'model', 'critic', 'template', 'dtype', 'max_length')
    for name in (*own, COMPILATION_CACHE.name):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])


def with_config(argv: Sequence[str]) -> list[str]:
    """Returns a command line, with CONFIG where --config is missing."""
    has_config = any(a.lstrip('-').partition('=')[0] == 'config' for a in argv if a[:1] == '-')
    return list(argv) if has_config else [argv[0], f'--config={CONFIG}', *argv[1:]]
