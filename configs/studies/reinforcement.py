"""A study of what reinforcement adds to actor and critic on the lab, at equal sampled tokens.

reinforcement.py         GRPO by outcome or by steps, self-training weighted by the critic,
                         and a critic by reinforcement, against supervised training alone
reinforcement.py:smoke   the same arms with tiny numbers and one seed

All arms of a seed begin with the same actor and critic; `evaluate` plays whichever is newest. Read
by scripts/study.py.
"""

from ml_collections import ConfigDict

from elenchus.configs import derive, lab
from elenchus.configs.studies.shared import column, contrast, study

SHARED = ('base', 'actor', 'critique', 'critic')
TOKENS = 150_000
"""What each arm may sample to learn from; an attempt has 66."""


def steps(**changes) -> dict:
    """Returns the arm 'grpo steps' with other advantages of its steps."""
    return {
        'stages': (*SHARED, 'reinforce', 'evaluate'),
        'reinforce': {'advantage': {'step_coef': 0.5, **changes}},
    }


ARMS = {
    'supervised': {'stages': (*SHARED, 'evaluate')},
    'grpo outcome': {
        'stages': (*SHARED, 'reinforce', 'evaluate'),
        'reinforce': {'advantage': {'step_coef': 0.0}},
    },
    'grpo steps': {
        'stages': (*SHARED, 'reinforce', 'evaluate'),
        'reinforce': {'advantage': {'step_coef': 0.5}},
    },
    # Step scores without information; the divisor, the zeros and the baseline of their advantages.
    'grpo steps, shuffled scores': steps(shuffle_scores=True),
    'grpo steps, masked': steps(unreached='mask'),
    'grpo steps, floor': steps(std_floor=0.05),
    'grpo steps, by position': steps(baseline='position'),
    'grpo steps, difference': steps(steps='difference'),
    'weighted self-training': {
        'stages': (*SHARED, 'critique_in_the_loop', 'evaluate'),
        'improve': {'weighting': 'steps', 'num_problems': 115},
    },
    'critic by reinforcement': {
        'stages': (*SHARED, 'reinforce_critic', 'evaluate'),
        'reinforce': {'critic_rewards': {'verdict': 1.0, 'helpful': 1.0}},
    },
    # Helpfulness as at test time, where the answer stays after a critique that says correct.
    'critic by reinforcement, refines wrong': {
        'stages': (*SHARED, 'reinforce_critic', 'evaluate'),
        'reinforce': {'critic_rewards': {'verdict': 1.0, 'helpful': 1.0}, 'refine': 'wrong'},
    },
}

CRITIC = ('evaluate', 'critic')
ATTEMPT = ('evaluate', 'accuracy', 'attempt', 'all', 0)
REFINED = ('evaluate', 'accuracy', 'refined', 'all', 0)


def sampled_right(title: str, x: tuple, x_label: str) -> dict:
    """A panel of the attempts that reinforcement learns from."""
    return {
        'title': f'while the actor learns, {title}',
        'over': ('reinforce', 'rows'),
        'x': x,
        'x_label': x_label,
        'y': ('reward/correct',),
        'y_label': 'sampled attempts right, %',
        'scale': 100.0,
    }


COMPARISON = {
    'table': (
        column('attempt, %', ATTEMPT),
        column('refined, %', REFINED),
        column('gain', ('evaluate', 'difference', 'refined-attempt', 'all', 0)),
        column('critic right, %', (*CRITIC, 'discriminability', 0)),
        column('wrong found, %', (*CRITIC, 'found')),
        column('right passed, %', (*CRITIC, 'passed')),
        column('thousand tokens', ('training', 'tokens_sampled'), scale=0.001),
    ),
    'contrasts': (
        contrast('grpo outcome', 'supervised', 'attempt, %'),
        contrast('grpo steps', 'grpo outcome', 'attempt, %'),
        contrast('grpo steps', 'grpo steps, shuffled scores', 'attempt, %'),
        contrast('weighted self-training', 'grpo outcome', 'attempt, %'),
        contrast('critic by reinforcement', 'supervised', 'refined, %'),
    ),
    'panels': (
        {
            'title': 'what an answer is worth with and without critique',
            'over': (),
            'x': ATTEMPT,
            'x_label': 'attempts right',
            'y': REFINED,
            'y_label': 'right after critique, %',
            'scale': 100.0,
        },
        sampled_right('by sampled tokens', ('sampled/tokens',), 'tokens, critiques too'),
        sampled_right('by iteration', (), 'iteration'),
    ),
}


def get_config(arg: str = 'default') -> ConfigDict:
    """Returns a variant of the config."""
    derive.check_variant('reinforcement', arg, ('default', 'smoke'))
    run, arms = lab.get_config(arg), ARMS
    run.stages = (*SHARED, 'reinforce', 'reinforce_critic', 'evaluate')
    if arg == 'smoke':
        run.reinforce.token_budget = 1000
        few = {'weighting': 'steps', 'num_problems': 6}
        arms = arms | {
            'weighted self-training': arms['weighted self-training'] | {'improve': few},
        }
    else:
        run.evaluate.update({'num_problems': 200, 'oracle': False})
        run.evaluate.uptake.num_problems = run.evaluate.beam.num_problems = 0
        run.reinforce.update({'num_steps': 40, 'token_budget': TOKENS})
    return study(run, arms, shared=SHARED, arg=arg, comparison=COMPARISON)
