"""A study of self-improvement on the lab: which explorer finds what, and what training on it wins.

findings.py         every explorer, weights by the critic, more attempts, controls; five seeds
findings.py:smoke   the same arms with tiny numbers and one seed

All arms of a seed share base, actor, critique data and critic. A round goes on from the last actor,
without the actor's demonstrations; `restart` arms show what these alone win. Read by
scripts/study.py.
"""

from ml_collections import ConfigDict

from elenchus.configs import derive, lab
from elenchus.configs.studies.shared import HARD, column, contrast, study

SHARED = ('base', 'actor', 'critique', 'critic')
EXPLORERS = (
    'vanilla',
    'uniform',
    'critique_in_the_loop',
    'answer_driven',
    'rationale_driven',
    'interactive',
    'state_reset',
)

BUDGET = 450
"""Sampled tokens a question, about what critique in the loop spends at these numbers.

The budget is that of one round: `exploration.tokens` of a round of the arm `critique_in_the_loop`,
in its summary, over `improve.num_problems`. Set it to the largest of the rounds and seeds.
"""
NUM_REFERENCES = 120
"""Solutions in the place of responses, about what `vanilla` keeps (`kept` in its summary)."""

LAST = ('last', 'exploration')
COMPARISON = {
    'table': (
        column('right, %', ('last', 'accuracy', 'attempt', 'all', 0)),
        column('hard right, %', ('last', 'accuracy', 'attempt', HARD, 0)),
        column('pass@n, %', ('last', 'coverage', 'all', 0)),
        column('spurious, %', ('last', 'spurious')),
        column('found, %', (*LAST, 'coverage', 'all')),
        column('hard found, %', (*LAST, 'coverage', HARD)),
        column('kept', ('last', 'kept'), scale=1.0),
        column('hard kept, %', ('last', 'kept_share', HARD), scale=300.0),
        column('kept spurious, %', ('last', 'kept_spurious')),
        column('distinct', (*LAST, 'distinct', 'all'), scale=1.0),
        column('thousand tokens', ('last', 'tokens_sampled'), scale=0.001),
    ),
    'contrasts': (
        contrast('critique_in_the_loop', 'vanilla', 'hard right, %'),
        contrast('critique_in_the_loop 2N', 'vanilla 2N', 'hard right, %'),
        contrast('critique_in_the_loop score', 'critique_in_the_loop', 'right, %'),
        contrast('critique_in_the_loop steps', 'critique_in_the_loop', 'right, %'),
        contrast('rationale_driven', 'uniform', 'hard right, %'),
    ),
    'panels': tuple(
        {
            'title': title,
            'over': ('last', 'rounds'),
            'x': x,
            'x_label': ' '.join(x[-1:]) or 'round',
            'y': y,
            'y_label': label,
            'scale': scale,
        }
        for title, x, y, label, scale in (
            ('levels 6 to 8, actor alone', (), ('accuracy', 'attempt', HARD, 0), 'right, %', 100),
            ('levels 6 to 8 among what is kept', (), ('kept_share', HARD), 'share, %', 300),
            ('different right responses', (), ('exploration', 'distinct', 'all'), 'a question', 1),
            (
                'questions of levels 6 to 8 solved',
                ('exploration', 'tokens'),
                ('exploration', 'coverage', HARD),
                'share, %',
                100,
            ),
        )
    ),
}


def get_config(arg: str = 'default') -> ConfigDict:
    """Returns a variant of the config."""
    derive.check_variant('findings', arg, ('default', 'smoke'))
    run = lab.get_config(arg)
    run.stages = (*SHARED, 'vanilla')
    if arg == 'default':
        shorten(run)
    else:
        run.actor.guided_per_problem = 2
        run.train.checkpoint_every = 100
        run.improve.fit.num_steps = 2
        run.improve.explore.update({'num_guided_rounds': 2, 'num_uniform_rounds': 2})
        run.evaluate.num_problems = 5
    few = min(NUM_REFERENCES, run.improve.num_problems)
    run_arms = arms(run.improve.explore.num_attempts) | controls(num_references=few)
    return study(run, run_arms, shared=SHARED, arg=arg, comparison=COMPARISON)


def shorten(run: ConfigDict) -> None:
    """Reduces the default run's sizes in place, because the study has many arms."""
    run.data.update({'num_train': 1000, 'num_test': 250})
    run.sampling.part_size = 250
    run.train.update({'rows': 8, 'log_every': 5})
    run.actor.update({'num_problems': 200, 'refinements_per_problem': 1, 'guided_per_problem': 1})
    run.actor.fit.num_steps = 70
    run.critique.num_problems = 250
    run.critic.fit.num_steps = 140
    run.evaluate.update({'num_problems': 250, 'num_attempts': 2, 'num_resamples': 300})
    run.improve.update({'num_problems': 160, 'num_rounds': 3, 'num_monitored': 10})
    run.improve.update({'restart': 'last', 'demonstrations': False})
    run.improve.fit.num_steps = 16
    run.improve.explore.update(
        {'num_attempts': 4, 'num_refinements': 2, 'num_guided_rounds': 4, 'min_correct': 2}
    )


def arms(num_attempts: int) -> dict:
    """Returns an arm for each explorer, and variants of two of them."""
    more = {'explore': {'num_attempts': 2 * num_attempts}}
    changed = {
        'critique_in_the_loop score': ('critique_in_the_loop', {'weighting': 'score'}),
        'critique_in_the_loop steps': ('critique_in_the_loop', {'weighting': 'steps'}),
        'vanilla 2N': ('vanilla', more),
        'critique_in_the_loop 2N': ('critique_in_the_loop', more),
    }
    plain = {stage: (stage, {}) for stage in EXPLORERS}
    plain['uniform'] = ('uniform', {'explore': {'token_budget': BUDGET}})
    return {
        name: {'stages': (*SHARED, stage), 'improve': changes}
        for name, (stage, changes) in (plain | changed).items()
    }


def controls(*, num_references: int) -> dict:
    """Returns the control arms, each without one possible cause of another arm's gain.

    The causes are the words of critiques, the tokens, the responses, the removal of duplicates,
    graded weights, and a teacher that does not know the answer. `restart` arms train the base with
    the demonstrations, as the default run does.
    """
    loop, base = 'critique_in_the_loop', {'restart': 'base', 'demonstrations': True}
    references = {'responses': 'references', 'num_references': num_references}
    changed = {
        'critique_in_the_loop shuffled': (loop, {'explore': {'critiques': 'shuffled'}}),
        'critique_in_the_loop threshold': (loop, {'weighting': 'threshold', 'threshold': 0.5}),
        'critique_in_the_loop duplicates': (loop, {'deduplicate': False}),
        'vanilla duplicates': ('vanilla', {'deduplicate': False}),
        'vanilla equal tokens': ('vanilla', {'explore': {'token_budget': BUDGET}}),
        'no responses': ('vanilla', {'responses': 'none'}),
        'references': ('vanilla', references),
        'interactive reference': ('interactive', {'explore': {'teacher': 'reference'}}),
        'restart no responses': ('vanilla', {'responses': 'none', **base}),
        'restart references': ('vanilla', references | base),
        'restart vanilla': ('vanilla', base),
        'restart critique_in_the_loop': (loop, base),
    }
    return {
        name: {'stages': (*SHARED, stage), 'improve': changes}
        for name, (stage, changes) in changed.items()
    }
