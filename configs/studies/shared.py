"""Parts that the configs of studies share (scripts/study.py); not a study itself."""

from ml_collections import ConfigDict


def column(name: str, path: tuple, *, minus: tuple = (), scale: float = 100.0) -> dict:
    """Returns a column of a study's table: the figure at `path`, minus that at `minus`, scaled."""
    return {'name': name, 'path': path, 'minus': minus, 'scale': scale}


def contrast(arm: str, baseline: str, column_name: str) -> dict:
    """Returns a contrast that is named before the study runs: arm - baseline in a column."""
    return {'arm': arm, 'baseline': baseline, 'column': column_name}


def study(run: ConfigDict, arms: dict, *, shared: tuple, arg: str, comparison: dict) -> ConfigDict:
    """Returns a study: three seeds of a default variant, one of any other; arms run in order."""
    return ConfigDict(
        {
            'seeds': (0, 1, 2) if arg == 'default' else (0,),
            'shared': shared,
            'run': run,
            'arms': tuple({'name': name, 'changes': changes} for name, changes in arms.items()),
            'comparison': comparison,
        }
    )
