"""A study of what makes a critic worth its tokens, on the lab: arms differ in the critic alone.

configs/studies/critics.py         five seeds; about half an hour each on one core
configs/studies/critics.py:smoke   the same arms with tiny numbers and one seed

The critic starts from a base that has never read a critique, so that all it knows comes from the
arm's data; `base that reads critiques` starts from the shipped one. The actor is the same in all
arms of a seed. Both bases are made first:

python -m scripts.run --config configs/lab.py:base --workdir runs/base
python -m scripts.run --config configs/lab.py:base --workdir runs/base_small \\
    --config.model.num_layers=2 --config.model.embed_dim=64 --config.model.mlp_dim=176 \\
    --config.model.num_heads=2 --config.model.num_kv_heads=2

Read by scripts/study.py.
"""

from ml_collections import ConfigDict

from elenchus.configs import derive, lab
from elenchus.configs.studies.shared import column, contrast, study

BASE = 'runs/base/stages/00-base/model'
SMALL = 'runs/base_small/stages/00-base/model'
SHIPPED = 'data/lab/checkpoint'


def data(num_problems: int, **changes) -> dict:
    """Returns an arm that differs in its critique data."""
    return {'critique': {'num_problems': num_problems, **changes}}


FILTER = {'filter_samples': 4, 'filter_successes': 1}
ARMS = {
    'x1': data(40),
    'x4': data(160),
    'x16': data(640),
    'x16, small critic': data(640) | {'critic': {'checkpoint': SMALL}},
    'x4, base that reads critiques': data(160) | {'critic': {'checkpoint': SHIPPED}},
    'x4, filter': data(160, **FILTER),
    'x4, monte carlo': data(160, annotator='monte_carlo'),
    'x4, monte carlo, filter': data(160, annotator='monte_carlo', **FILTER),
    # As many flawed attempts dropped, but any: the filter without its choice.
    'x4, random filter': data(160, **FILTER, filter='random'),
    'x4, monte carlo, random filter': data(160, annotator='monte_carlo', **FILTER, filter='random'),
    'x4, model': data(160, annotator='model', annotator_path=SHIPPED),
    'x4, RG1': data(160, num_attempts=5, num_relocated=0, num_inserted=0),
}

CRITIC = ('evaluate', 'critic')
ATTEMPT = ('evaluate', 'accuracy', 'attempt', 'all', 0)
GAIN = ('evaluate', 'difference', 'refined-attempt', 'all', 0)
ORACLE = ('evaluate', 'curves', 'oracle majority (upper bound)', 0, 'accuracy', 'all', 0)
RIGHT = (*CRITIC, 'discriminability', 0)
DIFFERENCE = ('evaluate', 'uptake', 'difference')
WORDS = (*DIFFERENCE, 'words', 'all', 0)

COMPARISON = {
    'table': (
        column('critic right, %', RIGHT),
        column('wrong found, %', (*CRITIC, 'found')),
        column('right passed, %', (*CRITIC, 'passed')),
        column('first error micro F1', (*CRITIC, 'first_error_micro_f1')),
        column('attempt, %', ATTEMPT),
        column('refined, %', ('evaluate', 'accuracy', 'refined', 'all', 0)),
        column('gain', GAIN),
        column('words', WORDS),
        column('own - another attempt', (*DIFFERENCE, 'rival', 'all', 0)),
        column('oracle gain', ORACLE, minus=ATTEMPT),
        column('thousand tokens', ('training', 'tokens_sampled'), scale=0.001),
    ),
    # More data, a larger critic, labels of unknown steps, the filter's choice, a base that reads.
    'contrasts': (
        contrast('x16', 'x1', 'words'),
        contrast('x16', 'x16, small critic', 'words'),
        contrast('x4, monte carlo', 'x4', 'words'),
        contrast('x4, filter', 'x4, random filter', 'words'),
        contrast('x4, base that reads critiques', 'x4', 'words'),
    ),
    'panels': (
        {
            'title': 'what refinement wins',
            'over': (),
            'x': RIGHT,
            'x_label': 'critic right, share of attempts',
            'y': GAIN,
            'y_label': 'refined - attempt, points',
            'scale': 100.0,
        },
        {
            'title': 'what the words of critiques win',
            'over': (),
            'x': RIGHT,
            'x_label': 'critic right, share of attempts',
            'y': WORDS,
            'y_label': "own - another question's, points",
            'scale': 100.0,
        },
    ),
}


def get_config(arg: str = 'default') -> ConfigDict:
    """Returns a variant of the config."""
    derive.check_variant('critics', arg, ('default', 'smoke'))
    run = lab.get_config(arg)
    run.stages = ('base', 'actor', 'critique', 'critic', 'evaluate')
    arms = ARMS
    if arg == 'default':
        run.critic.update({'checkpoint': BASE, 'fit': {'num_steps': 120}})
        run.critique.update({'num_attempts': 2, 'num_rollouts': 4})
        run.evaluate.update({'num_problems': 200, 'num_attempts': 2})
        run.evaluate.uptake.update({'num_problems': 200, 'num_samples': 1})
        run.evaluate.beam.num_problems = 0
    else:
        few = {'num_problems': 10, 'filter_successes': 0}
        arms = {
            name: changes
            | {'critique': changes['critique'] | few}
            | ({'critic': {'checkpoint': SHIPPED}} if 'critic' in changes else {})
            for name, changes in ARMS.items()
        }
    return study(run, arms, shared=('base', 'actor'), arg=arg, comparison=COMPARISON)
