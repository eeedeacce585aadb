"""Finds the config file that --config names, also where there is no clone."""

import pathlib
from collections.abc import Sequence

from elenchus.train.config.build import ROOT


def locate(argv: Sequence[str], *, names: Sequence[str] = ('config',)) -> list[str]:
    """Returns the command line with the file of each --config flag where it can be read.

    A file in the working directory is used as it is. Otherwise configs/lab.py, lab, configs.lab and
    elenchus.configs.lab, each with or without :VARIANT, name a config of this package. What is
    neither stays, so that the error names what the user wrote.
    """
    words, located = list(argv), []
    for i, word in enumerate(words):
        flag, equals, value = word.partition('=')
        follows = i and words[i - 1] in {f'{dash}{n}' for n in names for dash in ('-', '--')}
        if word.startswith('-') and equals and flag.lstrip('-') in names:
            located.append(f'{flag}={_locate(value)}')
        else:
            located.append(_locate(word) if follows else word)
    return located


def _locate(value: str) -> str:
    path, colon, variant = value.partition(':')
    if not path or pathlib.Path(path).exists():
        return value
    if not path.endswith('.py'):
        parts = path.removeprefix('elenchus.').removeprefix('configs.').split('.')
        path = f'configs/{"/".join(parts)}.py'
    file = ROOT / path
    return f'{file}{colon}{variant}' if file.is_file() else value
