"""Parts that the configs of studies share (scripts/study.py); not a study itself."""

from ml_collections import ConfigDict


def column(name: str, path: tuple, *, minus: tuple = (), scale: float = 100.0) -> dict:
    """Returns a column of a study's table: the figure at `path`, minus that at `minus`, scaled."""
    return {'name': name, 'path': path, 'minus': minus, 'scale': scale}


def contrast(arm: str, baseline: str, column_name: str) -> dict:
    """Returns a contrast that is named before the study runs: arm - baseline in a column."""
    return {'arm': arm, 'baseline': baseline, 'column': column_name}


def study(run: ConfigDict, arms: dict, *, shared: tuple, arg: str, comparison: dict) -> ConfigDict:
    """Returns a study: five seeds of a default variant, one of any other; arms run in order."""
    return ConfigDict(
        {
            'seeds': (0, 1, 2, 3, 4) if arg == 'default' else (0,),
            'shared': shared,
            'run': run,
            'arms': tuple({'name': name, 'changes': changes} for name, changes in arms.items()),
            'comparison': comparison,
        }
    )


HARD = ('6', '7', '8')
"""Levels of the lab's tail."""
TAIL = (
    column('right, %', ('last', 'accuracy', 'attempt', 'all', 0)),
    column('hard right, %', ('last', 'accuracy', 'attempt', HARD, 0)),
    column('hard covered, %', ('last', 'coverage', HARD, 0)),
    column('explored solved, %', ('last', 'exploration', 'coverage', 'all')),
    column('hard solved, %', ('last', 'exploration', 'coverage', HARD)),
    column('kept', ('last', 'kept'), scale=1.0),
    column('hard kept, %', ('last', 'kept_share', HARD), scale=300.0),
)
"""Columns of what a round of self-improvement explores, keeps and wins."""
