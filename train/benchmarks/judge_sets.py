"""Lets a critic judge labelled solutions: one greedy critique each, and several sampled ones."""

import dataclasses
import functools
from collections.abc import Sequence

from elenchus.data.critiques.labelled_solutions import LabelledSolution
from elenchus.data.records import Episode, Problem, Step, Turn
from elenchus.data.text import tokenizer as tokenizers
from elenchus.data.text.chat import Chat
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling import step_scores
from elenchus.sampling.engine.sampling_methods import Method
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.seeds import derive_seed
from elenchus.train.benchmarks.opening import Bench
from elenchus.train.run.directory import StageFolder
from elenchus.train.run.samplers import Samplers

GREEDY, SAMPLED = 'greedy', 'sampled'


def problem_of(solution: LabelledSolution) -> Problem:
    """Returns the question as a problem; its reference answer is not needed."""
    return Problem(solution.id, solution.question, '', '', 0, 'jsonl')


def episode_of(chat: Chat, solution: LabelledSolution) -> Episode:
    """Returns question and solution as an episode, with the truth among the attempt's facts."""
    attempt = attempt_turn(chat, solution.steps).with_facts(
        correct=solution.correct,
        steps_correct=solution.first_error is None,
        first_error=solution.first_error,
    )
    return Episode(solution.id, 0, (*chat.question_turns(solution.question), attempt))


def attempt_turn(chat: Chat, steps: Sequence[str]) -> Turn:
    """Returns an attempt that has exactly these steps.

    A critique quotes step by step, a step a line; so line breaks within a step become spaces.
    Under a prompt with numbered paragraphs they stay.
    """
    has_tags = 'paragraphs' in chat.prompts.critique.fields
    texts = list(steps) if has_tags else [' '.join(step.split()) for step in steps]
    turn = chat.text_turn('attempt', '\n'.join(texts))
    if len(turn.steps) == len(texts) and not has_tags:
        return turn
    tokens: list[int] = []
    ends = []
    for i, text in enumerate(texts):
        line = text + '\n' * (i + 1 < len(texts))
        if tokens:
            tokens += tokenizers.encode_continuation(chat.tokenizer, line)
        else:
            tokens += chat.tokenizer.encode(line)
        ends.append(len(tokens))
    ending = turn.tokens[len(chat.text_ids(turn)) :]
    ends[-1] += len(ending)
    return dataclasses.replace(turn, tokens=(*tokens, *ending), steps=tuple(map(Step, ends)))


def prompt_lengths(solutions: Sequence[LabelledSolution], chat: Chat) -> list[int]:
    """Returns the tokens of each critique's prompt."""
    return [len(chat.context(episode_of(chat, s).turns, 'critique')) for s in solutions]


def judge(
    bench: Bench, solutions: Sequence[LabelledSolution], stage: StageFolder, *, num_votes: int
) -> tuple[list[Episode], list[list[Episode]], int]:
    """Returns the greedy critique of each solution, `num_votes` sampled ones, and the tokens."""
    # A model of the lab writes in the lab's grammar, as in a chat.
    samplers = bench.samplers('lab' if bench.player.tokenizer_path is None else 'jsonl')
    sample = functools.partial(sample_critiques, bench, samplers, solutions, stage=stage)
    greedy, num_tokens = sample(name=GREEDY, method=samplers.greedy(), count=1)
    votes: list[list[Episode]] = []
    if num_votes:
        sampled, more = sample(name=SAMPLED, method=samplers.method(), count=num_votes)
        votes = [sampled[i : i + num_votes] for i in range(0, len(sampled), num_votes)]
        num_tokens += more
    return greedy, votes, num_tokens


def sample_critiques(
    bench: Bench,
    samplers: Samplers,
    solutions: Sequence[LabelledSolution],
    *,
    stage: StageFolder,
    name: str,
    method: Method,
    count: int,
) -> tuple[list[Episode], int]:
    """Samples `count` critiques of each solution, part by part, with the scores of its steps."""
    parts = stage.parts(name, solutions, description=name)
    pair = samplers.pair(bench.actor, bench.critic)
    for part in parts.missing():
        episodes = [episode for s in part.items for episode in [episode_of(bench.chat, s)] * count]
        first = part.first * count
        spec = SampleSpec(1, method, derive_seed(bench.settings.seed, 'judge', name), first)
        criticised = episode_lib.sample_critiques(
            pair.sampler, pair.critic, episodes, grammar=pair.grammar, spec=spec
        )
        part.write(score(pair, samplers, criticised), episode_lib.sampled_tokens(criticised))
    return parts.read()


def score(pair: ModelPair, samplers: Samplers, criticised: Sequence[Episode]) -> list[Episode]:
    """Adds step rewards, of a grammar whose verdicts have a place in the text."""
    if pair.grammar.name == 'boxed':
        return list(criticised)
    return step_scores.score_steps(pair, criticised, scorer=samplers.scorer())
