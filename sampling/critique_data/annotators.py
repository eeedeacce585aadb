"""Annotators that use a model: critiques from Monte Carlo rollouts, or sampled from a critic.

The interface is `Annotator` of data/critiques/oracle.py; see docs/methods.md, "Critique data".
"""

import collections
import functools
from collections.abc import Sequence
from typing import NamedTuple

from elenchus.data.critiques import grammars
from elenchus.data.critiques.oracle import Annotator, ConstructedAttempt
from elenchus.data.grading import answers
from elenchus.data.grading.judge import Judge
from elenchus.data.lab import task
from elenchus.data.records import Problem, Turn
from elenchus.model.transformer import Transformer
from elenchus.sampling.critique_data import constructions, step_labels
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.sample_spec import SampleSpec

Successes = dict[int, int]
"""Line index -> number of rollouts from the line's end that reached the reference answer."""


def monte_carlo_annotator(
    sampler: Sampler,
    actor: Transformer,
    writer: Transformer | None,
    *,
    judge: Judge,
    grammar: grammars.Grammar,
    threshold: float,
    spec: SampleSpec,
    labels: str = 'threshold',
) -> Annotator:
    """Returns an annotator that judges steps by rollouts of the actor.

    It needs no model stronger than the actor and no labels of steps. With the `labels` 'threshold'
    a line is wrong if it is the first one after which fewer than `threshold * spec.num_samples`
    continuations reach the reference answer; the critique stops there. The annotator uses the
    reference answer and the `location` of an attempt, before which nothing is wrong. It ignores the
    kind of mistake.

    The words before each verdict come from `writer`, which sees only the question and solves it:
    its line of the same name explains the value. If `writer` is None, the words are the numbers of
    successes. Words and verdict may therefore disagree. Attempts may use max_tokens['attempt'] *
    spec.num_samples request ids each, from spec.first_id.
    """

    def annotate(items: Sequence[ConstructedAttempt]) -> list[str | None]:
        """Returns the critiques' texts."""
        successes = count_successes(sampler, actor, items, judge=judge, spec=spec)
        correct = [facts.correct for facts in judge([(p.problem, p.attempt) for p in items])]
        workings = [None] * len(items)
        if writer is not None:
            workings = _work_out_questions(sampler, writer, items, spec=spec)
        label = functools.partial(
            step_labels.first_wrong, labels, num_rollouts=spec.num_samples, threshold=threshold
        )
        texts = []
        for item, counts, is_correct, working in zip(
            items, successes, correct, workings, strict=True
        ):
            wrong = label(counts, correct=is_correct, problem=item.problem)
            lines = item.attempt.rstrip().split('\n')
            if working is None:
                words = _words_from_counts(lines, counts, spec.num_samples)
            else:
                words = _words_from_working(lines, working, wrong)
            texts.append(grammar.write(_make_critique(words, wrong, is_correct=is_correct)))
        return texts

    return annotate


def model_annotator(
    sampler: Sampler, critic: Transformer, *, grammar: grammars.Grammar, spec: SampleSpec
) -> Annotator:
    """Returns an annotator that samples critiques from a checkpoint, one per attempt.

    A guide turn shows it `guidance`. The annotation is None if the critique was cut off or has no
    final verdict, or if the attempt, tokenised again, is longer than allowed. The truth of the
    verdict is not checked here. spec.num_samples must be 1.
    """
    chat, limit = sampler.chat, sampler.max_tokens['attempt']

    def annotate(items: Sequence[ConstructedAttempt]) -> list[str | None]:
        """Returns the critiques' texts."""
        encoded = [chat.tokenizer.encode(item.attempt) for item in items]
        fitting = [i for i, tokens in enumerate(encoded) if len(tokens) <= limit]
        conversations = [
            (
                *chat.question_turns(items[i].problem.question, guidance(items[i], grammar)),
                chat.sampled_turn('attempt', (*encoded[i], chat.end_id)[:limit], ()),
            )
            for i in fitting
        ]
        groups = sampler.sample_turns(critic, conversations, 'critique', spec=spec)
        texts: list[str | None] = [None] * len(items)
        for i, (turn,) in zip(fitting, groups, strict=True):
            text = sampler.text(turn)
            if text is not None and grammar.parse(text).final_correct is not None:
                texts[i] = text
        return texts

    return annotate


def guidance(item: ConstructedAttempt, grammar: grammars.Grammar) -> str:
    """Writes the guide turn of `model_annotator`: the reference answer and the known mistake.

    The lab's closed vocabulary has no words for kinds, and its lines count from 0.
    """
    answer, at = item.problem.answer, item.location
    if grammar is grammars.LAB:
        return f'answer : {answer}' + ('' if at is None else f' ; wrong : {" ".join(str(at))}')
    location = '' if at is None else f' All steps before step {at + 1} are right.'
    kind = '' if item.kind is None else f' Step {at + 1} is wrong: {item.kind}.'
    return f'The reference answer is {answer}.{location}{kind}'


def count_successes(
    sampler: Sampler,
    actor: Transformer,
    items: Sequence[ConstructedAttempt],
    *,
    judge: Judge,
    spec: SampleSpec,
) -> list[Successes]:
    """Counts for each line how many of `spec.num_samples` rollouts from its end are correct.

    Omits lines before the attempt's location, blank lines and the last line. Attempts at a problem
    that share a prefix share its rollouts. A prefix without room to continue has 0 successes.
    """
    # Keyed by problem and tokens, so that a shared prefix is rolled out only once.
    openings: dict[tuple[str, tuple[int, ...]], tuple[Problem, Turn]] = {}
    keys: list[dict[int, tuple]] = []  # line -> key in `openings`, by item
    for item in items:
        lines = item.attempt.rstrip().split('\n')
        keys.append({})
        for i in range(item.location or 0, len(lines) - 1):
            if lines[i].strip():
                turn = constructions.turn_from_lines(sampler.chat, 'attempt', lines[: i + 1])
                keys[-1][i] = key = (item.problem.id, turn.tokens)
                if len(turn.tokens) < sampler.max_tokens['attempt']:
                    openings[key] = (item.problem, turn)
    groups = sampler.continue_turns(
        actor,
        [sampler.chat.question_turns(problem.question) for problem, _ in openings.values()],
        [turn for _, turn in openings.values()],
        spec=spec,
    )
    rollouts = [(key, turn) for key, turns in zip(openings, groups, strict=True) for turn in turns]
    facts = judge([(openings[key][0], sampler.text(turn)) for key, turn in rollouts])
    successes = collections.Counter(
        key for (key, _), fact in zip(rollouts, facts, strict=True) if fact.correct
    )
    return [{i: successes[key] for i, key in lines.items()} for lines in keys]


# Words of a critique


class _Words(NamedTuple):
    """Text of a critique: (sentence, explanation) by line index, and the one on the answer."""

    lines: dict[int, tuple[str, str]]
    final: str


def _make_critique(words: _Words, wrong: int | None, *, is_correct: bool) -> grammars.Critique:
    """Critique with verdicts up to the first wrong line; `is_correct` is of the answer."""
    steps = tuple(
        grammars.StepVerdict(sentence, i != wrong, explanation)
        for i, (sentence, explanation) in words.lines.items()
        if wrong is None or i <= wrong
    )
    return grammars.Critique(steps, wrong is None and is_correct, words.final)


def _words_from_counts(lines: Sequence[str], successes: Successes, num_rollouts: int) -> _Words:
    """Words in free text: the numbers of successful rollouts."""
    explanations = {
        i: f'Of {num_rollouts} continuations from here, {successes[i]} reach the reference answer.'
        if i in successes
        else 'Right solutions begin like this.'
        for i, line in enumerate(lines[:-1])
        if line.strip()
    }
    answer = answers.extract_answer('\n'.join(lines))  # as the judge reads it
    final = f'The answer is {answer}.' if answer else 'There is no answer.'
    return _Words({i: (lines[i].strip(), why) for i, why in explanations.items()}, final)


def _words_from_working(
    lines: Sequence[str], working: dict[str, list[str]], wrong: int | None
) -> _Words:
    """Words on the lab: the writer's line of the same name, and the attempt's difference from it.

    A line that the writer does not have is replaced by the attempt's own.
    """
    words = {}
    for i, line in enumerate(lines[:-1]):
        if line.strip():
            parts = line.strip().split(' ; ')
            reference = working.get(parts[0].split()[0], parts)
            difference = _difference(parts[-1], reference[-1])
            words[i] = (reference[0], ' ; '.join((*reference[1:-1], *difference)))
    *_, answer = working.get('answer', [''])[0].partition(' : ')
    final = ''.join(_difference(answer, answers.extract_answer(lines[-1]) or ''))
    return _Words(words, final if wrong is None else '')


def _difference(first: str, second: str) -> tuple[str, ...]:
    """`name first - second = difference` if both end with a digit, else `first` alone."""
    if first[-1:].isdigit() and second[-1:].isdigit():
        return (f'{first[:-1]}{task.difference(int(first[-1]), int(second[-1]))}',)
    return (first,)


def _work_out_questions(
    sampler: Sampler, writer: Transformer, items: Sequence[ConstructedAttempt], *, spec: SampleSpec
) -> list[dict[str, list[str]]]:
    """Samples the writer's greedy working of each question: its lines by their first words.

    Each line is split into its parts. A question is worked out once for all its attempts.
    """
    problems = {item.problem.id: item.problem for item in items}
    groups = sampler.sample_turns(
        writer,
        [sampler.chat.question_turns(problem.question) for problem in problems.values()],
        'critique',
        spec=SampleSpec.greedy(spec.method),
    )
    # Reversed, so that the first of two lines with the same name wins.
    workings = {
        id: {
            line.split()[0]: line.strip().split(' ; ')
            for line in reversed(sampler.chat.text(turn).split('\n'))
            if line.split()
        }
        for id, (turn,) in zip(problems, groups, strict=True)
    }
    return [workings[item.problem.id] for item in items]
