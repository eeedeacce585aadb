"""A study of what the critic's data are worth at test time, on the lab: arms differ in them alone.

configs/critics.py         sizes, Monte Carlo labels, the soft filter, RG1 alone; three seeds
configs/critics.py:smoke   the same arms with tiny numbers and one seed

The actor is the same in all arms of a seed. Read by scripts/study.py.
"""

from ml_collections import ConfigDict

from configs import lab

ARMS = {
    'x1': {'critique': {'num_problems': 50}},
    'x4': {'critique': {'num_problems': 200}},
    'x16': {'critique': {'num_problems': 800}},
    'x4 monte carlo': {'critique': {'num_problems': 200, 'annotator': 'monte_carlo'}},
    'x4 filter': {
        'critique': {'num_problems': 200, 'filter_samples': 4, 'filter_successes': 1},
    },
    'x4 RG1': {
        'critique': {'num_problems': 200, 'num_attempts': 7, 'num_relocated': 0, 'num_inserted': 0},
    },
}

CRITIC = ('evaluate', 'critic')
ATTEMPT = ('evaluate', 'accuracy', 'attempt', 'all', 0)
GAIN = ('evaluate', 'difference', 'refined-attempt', 'all', 0)
ORACLE = ('evaluate', 'curves', 'oracle majority (upper bound)', 0, 'accuracy', 'all', 0)
RIGHT = (*CRITIC, 'discriminability', 0)


def row(name: str, path: tuple, *, minus: tuple = (), scale: float = 100.0) -> dict:
    """A column of a study's table; see scripts/study.py."""
    return {'name': name, 'path': path, 'minus': minus, 'scale': scale}


COMPARISON = {
    'table': (
        row('critic right, %', RIGHT),
        row('wrong found, %', (*CRITIC, 'found')),
        row('right passed, %', (*CRITIC, 'passed')),
        row('first error F1', (*CRITIC, 'first_error_f1')),
        row('attempt, %', ATTEMPT),
        row('refined, %', ('evaluate', 'accuracy', 'refined', 'all', 0)),
        row('gain', GAIN),
        row('oracle gain', ORACLE, minus=ATTEMPT),
    ),
    'panels': (
        {
            'title': 'what refinement wins',
            'over': (),
            'x': RIGHT,
            'x_label': 'critic right, share',
            'y': GAIN,
            'y_label': 'refined - attempt, points',
            'scale': 100.0,
        },
    ),
}


def get_config(arg: str = 'default') -> ConfigDict:
    if arg not in ('default', 'smoke'):
        variants = ['default', 'smoke']
        raise ValueError(f'configs/critics.py:{arg}: no such variant; there are {variants}')
    run = lab.get_config(arg)
    run.stages = ('base', 'actor', 'critique', 'critic', 'evaluate')
    run.evaluate.num_problems = min(run.evaluate.num_problems, 300)
    arms = ConfigDict(ARMS)
    if arg == 'smoke':
        for arm in arms.values():
            arm.critique.num_problems = 10
            arm.critique.filter_successes = 0
    seeds = (0, 1, 2) if arg == 'default' else (0,)
    return ConfigDict(
        {
            'seeds': seeds,
            'shared': ('base', 'actor'),
            'run': run,
            'arms': arms,
            'comparison': COMPARISON,
        }
    )
