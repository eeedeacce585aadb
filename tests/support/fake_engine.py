"""Engines that answer by a script, on the lab's tokenizer: for tests without a model."""

import dataclasses
import random
from collections.abc import Callable, Sequence

from elenchus.data import records
from elenchus.data.critiques import grammars
from elenchus.data.lab import task
from elenchus.data.text import chat
from elenchus.data.text import tokenizer as tokenizers
from elenchus.sampling import episodes, step_scores
from elenchus.sampling.engine import engine
from elenchus.sampling.players import ModelPair

TOKENIZER = tokenizers.lab_tokenizer()
CHAT = chat.Chat(TOKENIZER)
EOS = TOKENIZER.eos_id
HEADERS = {CHAT.header(role)[0]: role for role in records.PLAYER_OF_ROLE}
LIMITS = {'attempt': 90, 'critique': 150, 'refinement': 90}
SCORER = step_scores.StepScorer(step_scores.ScoreShapes(1, (1,)), {'correct_id': 0, 'wrong_id': 1})


@dataclasses.dataclass
class Scripted:
    """An engine whose completions are given texts by role, in turn; `unfinished` are cut off."""

    texts: dict[str, list[str]]
    unfinished: tuple[str, ...] = ()

    def generate(self, model, requests, *, method, seed):
        made = []
        for request in requests:
            role = HEADERS[request.prompt[-1]]
            ids = tuple(TOKENIZER.encode(self.texts[role].pop(0)))
            made.append(complete(request, ids if role in self.unfinished else (*ids, EOS)))
        return made


@dataclasses.dataclass
class Ruled:
    """An engine whose completions follow from (role, request, seed); it keeps what it was asked."""

    rule: Callable[[str, engine.Request, int], Sequence[int]]
    asked: list[tuple[str, engine.Request]] = dataclasses.field(default_factory=list)
    made: list[engine.Completion] = dataclasses.field(default_factory=list)

    def generate(self, model, requests, *, method, seed):
        assert len({request.id for request in requests}) == len(requests)
        roles = [next(HEADERS[t] for t in r.prompt[::-1] if t in HEADERS) for r in requests]
        made = [
            complete(request, tuple(self.rule(role, request, seed))[: request.max_tokens])
            for role, request in zip(roles, requests, strict=True)
        ]
        self.asked += zip(roles, requests, strict=True)
        self.made += made
        return made

    def parking(self) -> 'Ruled':
        return self

    def tokens(self, role: str | None = None) -> int:
        """Tokens generated so far, of one role or of all."""
        pairs = zip(self.asked, self.made, strict=True)
        return sum(len(done.tokens) for (r, _), done in pairs if role in (None, r))

    def calls(self, role: str) -> int:
        return sum(r == role for r, _ in self.asked)


def complete(request, ids: tuple[int, ...]) -> engine.Completion:
    return engine.Completion(request.id, ids, (-1.0,) * len(ids), ids[-1] == EOS, len(ids))


def ids_of(text: str) -> tuple[int, ...]:
    """A finished turn's tokens."""
    return (*TOKENIZER.encode(text), EOS)


def said(request: engine.Request, role: str) -> str:
    """The text of the last turn of a role in a request's prompt, as far as it goes."""
    tokens = list(request.prompt)
    start = len(tokens) - tokens[::-1].index(CHAT.header(role)[0])
    headers = {*HEADERS, *CHAT.header('guide')}
    ends = [i for i in range(start, len(tokens)) if tokens[i] in headers]
    body = tokens[start : ends[0] if ends else len(tokens)]
    return TOKENIZER.decode([token for token in body if token != EOS])


# A reasoner that slips, and a critic that never does


def question_of(request: engine.Request) -> str:
    tokens = list(request.prompt)
    return TOKENIZER.decode(tokens[1 : tokens.index(CHAT.header('attempt')[0])])


def critique(request: engine.Request) -> tuple[int, ...]:
    """The oracle's critique of the attempt so far."""
    return ids_of(task.judge(question_of(request), said(request, 'attempt')).critique)


def lines_of(text: str) -> list[tuple[int, ...]]:
    """Token ids of each line, its line break or the end token included."""
    turn = CHAT.text_turn('attempt', text)
    starts = (0, *turn.step_ends[:-1])
    return [turn.tokens[a:b] for a, b in zip(starts, turn.step_ends, strict=True)]


def next_line(request: engine.Request) -> tuple[int, ...]:
    """The reference's line after those that the attempt has."""
    done = said(request, 'attempt').count('\n')
    return lines_of(task.solve(question_of(request)))[done]


def problems(count: int) -> list[records.Problem]:
    return [task.generate_problem(seed=0, split='train', index=i) for i in range(count)]


def rest_of_solution(request: engine.Request, role: str) -> tuple[int, ...]:
    """The reference solution's lines after those that the turn begins with."""
    done = said(request, role).count('\n')
    question = said(request, 'question')
    return ids_of('\n'.join(task.solve(question).split('\n')[done:]).lstrip())


def slip(line: tuple[int, ...]) -> tuple[int, ...]:
    """The line with another last digit."""
    *kept, digit, end = line
    digits = [TOKENIZER.encode(str(n))[0] for n in range(10)]
    return (*kept, digits[(digits.index(digit) + 1) % 10], end)


def careless(role: str, request: engine.Request, seed: int) -> tuple[int, ...]:
    """A line, one in two of which is wrong, by noise and id; a right critique."""
    if role == 'critique':
        return critique(request)
    line = next_line(request)
    return slip(line) if random.Random(repr((request, seed))).random() < 0.5 else line


def judge(pairs):
    """The lab's judge, without a verifier's process: answers are digits."""
    facts = []
    for problem, text in pairs:
        judgement = task.judge(problem.question, text or '')
        answer = text.rpartition('#### ')[2].strip() if text and '#### ' in text else None
        facts.append(
            {
                'answer': answer,
                'correct': answer == problem.answer,
                'steps_correct': judgement.correct,
                'first_error': judgement.first_error,
                'kind': judgement.kind,
            }
        )
    return facts


def step_rewards(critic, criticised, shapes, *, grammar, chat, correct_id, wrong_id):
    """Stands for steps.step_rewards: 0.9 where the critique says correct, 0.1 where wrong."""
    values = {True: 0.9, False: 0.1, None: 0.0}
    told = []
    for episode in criticised:
        critique = grammar.parse(CHAT.text(episode.turn('critique')))
        count = len(episode.turns[-2].step_ends)
        scores = [values[step.correct] for step in critique.steps][:count]
        final = None if critique.final_correct is None else values[critique.final_correct]
        if len(scores) == count - 1 and final is not None:
            scores.append(final)
        told.append(step_scores.StepScores((*scores, *[0.0] * (count - len(scores))), final))
    return told


def players(inner) -> ModelPair:
    sampler = episodes.Sampler(inner, CHAT, LIMITS)
    return ModelPair(sampler, None, None, judge, grammars.LAB)
