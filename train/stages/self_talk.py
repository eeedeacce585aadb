"""Self-talk: one model attempts, criticises and corrects itself in a single pass (METHODS 6).

python -m scripts.stage --config configs/lab.py --workdir runs/lab --stage self_talk

A model is trained on talks (train/stages/self_talk_data.py), which are one text each
(data/critiques/self_talk.py), and answers the test problems.
"""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from elenchus.data import records
from elenchus.data.critiques import self_talk as talk_lib
from elenchus.data.records import Episode, Problem
from elenchus.model.transformer import Transformer
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.metrics import cost_curves as curve_lib
from elenchus.sampling.metrics import critic_metrics
from elenchus.sampling.test_time import strategies
from elenchus.train.run.workspace import Workspace
from elenchus.train.stages import evaluate, self_talk_data
from elenchus.train.stages import supervised as train_stages
from elenchus.train.stages.improve import spread

ARM = 'self-talk majority'
AGAINST = ('majority', 'refined majority')
"""Arms of `evaluate` that self-talk is compared with."""


def self_talk(workspace: Workspace, folder: pathlib.Path) -> dict:
    """Builds the data, trains the base on it, and answers the test problems."""
    s = workspace.settings.self_talk
    criticised = records.read_episodes(workspace.stage_folder('critique') / 'episodes')
    talks, tokens = workspace.in_parts(
        folder / 'talks',
        spread(list(criticised), s.num_examples),
        description='self-talk',
        make=self_talk_data.conversation(workspace, workspace.load_model('actor')),
    )
    kept = [talk for talk in talks if talk.outcome['left_out'] is None]
    fates = collections.Counter(talk.outcome['left_out'] for talk in talks)
    reasons = {reason: fates[reason] for reason in sorted(filter(None, fates))}
    if not kept:
        raise ValueError(
            f'self_talk: none of {len(talks)} talks came to a right answer, by reason {reasons}: '
            'train the actor for longer or raise self_talk.num_rounds, in a new --workdir'
        )
    examples = [self_talk_data.example(workspace, talk) for talk in kept]
    base = train_stages.base_to_train(workspace, s.lora, stage='self_talk')
    fitted = train_stages.fit(workspace, folder, base, examples, settings=s.fit, name='self_talk')
    made = workspace.load_checkpoint(folder / 'model')
    return (
        answered(workspace, folder, made)
        | fitted
        | {
            'tokens_sampled': tokens,
            'talks': len(talks),
            'left_out': reasons,
            'corrected_talks': sum(talk.outcome['corrections'] > 0 for talk in kept),
        }
    )


# Answers to the test problems


def answered(workspace: Workspace, folder: pathlib.Path, model: Transformer) -> dict:
    """Accuracy, cost and corrections of self-talk, beside what `evaluate` has told.

    The answer is that of the last answer line; the noise is that of all other evaluations.
    """
    s, problems = workspace.settings.evaluate, evaluate.test_problems(workspace)

    def make(part: Sequence[Problem], first: int) -> tuple[list[Episode], int]:
        episodes = answers(workspace, model, part, first)
        return episodes, episode_lib.sampled_tokens(episodes)

    episodes, _ = workspace.in_parts(folder / 'test', problems, description='evaluate', make=make)
    n = s.num_attempts
    groups = [episodes[i : i + n] for i in range(0, len(episodes), n)]
    arm = curve_lib.parallel_arms(groups)['majority']
    right = evaluate.right_answers(problems, groups, {}, {})
    points = [
        curve_lib.point(arm, right, size=size, num_draws=s.num_draws) for size in curve_lib.sizes(n)
    ]
    own = [evaluate.told(workspace, problems, point) for point in points]
    others = evaluated(workspace)
    return {
        'accuracy': {
            'self-talk' if p['size'] == 1 else f'{ARM}@{p["size"]}': p['accuracy'] for p in own
        },
        'tokens_per_answer': {'self-talk': own[0]['tokens']['all']},
        'corrections': float(np.mean([e.outcome['corrections'] for e in episodes])),
        'finished': float(np.mean([e.outcome['finished'] for e in episodes])),
        'spurious': critic_metrics.spurious_share(episodes),
        'curves': {ARM: own} | others,
        'equal_tokens': equal_tokens(own, others),
    }


def answers(
    workspace: Workspace, model: Transformer, problems: Sequence[Problem], first: int
) -> list[Episode]:
    """Judged self-talk at test problems from number `first` on, with what it cost."""
    n, grammar = workspace.settings.evaluate.num_attempts, workspace.grammar
    sampler = workspace.sampler()
    limits = sampler.max_tokens | {'attempt': workspace.settings.self_talk.tokens}

    def judge(pairs) -> list[dict]:
        texts = [(problem, text or '') for problem, text in pairs]
        facts = workspace.judge([(p, talk_lib.settled(text, grammar)) for p, text in texts])
        return [
            fact | {'corrections': talk_lib.corrections(text, grammar), 'finished': bool(text)}
            for fact, (_, text) in zip(facts, texts, strict=True)
        ]

    made = episode_lib.attempts(
        dataclasses.replace(sampler, max_tokens=limits),
        model,
        problems,
        judge=judge,
        num_samples=n,
        method=workspace.sampling_method,
        seed=workspace.seed('evaluate'),
        first_id=first * n,
    )
    return [strategies.counted(episode) for episode in made]


def evaluated(workspace: Workspace) -> dict[str, list[dict]]:
    """The curves of AGAINST that the stage `evaluate` has told; {} where it has not been run."""
    if 'evaluate' not in workspace.settings.stages:
        return {}
    path = workspace.stage_folder('evaluate') / 'summary.json'
    if not path.exists():
        return {}
    curves = json.loads(path.read_text(encoding='utf-8'))['curves']
    return {arm: curves[arm] for arm in AGAINST}


def equal_tokens(
    own: Sequence[Mapping], others: Mapping[str, Sequence[Mapping]]
) -> dict[str, dict]:
    """Each point against those of the other arms whose cost is nearest, by level.

    Differences are of means over the same questions, without intervals.
    """
    table = {}
    for point in own:
        cost = point['tokens']['all']
        for arm, points in others.items():
            near = min(points, key=lambda other, cost=cost: abs(other['tokens']['all'] - cost))
            table[f'{ARM}@{point["size"]}, {arm}'] = {
                'against': f'{arm}@{near["size"]}',
                'tokens': [cost, near['tokens']['all']],
                'questions': point['questions'],
                'difference': {
                    level: value[0] - near['accuracy'][level][0]
                    for level, value in point['accuracy'].items()
                },
            }
    return table


STAGES = {'self_talk': self_talk}
