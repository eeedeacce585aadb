"""Attempts of an actor alone at the test problems, plain, after a guide, or at edited questions."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from elenchus.data import records
from elenchus.data.grading.judge import Judge
from elenchus.data.records import Episode, Problem, RolloutGroup
from elenchus.data.text.chat import Chat
from elenchus.model.transformer import Transformer
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling import user_functions
from elenchus.sampling.engine.sampling_methods import Method
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.exploration import guides as guide_lib
from elenchus.sampling.exploration import making
from elenchus.sampling.metrics import measures
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.seeds import derive_seed
from elenchus.sampling.writing import Notes
from elenchus.train.config.run_settings import EvaluateSettings
from elenchus.train.run.directory import StageFolder
from elenchus.train.run.parts import Part
from elenchus.train.run.samplers import Samplers
from elenchus.train.stages.evaluate_figures import by_level


def sample_attempts(
    sampler: Sampler,
    actor: Transformer,
    problems: Sequence[Problem],
    *,
    judge: Judge,
    method: Method,
    seed: int,
    num_samples: int,
    first: int,
    guides: Sequence[str | None] = (),
) -> list[Episode]:
    """Samples attempts at test problems from index `first` on; noise is shared by all actors."""
    return episode_lib.sample_attempts(
        sampler,
        actor,
        problems,
        judge=judge,
        spec=SampleSpec(num_samples, method, seed, first * num_samples),
        guides=guides,
    )


def sample_actor(
    actor: Transformer,
    problems: Sequence[Problem],
    *,
    settings: EvaluateSettings,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
    name: str,
    condition: str = '',
) -> tuple[Sequence[Episode], int]:
    """Samples an actor's attempts alone, into the folder `name`, with the noise of `evaluate`.

    `condition` names a function of CONDITIONS, after whose guides attempts are sampled.
    """
    parts = stage.parts(name, problems, description='evaluate')
    for part in parts.missing():
        pair = samplers.pair(actor, actor)
        before = pair.sampler.engine.tokens
        guides = guides_of(condition, pair, part, samplers=samplers, seed=seed)
        written = pair.sampler.engine.tokens - before
        episodes = sample_attempts(
            pair.sampler,
            actor,
            part.items,
            judge=samplers.inputs.judge,
            method=samplers.method(),
            seed=derive_seed(seed, 'evaluate'),
            num_samples=settings.num_attempts,
            first=part.first,
            guides=guides,
        )
        part.write(episodes, written + episode_lib.sampled_tokens(episodes))
    return parts.read()


def guides_of(
    condition: str, pair: ModelPair, part: Part[Problem], *, samplers: Samplers, seed: int
) -> list[str | None]:
    """Returns the guide of each problem of a part; [] without a condition.

    A function with the attribute `writes` lets the actor write the guide. A problem whose guide is
    missing or leaves no room then gets None, and is attempted without a guide.
    """
    if not condition:
        return []
    function = measures.CONDITIONS.find(condition, 'evaluate.conditions')
    if not getattr(function, 'writes', False):
        return [measures.guide(condition, problem) for problem in part.items]
    room = samplers.settings.prompt_room
    texts = guide_lib.guides(
        pair,
        [(problem, Notes()) for problem in part.items],
        reference=condition,
        spec=SampleSpec(1, samplers.method(), derive_seed(seed, 'conditions'), part.first),
        room=room,
        field='evaluate.conditions',
        slot=measures.CONDITIONS,
    )
    chat = pair.sampler.chat
    prompts = [chat.question_turns(p.question, t) for p, t in zip(part.items, texts, strict=True)]
    lengths = [len(chat.context(prompt, 'attempt')) for prompt in prompts]
    return [t if length <= room else None for t, length in zip(texts, lengths, strict=True)]


def evaluate_conditions(
    actor: Transformer,
    problems: Sequence[Problem],
    *,
    settings: EvaluateSettings,
    samplers: Samplers,
    seed: int,
    stage: StageFolder,
    sample_edited: Callable[..., tuple[Sequence[Episode], int]],
) -> tuple[dict[str, dict], dict[str, list[RolloutGroup]], int]:
    """Samples attempts after the guides of `settings.conditions`, or at its edited questions.

    sample_edited(problems, name=folder) samples the latter: attempts with critique and refinement.
    Returns {'conditions': figures by name}, or {} without any; the groups by name; and the tokens.
    """
    figures, by_name, num_tokens = {}, {}, 0
    for reference in settings.conditions:
        name = reference.rpartition(':')[2]
        folder, posed = f'conditions/{name}', list(problems)
        if edits(reference):
            posed = edited_problems(reference, problems, chat=samplers.inputs.chat)
            episodes, count = sample_edited(posed, name=folder)
        else:
            episodes, count = sample_actor(
                actor,
                problems,
                settings=settings,
                samplers=samplers,
                seed=seed,
                stage=stage,
                name=folder,
                condition=reference,
            )
        groups = by_name[name] = records.group_episodes(posed, episodes)
        right = [np.mean([e.attempt.facts.correct for e in group]) for group in groups]
        figures[name] = {'accuracy': by_level(settings, posed, right), 'tokens': count}
        num_tokens += count
    return ({'conditions': figures} if figures else {}), by_name, num_tokens


def edits(condition: str) -> bool:
    """Returns whether a function of CONDITIONS gives other questions in place of guides."""
    function = measures.CONDITIONS.find(condition, 'evaluate.conditions')
    return getattr(function, 'edits', False)


def edited_problems(condition: str, problems: Sequence[Problem], *, chat: Chat) -> list[Problem]:
    """Returns the problems whose question a function of CONDITIONS replaces, with the new question.

    On the lab its solver gives solution and answer; elsewhere they stay, and may become wrong.
    Questions longer than every given one are left out, because lengths were checked for those.
    Raises ValueError, naming the function, if it returns no text or no question of the lab, or if
    no problem is left.
    """
    function = measures.CONDITIONS.find(condition, 'evaluate.conditions')

    def num_tokens(problem: Problem) -> int:
        return len(chat.question_turns(problem.question)[-1].tokens)

    longest, edited = max(map(num_tokens, problems)), []
    for problem in problems:
        question = measures.guide(condition, problem)
        new = dataclasses.replace(problem, question=question)
        if problem.source == 'lab' and question:
            solved = making.derive_problem(problem, question, '', name='edited')
            if solved is None:
                wanted = 'a question of the lab, or an empty text'
                user_functions.refuse(function, question, wanted, field='evaluate.conditions')
            new = dataclasses.replace(solved, id=problem.id)
        if question and num_tokens(new) <= longest:
            edited.append(new)
    if not edited:
        wanted = f'for some problem another question, of at most {longest} tokens'
        user_functions.refuse(function, '', wanted, field='evaluate.conditions')
    return edited
