"""Flawed and correct paths by construction: the first part of AutoMathCritique (METHODS 2).

Every function gives judged attempts whose `outcome` says more than the judge: `construction`;
`location`, a line (from 0) with no mistake before it; `mistake`, the kind of the one put in there.
The latter two are None where nothing is known. A path made to be flawed may come out right, which
its `correct` says.
"""

import dataclasses
import itertools
import random
from collections.abc import Sequence
from typing import NamedTuple

from elenchus.data.critiques import mistakes
from elenchus.data.critiques.oracle import ConstructedAttempt
from elenchus.data.grading import answers
from elenchus.data.grading.judge import Judge
from elenchus.data.records import Episode, Problem, Turn
from elenchus.data.text.chat import Chat
from elenchus.model.transformer import Transformer
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.engine.sampling_methods import Method
from elenchus.sampling.episodes import Sampler


def repeated(
    sampler: Sampler,
    actor: Transformer,
    problems: Sequence[Problem],
    *,
    judge: Judge,
    num_samples: int,
    method: Method,
    seed: int,
    first_id: int,
) -> list[list[Episode]]:
    """RG1, sampling from scratch: `num_samples` attempts at each problem."""
    made = episode_lib.attempts(
        sampler,
        actor,
        problems,
        judge=judge,
        num_samples=num_samples,
        method=method,
        seed=seed,
        first_id=first_id,
    )
    told = {'construction': 'RG1', 'location': None, 'mistake': None}
    noted = [dataclasses.replace(e, outcome=e.outcome | told) for e in made]
    return [noted[i : i + num_samples] for i in range(0, len(noted), num_samples)]


def relocated(
    sampler: Sampler,
    actor: Transformer,
    problems: Sequence[Problem],
    groups: Sequence[Sequence[Episode]],
    *,
    judge: Judge,
    num_samples: int,
    method: Method,
    seed: int,
    first_id: int,
) -> list[Episode]:
    """RG2, location-aware: right attempts resampled from a random line on, with a hotter `method`.

    groups[i] are attempts at problems[i]; a problem without a right one has no paths. The lines
    kept are the very ids sampled. `location` is the first line that differs from the attempt
    resampled, at or after the drawn one. Token log-probabilities are of the method that drew them.
    """
    begun, sources = [], []
    for problem, group in zip(problems, groups, strict=True):
        right = [e.turn('attempt') for e in group if _sound(e)]
        rng = random.Random(f'{seed}/{problem.id}')
        for i in range(num_samples if right else 0):
            turn = right[i % len(right)]
            end = rng.choice((0, *turn.step_ends[:-1]))
            kept = sampler.chat.sampled_turn('attempt', turn.tokens[:end], turn.logprobs[:end])
            begun.append(_Begun(problem, kept, {'construction': 'RG2', 'mistake': None}))
            sources.append(turn)
    made = _finished(
        sampler, actor, begun, judge=judge, method=method, seed=seed, first_id=first_id
    )
    return [
        dataclasses.replace(e, outcome=e.outcome | {'location': _differing(sampler.chat, e, s)})
        for e, s in zip(made, sources, strict=True)
    ]


def inserted(
    sampler: Sampler,
    actor: Transformer,
    problems: Sequence[Problem],
    groups: Sequence[Sequence[Episode]],
    *,
    judge: Judge,
    num_samples: int,
    method: Method,
    seed: int,
    first_id: int,
) -> list[Episode]:
    """RG3, detailed mistakes: one of a named kind put in at a line, continued by the actor.

    groups[i] are attempts at problems[i]; the mistakes go into the right ones by turns, or into the
    reference solution where there are none. Kinds and lines are drawn at random from those
    possible; what would leave no room for a continuation is not made.
    """
    begun = []
    for problem, group in zip(problems, groups, strict=True):
        texts = [sampler.chat.text(e.turn('attempt')) for e in group if _sound(e)]
        texts = texts or [problem.solution]
        rng = random.Random(f'{seed}/{problem.id}')
        for i in range(num_samples):
            lines = texts[i % len(texts)].split('\n')
            begun += _mistaken(sampler, problem, lines, rng)
    return _finished(
        sampler, actor, begun, judge=judge, method=method, seed=seed, first_id=first_id
    )


def opening(chat: Chat, role: str, lines: Sequence[str]) -> Turn:
    """A turn begun with some lines, to be continued on the next one."""
    return chat.sampled_turn(role, chat.tokenizer.encode('\n'.join([*lines, ''])), ())


def as_path(chat: Chat, episode: Episode, problem: Problem) -> ConstructedAttempt:
    """What an annotator is told of an episode of this module."""
    told = episode.outcome
    return ConstructedAttempt(
        problem,
        chat.text(episode.turn('attempt')),
        told['construction'],
        told['location'],
        told['mistake'],
    )


class _Begun(NamedTuple):
    """A path before its continuation, and what is known of it."""

    problem: Problem
    turn: Turn
    told: dict


def _sound(episode: Episode) -> bool:
    """Whether an attempt is right and, as far as the judge can tell, all its steps are."""
    return episode.outcome['correct'] and episode.outcome.get('steps_correct', True)


def _mistaken(sampler: Sampler, problem: Problem, lines: list[str], rng) -> list[_Begun]:
    """The beginning with one mistake, in a list that is empty where none can be made or fits."""
    chat, limit = sampler.chat, sampler.max_tokens['attempt']
    kinds = mistakes.kinds(problem)
    for kind in rng.sample(kinds, len(kinds)):
        for at in rng.sample(range(len(lines)), len(lines)):
            told = mistakes.insert(problem, lines, at, kind=kind, rng=rng)
            if told is None:
                continue
            answered = answers.extract_answer(told[-1]) is not None
            turn = (
                chat.text_turn('attempt', '\n'.join(told))
                if answered
                else opening(chat, 'attempt', told)
            )
            if len(turn.tokens) < limit + answered:
                known = {'construction': 'RG3', 'location': at, 'mistake': kind}
                return [_Begun(problem, turn, known)]
    return []


def _finished(
    sampler: Sampler,
    actor: Transformer,
    begun: Sequence[_Begun],
    *,
    judge: Judge,
    method: Method,
    seed: int,
    first_id: int,
) -> list[Episode]:
    """Begun attempts, continued where they have not ended, and judged."""
    chat = sampler.chat
    questions = [chat.question_turns(b.problem.question) for b in begun]
    turns = [b.turn for b in begun]
    unended = [i for i, turn in enumerate(turns) if not chat.is_finished(turn)]
    made = sampler.continued(
        actor,
        [questions[i] for i in unended],
        [turns[i] for i in unended],
        num_samples=1,
        method=method,
        seed=seed,
        first_id=first_id,
    )
    for i, (turn,) in zip(unended, made, strict=True):
        turns[i] = turn
    facts = judge([(b.problem, sampler.text(turn)) for b, turn in zip(begun, turns, strict=True)])
    return [
        Episode(b.problem.id, b.problem.level, (*question, turn), fact | b.told)
        for b, question, turn, fact in zip(begun, questions, turns, facts, strict=True)
    ]


def _differing(chat: Chat, episode: Episode, source: Turn) -> int:
    """The first line in which an attempt is not its source; the last where none is."""
    lines = chat.text(episode.turn('attempt')).split('\n')
    pairs = itertools.zip_longest(lines, chat.text(source).split('\n'))
    first = next((i for i, (line, was) in enumerate(pairs) if line != was), len(lines))
    return min(first, len(lines) - 1)
