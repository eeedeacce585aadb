"""Supervised stages: the base model, the actor and the critic.

python -m scripts.stage --config configs/lab.py --workdir runs/lab --stage actor
"""

import bisect
import dataclasses
import pathlib
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from elenchus.data import records
from elenchus.data.critiques import mistakes, oracle
from elenchus.data.grading import answers
from elenchus.data.lab import task
from elenchus.data.records import Example, Problem, Turn
from elenchus.model import lora
from elenchus.model.transformer import Transformer
from elenchus.sampling.exploration import proposals
from elenchus.train import sft
from elenchus.train.run.workspace import Workspace, from_root

GUIDED_TRIES = 20


class Documents:
    """Examples made when read, so that a corpus costs no memory: examples[i] = make(i)."""

    def __init__(self, count: int, make: Callable[[int], Example]):
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Example:
        return self._make(int(index))


def base(workspace: Workspace, folder: pathlib.Path) -> dict:
    """The model everything starts from: a checkpoint or fresh weights, trained where asked."""
    s = workspace.settings.base
    given = s.checkpoint
    model = lora.merge(workspace.load_given(given)) if given else workspace.init_model()
    if not s.fit.num_steps:
        workspace.save_model(folder, model)
        return {'checkpoint': s.checkpoint}
    documents = Documents(s.num_documents, lambda i: base_document(workspace, i))
    if workspace.settings.data.source != 'lab':  # few texts: those too long are then left out
        documents = [documents[i] for i in range(len(documents))]
    return fit(workspace, folder, model, documents, settings=s.fit, name='base')


def base_document(workspace: Workspace, index: int) -> Example:
    """A question with its solution or, on the lab, one of the kinds that `base.shares` mixes."""
    s, data = workspace.settings.base, workspace.settings.data
    if data.source != 'lab':
        problem = workspace.train_problems[index % len(workspace.train_problems)]
        return document(workspace, problem.question, 'attempt', problem.solution)
    kinds, shares = zip(*dataclasses.asdict(s.shares).items(), strict=True)
    kind = kinds[bisect.bisect(np.cumsum(shares)[:-1], random.Random(index).random())]
    if kind == 'drill':
        return drill(workspace, index)
    problem = task.problem(seed=data.seed + 1, split='train', index=index)
    if kind == 'worked':
        return document(workspace, problem.question, 'critique', task.worked(problem.question))
    if kind == 'attempt':
        return document(workspace, problem.question, 'attempt', problem.solution)
    flawed = mistakes.corrupt(problem, rng=random.Random(problem.id))
    turns = criticised(workspace, problem, flawed)
    if kind == 'refinement':
        turns = (*turns, workspace.chat.written('refinement', problem.solution))
    return workspace.chat.example(turns, trained=(kind,), weights=None, last_only=True)


def drill(workspace: Workspace, index: int) -> Example:
    """Look-ups and sums; only the digits that can be known are trained."""
    question, text = task.drill(index)
    names, equals = (workspace.tokenizer.encode(w) for w in (' '.join(task.NAMES), '='))

    def known(turn: Turn) -> np.ndarray:
        told = np.isin(turn.tokens[:-1], [*names, *equals])
        return np.concatenate([[0.0], told]).astype(np.float32)

    return document(workspace, question, 'critique', text, weights=known)


def document(workspace, question: str, role: str, text: str, weights=None) -> Example:
    chat = workspace.chat
    turns = (*chat.question(question), chat.written(role, text))
    return chat.example(turns, trained=(role,), weights=weights, last_only=True)


def actor(workspace: Workspace, folder: pathlib.Path) -> dict:
    """SFT of the base on (question -> solution) and (question, flawed, critique -> solution)."""
    return fit(
        workspace,
        folder,
        base_to_train(workspace, workspace.settings.actor.lora, stage='actor'),
        actor_examples(workspace),
        settings=workspace.settings.actor.fit,
        name='actor',
    )


def actor_examples(workspace: Workspace, *, plain: bool = True) -> list[Example]:
    """The actor's SFT data: (question -> solution) where `plain`, and what teaches to converse."""
    return [
        workspace.chat.example(turns, trained=(turns[-1].role,), weights=None, last_only=True)
        for turns in actor_conversations(workspace)
        if plain or len(turns) > 2
    ]


def actor_conversations(workspace: Workspace) -> Iterator[tuple[Turn, ...]]:
    """Of each problem a demonstration, refinements of flawed attempts, and guided solutions."""
    s, chat = workspace.settings.actor, workspace.chat
    kinds = tuple(proposals.GUIDES)
    for i, problem in enumerate(workspace.train_problems[: s.num_problems]):
        rng = random.Random(problem.id)
        shown = demonstration(problem, s.misconceptions, rng=rng)
        yield (*chat.question(problem.question), chat.written('attempt', shown))
        for _ in range(s.refinements_per_problem):
            flawed = mistakes.corrupt(problem, rng=rng)
            refined = demonstration(problem, s.misconceptions, rng=rng, after=flawed)
            turns = criticised(workspace, problem, flawed)
            yield (*turns, chat.written('refinement', refined))
        for j in range(s.guided_per_problem):
            kind = kinds[(i + j) % len(kinds)]
            given = chat.question(problem.question, proposals.GUIDES[kind](problem))
            told = guided_demonstration(problem, s.misconceptions, kind, rng=rng)
            yield (*given, chat.written('attempt', told))


def guided_demonstration(
    problem: Problem, misconceptions: float, kind: str, *, rng: random.Random
) -> str:
    """What the teacher writes after a guide: a copied rationale, or an answer it was told.

    Told the answer, a fallible teacher tries until it reaches it, rightly or by two mistakes that
    cancel, and copies the reference after GUIDED_TRIES.
    """
    if kind == 'answer_driven':
        for _ in range(GUIDED_TRIES):
            shown = demonstration(problem, misconceptions, rng=rng)
            if answers.extract_answer(shown) == problem.answer:
                return shown
    return problem.solution


def criticised(workspace: Workspace, problem: Problem, attempt: str) -> tuple[Turn, ...]:
    """A question, an attempt and the annotator's critique of it."""
    chat = workspace.chat
    critique = oracle.annotate(problem, attempt)
    told = (chat.written('attempt', attempt), chat.written('critique', critique))
    return (*chat.question(problem.question), *told)


def demonstration(
    problem: Problem, misconceptions: float, *, rng: random.Random, after: str | None = None
) -> str:
    """The solution that the actor is shown: on the lab a teacher's, who has misconceptions.

    As a refinement `after` a flawed attempt it is right up to the line that the critique corrects.
    """
    if problem.source != 'lab':
        return problem.solution
    trusted = 0 if after is None else task.judge(problem.question, after).first_error + 1
    return task.demonstrate(
        problem.question, misconceptions=misconceptions, rng=rng, trusted=trusted
    )


def critic(workspace: Workspace, folder: pathlib.Path) -> dict:
    """SFT of the base, or of a model of the critic's own, on (question, attempt -> critique)."""
    data = workspace.stage_folder('critique') / 'episodes'
    return fit_critic(workspace, folder, critic_start(workspace, None), data, name='critic')


def critic_start(workspace: Workspace, last: pathlib.Path | None) -> Transformer:
    """What a critic is trained from: the `last` one, else what the config names."""
    s = workspace.settings.critic
    given = from_root(s.checkpoint) if s.checkpoint else workspace.model_folder('base')
    return workspace.load_to_train(last or given, s.lora, stage='critic')


def fit_critic(
    workspace: Workspace,
    folder: pathlib.Path,
    model: Transformer,
    data: pathlib.Path,
    *,
    name: str,
) -> dict:
    """Trains on the critiques of the episodes in the folder `data`."""
    examples = [
        workspace.chat.example(e.turns, trained=('critique',), weights=None, last_only=True)
        for e in records.read_episodes(data)
    ]
    settings = workspace.settings.critic.fit
    return fit(workspace, folder, model, examples, settings=settings, name=name)


def base_to_train(workspace: Workspace, settings: lora.LoraSettings, *, stage: str) -> Transformer:
    """The run's base as a stage trains it: whole, or frozen under the stage's own adapters."""
    return workspace.load_to_train(workspace.model_folder('base'), settings, stage=stage)


def fit(
    workspace: Workspace,
    folder: pathlib.Path,
    model: Transformer,
    examples: Sequence[Example],
    *,
    settings: sft.FitSettings,
    name: str,
) -> dict:
    """Fits, saves the model into the folder and returns totals; the order of data goes by `name`.

    Examples longer than a row are left out and counted; those of Documents must fit.
    """
    length, given = workspace.settings.train.length, len(examples)
    if not isinstance(examples, Documents):
        examples = [e for e in examples if len(e.tokens) <= length]
    if not examples:
        raise ValueError(
            f'{folder.name}: none of {given} examples fits train.length={length}; a longer row or '
            'more problems are needed'
        )
    with workspace.writer(folder) as writer:
        model, totals = sft.fit(
            model,
            examples,
            settings=settings,
            loop=workspace.settings.train,
            folder=folder,
            writer=writer,
            seed=workspace.seed(name),
            description=folder.name,
        )
    workspace.save_model(folder, model)
    return totals | {'examples': len(examples), 'examples_too_long': given - len(examples)}


STAGES = {'base': base, 'actor': actor, 'critic': critic}
