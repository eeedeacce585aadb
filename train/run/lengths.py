"""Checks that the longest conversations fit, and drops problems whose questions are too long."""

import bisect
import dataclasses
from collections.abc import Callable, Mapping, Sequence

from elenchus.data.records import Problem
from elenchus.train.config import checks
from elenchus.train.config.run_settings import REINFORCED, RunSettings
from elenchus.train.rl.actor_episodes import turn_overhead
from elenchus.train.run import inputs as inputs_lib
from elenchus.train.run.inputs import RunInputs
from elenchus.train.run.problems import NUM_NAMED

LengthCheck = Callable[[int], None]
"""Raises ValueError, naming the field, if a conversation with a question of so many tokens does
not fit."""


def length_check(settings: RunSettings, inputs: RunInputs) -> LengthCheck:
    """Returns the check of lengths for the guides and hints of a run's problems."""
    chat, problems = inputs.chat, inputs.train_problems
    guide = inputs_lib.longest_guide(settings, chat, problems, grammar=inputs.grammar)
    hint = inputs_lib.longest_hint(settings, chat, problems)

    def check(longest_question: int) -> None:
        checks.check_lengths(
            settings,
            longest_question,
            longest_guide=guide,
            longest_hint=hint,
            overhead=chat.overhead,
            turn_overhead=turn_overhead(chat, settings.reinforce.turns.episode),
        )

    return check


def check_questions(settings: RunSettings, inputs: RunInputs) -> None:
    """Raises ValueError if a conversation does not fit; it names the questions at fault, if any."""
    problems = (*inputs.train_problems, *inputs.test_problems)
    num_tokens = question_lengths(inputs)
    longest, check = max(num_tokens.values()), length_check(settings, inputs)
    try:
        check(longest)
    except ValueError as error:
        room = question_room(check, longest)
        if room < 0:
            raise
        long = [p for p in problems if num_tokens[p] > room]
        raise ValueError(
            f"{error}; or set data.too_long='drop' to leave out {len(long)} of {len(problems)} "
            f'questions, those of more than {room} tokens: '
            f'{name_questions(long, num_tokens, inputs.places)}'
        ) from None


def question_lengths(inputs: RunInputs) -> dict[Problem, int]:
    """Returns the tokens of each problem's question in the prompt of an attempt."""
    problems = (*inputs.train_problems, *inputs.test_problems)
    return {p: inputs_lib.question_tokens(inputs.chat, p) for p in problems}


def question_room(check: LengthCheck, most: int) -> int:
    """Returns the tokens of the longest question, up to `most`, that passes a check.

    Returns -1 if not even an empty question does: then other settings are at fault.
    """
    # What a conversation needs grows with the question.
    return bisect.bisect_left(range(most + 1), True, key=lambda n: not fits(check, n)) - 1


def fits(check: LengthCheck, num_tokens: int) -> bool:
    """Returns whether a question of so many tokens passes a check."""
    try:
        check(num_tokens)
    except ValueError:
        return False
    return True


def drop_too_long(settings: RunSettings, inputs: RunInputs) -> RunInputs:
    """Returns the inputs without the problems for whose question there is no room, and counts them.

    This is for data.too_long='drop'; with 'refuse' the inputs are returned as they are. Raises
    ValueError if too few problems remain for a stage.
    """
    alone = dataclasses.replace(inputs, train_problems=[])  # without guides and hints
    if settings.data.too_long != 'drop' or not fits(length_check(settings, alone), 0):
        return inputs
    num_tokens = question_lengths(inputs)

    def fits_alone(problem: Problem) -> bool:
        own = dataclasses.replace(inputs, train_problems=[problem])
        return fits(length_check(settings, own), num_tokens[problem])

    # Guides and hints are of training problems, so with fewer problems there may be more room.
    kept = [problem for problem in inputs.train_problems if fits_alone(problem)]
    kept = dataclasses.replace(inputs, train_problems=kept)
    while kept.train_problems and kept.test_problems:
        longest = max(question_lengths(kept).values())
        room = question_room(length_check(settings, kept), longest)
        if room == longest:
            break
        kept = dataclasses.replace(
            kept,
            train_problems=[p for p in kept.train_problems if num_tokens[p] <= room],
            test_problems=[p for p in kept.test_problems if num_tokens[p] <= room],
        )
    _check_remaining(settings, kept)
    return _with_counts(kept, inputs, num_tokens)


def _check_remaining(settings: RunSettings, kept: RunInputs) -> None:
    """Raises ValueError if a split is empty, or if a step of `reinforce` has too few problems."""
    for split, problems in (('train', kept.train_problems), ('test', kept.test_problems)):
        if not problems:
            raise ValueError(
                f"data.too_long='drop' leaves no {split} problem: all questions are too long; "
                'raise model.max_length and the lengths of sampling, or lower sampling.*_tokens'
            )
    least = settings.reinforce.num_problems
    if any(stage in REINFORCED for stage in settings.stages) and len(kept.train_problems) < least:
        raise ValueError(
            f"data.too_long='drop' leaves {len(kept.train_problems)} train problems, fewer than "
            f'reinforce.num_problems={least}'
        )


def _with_counts(
    kept: RunInputs, before: RunInputs, num_tokens: Mapping[Problem, int]
) -> RunInputs:
    """Returns inputs whose counts say what has been left out, and which questions these are."""
    counts = {}
    for split, problems in (('train', kept.train_problems), ('test', kept.test_problems)):
        remaining = set(problems)
        all_problems = before.train_problems if split == 'train' else before.test_problems
        long = [p for p in all_problems if p not in remaining]
        counts[split] = dataclasses.replace(
            before.counts[split],
            problems=len(problems),
            too_long=len(long),
            too_long_ids=tuple(p.id for p in sorted(long, key=lambda p: -num_tokens[p])),
        )
    return dataclasses.replace(kept, counts=counts)


def name_questions(
    problems: Sequence[Problem], num_tokens: Mapping[Problem, int], places: Mapping[Problem, str]
) -> str:
    """Names problems, the longest question first, with their places and lengths."""
    named = []
    for problem in sorted(problems, key=lambda p: -num_tokens[p])[:NUM_NAMED]:
        place = places.get(problem, problem.id)
        where = f'{place}, ' if place != problem.id else ''
        named.append(f'{problem.id!r} ({where}{num_tokens[problem]} tokens)')
    rest = len(problems) - len(named)
    return ', '.join(named + ([f'{rest} more'] if rest else []))
