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
from elenchus.train.stages.actor import conversation_turns, criticised_attempt
from elenchus.train.stages.sft import LazyExamples


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
        return tail_drill(chat, index) if tail else drill(chat, index)
    # Only a critique may tell what a question leaves out, so other texts state every constant.
    form = dataclasses.replace(forms.FORMS[data.form], state_constants=kind != 'refinement')
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
        attempt = mistakes.corrupt(problem, rng=rng, first_kind='arithmetic')
        return chat.example(
            criticised_attempt(chat, problem, right if rng.random() < 0.3 else attempt),
            trained=(kind,),
            weights=None,
            last_only=True,
        )
    turns = conversation_turns(chat, conversations.converse(problem, rng=random.Random(problem.id)))
    return chat.example(turns, trained=(kind,), weights=None, last_only=True)


def tail_drill(chat: Chat, index: int) -> Example:
    """Returns a drill in numbers of two digits, trained on all that its lines do not choose."""
    question, text = pretraining.tail_drill(index)
    semicolon, newline = chat.tokenizer.encode(';')[0], chat.tokenizer.newline_id

    def weights(turn: Turn) -> np.ndarray:
        tokens = np.array(turn.tokens)
        starts = np.cumsum(tokens == newline)
        # A line's first part is its choice; the part ends at the line's first semicolon.
        ends = [np.flatnonzero((starts == n) & (tokens == semicolon))[0] for n in set(starts)]
        known = np.ones(len(tokens), np.float32)
        for n, end in zip(sorted(set(starts)), sorted(ends), strict=True):
            known[np.flatnonzero(starts == n)[0] : end] = 0
        return known

    return document(chat, question, text, role='critique', weights=weights)


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
