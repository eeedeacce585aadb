"""A study of the tail on the lab: does the critique's content reach hard questions, and stay?

tail.py         critique in the loop against every cause it could have besides its words; five seeds
tail.py:smoke   the same arms with tiny numbers and one seed

All arms of a seed share base, actor, critique data, critic and the evaluation of these, whose
uptake is a part of the table. Every arm then trains the base anew on the actor's demonstrations
and, but for the first arm, on responses to the same questions. Read by scripts/study.py.
"""

from ml_collections import ConfigDict

from elenchus.configs import derive, lab
from elenchus.configs.studies.shared import TAIL, column, contrast, study

SHARED = ('base', 'actor', 'critique', 'critic', 'evaluate')
BUDGET = 1050
"""Sampled tokens a question, about what critique in the loop spends; see findings.py."""
NUM_REFERENCES = 480
"""Solutions in the place of responses, at most as many as there are questions explored."""

LOOP = 'critique_in_the_loop'
UPTAKE = ('evaluate', 'uptake')
COMPARISON = {
    'table': (
        *TAIL,
        column('thousand tokens', ('last', 'tokens_sampled'), scale=0.001),
        column('words', (*UPTAKE, 'difference', 'words', 'all', 0)),
        column('gate', (*UPTAKE, 'difference', 'gate', 'all', 0)),
        column('turn', (*UPTAKE, 'difference', 'turn', 'all', 0)),
    ),
    'contrasts': (
        contrast(LOOP, 'shuffled critiques', 'hard right, %'),
        contrast(LOOP, 'vanilla, equal tokens', 'hard right, %'),
        contrast('vanilla', 'demonstrations alone', 'hard right, %'),
        contrast('vanilla, equal tokens', 'vanilla', 'hard right, %'),
        contrast(LOOP, 'references', 'hard right, %'),
    ),
    'panels': (),
}


def get_config(arg: str = 'default') -> ConfigDict:
    """Returns a variant of the config."""
    derive.check_variant('tail', arg, ('default', 'smoke'))
    run = lab.get_config(arg)
    run.stages = (*SHARED, 'vanilla')
    run.improve.update({'restart': 'base', 'demonstrations': True, 'num_rounds': 1})
    if arg == 'default':
        run.evaluate.update({'oracle': False})
        run.evaluate.uptake.update({'num_samples': 1, 'num_problems': 400})
    few = min(NUM_REFERENCES, run.improve.num_problems)
    return study(run, arms(num_references=few), shared=SHARED, arg=arg, comparison=COMPARISON)


def arms(*, num_references: int) -> dict:
    """Critique in the loop, and arms without one of the causes of what it gains."""
    references = {'responses': 'references', 'num_references': num_references}
    changed = {
        'demonstrations alone': ('vanilla', {'responses': 'none'}),
        'vanilla': ('vanilla', {}),
        'vanilla, equal tokens': ('vanilla', {'explore': {'token_budget': BUDGET}}),
        LOOP: (LOOP, {}),
        'shuffled critiques': (LOOP, {'explore': {'critiques': 'shuffled'}}),
        'references': ('vanilla', references),
    }
    return {
        name: {'stages': (*SHARED, stage), 'improve': changes}
        for name, (stage, changes) in changed.items()
    }
