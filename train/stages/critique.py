"""Critique data: paths built from the actor, criticised by an annotator, filtered and balanced.

python -m scripts.stage --config configs/lab.py --workdir runs/lab --stage critique

Leaves in the stage's folder what is kept, as `episodes/` and as records.jsonl, and how that came
about, as data_card.json and data_card.md. Before that come `paths/`, `criticised/` and, where there
is a filter, `refined/`: the stage resumes after the last whole part of them.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from elenchus.data import records
from elenchus.data.critiques import oracle, record_files
from elenchus.data.critiques.oracle import Annotator
from elenchus.data.critiques.record_files import CritiqueRecord
from elenchus.data.files import json_files
from elenchus.data.records import Episode, Problem
from elenchus.model.transformer import Transformer
from elenchus.sampling.critique_data import annotators, filters
from elenchus.sampling.critique_data import constructions as path_lib
from elenchus.sampling.engine.engine import Metered
from elenchus.sampling.episodes import Sampler
from elenchus.train.run.workspace import Workspace, write_json

Alive = dict[int, Episode]
"""Episodes that no filter has left out yet, by their index among all paths."""
Make = Callable[[Sequence[Any], int], tuple[list[Episode], int]]

REMEDIES = {
    'repeated': 'raise critique.num_problems',
    'came_right': 'raise critique.num_inserted or critique.raised_temperature',
    'no_critique': 'take another critique.annotator',
    'no_verdict': 'take another critique.annotator',
    'too_long': 'raise sampling.critique_tokens',
    'refinements': 'lower critique.filter_successes or train the actor for longer',
    'verdict': 'set critique.filter_samples=0 or take another critique.annotator',
    'level': 'lower critique.level_balance',
    'share': 'raise critique.num_inserted or critique.num_problems',
}
"""What helps where a reason has left out the last path."""


def critique(workspace: Workspace, folder: pathlib.Path) -> dict:
    """Makes (question, attempt, critique) of training problems."""
    return collect(workspace, folder, workspace.load_model('actor'), workspace.seed('critique'))


def collect(workspace: Workspace, folder: pathlib.Path, actor: Transformer, seed: int) -> dict:
    """Critique data of one actor's attempts, in the folder; the noise goes by the seed."""
    s, spent = workspace.settings.critique, {}
    problems = workspace.train_problems[: s.num_problems]
    known = {p.id: p for p in problems}
    paths, spent['paths'] = workspace.in_parts(
        folder / 'paths', problems, description='paths', make=construction(workspace, actor, seed)
    )

    def continued(alive: Alive, name: str, make: Make) -> Alive:
        items = list(alive.values())
        made, spent[name] = workspace.in_parts(folder / name, items, description=name, make=make)
        return dict(zip(alive, made, strict=True))

    fates: dict[int, str] = {}
    alive = sift(dict(enumerate(paths)), filters.repeated, fates)
    alive = sift(alive, filters.came_right, fates)
    alive = sift(alive, balance(s.correct_share, level_balance=0.0), fates)
    alive = continued(alive, 'criticised', annotation(workspace, actor, known, seed))
    alive = sift(alive, unreadable, fates)
    if s.filter_samples:
        alive = sift(alive, longer_than(workspace.settings.sampling.critique_tokens), fates)
        alive = continued(alive, 'refined', refinement(workspace, actor, known, seed))
        alive = sift(alive, lambda e: filters.unhelpful(e, least=s.filter_successes), fates)
    alive = sift(alive, balance(s.correct_share, level_balance=s.level_balance), fates)

    kept = list(alive.values())
    records.write_episodes(folder / 'episodes' / 'part-00000.array_record', kept)
    record_files.write_jsonl(
        folder / 'records.jsonl',
        [as_record(workspace, e, known[e.problem_id]) for e in kept],
    )
    card = data_card(paths, fates) | {'annotator': s.annotator, 'tokens_sampled': spent}
    write_json(folder / 'data_card.json', card)
    json_files.write_text(folder / 'data_card.md', card_text(card))
    return {
        'episodes': len(kept),
        'tokens_sampled': sum(spent.values()),
        'wrong': sum(not e.outcome['correct'] for e in kept),
        'kinds': dict(collections.Counter(str(e.outcome.get('kind')) for e in kept)),
    }


# What is sampled. Each of these gives a `make` of Workspace.in_parts.


def construction(workspace: Workspace, actor: Transformer, seed: int) -> Make:
    """Problems -> judged paths of every construction."""
    s = workspace.settings.critique

    def make(problems: Sequence[Problem], first: int) -> tuple[list[Episode], int]:
        sampler = metered(workspace)

        def options(num_samples: int, noise: int, method) -> dict:
            return {
                'judge': workspace.judge,
                'num_samples': num_samples,
                'method': method,
                'seed': seed + noise,
                'first_id': first * num_samples,
            }

        usual, raised = workspace.sampling_method, workspace.method_at(s.raised_temperature)
        groups = path_lib.repeated(sampler, actor, problems, **options(s.num_attempts, 0, usual))
        relocated = path_lib.relocated(
            sampler, actor, problems, groups, **options(s.num_relocated, 1, raised)
        )
        inserted = path_lib.inserted(
            sampler, actor, problems, groups, **options(s.num_inserted, 2, usual)
        )
        made = [*(e for group in groups for e in group), *relocated, *inserted]
        return made, sampler.engine.tokens

    return make


def annotation(
    workspace: Workspace, actor: Transformer, problems: dict[str, Problem], seed: int
) -> Make:
    """Paths -> the same with a critique, its final `verdict`, and None for what is not there."""
    chat, grammar = workspace.chat, workspace.grammar
    annotator_of = annotator(workspace, actor, seed)

    def make(episodes: Sequence[Episode], first: int) -> tuple[list[Episode], int]:
        sampler = metered(workspace)
        paths = [path_lib.as_path(chat, e, problems[e.problem_id]) for e in episodes]
        texts = annotator_of(sampler, first)(paths)
        made = []
        for episode, text in zip(episodes, texts, strict=True):
            turns, verdict = episode.turns, None
            if text is not None:
                turns = (*turns, chat.written('critique', text))
                verdict = grammar.parse(text).final_correct
            outcome = episode.outcome | {'verdict': verdict}
            made.append(dataclasses.replace(episode, turns=turns, outcome=outcome))
        return made, sampler.engine.tokens

    return make


def refinement(
    workspace: Workspace, actor: Transformer, problems: dict[str, Problem], seed: int
) -> Make:
    """Criticised paths -> the same; wrong ones with what became of their refinements."""
    s = workspace.settings.critique

    def make(episodes: Sequence[Episode], first: int) -> tuple[list[Episode], int]:
        sampler = metered(workspace)
        wrong = [i for i, e in enumerate(episodes) if not e.outcome['correct']]
        refined = filters.refine(
            sampler,
            actor,
            [episodes[i] for i in wrong],
            [problems[episodes[i].problem_id] for i in wrong],
            judge=workspace.judge,
            num_samples=s.filter_samples,
            method=workspace.sampling_method,
            seed=seed + 4,
            first_id=first * s.filter_samples,
        )
        made = list(episodes)
        for i, (successes, text) in zip(wrong, refined, strict=True):
            told = {'refinement_successes': successes, 'refinement': text}
            made[i] = dataclasses.replace(made[i], outcome=made[i].outcome | told)
        return made, sampler.engine.tokens

    return make


def annotator(
    workspace: Workspace, actor: Transformer, seed: int
) -> Callable[[Sampler, int], Annotator]:
    """The annotator of the config, once it has a sampler and the index of its first path."""
    s, path = workspace.settings.critique, workspace.annotator_path
    options = {'grammar': workspace.grammar, 'seed': seed + 3}
    if s.annotator == 'oracle':
        return lambda sampler, first: oracle.oracle
    if s.annotator == 'file':
        brought = oracle.from_file(path)
        return lambda sampler, first: brought
    if s.annotator == 'model':
        critic = workspace.load_checkpoint(path)
        return lambda sampler, first: annotators.model(
            sampler, critic, method=workspace.greedy_method, first_id=first, **options
        )
    on_lab = workspace.settings.data.source == 'lab'
    writer = workspace.load_model('base') if on_lab else None
    span = workspace.settings.sampling.attempt_tokens * s.num_rollouts
    return lambda sampler, first: annotators.monte_carlo(
        sampler,
        actor,
        writer,
        judge=workspace.judge,
        num_rollouts=s.num_rollouts,
        threshold=s.rollout_threshold,
        method=workspace.sampling_method,
        first_id=first * span,
        **options,
    )


def metered(workspace: Workspace) -> Sampler:
    """A sampler whose engine counts its tokens."""
    sampler = workspace.sampler()
    return dataclasses.replace(sampler, engine=Metered(sampler.engine))


# What is left out


def sift(
    alive: Alive, test: Callable[[Sequence[Episode]], filters.Reasons], fates: dict[int, str]
) -> Alive:
    """What a filter leaves; why the others go is noted in `fates`.

    Raises ValueError, which says what helps, where it leaves nothing.
    """
    reasons = dict(zip(alive, test(list(alive.values())), strict=True))
    fates |= {i: reason for i, reason in reasons.items() if reason is not None}
    left = {i: episode for i, episode in alive.items() if reasons[i] is None}
    if not left:
        counts = collections.Counter(fates.values())
        last = collections.Counter(reasons.values()).most_common(1)[0][0]
        raise ValueError(
            f'critique: none of {counts.total()} paths is left, by reason {dict(counts)}: '
            f'{REMEDIES[last]}, in a new --workdir'
        )
    return left


def balance(correct_share: float, *, level_balance: float):
    """filters.unbalanced as a test."""
    return lambda episodes: filters.unbalanced(
        episodes, correct_share=correct_share, level_balance=level_balance
    )


def unreadable(episodes: Sequence[Episode]) -> filters.Reasons:
    """'no_critique': the annotator gave none; 'no_verdict': its critique has no final verdict."""
    return [
        'no_critique'
        if e.turns[-1].role != 'critique'
        else 'no_verdict'
        if e.outcome['verdict'] is None
        else None
        for e in episodes
    ]


def longer_than(num_tokens: int) -> Callable[[Sequence[Episode]], filters.Reasons]:
    """'too_long': a critique that leaves a refinement no room."""
    return lambda episodes: [
        'too_long' if len(e.turn('critique').tokens) > num_tokens else None for e in episodes
    ]


# What is told


def as_record(workspace: Workspace, episode: Episode, problem: Problem) -> CritiqueRecord:
    """A kept episode as text."""
    path, told = path_lib.as_path(workspace.chat, episode, problem), episode.outcome
    sampled = 'refinement_successes' in told
    return CritiqueRecord(
        question=problem.question,
        response=path.attempt,
        steps=tuple(path.attempt.split('\n')),
        construction=path.construction,
        location=path.location,
        kind=path.kind,
        critique=workspace.chat.text(episode.turn('critique')),
        refinement_successes=told.get('refinement_successes'),
        refinements=workspace.settings.critique.filter_samples if sampled else None,
        refinement=told.get('refinement'),
        problem_id=problem.id,
        level=problem.level,
        correct=told['correct'],
    )


def data_card(paths: Sequence[Episode], fates: dict[int, str]) -> dict:
    """Counts of all paths and, by reason, of those left out; by construction, level and kind.

    The kind is that of the mistake put in or, where the judge knows one, of the first found.
    """
    groups = {
        'construction': lambda e: e.outcome['construction'],
        'level': lambda e: str(e.level),
        'kind': lambda e: e.outcome['mistake'] or e.outcome.get('kind') or 'unknown',
    }

    def count(indices: Sequence[int]) -> dict:
        kept = [i for i in indices if i not in fates]
        reasons = collections.Counter(fates[i] for i in indices if i in fates)
        return {
            'paths': len(indices),
            'flawed': sum(not paths[i].outcome['correct'] for i in indices),
            'kept': len(kept),
            'kept_flawed': sum(not paths[i].outcome['correct'] for i in kept),
            'kept_share': round(len(kept) / len(indices), 4),
            'left_out': dict(sorted(reasons.items())),
        }

    card = {'all': count(range(len(paths)))}
    for name, group_of in groups.items():
        members = collections.defaultdict(list)
        for i, episode in enumerate(paths):
            members[group_of(episode)].append(i)
        card[name] = {group: count(members[group]) for group in sorted(members)}
    return card


def card_text(card: dict) -> str:
    """The data card as Markdown."""
    tokens = ', '.join(f'{name} {count}' for name, count in card['tokens_sampled'].items())
    lines = ['# Critique data', '', f'Annotator: {card["annotator"]}. Tokens sampled: {tokens}.']
    for name in ('construction', 'level', 'kind'):
        titles = (name, 'paths', 'flawed', 'kept', 'kept flawed', 'kept share', 'left out')
        lines += ['', '| ' + ' | '.join(titles) + ' |', '|---' * len(titles) + '|']
        for group, told in (*card[name].items(), ('all', card['all'])):
            *counts, left_out = told.values()
            reasons = ', '.join(f'{reason} {count}' for reason, count in left_out.items())
            lines.append('| ' + ' | '.join(map(str, (group, *counts, reasons))) + ' |')
    return '\n'.join(lines) + '\n'


STAGES = {'critique': critique}
