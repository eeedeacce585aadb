"""Rollouts of an actor and a critic that answer by a rule, for the tests of train/rl/."""

import dataclasses
import functools

import numpy as np

from elenchus.configs import lab as lab_config
from elenchus.data.lab import forms, task
from elenchus.sampling.engine import sampling_methods
from elenchus.train import objective
from elenchus.train.config import build
from elenchus.train.rl import credit, rewards, rollouts, settings, update_batch
from tests.support import fake_engine

METHOD = sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, banned=())
PROBLEMS = [forms.generate_problem(seed=0, split='train', index=index) for index in range(0, 30, 5)]


def make_rules(player='actor', **changes):
    config = lab_config.get_config('smoke').reinforce
    config.advantage.step_coef = 0.0
    changes = {name.replace('__', '.'): value for name, value in changes.items()}
    config.update_from_flattened_dict(changes)
    kind = rewards.ActorRewards if player == 'actor' else rewards.CriticRewards
    section = config.rewards if player == 'actor' else config.critic_rewards
    return settings.RewardRules(
        player,
        build.build(kind, section),
        build.build(settings.AdvantageSettings, config.advantage),
        build.build(settings.TurnSettings, config.turns),
        config.overlong_tokens,
    )


def make_setup(rule, *, num_samples=4, num_refinements=2, refine='always'):
    """(setup, engine) of an engine that completes by a rule."""
    engine = fake_engine.RuleEngine(rule)
    models = fake_engine.players(engine)
    setup = rollouts.RolloutSetup(
        models, fake_engine.SCORER, METHOD, num_samples, num_refinements, refine
    )
    return setup, engine


def answer(role, request, seed):
    """Attempts right and wrong in alternation; right critiques; refinements right for odd ids."""
    solution = task.solve(fake_engine.question_of(request))
    if role == 'critique':
        return fake_engine.critique(request)
    good = request.id % 2 == (0 if role == 'attempt' else 1)
    return fake_engine.ids_of(
        solution if good else solution[:-1] + str((int(solution[-1]) + 1) % 10)
    )


CREDIT = {'limits': fake_engine.LIMITS, 'read': fake_engine.CHAT.text, 'seed': 0}
assign_credit = functools.partial(credit.assign_credit, **CREDIT, first_phase=False, penalties=None)


def batch_of(
    groups,
    *,
    informative,
    cap=0.0,
    kl=None,
    hinted=(),
    policy=-2.0,
    mask_truncated=False,
    keep=None,
):
    """(batch, metrics): the trainer's log-probabilities are `policy`, the reference's -3."""
    for i, group in enumerate(groups):
        changed = (e.with_turn_facts('attempt', hinted=i in hinted) for e in group)
        groups[i] = dataclasses.replace(group, episodes=tuple(changed))
    chosen = objective.GRPO
    if kl:
        chosen = dataclasses.replace(chosen, kl=kl, kl_coef=0.1)
    sampled = rollouts.SampledGroups(groups, informative, len(groups), 0, 0)
    result = update_batch.make_batch(
        sampled,
        update_batch.RowLayout('actor', 160, 4, cap, mask_truncated),
        fake_engine.CHAT,
        assign_credit=functools.partial(
            credit.assign_credit, rules=make_rules(), first_phase=False, **CREDIT
        ),
        objective=chosen,
        logprobs=update_batch.LogprobFunctions(
            policy and (lambda batch: np.full(batch.tokens.shape, policy, np.float32)),
            lambda batch: np.full(batch.tokens.shape, -3.0, np.float32),
        ),
        keep=keep,
    )
    return result.policy, result.metrics


def stored_values(folder):
    """What is stored of the iterations below a folder: (path, lines of values)."""
    paths = (folder / 'rollouts').glob('*/*/values.jsonl')
    return {(str(path.relative_to(folder)), path.read_text()) for path in paths}
