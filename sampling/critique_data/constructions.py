"""Correct and flawed attempts by construction: the first part of AutoMathCritique.

The constructions RG1 to RG3 are those of arXiv 2411.16579 (docs/methods.md, "Critique data"). Every
function returns judged attempts with three facts of the episode: `construction`; `location`, a line
(from 0) before which there is no mistake; `mistake`, the kind of the inserted one. The latter two
are None if unknown. An attempt constructed to be flawed may still be correct; the attempt's fact
`correct` has the judge's result.
"""

import dataclasses
import itertools
import random
from collections.abc import Sequence
from typing import NamedTuple

from elenchus.data import records
from elenchus.data.critiques import mistakes
from elenchus.data.critiques.oracle import ConstructedAttempt
from elenchus.data.grading import answers
from elenchus.data.grading.judge import Judge
from elenchus.data.records import Episode, EpisodeFacts, Problem, RolloutGroup, Turn
from elenchus.data.text import tool_turns
from elenchus.data.text.chat import Chat
from elenchus.model.transformer import Transformer
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.sample_spec import SampleSpec


def sample_from_scratch(
    sampler: Sampler,
    actor: Transformer,
    problems: Sequence[Problem],
    *,
    judge: Judge,
    spec: SampleSpec,
) -> list[RolloutGroup]:
    """RG1: samples `spec.num_samples` attempts at each problem; returns them by problem."""
    attempts = episode_lib.sample_attempts(sampler, actor, problems, judge=judge, spec=spec)
    return records.group_episodes(problems, [e.with_facts(construction='RG1') for e in attempts])


def resample_from_step(
    sampler: Sampler,
    actor: Transformer,
    groups: Sequence[RolloutGroup],
    *,
    judge: Judge,
    spec: SampleSpec,
) -> list[Episode]:
    """RG2, location-aware: resamples correct attempts from a random line on.

    `spec.method` should be hotter than usual, so that mistakes become likely. A problem without a
    correct attempt in its group gets no new one. The lines before keep their sampled ids.
    `location` is the first line that differs from the original, at or after the drawn one. Each
    log-probability is of the method that sampled its token.
    """
    openings, originals = [], []
    for group in groups:
        problem, correct = group.problem, [e.attempt for e in group if is_fully_correct(e)]
        # One stream per problem: a part of the problems draws what the whole set draws.
        rng = random.Random(f'{spec.seed}/{problem.id}')
        for i in range(spec.num_samples if correct else 0):
            turn = correct[i % len(correct)]
            # A line's start, also the first's: at least the last line is sampled again.
            end = rng.choice((0, *turn.step_ends[:-1]))
            prefix = tool_turns.prefix(sampler.chat, turn, end)
            openings.append(_Opening(problem, prefix, EpisodeFacts(construction='RG2')))
            originals.append(turn)
    attempts = _continue_and_judge(sampler, actor, openings, judge=judge, spec=spec)
    return [
        e.with_facts(location=_first_different_line(sampler.chat, e, original))
        for e, original in zip(attempts, originals, strict=True)
    ]


def insert_mistake(
    sampler: Sampler,
    actor: Transformer,
    groups: Sequence[RolloutGroup],
    *,
    judge: Judge,
    spec: SampleSpec,
) -> list[Episode]:
    """RG3, detailed mistakes: inserts a mistake of a named kind, and the actor continues after it.

    The mistakes go into the correct attempts of a group by turns, or into the reference solution if
    there are none. Kind and line are drawn at random among the possible ones; an opening that would
    leave no room for a continuation is dropped.
    """
    openings = []
    for group in groups:
        problem = group.problem
        texts = [sampler.chat.text(e.attempt) for e in group if is_fully_correct(e)]
        texts = texts or [problem.solution]
        rng = random.Random(f'{spec.seed}/{problem.id}')
        for i in range(spec.num_samples):
            lines = texts[i % len(texts)].split('\n')
            opening = _open_with_mistake(sampler, problem, lines, rng=rng)
            openings += [] if opening is None else [opening]
    return _continue_and_judge(sampler, actor, openings, judge=judge, spec=spec)


def turn_from_lines(chat: Chat, role: str, lines: Sequence[str]) -> Turn:
    """Returns an unfinished turn of these lines, to be continued on the next line."""
    return chat.sampled_turn(role, chat.tokenizer.encode('\n'.join([*lines, ''])), ())


def as_annotated_attempt(chat: Chat, episode: Episode, problem: Problem) -> ConstructedAttempt:
    """Returns an episode of this module in the form that annotators take."""
    facts, text = episode.facts, chat.text(episode.attempt)
    return ConstructedAttempt(problem, text, facts.construction, facts.location, facts.mistake)


class _Opening(NamedTuple):
    """The first part of an attempt, and the facts known about it."""

    problem: Problem
    turn: Turn
    facts: EpisodeFacts


def is_fully_correct(episode: Episode) -> bool:
    """Returns whether the answer is right and, as far as the judge can tell, all steps are."""
    facts = episode.attempt.facts
    return facts.correct and facts.steps_correct is not False


def _open_with_mistake(
    sampler: Sampler, problem: Problem, lines: list[str], *, rng: random.Random
) -> _Opening | None:
    """Inserts one random mistake; returns the lines up to it, or None if none fits."""
    chat, limit = sampler.chat, sampler.max_tokens['attempt']
    kinds = mistakes.kinds(problem)
    for kind in rng.sample(kinds, len(kinds)):
        for at in rng.sample(range(len(lines)), len(lines)):
            flawed = mistakes.insert(problem, lines, at, kind=kind, rng=rng)
            if flawed is None:
                continue
            # A mistake in the answer line ends the attempt; there is nothing to continue.
            has_answer = answers.extract_answer(flawed[-1]) is not None
            turn = (
                chat.text_turn('attempt', '\n'.join(flawed))
                if has_answer
                else turn_from_lines(chat, 'attempt', flawed)
            )
            if len(turn.tokens) < limit + has_answer:
                facts = EpisodeFacts(construction='RG3', location=at, mistake=kind)
                return _Opening(problem, turn, facts)
    return None


def _continue_and_judge(
    sampler: Sampler,
    actor: Transformer,
    openings: Sequence[_Opening],
    *,
    judge: Judge,
    spec: SampleSpec,
) -> list[Episode]:
    """Continues the openings that have not ended, once each, and judges all attempts."""
    chat = sampler.chat
    questions = [chat.question_turns(opening.problem.question) for opening in openings]
    turns = [opening.turn for opening in openings]
    unfinished = [i for i, turn in enumerate(turns) if not chat.is_finished(turn)]
    continued = sampler.continue_turns(
        actor,
        [questions[i] for i in unfinished],
        [turns[i] for i in unfinished],
        spec=dataclasses.replace(spec, num_samples=1),
    )
    for i, (turn,) in zip(unfinished, continued, strict=True):
        turns[i] = turn
    facts = judge(
        [(o.problem, sampler.text(turn)) for o, turn in zip(openings, turns, strict=True)]
    )
    return [
        Episode(
            o.problem.id,
            o.problem.level,
            (*question, dataclasses.replace(turn, facts=turn_facts)),
            o.facts,
        )
        for o, question, turn, turn_facts in zip(openings, questions, turns, facts, strict=True)
    ]


def _first_different_line(chat: Chat, episode: Episode, original: Turn) -> int:
    """First line in which an attempt differs from its original; the last line if none does."""
    lines = chat.text(episode.attempt).split('\n')
    pairs = itertools.zip_longest(lines, chat.text(original).split('\n'))
    first = next((i for i, (line, before) in enumerate(pairs) if line != before), len(lines))
    return min(first, len(lines) - 1)
