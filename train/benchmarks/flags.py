"""Flags that the commands of a bench share."""

import sys

from absl import flags
from ml_collections.config_flags import config_flags

from elenchus.train.benchmarks.opening import Models
from elenchus.train.config import cli
from elenchus.train.config.build import ROOT

CONFIG = ROOT / 'configs' / 'evaluate.py'


def define(*, critic_help: str, needs_critic: bool = False) -> None:
    """Defines --model, --critic, --template, --dtype and --config, whose default is CONFIG."""
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
    for name in ('config', 'compilation_cache'):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
    for name in ('model', 'critic', 'template', 'dtype'):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])


def parse(argv: list[str]) -> list[str]:
    """Parses the command line as `cli.parse_flags`, with CONFIG where --config is missing."""
    has_config = any(a.lstrip('-').partition('=')[0] == 'config' for a in argv if a[:1] == '-')
    is_help = any(a.lstrip('-').startswith('help') for a in argv if a[:1] == '-')
    if not has_config and not is_help:
        argv = [argv[0], f'--config={CONFIG}', *argv[1:]]
    return cli.parse_flags(argv)


def models() -> Models:
    """Returns the models that the flags name."""
    values = flags.FLAGS
    return Models(values.model or values.critic, values.critic or '', values.template, values.dtype)
