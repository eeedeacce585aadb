"""Studies of the methods in configs/methods on the lab: each beside an arm without its idea.

methods.py:actor        rewards and advantages of an actor's attempts
methods.py:credit       advantages by other models, by difficulty, by length
methods.py:correction   an attempt and a correction of it, without a critique
methods.py:feedback     critiques inside the rollouts; actor and critic together
methods.py:critic       rewards of critiques
methods.py:one_model    one model that solves and verifies
methods.py:critiques    an actor that has learnt to criticise
methods.py:labels       which lines rollouts call wrong, for a critic
methods.py:pairs        what an actor prefers
methods.py:critic_pairs what a critic prefers
methods.py:improve      self-improvement
methods.py:data         what self-improvement is trained on
methods.py:fit          how demonstrations are read and weighed
methods.py:talk         self-correction in one turn
methods.py:segments     reinforcement of talks
methods.py:cycle        refinements among an actor's demonstrations
methods.py:rounds       which answers are refined again, and how often
methods.py:gate         which questions are refined at all
methods.py:search       trees of refined answers
methods.py:splice       how wrong and right lines become one turn
methods.py:decoding     what happens while an attempt is sampled
methods.py:reflection   what happens while a talk is sampled
methods.py:actor:smoke  and so on: the same arms with tiny numbers and one seed

An arm has its name and its changes from the method's file. What a method changes in the stages that
all arms share is left out (`omitted_fields`), so that arms differ in one place. Reinforcement may
sample TOKENS tokens, a control of self-improvement about as many as its method does. One work
directory serves all tables but `segments`, whose model has more positions:

M=configs/studies/methods.py
for t in actor credit correction feedback critic one_model critiques labels pairs critic_pairs \\
    improve data fit talk cycle rounds gate search splice decoding reflection; do
    python -m scripts.study --config $M:$t --workdir runs/methods
done
python -m scripts.study --config $M:segments --workdir runs/methods/segments
python -m scripts.methods --studies runs/methods --studies runs/methods/segments

Read by scripts/study.py; the last command writes docs/methods/effects.json.
"""

import importlib

from ml_collections import ConfigDict

from elenchus.configs import derive, lab, method
from elenchus.configs.studies.method_tables import (
    COLUMNS,
    CONTROLS,
    LOOP,
    RUNS,
    SEEDS,
    SHARED,
    SIZES,
    STAGES,
    TABLES,
    TOKENS,
    WITH_SUPERVISED,
    Effect,
)
from elenchus.configs.studies.shared import contrast, study


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
    names = {'supervised': None} if table in WITH_SUPERVISED else {}
    for effect in TABLES[table]:
        names |= dict.fromkeys((effect.control, effect.method))
    common = RUNS.get(table, {})
    run.update_from_flattened_dict(
        {field: value(run) if callable(value) else value for field, value in common.items()}
    )
    options = {'shared': shared, 'sizes': {} if is_smoke else SIZES, 'common': common}
    arms = {name: arm(run, name, **options) for name in names}
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
    run.prefer.num_problems = 120
    run.self_talk.num_examples = 400
    run.self_talk.fit.num_steps = 100


def arm(run: ConfigDict, name: str, *, shared: tuple, sizes: dict, common: dict) -> dict:
    """Returns what an arm changes in the study's run, without sections of the shared stages.

    Nor is what the table changes for all arms, `common`, among it.
    """
    like, changes = CONTROLS.get(name, (name, {}))
    stages = like
    if isinstance(like, str):
        stages = stages_of(like, shared=shared)
        changes = changes_of(like) | sizes.get(like, {}) | changes
    nested = {'stages': (*shared, *stages)}
    for field, value in changes.items():
        if field.partition('.')[0] not in shared and field not in common:
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
