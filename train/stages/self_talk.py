"""Self-talk: one model attempts, criticises and corrects itself in a single turn.

A model is fine-tuned on talks (self_talk_data.py), each one text (data/critiques/self_talk.py), and
then answers the test problems; see docs/methods.md, 'Self-talk'.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from elenchus.data import records
from elenchus.data.critiques import self_talk as talk_text
from elenchus.data.records import Episode, Problem, Turn, TurnFacts
from elenchus.data.text.chat import Chat
from elenchus.model.transformer import Transformer
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.metrics import cost_curves, critic_metrics
from elenchus.sampling.metrics.statistics import evenly_spaced
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.seeds import derive_seed
from elenchus.sampling.test_time import strategies
from elenchus.train.checkpoints.model_store import ModelStore
from elenchus.train.config.run_settings import EvaluateSettings, SelfTalkSettings
from elenchus.train.loop import LoopSettings
from elenchus.train.run.directory import StageFolder
from elenchus.train.run.samplers import Samplers
from elenchus.train.stages import evaluate_figures
from elenchus.train.stages.self_talk_data import TalkBuilder, talk_example
from elenchus.train.stages.sft import sft_stage

ARM = 'self-talk majority'
COMPARED_ARMS = ('majority', 'refined majority')
"""Arms of `evaluate` that self-talk is compared with."""


def self_talk_stage(
    stage: StageFolder,
    *,
    criticised: Sequence[Episode],
    builder: TalkBuilder,
    model: Transformer,
    test_problems: Sequence[Problem],
    evaluated: Mapping[str, Sequence[Mapping]],
    settings: SelfTalkSettings,
    evaluation: EvaluateSettings,
    loop: LoopSettings,
    store: ModelStore,
    samplers: Samplers,
    seed: int,
) -> dict:
    """Builds talks from criticised attempts, trains `model` on them, and evaluates the result.

    `evaluated` has the curves of the stage `evaluate`; {} if it has not run.
    """
    talks, num_tokens = sample_talks(builder, criticised, settings=settings, stage=stage)
    kept, reasons = select_talks(talks)
    totals = sft_stage(
        stage,
        model=model,
        examples=[talk_example(samplers, talk, settings=settings) for talk in kept],
        settings=settings.fit,
        loop=loop,
        store=store,
        seed=derive_seed(seed, 'self_talk'),
    )
    figures = evaluate_self_talk(
        store.load(stage.path / 'model'),
        test_problems,
        evaluated=evaluated,
        settings=evaluation,
        max_tokens=settings.tokens,
        samplers=samplers,
        seed=seed,
        stage=stage,
    )
    return (
        figures
        | totals
        | {
            'tokens_sampled': num_tokens,
            'talks': len(talks),
            'left_out': reasons,
            'corrected_talks': sum(talk.attempt.facts.corrections > 0 for talk in kept),
        }
    )


def sample_talks(
    builder: TalkBuilder,
    criticised: Sequence[Episode],
    *,
    settings: SelfTalkSettings,
    stage: StageFolder,
) -> tuple[Sequence[Episode], int]:
    """Builds talks from evenly spaced criticised attempts; returns them and their tokens."""
    chosen = evenly_spaced(criticised, settings.num_examples)
    parts = stage.parts('talks', chosen, description='self-talk')
    for part in parts.missing():
        part.write(*builder.build(part.items, part.first))
    return parts.read()


def select_talks(talks: Sequence[Episode]) -> tuple[list[Episode], dict[str, int]]:
    """Returns the talks that are trained on, and the number of the others by reason.

    Raises ValueError if none is left.
    """
    kept = [talk for talk in talks if talk.facts.rejection is None]
    counts = collections.Counter(talk.facts.rejection for talk in talks)
    reasons = {reason: counts[reason] for reason in sorted(filter(None, counts))}
    if not kept:
        raise ValueError(
            f'self_talk: none of {len(talks)} talks ended with a right answer, by reason '
            f'{reasons}: train the actor for longer or raise self_talk.num_rounds'
        )
    return kept, reasons


def evaluate_self_talk(
    model: Transformer,
    problems: Sequence[Problem],
    *,
    evaluated: Mapping[str, Sequence[Mapping]],
    settings: EvaluateSettings,
    max_tokens: int,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
) -> dict:
    """Returns accuracy, cost and corrections of self-talk, beside the curves of `evaluate`.

    The answer is that of the last answer line; the noise is that of all other evaluations.
    """
    n, problems = settings.num_attempts, problems[: settings.num_problems]
    parts = stage.parts('test', problems, description='evaluate')
    for part in parts.missing():
        episodes = sample_self_talk(
            model,
            part.items,
            num_samples=n,
            first=part.first,
            max_tokens=max_tokens,
            samplers=samplers,
            seed=seed,
        )
        part.write(episodes, episode_lib.sampled_tokens(episodes))
    episodes, _ = parts.read()
    groups = records.group_episodes(problems, episodes)
    arm = cost_curves.parallel_arms(groups)['majority']
    right = evaluate_figures.right_answers(groups, rounds={}, oracle={})
    points = [
        cost_curves.point(arm, right, size=size, num_draws=settings.num_draws)
        for size in cost_curves.sizes(n)
    ]
    values = {'self-talk': points[0].right}
    stage.write_questions(evaluate_figures.by_question(problems, values))
    curve = [evaluate_figures.point_summary(settings, problems, point) for point in points]
    return {
        'accuracy': {
            'self-talk' if p['size'] == 1 else f'{ARM}@{p["size"]}': p['accuracy'] for p in curve
        },
        'tokens_per_answer': {'self-talk': curve[0]['tokens']['all']},
        'corrections': float(np.mean([e.attempt.facts.corrections for e in episodes])),
        'finished': float(np.mean([_has_text(samplers.inputs.chat, e.attempt) for e in episodes])),
        'spurious': critic_metrics.spurious_share(episodes),
        'curves': {ARM: curve} | dict(evaluated),
        'equal_tokens': compare_at_equal_tokens(curve, evaluated),
    }


def sample_self_talk(
    model: Transformer,
    problems: Sequence[Problem],
    *,
    num_samples: int,
    first: int,
    max_tokens: int,
    samplers: Samplers,
    seed: int,
) -> list[Episode]:
    """Samples judged self-talk at test problems from index `first` on, with its cost."""
    sampler, inputs = samplers.whole_turns(), samplers.inputs

    def judge(pairs) -> list[TurnFacts]:
        texts = [(problem, text or '') for problem, text in pairs]
        facts = inputs.judge(
            [(p, talk_text.corrected_attempt(text, inputs.grammar)) for p, text in texts]
        )
        corrections = [talk_text.count_corrections(text, inputs.grammar) for _, text in texts]
        return [
            dataclasses.replace(fact, corrections=count)
            for fact, count in zip(facts, corrections, strict=True)
        ]

    episodes = episode_lib.sample_attempts(
        dataclasses.replace(sampler, max_tokens=sampler.max_tokens | {'attempt': max_tokens}),
        model,
        problems,
        judge=judge,
        spec=SampleSpec(
            num_samples, samplers.method(), derive_seed(seed, 'evaluate'), first * num_samples
        ),
    )
    return [strategies.with_cost(inputs.chat, episode) for episode in episodes]


def _has_text(chat: Chat, turn: Turn) -> bool:
    """True for a turn that ended by itself and is not empty."""
    return chat.is_finished(turn) and bool(chat.text(turn))


def compare_at_equal_tokens(
    curve: Sequence[Mapping], others: Mapping[str, Sequence[Mapping]]
) -> dict[str, dict]:
    """Compares each point with those of the other arms whose cost is nearest, by level.

    Differences are of means over the same questions, without intervals.
    """
    table = {}
    for point in curve:
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
