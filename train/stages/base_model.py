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
RIGHT_SHARE = 0.3  # of criticised attempts


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
    if kind == 'drill':
        return drill(chat, index)
    form = forms.FORMS[data.form]
    if kind == 'refinement':
        form = dataclasses.replace(form, first_ranks=forms.PRETRAINING_RANKS)
    else:
        form = dataclasses.replace(form, rank_ratio=forms.PRETRAINING_RATIO)
    problem = forms.generate_problem(seed=data.seed + 1, split='train', index=index, form=form)
    rng = random.Random(problem.id)
    if kind == 'worked':
        text = pretraining.worked_solution(problem.question)
        return document(chat, problem.question, text, role='critique')
    if kind == 'attempt':
        text = conversations.demonstrate(problem.question, rng=rng)
        return document(chat, problem.question, text, role='attempt')
    if kind == 'critique':
        return critique_example(chat, problem, rng=rng)
    return refinement_example(chat, conversations.converse(problem, rng=rng))


def critique_example(chat: Chat, problem: Problem, *, rng: random.Random) -> Example:
    """Returns an attempt, mostly a flawed one, with its critique, which is trained."""
    right = conversations.demonstrate(problem.question, rng=rng)
    worded = dataclasses.replace(problem, solution=right)
    flawed = mistakes.corrupt(worded, rng=rng, first_kind=rng.choice(LIKELY_KINDS))
    turns = criticised_attempt(chat, problem, right if rng.random() < RIGHT_SHARE else flawed)
    return chat.example(turns, trained=('critique',), weights=None, last_only=True)


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
