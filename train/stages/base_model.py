"""Documents that the base model is trained on: solutions, or the lab's mixture of drills."""

import bisect
import dataclasses
import random
from collections.abc import Sequence

import numpy as np

from elenchus.data.critiques import mistakes
from elenchus.data.lab import conversations, forms, pretraining, task
from elenchus.data.records import Example, Problem, Turn
from elenchus.data.text.chat import Chat
from elenchus.train.config.run_settings import BaseSettings, DataSettings
from elenchus.train.run.inputs import RunInputs
from elenchus.train.stages.actor import criticised_attempt, refinement_example
from elenchus.train.stages.sft import LazyExamples

LIKELY_KINDS = (task.FACT, 'arithmetic')  # of mistakes, tried first


def base_examples(
    settings: BaseSettings, inputs: RunInputs, *, data: DataSettings
) -> Sequence[Example]:
    """Returns the documents of the base model: on the lab a mixture, elsewhere solutions."""
    if data.source == 'lab':
        return LazyExamples(
            settings.num_documents,
            lambda index: lab_document(settings, inputs.chat, index, data=data),
        )
    # Real text comes in few documents: those that are too long are then dropped, not refused.
    problems = inputs.train_problems
    return [
        document(inputs.chat, problem.question, problem.solution, role='attempt')
        for problem in (problems[i % len(problems)] for i in range(settings.num_documents))
    ]


def lab_document(settings: BaseSettings, chat: Chat, index: int, *, data: DataSettings) -> Example:
    """Returns document `index` of the lab's mixture, of a kind drawn by `base.shares`."""
    kinds, shares = zip(*dataclasses.asdict(settings.shares).items(), strict=True)
    kind = kinds[bisect.bisect(np.cumsum(shares)[:-1], random.Random(index).random())]
    tail = data.form == 'tail'
    if kind == 'drill':
        return drill(chat, index)
    form = forms.FORMS[data.form]
    if tail and kind != 'refinement':  # whose constants have no fixed value
        form = dataclasses.replace(form, rank_ratio=forms.PRETRAINING_RATIO)
    problem = forms.generate_problem(seed=data.seed + 1, split='train', index=index, form=form)
    if kind == 'worked':
        text = pretraining.worked_solution(problem.question)
        return document(chat, problem.question, text, role='critique')
    if kind == 'attempt':
        rng = random.Random(problem.id)
        text = conversations.demonstrate(problem.question, rng=rng) if tail else problem.solution
        return document(chat, problem.question, text, role='attempt')
    return tail_conversation(chat, problem, kind) if tail else conversation(chat, problem, kind)


def conversation(chat: Chat, problem: Problem, kind: str) -> Example:
    """Returns a flawed attempt with its critique, and with its refinement if `kind` says so."""
    attempt = mistakes.corrupt(problem, rng=random.Random(problem.id))
    turns = criticised_attempt(chat, problem, attempt)
    if kind == 'refinement':
        turns = (*turns, chat.text_turn('refinement', problem.solution))
    return chat.example(turns, trained=(kind,), weights=None, last_only=True)


def tail_conversation(chat: Chat, problem: Problem, kind: str) -> Example:
    """Returns a conversation of the tail form, trained on its critique or its refinement."""
    if kind == 'critique':
        rng = random.Random(problem.id)
        right = conversations.demonstrate(problem.question, rng=rng)
        problem = dataclasses.replace(problem, solution=right)
        attempt = mistakes.corrupt(problem, rng=rng, first_kind=rng.choice(LIKELY_KINDS))
        return chat.example(
            criticised_attempt(chat, problem, right if rng.random() < 0.3 else attempt),
            trained=(kind,),
            weights=None,
            last_only=True,
        )
    return refinement_example(chat, conversations.converse(problem, rng=random.Random(problem.id)))


def drill(chat: Chat, index: int) -> Example:
    """Returns look-ups and sums, of which only the digits that can be known are trained."""
    question, text = pretraining.drill(index)
    names, equals = (chat.tokenizer.encode(word) for word in (' '.join(task.NAMES), '='))

    def weights(turn: Turn) -> np.ndarray:
        # A digit can be known if it follows a name that was defined, or an equals sign.
        known = np.isin(turn.tokens[:-1], [*names, *equals])
        return np.concatenate([[0.0], known]).astype(np.float32)

    return document(chat, question, text, role='critique', weights=weights)


def document(chat: Chat, question: str, text: str, *, role: str, weights=None) -> Example:
    """Returns a question and one turn, which is trained."""
    turns = (*chat.question_turns(question), chat.text_turn(role, text))
    return chat.example(turns, trained=(role,), weights=weights, last_only=True)
