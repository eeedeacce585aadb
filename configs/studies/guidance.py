"""A study of guidance on the lab: do hints bring hard questions into training, and do they last?

guidance.py         four kinds of hints, each beside what it could owe its gain to; five seeds
guidance.py:smoke   the same arms with tiny numbers and one seed

All arms of a seed share base, actor, critique data and critic; the actor has learnt to use hints.
An explorer samples unguided attempts at each question, then in rounds one more response to each
question that is not solved often enough, until the same number of tokens a question is spent on
average or nothing is left to solve. Then the base is trained anew on the actor's demonstrations and
the right responses, without their hints. The source of the four: arXiv 2411.00750. Read by
scripts/study.py.
"""

from ml_collections import ConfigDict

from elenchus.configs import derive, lab
from elenchus.configs.studies.shared import TAIL, column, contrast, study

SHARED = ('base', 'actor', 'critique', 'critic')
BUDGET = 1050
"""Sampled tokens a question, about what critique in the loop spends, as in tail.py."""
NUM_ROUNDS = 24

HINT, TEACHER = 'rationale_driven', 'interactive'
COMPARISON = {
    'table': (
        *TAIL,
        column('kept spurious, %', ('last', 'kept_spurious')),
        column('thousand tokens', ('last', 'tokens_sampled'), scale=0.001),
    ),
    'contrasts': (
        contrast(HINT, 'uniform', 'hard right, %'),
        contrast(HINT, 'hints of other questions', 'hard right, %'),
        contrast(TEACHER, "other questions' critiques", 'hard right, %'),
        contrast('state_reset', 'uniform', 'hard right, %'),
        contrast(TEACHER, 'critique_in_the_loop', 'hard right, %'),
    ),
    'panels': (),
}


def get_config(arg: str = 'default') -> ConfigDict:
    """Returns a variant of the config."""
    derive.check_variant('guidance', arg, ('default', 'smoke'))
    run = lab.get_config(arg)
    run.stages = (*SHARED, 'uniform')
    run.actor.guided_per_problem = 1
    run.improve.update({'restart': 'base', 'demonstrations': True, 'num_rounds': 1})
    if arg == 'default':
        run.improve.explore.update(
            {'token_budget': BUDGET, 'num_guided_rounds': NUM_ROUNDS, 'num_uniform_rounds': 60}
        )
    return study(run, arms(), shared=SHARED, arg=arg, comparison=COMPARISON)


def arms() -> dict:
    """The kinds of hints, and arms without what their hints say."""
    changed = {
        'uniform': ('uniform', {}),
        'answer_driven': ('answer_driven', {}),
        HINT: (HINT, {}),
        'hints of other questions': (HINT, {'guides': 'shuffled'}),
        TEACHER: (TEACHER, {}),
        "other questions' critiques": (TEACHER, {'critiques': 'shuffled'}),
        'teacher with the reference': (TEACHER, {'teacher': 'reference'}),
        'state_reset': ('state_reset', {}),
        'critique_in_the_loop': ('critique_in_the_loop', {}),
    }
    return {
        name: {'stages': (*SHARED, stage), 'improve': {'explore': changes}}
        for name, (stage, changes) in changed.items()
    }
