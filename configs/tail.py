"""Temporary."""

from elenchus.configs import lab


def get_config(arg='default'):
    config = lab.get_config(arg)
    if arg == 'conversations':
        config.base.checkpoint = 'runs/tail_base/stages/00-base/model'
    return config
