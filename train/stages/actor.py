"""Examples that the actor is fine-tuned on: demonstrations, refinements and guided solutions."""

import random
from collections.abc import Iterator, Sequence

from elenchus.data.critiques import mistakes, oracle
from elenchus.data.grading import answers
from elenchus.data.lab import conversations, task, teacher
from elenchus.data.records import Example, Problem, Turn
from elenchus.data.text.chat import Chat
from elenchus.sampling.exploration import proposals
from elenchus.train.config.run_settings import ActorSettings

GUIDED_TRIES = 20
"""Tries of a fallible teacher to reach a known answer, before it copies the reference."""


def actor_examples(
    settings: ActorSettings, chat: Chat, problems: Sequence[Problem], *, plain: bool = True
) -> list[Example]:
    """Returns the actor's examples; without `plain`, only those of more than one turn."""
    return [
        chat.example(turns, trained=(turns[-1].role,), weights=None, last_only=True)
        for turns in actor_conversations(settings, chat, problems)
        if plain or len(turns) > 2
    ]


def demonstration_examples(
    settings: ActorSettings, chat: Chat, problems: Sequence[Problem]
) -> list[Example]:
    """Returns the actor's examples of the form question -> solution."""
    return [
        chat.example(turns, trained=('attempt',), weights=None, last_only=True)
        for turns in actor_conversations(settings, chat, problems)
        if len(turns) == 2
    ]


def actor_conversations(
    settings: ActorSettings, chat: Chat, problems: Sequence[Problem]
) -> Iterator[tuple[Turn, ...]]:
    """Yields for each problem a demonstration, refinements, and guided solutions."""
    kinds, error_rate = tuple(proposals.GUIDES), settings.teacher_error_rate
    for i, problem in enumerate(problems[: settings.num_problems]):
        rng = random.Random(problem.id)
        if problem.source == 'lab' and task.modulus(problem.question) == 100:
            yield from tail_conversations(settings, chat, problem, rng=rng)
            continue
        solution = demonstrate(problem, error_rate, rng=rng)
        yield (*chat.question_turns(problem.question), chat.text_turn('attempt', solution))
        for _ in range(settings.refinements_per_problem):
            attempt = mistakes.corrupt(problem, rng=rng)
            refinement = demonstrate(problem, error_rate, rng=rng, after=attempt)
            turns = criticised_attempt(chat, problem, attempt)
            yield (*turns, chat.text_turn('refinement', refinement))
        for j in range(settings.guided_per_problem):
            kind = kinds[(i + j) % len(kinds)]
            question = chat.question_turns(problem.question, proposals.GUIDES[kind](problem))
            solution = demonstrate_guided(problem, error_rate, kind=kind, rng=rng)
            yield (*question, chat.text_turn('attempt', solution))


def tail_conversations(
    settings: ActorSettings, chat: Chat, problem: Problem, *, rng: random.Random
) -> Iterator[tuple[Turn, ...]]:
    """Yields a demonstration, unless the question needs an unstated constant, and refinements.

    What the actor is never told it can only learn from critiques.
    """
    known = not task.unstated_constants(problem.question)
    if known and rng.random() < settings.level_decay ** (problem.level - 1):
        solution = conversations.demonstrate(problem.question, rng=rng)
        yield (*chat.question_turns(problem.question), chat.text_turn('attempt', solution))
    for _ in range(settings.refinements_per_problem):
        yield conversation_turns(chat, conversations.converse(problem, rng=rng))


def conversation_turns(chat: Chat, conversation: conversations.Conversation) -> tuple[Turn, ...]:
    """Returns the turns of a conversation of the lab."""
    roles = ('attempt', 'critique', 'refinement')
    texts = zip(roles, conversation[1:], strict=True)
    return (
        *chat.question_turns(conversation.question),
        *(chat.text_turn(role, text) for role, text in texts),
    )


def demonstrate(
    problem: Problem, error_rate: float, *, rng: random.Random, after: str | None = None
) -> str:
    """Writes the solution that the actor learns: on the lab, that of a teacher who makes mistakes.

    As a refinement `after` a flawed attempt, it is right up to the line that the critique corrects.
    """
    if problem.source != 'lab':
        return problem.solution
    trusted = 0 if after is None else task.judge(problem.question, after).first_error + 1
    return teacher.demonstrate(
        problem.question, error_rate=error_rate, rng=rng, num_correct=trusted
    )


def demonstrate_guided(
    problem: Problem, error_rate: float, *, kind: str, rng: random.Random
) -> str:
    """Writes a solution with a guide: the rationale copied, or an answer that was given.

    Given the answer, a fallible teacher tries until it reaches it, correctly or by two mistakes
    that cancel, and copies the reference after GUIDED_TRIES.
    """
    if kind == 'answer_driven':
        for _ in range(GUIDED_TRIES):
            solution = demonstrate(problem, error_rate, rng=rng)
            if answers.extract_answer(solution) == problem.answer:
                return solution
    return problem.solution


def criticised_attempt(chat: Chat, problem: Problem, attempt: str) -> tuple[Turn, ...]:
    """Returns a question, an attempt and the oracle's critique of it."""
    critique = oracle.annotate(problem, attempt)
    turns = chat.text_turn('attempt', attempt), chat.text_turn('critique', critique)
    return (*chat.question_turns(problem.question), *turns)
