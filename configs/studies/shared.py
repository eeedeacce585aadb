"""What the configs of studies share, see scripts/study.py; no study of its own."""

from ml_collections import ConfigDict


def row(name: str, path: tuple, *, minus: tuple = (), scale: float = 100.0) -> dict:
    """A column of a study's table; see scripts/study.py."""
    return {'name': name, 'path': path, 'minus': minus, 'scale': scale}


def study(run: ConfigDict, arms: dict, *, shared: tuple, arg: str, comparison: dict) -> ConfigDict:
    """Three seeds of a default variant, one of any other; arms run in the order given."""
    return ConfigDict(
        {
            'seeds': (0, 1, 2) if arg == 'default' else (0,),
            'shared': shared,
            'run': run,
            'arms': tuple({'name': name, 'changes': changes} for name, changes in arms.items()),
            'comparison': comparison,
        }
    )
