"""Studies of the methods in configs/methods on the lab: each beside an arm without its idea.

methods.py:actor        rewards and advantages of an actor's attempts
methods.py:correction   an attempt and a correction of it, without a critique
methods.py:feedback     critiques inside the rollouts; actor and critic together
methods.py:critic       rewards of critiques
methods.py:improve      self-improvement
methods.py:talk         self-correction in one turn
methods.py:cycle        refinements among an actor's demonstrations
methods.py:rounds       which answers are refined again, and how often
methods.py:search       trees of refined answers
methods.py:splice       how wrong and right lines become one turn
methods.py:decoding     what happens while an attempt is sampled
methods.py:reflection   what happens while a talk is sampled
methods.py:actor:smoke  and so on: the same arms with tiny numbers and one seed

An arm has its name and its changes from the method's file. What a method changes in the stages that
all arms share is left out (`omitted_fields`), so that arms differ in one place. Reinforcement may
sample TOKENS tokens, a control of self-improvement about as many as its method does. One work
directory serves all tables that share the same stages:

M=configs/studies/methods.py
for t in actor correction feedback critic improve talk rounds search splice; do
    python -m scripts.study --config $M:$t --workdir runs/methods
done
for t in decoding reflection; do
    python -m scripts.study --config $M:$t --workdir runs/methods/decoding
done
python -m scripts.study --config $M:cycle --workdir runs/methods/cycle
python -m scripts.methods --studies runs/methods --studies runs/methods/cycle \\
    --studies runs/methods/decoding

Read by scripts/study.py; the last command writes docs/methods/effects.json.
"""

import importlib
from typing import NamedTuple

from ml_collections import ConfigDict

from elenchus.configs import derive, lab, method
from elenchus.configs.studies.shared import column, contrast, study

TOKENS = 80_000
"""Sampled tokens of an arm of reinforcement; an attempt has 60, a critique 100 on average."""
SEEDS = (0, 1, 2)
HARD = ('6', '7', '8')
CONTROL = 'elenchus.configs.studies.controls'


class Effect(NamedTuple):
    """What is measured of a method: its arm less the control's, in a column of the table."""

    method: str  # file in configs/methods, and name of its arm
    control: str  # name in CONTROLS
    column: str


# At most five a table: their p-values are adjusted together. A method more is a line more.
TABLES = {
    'actor': (
        Effect('empo', 'random reward', 'attempt, %'),
        Effect('guide_grpo', 'grpo', 'hard attempt, %'),
        Effect('efficiency', 'grpo', 'tokens an attempt'),
        Effect('rest_grpo', 'grpo', 'attempt, %'),
        Effect('qwen2p5_math', 'grpo', 'attempt, %'),
    ),
    'correction': (
        Effect('score', 'score, no bonus', 'second - first'),
        Effect('score', 'score, no stage I', 'second - first'),
        Effect('reform_pbso', 'terminal reward alone', 'second, %'),
    ),
    'feedback': (
        Effect('critique_grpo', 'grpo', 'refined, %'),
        Effect('think_tuning', 'grpo', 'attempt, %'),
        Effect('self_debug', 'self_debug, verdicts alone', 'refined, %'),
        Effect('spiral_rae', 'grpo of both', 'refined, %'),
    ),
    'critic': (
        Effect('critique_rl', 'verdicts alone', 'refined, %'),
        Effect('critique_rl', 'helpfulness alone', 'wrong found and right passed, %'),
        Effect('ref_critic', 'verdicts alone', 'refined, %'),
        Effect('deepcritic', 'verdicts alone', 'processbench F1'),
    ),
    'improve': (
        Effect('rl_incorrect', 'right responses alone', 'attempt, %'),
        Effect('b_star', 'fixed knobs', 'attempt, %'),
        Effect('still_2', 'imitation alone', 'attempt, %'),
    ),
    'talk': (Effect('s3c_math', 'mistakes learnt', 'talk, %'),),
    'cycle': (Effect('cycle', 'no refinements', 'gain'),),
    'rounds': (
        Effect('psr', 'three rounds for all', 'last round, %'),
        Effect('psr', 'three rounds for all', 'tokens, all rounds'),
        Effect('heart', 'heart, no phrases', 'last round, %'),
        Effect('magicore', 'four rounds for all', 'vote of all rounds, %'),
        Effect('magicore', 'four rounds for all', 'tokens, all rounds'),
    ),
    'search': (Effect('mc_nest', 'mc_nest, random scores', 'tree search, %'),),
    'splice': (Effect('agent_r', 'wrong lines read alone', 'talk, %'),),
    'decoding': (
        Effect('id_sampling', 'as sampled', 'attempt, %'),
        Effect('srgen', 'as sampled', 'attempt, %'),
    ),
    'reflection': (
        Effect('first_try', 'talk as sampled', 'talk, %'),
        Effect('first_try', 'talk as sampled', 'tokens a talk'),
        Effect('cyclic_reflex', 'talk as sampled', 'talk, %'),
    ),
}
NOT_MEASURED = {
    'tool_star': "the lab has no words for tags and one tool, CoSC's: its reward is the answer's",
    'refine_traces': "the lab's words have no tags and no confidence: its advantages are GRPO's",
    'reflective_verification': 'its model has more positions than that of the shared stages',
}
"""Method -> why it has no arm."""

ACTOR = ('base', 'actor')
SHARED = {'cycle': ('base',), 'decoding': ACTOR, 'reflection': ACTOR}
"""Stages that the arms of a table share, where not all of method.CRITIC."""
UNRELATED = ('correction', 'talk', 'cycle', 'rounds', 'search', 'splice', 'decoding', 'reflection')
"""Tables without the arm `supervised`, which has other players or not all of their columns."""
TALK = ('critique', 'self_talk')
STAGES = {
    'qwen2p5_math': ('reinforce', 'evaluate'),
    's3c_math': ('self_talk',),
    'agent_r': ('self_talk',),
    'first_try': TALK,
    'cyclic_reflex': TALK,
}
"""Stages of a method's arm after the shared ones, where not those of its file."""

# Controls: stages or method that an arm is like, and what differs.
CONTROLS = {
    'supervised': (('evaluate',), {}),
    'grpo': (('reinforce', 'evaluate'), {'reinforce.advantage.step_coef': 0.0}),
    'random reward': (
        'empo',
        {'reinforce.rewards.functions': ((f'{CONTROL}:random_reward', 1.0),)},
    ),
    'score, no bonus': ('score', {'reinforce.turns.progress': 0.0}),
    'score, no stage I': ('score', {'reinforce.turns.first_phase_steps': 0}),
    'terminal reward alone': ('reform_pbso', {'reinforce.turns.attempt': 0.0}),
    'self_debug, verdicts alone': ('self_debug', {'reinforce.critic_rewards.helpful': 0.0}),
    'grpo of both': ('spiral_rae', {'reinforce.advantage.outcome': 'grpo'}),
    'verdicts alone': (('reinforce_critic',), {'reinforce.critic_rewards.helpful': 0.0}),
    'helpfulness alone': ('critique_rl', {'reinforce.critic_rewards.verdict': 0.0}),
    'right responses alone': (
        'rl_incorrect',
        {'improve.weighting': 'keep', 'improve.explore.token_budget': 820},
    ),
    'fixed knobs': (
        'b_star',
        {'improve.controller': 'none', 'improve.explore.token_budget': 950},
    ),
    'imitation alone': ('still_2', {'improve.responses': 'none'}),
    'mistakes learnt': ('s3c_math', {'self_talk.learn_mistakes': True}),
    'no refinements': ('cycle', {'actor.refinements_per_problem': 0}),
    'three rounds for all': ('psr', {'evaluate.refine': 'wrong'}),
    'heart, no phrases': ('heart', {'evaluate.feedback': 'critique'}),
    'four rounds for all': ('magicore', {'evaluate.refine': 'wrong'}),
    'mc_nest, random scores': (
        'mc_nest',
        {'sampling.tree.values': ((f'{CONTROL}:random_value', 1.0),)},
    ),
    'wrong lines read alone': ('agent_r', {'self_talk.splice': 'talk'}),
    'as sampled': (('critique', 'critic', 'evaluate'), {}),
    'talk as sampled': (TALK, {}),
}

# Sizes at which an arm samples about TOKENS; each control has those of the method that it is like.
SIZES = {
    'score': {'reinforce.turns.first_phase_steps': 4},
    'rl_incorrect': {'improve.num_problems': 100},
    'b_star': {'improve.num_problems': 40, 'improve.candidates.num_problems': 10},
    'still_2': {'improve.num_problems': 45, 'improve.explore.token_budget': 600},
    'rest_grpo': {'evaluate.tree_problems': 0},
    'mc_nest': {'evaluate.tree_problems': 150},
    'cycle': {'critique.num_problems': 10, 'critic.fit.num_steps': 0},
}

ATTEMPT = ('last', 'accuracy', 'attempt', 'all', 0)
REFINED = ('last', 'accuracy', 'refined', 'all', 0)
CRITIC = ('last', 'critic')
COST = column('thousand tokens', ('training', 'tokens_sampled'), scale=0.001)
LOOP = (
    column('attempt, %', ATTEMPT),
    column('hard attempt, %', ('last', 'accuracy', 'attempt', HARD, 0)),
    column('refined, %', REFINED),
    column('gain', REFINED, minus=ATTEMPT),
    column('wrong found and right passed, %', (*CRITIC, ('found', 'passed'))),
    column('processbench F1', (*CRITIC, 'processbench_f1')),
    column('tokens an attempt', ('last', 'tokens_per_answer', 'attempt'), scale=1.0),
    COST,
)
FIRST, SECOND = (
    ('reinforce', 'rows', (-1, -2, -3), f'reward/{role}/correct')
    for role in ('attempt', 'refinement')
)
"""Of the questions that the last iterations sampled, which were not trained on before."""
ROUNDS, ALL_ROUNDS = (('last', 'curves', f'sequential rounds ({n})', -1) for n in ('last', 'all'))
TALKS = (
    column('talk, %', ('last', 'accuracy', 'self-talk', 'all', 0)),
    column('corrections', ('last', 'corrections'), scale=1.0),
    column('tokens a talk', ('last', 'tokens_per_answer', 'self-talk'), scale=1.0),
    COST,
)
COLUMNS = {
    'rounds': (
        column('attempt, %', ATTEMPT),
        column('refined, %', REFINED),
        column('last round, %', (*ROUNDS, 'accuracy', 'all', 0)),
        column('vote of all rounds, %', (*ALL_ROUNDS, 'accuracy', 'all', 0)),
        column('tokens, all rounds', (*ROUNDS, 'tokens', 'all'), scale=1.0),
    ),
    'search': (
        column('attempt, %', ATTEMPT),
        column('refined, %', REFINED),
        column('tree search, %', ('last', 'curves', 'tree search', 0, 'accuracy', 'all', 0)),
        column('tokens', ('last', 'curves', 'tree search', 0, 'tokens', 'all'), scale=1.0),
    ),
    'correction': (
        *LOOP[:-1],
        column('second, %', SECOND),
        column('second - first', SECOND, minus=FIRST),
        COST,
    ),
    **dict.fromkeys(('talk', 'splice', 'reflection'), TALKS),
}
"""Columns of a table, where not those of LOOP."""


def get_config(arg: str = 'default') -> ConfigDict:
    """Returns the study of a table; 'default' and 'smoke' are of the first one."""
    first = next(iter(TABLES))
    variants = {f'{name}{end}': name for name in TABLES for end in ('', ':smoke')}
    variants |= {'default': first, 'smoke': first}
    derive.check_variant('methods', arg, variants)
    table, is_smoke = variants[arg], arg.endswith('smoke')
    run = lab.get_config('smoke' if is_smoke else 'default')
    shorten(run, is_smoke=is_smoke)
    shared = SHARED.get(table, method.CRITIC)
    names = {} if table in UNRELATED else {'supervised': None}
    for effect in TABLES[table]:
        names |= dict.fromkeys((effect.control, effect.method))
    arms = {name: arm(run, name, shared=shared, sizes={} if is_smoke else SIZES) for name in names}
    run.stages = next(iter(arms.values()))['stages']
    comparison = {
        'table': COLUMNS.get(table, LOOP),
        'contrasts': tuple(contrast(e.method, e.control, e.column) for e in TABLES[table]),
        'panels': (),
    }
    config = study(run, arms, shared=shared, arg=arg, comparison=comparison)
    config.update({'seeds': (0,) if is_smoke else SEEDS, 'results': table})
    return config


def shorten(run: ConfigDict, *, is_smoke: bool) -> None:
    """Reduces the lab's sizes in place, because a study of methods has many arms."""
    run.evaluate.oracle = False
    run.evaluate.uptake.num_problems = 0
    run.improve.num_monitored = 0
    if is_smoke:  # with the shipped model: one that is never right has no talks to learn from
        run.model.update(lab.MODEL)
        run.base.update({'checkpoint': 'data/lab/checkpoint', 'fit': {'num_steps': 0}})
        run.evaluate.num_rounds = 1
        run.evaluate.beam.width = 0
        return
    run.data.num_test = 150
    run.critique.num_problems = 250
    run.critic.fit.num_steps = 100
    run.evaluate.update({'num_problems': 150, 'num_attempts': 2, 'num_resamples': 300})
    run.reinforce.update({'num_steps': 100, 'num_problems': 8, 'token_budget': TOKENS})
    run.improve.fit.num_steps = 40
    run.self_talk.num_examples = 400
    run.self_talk.fit.num_steps = 100


def arm(run: ConfigDict, name: str, *, shared: tuple, sizes: dict) -> dict:
    """Returns what an arm changes in the study's run, without sections of the shared stages."""
    like, changes = CONTROLS.get(name, (name, {}))
    stages = like
    if isinstance(like, str):
        stages = stages_of(like, shared=shared)
        changes = changes_of(like) | sizes.get(like, {}) | changes
    nested = {'stages': (*shared, *stages)}
    for field, value in changes.items():
        if field.partition('.')[0] not in shared:
            *sections, last = field.split('.')
            section = nested
            for part in sections:
                section = section.setdefault(part, {})
            section[last] = value(run) if callable(value) else value
    return nested


def changes_of(name: str) -> dict:
    """Returns {field: value} of what a method's file changes, on the lab."""
    file = importlib.import_module(f'elenchus.configs.methods.{name}')
    return {**file.CHANGES, **getattr(file, 'LAB', {})}


def stages_of(name: str, *, shared: tuple) -> tuple:
    """Returns a method's stages after the shared ones.

    Stages that train a critic measure the loop of both players themselves, as `evaluate` does.
    """
    file = importlib.import_module(f'elenchus.configs.methods.{name}')
    stages = STAGES.get(name) or tuple(file.get_config('smoke').stages)
    own = tuple(stage for stage in stages if stage not in shared)
    return own[:-1] if own[0] in ('reinforce_critic', 'reinforce_both') else own


def omitted_fields(effect: Effect, *, table: str) -> list[str]:
    """Returns the fields that a method changes in stages that all arms of the table share."""
    shared = SHARED.get(table, method.CRITIC)
    return [field for field in changes_of(effect.method) if field.partition('.')[0] in shared]
