"""Examples that the actor is fine-tuned on: demonstrations, refinements and guided solutions."""

import random
from collections.abc import Iterator, Sequence

import numpy as np

from elenchus.data.critiques import (
    calculated_refinements,
    grammars,
    mistakes,
    oracle,
    text_refinements,
)
from elenchus.data.lab import conversations
from elenchus.data.records import Example, Problem, Turn
from elenchus.data.text.chat import Chat
from elenchus.sampling.exploration import proposals
from elenchus.train.config.run_settings import ActorSettings

RIGHT_SHARE = 0.15
"""Share of the lab's refinements that repeat a right attempt, as `refine='always'` asks."""

REFINEMENTS = {'stated': text_refinements.refine, 'calculator': calculated_refinements.refine}
"""How refinements of free text are made, by `actor.critiques`."""


def actor_examples(
    settings: ActorSettings, chat: Chat, problems: Sequence[Problem], *, plain: bool = True
) -> list[Example]:
    """Returns the actor's examples; without `plain`, only those of more than one turn."""
    examples = generate_examples(settings, chat, problems)
    return [e for is_plain, e in examples if e is not None and (plain or not is_plain)]


def demonstration_examples(
    settings: ActorSettings, chat: Chat, problems: Sequence[Problem]
) -> list[Example]:
    """Returns the actor's examples of the form question -> solution."""
    examples = generate_examples(settings, chat, problems)
    return [e for is_plain, e in examples if e is not None and is_plain]


def generate_examples(
    settings: ActorSettings, chat: Chat, problems: Sequence[Problem]
) -> Iterator[tuple[bool, Example | None]]:
    """Yields (is a plain demonstration, example): demonstration, refinements, guided solutions.

    Demonstrations, plain or guided, become fewer with the level; refinements do not. In place of a
    refinement for which the solution has no number to change there is None.
    """
    kinds = tuple(proposals.GUIDES)
    for i, problem in enumerate(problems[: settings.num_problems]):
        rng, question = random.Random(problem.id), problem.question
        is_demonstrated = rng.random() < settings.level_decay ** max(0, problem.level - 1)
        if is_demonstrated:
            yield True, example_of(chat, question, demonstrate(problem, rng=rng))
        for _ in range(settings.refinements_per_problem):
            yield False, refinement(chat, problem, rng=rng, critiques=settings.critiques)
        for j in range(settings.guided_per_problem if is_demonstrated else 0):
            guide = proposals.GUIDES[kinds[(i + j) % len(kinds)]](problem)
            yield False, example_of(chat, question, problem.solution, guide=guide)


def example_of(chat: Chat, question: str, solution: str, *, guide: str | None = None) -> Example:
    """Returns question and perhaps guide -> solution."""
    turns = (*chat.question_turns(question, guide), chat.text_turn('attempt', solution))
    return chat.example(turns, trained=('attempt',), weights=None, last_only=True)


def demonstrate(problem: Problem, *, rng: random.Random) -> str:
    """Writes a solution: the reference, on the lab in one of its orders."""
    if problem.source != 'lab':
        return problem.solution
    return conversations.demonstrate(problem.question, rng=rng)


def refinement(
    chat: Chat, problem: Problem, *, rng: random.Random, critiques: str = 'stated'
) -> Example | None:
    """Returns a flawed attempt, a critique and the refinement that follows; None if impossible.

    `critiques`: those of free text state a number, or are of the 'calculator'.
    """
    if problem.source == 'lab':
        talk = conversations.converse(problem, rng=rng, right_share=RIGHT_SHARE)
        return refinement_example(chat, talk)
    refine = REFINEMENTS[critiques]
    try:
        texts = refine(problem, rng=rng, grammar=_grammar(chat))._asdict()
    except mistakes.NoMistakeError:
        return None
    turns = (chat.text_turn(role, text) for role, text in texts.items())
    turns = (*chat.question_turns(problem.question), *turns)
    return chat.example(turns, trained=('refinement',), weights=None, last_only=True)


def refinement_example(chat: Chat, talk: conversations.Conversation) -> Example:
    """Returns a conversation of the lab, trained on what its refinement can know."""
    texts = {'attempt': talk.attempt, 'critique': talk.critique, 'refinement': talk.refinement}
    unknown = [id for name in talk.unknown for id in chat.tokenizer.encode(name)]

    def weights(turn: Turn) -> np.ndarray:
        # The digit behind the name of a constant that neither model nor critique can know.
        return 1.0 - np.isin([-1, *turn.tokens[:-1]], unknown).astype(np.float32)

    turns = (chat.text_turn(role, text) for role, text in texts.items())
    return chat.example(
        (*chat.question_turns(talk.question), *turns),
        trained=('refinement',),
        weights=weights,
        last_only=True,
    )


def criticised_attempt(chat: Chat, problem: Problem, attempt: str) -> tuple[Turn, ...]:
    """Returns a question, an attempt and the oracle's critique of it."""
    critique = grammars.as_worked(oracle.annotate(problem, attempt), _grammar(chat))
    turns = chat.text_turn('attempt', attempt), chat.text_turn('critique', critique)
    return (*chat.question_turns(problem.question), *turns)


def _grammar(chat: Chat) -> grammars.Grammar:
    """Returns the grammar of critiques in free text that the actor reads."""
    return grammars.WORKED if chat.prompts.grammar == 'worked' else grammars.RELEASED
