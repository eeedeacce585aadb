"""Samples episodes of two players: attempt -> critique -> refinement, as token ids.

`Sampler` samples single turns. `sample_attempts`, `sample_critiques` and `sample_refinements` add
one turn to each episode, with the facts that a judge or the critique's text gives.
"""

import collections
import dataclasses
import functools
from collections.abc import Iterator, Sequence

from elenchus.data.critiques import grammars
from elenchus.data.grading import answers
from elenchus.data.grading.judge import Judge
from elenchus.data.records import Episode, Problem, Turn, TurnFacts
from elenchus.data.text.chat import Chat
from elenchus.model.transformer import Transformer
from elenchus.sampling.corrections import Correction, draw_again
from elenchus.sampling.engine import sampling_methods
from elenchus.sampling.engine.generator import Generator
from elenchus.sampling.engine.requests import Completion, Request
from elenchus.sampling.engine.sampling_methods import RuledMethod
from elenchus.sampling.paused_turns import AfterPause, Writer
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.tools import ToolUse


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Writes turns of conversations with an engine.

    Example, with an engine that always writes the same text, so that it runs without a model:

    >>> from elenchus.data.text import chat, tokenizer
    >>> from elenchus.sampling.engine.sampling_methods import Greedy
    >>> lab_chat = chat.Chat(tokenizer.lab_tokenizer())
    >>> class ConstantEngine:
    ...     def generate(self, model, requests, *, method, seed):
    ...         ids = (*lab_chat.tokenizer.encode('#### 7'), lab_chat.end_id)
    ...         logprobs = (0.0,) * len(ids)
    ...         return [Completion(r.id, ids, logprobs, True, len(ids)) for r in requests]
    >>> sampler = Sampler(ConstantEngine(), lab_chat, max_tokens={'attempt': 96})
    >>> spec = SampleSpec(num_samples=2, method=Greedy(()), seed=0, first_id=0)
    >>> question = lab_chat.question_turns('eve 7 ; eve ?')
    >>> ((first, second),) = sampler.sample_turns(None, [question], 'attempt', spec=spec)
    >>> sampler.text(first)
    '#### 7'
    """

    engine: Generator
    chat: Chat
    max_tokens: dict[str, int]  # longest turn, by role
    after_pause: AfterPause | None = None  # how a paused turn continues; None: none pauses
    tools: ToolUse | None = None  # answers tool calls; if given, turns pause for these alone

    def with_prefix_cache(self) -> 'Sampler':
        """Returns this sampler with an engine that keeps a prefix cache across calls.

        A critique's prompt begins with the attempt's prompt and tokens, so their keys and values
        need not be computed again.
        """
        return dataclasses.replace(self, engine=self.engine.with_prefix_cache())

    def sample_turns(
        self,
        model: Transformer,
        conversations: Sequence[Sequence[Turn]],
        role: str,
        *,
        spec: SampleSpec,
    ) -> list[list[Turn]]:
        """Samples `spec.num_samples` turns of `role` after each conversation."""
        openings = [Turn(role, self.chat.header(role), ())] * len(conversations)
        return self.continue_turns(model, conversations, openings, spec=spec)

    def continue_turns(
        self,
        model: Transformer,
        conversations: Sequence[Sequence[Turn]],
        openings: Sequence[Turn],
        *,
        spec: SampleSpec,
    ) -> list[list[Turn]]:
        """Samples `spec.num_samples` completions of openings[i], which follows conversations[i].

        An opening is the first part of a turn, possibly empty. Its tokens and log-probabilities
        are kept; a turn whose opening has tokens that were not sampled has no log-probabilities.
        An opening counts towards max_tokens of its role. Raises ValueError if it uses them up.
        """
        requests, method = self._requests(conversations, openings, spec), spec.method
        role = openings[0].role if openings else ''
        assert all(opening.role == role for opening in openings), 'turns of several roles'
        tools = self.tools if self.tools and role in self.tools.calls.roles else None
        pauses = bool(tools) or (self.tools is None and self.after_pause is not None)
        method = sampling_methods.of_role(method, role, pauses=pauses)

        def generate(requests: list[Request]) -> list[Completion]:
            try:
                return self.engine.generate(model, requests, method=method, seed=spec.seed)
            except FloatingPointError as error:
                if not isinstance(method, RuledMethod) or method.logits is None:
                    raise
                raise FloatingPointError(f'{error}, or {method.logits.name}') from error

        count = spec.num_samples
        turns = [
            self._join(openings[i // count], completion)
            for i, completion in enumerate(generate(requests))
        ]
        if tools or (isinstance(method, RuledMethod) and method.pause):
            limit = self.max_tokens[role]
            correction = None if tools else Correction.of(self.after_pause)
            again = None
            if correction is not None:
                again = functools.partial(
                    draw_again, model, correction=correction, method=method, seed=spec.seed
                )
            writer = Writer(self.chat, generate, self.after_pause, limit, tools, again)
            turns = writer.finish(turns, requests)
        return [turns[i * count : (i + 1) * count] for i in range(len(openings))]

    def _requests(
        self,
        conversations: Sequence[Sequence[Turn]],
        openings: Sequence[Turn],
        spec: SampleSpec,
    ) -> list[Request]:
        requests = []
        first_ids = spec.first_ids(len(openings))
        for turns, opening, first in zip(conversations, openings, first_ids, strict=True):
            # The sampled ids are the prompt of the next turn: text is never tokenised again.
            prompt = (*self.chat.context(turns, opening.role), *opening.tokens)
            room = self.max_tokens[opening.role] - len(opening.tokens)
            requests += [
                Request(first + j, prompt, room, opening=len(opening.tokens))
                for j in range(spec.num_samples)
            ]
        return requests

    def _join(self, opening: Turn, completion: Completion) -> Turn:
        was_sampled = len(opening.logprobs) == len(opening.tokens)
        turn = self.chat.sampled_turn(
            opening.role,
            (*opening.tokens, *completion.tokens),
            (*opening.logprobs, *completion.logprobs) if was_sampled else (),
            tools=opening.tools,
        )
        return dataclasses.replace(turn, forced=opening.forced) if opening.forced else turn

    def text(self, turn: Turn) -> str | None:
        """Returns the text of a turn, or None if it was cut off before its end token."""
        return self.chat.text(turn) if self.chat.is_finished(turn) else None


# One more turn


def sample_attempts(
    sampler: Sampler,
    actor: Transformer,
    problems: Sequence[Problem],
    *,
    judge: Judge,
    spec: SampleSpec,
    guides: Sequence[str | None] = (),
) -> list[Episode]:
    """Samples and judges `spec.num_samples` attempts at each problem, after its guide if any.

    The list has the attempts at problems[0] first, then those at problems[1], and so on.
    """
    questions = [
        sampler.chat.question_turns(problem.question, guide)
        for problem, guide in zip(problems, guides or [None] * len(problems), strict=True)
    ]
    groups = sampler.sample_turns(actor, questions, 'attempt', spec=spec)
    facts = _judge_groups(sampler, problems, groups, judge=judge)
    return [
        Episode(
            problem.id, problem.level, (*question, dataclasses.replace(turn, facts=next(facts)))
        )
        for problem, question, turns in zip(problems, questions, groups, strict=True)
        for turn in turns
    ]


def sample_critiques(
    sampler: Sampler,
    critic: Transformer,
    episodes: Sequence[Episode],
    *,
    grammar: grammars.Grammar,
    spec: SampleSpec,
) -> list[Episode]:
    """Adds one sampled critique to each episode, with what its text says as facts.

    `verdict` is True or False, or None for a critique that cannot be parsed; None never counts as
    "correct". `located` is the line of the first error, and `verdict_offsets` is where the
    verdicts begin in the text. spec.num_samples must be 1.
    """
    conversations = [e.turns for e in episodes]
    groups = sampler.sample_turns(critic, conversations, 'critique', spec=spec)
    criticised = []
    for episode, (turn,) in zip(episodes, groups, strict=True):
        reading = grammar.read(sampler.chat.text(turn))
        verdict = reading.critique.final_correct if sampler.chat.is_finished(turn) else None
        turn = turn.with_facts(
            verdict=verdict,
            located=_located_error(reading.critique, verdict),
            verdict_offsets=reading.offsets,
        )
        criticised.append(add_turn(episode, turn))
    return criticised


def sample_refinements(
    sampler: Sampler,
    actor: Transformer,
    episodes: Sequence[Episode],
    *,
    problems: Sequence[Problem],
    judge: Judge,
    spec: SampleSpec,
) -> list[list[Episode]]:
    """Samples and judges `spec.num_samples` refinements of each episode.

    problems[i] is the problem of episodes[i].
    """
    groups = sampler.sample_turns(actor, [e.turns for e in episodes], 'refinement', spec=spec)
    facts = _judge_groups(sampler, problems, groups, judge=judge)
    return [
        [add_turn(episode, dataclasses.replace(turn, facts=next(facts))) for turn in turns]
        for episode, turns in zip(episodes, groups, strict=True)
    ]


def _judge_groups(
    sampler: Sampler,
    problems: Sequence[Problem],
    groups: Sequence[Sequence[Turn]],
    *,
    judge: Judge,
) -> Iterator[TurnFacts]:
    """Judges groups[i], turns that answer problems[i], in one call; yields facts in order."""
    pairs = zip(problems, groups, strict=True)
    return iter(judge([(p, sampler.text(turn)) for p, turns in pairs for turn in turns]))


# Facts about episodes


def add_turn(episode: Episode, turn: Turn) -> Episode:
    """Returns the episode with one more turn at its end."""
    return dataclasses.replace(episode, turns=(*episode.turns, turn))


def add_critique(chat: Chat, episode: Episode, text: str, *, grammar: grammars.Grammar) -> Episode:
    """Returns the episode with a critique that was not sampled, and its final `verdict`."""
    verdict = grammar.parse(text).final_correct
    return add_turn(episode, chat.text_turn('critique', text).with_facts(verdict=verdict))


def is_valid_refinement(sampler: Sampler, episode: Episode, problem: Problem) -> bool:
    """Returns whether a judged refinement is correct and more than a bare answer.

    The second is the shortcut barrier (docs/methods.md, "Critique data").
    """
    refinement, text = episode.turn('refinement'), sampler.chat.text
    return refinement.facts.correct and answers.passes_barrier(
        text(refinement), problem.solution, text(episode.attempt)
    )


def as_attempt(sampler: Sampler, episode: Episode) -> Episode:
    """Returns question -> response, where the last turn becomes an attempt with its facts.

    The other turns (a guide, a refined attempt and its critique) and the facts of the whole
    episode are dropped.
    """
    header = sampler.chat.header('attempt')
    response = dataclasses.replace(episode.turns[-1], role='attempt', header=header)
    question = tuple(turn for turn in episode.turns if turn.role == 'question')
    return Episode(episode.problem_id, episode.level, (*question, response))


def sampled_tokens(episodes: Sequence[Episode]) -> int:
    """Counts the tokens that were generated for these episodes.

    Only sampled turns have log-probabilities; the others cost nothing.
    """
    return sum(turn.num_sampled for episode in episodes for turn in episode.turns)


def processed_tokens(chat: Chat, episode: Episode) -> dict[str, int]:
    """Counts by role the tokens of the model calls of an episode: each prompt and its turn.

    Only sampled turns have log-probabilities; the others were no call. A prompt counts in whole,
    even where a cache saves its computation.
    """
    counts = collections.Counter()
    for i, turn in enumerate(episode.turns):
        if turn.logprobs:
            counts[turn.role] += len(chat.context(episode.turns[:i], turn.role)) + len(turn.tokens)
    return dict(counts)


def _located_error(critique: grammars.Critique, verdict: bool | None) -> int | None:
    """First line that a critique calls wrong; the answer's line if only the answer is."""
    first = grammars.first_error(critique)
    return len(critique.steps) if first is None and verdict is False else first
