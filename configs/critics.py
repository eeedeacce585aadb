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
    return ConfigDict({'seeds': seeds, 'shared': ('base', 'actor'), 'run': run, 'arms': arms})
