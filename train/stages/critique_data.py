"""Makes critique data (AutoMathCritique): constructs, annotates, filters and balances attempts.

The stage writes the kept episodes as `episodes/` and as records.jsonl, and counts of what was kept
and rejected as data_card.json and data_card.md. The intermediate folders `paths/`, `criticised/`
and, with a filter, `refined/` are written in parts: the stage resumes after the last whole part.
"""

import collections
import functools
from collections.abc import Callable, Mapping, Sequence

from elenchus.data.critiques import grammars, record_files
from elenchus.data.critiques.oracle import NoCritique
from elenchus.data.critiques.record_files import CritiqueRecord
from elenchus.data.records import Episode, Problem
from elenchus.model.transformer import Transformer
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.critique_data import constructions, filters, references
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.seeds import derive_seed
from elenchus.train.config.run_settings import CritiqueSettings
from elenchus.train.run.directory import StageFolder
from elenchus.train.run.samplers import Samplers
from elenchus.train.stages import data_card
from elenchus.train.stages.annotators import AnnotatorFactory

Survivors = dict[int, Episode]
"""Episodes that no filter has rejected yet, by their index among all constructed attempts."""

REMEDIES = {
    'repeated': 'raise critique.num_problems',
    'came_right': 'raise critique.num_inserted or critique.raised_temperature',
    'no_critique': 'use another critique.annotator',
    'no_verdict': 'use another critique.annotator',
    'too_long': 'raise sampling.critique_tokens',
    'refinements': 'lower critique.filter_successes or train the actor for longer',
    'random': 'lower critique.filter_successes or train the actor for longer',
    'verdict': 'set critique.filter_samples=0 or use another critique.annotator',
    'level': 'lower critique.level_balance',
    'share': 'raise critique.num_inserted or critique.num_problems',
}
"""Reason of rejection -> advice of the error raised if no attempt is left after it."""


def make_critique_data(
    actor: Transformer,
    problems: Sequence[Problem],
    *,
    settings: CritiqueSettings,
    annotator: AnnotatorFactory,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
) -> dict:
    """Makes (question, attempt, critique) from an actor's attempts; returns counts.

    `annotator` is a result of `annotators.make_annotator`. Raises ValueError if a filter rejects
    every attempt.
    """
    s, problems = settings, problems[: settings.num_problems]
    by_id = {problem.id: problem for problem in problems}
    spent, rejections = {}, {}
    options = {'settings': s, 'samplers': samplers, 'seed': seed, 'stage': stage}
    attempts, spent['paths'] = construct(actor, problems, **options)
    alive = apply_filter(dict(enumerate(attempts)), filters.reject_duplicates, rejections)
    alive = apply_filter(alive, filters.reject_correct, rejections)
    alive = apply_filter(alive, balance(s.correct_share, level_balance=0.0), rejections)
    alive, spent['criticised'] = annotate(
        alive, by_id, annotator=annotator, samplers=samplers, stage=stage
    )
    alive = apply_filter(alive, reject_unreadable, rejections)
    if s.filter_samples:
        room = samplers.settings.critique_tokens
        alive = apply_filter(alive, reject_longer_than(room), rejections)
        alive, spent['refined'] = refine(alive, actor, by_id, **options)
        alive = apply_filter(alive, refinement_filter(s, seed=seed), rejections)
    alive = apply_filter(alive, balance(s.correct_share, level_balance=s.level_balance), rejections)

    episodes = list(alive.values())
    stage.write_episodes(episodes)
    records = [as_record(samplers, s, e, problem=by_id[e.problem_id]) for e in episodes]
    record_files.write_jsonl(stage.path / 'records.jsonl', records)
    card = data_card.count_attempts(attempts, rejections)
    card |= {'annotator': s.annotator, 'tokens_sampled': spent}
    stage.write_json('data_card.json', card)
    stage.write_text('data_card.md', data_card.to_markdown(card))
    return {
        'episodes': len(episodes),
        'tokens_sampled': sum(spent.values()),
        'wrong': sum(not e.attempt.facts.correct for e in episodes),
        'kinds': dict(collections.Counter(str(e.attempt.facts.kind) for e in episodes)),
    }


# Sampling


def construct(
    actor: Transformer,
    problems: Sequence[Problem],
    *,
    settings: CritiqueSettings,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
) -> tuple[Sequence[Episode], int]:
    """Samples judged attempts by RG1, RG2, RG3 and the right paths of `settings.references`.

    Returns them, and the number of tokens sampled.
    """
    s, parts = settings, stage.parts('paths', problems)
    for part in parts.missing():
        sampler = samplers.whole_turns()
        tokens_before = sampler.engine.tokens

        specs = construction_specs(s, samplers, seed=seed, first=part.first)
        judge = samplers.inputs.judge
        groups = constructions.sample_from_scratch(
            sampler, actor, part.items, judge=judge, spec=specs['RG1']
        )
        resampled = constructions.resample_from_step(
            sampler, actor, groups, judge=judge, spec=specs['RG2']
        )
        inserted = constructions.insert_mistake(
            sampler, actor, groups, judge=judge, spec=specs['RG3']
        )
        right = references.right_paths(
            sampler,
            actor,
            groups,
            kind=s.references,
            judge=judge,
            spec=SampleSpec(
                1, samplers.method(), derive_seed(seed, references.CONSTRUCTION), part.first
            ),
        )
        episodes = [*(e for group in groups for e in group), *resampled, *inserted, *right]
        part.write(episodes, sampler.engine.tokens - tokens_before)
    return parts.read()


def construction_specs(
    s: CritiqueSettings, samplers: Samplers, *, seed: int, first: int
) -> dict[str, SampleSpec]:
    """Returns the sample specification of each construction, from problem `first` on."""
    return {
        name: SampleSpec(
            count, samplers.method(temperature), derive_seed(seed, name), first * count
        )
        for name, count, temperature in (
            ('RG1', s.num_attempts, samplers.settings.temperature),
            ('RG2', s.num_relocated, s.raised_temperature),
            ('RG3', s.num_inserted, samplers.settings.temperature),
        )
    }


def annotate(
    alive: Survivors,
    problems: Mapping[str, Problem],
    *,
    annotator: AnnotatorFactory,
    samplers: Samplers,
    stage: StageFolder,
) -> tuple[Survivors, int]:
    """Adds the annotator's critique, with its final `verdict`, to each attempt that gets one.

    An attempt without a critique keeps the annotator's reason, if any, as the fact `rejection`.
    Returns the episodes, and the number of tokens sampled.
    """
    chat, grammar = samplers.inputs.chat, samplers.inputs.grammar
    parts = stage.parts('criticised', list(alive.values()))
    for part in parts.missing():
        sampler = samplers.whole_turns()
        tokens_before = sampler.engine.tokens
        attempts = [
            constructions.as_annotated_attempt(chat, e, problems[e.problem_id]) for e in part.items
        ]
        episodes = []
        texts = annotator(sampler, part.first)(attempts)
        for episode, text in zip(part.items, texts, strict=True):
            if isinstance(text, NoCritique):
                episode = episode.with_facts(rejection=text.reason)
            elif text is not None:
                text = grammars.as_worked(text, grammar)
                episode = episode_lib.add_critique(chat, episode, text, grammar=grammar)
            episodes.append(episode)
        part.write(episodes, sampler.engine.tokens - tokens_before)
    episodes, num_tokens = parts.read()
    return dict(zip(alive, episodes, strict=True)), num_tokens


def refine(
    alive: Survivors,
    actor: Transformer,
    problems: Mapping[str, Problem],
    *,
    settings: CritiqueSettings,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
) -> tuple[Survivors, int]:
    """Samples refinements of the wrong attempts; stores how many are right with the critique.

    Returns the episodes, and the number of tokens sampled.
    """
    s, parts = settings, stage.parts('refined', list(alive.values()))
    for part in parts.missing():
        sampler = samplers.whole_turns()
        tokens_before = sampler.engine.tokens
        wrong = [i for i, e in enumerate(part.items) if not e.attempt.facts.correct]
        refined = filters.sample_refinement_results(
            sampler,
            actor,
            [part.items[i] for i in wrong],
            problems=[problems[part.items[i].problem_id] for i in wrong],
            judge=samplers.inputs.judge,
            spec=SampleSpec(
                s.filter_samples,
                samplers.method(),
                derive_seed(seed, 'refinement'),
                part.first * s.filter_samples,
            ),
        )
        episodes = list(part.items)
        for i, (successes, text) in zip(wrong, refined, strict=True):
            episodes[i] = episodes[i].with_turn_facts(
                'critique', refinement_successes=successes, refinement=text
            )
        part.write(episodes, sampler.engine.tokens - tokens_before)
    episodes, num_tokens = parts.read()
    return dict(zip(alive, episodes, strict=True)), num_tokens


# Filtering


def apply_filter(
    alive: Survivors,
    reject: Callable[[Sequence[Episode]], filters.Reasons],
    rejections: dict[int, str],
) -> Survivors:
    """Returns what a filter keeps; adds the reasons of the others to `rejections`.

    Raises ValueError, which says what helps, if nothing remains.
    """
    reasons = dict(zip(alive, reject(list(alive.values())), strict=True))
    rejections |= {i: reason for i, reason in reasons.items() if reason is not None}
    remaining = {i: episode for i, episode in alive.items() if reasons[i] is None}
    if not remaining:
        counts = collections.Counter(rejections.values())
        last = collections.Counter(reasons.values()).most_common(1)[0][0]
        raise ValueError(
            f'critique: all {counts.total()} attempts were rejected, by reason {dict(counts)}: '
            f'{REMEDIES.get(last, REMEDIES["no_critique"])}, in a new --workdir'
        )
    return remaining


def balance(
    correct_share: float, *, level_balance: float
) -> Callable[[Sequence[Episode]], filters.Reasons]:
    """Returns the filter that balances right against wrong attempts, and levels."""
    return lambda episodes: filters.reject_for_balance(
        episodes, correct_share=correct_share, level_balance=level_balance
    )


def refinement_filter(
    s: CritiqueSettings, *, seed: int
) -> Callable[[Sequence[Episode]], filters.Reasons]:
    """Returns the filter by refinements, or its control that rejects as many at random."""
    if s.filter == 'random':
        return functools.partial(filters.reject_at_random, least=s.filter_successes, seed=seed)
    return functools.partial(filters.reject_unhelpful, least=s.filter_successes)


def reject_unreadable(episodes: Sequence[Episode]) -> filters.Reasons:
    """Rejects critiques without a final verdict ('no_verdict'), and attempts without a critique.

    The reason of the latter is the annotator's, or 'no_critique'.
    """
    return [
        e.facts.rejection or 'no_critique'
        if e.turns[-1].role != 'critique'
        else 'no_verdict'
        if e.critique.facts.verdict is None
        else None
        for e in episodes
    ]


def reject_longer_than(num_tokens: int) -> Callable[[Sequence[Episode]], filters.Reasons]:
    """Returns the filter 'too_long': critiques that leave no room for a refinement."""
    return lambda episodes: [
        'too_long' if len(e.critique.tokens) > num_tokens else None for e in episodes
    ]


def as_record(
    samplers: Samplers, settings: CritiqueSettings, episode: Episode, *, problem: Problem
) -> CritiqueRecord:
    """Returns an episode as text."""
    chat, critique = samplers.inputs.chat, episode.critique
    attempt = constructions.as_annotated_attempt(chat, episode, problem)
    was_refined = critique.facts.refinement_successes is not None
    return CritiqueRecord(
        question=problem.question,
        response=attempt.attempt,
        steps=tuple(attempt.attempt.split('\n')),
        construction=attempt.construction,
        location=attempt.location,
        kind=attempt.kind,
        critique=chat.text(critique),
        refinement_successes=critique.facts.refinement_successes,
        refinements=settings.filter_samples if was_refined else None,
        refinement=critique.facts.refinement,
        problem_id=problem.id,
        level=problem.level,
        correct=episode.attempt.facts.correct,
    )
