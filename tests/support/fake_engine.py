"""Engines without a model, which answer by a script: for tests of what is asked of the models.

All use the lab's tokenizer and implement sampling.engine.generator.Generator.
ScriptedEngine answers with a list of texts per role, RuleEngine with token ids that a function
computes from the request, AnsweringEngine with a text that a function computes from its text.
"""

import abc
import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from elenchus.data import records
from elenchus.data.critiques import grammars
from elenchus.data.lab import forms, task
from elenchus.data.text import chat
from elenchus.data.text import tokenizer as tokenizers
from elenchus.sampling import episodes, step_scores
from elenchus.sampling.engine.requests import Completion, Request
from elenchus.sampling.model_pair import ModelPair

TOKENIZER = tokenizers.lab_tokenizer()
CHAT = chat.Chat(TOKENIZER)
EOS = TOKENIZER.eos_id
LIMITS = {'attempt': 90, 'critique': 170, 'refinement': 90}
SCORER = step_scores.StepScorer(step_scores.ScoreShapes(1, (1,)), {'correct_id': 0, 'wrong_id': 1})
HEADERS = {TOKENIZER.special(name): name.strip('<>') for name in tokenizers.HEADERS}
"""Token id of a header -> its role."""
SAMPLED_HEADERS = {CHAT.header(role)[0]: role for role in records.PLAYER_OF_ROLE}
"""The same of the roles that a model writes."""


# Engines


@dataclasses.dataclass
class FakeEngine(abc.ABC):
    """Base class: a subclass chooses the tokens of each completion in `answer_ids`."""

    tokens: int = dataclasses.field(default=0, init=False)
    steps: int = dataclasses.field(default=0, init=False)
    calls: int = dataclasses.field(default=0, init=False)  # of generate

    def generate(self, model, requests, *, method, seed) -> list[Completion]:
        self.calls += 1
        completions = []
        for request in requests:
            ids = self.answer_ids(model, request, seed)
            done = Completion(request.id, ids, (-1.0,) * len(ids), ids[-1] == EOS, len(ids))
            self.tokens += len(ids)
            self.steps += done.steps
            completions.append(done)
        return completions

    @abc.abstractmethod
    def answer_ids(self, model, request: Request, seed: int) -> tuple[int, ...]:
        """Returns the tokens of a completion, with the end token unless it is cut off."""

    def with_prefix_cache(self) -> 'FakeEngine':
        return self


@dataclasses.dataclass
class ScriptedEngine(FakeEngine):
    """Answers with the next text of the role; texts of roles in `unfinished` have no end token."""

    texts: dict[str, list[str]]
    unfinished: tuple[str, ...] = ()

    def answer_ids(self, model, request, seed):
        role = SAMPLED_HEADERS[request.prompt[-1]]
        ids = tuple(TOKENIZER.encode(self.texts[role].pop(0)))
        return ids if role in self.unfinished else (*ids, EOS)


@dataclasses.dataclass
class RuleEngine(FakeEngine):
    """Answers with the ids rule(role, request, seed), cut to max_tokens; records all requests."""

    rule: Callable[[str, Request, int], Sequence[int]]
    requests: list[tuple[str, Request]] = dataclasses.field(default_factory=list)  # with role
    completion_lengths: list[int] = dataclasses.field(default_factory=list)

    def generate(self, model, requests, *, method, seed):
        assert len({request.id for request in requests}) == len(requests)
        return super().generate(model, requests, method=method, seed=seed)

    def answer_ids(self, model, request, seed):
        role = next(SAMPLED_HEADERS[t] for t in request.prompt[::-1] if t in SAMPLED_HEADERS)
        ids = tuple(self.rule(role, request, seed))[: request.max_tokens]
        self.requests.append((role, request))
        self.completion_lengths.append(len(ids))
        return ids

    def num_tokens(self, role: str) -> int:
        """Tokens generated so far in turns of a role."""
        pairs = zip(self.requests, self.completion_lengths, strict=True)
        return sum(length for (r, _), length in pairs if r == role)

    def num_processed(self, role: str) -> int:
        """Tokens of the prompts of all requests for turns of a role, and those generated."""
        return self.num_tokens(role) + sum(
            len(r.prompt) for name, r in self.requests if name == role
        )

    def num_requests(self, role: str) -> int:
        return sum(r == role for r, _ in self.requests)


class ParsedRequest(NamedTuple):
    """A request as text, cut at its headers."""

    texts: dict[str, str]  # of the turns before, by role
    role: str  # of the turn to write
    opening: str  # the part of that turn that is in the prompt
    model: object
    id: int


@dataclasses.dataclass
class AnsweringEngine(FakeEngine):
    """Answers with the text answer(parsed request), without an end token if it ends with '...'."""

    answer: Callable[[ParsedRequest], str]
    requests: list[ParsedRequest] = dataclasses.field(default_factory=list)

    def answer_ids(self, model, request, seed):
        parsed = parse_request(model, request)
        self.requests.append(parsed)
        text = self.answer(parsed)
        ids = tuple(TOKENIZER.encode(text.removesuffix('...').lstrip(' ')))
        ids = ids if text.endswith('...') else (*ids, EOS)
        assert len(ids) <= request.max_tokens, text
        return ids


def make_sampler(answer: Callable[[ParsedRequest], str], limits=LIMITS) -> episodes.Sampler:
    """A sampler on an AnsweringEngine."""
    return episodes.Sampler(AnsweringEngine(answer), CHAT, limits)


def players(engine) -> ModelPair:
    """Players without models on a fake engine."""
    sampler = episodes.Sampler(engine, CHAT, LIMITS)
    return ModelPair(sampler, None, None, judge, grammars.LAB)


# Prompts and texts


def parse_request(model, request: Request) -> ParsedRequest:
    starts = [i for i, token in enumerate(request.prompt) if token in HEADERS]
    ends = [*starts[1:], len(request.prompt)]
    turns = [
        (HEADERS[request.prompt[start]], TOKENIZER.decode(request.prompt[start + 1 : end]))
        for start, end in zip(starts, ends, strict=True)
    ]
    role, opening = turns.pop()
    return ParsedRequest(dict(turns), role, opening, model, request.id)


def last_text(request: Request, role: str) -> str:
    """The text of the last turn of a role in the prompt, complete or not."""
    tokens = list(request.prompt)
    start = len(tokens) - tokens[::-1].index(CHAT.header(role)[0])
    headers = {*SAMPLED_HEADERS, *CHAT.header('guide')}
    ends = [i for i in range(start, len(tokens)) if tokens[i] in headers]
    body = tokens[start : ends[0] if ends else len(tokens)]
    return TOKENIZER.decode([token for token in body if token != EOS])


def question_of(request: Request) -> str:
    tokens = list(request.prompt)
    return TOKENIZER.decode(tokens[1 : tokens.index(CHAT.header('attempt')[0])])


def ids_of(text: str) -> tuple[int, ...]:
    """Token ids of a finished turn."""
    return (*TOKENIZER.encode(text), EOS)


def lines_of(text: str) -> list[tuple[int, ...]]:
    """Token ids of each line, with its line break or the end token."""
    turn = CHAT.text_turn('attempt', text)
    starts = (0, *turn.step_ends[:-1])
    return [turn.tokens[a:b] for a, b in zip(starts, turn.step_ends, strict=True)]


# An actor that makes mistakes, and a critic that makes none


def problems(count: int) -> list[records.Problem]:
    return [forms.generate_problem(seed=0, split='train', index=i) for i in range(count)]


def critique(request: Request) -> tuple[int, ...]:
    """The oracle's critique of the attempt so far."""
    return ids_of(task.judge(question_of(request), last_text(request, 'attempt')).critique)


def next_line(request: Request) -> tuple[int, ...]:
    """The line of the reference solution that follows the attempt's lines."""
    num_lines = last_text(request, 'attempt').count('\n')
    return lines_of(task.solve(question_of(request)))[num_lines]


def rest_of_solution(request: Request, role: str) -> tuple[int, ...]:
    """The lines of the reference solution that follow the lines of the turn's opening."""
    num_lines = last_text(request, role).count('\n')
    question = last_text(request, 'question')
    return ids_of('\n'.join(task.solve(question).split('\n')[num_lines:]).lstrip())


def change_last_digit(line: tuple[int, ...]) -> tuple[int, ...]:
    """The line with the next digit in place of its last one, which makes it wrong."""
    *start, digit, end = line
    digits = [TOKENIZER.encode(str(n))[0] for n in range(10)]
    return (*start, digits[(digits.index(digit) + 1) % 10], end)


def careless(role: str, request: Request, seed: int) -> tuple[int, ...]:
    """Rule for RuleEngine: correct critiques; lines that are wrong in half of the cases."""
    if role == 'critique':
        return critique(request)
    line = next_line(request)
    is_wrong = random.Random(repr((request.id, request.prompt, seed))).random() < 0.5
    return change_last_digit(line) if is_wrong else line


def judge(pairs):
    """Judges like the lab's judge, without the process of a verifier: answers are digits."""
    facts = []
    for problem, text in pairs:
        judgement = task.judge(problem.question, text or '')
        answer = text.rpartition('#### ')[2].strip() if text and '#### ' in text else None
        facts.append(
            records.TurnFacts(
                answer=answer,
                correct=answer == problem.answer,
                steps_correct=judgement.correct,
                first_error=judgement.first_error,
                kind=judgement.kind,
            )
        )
    return facts


def step_rewards(critic, criticised, shapes, *, chat, correct_id, wrong_id):
    """Replaces step_scores.step_rewards: 0.9 if the critique says correct, 0.1 if it says wrong."""
    values = {True: 0.9, False: 0.1, None: None}
    rewards = []
    for episode in criticised:
        critique = grammars.LAB.parse(CHAT.text(episode.critique))
        count = len(episode.turns[-2].steps)
        scores = [values[step.correct] for step in critique.steps][:count]
        finished = CHAT.is_finished(episode.critique)
        final = values[critique.final_correct] if finished else None
        if len(scores) == count - 1 and final is not None:
            scores.append(final)
        unreached = 0.0 if finished and 0.1 in scores else None
        steps = (*scores, *[unreached] * (count - len(scores)))
        rewards.append(step_scores.StepScores(steps, final, len(scores), finished))
    return rewards
