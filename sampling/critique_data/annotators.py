"""Annotators that ask a model: the interface is that of data/critiques/oracle.py (METHODS 2).

What is spent is counted by the sampler's engine where that is an `engine.Metered`.
"""

import collections
from collections.abc import Sequence
from typing import NamedTuple

from elenchus.data.critiques import grammars
from elenchus.data.critiques.oracle import Annotator, ConstructedAttempt
from elenchus.data.grading import answers
from elenchus.data.grading.judge import Judge
from elenchus.data.lab import task
from elenchus.data.records import Problem, Turn
from elenchus.model.transformer import Transformer
from elenchus.sampling.critique_data import constructions as path_lib
from elenchus.sampling.engine.sampling_methods import Greedy, Method
from elenchus.sampling.episodes import Sampler

Successes = dict[int, int]
"""Of the rollouts from each line's end, by the line's index, those that reached the answer."""


def monte_carlo(
    sampler: Sampler,
    actor: Transformer,
    writer: Transformer | None,
    *,
    judge: Judge,
    grammar: grammars.Grammar,
    num_rollouts: int,
    threshold: float,
    method: Method,
    seed: int,
    first_id: int,
) -> Annotator:
    """Verdicts by rollouts of the actor: no model stronger than it, no knowledge of true steps.

    A line is wrong where it is the first from whose end fewer than `threshold * num_rollouts`
    continuations reach the reference answer; there the critique stops. Known are the reference
    answer and a path's location, before which nothing is wrong. The kind is not used.

    The words before each verdict come from `writer`, who sees nothing but the question: it works
    the question out, and its line of the same name says how the value comes about. With None the
    words are the numbers of successes. Words and verdict may therefore disagree. first_id must
    leave max_tokens['attempt'] * num_rollouts ids a path.
    """

    def annotate(paths: Sequence[ConstructedAttempt]) -> list[str | None]:
        found = rollout_successes(
            sampler,
            actor,
            paths,
            judge=judge,
            num_rollouts=num_rollouts,
            method=method,
            seed=seed,
            first_id=first_id,
        )
        right = [fact['correct'] for fact in judge([(p.problem, p.attempt) for p in paths])]
        told = [None] * len(paths)
        if writer is not None:
            told = _worked(sampler, writer, paths, method=method, seed=seed, first_id=first_id)
        return [
            grammar.write(
                _critique(path, *facts, num_rollouts=num_rollouts, least=threshold * num_rollouts)
            )
            for path, *facts in zip(paths, found, right, told, strict=True)
        ]

    return annotate


def model(
    sampler: Sampler,
    critic: Transformer,
    *,
    grammar: grammars.Grammar,
    method: Method,
    seed: int,
    first_id: int,
) -> Annotator:
    """Critiques by a checkpoint that is told, in a guide's turn, what `guidance` says.

    None where a critique was cut off or has no final verdict, and of an attempt that, encoded anew,
    is longer than one may be. Whether a verdict is true is not checked here.
    """
    chat, limit = sampler.chat, sampler.max_tokens['attempt']

    def annotate(paths: Sequence[ConstructedAttempt]) -> list[str | None]:
        encoded = [chat.tokenizer.encode(path.attempt) for path in paths]
        fitting = [i for i, tokens in enumerate(encoded) if len(tokens) <= limit]
        conversations = [
            (
                *chat.question_turns(paths[i].problem.question, guidance(paths[i], grammar)),
                chat.sampled_turn('attempt', (*encoded[i], chat.end_id)[:limit], ()),
            )
            for i in fitting
        ]
        made = sampler.turns(
            critic,
            conversations,
            'critique',
            num_samples=1,
            method=method,
            seed=seed,
            first_id=first_id,
        )
        texts: list[str | None] = [None] * len(paths)
        for i, (turn,) in zip(fitting, made, strict=True):
            text = sampler.text(turn)
            if text is not None and grammar.parse(text).final_correct is not None:
                texts[i] = text
        return texts

    return annotate


def guidance(path: ConstructedAttempt, grammar: grammars.Grammar) -> str:
    """What the annotating model is told: the reference answer and what is known of the mistake.

    The lab's closed vocabulary has no words for kinds, and its lines count from 0.
    """
    answer, at = path.problem.answer, path.location
    if grammar is grammars.LAB:
        return f'answer : {answer}' + ('' if at is None else f' ; wrong : {" ".join(str(at))}')
    known = '' if at is None else f' All steps before step {at + 1} are right.'
    kind = '' if path.kind is None else f' Step {at + 1} is wrong: {path.kind}.'
    return f'The reference answer is {answer}.{known}{kind}'


def rollout_successes(
    sampler: Sampler,
    actor: Transformer,
    paths: Sequence[ConstructedAttempt],
    *,
    judge: Judge,
    num_rollouts: int,
    method: Method,
    seed: int,
    first_id: int,
) -> list[Successes]:
    """How many of `num_rollouts` continuations from the end of each line reach the answer.

    Of a path's lines before its location, blank ones and the last one there are none. A beginning
    that several attempts at a problem share is continued once. One that leaves no room to continue
    reaches nothing.
    """
    begun: dict[tuple[str, tuple[int, ...]], tuple[Problem, Turn]] = {}
    keys: list[dict[int, tuple]] = []
    for path in paths:
        lines = path.attempt.split('\n')
        keys.append({})
        for i in range(path.location or 0, len(lines) - 1):
            if lines[i].strip():
                turn = path_lib.opening(sampler.chat, 'attempt', lines[: i + 1])
                keys[-1][i] = key = (path.problem.id, turn.tokens)
                if len(turn.tokens) < sampler.max_tokens['attempt']:
                    begun[key] = (path.problem, turn)
    made = sampler.continued(
        actor,
        [sampler.chat.question_turns(problem.question) for problem, _ in begun.values()],
        [turn for _, turn in begun.values()],
        num_samples=num_rollouts,
        method=method,
        seed=seed,
        first_id=first_id,
    )
    tried = [key for key in begun for _ in range(num_rollouts)]
    turns = [turn for group in made for turn in group]
    facts = judge(
        [(begun[key][0], sampler.text(turn)) for key, turn in zip(tried, turns, strict=True)]
    )
    reached = collections.Counter(
        key for key, fact in zip(tried, facts, strict=True) if fact['correct']
    )
    return [{i: reached[key] for i, key in lines.items()} for lines in keys]


def first_wrong(successes: Successes, *, least: float) -> int | None:
    """The first line from which fewer than `least` rollouts succeed; None where there is none."""
    return next((i for i, count in sorted(successes.items()) if count < least), None)


class _Words(NamedTuple):
    """What a critique says: (sentence, explanation) of lines by index, and of the answer."""

    lines: dict[int, tuple[str, str]]
    final: str


def _critique(
    path: ConstructedAttempt,
    successes: Successes,
    answered: bool,
    worked: dict[str, list[str]] | None,
    *,
    num_rollouts: int,
    least: float,
) -> grammars.Critique:
    """The critique of a path that stops at its first wrong line; `answered` is its answer right."""
    lines, wrong = path.attempt.split('\n'), first_wrong(successes, least=least)
    words = (
        _counted(lines, successes, num_rollouts)
        if worked is None
        else _derived(lines, worked, wrong)
    )
    steps = tuple(
        grammars.StepVerdict(sentence, i != wrong, explanation)
        for i, (sentence, explanation) in words.lines.items()
        if wrong is None or i <= wrong
    )
    return grammars.Critique(steps, wrong is None and answered, words.final)


def _counted(lines: Sequence[str], successes: Successes, num_rollouts: int) -> _Words:
    """Words for free text: how many rollouts succeed."""
    told = {
        i: f'Of {num_rollouts} continuations from here, {successes[i]} reach the reference answer.'
        if i in successes
        else 'Right solutions begin like this.'
        for i, line in enumerate(lines[:-1])
        if line.strip()
    }
    answer = answers.extract_answer(lines[-1])
    final = f'The answer is {answer}.' if answer else 'There is no answer.'
    return _Words({i: (lines[i].strip(), why) for i, why in told.items()}, final)


def _derived(lines: Sequence[str], worked: dict[str, list[str]], wrong: int | None) -> _Words:
    """Words for the lab: the writer's line of the same name, and how far off the attempt is.

    Where the writer has no such line, the attempt's own stands for it.
    """
    told = {}
    for i, line in enumerate(lines[:-1]):
        if line.strip():
            own = line.strip().split(' ; ')
            parts = worked.get(own[0].split()[0], own)
            told[i] = (parts[0], ' ; '.join((*parts[1:-1], *_compared(own[-1], parts[-1]))))
    *_, answer = worked.get('answer', [''])[0].partition(' : ')
    final = ''.join(_compared(answer, answers.extract_answer(lines[-1]) or ''))
    return _Words(told, final if wrong is None else '')


def _compared(told: str, found: str) -> tuple[str, ...]:
    """`name told - found = difference`, where both end with a digit."""
    if told[-1:].isdigit() and found[-1:].isdigit():
        return (f'{told[:-1]}{task.difference(int(told[-1]), int(found[-1]))}',)
    return (told,)


def _worked(
    sampler: Sampler,
    writer: Transformer,
    paths: Sequence[ConstructedAttempt],
    *,
    method: Method,
    seed: int,
    first_id: int,
) -> list[dict[str, list[str]]]:
    """The writer's working of each path's question: its lines, in parts, by their first words."""
    problems = {path.problem.id: path.problem for path in paths}
    made = sampler.turns(
        writer,
        [sampler.chat.question_turns(problem.question) for problem in problems.values()],
        'critique',
        num_samples=1,
        method=Greedy(method.banned),
        seed=seed,
        first_id=first_id,
    )
    read = {
        id: {
            line.split()[0]: line.strip().split(' ; ')
            for line in reversed(sampler.chat.text(turn).split('\n'))
            if line.split()
        }
        for id, (turn,) in zip(problems, made, strict=True)
    }
    return [read[path.problem.id] for path in paths]
