"""A study of distillation on the lab: a student of 0.6 million parameters, a teacher of 1.9.

distillation.py         log-probabilities or responses of a teacher, beside the student's own and
                        reinforcement, at equal sampled tokens; five seeds
distillation.py:smoke   the same arms with tiny numbers and one seed; the shipped base teaches

All arms of a seed begin with the same student. The teacher has read demonstrations of all levels,
the student few of the hard ones. No arm reads a critique. The teacher is made first:

python -m scripts.run --config configs/lab.py:base --workdir runs/teacher \\
    --config.stages="('base', 'actor')" --config.model.embed_dim=224 --config.model.mlp_dim=616 \\
    --config.model.num_heads=7 --config.model.num_kv_heads=7 --config.actor.num_problems=4000 \\
    --config.actor.refinements_per_problem=0 --config.actor.level_decay=1.0

Read by scripts/study.py.
"""

from ml_collections import ConfigDict

from elenchus.configs import derive, lab
from elenchus.configs.studies.shared import HARD, column, contrast, study

SHARED = ('base', 'actor', 'critique', 'critic')
SHIPPED = 'data/lab/checkpoint'
TEACHER = 'runs/teacher/stages/01-actor/model'
TOKENS = 150_000
"""What each arm may sample to learn from, by student or teacher; an attempt has 66."""

RIGHT = ('last', 'accuracy', 'attempt', 'all', 0)
COMPARISON = {
    'table': (
        column('right, %', RIGHT),
        column('hard right, %', ('last', 'accuracy', 'attempt', HARD, 0)),
        column('hard covered, %', ('last', 'coverage', HARD, 0)),
        column('thousand tokens', ('last', 'tokens_sampled'), scale=0.001),
    ),
    'contrasts': (
        contrast('on-policy distillation', 'grpo', 'right, %'),
        contrast('on-policy distillation', 'the base teaches', 'right, %'),
        contrast('on-policy distillation', 'responses of the teacher', 'right, %'),
        contrast('responses of the teacher', 'own responses', 'right, %'),
        contrast('distillation and outcome', 'on-policy distillation', 'right, %'),
    ),
    'panels': (),
}


def get_config(arg: str = 'default') -> ConfigDict:
    """Returns a variant of the config."""
    derive.check_variant('distillation', arg, ('default', 'smoke'))
    run = lab.get_config(arg)
    run.stages = (*SHARED, 'reinforce')
    run.improve.update({'restart': 'base', 'demonstrations': True, 'num_rounds': 1})
    if arg == 'default':
        # There must be a critic, which nobody asks.
        run.critique.num_problems, run.critic.fit.num_steps = 20, 1
        run.improve.explore.token_budget = TOKENS // run.improve.num_problems
        run.reinforce.update({'num_steps': 40, 'token_budget': TOKENS})
        run.evaluate.num_problems = 400
        run_arms = arms(TEACHER)
    else:
        run_arms = arms(SHIPPED)
    return study(run, run_arms, shared=SHARED, arg=arg, comparison=COMPARISON)


def arms(teacher: str) -> dict:
    """What a student may learn from: nothing, its own tokens, or a teacher's."""
    return {
        'demonstrations alone': responses(responses='none'),
        'own responses': responses(),
        'responses of the teacher': responses(teacher=teacher),
        'grpo': reinforcement(),
        'on-policy distillation': reinforcement(teacher, outcome=0.0),
        'distillation and outcome': reinforcement(teacher),
        # A model that knows no more than the student did: what the KL term alone does.
        'the base teaches': reinforcement(SHIPPED, outcome=0.0),
    }


def responses(**changes) -> dict:
    """Trains the base on the demonstrations and on right responses."""
    return {'stages': (*SHARED, 'vanilla'), 'improve': changes}


def reinforcement(teacher: str = '', *, outcome: float = 1.0) -> dict:
    """Trains the student on its own attempts, by their outcome and a teacher's probabilities."""
    objective = {'kl': 'k2', 'kl_coef': 1.0} if teacher else {}
    changes = {
        'teacher': teacher,
        'advantage': {'step_coef': 0.0},
        'rewards': {'correct': outcome},
        'objective': objective,
    }
    return {'stages': (*SHARED, 'reinforce'), 'reinforce': changes}
